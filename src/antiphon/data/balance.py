"""Epochs in which small domains, tasks or languages are seen more often than their share of the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from antiphon.core.config import Data
from antiphon.core.errors import DataError
from antiphon.data.columns import Pair

MOST = 1000
"""The most groups."""

SHOWN = 20
"""Groups that a report names."""


@dataclass
class Groups:
    """Which value of a column each pair has: numbers by pair, in order of adding, and the values by number."""

    column: str
    names: dict[str, int] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        """Take a pair in. `DataError` where it lacks the column, or there are too many values."""
        if self.column not in pair.context:
            do = "give the column in the table, or as Pair.context, or leave data.balance out"
            raise DataError(f"the column {self.column} is missing", where=repr(pair.source[:60]), do=do)
        self.numbers.append(self.names.setdefault(pair.context[self.column], len(self.names)))
        if len(self.names) > MOST:
            do = "balance a column of domains, tasks or languages"
            raise DataError(f"the column {self.column} has more than {MOST:,} values", do=do)

    def rows(self) -> np.ndarray:
        """The number of each pair's group."""
        return np.array(self.numbers, np.int32)


def allotted(counts: np.ndarray, temperature: float) -> np.ndarray:
    """How many of an epoch's pairs each group of so many has: in proportion to `count ** (1 / temperature)`
    (Arivazhagan et al. 2019), as whole numbers whose sum is that of the counts."""
    counts = np.asarray(counts, np.int64)
    if temperature == 1:
        return counts.copy()
    weights = (counts / max(1, counts.max())) ** (1 / temperature)
    exact = counts.sum() * weights / weights.sum()
    whole = np.floor(exact).astype(np.int64)
    rest = np.argsort(whole - exact, kind="stable")[: int(counts.sum() - whole.sum())]
    whole[rest] += 1
    return whole


def balanced(groups: np.ndarray, temperature: float, draw: np.random.Generator) -> np.ndarray:
    """The rows of an epoch, in order, as many as there are: of a group that gets fewer than it has, a sample; of one
    that gets more, all of them again and again, and a sample at last."""
    chosen = []
    for number, wanted in enumerate(allotted(np.bincount(groups), temperature).tolist()):
        rows = np.flatnonzero(groups == number)
        times, rest = divmod(wanted, max(1, len(rows)))
        chosen += [np.repeat(rows, times), draw.choice(rows, rest, replace=False)]
    return np.sort(np.concatenate(chosen))


def table(data: Data, names: tuple[str, ...], groups: np.ndarray | None) -> Iterator[str]:
    """A line for each group, the largest first: its pairs, and its pairs and share in an epoch; none without groups."""
    if groups is None:
        return
    counts = np.bincount(groups, minlength=len(names))
    drawn, total = allotted(counts, data.temperature), counts.sum()
    width = max(map(len, names))
    for number in np.argsort(-counts, kind="stable")[:SHOWN].tolist():
        yield (f"{data.balance} {names[number]:<{width}}  {counts[number]:>9,} pairs, {counts[number] / total:6.1%};  "
               f"in an epoch {drawn[number]:>9,}, {drawn[number] / total:6.1%}")  # fmt: skip
    if len(names) > SHOWN:
        yield f"and {len(names) - SHOWN} more"
