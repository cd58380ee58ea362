"""Summaries of chats: SAMSum where `ANTIPHON_DATA` names a folder that has it, else made-up arrangements to meet."""

import os
from pathlib import Path
from random import Random

from antiphon import Seq2Seq

NAMES = ["Ann", "Bob", "Cem", "Dia", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jun"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
PLACES = ["at the park", "at the station", "at the museum", "in the library", "in the café", "by the river"]
EXCUSES = ["I have to work", "my aunt is here", "I will be tired", "that is too soon"]


def made_up(count: int = 3000) -> list[tuple[str, str]]:
    """Somebody asks for a day; who tells it again keeps what was agreed on."""
    draw, pairs = Random(1), []
    for _ in range(count):
        one, other = draw.sample(NAMES, 2)
        first, second = draw.sample(DAYS, 2)
        place, excuse = draw.choice(PLACES), draw.choice(EXCUSES)
        asked = f"{one}: Can you come on {first}?"
        if draw.random() < 0.5:
            pairs.append((f"{asked} {other}: Yes, {place}.", f"{one} and {other} meet on {first} {place}."))
        else:
            pairs.append((f"{asked} {other}: No, {excuse}, but on {second}!", f"{one} and {other} meet on {second}."))
    return pairs


def real(folder: Path) -> list[tuple[str, str]]:
    rows = (line.split("\t") for line in (folder / "train.tsv").read_text(encoding="utf-8").split("\n") if line)
    return [(chat, summary) for chat, summary in rows]


data = os.environ.get("ANTIPHON_DATA")
pairs = real(Path(data) / "samsum") if data else made_up()
Random(2).shuffle(pairs)
test, train = pairs[:100], pairs[100:]

model = Seq2Seq("summarization", minutes=0.3 if not data else 10).fit(train)
for (source, target), answer in zip(test[:3], model.predict([source for source, _ in test[:3]]), strict=True):
    print(f"{source}\n  -> {answer}\n     ({target})")
print(f"chrF on {len(test)} held-out chats: {model.score(test, 'chrf'):.1f}")
