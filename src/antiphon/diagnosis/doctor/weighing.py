"""From figures to confidence: how far a ratio is from what is usual, and what a curve does."""

from __future__ import annotations

import math

import numpy as np

SUREST, GAINED = 0.97, 0.05
"""The most confidence there is; a fall by less than this share is noise."""


def sure(value: float | None, doubtful: float, clear: float) -> float:
    """0.5 where the value is `doubtful`, 0.95 where it is `clear`, straight in its logarithm; from 0 to 0.97.

    Either may be the larger. 0 where there is no value.
    """
    if value is None or not math.isfinite(value):
        return 0.0
    if value <= 0:
        return SUREST if clear < doubtful else 0.0
    place = math.log(value / doubtful) / math.log(clear / doubtful)
    return min(SUREST, max(0.0, 0.5 + 0.45 * place))


def both(*confidences: float) -> float:
    """All must be there: their geometric mean."""
    return math.prod(confidences) ** (1 / len(confidences))


def smooth(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Means over windows of a share of all values, at least five; one for each place where a window fits."""
    size = max(1, min(len(values), max(5, round(share * len(values)))))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[size:] - sums[:-size]) / size


def noise(values: np.ndarray) -> float:
    """How much one value differs from the next, as a share of their mean: the noise of a curve, not its slope."""
    if len(values) < 3 or not values.mean():
        return 0.0
    return float(np.abs(np.diff(values)).mean() / (1.128 * abs(values.mean())))


def lost_again(curve: np.ndarray) -> float:
    """The share of what was gained that is gone at the end of a falling curve; 0 where next to nothing was gained."""
    lowest = float(curve.min())
    gained = float(curve[0]) - lowest
    return (float(curve[-1]) - lowest) / gained if gained > GAINED * abs(float(curve[0])) else 0.0


def second_half(curve: np.ndarray) -> float:
    """The share of the whole fall of a curve that its second half brings; 1 where it does not fall."""
    fall = float(curve[0] - curve[-1])
    return float(curve[len(curve) // 2] - curve[-1]) / fall if fall > 0 else 1.0
