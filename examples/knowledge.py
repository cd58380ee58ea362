"""Facts become sentences, about names that training never had as well."""

import random

from antiphon import Seq2Seq
from antiphon.data.columns import Pair

SAID = {"birthPlace": "{0} was born in {1} .", "leaderName": "{1} leads {0} ."}


def name(draw: random.Random) -> str:
    return "".join(draw.choice("bdfgklmnprst") + draw.choice("aeiou") for _ in range(3)).title()


draw = random.Random(1)
rows = []
for _ in range(2000):
    relation, subject, thing = draw.choice(sorted(SAID)), name(draw), name(draw)
    rows.append({"facts": [[subject, relation, thing]], "target": SAID[relation].format(subject, thing)})

settings = {"model.knowledge.kind": "graph", "model.head": "copy", "data.shared": True}
model = Seq2Seq("data-to-text", minutes=0.5, settings=settings).fit(rows)

fact = Pair("", "", (), {"facts": "Tokade | leaderName | Nibosu"})
print(model.predict([fact]))
