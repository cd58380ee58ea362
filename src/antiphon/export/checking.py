"""Whether an exported model answers as PyTorch does, and what it costs: measured on real pairs, before and after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from antiphon import metrics
from antiphon.core.config import Config, Decoding
from antiphon.core.errors import ConfigError
from antiphon.data.corpus import Pair
from antiphon.inference.answer import Answer
from antiphon.inference.bundle import WEIGHTS_FILE, Bundle, bundle_files
from antiphon.inference.evaluate import said
from antiphon.inference.predictor import Predictor

PAIRS = 500
"""Most pairs to measure on."""
EXACT, ROUNDED = 1e-3, 0.1
"""Nats by which the log probability of a token may be off: the most in fp32, and the mean where weights are rounded."""
LEAST, LOST = 0.5, 5.0
"""Where weights are rounded or tokens left out: the share of answers that must be the same, or else the most points
that their score may lose."""
WARM = 16
"""Every so many-th input is answered before time counts."""


@dataclass(frozen=True)
class Row:
    """One engine: bytes of its weights, answers a second of CPU time on one thread, and the score of the answers.

    `same` is the share of answers that are those of PyTorch by the same search, `off` the mean and the largest
    difference of the log probability of a token where answers are the same, in nats.
    """

    engine: str
    size: int
    rate: float
    score: float
    same: float
    off: tuple[float, float]


@dataclass(frozen=True)
class Checked:
    """What was measured: rows before and after, by which metric, on how many pairs."""

    metric: str
    pairs: int
    rows: tuple[Row, ...]

    def cells(self) -> list[list[str]]:
        """A table with a head, as text."""
        head = ["", "weights", "answers per CPU second", self.metric, "answers as PyTorch's", "log probability off by"]
        return [head, *(
            [row.engine, f"{row.size / 1e6:,.2f} MB", f"{row.rate:,.0f}", f"{row.score:.2f}", f"{row.same:.1%}",
             f"{row.off[0]:.1e} (at most {row.off[1]:.1e})"]
            for row in self.rows
        )]  # fmt: skip


def check(bundle: Bundle, made: Predictor, size: int, pairs: Sequence[Pair], *, exact: bool) -> Checked:
    """The exported model, of so many bytes, beside the one it was made from.

    Raises `ConfigError` where it does not answer as PyTorch does: with `exact` all answers must be the same, but for
    ties; else log probabilities must be near, and answers the same or about as good.
    """
    pairs = [pair for pair in pairs if pair.source.strip()][:PAIRS]
    if not pairs:
        raise ConfigError("there are no pairs to check the exported model on", where="export")
    metric, after = metric_of(bundle.config), made.config.decoding
    weights = bundle_files(model=bundle.model, task=bundle.task, config=bundle.config, card={})[WEIGHTS_FILE]
    plain = Predictor(bundle, processes=1)
    before, rate = _timed(plain, pairs, bundle.config.decoding)
    right = before if after == bundle.config.decoding else _answers(plain, pairs, after, True)
    found, fast = _timed(made, pairs, after)
    off = _compare(right, _answers(made, pairs, after, True), made.engine.name, exact)
    rows = (
        Row("PyTorch", len(weights), rate, _score(metric, before, pairs), _same(before, right), (0.0, 0.0)),
        Row(made.engine.name, size, fast, _score(metric, found, pairs), _same(found, right), off),
    )
    lost = (_score(metric, right, pairs) - rows[1].score) * (1 if metrics.get(metric).higher_is_better else -1)
    if rows[1].same < LEAST and lost > LOST:
        got = f"{rows[1].same:.1%} of the answers, {metric} {rows[1].score:.2f} in place of {rows[0].score:.2f}"
        do = "look at what --shortlist or --quantize was given, and leave it out; or measure on other pairs with --data"
        raise ConfigError("the exported model answers worse than PyTorch does", where="export", got=got, do=do)
    return Checked(metric, len(pairs), rows)


def _answers(predictor: Predictor, pairs: Sequence[Pair], settings: Decoding, details: bool) -> list[Answer]:
    return [answers[0] for answers in predictor.predict(pairs, settings=settings, details=details)]


def _timed(predictor: Predictor, pairs: Sequence[Pair], settings: Decoding) -> tuple[list[Answer], float]:
    """The answers, and how many of them a second of CPU time gave."""
    _answers(predictor, pairs[::WARM], settings, False)
    begun = time.process_time()
    found = _answers(predictor, pairs, settings, False)
    return found, len(found) / max(1e-9, time.process_time() - begun)


def _same(found: Sequence[Answer], right: Sequence[Answer]) -> float:
    return sum(one.tokens == other.tokens for one, other in zip(found, right, strict=True)) / len(right)


def _compare(right: Sequence[Answer], found: Sequence[Answer], engine: str, exact: bool) -> tuple[float, float]:
    """The mean and the largest difference of log probabilities where answers are the same."""
    do = "leave out --quantize" if not exact else "export it --to something else, and report this"
    apart, total, count, most = 0.0, 0.0, 0, 0.0
    for one, other in zip(right, found, strict=True):
        if one.tokens != other.tokens or one.finished != other.finished:
            apart = max(apart, abs(one.score - other.score))
            continue
        gaps = [abs(a - b) for a, b in zip(one.log_probs, other.log_probs, strict=True)]
        total, count, most = total + sum(gaps), count + len(gaps), max(most, *gaps, 0.0)
    mean = total / max(1, count)
    if not count or (max(most, apart) > EXACT if exact else mean > ROUNDED):
        got = f"{engine}: log probabilities off by {most:.2g} at most, scores of other answers by {apart:.2g}"
        raise ConfigError("the exported model does not answer as PyTorch does", where="export", got=got, do=do)
    return mean, most


def metric_of(config: Config) -> str:
    """What training judged by, where that is a metric of answers."""
    name = config.training.metric or "loss"
    return name if name.split(":")[0] in metrics.NAMES else "exact"


def _score(name: str, answers: Sequence[Answer], pairs: Sequence[Pair]) -> float:
    references = [pair.references or (pair.target,) for pair in pairs]
    return metrics.corpus(metrics.get(name), [said(answer) for answer in answers], references, bootstrap=0).value
