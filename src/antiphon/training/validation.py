"""A look at held-out pairs during training: the loss of all of them, and metrics of real answers to some."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from antiphon import metrics
from antiphon.core.config import Config, Decoding
from antiphon.core.errors import ConfigError, DataError
from antiphon.data.corpus import Pair, group_references
from antiphon.inference.bundle import Bundle
from antiphon.inference.evaluate import check_metric, of_numbers, said
from antiphon.inference.forced import LIKELIHOODS, likelihoods, teacher_forced
from antiphon.inference.predictor import Answer, Predictor
from antiphon.inference.rerank import ranker
from antiphon.inference.task import Task
from antiphon.metrics import Score
from antiphon.models.seq2seq import Seq2Seq

ANSWERED = 1000
"""The most sources that a validation answers; their number is spread evenly over all."""

BUNCH = 64
"""Sources answered together; a signal waits for one bunch."""

SHOWN = 8
"""Samples in a validation event."""

FORCED = tuple(each.name for each in LIKELIHOODS)

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a validation found: loss in nats a token, scores by name, and samples (source, reference, answer)."""

    loss: float
    scores: dict[str, Score]
    samples: list[tuple[str, str, str]]


class Validator:
    """Validates the same pairs in the same way each time; answers are greedy, which costs least.

    `metric` is what is judged by: `loss`, `perplexity`, `forced_accuracy`, or the name of any metric; those named in
    `besides` are only told. `poll` is called between batches and may raise to end it early.
    """

    def __init__(self, config: Config, task: Task, pairs: Sequence[Pair], besides: Sequence[str] = ()) -> None:
        self.config, self.task = config, task
        self.metric = config.training.metric or "loss"
        self.by_answers = None if self.metric in FORCED else metrics.get(self.metric)
        self.metrics = {name: metrics.get(name) for name in besides}
        self.metrics |= {self.metric: self.by_answers} if self.by_answers else {}
        grouped = group_references(pairs)
        self.answered = grouped[:: math.ceil(len(grouped) / (ANSWERED if self.metrics else SHOWN))]
        self.order = sorted(range(len(self.answered)), key=lambda row: len(self.answered[row].source))
        for metric in self.metrics.values():
            check_metric(metric, config)
        if of_numbers(config) and self.metric in FORCED and self.metric != "loss":
            do = "take mae, rmse, mase, crps or loss"
            raise ConfigError("numbers have no tokens to count", where="training.metric", got=self.metric, do=do)
        ranker(config.decoding, None)  # what is wrong with decoding.risk is said before training, not after
        self.settings = quick(config.decoding)
        self.batches = [task.batch(rows) for rows in bunches(pairs, config.data.batch_tokens or 4096)]

    @property
    def higher_is_better(self) -> bool:
        """Of the metric that is judged by."""
        return self.by_answers.higher_is_better if self.by_answers else self.metric == "forced_accuracy"

    def __call__(self, model: Seq2Seq, poll: Callable[[], None]) -> Outcome:
        forced = teacher_forced(model, polled(self.batches, poll))
        scores = {
            each.name: Score(each.name, value, None, each.signature, each.higher_is_better)
            for each, value in zip(likelihoods(model), forced, strict=False)
        }
        found = self._answers(model, poll)
        answers = [answer.text for answer in found]
        references = [pair.references or (pair.target,) for pair in self.answered]
        for name, metric in self.metrics.items():
            scores[name] = metrics.corpus(metric, [said(answer) for answer in found], references)
        if of_numbers(self.config) and math.isnan(scores[self.metric].value) and math.isfinite(forced.loss):
            what, do = f"{self.metric} says nothing of the held-out pairs", "take training.metric=mae, or loss"
            raise DataError(what, where="training.metric", do=do)
        shown = zip(self.answered[:SHOWN], references, answers, strict=False)
        return Outcome(forced.loss, scores, [(pair.source, refs[0], answer) for pair, refs, answer in shown])

    def _answers(self, model: Seq2Seq, poll: Callable[[], None]) -> list[Answer]:
        predictor = Predictor(Bundle(model, self.task, self.config, {}, Path()), processes=1)
        inputs = (self.answered[row] for row in self.order)
        found = predictor.predict(inputs, settings=self.settings, batch_size=BUNCH, window=BUNCH)
        answers = {row: best[0] for row, best in zip(self.order, polled(found, poll), strict=True)}
        return [answers[row] for row in range(len(self.order))]


def quick(settings: Decoding) -> Decoding:
    """Greedy search with the limits of these settings; every source is answered."""
    return replace(settings, beam=1, groups=1, n_best=1, sample=False, risk="", abstain=0.0)


def polled(items: Iterable[T], poll: Callable[[], None]) -> Iterator[T]:
    """The items, with a call of `poll` before each."""
    for item in items:
        poll()
        yield item


def bunches(pairs: Sequence[Pair], tokens: int) -> Iterator[list[Pair]]:
    """Pairs, one for each accepted target, by length in bunches of roughly `tokens` characters with padding."""
    spread = [Pair(p.source, target, (), p.context) for p in pairs for target in (p.references or (p.target,))]
    spread.sort(key=lambda pair: (len(pair.target), len(pair.source)))
    bunch: list[Pair] = []
    widest = 0
    for pair in spread:
        widest = max(widest, len(pair.source) + len(pair.target) + 2)
        if bunch and (len(bunch) + 1) * widest > tokens:
            yield bunch
            bunch, widest = [], len(pair.source) + len(pair.target) + 2
        bunch.append(pair)
    if bunch:
        yield bunch
