"""Query rewriting: a question that leans on the one before becomes one that stands alone. The questions are made up."""

from itertools import product
from random import Random

from antiphon import Seq2Seq
from antiphon.data.turns import Turn, join

THINGS = ["Hamlet", "Faust", "Emma", "Ulysses", "Carmen", "Aida", "Tosca", "Dune", "Solaris", "Candide"]
PEOPLE = ["Goethe", "Verdi", "Bizet", "Joyce", "Austen", "Voltaire", "Lem", "Herbert", "Puccini", "Shakespeare"]
ABOUT_THINGS = {
    "when did it appear": "when did {} appear",
    "and who wrote it": "who wrote {}",
    "how long is it": "how long is {}",
    "is it sad": "is {} sad",
    "where is it set": "where is {} set",
}
ABOUT_PEOPLE = {
    "where was he born": "where was {} born",
    "and what else did he write": "what else did {} write",
    "when did he die": "when did {} die",
    "was he rich": "was {} rich",
}
BEFORE = ["tell me about {}", "what do you know of {}", "who does not know {}", "I am reading about {}"]


def made_up() -> list[tuple[str, str]]:
    pairs = []
    for names, questions in ((THINGS, ABOUT_THINGS), (PEOPLE, ABOUT_PEOPLE)):
        for name, before, (leaning, alone) in product(names, BEFORE, questions.items()):
            pairs.append((join([Turn(before.format(name)), Turn(leaning)]), alone.format(name)))
    return pairs


pairs = made_up()
Random(1).shuffle(pairs)
test, train = pairs[:60], pairs[60:]

model = Seq2Seq("dialogue", minutes=0.15, settings={"model.head": "copy", "training.metric": "exact"}).fit(train)
for (source, _), answer in zip(test[:5], model.predict([source for source, _ in test[:5]]), strict=True):
    print(f"{source}\n  -> {answer}")
print(f"exact match on {len(test)} held-out questions: {model.score(test, 'exact'):.1f} %")
