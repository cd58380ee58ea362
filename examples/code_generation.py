"""Code from descriptions: Django lines where `ANTIPHON_DATA` names a folder that has them, else made-up statements."""

import os
from pathlib import Path
from random import Random

from antiphon import Seq2Seq

NAMES = [f"{what}{part}" for what in ("user", "file", "page", "node", "word") for part in ("", "_id", "_name", "_size")]
NUMBERS = {"zero": 0, "one": 1, "two": 2, "three": 3, "ten": 10}
TESTS = {"is": "==", "is not": "!=", "is above": ">", "is below": "<"}


def made_up(count: int = 3000) -> list[tuple[str, str]]:
    draw, pairs = Random(1), set()
    for _ in range(count):
        one, other = draw.sample(NAMES, 2)
        (word, number), (test, sign) = draw.choice([*NUMBERS.items()]), draw.choice([*TESTS.items()])
        statements = [
            (f"set {one} to {word}", f"{one} = {number}"),
            (f"add {word} to {one}", f"{one} += {number}"),
            (f"append {one} to {other}", f"{other} . append ( {one} )"),
            (f"return the length of {one}", f"return len ( {one} )"),
        ]
        said, written = draw.choice(statements)
        if draw.random() < 0.5:
            said, written = f"if {one} {test} {word} then {said}", f"if {one} {sign} {number} : {written}"
        pairs.add((said, written))
    return sorted(pairs)


def real(folder: Path) -> list[tuple[str, str]]:
    rows = (line.split("\t") for line in (folder / "train.tsv").read_text(encoding="utf-8").split("\n") if line)
    return [(said, written.strip()) for said, written in rows]


data = os.environ.get("ANTIPHON_DATA")
pairs = real(Path(data) / "django_code") if data else made_up()
Random(2).shuffle(pairs)
test, train = pairs[:200], pairs[200:]

model = Seq2Seq("code", minutes=0.2 if not data else 10).fit(train)
for (source, target), answer in zip(test[:5], model.predict([source for source, _ in test[:5]]), strict=True):
    print(f"{source}\n  -> {answer}{'' if answer == target else f'   (not {target})'}")
print(f"exact match on {len(test)} held-out statements: {model.score(test, 'exact'):.1f} %")
