"""When a run is probed, and what is told of it then. A probe looks: weights, draws and data stay as they are."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from antiphon.core.batch import Batch
from antiphon.core.config import Config
from antiphon.core.errors import BundleError
from antiphon.data.corpus import Pair
from antiphon.data.store import Store
from antiphon.inference.strict_json import dump_json, load_json
from antiphon.inference.task import Task
from antiphon.models.forecasting import NumbersHead
from antiphon.models.seq2seq import Seq2Seq
from antiphon.training.learner import Learner
from antiphon.training.observers import Answer, Observer, ProbeEvent, StepEvent, ValidationEvent
from antiphon.training.probes import answers, losses
from antiphon.training.probes.activations import Activations
from antiphon.training.probes.layers import norms
from antiphon.training.probes.looks import Looks
from antiphon.training.probes.samples import Samples
from antiphon.training.probes.spikes import worst
from antiphon.training.regularizers import lent
from antiphon.training.runner import Local, is_memory

PROBES = "training/probes.json"

EARLY = 64
"""Steps until which layers are probed at every power of two; then whenever an eighth of the steps so far has passed."""

MOST = 32
"""Later steps of a run of known length that are probed at least."""

WINDOW, SPIKE, CALM = 64, 10.0, 50
"""A gradient is a spike where its norm is so many times the median of those of the last steps; steps until the next one
is told."""

WORTH = 60
"""Steps of training between probes at validation for each step's worth of work that these take: less than 2 % of it."""

CALL = 200
"""A pass through the model costs as much as so many tokens before it has read any."""

ROOM = 1024
"""Tokens of a sample at least; a third of a batch where that is more."""

FEW = 8
"""Training pairs on which the last update is tried again."""


