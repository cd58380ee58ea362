"""What distillation gains: a teacher and its light students on Multi30k English-German, how good and how fast.

    ANTIPHON_DATA=... python bench/distillation.py [--out FOLDER] [--students likelihood,word,sequence,both]

Trains a Transformer of 4+4 layers, and from the same pairs, all for as many epochs, students whose decoder is one SSRU
layer: by likelihood alone (the control), by the teacher's distributions, by its answers, and by both. BLEU on
test_2016_flickr with its 95 % interval, greedy and with a beam of 5; the paired difference of each student to the
control, and to the teacher with its beam. Decoding on one core, all in turn, medians of rounds. About 25 minutes on two
cores. What is in the folder already is not made again. JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _judging import above, scored

from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor

SAME = ["model.width=128", "model.feedforward=256", "model.encoder.kind=transformer", "model.encoder.layers=4",
        "data.batch_tokens=4096", "training.patience=0", "training.metric=chrf"]  # fmt: skip
DEEP = ["model.decoder.kind=transformer", "model.decoder.layers=4", "--task", "translation",
        "data.source.vocabulary=8000", "data.target.vocabulary=8000"]  # fmt: skip
STUDENTS = ("likelihood", "word", "sequence", "both")
BEAMS = (5, 1)


def main() -> None:
    """Train what is not there, decode, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / ".work" / "distillation")
    parser.add_argument("--students", default=",".join(STUDENTS))
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=8, help="of each student")
    parser.add_argument("--pairs", type=int, help="take the first pairs alone")
    parser.add_argument("--rounds", type=int, default=3, help="of decoding")
    parser.add_argument("--sentences", type=int, default=1000, help="of the test set")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = Path(os.environ.get("ANTIPHON_DATA", "data"), "multi30k")
    data = shortened(folder, options.out, options.pairs)
    seconds = {name: trained(name, *data, options) for name in ("teacher", *options.students.split(","))}
    source, target = (lines(folder / f"test_2016_flickr.{side}")[: options.sentences] for side in ("en", "de"))
    print(
        json.dumps(judged(options.out, seconds, source, target, options.rounds) | vars(options), indent=1, default=str)
    )


def lines(path: Path) -> list[str]:
    """The lines of a file."""
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def shortened(folder: Path, out: Path, pairs: int | None) -> tuple[str, str]:
    """The training and the validation pairs, or the first of them, a tenth as many to validate with."""
    if pairs is None:
        return f"{folder}/train.en,{folder}/train.de", f"{folder}/val.en,{folder}/val.de"
    for name, count in (("train", pairs), ("val", pairs // 10)):
        for side in ("en", "de"):
            text = "".join(f"{line}\n" for line in lines(folder / f"{name}.{side}")[:count])
            (out / f"{name}.{side}").write_text(text, encoding="utf-8")
    return f"{out}/train.en,{out}/train.de", f"{out}/val.en,{out}/val.de"


def trained(name: str, data: str, valid: str, options: argparse.Namespace) -> float:
    """Wall seconds of a training, answering included, with all cores."""
    run, teacher, told = options.out / name, str(options.out / "teacher"), options.out / f"{name}.seconds"
    if told.exists():
        return float(told.read_text())
    common = [data, "--out", str(run), "--valid", valid, *SAME]
    epochs = options.teacher_epochs if name == "teacher" else options.epochs
    words = {
        "teacher": ["train", *common, *DEEP],
        "likelihood": ["train", *common, "--teacher", teacher, "training.objective=likelihood"],
    }.get(name) or ["distill", teacher, *common, "--level", name]
    answers = options.out / "sequence.answers.jsonl"
    if name == "both" and answers.exists():  # its own answers would be the same
        for end in ("", ".about.json"):
            shutil.copy(f"{answers}{end}", f"{run}.answers.jsonl{end}")
    begun = time.monotonic()
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "antiphon", *words, f"training.epochs={epochs}"]
    subprocess.run(command, stdout=sys.stderr, check=True, env=environment)
    told.write_text(f"{time.monotonic() - begun:.1f}")
    return float(told.read_text())


def judged(out: Path, seconds: dict[str, float], source: list[str], target: list[str], rounds: int) -> dict[str, Any]:
    """Each model's scores and speed with each beam, and what its students differ by."""
    torch.set_num_threads(1)
    speeds: dict[tuple[str, int], list[float]] = {}
    answers: dict[tuple[str, int], list[str]] = {}
    models = {name: Predictor(load(out / name), processes=1) for name in seconds}
    for _ in range(rounds):
        for name, predictor in models.items():
            for beam in BEAMS:
                settings = replace(predictor.config.decoding, beam=beam)
                list(predictor.predict(source[:100], settings=settings))
                begun = time.perf_counter()
                found = [best[0].text for best in predictor.predict(source, settings=settings)]
                speeds.setdefault((name, beam), []).append(len(source) / (time.perf_counter() - begun))
                answers[name, beam] = found
    references = [[line] for line in target]
    best = speeds["teacher", BEAMS[0]]
    rows = []
    for (name, beam), rates in speeds.items():
        row = {"model": name, "beam": beam, "sentences_per_second": round(median(rates), 1),
               "times_as_fast_as_teacher": round(median(a / b for a, b in zip(rates, best, strict=True)), 2),
               "training_seconds": seconds[name], "bleu": scored("bleu", answers[name, beam], references)}  # fmt: skip
        if name != "teacher":
            row["to_teacher"] = above("bleu", answers["teacher", BEAMS[0]], answers[name, beam], references)
        if name not in ("teacher", "likelihood") and ("likelihood", beam) in answers:
            row["to_likelihood"] = above("bleu", answers["likelihood", beam], answers[name, beam], references)
        rows.append(row)
        print(row, file=sys.stderr)
    sizes = {name: sum(p.numel() for p in each.models[0].parameters()) for name, each in models.items()}
    return {"results": rows, "parameters": sizes}


if __name__ == "__main__":
    main()
