"""Checkpoints: a bundle with a `training/` folder inside, two generations of it, and the newest that is whole."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from antiphon.core.config import Training
from antiphon.core.errors import BundleError
from antiphon.inference import files as folders
from antiphon.inference.strict_json import dump_json, load_json

STATE = "training/state.json"
NAME = re.compile(r"step-[0-9]{8,}")
"""Of a checkpoint; whatever else is beside them is somebody's own."""

WAITS = (0.1, 0.4)
"""Seconds before each new attempt to write what could not be written."""

GENERATIONS = 2


@dataclass
class State:
    """All that a run knows besides tensors. Every random choice follows from the seed and these counters."""

    step: int = 0
    """Optimizer steps begun, skipped ones too."""
    epoch: int = 0
    group: int = 0
    """Steps of this epoch that are done: the place in the data."""
    seconds: float = 0.0
    """Wall-clock seconds spent so far, over all sessions."""
    validation_seconds: float = 0.0
    """What the latest validation took."""
    skipped: int = 0
    in_a_row: int = 0
    rollbacks: int = 0
    scale: float = 1.0
    """What plateaus and rollbacks have made of the learning rate."""
    limit: int | None = None
    """The most padded tokens that fitted in memory at once, once that is known."""
    halvings: int = 0
    stale: int = 0
    """Validations since the best one."""
    flat: int = 0
    """Validations since the best one or the last lowering of the rate."""
    best: float | None = None
    best_loss: float = 0.0
    best_step: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    """Of the best weights."""
    validated: int = -1
    """The step of the latest validation that was completed."""
    anchor: int = 0
    """The checkpoint to roll back to."""
    log: int = 0
    """Bytes of the log file that belong to this state."""
    processes: int = 1
    threads: int = 1
    matmul: str = "highest"
    precision: str = "fp32"
    """What sums depend on besides the data: kept, so that a resumed run adds up in the same order."""
    done: str = ""
    """Why the run ended, once it has."""

    def pace(self, schedule: str | None) -> float:
        """What a rate is multiplied by: plateaus lower those alone that follow them, roll-backs all."""
        return self.scale if schedule == "plateau" else 0.5**self.rollbacks

    def beaten(self, value: float, loss: float, *, higher: bool) -> bool:
        """Whether this is better than the best so far, a `higher` value or a lower one; the loss decides equals."""
        if not math.isfinite(value) or not math.isfinite(loss):
            return False
        sign = -1 if higher else 1
        return self.best is None or (sign * value, loss) < (sign * self.best, self.best_loss)

    def judged(self, settings: Training, *, best: bool) -> None:
        """Count towards stopping, and towards lowering the rate where the schedule is `plateau`."""
        self.stale, self.flat = (0, 0) if best else (self.stale + 1, self.flat + 1)
        if settings.schedule == "plateau" and self.flat >= max(1, (settings.patience or 10) // 2):
            self.flat, self.scale = 0, self.scale / 2

    def to_bytes(self) -> bytes:
        """As a file of a checkpoint."""
        return dump_json(asdict(self))

    @classmethod
    def read(cls, content: bytes, where: object) -> State:
        """What `to_bytes` gave; anything else is a `BundleError`."""
        values = load_json(content, where=where)
        known = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or not {"step", "done"} <= set(values) <= known:
            raise BundleError("is not the state of a training of this version", where=where)
        return cls(**values)


@dataclass(frozen=True)
class Found:
    """A checkpoint that verifies, with its bytes, and what was wrong with newer ones."""

    path: Path
    manifest: dict[str, Any]
    files: dict[str, bytes]
    problems: tuple[str, ...]

    @property
    def state(self) -> State:
        """The counters in it."""
        return State.read(self.files[STATE], self.path / STATE)


class Checkpoints:
    """The folder `checkpoints/` of a run: `step-00001234/` each, the newest two and the ones they roll back to."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.folder / f"step-{step:08d}"

    def all(self) -> list[Path]:
        """All checkpoint folders, newest first, damaged ones included."""
        return sorted((path for path in self.folder.glob("step-*") if NAME.fullmatch(path.name)), reverse=True)

    def save(self, state: State, contents: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
        """Write the checkpoint of this state, then drop older generations. `OSError` where the disk fails.

        The old ones go only after the new one was read back from disk and found whole.
        """
        path = self.path(state.step)
        folders.write_folder(path, {**contents, STATE: state.to_bytes()}, facts=facts)
        try:
            folders.verify(path, training=True)
        except BundleError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise OSError(errno.EIO, f"what was written reads back damaged: {error}") from None
        self._rotate(path)

    def _rotate(self, written: Path) -> None:
        """Keep the newest generations; what is of later steps was damaged when the run went on from before it."""
        kept = [path for path in self.all() if path <= written][:GENERATIONS]
        anchors = {self.path(anchor) for path in kept if (anchor := _anchor(path)) is not None}
        for path in set(self.all()) - set(kept) - anchors:
            aside = path.with_name(f"{path.name}.old-{os.getpid()}")  # a half-removed folder is no damaged checkpoint
            os.rename(path, aside)
            shutil.rmtree(aside, ignore_errors=True)

    def load(self, step: int) -> Found:
        """The checkpoint of one step; `BundleError` where it is damaged."""
        return _read(self.path(step), ())

    def newest(self) -> Found:
        """The newest checkpoint that verifies; older ones are tried in turn."""
        problems: list[str] = []
        for path in self.all():
            try:
                return _read(path, tuple(problems))
            except BundleError as error:
                problems.append(str(error))
        what = "no checkpoint is whole" if problems else "there is no checkpoint"
        raise BundleError(what, where=self.folder, got=problems[0] if problems else "", do="train anew")

    def sweep(self) -> None:
        """Remove what a crash has left half-written, and bring back what it has left whole while the same step was
        written again; only the one process that trains in this run may do so."""
        for path in [*self.folder.glob("step-*.tmp-*"), *self.folder.glob("step-*.old-*")]:
            final = path.with_name(path.name.split(".")[0])
            if not final.exists():
                with suppress(BundleError):
                    folders.verify(path, training=True)
                    os.rename(path, final)
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.parent.glob("best.tmp-*"):
            shutil.rmtree(path, ignore_errors=True)


def _read(path: Path, problems: tuple[str, ...]) -> Found:
    manifest, contents = folders.read(path, training=True)
    found = Found(path, manifest, contents, problems)
    if STATE not in contents:
        raise BundleError("the file is missing", where=path / STATE)
    if found.state.step != int(path.name[5:]):
        raise BundleError("this is the checkpoint of another step", where=path, got=found.state.step)
    return found


def _anchor(path: Path) -> int | None:
    try:
        anchor = json.loads((path / STATE).read_bytes())["anchor"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return anchor if isinstance(anchor, int) else None


def insist(write: Callable[[], None]) -> OSError | None:
    """Try to write, and again after short waits; gives the last error where none succeeded."""
    failed: OSError | None = None
    for wait in (0.0, *WAITS):
        time.sleep(wait)
        try:
            write()
            return None
        except OSError as error:
            failed = error
    return failed


def room(folder: Path, needed: int) -> str:
    """A warning where the disk has too little room for all generations of checkpoints, else nothing."""
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return ""
    return f"the disk has {free / 1e6:,.0f} MB free but checkpoints need about {needed / 1e6:,.0f} MB"
