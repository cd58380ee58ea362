"""Where a system is weak: its scores by source length, word frequency and context, and its worst answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from antiphon.core.errors import DataError
from antiphon.data.arrays import shown
from antiphon.data.corpus import Pair
from antiphon.metrics.base import Metric, Score, Stats
from antiphon.metrics.edits import cer
from antiphon.metrics.scoring import summed
from antiphon.metrics.words import units

WORST = 10
"""Worst answers that are kept."""

GROUPS = 30
"""Values of a column that are reported."""

_FREQUENCIES = (0, 1, 2, 5, 10, 100, 1000)


@dataclass(frozen=True)
class Bucket:
    """A part of the data and its scores. `count` is in sentences, or in words for frequency buckets."""

    label: str
    count: int
    scores: dict[str, float]

    def __str__(self) -> str:
        scores = "  ".join(f"{name} {value:.2f}" for name, value in self.scores.items())
        return f"{self.label:>18}  {self.count:>7}  {scores}"


@dataclass(frozen=True)
class Group:
    """The pairs that have one value in a context column, and their scores with intervals."""

    column: str
    value: str
    count: int
    scores: dict[str, Score]

    def __str__(self) -> str:
        return f"{self.value:>18}  {self.count:>7}  {'  '.join(map(str, self.scores.values()))}"


@dataclass(frozen=True)
class Worst:
    """One answer, its place in the data (from 1), and its score by the first metric."""

    number: int
    source: str
    answer: str
    references: tuple[str, ...]
    score: float


def by_group(
    metrics: Sequence[Metric], tables: Mapping[str, Stats], pairs: Sequence[Pair], columns: Sequence[str], rounds: int,
    seed: int,
) -> list[Group]:  # fmt: skip
    """The `GROUPS` largest groups of each column, largest first. `DataError` where a pair lacks a column."""
    found = []
    for column in columns:
        values = [_value(pair, column) for pair in pairs]
        for value, count in Counter(values).most_common(GROUPS):
            rows = np.array([other == value for other in values])
            scores = {each.name: summed(each, tables[each.name][rows], rounds=rounds, seed=seed) for each in metrics}
            found.append(Group(column, value, count, scores))
    return found


def _value(pair: Pair, column: str) -> str:
    if column not in pair.context:
        do = "name a column that every pair has"
        raise DataError(f"the column {column} is missing", where=repr(pair.source[:60]), do=do)
    return pair.context[column]


def by_length(metrics: Sequence[Metric], tables: Mapping[str, Stats], lengths: Sequence[int]) -> list[Bucket]:
    """Quarters of the data by the length of the source; fewer where many sources are of the same length."""
    values = np.array(lengths)
    starts = _quarters(values)
    quarter = np.searchsorted(starts, values, side="right") - 1
    buckets = []
    for number in np.unique(quarter):  # where sources are few, nothing may lie between two starts
        rows = quarter == number
        low, high = int(values[rows].min()), int(values[rows].max())
        scores = {metric.name: metric.score(tables[metric.name][rows].sum(axis=0)) for metric in metrics}
        buckets.append(Bucket(f"{low}-{high} tokens" if low < high else f"{low} tokens", int(rows.sum()), scores))
    return buckets


def _quarters(values: np.ndarray) -> np.ndarray:
    """Where quarters begin: at each quartile, or just after it where that cuts closer to a quarter."""
    starts = {int(values.min())}
    for share in (0.25, 0.5, 0.75):
        middle = int(np.quantile(values, share, method="inverted_cdf"))
        starts.add(min((middle, middle + 1), key=lambda start: abs(float((values < start).mean()) - share)))
    return np.array(sorted(start for start in starts if start <= values.max()))


def by_frequency(
    answers: Sequence[str], references: Sequence[Sequence[str]], frequencies: Mapping[str, int] | None
) -> list[Bucket]:
    """Precision, recall and F1 of words by how often they occur (after compare-mt, Neubig et al. 2019)."""
    cut = [[Counter(units(reference)) for reference in each] for each in references]
    if frequencies is None:
        frequencies = Counter(word for each in cut for counter in each for word in counter.elements())
    table = np.zeros((len(_FREQUENCIES), 3))
    for answer, choices in zip(answers, cut, strict=True):
        said = Counter(units(answer))
        meant = max(choices, key=lambda counter: (said & counter).total() / max(1, counter.total()))
        for column, counter in enumerate((said & meant, said, meant)):
            for word, count in counter.items():
                table[_frequency_bucket(frequencies.get(word, 0)), column] += count
    return [
        Bucket(_frequency_label(number), int(meant), _precision_recall(both, said, meant))
        for number, (both, said, meant) in enumerate(table.tolist())
        if said or meant
    ]


def _frequency_bucket(count: int) -> int:
    return sum(count >= low for low in _FREQUENCIES) - 1


def _frequency_label(number: int) -> str:
    low = _FREQUENCIES[number]
    if number + 1 == len(_FREQUENCIES):
        return f"{low} times or more"
    high = _FREQUENCIES[number + 1] - 1
    return f"{low} times" if low == high else f"{low}-{high} times"


def _precision_recall(both: float, said: float, meant: float) -> dict[str, float]:
    values = {"precision": both / max(said, 1), "recall": both / max(meant, 1), "f1": 2 * both / (said + meant)}
    return {name: 100.0 * value for name, value in values.items()}


def worst_answers(
    metrics: Sequence[Metric],
    tables: Mapping[str, Stats],
    pairs: Sequence[Pair],
    answers: Sequence[str],
    references: Sequence[tuple[str, ...]],
) -> list[Worst]:
    """The worst by the first metric; of equals, those of the higher character error rate."""
    if not metrics:
        return []
    first, letters = metrics[0], cer()
    scores = [first.sentence(row) for row in tables[first.name]]
    badness = [-score if first.higher_is_better else score for score in scores]
    errors = [letters.sentence(letters.stats(*each)) for each in zip(answers, references, strict=True)]
    rows = (row for row, score in enumerate(scores) if not math.isnan(score))
    order = sorted(rows, key=lambda row: (-badness[row], -errors[row], row))[:WORST]
    return [Worst(row + 1, shown(pairs[row].source), answers[row], references[row], scores[row]) for row in order]


def best_answers(
    metrics: Sequence[Metric], tables: Mapping[str, Stats], pairs: Sequence[Pair], answers: Sequence[str]
) -> list[Worst]:
    """The best by the first metric; of equals, those to the longest sources."""
    first = metrics[0]
    scores = [first.sentence(row) for row in tables[first.name]]
    goodness = [score if first.higher_is_better else -score for score in scores]
    rows = (row for row, score in enumerate(scores) if not math.isnan(score))
    order = sorted(rows, key=lambda row: (-goodness[row], -len(pairs[row].source), row))[:WORST]
    references = [pair.references or (pair.target,) for pair in pairs]
    return [Worst(row + 1, shown(pairs[row].source), answers[row], references[row], scores[row]) for row in order]
