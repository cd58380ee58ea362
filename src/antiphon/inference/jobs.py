"""Inputs on their way through a `Predictor`: what is known of each, which go together, and what becomes of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from antiphon.core.errors import ConfigError, DataError
from antiphon.core.numbers import spell
from antiphon.data.corpus import Pair
from antiphon.inference.answer import Answer
from antiphon.inference.confidence import Calibration, probability
from antiphon.inference.hypothesis import Constraint, Hypothesis, Ranked, Rolled
from antiphon.inference.task import Source, Task

BATCH_TOKENS = 16_384
"""Most source tokens of a batch, padding included."""
LOOKS = 1 << 24
"""Most source tokens of a batch times steps to be expected: where each step looked is kept to the end."""


PIECE = 1 << 32
"""What the number of a long recording is raised by for each piece of it: what is drawn for one depends on no other."""


@dataclass(frozen=True)
class Job:
    """One input on its way: its number, what the model reads (None: `reason` says why nothing), constraints, and
    the `pair` as it was given."""

    number: int
    source: Source | None
    constraint: Constraint
    reason: str = ""
    pair: Pair | None = None

    @property
    def place(self) -> str:
        """Where it was in what was given."""
        return place_of(self.number)


def place_of(number: int) -> str:
    """Where the input of this number, or of a piece of it, was in what was given."""
    return f"input {number % PIECE + 1}"


class Watcher(Protocol):
    """Looks on while inputs, told apart by their numbers, are answered with text."""

    def look(self, going: Collection[int], text: Callable[[int], str | None]) -> Collection[int]:
        """After each step of PyTorch, or a few inputs of another engine: what goes on, and the text of the best answer
        so far (None where an ended one is better, or the engine does not tell); gives the numbers of inputs to be given
        up, whose answers are then what there is of them, and not `finished`."""
        ...

    def tell(self, number: int, answers: list[Answer]) -> None:
        """The answers to an input as soon as they are certain, where that is before the others of its batch."""
        ...


def batched(jobs: Sequence[Job], most: int, limit: Callable[[int], int]) -> Iterator[list[Job]]:
    """Jobs with a source, by length, in batches of at most `most` sentences, `BATCH_TOKENS` tokens and `LOOKS`."""
    real = [job for job in jobs if job.source is not None]
    real.sort(key=lambda job: job.source.length if job.source else 0)
    batch: list[Job] = []
    for job in real:
        length = job.source.length if job.source else 0
        tokens = min(BATCH_TOKENS, LOOKS // limit(length))
        if batch and (len(batch) == most or (len(batch) + 1) * length > tokens):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def answered(job: Job, found: Hypothesis, task: Task, calibration: Calibration | None) -> Answer:
    """What a search has found for a job, as people read it."""
    assert job.source is not None
    weights = real = found.weights if isinstance(found, Rolled) else found.weights[: len(found.tokens)]
    if not isinstance(job.source.ids, np.ndarray):
        end = len(job.source.ids) - 1
        real = np.delete(weights, end, 1) if weights.shape[1] > end else weights
        weights = np.append(real, weights[:, end : end + 1], 1)
        real = weights[:, :-1] if weights.shape[1] > 1 else weights
    if isinstance(found, Rolled):
        return _of_numbers(job, found, weights, real)
    ranked = found if isinstance(found, Ranked) else Ranked(**vars(found))
    reasons = [job.reason, ranked.reason, "" if found.finished else "no end mark within the longest length"]
    told = found.log_probs if found.total is None else [found.total / (len(found.tokens) + found.finished)]
    return Answer(
        text=task.answer(found.tokens, job.source.extra),
        score=found.score,
        tokens=task.words.tokens(found.tokens, job.source.extra),
        probabilities=[math.exp(value) for value in found.log_probs[: len(found.tokens)]],
        alignment=list(found.heard) or (real.argmax(1).tolist() if found.weights.any() else []),
        weights=weights,
        source_tokens=[*job.source.tokens, *job.source.facts],
        probability=probability(told),
        confidence=calibration(found.log_probs, found.finished) if calibration else None,
        finished=found.finished,
        repeated=found.repeated,
        log_probs=found.log_probs,
        reason="; ".join(filter(None, reasons)),
        utility=ranked.utility,
        backward=ranked.backward,
    )


def _of_numbers(job: Job, found: Rolled, weights: np.ndarray, real: np.ndarray) -> Answer:
    """A forecast in the units of its source."""
    assert job.source is not None
    forecast = found.scaled(job.source.scale, job.source.history)
    reasons = [job.reason, "" if found.finished else "no end within the longest length"]
    places = [*job.source.tokens, *job.source.facts]
    looks = real.argmax(1).tolist() if weights.any() else []
    return Answer(spell(forecast.values_TF), 0.0, [], [], looks, weights, places, 1.0, finished=found.finished,
                  reason="; ".join(filter(None, reasons)), forecast=forecast)  # fmt: skip


def constrained(
    inputs: Iterable[str | Pair], prefixes: Iterable[str] | None, required: Iterable[Sequence[str]] | None
) -> Iterator[tuple[str | Pair, str, Sequence[str]]]:
    """Each input with what its answer must begin with and the words that this must hold. Raises `DataError` where there
    are fewer of these than inputs, `ConfigError` where the words of one are no list."""
    begin = itertools.repeat("") if prefixes is None else iter(prefixes)
    words: Iterator[Sequence[str]] = itertools.repeat(()) if required is None else iter(required)
    for item in inputs:
        try:
            made = item, next(begin), next(words)
        except StopIteration:
            raise DataError("there are fewer prefixes or required words than inputs") from None
        if isinstance(made[2], str):
            got = repr(made[2])
            raise ConfigError("required words are a list for each input", got=got, do="write [[...], ...]")
        yield made
