"""How good an answer is likely to be: a small logistic model of the search's own probabilities, fitted to pairs that
training has not seen, kept in the bundle, and put to the test.

Confidence is from 0 to 1. Where answers are right or wrong (`exact`, `error`, `accuracy`) it is the chance that this
one is right; with any other metric it is the expected score of this answer, as a share of the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from antiphon.core.errors import BundleError, ConfigError, DataError
from antiphon.inference.strict_json import dump_json, load_json

if TYPE_CHECKING:
    from antiphon.metrics.base import Metric

FILE = "confidence.json"
FEATURES = ("mean", "least", "total", "length", "finished")
"""What is known of an answer: mean, least and summed log probability of its tokens, the log of their number, and
whether the end mark came."""

FEWEST, FOLDS, BINS = 20, 5, 10
"""Pairs to fit to; parts of them of which each is judged by the others; groups of like confidence."""

Numbers = NDArray[np.float64]


def unsure(where: str, models: int, adapter: str) -> ConfigError:
    """The error where confidence is asked for and there is none: an ensemble and an adapter never have any."""
    if models > 1 or adapter:
        who = f"the adapter {adapter}" if adapter else "an ensemble"
        return ConfigError(f"{who} has no confidence", where=where, do="leave it out")
    do = "type: antiphon calibrate MODEL VALID, or leave it out"
    return ConfigError("this model has no confidence yet", where=where, do=do)


@dataclass(frozen=True)
class Calibration:
    """The logistic model: `means` and `scales` make features comparable, `weights` and `bias` make a chance of them.

    `metric` is what it predicts, `pairs` how many it was fitted to; `error` and `raw_error` are the expected
    calibration errors of confidence and of the geometric mean of token probabilities on pairs that a fit had not seen.
    """

    metric: str
    weights: tuple[float, ...]
    bias: float
    means: tuple[float, ...]
    scales: tuple[float, ...]
    pairs: int
    error: float
    raw_error: float

    def __call__(self, log_probs: Sequence[float], finished: bool) -> float:
        """The confidence in an answer with these natural log probabilities, the end mark's included."""
        return float(self.of(np.array([features(log_probs, finished)]))[0])

    def of(self, rows_NF: Numbers) -> Numbers:
        """The confidence of many, `[N]`."""
        scaled = (rows_NF - np.array(self.means)) / np.array(self.scales)
        return _chance(scaled @ np.array(self.weights) + self.bias)

    def slack(self, nats: float, tokens: int) -> float:
        """The most that confidence can change where each log probability of so many tokens is off by `nats`."""
        off = np.array([nats, nats, nats * max(1, tokens), 0.0, 0.0])
        return float(np.abs(np.array(self.weights)) @ (off / np.array(self.scales))) / 4

    def to_bytes(self) -> bytes:
        """For `confidence.json`."""
        return dump_json({"features": list(FEATURES), **asdict(self)})

    @staticmethod
    def read(content: bytes) -> Calibration:
        """What `to_bytes` wrote; anything else is a `BundleError`."""
        values = load_json(content, where=FILE)
        names = {item.name for item in fields(Calibration)}
        if not isinstance(values, dict) or set(values) != {*names, "features"}:
            raise BundleError("is not a description of confidence", where=FILE)
        if values.pop("features") != list(FEATURES):
            raise BundleError("knows answers by other features", where=FILE, do="run antiphon calibrate again")
        lists = [values[name] for name in ("weights", "means", "scales")]
        good = all(isinstance(each, list) and len(each) == len(FEATURES) for each in lists)
        numbers: list[Any] = [number for each in lists for number in each] if good else [None]
        numbers += [values[name] for name in ("bias", "pairs", "error", "raw_error")]
        good = good and all(type(each) in (int, float) and abs(each) < 1e9 for each in numbers)
        if not good or not isinstance(values["metric"], str) or min(values["scales"]) <= 0:
            raise BundleError("is not a description of confidence", where=FILE)
        tuples: dict[str, Any] = {name: tuple(values.pop(name)) for name in ("weights", "means", "scales")}
        return Calibration(**tuples, **values)


def features(log_probs: Sequence[float], finished: bool) -> list[float]:
    """What the model sees of an answer, in the order of `FEATURES`."""
    known = list(log_probs) or [0.0]
    total = math.fsum(known)
    return [total / len(known), min(known), total, math.log(len(known)), float(finished)]


def probability(log_probs: Sequence[float]) -> float:
    """The geometric mean of token probabilities."""
    return math.exp(sum(log_probs) / max(1, len(log_probs)))


def judge(name: str | None, fallback: str = "exact") -> Metric:
    """The metric that says how good one answer is; `fallback` where the name is that of a loss.

    `ConfigError` for a metric that cannot score one answer.
    """
    from antiphon.metrics.base import Pooled
    from antiphon.metrics.scoring import of_text

    metric = of_text(fallback if name in (None, "loss", "perplexity", "forced_accuracy") else name)
    if isinstance(metric, Pooled):
        do = "choose one that compares two texts, such as chrf or exact"
        raise ConfigError("confidence needs a metric of single sentences", got=metric.name, do=do)
    return metric


