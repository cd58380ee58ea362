"""Sentiment: a label is an answer of one token. The opinions are made up; a negation turns them round."""

from itertools import product
from random import Random

from antiphon import Seq2Seq

THINGS = ["the food", "the film", "this book", "our room", "the music", "the service", "the view", "the ending"]
GOOD = ["good", "wonderful", "friendly", "charming", "worth it", "a joy"]
BAD = ["bad", "awful", "boring", "a shame", "too long", "a mess"]
PLAIN = ["is", "was simply", "turned out to be", "is really", "seemed", "was"]
TURNED = ["is not", "was never"]
ENDS = ["", "indeed", "in my opinion"]


def made_up() -> list[tuple[str, str]]:
    pairs = []
    for thing, word, verb, end in product(THINGS, GOOD + BAD, PLAIN + TURNED, ENDS):
        positive = (word in GOOD) != (verb in TURNED)
        pairs.append((f"{thing} {verb} {word} {end}".strip(), "positive" if positive else "negative"))
    return pairs


pairs = made_up()
Random(1).shuffle(pairs)
test, train = pairs[:500], pairs[500:]

model = Seq2Seq("classification", minutes=0.1).fit(train)
for [answer] in model.predictor.predict(["the film was never boring", "our room is not charming in my opinion"]):
    print(f"{' '.join(answer.source_tokens)}  ->  {answer.text}, {answer.probability:.0%} sure")

held_out = [{"source": source, "target": label} for source, label in test]
print(f"accuracy on {len(test)} held-out opinions: {model.score(held_out, 'accuracy'):.1f} %")
print(f"macro F1: {model.score(held_out, 'macro_f1'):.1f} %")
