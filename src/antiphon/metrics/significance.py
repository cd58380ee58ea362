"""How sure a score or a difference is: bootstrap and jackknife intervals, paired tests between two systems."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.metrics.base import Pooled, Stats, Summed, digits_of

FOLDS = 20
"""Groups of the jackknife."""

_T_19 = 2.093  # 97.5 % point of Student's t with FOLDS - 1 degrees of freedom
_BLOCK = 1 << 22  # random draws held at once


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same inputs. `difference` is second minus first, with its 95 % interval.

    `wins` is the share of bootstrap resamples in which the second system is better (Koehn 2004), `p_bootstrap` and
    `p_randomization` are two-sided p-values. They are None for pooled metrics, which have the interval only.
    """

    name: str
    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None
    wins: float | None
    p_bootstrap: float | None
    p_randomization: float | None
    signature: str
    higher_is_better: bool

    @property
    def significant(self) -> bool:
        """Whether chance alone gives such a difference in fewer than one case of twenty."""
        if self.p_randomization is not None:
            return self.p_randomization < 0.05
        return self.interval is not None and not self.interval[0] <= 0.0 <= self.interval[1]

    def __str__(self) -> str:
        digits = digits_of(self.name)
        interval = "" if self.interval is None else " [{0:+.{2}f}, {1:+.{2}f}]".format(*self.interval, digits)
        values = f"{self.first:.{digits}f} -> {self.second:.{digits}f}: {self.difference:+.{digits}f}"
        p = "" if self.p_randomization is None else f", p = {self.p_randomization:.4f}"
        p += "" if self.wins is None else f", better in {self.wins:.1%} of resamples"
        verdict = "significant" if self.significant else "not significant"
        return f"{self.name} {values}{interval}{p}, {verdict}"


def resample(stats: Stats, rounds: int, seed: int) -> Stats:
    """Sums `[rounds, K]` of as many sentences as there are, drawn with replacement from `[N, K]`.

    The draws depend on N, `rounds` and `seed` alone, so two systems on the same inputs are resampled together.
    """
    draw = np.random.default_rng(seed)
    count = len(stats)
    sums = np.empty((rounds, stats.shape[1]))
    for row in range(rounds):
        weights = np.bincount(draw.integers(count, size=count), minlength=count)
        sums[row] = weights.astype(np.float64) @ stats
    return sums


def bootstrap(metric: Summed, stats: Stats, *, rounds: int = 1000, seed: int = 1) -> tuple[float, float] | None:
    """The 95 % percentile interval of a score from the statistics `[N, K]` of its sentences (Efron 1979).

    None for fewer than two sentences or zero rounds.
    """
    if len(stats) < 2 or rounds < 1:
        return None
    return _middle(_scores(metric, resample(stats, rounds, seed)))


def jackknife(score: Callable[[list[int]], float], count: int, *, seed: int = 1) -> tuple[float, float] | None:
    """A 95 % interval of a score of sentences 0 to `count` - 1 that does not add up over sentences.

    Groups of sentences are left out in turn. A bootstrap would repeat sentences, which such scores notice; the
    jackknife overstates the spread if anything (Efron and Stein 1981). None for fewer sentences than groups.
    """
    if count < FOLDS:
        return None
    fold = np.random.default_rng(seed).permutation(count) % FOLDS
    left = np.array([score(np.flatnonzero(fold != out).tolist()) for out in range(FOLDS)])
    spread = _T_19 * math.sqrt((FOLDS - 1) / FOLDS * float(((left - left.mean()) ** 2).sum()))
    value = score(list(range(count)))
    return value - spread, value + spread


def paired(
    metric: Summed,
    first: Stats,
    second: Stats,
    *,
    resamples: int = 1000,
    trials: int = 10000,
    seed: int = 1,
) -> Comparison:
    """Paired bootstrap (Koehn 2004) and approximate randomization (Riezler and Maxwell 2005).

    `first` and `second` are the statistics `[N, K]` of two systems on the same sentences. The interval and `wins`
    come from `resamples`, `p_randomization` from `trials` in which each sentence changes sides by the toss of a coin.
    `p_bootstrap` is two-sided; sacrebleu, after Moses, centres absolute differences, which gives smaller values.
    """
    values = metric.score(first.sum(axis=0)), metric.score(second.sum(axis=0))
    difference = values[1] - values[0]
    sampled = _resampled_differences(metric, first, second, resamples, seed)
    shuffled = _shuffled_differences(metric, first, second, trials, seed)
    better = sampled > 0 if metric.higher_is_better else sampled < 0
    return Comparison(
        name=metric.name,
        first=values[0],
        second=values[1],
        difference=difference,
        interval=_middle(sampled) if len(first) > 1 else None,
        wins=float(better.mean()),
        p_bootstrap=_p_value(sampled - sampled.mean(), difference),
        p_randomization=_p_value(shuffled, difference),
        signature=f"bs:{resamples}|ar:{trials}|seed:{seed}|{metric.signature}",
        higher_is_better=metric.higher_is_better,
    )


def paired_pooled(metric: Pooled, first: Sequence[str], second: Sequence[str], *, seed: int = 1) -> Comparison:
    """Two systems by a metric that sees all outputs at once; the interval is the jackknife's."""

    def difference(chosen: list[int]) -> float:
        return metric.whole([second[index] for index in chosen]) - metric.whole([first[index] for index in chosen])

    return Comparison(
        name=metric.name,
        first=metric.whole(first),
        second=metric.whole(second),
        difference=metric.whole(second) - metric.whole(first),
        interval=jackknife(difference, len(first), seed=seed),
        wins=None,
        p_bootstrap=None,
        p_randomization=None,
        signature=f"jackknife:{FOLDS}|seed:{seed}|{metric.signature}",
        higher_is_better=metric.higher_is_better,
    )


def _scores(metric: Summed, sums: Stats) -> NDArray[np.float64]:
    return np.array([metric.score(row) for row in sums])


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def _resampled_differences(metric: Summed, first: Stats, second: Stats, rounds: int, seed: int) -> NDArray[np.float64]:
    sums = resample(np.hstack([first, second]), rounds, seed)
    width = first.shape[1]
    return _scores(metric, sums[:, width:]) - _scores(metric, sums[:, :width])


def _shuffled_differences(metric: Summed, first: Stats, second: Stats, trials: int, seed: int) -> NDArray[np.float64]:
    draw = np.random.default_rng(seed)
    change, found = second - first, []
    block = max(1, _BLOCK // len(first))
    for start in range(0, trials, block):
        rows = min(block, trials - start)
        moved = draw.integers(2, size=(rows, len(first)), dtype=np.int8).astype(np.float64) @ change
        found.append(_scores(metric, second.sum(axis=0) - moved) - _scores(metric, first.sum(axis=0) + moved))
    return np.concatenate(found)


def _p_value(null: NDArray[np.float64], difference: float) -> float:
    """Two-sided, and never 0: the observed difference counts as one of the draws."""
    as_large = np.abs(null) >= abs(difference) - 1e-9
    return float((as_large.sum() + 1) / (len(null) + 1))
