"""What a run folder tells of itself: settings and their reasons, curves, notes, probes, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antiphon.core.config import Config
from antiphon.core.keys import get, leaves
from antiphon.training.observers import by_kind, by_probe, read_log
from antiphon.training.start import read_run

Points = list[tuple[float, float]]
"""Steps and values, in order."""

MOST = 160
"""Points of a curve; of more, neighbours are averaged."""


@dataclass(frozen=True)
class Run:
    """A run as its folder tells it; all of it may be there only in part, as long as there is a configuration."""

    path: Path
    config: Config
    facts: Mapping[str, Any]
    steps: list[dict[str, Any]] = field(repr=False)
    validations: list[dict[str, Any]] = field(repr=False)
    notes: list[dict[str, Any]] = field(repr=False)
    probes: dict[str, list[dict[str, Any]]] = field(repr=False)
    end: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """What it is called: its folder."""
        return self.path.resolve().name

    @property
    def metric(self) -> str:
        """What it was judged by."""
        return self.config.training.metric or "loss"

    def curve(self, name: str) -> Points:
        """A number of all steps (`loss`, `rate`, `gradient_norm`), thinned."""
        return thinned([(event["step"], event.get(name)) for event in self.steps])

    def losses(self) -> Points:
        """The validation loss."""
        return finite((event["step"], event.get("loss")) for event in self.validations)

    def scored(self, metric: str) -> list[tuple[float, float, float | None, float | None]]:
        """A score of each validation: step, value, and its interval where it has one."""
        found = []
        for event in self.validations:
            score = (event.get("scores") or {}).get(metric)
            if score and number(score.get("value")) is not None:
                low, high = score.get("interval") or (None, None)
                found.append((float(event["step"]), float(score["value"]), low, high))
        return found

    def probed(self, kind: str, name: str) -> Points:
        """A number of a kind of probe, over the steps."""
        return finite((event["step"], event.get(name)) for event in self.probes.get(kind, ()))

    def reasons(self) -> dict[str, str]:
        """Why settings were proposed, from the notes."""
        found = {}
        for note in self.notes:
            if note.get("kind") == "choice":
                what, _, why = str(note.get("text", "")).partition(": ")
                found.update({each.partition(" = ")[0].strip(): why for each in what.split(", ")})
        return found

    def told(self, *kinds: str) -> list[str]:
        """The notes of some kinds."""
        return [str(note.get("text", "")) for note in self.notes if note.get("kind") in kinds]


def open_run(path: Path) -> Run:
    """The run in a folder. Raises `TrainingError` where there is none, and `BundleError` where it is damaged."""
    (config, facts), log = read_run(path), path / "log.jsonl"
    events = by_kind(read_log(log) if log.exists() else [])
    placed = {kind: [event for event in found if number(event.get("step")) is not None]
              for kind, found in events.items()}  # fmt: skip
    end = events["end"][-1] if events["end"] else None
    return Run(
        path, config, facts, placed["step"], placed["validation"], placed["note"], by_probe(placed["probe"]), end
    )


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fine else None


def finite(pairs: Iterable[tuple[Any, Any]]) -> Points:
    """The pairs of two finite numbers."""
    numbers = ((number(x), number(y)) for x, y in pairs)
    return [(x, y) for x, y in numbers if x is not None and y is not None]


def thinned(pairs: Iterable[tuple[Any, Any]], most: int = MOST) -> Points:
    """At most so many points, each the mean of its neighbours."""
    points = finite(pairs)
    size = -(-len(points) // most) if points else 1
    parts = [points[at : at + size] for at in range(0, len(points), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def settings(runs: Sequence[Run]) -> list[tuple[str, list[Any], str, bool]]:
    """Every setting: its name, its value in each run, why it was proposed, and whether it is as it always is."""
    reasons: dict[str, str] = {}
    for run in reversed(runs):
        reasons |= run.reasons()
    rows = []
    for key in leaves():
        values = [get(run.config, key) for run in runs]
        rows.append((key, values, reasons.get(key, ""), all(value == get(Config(), key) for value in values)))
    return rows
