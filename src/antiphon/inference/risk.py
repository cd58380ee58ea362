"""Minimum Bayes risk: what an answer is worth if any of the candidates may be the right one.

The candidates stand for the model's distribution (drawn from it, or its n-best list), each for as much of it as it
occurs; an answer's expected utility is its mean score against all of them, itself included (Kumar and Byrne 2004;
Eikema and Aziz 2020).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from antiphon.core.errors import ConfigError
from antiphon.metrics import scoring
from antiphon.metrics.base import Metric, Pooled


def utility(name: str) -> Metric:
    """The metric of that name; `ConfigError` where it cannot score one sentence, or is unknown."""
    if "+" in name:
        raise ConfigError("decoding.risk is one metric", got=name, do=f"take one of them, such as {name.split('+')[0]}")
    metric = scoring.of_text(name)
    if isinstance(metric, Pooled):
        do = "choose one that compares two texts, such as chrf, bleu or exact"
        raise ConfigError("decoding.risk needs a metric of single sentences", got=name, do=do)
    return metric


def utilities(metric: Metric, texts: Sequence[str]) -> NDArray[np.float64]:
    """`[N, N]`: the score of each text (row) where another (column) is the right one."""
    return np.array([[metric.sentence(metric.stats(text, [right])) for right in texts] for text in texts])


def expected(metric: Metric, texts: Sequence[str]) -> list[float]:
    """The mean score of each text against all, in the metric's own units: for an error rate, less is better.

    The sums are exact, so that texts of equal worth tie. Equal texts are scored once.
    """
    counts = Counter(texts)
    rows = utilities(metric, list(counts))
    means = {
        text: math.fsum(value * count for value, count in zip(row, counts.values(), strict=True)) / len(texts)
        for text, row in zip(counts, rows.tolist(), strict=True)
    }
    return [means[text] for text in texts]
