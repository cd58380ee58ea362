"""What comes out with no settings but the task, on real data: one thread, CPU time, the official test sets.

    ANTIPHON_DATA=... python bench/real_data.py [--sets scan,ice] [--out FOLDER]

Runs `antiphon train` and `antiphon evaluate` as a user would. JSON on standard output: score with interval, CPU
seconds and peak memory of the training.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path
from typing import Any

from _commands import antiphon, data_sets

G2P, TATOEBA = "sigmorphon2020_g2p", "tatoeba_cmn_eng"
SETS: dict[str, dict[str, Any]] = {
    "multi30k": {
        "task": "translation", "train": "multi30k/train.en,multi30k/train.de", "metrics": "bleu,chrf",
        "valid": "multi30k/val.en,multi30k/val.de",
        "test": "multi30k/test_2016_flickr.en,multi30k/test_2016_flickr.de",
    },
    "scan": {
        "task": "transduction", "train": "scan/simple.train.tsv", "test": "scan/simple.test.tsv", "metrics": "exact",
    },
    **{
        language: {
            "task": "transduction", "train": f"{G2P}/{language}_train.tsv", "valid": f"{G2P}/{language}_dev.tsv",
            "test": f"{G2P}/{language}_test.tsv", "metrics": "error,per",
        }
        for language in ("ice", "vie")
    },
    **{
        name: {
            "task": "translation", "train": f"{TATOEBA}/train.tsv", "valid": f"{TATOEBA}/dev.tsv",
            "test": f"{TATOEBA}/test.tsv", "metrics": "chrf", "settings": settings,
        }
        for name, settings in (("eng-cmn", []), ("cmn-eng", ["data.columns=2,1"]))
    },
}  # fmt: skip


def files(root: Path, names: str) -> str:
    """One path or two, under the folder of the data sets."""
    return ",".join(str(root / name) for name in names.split(","))


def measure(name: str, root: Path, out: Path) -> dict[str, Any]:
    """Train and evaluate on one set."""
    each = SETS[name]
    valid = ["--valid", files(root, each["valid"])] if "valid" in each else []
    words = ["train", files(root, each["train"]), *valid, "--task", each["task"], "--out", str(out / name)]
    trained = antiphon(*words, *each.get("settings", []), "training.threads=1", threads=1)
    test = files(root, each["test"])
    told = antiphon("evaluate", str(out / name), test, "--metrics", each["metrics"], "--json", threads=1)
    scores = json.loads(told.output)["scores"]
    kept = {metric: scores[metric] for metric in each["metrics"].split(",")}
    seconds = {"training_cpu_seconds": round(trained.cpu_seconds), "training_wall_seconds": round(trained.wall_seconds)}
    return {"scores": kept, **seconds}


def main() -> None:
    """Measure the sets asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--out", type=Path, help="keep the runs in this folder")
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        result = {name: measure(name, root, out) for name in options.sets.split(",")}
    result["peak_memory_mb"] = {"largest process": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
