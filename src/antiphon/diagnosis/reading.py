"""All pairs of a file with their lines, and all lines that are none: an audit goes on where training stops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import numpy as np

from antiphon.core.config import Data
from antiphon.core.errors import ConfigError, DataError
from antiphon.data.columns import Pair, pairs_of
from antiphon.data.corpus import TABLES, kind_of_table, named_files
from antiphon.data.formats import Row, line_rows, tsv_rows
from antiphon.data.knowledge import FACTS
from antiphon.data.report import Report


@dataclass(frozen=True)
class Texts:
    """Pairs as two lists of texts. Pair i stands in line `lines[i]`, from 1, of each of the `files`.

    `odd` are the lines that gave no pair, by reason; `counts` the lines of each file; `changed` what reading itself
    changed, by reason (byte order marks, carriage returns); `settings` say how they were read.
    """

    files: tuple[Path, ...]
    pairs: list[Pair]
    lines: np.ndarray
    odd: dict[str, list[int]] = field(default_factory=dict)
    counts: tuple[int, ...] = ()
    changed: dict[str, int] = field(default_factory=dict)
    settings: Data = field(default_factory=Data)
    rest: list[tuple[int, str, str]] = field(default_factory=list)
    """Lines that only one of two files has, with their text on that side."""

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def name(self) -> str:
        """The files as they are given to a command."""
        return ",".join(map(str, self.files))

    @cached_property
    def sources(self) -> list[str]:
        """The source of each pair, with its facts where it has some."""
        return [f"{pair.source} {pair.context[FACTS]}" if FACTS in pair.context else pair.source for pair in self.pairs]

    @cached_property
    def targets(self) -> list[str]:
        """The target of each pair."""
        return [pair.target for pair in self.pairs]

    @cached_property
    def keys(self) -> list[str]:
        """What an answer depends on: the source, its facts, and the columns that a model is to read."""
        read = (FACTS, *self.settings.context)
        return [
            "\0".join([pair.source, *(pair.context.get(name, "") for name in read)]) if pair.context else pair.source
            for pair in self.pairs
        ]

    def side(self, name: str) -> list[str]:
        """The texts of the source or of the target."""
        return self.sources if name == "source" else self.targets

    def line(self, row: int) -> int:
        """The line of a pair, from 1."""
        return int(self.lines[row])


class _Ledger(Report):
    """A report that remembers every line."""

    def __init__(self) -> None:
        super().__init__()
        self.all: dict[str, list[int]] = {}

    def add(self, reason: str, place: object = "", example: str = "", *, times: int = 1) -> None:
        """Counts `reason`, and keeps the line number at the end of `place`."""
        super().add(reason, place, example, times=times)
        number = str(place).rpartition(":")[2]
        if number.isdecimal():
            self.all.setdefault(reason, []).append(int(number))


class _Counted:
    """Rows on their way, and the number of the one that was given last."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows, self.number = rows, 0

    def __iter__(self) -> Iterator[Row]:
        for row in self.rows:
            self.number = row.number
            yield row


def read(data: str, settings: Data) -> Texts:
    """All pairs of a file, or of two parallel ones, whatever else is in them.

    Raises `DataError` where a file cannot be read at all or has no columns for a pair, and `ConfigError` where sources
    or targets are no text.
    """
    for name in ("source", "target"):
        if getattr(settings, name).kind not in (None, "text"):
            raise ConfigError("an audit is for texts", where=f"data.{name}.kind", got=getattr(settings, name).kind)
    files = named_files(data)
    assert files is not None  # a command gives nothing but names
    settings, ledger = replace(settings, empty="skip", damaged="skip"), _Ledger()
    settings = replace(settings, columns=(), context=()) if len(files) == 2 else settings
    raw = raw_rows(files, ledger)
    rows = _Counted(raw)
    titled = "never" if len(files) == 2 else "likely" if kind_of_table(files[0]) == ".csv" else "maybe"
    pairs, lines = list[Pair](), list[int]()
    name = ",".join(map(str, files))
    for pair in pairs_of(rows, name, settings, ledger, need_target=True, titled=titled, most_damaged=1.0):
        pairs.append(pair)
        lines.append(rows.number)
    if not rows.number:
        raise DataError("there is nothing in it", where=name, do="check that this is the right file")
    counts = raw.counts if isinstance(raw, _Sides) else (rows.number,)
    odd = {reason.removeprefix("skipped: "): found for reason, found in ledger.all.items()
           if reason.startswith(("skipped: ", "blank line"))}  # fmt: skip
    changed = {reason: count for reason, count in ledger.counts.items() if " removed" in reason}
    return Texts(tuple(files), pairs, np.array(lines, np.int64), odd, counts, changed, settings,
                 raw.rest if isinstance(raw, _Sides) else [])  # fmt: skip


def raw_rows(files: Sequence[Path], report: Report) -> Iterable[Row]:
    """The rows of a table, or the lines of two files beside each other."""
    if len(files) == 2:
        return _Sides(files[0], files[1], report)
    return TABLES.get(kind_of_table(files[0]), tsv_rows)(files[0], report)


class _Sides:
    """Lines of two files beside each other, as far as both go; `counts` are then the lines of each, and `rest` what
    only one has."""

    def __init__(self, source: Path, target: Path, report: Report) -> None:
        self.files, self.report, self.counts = (source, target), report, (0, 0)
        self.rest: list[tuple[int, str, str]] = []

    def __iter__(self) -> Iterator[Row]:
        source = target = 0
        for left, right in zip_longest(*(line_rows(path, self.report) for path in self.files)):
            source, target = source + (left is not None), target + (right is not None)
            if left is not None and right is not None:
                problem = f"source {left.problem}" if left.problem else f"target {right.problem}" * bool(right.problem)
                yield Row(left.number, [left.values, right.values], problem)
            elif left is not None:
                self.rest.append((left.number, left.values, ""))
            elif right is not None:
                self.rest.append((right.number, "", right.values))
        self.counts = source, target
