"""Sources that are no text, with no settings: strings of digits (FSDD), spelled words (AN4), actions (JHMDB).

    ANTIPHON_DATA=... python bench/signals.py [--sets fsdd,an4,jhmdb] [--threads 2] [--out FOLDER] [key=value ...]
    ANTIPHON_DATA=... python bench/signals.py --sets fsdd-tuning      to choose settings by: nothing of the test is read

FSDD: recordings of one speaker joined to strings of three to seven digits with pauses between, and single digits; those
for training from the official training files, those of the test from the official test files. AN4: 948 utterances as 13
MFCC, 130 of the test. JHMDB: 433 films of split 1 as joints of a body, 176 of the test, 21 actions. Runs `antiphon
train` and `antiphon evaluate` as a user would; a share of the training sources is held out for validation. Scores with
intervals. JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from _commands import antiphon, data_sets, kept

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
RATE = 8000
PAUSE = 0.3
"""Seconds of silence between two digits, at most."""
TIMES = {"train": 4, "test": 2}
"""Strings that each recording is in."""
NOISE = 1e-4
"""Of full scale: what a pause sounds like."""


def fsdd(root: Path, out: Path, *, tuning: bool = False) -> dict[str, Path]:
    """Tables of training, of test strings and of single test digits; for `tuning` five recordings of each digit and
    speaker are taken out of training, and stand for the test."""
    files = {}
    for part, times in TIMES.items():
        names = (root / "fsdd" / ("train.list" if tuning else f"{part}.list")).read_text(encoding="utf-8").split()
        if tuning:
            names = [name for name in names if (Path(name).stem.split("_")[2] in "56789") == (part == "test")]
        found = [(root / "fsdd/recordings" / Path(name).name) for name in names]
        single = [f"{path}\t{DIGITS[int(path.name[0])]}" for path in found]
        draw = np.random.default_rng(len(names))
        joined = [line for _ in range(times) for line in strings(found, out / part, draw)]
        files[part] = write(out / f"fsdd.{part}.tsv", [*joined, *single] if part == "train" else joined)
        if part == "test":
            files["single"] = write(out / "fsdd.single.tsv", single)
    return files


def strings(recordings: list[Path], folder: Path, draw: np.random.Generator) -> Iterator[str]:
    """Lines of a table: each recording in one string, with others of its speaker."""
    folder.mkdir(parents=True, exist_ok=True)
    for speaker in sorted({path.name.split("_")[1] for path in recordings}):
        mine = [path for path in recordings if path.name.split("_")[1] == speaker]
        order = [mine[place] for place in draw.permutation(len(mine))]
        while order:
            cuts = [count for count in range(3, 8) if len(order) - count == 0 or len(order) - count >= 3]
            cut = int(draw.choice(cuts))
            some, order = order[:cut], order[cut:]
            parts = [part for path in some for part in (soundfile.read(path, dtype="float32")[0], pause(draw))]
            path = folder / f"{speaker}-{draw.integers(1 << 48):012x}.wav"
            soundfile.write(path, np.concatenate(parts[:-1]), RATE)
            yield f"{path}\t{' '.join(DIGITS[int(each.name[0])] for each in some)}"


def pause(draw: np.random.Generator) -> np.ndarray:
    """Silence of a random length."""
    noise: np.ndarray = draw.normal(0, NOISE, int(draw.uniform(0, PAUSE) * RATE)).astype(np.float32)
    return noise


def an4(root: Path, out: Path) -> dict[str, Path]:
    """Tables of training and of the test."""
    files = {}
    for part in ("train", "test"):
        rows = (line.split("\t") for line in (root / "an4" / f"{part}.tsv").read_text(encoding="utf-8").splitlines())
        lines = [f"{root / 'an4' / f'{part}_mfcc.npz'}#{name}\t{text}" for name, text in rows]
        files[part] = write(out / f"an4.{part}.tsv", lines)
    return files


def write(path: Path, lines: list[str]) -> Path:
    """The lines as a file."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def jhmdb(root: Path, out: Path) -> dict[str, Path]:
    """Tables of training and of the test."""
    files = {}
    for part in ("train", "test"):
        folder = root / "jhmdb_skeleton"
        labels = (folder / f"split1_{part}.labels").read_text(encoding="utf-8").split()
        with np.load(folder / f"split1_{part}.npz") as archive:
            names = archive.files
        lines = [f"{folder / f'split1_{part}.npz'}#{name}\t{label}" for name, label in zip(names, labels, strict=True)]
        files[part] = write(out / f"jhmdb.{part}.tsv", lines)
    return files


SETS: dict[str, tuple[Callable[..., dict[str, Path]], str, str]] = {
    "fsdd": (fsdd, "speech", "wer,cer,exact"),
    "fsdd-tuning": (partial(fsdd, tuning=True), "speech", "wer,cer,exact"),
    "an4": (an4, "speech", "wer,cer,exact"),
    "jhmdb": (jhmdb, "classification", "accuracy,macro_f1"),
}
"""What makes the tables, the task, and what is judged by."""


def measure(name: str, root: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train on one set and evaluate."""
    make, task, metrics = SETS[name]
    files = make(root, out)
    run = out / f"{name}-run"
    words = ["train", str(files["train"]), "--task", task, "--out", str(run)]
    trained = antiphon(*words, *options.settings, threads=options.threads)
    result: dict[str, Any] = {"training_cpu_seconds": round(trained.cpu_seconds)}
    for part in files.keys() - {"train"}:
        told = antiphon("evaluate", str(run), str(files[part]), "--metrics", metrics, "--json", threads=1)
        found = json.loads(told.output)
        result[part] = {"sources": found["sentences"], "scores": found["scores"]}
    return result


def main() -> None:
    """Measure the sets asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="fsdd,an4,jhmdb")
    parser.add_argument("--threads", type=int, help="cores to use; all where not given")
    parser.add_argument("--out", type=Path, help="keep the runs in this folder")
    parser.add_argument("settings", nargs="*", help="settings of the training, such as model.ctc=false")
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return
    with kept(options.out) as out:
        print(json.dumps({name: measure(name, root, out, options) for name in options.sets.split(",")}, indent=1))


if __name__ == "__main__":
    main()
