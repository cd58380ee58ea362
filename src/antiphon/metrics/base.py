"""What a metric is: per-sentence statistics that add up, a score from their sum, and a signature that says how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Stats = NDArray[np.float64]
"""Statistics of one sentence, of a sum of sentences `[K]`, or of each sentence `[N, K]`."""


@dataclass(frozen=True)
class Score:
    """The value of a metric on a corpus, with its 95 % interval and all it takes to repeat it.

    `interval` is None where none was asked for, or where one sentence gives none.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    signature: str
    higher_is_better: bool

    def __str__(self) -> str:
        digits = digits_of(self.name)
        interval = "" if self.interval is None else " [{0:.{2}f}, {1:.{2}f}]".format(*self.interval, digits)
        return f"{self.name} {self.value:.{digits}f}{interval}"


def digits_of(name: str) -> int:
    """Decimals worth printing: two of a percentage, four of a loss or of numbers."""
    return 4 if name.partition(":")[0] in ("loss", "mae", "rmse", "mase", "crps") else 2


class Named(Protocol):
    """What every metric tells of itself."""

    @property
    def name(self) -> str:
        """The name that `get` knows it by, options included."""

    @property
    def higher_is_better(self) -> bool:
        """False for error rates and for what grows with sameness."""

    @property
    def signature(self) -> str:
        """How it counts, as `key:value|key:value`."""


class Summed(Named, Protocol):
    """A score that is made from a sum over sentences; all that intervals and tests need."""

    def score(self, stats: Stats) -> float:
        """The score of summed statistics `[K]`."""


class Metric(Summed, Protocol):
    """A metric of text whose statistics add up over sentences: the corpus score is `score` of their sum."""

    def stats(self, hypothesis: str, references: Sequence[str]) -> Stats:
        """The statistics `[K]` of one sentence against at least one reference."""

    def sentence(self, stats: Stats) -> float:
        """The score of one sentence from its statistics, to rank sentences or to reward a model."""


@runtime_checkable
class Pooled(Named, Protocol):
    """A metric that sees all hypotheses at once, such as the share of distinct n-grams; it reads no references."""

    def whole(self, hypotheses: Sequence[str]) -> float:
        """The score of all hypotheses together."""
