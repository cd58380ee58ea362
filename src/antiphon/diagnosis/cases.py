"""A run opened again for experiments: its settings, tokens and pairs, and short trainings from fresh weights."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from antiphon.core.config import Config
from antiphon.core.errors import ConfigError, TrainingError
from antiphon.data.corpus import Pair
from antiphon.data.modalities import TooLong
from antiphon.data.numbers import Numbers
from antiphon.data.store import prepare
from antiphon.inference.bundle import Bundle, load
from antiphon.inference.task import Task
from antiphon.training.checkpoint import Checkpoints
from antiphon.training.observers import Audience, Observer, StepEvent, ValidationEvent
from antiphon.training.sources import Sources
from antiphon.training.start import finder, fitted, read_run
from antiphon.training.trainer import train

PAIRS, HELD_OUT, TOKENS = 2000, 100, 2048
"""Pairs that experiments learn from and validate with, and tokens of their batches, at most."""


@dataclass(frozen=True)
class Curve:
    """A short training: the loss of each step and of each validation, in nats a token; none where one was no number."""

    steps: tuple[float, ...]
    valid: tuple[float, ...]

    @property
    def last(self) -> float:
        """Mean loss of the last tenth of the steps; infinite where a loss was no number."""
        count = max(1, len(self.steps) // 10)
        return sum(self.steps[-count:]) / count if self.steps else math.inf

    @property
    def best(self) -> float:
        """The lowest validation loss."""
        return min(self.valid, default=math.inf)


class _Ears(Observer):
    """Keeps the losses, and ends a training that has lost its numbers."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.valid: list[float] = []

    def step(self, event: StepEvent) -> Any:
        self.steps.append(event.loss)
        return None if math.isfinite(event.loss) else "stop"

    def validated(self, event: ValidationEvent) -> None:
        self.valid.append(event.loss)


@dataclass(frozen=True)
class Case:
    """The settings of a run, its bundle, and some of its pairs."""

    config: Config
    bundle: Bundle
    pairs: list[Pair]
    held_out: list[Pair]

    @classmethod
    def open(cls, run: Path) -> Case:
        """Read the run and its data. Raises `AntiphonError` where either is gone, or the run began with a model."""
        config, facts = read_run(run)
        if config.model.adapter.name:
            raise ConfigError("experiments are for whole models, and this run trained an adapter", where=run,
                              do="try them on the run that it was trained from")  # fmt: skip
        if "start" in facts:
            raise ConfigError("experiments train fresh weights, and this run went on from a model", where=run,
                              do="try them on the run that it was trained from")  # fmt: skip
        trained = (run / "best").exists() or not Checkpoints(run).all()
        bundle = load(run if trained else Checkpoints(run).all()[0])
        task = replace(bundle.task, find=finder(config, Audience([])))
        parts = Sources.unchanged(run, facts, config).open(config)
        pairs, held_out = (_fitting(part, task, most) for part, most in zip(parts, (PAIRS, HELD_OUT), strict=True))
        return cls(config, replace(bundle, task=task), pairs, held_out)

    @property
    def task(self) -> Task:
        """What turns pairs into ids."""
        return self.bundle.task

    def of_text(self) -> Case:
        """Itself; `ConfigError` where its answers are numbers."""
        if isinstance(self.task.target, Numbers):
            what = "this experiment is for answers of text, and those of this model are numbers"
            raise ConfigError(what, where=self.bundle.path, do="leave it out")
        return self

    def learn(self, pairs: Sequence[Pair], steps: int, *, rate: float | None = None, dropout: bool = True,
              looks: int = 1) -> Curve:  # fmt: skip
        """Train fresh weights on these pairs for so many steps, with `looks` validations.

        All is as in the run, but: likelihood alone, a constant rate after a short warm-up, one process, and no dropout
        or smoothing where not asked for.
        """
        config = self._settings(steps, rate or self.config.training.rate or 0.001, dropout, looks)
        size = None if self.task.copy else max(self.task.source.size, self.task.target.size)
        ears = _Ears()
        with tempfile.TemporaryDirectory(prefix="antiphon-") as folder:
            store = prepare(pairs, partial(self.task.encode), ids_below=size)
            # Three steps in a row that are no numbers, again and again, end in an error: that is a finding here.
            with suppress(TrainingError):
                result = train(config, self.task, store, self.held_out, Path(folder, "run"), observers=[ears])
                if result.interrupted:
                    raise KeyboardInterrupt
        good = all(map(math.isfinite, ears.steps))
        return Curve(tuple(ears.steps), tuple(ears.valid)) if good else Curve((), ())

    def _settings(self, steps: int, rate: float, dropout: bool, looks: int) -> Config:
        tokens, before = min(self.config.data.batch_tokens or TOKENS, TOKENS), self.config
        training = replace(
            before.training, steps=steps, epochs=None, minutes=None, patience=0, validate_every=max(1, steps // looks),
            rate=rate, schedule="constant", warmup=min(before.training.warmup or 0, steps // 10), metric="loss",
            objective="likelihood", teachers=(), scheduled_sampling=0.0, r_drop=0.0, ema=0.0, average=0, l2_start=0.0,
            processes=1, probes=False, compile=False, accumulate=1,
        )  # fmt: skip
        model = before.model
        if not dropout:
            training = replace(training, label_smoothing=0.0, weight_decay=0.0, l1=0.0, l2=0.0)
            model = replace(model, dropout=0.0, dropout_attention=0.0, dropout_recurrent=0.0, dropout_embedding=0.0,
                            dropout_word=0.0)  # fmt: skip
        return replace(before, training=training, model=model, data=replace(before.data, batch_tokens=tokens, mix=0.0))


def _fitting(pairs: Any, task: Task, most: int) -> list[Pair]:
    """The first pairs that are not too long, evenly spread where the corpus says how many there are."""
    total = sum(1 for _ in pairs)
    chosen = islice(pairs, 0, None, max(1, total // most))
    found = list[Pair]()
    for pair in chosen:
        with suppress(TooLong):
            task.encode(pair)
            found.append(fitted(pair, task))
        if len(found) == most:
            break
    return found