def moments(steps: int | None) -> Iterator[int]:
    """The steps whose layers are probed, of a run of so many (None: who knows)."""
    step = 1
    while True:
        yield step
        gap = step if step < EARLY else step // 8
        step += max(1, min(gap, steps // MOST)) if steps and step >= EARLY else gap


class Probes(Observer):
    """Tells `ProbeEvent`s of one run. `watching` goes around the passes of a step; the rest follows from events."""

    def __init__(
        self, config: Config, task: Task, store: Store, held_out: Sequence[Pair], tell: Callable[[str, Any], None]
    ) -> None:
        self.config, self.settings, self.task, self.store, self.tell = config, config.training, task, store, tell
        self.room = max(ROOM, (config.data.batch_tokens or 4096) // 3)
        self.samples = Samples(task, store, held_out, self.settings.seed, self.room)
        self.moments, self.moment = moments(self.settings.steps), 0
        self.norms: deque[float] = deque(maxlen=WINDOW)
        self.looked = self.spiked = 0
        self.before: Tensor | None = None
        self.activations: Activations | None = None
        self.validates = False

    def begin(self, model: Seq2Seq, learner: Learner, files: Mapping[str, bytes] | None) -> None:
        """The model and who teaches it, as training begins; when it goes on, the files of its checkpoint too."""
        self.model, self.learner = model, learner
        if files is not None and PROBES in files:
            self._restore(load_json(files[PROBES], where=PROBES))

    @contextmanager
    def watching(
        self, step: int, runner: Local, batches: Sequence[Batch], rows: Sequence[np.ndarray], validates: bool,
        last: bool,
    ) -> Iterator[None]:  # fmt: skip
        """While `runner` finds the gradients of a step, and the model is changed by them.

        `rows` are the numbers of the pairs in the batches; `validates` says whether a validation comes after this step,
        `last` whether it is the last one. What is compiled has no activations to see.
        """
        while self.moment < step:
            self.moment = next(self.moments)
        self.batches, self.rows = batches, rows
        self.before, self.activations = None, None
        self.validates = self.settings.probes and (validates or last) and self._worth(step, last)
        if not self.settings.probes or not (step == self.moment or self.validates):
            yield
            return
        self.before = self._copied()
        if step != self.moment or runner.compiled:
            yield
            return
        finder: Any = runner.players({"model": self.model})["model"]
        with Activations(finder) as self.activations:
            yield

    def _copied(self) -> Tensor | None:
        """The weights as they are; None where there is no memory for them."""
        try:
            return self.learner.flat.weights.clone()
        except (MemoryError, RuntimeError) as error:
            if not is_memory(error):
                raise
            return None

    # What follows from events

    def step(self, event: StepEvent) -> Answer:
        """Layers, where it is time or the gradient is far out; and what the last update does when made again."""
        spike = self._spike(event)
        change = None
        if self.before is not None and math.isfinite(event.gradient_norm):
            change = self.learner.flat.weights - self.before
        if spike or event.step == self.moment:
            self._layers(event, change, spike)
        if self.validates and change is not None:
            self._guarded(event, "rate", lambda: {"sensitivity": self._again(change)})
        self.before = None
        return None

    def validated(self, event: ValidationEvent) -> Answer:
        """Losses, attention and answers, by the weights that were validated."""
        if not self.validates:
            return None
        self.validates, self.looked = False, event.step
        with self.learner.lent(self.learner.judged()):
            self._guarded(event, "", lambda: self._held_out(event))
        return None

    def _guarded(self, event: Any, kind: str, make: Callable[[], dict[str, Any]]) -> None:
        """Tell what `make` gives, if that is anything and there is memory for it."""
        try:
            facts = make()
        except (MemoryError, RuntimeError) as error:
            if not is_memory(error):
                raise
            return
        if facts:
            self.tell("probed", ProbeEvent(event.step, event.epoch, kind, rounded(facts)))

    # Layers

    def _layers(self, event: StepEvent, change: Tensor | None, spike: bool) -> None:
        seen = self.activations.readings() if self.activations is not None else []

        def facts() -> dict[str, Any]:
            return {
                "layers": norms(self.model, self.learner.flat, change, self._scale(event)), "activations": seen,
                "loss": event.loss, "rate": event.rate, "tokens": event.tokens, "gradient_norm": event.gradient_norm,
                "clipped": bool(self.settings.clip) and event.gradient_norm > self.settings.clip,
                "pairs": worst(self.model, self.task, self.batches, self.rows) if spike else [],
            }  # fmt: skip

        self._guarded(event, "layers", facts)

    def _scale(self, event: StepEvent) -> float | None:
        """What makes the gradient in the buffer that of the mean loss before clipping; None where there is none."""
        own = self.learner.own
        if not math.isfinite(event.gradient_norm):
            return None
        if own is not self.learner.flat:  # an adapter's: the gradient of the weights is still a sum
            return 1 / max(1, sum(batch.count for batch in self.batches))
        size = float(torch.linalg.vector_norm(own.gradient))
        return event.gradient_norm / size if size else None

    def _spike(self, event: StepEvent) -> bool:
        """Whether this gradient is far above those of the last steps, or no number at all; and remember it."""
        norm, usual = event.gradient_norm, self.norms
        high = not math.isfinite(norm) or (len(usual) >= CALM and norm > SPIKE * median(usual))
        if math.isfinite(norm):
            self.norms.append(norm)
        if not high or event.step < self.spiked + CALM * bool(self.spiked):
            return False
        self.spiked = event.step
        return True

    # With a validation

    def _worth(self, step: int, last: bool) -> bool:
        """Whether so many steps have passed since the last time that it costs little, or twice those before it; for the
        last step of all, a quarter of them."""
        if last:
            return 4 * (step - self.looked) >= step
        return step >= min(3 * self.looked, self.looked + math.ceil(WORTH * self._cost()))

    def _cost(self) -> float:
        """How many steps of training these probes cost, by what passes through the model."""
        sample, passes = self.samples.valid, 3.5
        tokens = self.config.data.batch_tokens or 4096
        step = 3 * (2 * CALL + tokens * self.settings.accumulate)
        work = passes * (8 * CALL + sample.tokens)
        if not isinstance(self.model.head, NumbersHead):
            asked = answers.answerable(sample).examples
            work += max(map(answers.limit, asked), default=0) * (CALL + len(asked))
        return work / step

    def _again(self, change: Tensor) -> list[float]:
        """The loss of a few training pairs now, and after the last update once and four times more."""
        flat, few = self.learner.flat, self.samples.train.first(FEW)
        found = []
        for times in (0, 1, 4):
            with lent(flat, flat.weights + times * change if times else None):
                found.append(losses.told(self.model, few).loss)
        return found

    def _held_out(self, event: ValidationEvent) -> dict[str, Any]:
        model, samples = self.model, self.samples
        vocabulary = None if isinstance(model.head, NumbersHead) else model.target_size
        half = samples.valid.first(max(FEW, len(samples.valid.examples) // 2))
        train, mixed = (losses.told(model, each) for each in (samples.train, half.shuffled(vocabulary)))
        with Looks(model) as looks:
            valid = losses.told(model, samples.valid, looks)
        self._guarded(event, "loss", lambda: losses.facts(model, train, valid, mixed))
        self._guarded(event, "attention", looks.facts)
        asked = answers.answerable(samples.valid)
        if vocabulary is not None and asked.examples:
            forced = valid.accuracy(len(asked.examples))
            self._guarded(event, "answers", lambda: answers.facts(model, self.task, asked, forced))
        return {}

    # A run that goes on

    def files(self) -> dict[str, bytes]:
        """What it remembers, as a file of a checkpoint."""
        if not self.settings.probes:
            return {}
        return {PROBES: dump_json({"norms": list(self.norms), "looked": self.looked, "spiked": self.spiked})}

    def _restore(self, values: Any) -> None:
        try:
            norms = [float(norm) for norm in values["norms"]]
            looked, spiked = int(values["looked"]), int(values["spiked"])
        except (KeyError, TypeError, ValueError):
            raise BundleError("is not what was probed of training", where=PROBES) from None
        self.norms, self.looked, self.spiked = deque(norms, maxlen=WINDOW), looked, spiked


def rounded(value: Any) -> Any:
    """The same with six digits of each number, which is more than any of them means."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
