"""Context of targets that are numbers: what is known of the steps to come, and what holds for all of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from antiphon.core.errors import BundleError, DataError
from antiphon.data.arrays import described, read_numbers, shown
from antiphon.data.columns import Pair
from antiphon.data.numbers import Scale
from antiphon.data.report import Report

COVARIATES_FILE = "covariates.json"
MOST_WORDS = 1000
"""Words of a column that are told apart: the most frequent ones."""


@dataclass(frozen=True)
class Column:
    """A column of words, each a feature that is 1 where a pair has it; or, with a `scale`, of numbers."""

    name: str
    words: tuple[str, ...] = ()
    scale: Scale | None = None

    @property
    def size(self) -> int:
        """Features of a step."""
        return len(self.words) if self.scale is None else len(self.scale.mean_F)

    @property
    def example(self) -> str:
        """A value that can be read."""
        return self.words[0] if self.scale is None else ",".join(["0"] * self.size)

    def read(self, value: str, report: Report | None = None) -> np.ndarray:
        """`[T, C]` of a pair's value, T being 1 for what holds for all steps; `DataError` for what is no number where
        training had some, and for other features than training had."""
        if self.scale is None:
            has = dict.fromkeys(value.split())
            if report is not None and (unknown := [word for word in has if word not in self.words]):
                report.add(f"word of the context column {self.name} that training did not have", example=unknown[0])
            return np.array([[float(word in has) for word in self.words]], np.float32)
        values = _numbers(value)
        if values.shape[1] != self.size:
            what = f"the context column {self.name} has {values.shape[1]} features a step, in training {self.size}"
            raise DataError(what, where=shown(value)[:60], do="give all pairs the same features")
        return self.scale.to(values)


@dataclass(frozen=True)
class Covariates:
    """Columns that a decoder of numbers is told at each step: numbers known ahead, such as holidays and prices, and
    words or single numbers that hold for all steps, such as the name of a shop."""

    columns: tuple[Column, ...]

    @property
    def size(self) -> int:
        """Features of a step, those of all columns."""
        return sum(column.size for column in self.columns)

    def read(self, pair: Pair, steps: int | None = None, report: Report | None = None) -> np.ndarray:
        """`[T, C]`, scaled: T is 1 where nothing changes from step to step, else `steps`, or as many as are known.

        Raises `DataError` where a column is missing, does not reach so far, or is not what it was in training.
        """
        found: list[np.ndarray] = []
        for column in self.columns:
            if column.name not in pair.context:
                do = "give it with every input, in a table or as Pair.context"
                raise DataError(
                    f"the context column {column.name} is missing", where=repr(shown(pair.source)[:60]), do=do
                )
            try:
                found.append(column.read(pair.context[column.name], report))
            except DataError as error:
                where = f"context column {column.name} of {shown(pair.source)[:60]!r}"
                raise DataError(error.what, where=where, got=error.got, do=error.do) from None
        known = {
            len(values): column.name for values, column in zip(found, self.columns, strict=True) if len(values) > 1
        }
        length = steps or min(known, default=1)
        if known and min(known) < length:
            what = f"the context column {known[min(known)]} ends before the target does"
            do = "give a number for each step of the target, or one for all of them"
            raise DataError(what, where=repr(shown(pair.source)[:60]), got=f"{min(known)} steps of {length}", do=do)
        length = length if known else 1
        return np.concatenate([np.broadcast_to(values[:length], (length, values.shape[1])) for values in found], axis=1)

    def files(self, prefix: str) -> dict[str, bytes]:
        """What `load` needs, by file names that begin with `prefix.`."""
        about: list[dict[str, Any]] = []
        for column in self.columns:
            if column.scale is None:
                about.append({"name": column.name, "words": list(column.words)})
            else:
                mean, deviation = (part.tolist() for part in column.scale)
                about.append({"name": column.name, "features": column.size, "mean": mean, "deviation": deviation})
        return {f"{prefix}.{COVARIATES_FILE}": json.dumps(about, ensure_ascii=False).encode()}

    @staticmethod
    def load(files: Mapping[str, bytes], prefix: str, size: int) -> Covariates | None:
        """Reads what `files` gave, which has so many features, or none; anything else is a `BundleError`."""
        where = f"{prefix}.{COVARIATES_FILE}"
        if not size:
            return None
        try:
            listed: Any = json.loads(files.get(where, b""))
        except (ValueError, RecursionError):
            listed = None
        if not isinstance(listed, list) or not all(isinstance(about, dict) for about in listed):
            raise BundleError("is not a description of context columns", where=where)
        found = Covariates(tuple(_column(about, where) for about in listed))
        if found.size != size:
            raise BundleError("does not fit the configuration", where=where, got=f"{found.size} features, not {size}")
        return found

    @staticmethod
    def learn(pairs: Iterable[Pair], names: Sequence[str]) -> Covariates:
        """What kind each column is, and its words or scale; goes through the pairs once.

        A column of which every value is numbers is one of numbers. Raises `DataError` where a column is missing.
        """
        found = [_Learner(name) for name in names]
        for pair in pairs:
            for column in found:
                column.add(pair)
        return Covariates(tuple(column.learned() for column in found))


class _Learner:
    """Looks at all values of a column."""

    def __init__(self, name: str) -> None:
        self.name, self.numbers, self.count = name, True, 0
        self.words: Counter[str] = Counter()
        self.total = self.squares = np.zeros(0)

    def add(self, pair: Pair) -> None:
        if self.name not in pair.context:
            do = "give it with every pair, or leave it out of data.context"
            raise DataError(f"the context column {self.name} is missing", where=repr(shown(pair.source)[:60]), do=do)
        value = pair.context[self.name]
        self.words.update(set(value.split()))
        if not self.numbers:
            return
        try:
            values = _numbers(value).astype(np.float64)
        except DataError:
            self.numbers = False
            return
        if not self.count:
            self.total = self.squares = np.zeros(values.shape[1])
        if values.shape[1] != len(self.total):
            what = f"the context column {self.name} has {values.shape[1]} features a step, before {len(self.total)}"
            raise DataError(what, where=shown(value)[:60], do="give all pairs the same features")
        self.count += len(values)
        self.total, self.squares = self.total + values.sum(axis=0), self.squares + np.square(values).sum(axis=0)

    def learned(self) -> Column:
        if self.numbers and self.count:
            mean = self.total / self.count
            return Column(self.name, (), Scale.of(mean, np.sqrt(np.maximum(0.0, self.squares / self.count - mean**2))))
        words = sorted(self.words, key=lambda word: (-self.words[word], word))[:MOST_WORDS]
        if not words:
            do = "leave it out of data.context"
            raise DataError("a context column is empty in all pairs", where="data.context", got=self.name, do=do)
        return Column(self.name, tuple(words))


def _numbers(value: str) -> np.ndarray:
    """The numbers of a line, of an array, or of a list as JSON writes it."""
    if not value.lstrip().startswith("["):
        return read_numbers(value)
    try:
        values: np.ndarray = np.asarray(json.loads(value), np.float32)
    except (ValueError, TypeError, RecursionError):
        values = np.zeros(0, np.float32)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise DataError("is no list of numbers", got=value[:60], do="give one for each step: [1.5, 2.0]")
    return values


def _column(about: dict[str, Any], where: str) -> Column:
    name, words = about.get("name"), about.get("words")
    if not isinstance(name, str):
        raise BundleError("is not a description of context columns", where=where)
    if words is None:
        _, mean, deviation = described(json.dumps(about).encode(), where, "context columns", [])
        if not (deviation > 0).all():
            raise BundleError("is not a description of context columns", where=where)
        return Column(name, (), Scale(mean, deviation))
    if not isinstance(words, list) or not 0 < len(words) <= MOST_WORDS or not all(isinstance(w, str) for w in words):
        raise BundleError("is not a description of context columns", where=where)
    return Column(name, tuple(words))
