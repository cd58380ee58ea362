"""What a light student gains beside its teacher, both rounded to int8: sentences per CPU second, and BLEU.

    ANTIPHON_DATA=... OMP_NUM_THREADS=1 python bench/light.py RUNS [--students word,both] [--rounds 5]

RUNS is the folder that `bench/distillation.py --out RUNS` keeps: a Transformer of 4+4 layers, and students with one
SSRU layer as decoder. The teacher is exported to CTranslate2 and answers with its beam, students to onnxruntime and
answer greedily. All answer Multi30k's test_2016_flickr on one thread, in turn; speed is the best and the median of the
rounds, BLEU is paired with the teacher's. JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from _commands import antiphon, data_sets
from _judging import above, scored

from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor


def exported(run: Path, engine: str, data: str) -> Path:
    """The run for an engine in int8, made the first time."""
    out = run.parent / f"{run.name}-{engine}"
    if not out.exists():
        antiphon("export", str(run), str(out), "--to", engine, "--data", data)
    return out


def main() -> None:
    """Export, answer in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--students", default="word,both")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return
    data = ",".join(str(root / f"multi30k/val.{side}") for side in ("en", "de"))
    sources, targets = ((root / f"multi30k/test_2016_flickr.{side}").read_text(encoding="utf-8").split("\n")[:-1]
                        for side in ("en", "de"))  # fmt: skip
    paths = {"teacher": exported(options.runs / "teacher", "ctranslate2", data)}
    paths |= {name: exported(options.runs / name, "onnx", data) for name in options.students.split(",")}
    models = {name: Predictor(load(path), processes=1) for name, path in paths.items()}
    rates, said = {name: list[float]() for name in models}, dict[str, list[str]]()
    for round_ in range(1 + options.rounds):  # the first does not count
        for name, model in models.items():
            begun = time.process_time()
            said[name] = [found[0].text for found in model.predict(sources, details=False)]
            rates[name] += [len(sources) / (time.process_time() - begun)] if round_ else []
    references, result = [[target] for target in targets], dict[str, Any]()
    for name, path in paths.items():
        shares = [mine / other for mine, other in zip(rates[name], rates["teacher"], strict=True)]
        files = [file for file in path.rglob("*") if file.is_file()]
        result[name] = {
            "bleu": scored("bleu", said[name], references), "bytes": sum(file.stat().st_size for file in files),
            "sentences_per_cpu_second": {"best": round(max(rates[name]), 1), "median": round(median(rates[name]), 1)},
            "times_as_fast": {"best": round(max(shares), 2), "median": round(median(shares), 2)},
        }  # fmt: skip
        if name != "teacher":
            result[name]["above_teacher"] = above("bleu", said["teacher"], said[name], references)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
