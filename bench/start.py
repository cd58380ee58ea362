"""How long a user waits: `antiphon --help`, the first training step counted from the shell, the first answer.

    ANTIPHON_DATA=... python bench/start.py [--rounds 3]

Each is a process of its own. The first step is that of Multi30k English-German with nothing set but the task: reading,
checking, learning the subwords, encoding, the recipe, starting the other processes. The answer is that of a small model
to one line of standard input. CPU and wall seconds with all child processes; best and median. JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from _commands import data_sets

ANTIPHON = [sys.executable, "-m", "antiphon"]
WAIT = 300
"""Seconds after which a first step is no longer waited for."""


def cost(words: list[str], given: str = "") -> dict[str, float]:
    """Wall and CPU seconds of a command that ends by itself."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([*ANTIPHON, *words], input=given.encode(), stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall": time.monotonic() - begun,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def first_step(folder: Path, out: Path) -> dict[str, float]:
    """Wall seconds from the command to the first step that its log tells of; then it is ended."""
    words = [f"{folder}/train.en,{folder}/train.de", "--valid", f"{folder}/val.en,{folder}/val.de", "--task",
             "translation", "--out", str(out)]  # fmt: skip
    begun = time.monotonic()
    process = subprocess.Popen(
        [*ANTIPHON, "train", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while time.monotonic() - begun < WAIT and process.poll() is None:
            log = out / "log.jsonl"
            if log.exists() and '"event": "step"' in log.read_text(encoding="utf-8"):
                return {"wall": time.monotonic() - begun}
            time.sleep(0.02)
        raise SystemExit(f"no first step within {WAIT} s (exit code {process.poll()})")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def small(folder: Path) -> Path:
    """A model of a few steps that spells numbers backwards."""
    pairs = folder / "pairs.tsv"
    lines = (f"{' '.join(str(number))}\t{' '.join(reversed(str(number)))}\n" for number in range(1, 400))
    pairs.write_text("".join(lines), encoding="utf-8")
    words = ["train", str(pairs), "--out", str(folder / "small"), "training.steps=20"]
    subprocess.run([*ANTIPHON, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return folder / "small"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return
    runs: dict[str, list[dict[str, float]]] = {"--help": [], "first step": [], "first answer": []}
    with tempfile.TemporaryDirectory() as temporary:
        model = small(Path(temporary))
        for number in range(options.rounds):
            runs["--help"].append(cost(["--help"]))
            runs["first answer"].append(cost(["predict", str(model)], "1 2 3\n"))
            runs["first step"].append(first_step(root / "multi30k", Path(temporary) / f"run-{number}"))
    told = {
        name: {
            f"{kind}_{how.__name__}": round(how([run[kind] for run in found]), 2)
            for kind in found[0]
            for how in (min, median)
        }
        for name, found in runs.items()
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
