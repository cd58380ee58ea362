"""What a run tells while it goes on: events, the observers that look at them, and the log file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from antiphon.core.config import Config
from antiphon.data.columns import Pair
from antiphon.inference.tasks import Choice
from antiphon.metrics import Score


@dataclass(frozen=True)
class Stop:
    """Why a run is to end for good: a word for `Result.reason`, and what a person should know."""

    reason: str
    text: str


Answer = Literal["stop"] | Stop | None
"""What an observer may say: `"stop"` asks the trainer to end after this step, with a checkpoint to go on from; a `Stop`
to end the run."""


@dataclass(frozen=True)
class Started:
    """The run begins, or goes on: sizes and budgets."""

    out: Path
    parameters: int
    pairs: int
    valid_pairs: int
    epoch_steps: int
    steps: int | None
    epochs: int | None
    minutes: float | None
    metric: str
    resumed: int | None
    """The step it goes on from; None for a fresh run."""
    seconds: float
    """Of training before, where it goes on."""
    processes: int
    threads: int
    """Of each process."""
    device: str


@dataclass(frozen=True)
class StepEvent:
    """One optimizer step: loss in nats a target token, tokens without padding, rates per second of wall time."""

    step: int
    epoch: int
    epoch_steps: int
    loss: float
    tokens: int
    tokens_per_second: float
    cpu_seconds: float
    rate: float
    gradient_norm: float
    eta_seconds: float | None
    skipped: int
    facts: Mapping[str, float] = field(default_factory=dict)
    """What the objective says of the step besides its loss."""


@dataclass(frozen=True)
class ValidationEvent:
    """One look at held-out pairs: loss in nats a token, scores by metric, and samples (source, reference, answer)."""

    step: int
    epoch: int
    loss: float
    scores: dict[str, Score]
    samples: list[tuple[str, str, str]]
    best: bool


@dataclass(frozen=True)
class ProbeEvent:
    """A look inside: `kind` is layers, loss, attention, answers or rate, and `facts` what docs/probes.md says of it."""

    step: int
    epoch: int
    kind: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Note:
    """Something a person should know: `kind` is data, audit, choice, start, split, skip, rollback, save,
    resume or stop."""

    kind: str
    text: str
    step: int = 0


@dataclass(frozen=True)
class Result:
    """How a run ended. `best` is the judged value (`metric`) of the weights in `bundle`."""

    out: Path
    reason: str
    """steps, epochs, minutes, patience, collapse, observer, signal, or finished (there was nothing left to do)."""
    step: int
    epoch: int
    metric: str
    best: float | None
    best_step: int
    scores: dict[str, float]
    bundle: Path | None
    seconds: float
    skipped: int
    interrupted: int = 0
    """The signal that ended it, or 0."""
    notes: tuple[Note, ...] = field(default=())
    adapter: str = ""
    """The adapter that was trained, if it was one."""

    @property
    def exit_code(self) -> int:
        """0, or 128 + the signal: 130 for Ctrl-C, 143 for SIGTERM, 129 where the terminal has closed."""
        return 128 + self.interrupted if self.interrupted else 0


@dataclass(frozen=True)
class Opened:
    """The data is open and all settings are known; nothing is learned yet."""

    train: Iterable[Pair]
    config: Config


class Observer:
    """Looks at a run and may ask it to stop; never changes it. Override what you need."""

    def proposed(self, event: Sequence[Choice]) -> Answer:
        """Before anything is learned: the settings that were proposed from the data, with reasons."""
        return None

    def opened(self, event: Opened) -> Answer:
        """After that: the pairs to train on. Going through them costs a pass over the data."""
        return None

    def started(self, event: Started) -> Answer:
        """Before the first step."""
        return None

    def step(self, event: StepEvent) -> Answer:
        """After each optimizer step."""
        return None

    def validated(self, event: ValidationEvent) -> Answer:
        """After each validation."""
        return None

    def probed(self, event: ProbeEvent) -> Answer:
        """After the event of the step or the validation that it looks at."""
        return None

    def noted(self, event: Note) -> Answer:
        """A warning, a choice, or a line of the data report."""
        return None

    def finished(self, event: Result) -> Answer:
        """At the end, interrupted or not."""
        return None


class Audience:
    """Tells all observers and gathers what they say; keeps the notes for the result."""

    def __init__(self, observers: Sequence[Any]) -> None:
        self.observers = list(observers)
        self.notes: list[Note] = []
        self.stop: Stop | None = None

    def tell(self, what: str, event: Any) -> None:
        """Call the method `what` of each observer that has it."""
        if isinstance(event, Note):
            self.notes.append(event)
        for observer in self.observers:
            method = getattr(observer, what, None)
            answer = method(event) if method is not None else None
            if isinstance(answer, Stop):
                self.stop = answer
            elif answer == "stop":
                self.stop = self.stop or Stop("observer", "")

    def note(self, kind: str, text: str, step: int = 0) -> None:
        """Tell a `Note`."""
        self.tell("noted", Note(kind, text, step))


class Log(Observer):
    """Every event as one line of JSON in `log.jsonl`, there at once. A full disk stops the log, not the run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: FileIO | None = None

    def step(self, event: StepEvent) -> Answer:
        return self._write("step", event)

    def validated(self, event: ValidationEvent) -> Answer:
        return self._write("validation", event)

    def probed(self, event: ProbeEvent) -> Answer:
        return self._write("probe", event)

    def noted(self, event: Note) -> Answer:
        return self._write("note", event)

    def finished(self, event: Result) -> Answer:
        self._write("end", dataclasses.replace(event, notes=()))
        self.close()
        return None

    def _write(self, kind: str, event: Any) -> Answer:
        values = finite({"event": kind, **dataclasses.asdict(event)})
        if isinstance(event, ProbeEvent):
            values |= values.pop("facts")
        line = json.dumps(values, ensure_ascii=False, default=str, allow_nan=False).encode("utf-8", "replace") + b"\n"
        with suppress(OSError):
            if self.file is None:
                self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115
            before = os.fstat(self.file.fileno()).st_size
            if self.file.write(line) != len(line):  # the disk is full: the next line must not go on with this one
                os.ftruncate(self.file.fileno(), before)
        return None

    def size(self) -> int:
        """Bytes so far, on disk when this returns."""
        with suppress(OSError):
            if self.file is not None:
                self.file.flush()
                os.fsync(self.file.fileno())
            return self.path.stat().st_size
        return 0

    def cut(self, size: int) -> None:
        """Forget what was written after a checkpoint of this size."""
        if self.path.exists() and self.path.stat().st_size > size:
            os.truncate(self.path, size)

    def close(self) -> None:
        """Let go of the file."""
        if self.file is not None:
            with suppress(OSError):
                self.file.close()
            self.file = None


def finite(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


KINDS = ("step", "validation", "probe", "note", "end")
"""What a line of a log may tell of."""


def by_kind(events: Iterable[Any]) -> dict[str, list[dict[str, Any]]]:
    """The events of a log by what they tell of, each kind in order; what is no such event is left out."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for event in events:
        if isinstance(event, dict) and event.get("event") in KINDS:
            found[event["event"]].append(event)
    return found


def by_probe(events: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Events of probes by the kind of probe."""
    found: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        found.setdefault(str(event.get("kind")), []).append(event)
    return found


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a run; a line torn by a crash is left out."""
    events = []
    for line in path.read_bytes().split(b"\n"):
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def per_token(total: float, count: int) -> float:
    """Nats a token; infinite where there was none."""
    return total / count if count else math.inf
