"""Translation: English to German, from Multi30k where `ANTIPHON_DATA` names a folder that has it, else made up."""

import os
from itertools import permutations, product
from pathlib import Path
from random import Random

from antiphon import Seq2Seq

# Noun: German subject, German object.
NOUNS = {
    "the dog": ("der Hund", "den Hund"), "the cat": ("die Katze", "die Katze"), "the child": ("das Kind", "das Kind"),
    "the man": ("der Mann", "den Mann"), "the woman": ("die Frau", "die Frau"), "the horse": ("das Pferd", "das Pferd"),
    "the bird": ("der Vogel", "den Vogel"), "the cow": ("die Kuh", "die Kuh"),
}  # fmt: skip
VERBS = {"sees": "sieht", "hears": "hört", "likes": "mag", "follows": "verfolgt", "finds": "findet"}
TIMES = {"": "", "today": "heute", "now": "jetzt", "often": "oft"}


def made_up() -> list[tuple[str, str]]:
    """After a word of time a German sentence goes on with its verb."""
    pairs = []
    for (subject, object_), (verb, deed), (time, when) in product(permutations(NOUNS, 2), VERBS.items(), TIMES.items()):
        who, whom = NOUNS[subject][0], NOUNS[object_][1]
        german = f"{when} {deed} {who} {whom}" if when else f"{who} {deed} {whom}"
        pairs.append((f"{time} {subject} {verb} {object_}".strip(), german))
    return pairs


def real(folder: Path) -> list[tuple[str, str]]:
    english, german = ((folder / f"train.{name}").read_text(encoding="utf-8").splitlines() for name in ("en", "de"))
    return list(zip(english, german, strict=True))


data = os.environ.get("ANTIPHON_DATA")
pairs = real(Path(data) / "multi30k") if data else made_up()
Random(1).shuffle(pairs)
test, train = pairs[:200], pairs[200:]

model = Seq2Seq("translation", minutes=0.2 if not data else 10).fit(train)
for (source, target), answer in zip(test[:5], model.predict([source for source, _ in test[:5]]), strict=True):
    print(f"{source}\n  -> {answer}\n     ({target})")
print(f"chrF on {len(test)} held-out sentences: {model.score(test, 'chrf'):.1f}")
