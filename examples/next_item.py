"""Recommendation: what somebody took so far is a source, what they take next is its label. The readers are made up."""

from dataclasses import replace
from random import Random

from antiphon import Seq2Seq

SERIES = {name: [f"{name}-{volume}" for volume in range(1, 7)] for name in ("dune", "earthsea", "foundation", "narnia")}


def made_up(count: int = 4000) -> list[tuple[str, str]]:
    """People read two series side by side and mostly go on with the one they read last."""
    draw, pairs = Random(1), []
    for _ in range(count):
        ahead = {name: iter(SERIES[name]) for name in draw.sample(sorted(SERIES), 2)}
        name, read = draw.choice(sorted(ahead)), []
        for _ in range(draw.randint(3, 6)):
            name = name if draw.random() < 0.8 else draw.choice(sorted(ahead))
            read.append(next(ahead[name]))
        pairs.append((" ".join(read[:-1]), read[-1]))
    return pairs


pairs = made_up()
test, train = pairs[:500], pairs[500:]
model = Seq2Seq("classification", minutes=0.1).fit(train)

three = replace(model.predictor.config.decoding, beam=3, n_best=3)
for answers in model.predictor.predict(["dune-1 dune-2", "narnia-1 dune-1 narnia-2"], settings=three):
    print(
        " ".join(answers[0].source_tokens),
        "->",
        ", ".join(f"{each.text} {each.probabilities[0]:.0%}" for each in answers),
    )

ranked = list(model.predictor.predict((source for source, _ in test), settings=three))
for count in (1, 3):
    hits = sum(
        wanted in [each.text for each in answers[:count]] for answers, (_, wanted) in zip(ranked, test, strict=True)
    )
    print(f"the next item is among the first {count} for {hits / len(test):.1%} of {len(test)} held-out readers")
