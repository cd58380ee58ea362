"""A chat that remembers: DailyDialog where `ANTIPHON_DATA` names a folder that has it, else made-up small talk."""

import os
from pathlib import Path
from random import Random

from antiphon import Chat, Seq2Seq

NAMES = ["Ann", "Bob", "Cem", "Dia", "Eva", "Finn", "Gus", "Hana"]
THINGS = ["tea", "rain", "music", "chess", "bread", "snow", "old films", "the sea"]


def made_up(count: int = 1200) -> list[dict[str, list[str]]]:
    """What somebody likes, or is called, can only be known from what they said before."""
    draw, dialogues = Random(1), []
    for _ in range(count):
        name, thing = draw.choice(NAMES), draw.choice(THINGS)
        told = [
            [f"My name is {name}.", f"Nice to meet you, {name}."],
            [f"I like {thing}.", f"Oh, {thing}! So do I."],
        ]
        asked = [["What is my name?", f"You are {name}."], ["What do I like?", f"You like {thing}."]]
        draw.shuffle(told)
        dialogues.append({"turns": [*told[0], *told[1], *draw.choice(asked)]})
    return dialogues


def real(folder: Path) -> list[dict[str, list[str]]]:
    lines = (folder / "train.dialogues.tsv").read_text(encoding="utf-8").splitlines()
    turns = ([turn.strip() for turn in line.split("\t") if turn.strip()] for line in lines)
    return [{"turns": said} for said in turns if len(said) > 1]


data = os.environ.get("ANTIPHON_DATA")
dialogues = real(Path(data) / "dailydialog") if data else made_up()
test, train = dialogues[:100], dialogues[100:]

model = Seq2Seq("dialogue", minutes=0.2 if not data else 10).fit(train)
chat = Chat(model.predictor)
for line in ["I like chess.", "My name is Dia.", "What do I like?"]:
    print(f"you> {line}\nit>  {chat.say(line)}")
print(f"{len(chat.history)} turns so far, of which it sees the latest {chat.remembered}")
print(f"BLEU of all answers in {len(test)} held-out dialogues: {model.score(test, 'bleu'):.1f}")
