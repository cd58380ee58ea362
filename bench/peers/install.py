"""Each peer in an environment of its own, made the first time it is wanted."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

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


def environment(threads: int) -> dict[str, str]:
    """So many threads, and no reaching out."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
