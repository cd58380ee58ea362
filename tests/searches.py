"""Small searches for tests of `antiphon tune`: their settings, their command, a kill, and what to compare."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from antiphon.tuning.study import Spec, Study
from antiphon.tuning.tune import Budget, Outcome
from runs import SMALL

FIXED = {key: value for key, value in SMALL.items() if key not in ("training.rate", "model.dropout")}
FIXED |= {"training.steps": 24, "training.validate_every": 4, "training.ema": 0.0, "training.patience": 0,
          "training.processes": 1, "model.encoder.kind": "gru", "model.decoder.kind": "gru", "model.attention": "dot",
          "data.valid": 0.2}  # fmt: skip
SEARCH = ["--trials", "4", "--workers", "1", "--seeds", "1", "--finalists", "1"]


def study_of(folder: Path, metric: str, pairs: int) -> Study:
    """A study that searches nothing."""
    spec = Spec("", "", {}, "", {}, {}, metric, metric == "exact", (), {}, {"judge": pairs}, "", 1)
    return Study(folder, spec)


def program(data: Path, out: Path, *more: str) -> list[str]:
    """The command of a small search."""
    settings = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in FIXED.items()]
    command = [sys.executable, "-W", "error", "-m", "antiphon", "tune", str(data), "--out", str(out)]
    return [*command, *SEARCH, *settings, *more]


def killed(data: Path, out: Path, run: str, *more: str) -> None:
    """Begin or go on, and be killed once this run has a checkpoint."""
    process = subprocess.Popen(program(data, out, *more), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(out.glob(f"{run}/checkpoints/step-*")):
        time.sleep(0.005)
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "it never came there"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


BUDGET = Budget(4, None, 1, 1, 1)


def table(result: dict[str, Any]) -> list[Any]:
    """What was tried."""
    return [(row["name"], row["state"], row["changes"], row["bracket"], sorted(row["values"]))
            for row in result["trials"]]  # fmt: skip


def same(mine: Outcome, other: Outcome) -> None:
    """The same was tried and found. Processes may choose other routes of matrix products, so numbers are near."""
    these, expected = (json.loads(each.to_bytes()) for each in (mine, other))
    assert table(these) == table(expected)
    for one, two in zip(these["trials"], expected["trials"], strict=True):
        assert list(one["values"].values()) == pytest.approx(list(two["values"].values()), abs=1e-4)
    assert [each["name"] for each in these["finals"]] == [each["name"] for each in expected["finals"]]
    assert mine.gain is not None
    assert other.gain is not None
    assert mine.gain.interval == pytest.approx(other.gain.interval, abs=1e-4)
