"""Robot commands: SCAN (Lake and Baroni 2018) where `ANTIPHON_DATA` has it, else part of its grammar."""

import os
from itertools import product
from pathlib import Path
from random import Random

from antiphon import Seq2Seq

DEEDS = {"walk": "I_WALK", "look": "I_LOOK", "run": "I_RUN", "jump": "I_JUMP"}
SIDES = {"left": "I_TURN_LEFT", "right": "I_TURN_RIGHT"}
TIMES = {"": 1, "twice": 2, "thrice": 3}


def phrases() -> dict[str, list[str]]:
    """`jump opposite left twice`, and what it means."""
    found = {}
    for (deed, act), (side, turn), (times, count) in product(DEEDS.items(), SIDES.items(), TIMES.items()):
        meanings = {deed: [act], f"{deed} {side}": [turn, act], f"{deed} opposite {side}": [turn, turn, act]}
        found |= {f"{phrase} {times}".strip(): actions * count for phrase, actions in meanings.items()}
    return found


def made_up() -> list[tuple[str, str]]:
    known = phrases()
    pairs = [(phrase, " ".join(actions)) for phrase, actions in known.items()]
    for (one, first), (other, second) in product(known.items(), repeat=2):
        pairs += [(f"{one} and {other}", " ".join(first + second)), (f"{one} after {other}", " ".join(second + first))]
    return pairs


def real(folder: Path) -> list[tuple[str, str]]:
    rows = (line.split("\t") for line in (folder / "simple.train.tsv").read_text(encoding="utf-8").splitlines())
    return [(command, actions) for command, actions in rows]


data = os.environ.get("ANTIPHON_DATA")
pairs = real(Path(data) / "scan") if data else made_up()
Random(1).shuffle(pairs)
test, train = pairs[:200], pairs[200:6000]

model = Seq2Seq("transduction", minutes=0.3 if not data else 10).fit(train)
for command in ["jump left twice", "walk opposite right after look"]:
    print(f"{command}\n  -> {model.predict([command])[0]}")
print(f"exact match on {len(test)} held-out commands: {model.score(test, 'exact'):.1f} %")
