"""The candidates of a search in another order, for the likeliest answer is not always the best one.

By their mean utility against each other (`Risk`), or by how well the source can be told from them (`Mutual`). The
order does not depend on the batch: `rank` says where two candidates are so close that float error could exchange
them, and the sentence is then searched and ranked again alone (docs/decisions/0001-near-ties.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError
from antiphon.data.batching import collate
from antiphon.data.columns import Pair
from antiphon.data.modalities import Text
from antiphon.data.report import Report
from antiphon.data.signals import Signal
from antiphon.data.store import Example
from antiphon.inference.bundle import Bundle
from antiphon.inference.hypothesis import MARGIN, Hypothesis, Ranked, pool
from antiphon.inference.risk import expected, utility
from antiphon.inference.search import rescore
from antiphon.inference.task import Task

LOGITS = 1 << 24
"""Most log probabilities of a backward model that are held at once."""
TOKENS = 1 << 14
"""Most tokens of answers, padding included, that a backward model reads at once."""


@dataclass(frozen=True)
class Candidates:
    """What a search has found for one input, in its order, and how each hypothesis reads."""

    source: Pair
    hypotheses: list[Hypothesis]
    texts: list[str]


class Ranker(Protocol):
    """What puts candidates in order."""

    @property
    def settings(self) -> Decoding:
        """How answers are searched for, `n_best` being how many are returned."""

    def rank(self, batch: Sequence[Candidates]) -> list[tuple[list[Ranked], bool]]:
        """For each input its `n_best` best candidates, best first, and whether another batch might order them
        otherwise. Equal hypotheses are returned once; finished ones come before others."""


def ranker(settings: Decoding, backward: Bundle | None) -> Ranker | None:
    """What the settings ask for; None where the order of the search is to stay.

    Raises `ConfigError` for settings that contradict each other.
    """
    if not settings.risk and backward is None:
        return None
    if settings.risk and backward is not None:
        raise ConfigError("decoding.risk and a backward model exclude each other", do="leave out one of them")
    if settings.samples < 1:
        raise ConfigError("decoding.samples must be at least 1", got=settings.samples)
    if not (0 <= settings.backward_weight < math.inf and math.isfinite(settings.length_reward)):
        got = f"{settings.backward_weight} and {settings.length_reward}"
        raise ConfigError("decoding.backward_weight must not be negative, nor length_reward infinite", got=got)
    if settings.n_best > pool(settings):
        source = "decoding.samples" if settings.sample else "the beam"
        raise ConfigError(f"decoding.n_best is larger than {source}", got=f"{settings.n_best} and {pool(settings)}")
    if backward is None:
        return Risk(settings)
    return Mutual(settings, backward)


class Risk:
    """Minimum Bayes risk: by mean utility against all candidates, then by score, then as found."""

    def __init__(self, settings: Decoding) -> None:
        self.settings, self.metric = settings, utility(settings.risk)

    def rank(self, batch: Sequence[Candidates]) -> list[tuple[list[Ranked], bool]]:
        """See `Ranker`."""
        return [self._rank(each) for each in batch]

    def _rank(self, found: Candidates) -> tuple[list[Ranked], bool]:
        sign = 1 if self.metric.higher_is_better else -1
        values = expected(self.metric, found.texts)
        entries = [
            _Entry(Ranked(**vars(each), utility=value), sign * value, each.score, _error(each, self.settings))
            for each, value in zip(found.hypotheses, values, strict=True)
        ]
        return _order(entries, self.settings.n_best)


class Mutual:
    """Maximum mutual information against dull answers (MMI-bidi, Li et al. 2016), by a model of sources given answers.

    Ranks by log p(T | S) / |T|^a + backward_weight * log p(S | T) / |S|^a + length_reward * |T|, where a is
    `length_penalty`: 0 gives the formula of the paper. The first term is the score of the search.
    """

    def __init__(self, settings: Decoding, backward: Bundle) -> None:
        self.settings, self.model = settings, backward.model
        self.task = readable(backward)

    def rank(self, batch: Sequence[Candidates]) -> list[tuple[list[Ranked], bool]]:
        """See `Ranker`."""
        examples, reasons = [], []
        for found in batch:
            odd = Report()
            examples += [self._example(text, found.source, odd) for text in found.texts]
            reasons.append("; ".join(f"backward model: {reason}" for reason in odd.counts))
        scores = self._scores(examples)
        result, begin = [], 0
        for found, reason in zip(batch, reasons, strict=True):
            mine = slice(begin, begin := begin + len(found.texts))
            entries = map(self._entry, found.hypotheses, scores[mine], examples[mine], [reason] * len(found.texts))
            result.append(_order(list(entries), self.settings.n_best))
        return result

    def _example(self, answer: str, source: Pair, report: Report) -> Example:
        """An answer as the source, and the source as what it is to be answered with."""
        # a model of bytes may write a NUL, which no text may hold
        return self.task.encode(Pair(answer.replace("\0", " "), source.source, (), source.context), report=report)

    def _entry(self, found: Hypothesis, score: float, example: Example, reason: str) -> _Entry:
        settings, length = self.settings, len(example.target)
        total = found.score + settings.backward_weight * score + settings.length_reward * len(found.tokens)
        nats = settings.backward_weight * MARGIN / 2 * length**0.5
        error = _error(found, settings) + nats / length**settings.penalty
        return _Entry(Ranked(**vars(found), backward=score, reason=reason), 0.0, total, error)

    def _scores(self, examples: Sequence[Example]) -> list[float]:
        """What the backward model gives each example's target, by `rescore`."""
        settings = replace(self.settings, coverage_penalty=0.0, ctc=0.0)
        device = next(self.model.parameters()).device
        scores = [0.0] * len(examples)
        for part in self._parts(examples):
            chosen = [examples[row] for row in part]
            batch = collate(chosen).to(device)
            found = rescore(
                [self.model], batch.source, [list(example.target[:-1]) for example in chosen], settings,
                context=batch.context,
            )  # fmt: skip
            for row, each in zip(part, found, strict=True):
                scores[row] = each.score
        return scores

    def _parts(self, examples: Sequence[Example]) -> Iterator[list[int]]:
        """Rows by length, as many at a time as memory allows."""
        order = sorted(range(len(examples)), key=lambda row: (len(examples[row].target), len(examples[row].source)))
        part: list[int] = []
        widest = 0
        for row in order:
            widest = max(widest, len(examples[row].source))
            logits = (len(part) + 1) * len(examples[row].target) * self.model.target_size
            if part and (logits > LOGITS or (len(part) + 1) * widest > TOKENS):
                yield part
                part, widest = [], len(examples[row].source)
            part.append(row)
        if part:
            yield part


