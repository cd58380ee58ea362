"""What a search is worth over the recipe, on two real sets, each killed twice on the way and gone on with.

    ANTIPHON_DATA=... python bench/tune.py [--sets icelandic,multi30k] [--trials 30] [--seeds 3] [--workers 2]
        [--kills 2] [key=value ...]

The search gets the training and the validation part; the official test part judges the finalists. kill -9 goes to the
search after as many trials as share them out evenly, with its trainings wherever they are. For each set: the gain with
its interval, trials by how they ended, how many of them were begun before a kill and ended after it, whether anything
is there twice, and what matters. JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _commands import TRANSFORMER, data_sets

SETS: dict[str, dict[str, Any]] = {
    "icelandic": {"train": "sigmorphon2020_g2p/ice_train.tsv", "valid": "sigmorphon2020_g2p/ice_dev.tsv",
                  "test": "sigmorphon2020_g2p/ice_test.tsv", "task": "transduction"},
    "multi30k": {"train": "multi30k/train.en,multi30k/train.de", "valid": "multi30k/val.en,multi30k/val.de",
                 "test": "multi30k/test_2016_flickr.en,multi30k/test_2016_flickr.de", "task": "translation",
                 "settings": TRANSFORMER},
}  # fmt: skip


def main() -> None:
    """Search on each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="settings that are not searched")
    parser.add_argument("--sets", default=",".join(SETS))
    for name, value in (("trials", 30), ("seeds", 3), ("workers", 2), ("kills", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    if (root := data_sets()) is not None:
        found = {name: searched(root, SETS[name], options) for name in options.sets.split(",")}
        print(json.dumps(found, indent=1))


def searched(root: Path, files: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One search, with its kills."""
    with tempfile.TemporaryDirectory() as folder:
        out, parts = Path(folder) / "study", {name: where(root, files[name]) for name in ("train", "valid", "test")}
        words = ["tune", parts["train"], "--valid", parts["valid"], "--test", parts["test"], "--task", files["task"]]
        words += ["--out", str(out), "--trials", str(options.trials), "--seeds", str(options.seeds)]
        command = [sys.executable, "-m", "antiphon", *words, "--workers", str(options.workers)]
        command += [*files.get("settings", ()), *options.settings]
        begun, halves = time.monotonic(), list[str]()
        for number in range(options.kills):
            halves += killed(command, out, (number + 1) * options.trials // (options.kills + 1))
        print(f"{files['train']}: killed {options.kills} times, going on", file=sys.stderr)
        subprocess.run(command, check=True, stdout=sys.stderr)
        result = json.loads((out / "result.json").read_bytes())
        return summary(result, halves, time.monotonic() - begun)


def where(root: Path, names: str) -> str:
    """The files of a part; they must be there."""
    found = ",".join(str(root / name) for name in names.split(","))
    for path in found.split(","):
        if not Path(path).exists():
            sys.exit(f"{path} is missing")
    return found


def killed(command: list[str], out: Path, trials: int) -> list[str]:
    """Search until so many trials have begun, then kill -9; gives the trials that were in the middle."""
    process = subprocess.Popen(command, stdout=sys.stderr)
    while len(list(out.glob("trials/*/checkpoints"))) + len(ended(out)) < trials or not running(out):
        if process.poll() is not None:
            sys.exit("the search ended before it was killed: give more trials")
        time.sleep(0.1)
    middle = running(out)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return middle


def running(out: Path) -> list[str]:
    """Trials with checkpoints: these go when a trial ends."""
    return [path.parent.name for path in out.glob("trials/*/checkpoints") if list(path.glob("step-*"))]


def ended(out: Path) -> list[Path]:
    """Runs that have ended."""
    return [path for path in out.glob("trials/*") if not (path / "checkpoints").exists()]


def summary(result: dict[str, Any], middle: list[str], seconds: float) -> dict[str, Any]:
    """What to report of a search."""
    rows = result["trials"]
    states = {state: sum(row["state"] == state for row in rows) for state in ("done", "pruned", "failed", "left")}
    drawn = [json.dumps(row["changes"], sort_keys=True) for row in rows]
    names = [row["name"] for row in rows]
    twice = {"twice": len(rows) - len(set(names)), "same settings twice": len(drawn) - len(set(drawn))}
    return {"verdict": result["verdict"], "gain": result.get("gain"), "trials": states, **twice,
            "killed in the middle": middle, "best": result["best"], "weights": result["weights"][:5],
            "minutes": round(seconds / 60, 1)}  # fmt: skip


if __name__ == "__main__":
    main()
