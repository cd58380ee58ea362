"""English to Python on the Django data: whole programs right, with copying, with made-up names, and without both.

    ANTIPHON_DATA=... python bench/programs.py [--ways vocabulary,copy,names] [--out FOLDER] [key=value ...]

The split of Ling et al. (2016): 16,000 lines to train on, 1,805 to test. Runs `antiphon train` as a user would,
one thread; further settings go to every training. JSON on standard output: exact match and BLEU with
intervals, CPU seconds, and the paired difference of each way to those before it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from _commands import antiphon, data_sets
from _judging import above, answers, scored

METRICS = ("exact", "bleu")
COMMON = ["data.source.tokenizer=word", "data.target.tokenizer=word", "data.source.min_count=3",
          "data.target.min_count=3", "data.empty=skip", "training.metric=exact", "training.epochs=12",
          "training.threads=1", "training.processes=1"]  # fmt: skip
WAYS = {
    "vocabulary": ["data.augment.names=0", "model.head=vocabulary"],
    "copy": ["data.augment.names=0"],
    "names": ["data.augment.names=0.3"],
}


def train(way: str, data: Path, out: Path, settings: list[str]) -> float:
    """Train in one way unless that is done; gives the CPU seconds."""
    if (out / way / "best").exists():
        return 0.0
    words = ["train", str(data / "train.tsv"), "--valid", str(data / "dev.tsv"), "--task", "code"]
    return antiphon(*words, "--out", str(out / way), *COMMON, *WAYS[way], *settings, threads=1).cpu_seconds


def main() -> None:
    """Measure the ways asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--out", type=Path, help="keep the runs in this folder, and use those that are there")
    parser.add_argument("settings", nargs="*", help="settings of the trainings, such as training.epochs=20")
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return
    lines = (root / "django_code/test.tsv").read_text(encoding="utf-8").split("\n")[:-1]
    sources, targets = zip(*(line.split("\t") for line in lines), strict=True)
    references, said, result = [[target] for target in targets], dict[str, list[str]](), dict[str, Any]()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        for way in options.ways.split(","):
            seconds = train(way, root / "django_code", out, options.settings)
            said[way] = answers(out / way, sources)
            result[way] = {
                "training_cpu_seconds": round(seconds),
                **{name: scored(name, said[way], references) for name in METRICS},
            }
            for other in said.keys() - {way}:
                result[way][f"above {other}"] = above("exact", said[other], said[way], references)
    print(json.dumps({"sentences": len(sources), **result}, indent=1))


if __name__ == "__main__":
    main()
