"""What noise costs a translator, and how much of that `data.augment.robust=true` wins back: the same training twice.

    ANTIPHON_DATA=... python bench/robustness.py [--sets multi30k,tatoeba] [--steps 1500] [--beam 5] [--out FOLDER]
                                                [key=value ...]

Multi30k English to German and Tatoeba English to Chinese, each trained without and with the switch: the same model,
batches, and steps at most, one thread. Both answer the official test set as it is and under every perturbation of
`antiphon evaluate --robust`. JSON on standard output: the scores as they are, and for each perturbation the scores of
both models and the share of the loss that is won back, (robust - plain under noise) / (plain as it is - plain under
noise); `won_back` is that of all perturbations by BLEU in which the plain model loses significantly, and `less_lost` by
how much less of its own score the robust one loses in these. The bars: as it is no more than 0.5 BLEU lower, and at
least half won back. What is in the folder already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _commands import TRANSFORMER, antiphon, data_sets, kept

SETS = {
    "multi30k": ("train.en,train.de", "val.en,val.de", "test_2016_flickr.en,test_2016_flickr.de"),
    "tatoeba": ("train.tsv", "dev.tsv", "test.tsv"),
}
FOLDERS = {"multi30k": "multi30k", "tatoeba": "tatoeba_cmn_eng"}
WAYS = {"plain": [], "robust": ["data.augment.robust=true"]}
LOST, WON = 0.5, 0.5
"""The bars: BLEU lost as it is, and the share of the loss under noise that is won back."""


def files(name: str, root: Path) -> list[str]:
    """Training, validation and test pairs as the commands name them."""
    folder = root / FOLDERS[name]
    return [",".join(str(folder / file) for file in part.split(",")) for part in SETS[name]]


def measured(name: str, way: str, root: Path, out: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Train, unless that is done, and evaluate under noise."""
    run, told = out / f"{name}-{way}", out / f"{name}-{way}.json"
    train, valid, test = files(name, root)
    if not told.exists():
        common = ["training.metric=loss", "training.threads=1", "training.processes=1", f"training.steps={given.steps}"]
        words = ["train", train, "--valid", valid, "--task", "translation", "--out", str(run), *TRANSFORMER]
        seconds = 0.0 if run.exists() else antiphon(*words, *common, *WAYS[way], *given.settings, threads=1).cpu_seconds
        found = antiphon("evaluate", str(run), test, "--robust", "--json", f"beam={given.beam}", threads=1)
        told.write_text(json.dumps({"training_cpu_seconds": round(seconds), **json.loads(found.output)}))
        print(f"{run.name}: {seconds:.0f} CPU s of training", file=sys.stderr, flush=True)
    return json.loads(told.read_text())


def compared(plain: Mapping[str, Any], robust: Mapping[str, Any]) -> dict[str, Any]:
    """Both models as they are and under each perturbation, with the share of the loss that is won back."""
    rows, lost, won, still = {}, 0.0, 0.0, 0.0
    after = {drop["name"]: drop for drop in robust["robustness"]["drops"]}
    for drop in plain["robustness"]["drops"]:
        metric, mine = next(iter(drop["scores"].items()))
        theirs = after[drop["name"]]["scores"][metric]
        fall, gain = mine["first"] - mine["second"], theirs["second"] - mine["second"]
        sure = mine["interval"][1] < 0
        rows[drop["name"]] = {
            "metric": metric, "plain": [round(mine["first"], 2), round(mine["second"], 2)],
            "robust": [round(theirs["first"], 2), round(theirs["second"], 2)],
            "plain_difference": rounded(mine), "robust_difference": rounded(theirs),
            "won_back": round(gain / fall, 2) if sure else None,
        }  # fmt: skip
        if sure and metric.startswith("bleu"):
            lost, won, still = lost + fall, won + gain, still + theirs["first"] - theirs["second"]
    name = next(name for name in plain["scores"] if name.startswith("bleu"))
    clean = {way: each["scores"][name] for way, each in (("plain", plain), ("robust", robust))}
    change = clean["robust"]["value"] - clean["plain"]["value"]
    share = won / lost if lost else None
    return {
        "clean": {way: [round(score["value"], 2), score["interval"]] for way, score in clean.items()},
        "clean_change": round(change, 2), "won_back": None if share is None else round(share, 3),
        "less_lost": round(1 - still / lost, 3) if lost else None,
        "training_cpu_seconds": [each["training_cpu_seconds"] for each in (plain, robust)],
        "holds": bool(change >= -LOST and share is not None and share >= WON), "perturbations": rows,
    }  # fmt: skip


def rounded(score: Mapping[str, Any]) -> list[float]:
    """The difference and its interval."""
    return [round(value, 2) for value in (score["difference"], *score["interval"])]


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("settings", nargs="*", help="further settings of all trainings")
    given = parser.parse_args()
    if (root := data_sets()) is None:
        return
    with kept(given.out) as out:
        found = {}
        for name in given.sets.split(","):
            plain, robust = (measured(name, way, root, out, given) for way in WAYS)
            found[name] = compared(plain, robust)
        print(json.dumps({"steps": given.steps, "beam": given.beam, "sets": found}, indent=2))


if __name__ == "__main__":
    main()
