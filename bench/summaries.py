"""Summaries of dialogues on SAMSum: likelihood, then learning from ROUGE-L, and its controls.

    ANTIPHON_DATA=... python bench/summaries.py [--minutes 40] [--more 10] [--out FOLDER] [key=value ...]

An LSTM with additive attention and copying learns by likelihood with the coverage loss; from there trainings of the
same length go on: by likelihood, self-critical on ROUGE-L and on a constant, and by minimum risk. `--minutes` and
`--more` are those of the first training and of each further one; settings go to all. ROUGE on the 819 test dialogues
with intervals, and ROUGE-L paired with the controls; `:stem` and Lsum are how published figures are counted. The first
and the longest three turns of each dialogue are scored too. JSON on standard output. What is in the folder already is
not trained again.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from _commands import antiphon, data_sets, kept
from _judging import above, answers, scored

METRICS = ("rouge1", "rouge2", "rougeL", "rouge1:stem", "rouge2:stem", "rougeLsum:stem")
COMPARED = ("rougeL", "rougeLsum:stem")
TURN = re.compile(r"(?:(?<=\s)|^)(?=[A-Z][\w.'-]*(?: [A-Z][\w.'-]*)?: )")
NETWORK = ["model.encoder.kind=lstm", "model.decoder.kind=lstm", "model.attention=additive", "training.coverage=0.2"]
JUDGED = "training.metric=rougeL"
DRAWN = [JUDGED, "training.likelihood=0.02", "training.rate=0.0003"]
SELF = ["training.objective=self-critical", "data.batch_tokens=32768", *DRAWN]
RISK = ["training.objective=minimum-risk", "data.batch_tokens=16384", *DRAWN]
MORE: dict[str, list[str]] = {
    "longer": [JUDGED, "training.rate=0.0001"],
    "constant": [*SELF, "training.reward=constant"],
    "self-critical": [*SELF, "training.reward=rougeL"],
    "minimum-risk": [*RISK, "training.reward=rougeL"],
}
"""How training goes on."""


def train(name: str, data: Path, out: Path, words: list[str]) -> float:
    """Train unless that is done; gives the CPU seconds."""
    if (out / name / "best").exists():
        return 0.0
    files = [str(data / "train.tsv"), "--valid", str(data / "valid.tsv"), "--task", "summarization"]
    return antiphon("train", *files, "--out", str(out / name), *words).cpu_seconds


def extracts(source: str) -> dict[str, str]:
    """Three turns of a dialogue, `Name: what is said`: the first ones, and the longest."""
    turns = [turn.strip() for turn in TURN.split(source) if turn.strip()]
    return {"first turns": "\n".join(turns[:3]), "longest turns": "\n".join(sorted(turns, key=len)[:-4:-1])}


def main() -> None:
    """Train, answer, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--more", type=float, default=10)
    parser.add_argument("--ways", default=",".join(MORE))
    parser.add_argument("--out", type=Path, help="keep the runs in this folder, and use those that are there")
    parser.add_argument("settings", nargs="*", help="settings of the trainings, such as training.threads=1")
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return
    data, settings = root / "samsum", options.settings
    lines = (data / "test.tsv").read_text(encoding="utf-8").split("\n")[:-1]
    sources, targets = zip(*(line.split("\t") for line in lines), strict=True)
    references, said, result = [[target] for target in targets], dict[str, list[str]](), dict[str, Any]()
    for name in ("first turns", "longest turns"):
        taken = [extracts(source)[name] for source in sources]
        result[name] = {metric: scored(metric, taken, references) for metric in METRICS}
    with kept(options.out) as out:
        trainings = {"likelihood": [*NETWORK, f"training.minutes={options.minutes}"]}
        for way in filter(None, options.ways.split(",")):
            trainings[way] = ["--from", str(out / "likelihood"), *MORE[way], f"training.minutes={options.more}"]
        for name, words in trainings.items():
            seconds = train(name, data, out, [*words, *settings])
            said[name] = answers(out / name, sources)
            result[name] = {metric: scored(metric, said[name], references) for metric in METRICS}
            result[name]["training_cpu_seconds"] = round(seconds)
            for other in said.keys() - {name}:
                result[name][f"above {other}"] = [
                    above(metric, said[other], said[name], references) for metric in COMPARED
                ]
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
