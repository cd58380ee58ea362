"""A run as its log tells it: steps, validations, probes and notes, with what was given and what was proposed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.core.config import Config
from antiphon.core.errors import TrainingError
from antiphon.core.keys import get
from antiphon.diagnosis.doctor.findings import Plot, thinned
from antiphon.diagnosis.doctor.weighing import smooth
from antiphon.training.observers import by_kind, by_probe, read_log
from antiphon.training.start import read_run

FEWEST = 20
"""Steps from which on a curve says something."""


@dataclass(frozen=True)
class Record:
    """All events of a run by kind. Figures that are not there are NaN, as are those that were not finite."""

    config: Config
    steps: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    probes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)
    end: Mapping[str, Any] = field(default_factory=dict)
    run: Path = Path()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(config: Config, events: Iterable[Mapping[str, Any]], run: Path, facts: Mapping[str, Any]) -> Record:
        """The events sorted by kind."""
        found = by_kind(events)
        end = found["end"][-1] if found["end"] else {}
        probes = by_probe(found["probe"])
        return Record(config, found["step"], found["validation"], probes, found["note"], end, run, facts)

    @staticmethod
    def open(run: Path) -> Record:
        """From a run folder. `TrainingError` where there is none, or nothing was learned in it yet."""
        config, facts = read_run(run)
        log = run / "log.jsonl"
        record = Record.of(config, read_log(log) if log.exists() else [], run, facts)
        if not record.steps:
            raise TrainingError(
                "the run has no step yet", where=run, do=f"go on with it: antiphon resume {shlex.quote(str(run))}"
            )
        return record

    def column(self, name: str) -> np.ndarray:
        """A figure of every step."""
        values = [event.get(name) for event in self.steps]
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    @cached_property
    def losses(self) -> np.ndarray:
        """The training loss of each step in nats a token, where it was finite."""
        losses = self.column("loss")
        return losses[np.isfinite(losses)]

    @cached_property
    def curve(self) -> np.ndarray:
        """The training loss without its noise."""
        return smooth(self.losses)

    @cached_property
    def norms(self) -> np.ndarray:
        """The norm of each step's gradient, before it was clipped; a step that was not finite has an infinite one."""
        norms = self.column("gradient_norm")
        return np.where(np.isnan(norms), np.inf, norms)

    @property
    def validation_losses(self) -> list[tuple[int, float]]:
        """Step and loss of each validation."""
        return [(event["step"], event["loss"]) for event in self.validations if event.get("loss") is not None]

    @property
    def best_loss(self) -> float | None:
        """The lowest validation loss."""
        return min((loss for _, loss in self.validation_losses), default=None)

    def scores(self, name: str) -> list[tuple[int, float]]:
        """Step and value of a score at each validation."""
        found = ((event["step"], (event.get("scores") or {}).get(name)) for event in self.validations)
        return [(step, score["value"]) for step, score in found if score and score.get("value") is not None]

    def probed(self, kind: str, name: str) -> list[tuple[int, float]]:
        """Step and value of a figure of the probes of a kind."""
        found = ((probe.get("step", 0), probe.get(name)) for probe in self.probes.get(kind, ()))
        return [(step, float(value)) for step, value in found if isinstance(value, int | float)]

    def last(self, kind: str, name: str) -> float | None:
        """The latest value of a figure of the probes, if there is one."""
        return values[-1][1] if (values := self.probed(kind, name)) else None

    def noted(self, kind: str) -> list[str]:
        """The texts of all notes of a kind."""
        return [str(note.get("text")) for note in self.notes if note.get("kind") == kind]

    @cached_property
    def proposed(self) -> frozenset[str]:
        """Settings that the recipe chose; all others were given, or are defaults."""
        return frozenset(text.split(" = ")[0] for text in self.noted("choice"))

    @property
    def epochs(self) -> float:
        """Passes over the data, part of one included."""
        last = self.steps[-1]
        whole, of = last.get("epoch") or 0, last.get("epoch_steps") or 1
        return whole + min(1.0, sum(event.get("epoch") == whole for event in self.steps[-of:]) / of)

    @property
    def in_nats(self) -> bool:
        """Whether losses are those of tokens by likelihood, which fall towards 0 from the logarithm of a vocabulary."""
        config = self.config
        return config.data.target.kind != "numbers" and config.training.objective in ("likelihood", "unlikelihood")

    def value(self, key: str) -> Any:
        """A setting."""
        return get(self.config, key)

    @property
    def peak(self) -> float:
        """The highest learning rate of any step."""
        rates = self.column("rate")
        return float(np.nanmax(rates)) if np.isfinite(rates).any() else 0.0

    def plot(self, name: str = "training loss") -> Plot:
        """The training loss over the run."""
        return Plot(name, "step", thinned(np.arange(1, len(self.losses) + 1).tolist(), self.losses.tolist()))
