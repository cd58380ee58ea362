"""How long an answer may get: a line over the lengths that training had."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from antiphon.core.errors import BundleError


@dataclass(frozen=True)
class LengthModel:
    """The most target tokens to expect for a source of n: `slope * n + offset`, with a tenth and two for slack.

    `longest` is the longest source that it was learned from, 0 where nobody knows.
    """

    slope: float
    offset: float
    longest: int = 0

    def limit(self, source_length: int) -> int:
        """Most tokens, end mark not counted."""
        return max(1, math.ceil(1.1 * (self.slope * source_length + self.offset)) + 2)

    def join(self, other: LengthModel) -> LengthModel:
        """A line on or above both."""
        return LengthModel(*(max(ours, theirs) for ours, theirs in zip(astuple(self), astuple(other), strict=True)))

    @staticmethod
    def learn(source_lengths: np.ndarray, target_lengths: np.ndarray) -> LengthModel:
        """The line on or above all points that is lowest at the mean source: an edge of their upper hull."""
        longest = np.zeros(int(source_lengths.max()) + 1, dtype=np.int64)
        np.maximum.at(longest, source_lengths, target_lengths)
        points = [(int(n), int(longest[n])) for n in np.unique(source_lengths)]
        hull: list[tuple[int, int]] = []
        for point in points:
            while len(hull) > 1 and _left(hull[-2], hull[-1], point):
                hull.pop()
            hull.append(point)
        mean = float(source_lengths.mean())
        for (n, t), (m, u) in pairwise(hull):
            if m >= mean and u > t:
                slope = (u - t) / (m - n)
                return LengthModel(slope, t - slope * n, len(longest) - 1)
        return LengthModel(0.0, float(longest.max()), len(longest) - 1)


def _left(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    """True where b is not above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def length_model(about: Any, where: object) -> LengthModel:
    """A length model from a file."""
    read = isinstance(about, dict)
    numbers: list[Any] = [about.get("slope"), about.get("offset"), about.get("longest", 0)] if read else []
    if not numbers or not all(type(value) in (int, float) and abs(value) < 1e6 for value in numbers):
        raise BundleError("is not a description of lengths", where=where)
    return LengthModel(*numbers)
