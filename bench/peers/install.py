"""Each peer in an environment of its own, made the first time it is wanted; its scripts run, and results told."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

PEERS = Path(__file__).parent
TORCH = "torch==2.13.0"


class Missing(Exception):
    """A peer that cannot be had here, and why."""


def interpreter(name: str) -> str:
    """The Python that runs the peer's scripts; `ours` is the one that runs this. Raises `Missing`."""
    if name == "ours":
        return sys.executable
    folder, pins = PEERS / name / ".venv", PEERS / name / "requirements.txt"
    mark = hashlib.sha256(TORCH.encode() + pins.read_bytes()).hexdigest()
    if not (folder / ".installed").exists() or (folder / ".installed").read_text() != mark:
        print(f"installing {name} into {folder}", file=sys.stderr, flush=True)
        make(folder, pins)
        (folder / ".installed").write_text(mark)
    return str(folder / "bin" / "python")


def make(folder: Path, pins: Path) -> None:
    """PyTorch first; then every package by its exact pin and without a look at what it asks for, for some peers ask
    for versions of long ago that they do not need."""
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)], [*pip, TORCH],
        [*pip, "--no-deps", "-r", str(pins)],
    ):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"cannot be installed: {last_line(done.stderr)}")


def last_line(text: str) -> str:
    """What an error came to."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "it said nothing"


def spread(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several runs of one contender: the most memory, and the best and the median of each rate."""
    told = {"peak_mb": max(run["peak_mb"] for run in runs)}
    for rate in ("wall_rate", "cpu_rate"):
        values = [run[rate] for run in runs]
        told |= {f"{rate}_best": round(max(values)), f"{rate}_median": round(median(values))}
    return told


def environment(threads: int) -> dict[str, str]:
    """So many threads, and no reaching out."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def drive(place: str, script: str, task: dict[str, Any], patience: float | None = None) -> dict[str, Any]:
    """A task done by a peer's script in a fresh process: the JSON that it printed last, or `error`.

    The task goes with the data into its `folder`, and to so many `threads`; `patience` is in seconds.
    """
    path = Path(task["folder"]) / "task.json"
    path.write_text(json.dumps(task))
    try:
        command = [interpreter(place), str(PEERS / place / script), str(path)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment(task["threads"]), timeout=patience
        )
    except (Missing, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": last_line(done.stderr)}
    return found


def tell(result: dict[str, Any], table: str, path: Path | None = None) -> None:
    """The table to standard error, for people; all of it as JSON to the file, or to standard output."""
    print(table, file=sys.stderr)
    text = json.dumps(result, indent=1)
    path.write_text(text + "\n") if path else print(text)