def quality(metric: Metric, answers: Sequence[str], references: Sequence[Sequence[str]]) -> Numbers:
    """How good each answer is, 0 to 1: the share of the metric's best, or for error rates what is left of 100 %."""
    scores = [
        metric.sentence(metric.stats(answer, list(each))) for answer, each in zip(answers, references, strict=True)
    ]
    shares = np.clip(np.array(scores) / 100.0, 0.0, 1.0)
    return shares if metric.higher_is_better else 1.0 - shares


def fit(metric: str, rows_NF: Numbers, good_N: Numbers, raw_N: Numbers) -> Calibration:
    """The calibration of answers with these features, qualities and plain probabilities.

    Its errors are by cross-validation: each fifth of the pairs is judged by a fit to the others.
    """
    if len(rows_NF) < FEWEST:
        raise DataError("too few answers to fit confidence to", got=len(rows_NF), do=f"give {FEWEST} pairs or more")
    judged = np.zeros(len(rows_NF))
    place = np.arange(len(rows_NF)) % FOLDS
    for fold in range(FOLDS):
        part = _fitted(metric, rows_NF[place != fold], good_N[place != fold])
        judged[place == fold] = part.of(rows_NF[place == fold])
    errors = calibration_error(judged, good_N), calibration_error(raw_N, good_N)
    return _fitted(metric, rows_NF, good_N, *errors)


def _fitted(metric: str, rows_NF: Numbers, good_N: Numbers, error: float = 0.0, raw: float = 0.0) -> Calibration:
    """Logistic regression by Newton's method, with a ridge of one pair, to qualities kept off 0 and 1 (Platt 1999)."""
    count, wide = rows_NF.shape
    means, scales = rows_NF.mean(0), rows_NF.std(0)
    scales = np.where(scales > 1e-6, scales, 1.0)
    design = np.hstack([(rows_NF - means) / scales, np.ones((count, 1))])
    wanted = (good_N * count + 0.5) / (count + 1)
    ridge = np.diag([1.0] * wide + [1e-6])
    weights = np.zeros(wide + 1)
    for _ in range(100):
        chance = _chance(design @ weights)
        slope = design.T @ (chance - wanted) + ridge @ weights
        step = np.linalg.solve(design.T @ (design * (chance * (1 - chance))[:, None]) + ridge, slope)
        step *= min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    return Calibration(metric, tuple(weights[:-1].tolist()), float(weights[-1]), tuple(means.tolist()),
                       tuple(scales.tolist()), count, error, raw)  # fmt: skip


def _chance(logits: Numbers) -> Numbers:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0))))


def calibration_error(confidence_N: Numbers, good_N: Numbers, bins: int = BINS) -> float:
    """Expected calibration error (Naeini et al. 2015): the mean gap between confidence and quality over groups of like
    confidence and equal size; 0 to 1."""
    groups = np.array_split(np.argsort(confidence_N, kind="stable"), min(bins, len(confidence_N)))
    gaps = [abs(float((confidence_N[group] - good_N[group]).sum())) for group in groups]
    return math.fsum(gaps) / max(1, len(confidence_N))


@dataclass(frozen=True)
class Coverage:
    """What is answered, and how well, by those of at least this confidence: `answered` and `quality` are shares."""

    threshold: float
    answered: float
    quality: float


@dataclass(frozen=True)
class Trust:
    """How far confidence can be relied on, on the pairs of an evaluation: its calibration error beside that of plain
    probabilities, the quality it predicts (`metric`), and what answering only the surest would give."""

    metric: str
    error: float
    raw_error: float
    table: list[Coverage]

    def lines(self) -> list[str]:
        """For a terminal."""
        plain = f"that of plain probabilities {self.raw_error:.3f}"
        return [
            f"confidence in {self.metric}: calibration error {self.error:.3f}, {plain}",
            "  answered  confidence from  quality",
            *(f"  {row.answered:8.0%}  {row.threshold:15.3f}  {row.quality:7.3f}" for row in self.table),
        ]


def trust(metric: str, confidence_N: Numbers, good_N: Numbers, raw_N: Numbers) -> Trust:
    """Calibration errors and the table of risk and coverage (El-Yaniv and Wiener 2010), by tenths."""
    order = np.argsort(-confidence_N, kind="stable")
    table: list[Coverage] = []
    for tenth in range(10, 0, -1):
        kept = order[: max(1, len(order) * tenth // 10)]
        row = Coverage(float(confidence_N[kept[-1]]), len(kept) / len(order), float(good_N[kept].mean()))
        table += [row] if not table or row.answered < table[-1].answered else []
    return Trust(metric, calibration_error(confidence_N, good_N), calibration_error(raw_N, good_N), table)