def readable(backward: Bundle) -> Task:
    """The task of a backward model so that it reads any text: what is too long for it is cut, and counted."""
    model, task = backward.model.config, backward.task
    longest = model.max_positions if model.positions == "learned" else None

    if isinstance(task.source, Signal):
        raise ConfigError("a backward model reads answers, which are text", got=f"data.source.kind={task.source.kind}")

    def cutting(text: Text) -> Text:
        limits = [limit for limit in (text.side.max_length, longest) if limit is not None]
        return replace(text, side=replace(text.side, max_length=min(limits, default=None)), too_long="truncate")

    return replace(task, source=cutting(task.source), target=cutting(task.words))


@dataclass(frozen=True)
class _Entry:
    """A candidate and what decides its place: `exact`, then `total`, which float error may move by `error`."""

    hypothesis: Ranked
    exact: float
    total: float
    error: float


def _error(found: Hypothesis, settings: Decoding) -> float:
    """How far float error may move a score of the search; half of what a gap of two scores needs."""
    length, states = max(1, len(found.log_probs)), found.weights.shape[1]
    nats = MARGIN / 2 * (1 + settings.coverage_penalty * states) * (length + (settings.ctc or 0.0) ** 2 * states) ** 0.5
    return nats / length**settings.penalty


def _order(entries: Sequence[_Entry], n_best: int) -> tuple[list[Ranked], bool]:
    """The best of different entries, and whether float error could make other ones of them the best."""
    first: dict[tuple[tuple[int, ...], bool], _Entry] = {}
    for entry in entries:
        first.setdefault((tuple(entry.hypothesis.tokens), entry.hypothesis.finished), entry)
    order = sorted(first.values(), key=lambda entry: (-entry.hypothesis.finished, -entry.exact, -entry.total))
    close = any(
        (better.hypothesis.finished, better.exact) == (worse.hypothesis.finished, worse.exact)
        and better.total - worse.total < better.error + worse.error
        for better, worse in pairwise(order[: n_best + 1])
    )
    return [entry.hypothesis for entry in order[:n_best]], close
