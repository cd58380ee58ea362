"""Facts to text: E2E restaurants where `ANTIPHON_DATA` names a folder that has them, else made-up ones like them."""

import os
from itertools import product
from pathlib import Path
from random import Random

from antiphon import Seq2Seq

NAMES = ["The Mill", "Blue Spice", "Aromi", "Zizzi", "The Eagle", "Cotto", "Giraffe", "The Vaults"]
KINDS = {"pub": "a pub", "café": "a café", "restaurant": "a restaurant"}
FOODS = ["Italian", "French", "Indian", "Japanese", "English"]
AREAS = {"centre": "in the city centre", "riverside": "by the river"}
FAMILIES = {"yes": "Children are welcome.", "no": "It is not for children.", "": ""}


def made_up() -> list[tuple[str, str]]:
    """Facts are written `kind[value]`; not every fact is known of every place."""
    pairs = []
    everything = product(NAMES, KINDS, [*FOODS, ""], [*AREAS, ""], FAMILIES)
    for name, kind, food, area, family in everything:
        facts = {"name": name, "kind": kind, "food": food, "area": area, "family": family}
        text = f"{name} is {KINDS[kind]}" + f" {AREAS.get(area, '')}".rstrip()
        text += f" that serves {food} food." if food else "."
        source = ", ".join(f"{fact}[{value}]" for fact, value in facts.items() if value)
        pairs.append((source, f"{text} {FAMILIES[family]}".strip()))
    return pairs


def real(folder: Path) -> list[tuple[str, str]]:
    rows = (line.split("\t") for line in (folder / "train.tsv").read_text(encoding="utf-8").splitlines())
    return [(facts, text) for facts, text in rows]


data = os.environ.get("ANTIPHON_DATA")
pairs = real(Path(data) / "e2e_nlg") if data else made_up()
Random(1).shuffle(pairs)
test, train = pairs[:100], pairs[100:]

model = Seq2Seq("data-to-text", minutes=0.2 if not data else 10).fit(train)
for (source, target), answer in zip(test[:3], model.predict([source for source, _ in test[:3]]), strict=True):
    print(f"{source}\n  -> {answer}\n     ({target})")
print(f"chrF on {len(test)} held-out places: {model.score(test, 'chrf'):.1f}")
