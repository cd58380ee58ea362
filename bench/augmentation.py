"""What each kind of augmentation does to a score, beside a training without any: what helps, and what hurts.

    ANTIPHON_DATA=... python bench/augmentation.py [--sets low,medium,translation] [--kinds stems,drop] [--seeds 1,2,3]
                                                   [--workers 1] [--out FOLDER]

Finnish inflection of SIGMORPHON 2018 from 100 and from 1,000 forms, spelled out with the features behind; Multi30k
English to German from its first 5,000 pairs. Every training is as long as the one without. Runs `antiphon train` and
`antiphon evaluate` as a user would, one thread. JSON on standard output: for each set and kind the score of each seed
on the test set, the mean, how far it is above the plain one of the same seed (mean and range), and CPU seconds. What is
in the folder already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from shutil import rmtree
from statistics import mean
from typing import Any

from _commands import antiphon, data_sets, kept

COMMON = ["training.threads=1", "training.processes=1"]
KINDS: dict[str, list[str]] = {
    "none": [],
    "stems": ["data.augment.stems=1"],
    "names": ["data.augment.names=0.3"],
    "drop": ["data.augment.drop=0.1"],
    "swap": ["data.augment.swap=0.1"],
    "replace": ["data.augment.replace=0.1"],
    "mask": ["data.augment.mask=0.1"],
    "insert": ["data.augment.insert=0.1"],
    "typos": ["data.augment.typos=0.05"],
    "casing": ["data.augment.casing=0.3"],
    "punctuation": ["data.augment.punctuation=0.5"],
    "switchout": ["data.augment.switchout=1"],
    "synonyms": ["data.augment.synonyms=wordnet"],
    "reverse": ["data.augment.reverse=target"],
    "sampling": ["data.source.sampling=0.1"],
}
SPELLED = ("stems", "drop", "swap", "replace", "mask", "insert", "switchout", "reverse")
TEXT = tuple(kind for kind in KINDS if kind not in ("none", "stems"))
SETS: dict[str, dict[str, Any]] = {
    "low": {
        "kinds": SPELLED,
        "task": "transduction",
        "metric": "exact",
        "settings": ["training.steps=1500", "training.validate_every=250"],
    },
    "medium": {
        "kinds": SPELLED,
        "task": "transduction",
        "metric": "exact",
        "settings": ["training.steps=3000", "training.validate_every=500"],
    },
    "translation": {"kinds": TEXT, "task": "translation", "metric": "chrf", "settings": ["training.epochs=25"]},
}


def inflection(path: Path) -> Iterator[tuple[str, str]]:
    """Letters and features as tokens, the letters of the form; `_` is a space."""
    for line in path.read_text(encoding="utf-8").splitlines():
        lemma, form, features = line.split("\t")
        spelled = [" ".join(word.replace(" ", "_")) for word in (lemma, form)]
        yield f"{spelled[0]} {' '.join(features.split(';'))}", spelled[1]


def pairs(name: str, root: Path, part: str) -> list[tuple[str, str]]:
    """The pairs of a part of a set."""
    if name == "translation":
        stem = {"train": "train", "valid": "val", "test": "test_2016_flickr"}[part]
        sides = [
            (root / f"multi30k/{stem}.{side}").read_text(encoding="utf-8").split("\n")[:-1] for side in ("en", "de")
        ]
        return list(zip(*sides, strict=True))[: 5000 if part == "train" else None]
    file = {"train": f"finnish-train-{name}", "valid": "finnish-dev", "test": "finnish-test"}[part]
    return list(inflection(root / "sigmorphon2018_inflection" / file))


def measure(name: str, kind: str, seed: int, out: Path) -> dict[str, float]:
    """Train, unless that is done, and evaluate; what was cut off begins anew."""
    each, run = SETS[name], out / f"{name}-{kind}-{seed}"
    files = {part: str(out / f"{name}.{part}.tsv") for part in ("train", "valid", "test")}
    told = out / f"{run.name}.json"
    if not told.exists():
        rmtree(run, ignore_errors=True)
        words = ["train", files["train"], "--valid", files["valid"], "--task", each["task"], "--out", str(run)]
        settings = [*COMMON, f"training.seed={seed}", *each.get("settings", []), *KINDS[kind]]
        seconds = antiphon(*words, *settings, threads=1).cpu_seconds
        found = antiphon("evaluate", str(run), files["test"], "--metrics", each["metric"], "--json", threads=1)
        score = json.loads(found.output)["scores"][each["metric"]]["value"]
        told.write_text(json.dumps({"score": score, "cpu_seconds": round(seconds)}))
        print(f"{run.name}: {score:.2f}, {seconds:.0f} CPU s", file=sys.stderr, flush=True)
    return json.loads(told.read_text())


def compared(rows: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """All kinds of a set, each beside the plain training of the same seed."""
    result: dict[str, Any] = {}
    plain = [row["score"] for row in rows["none"]]
    for kind, each in rows.items():
        scores = [row["score"] for row in each]
        result[kind] = {"scores": scores, "mean": round(mean(scores), 2),
                        "cpu_seconds": round(mean(row["cpu_seconds"] for row in each))}  # fmt: skip
        if kind != "none":
            gains = [score - without for score, without in zip(scores, plain, strict=True)]
            result[kind]["gain"] = {
                "mean": round(mean(gains), 2),
                "range": [round(min(gains), 2), round(max(gains), 2)],
            }
    return result


def main() -> None:
    """Measure the sets and kinds asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--kinds", help="all that fit a set where not given")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--workers", type=int, default=1, help="trainings beside one another")
    parser.add_argument("--out", type=Path, help="keep data and scores in this folder, and use those that are there")
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return
    seeds, sets = [int(seed) for seed in options.seeds.split(",")], options.sets.split(",")
    with kept(options.out) as out, ThreadPoolExecutor(options.workers) as pool:
        for name, part in product(sets, ("train", "valid", "test")):
            rows = "".join(f"{source}\t{target}\n" for source, target in pairs(name, root, part))
            (out / f"{name}.{part}.tsv").write_text(rows, encoding="utf-8")
        chosen = {name: options.kinds.split(",") if options.kinds else SETS[name]["kinds"] for name in sets}
        begun = {
            name: {
                kind: [pool.submit(measure, name, kind, seed, out) for seed in seeds]
                for kind in dict.fromkeys(["none", *kinds])
            }
            for name, kinds in chosen.items()
        }
        found = {name: {kind: [each.result() for each in row] for kind, row in kinds.items()}
                 for name, kinds in begun.items()}  # fmt: skip
    result = {name: compared(rows) for name, rows in found.items()}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
