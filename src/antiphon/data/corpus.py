"""Pairs from files, tables and iterables, streamed: what is odd in them is refused or counted, never dropped."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from antiphon.core.config import Data
from antiphon.core.errors import DataError
from antiphon.data.alignment import shifted
from antiphon.data.columns import DIALOGUE, Odd, Pair, pairs_of
from antiphon.data.formats import (
    Row,
    csv_rows,
    fault,
    frame_rows,
    is_frame,
    item_rows,
    jsonl_rows,
    line_rows,
    open_bytes,
    parquet_rows,
    read_rows,
    tsv_rows,
)
from antiphon.data.knowledge import FACTS
from antiphon.data.report import Report

__all__ = ["Chain", "Corpus", "Odd", "Overlap", "Pair", "Report", "Texts", "fault", "group_references", "open_pairs"]
__all__ += ["named_files", "overlap", "read_lines", "split"]

TABLES = {".csv": csv_rows, ".jsonl": jsonl_rows, ".ndjson": jsonl_rows, ".json": jsonl_rows, ".parquet": parquet_rows}
"""What reads a file, by its suffix; TSV where that says nothing."""


KEPT = 1 << 24
"""Most characters of a corpus that is read once and then kept."""


class Corpus:
    """Pairs that can be gone through again and again; a large corpus is read anew each time and never held in memory.

    A record with several accepted targets gives one pair for each. `report` counts what was odd in the latest pass
    and is complete when that pass is.
    """

    def __init__(self, name: str, read: Callable[[Report], Iterator[Pair]], digest: Callable[[], str]) -> None:
        self.name, self.report = name, Report()
        self._read, self._digest = read, digest
        self._kept: tuple[list[Pair], Report] | None = None

    def __iter__(self) -> Iterator[Pair]:
        self.report = Report()
        return self._pass(self.report)

    def _pass(self, report: Report) -> Iterator[Pair]:
        if self._kept is not None:
            report.merge(self._kept[1])
            yield from self._kept[0]
            return
        pairs, room = list[Pair](), KEPT
        for pair in self._read(report):
            room -= len(pair.source) + len(pair.target)
            if room >= 0:
                pairs.append(pair)
            elif pairs:
                pairs = []
            yield pair
        if room >= 0:
            self._kept = pairs, copy.deepcopy(report)

    def forget(self) -> None:
        """Keep no pairs any more: the next pass reads them."""
        self._kept = None

    def fingerprint(self) -> str:
        """The SHA-256 of the content (of files: of their bytes), in hexadecimal."""
        return self._digest()

    def view(self, name: str, keep: Callable[[Pair], bool], *, quiet: bool = False) -> Corpus:
        """The pairs for which `keep` is true; `quiet` leaves the report to another view of the same corpus."""

        def read(report: Report) -> Iterator[Pair]:
            return (pair for pair in self._pass(Report() if quiet else report) if keep(pair))

        return Corpus(f"{self.name} ({name})", read, self._digest)


@dataclass(frozen=True)
class Texts:
    """The texts of one side of pairs, or of both, as often as they are gone through."""

    pairs: Iterable[Pair]
    sides: Sequence[Literal["source", "target"]]

    def __iter__(self) -> Iterator[str]:
        return (getattr(pair, side) for pair in self.pairs for side in self.sides)


@dataclass(frozen=True)
class Chain:
    """The pairs of several corpora one after another, as often as they are gone through."""

    parts: Sequence[Iterable[Pair]]

    def __iter__(self) -> Iterator[Pair]:
        return (pair for part in self.parts for pair in part)


def open_pairs(data: Any, settings: Data, *, parallel: Any = None, need_target: bool = True) -> Corpus:
    """A corpus from whatever pairs come in.

    `data` is a file (TSV, CSV, JSONL or Parquet by its suffix, TSV where that says nothing; gzip and xz are seen
    through), a source and a target file (two paths, or `"a.en,b.de"`), a DataFrame, or any iterable of tuples
    `(source, target[, context])`, of dicts or of `Pair`. An iterator that runs only once is read into memory.
    Raises `DataError` with file, line and what to do; where `settings` says skip, the report counts instead.
    """
    files = named_files(data, parallel, need_target=need_target)
    if files is None:
        return _in_memory(data, settings, need_target)
    if len(files) == 2:
        return _parallel(files[0], files[1], settings)
    path = files[0]
    rows = TABLES.get(kind_of_table(path), tsv_rows)

    def read(report: Report) -> Iterator[Pair]:
        titled = "likely" if rows is csv_rows else "maybe"
        found = pairs_of(rows(path, report), str(path), settings, report, need_target=need_target, titled=titled)
        return _checked(found, str(path), report)

    return Corpus(str(path), read, lambda: _digest_files(files))


def kind_of_table(path: Path) -> str:
    """The suffix that says what a file is, below that of its compression."""
    return (path.with_suffix("") if path.suffix.lower() in (".gz", ".xz") else path).suffix.lower()


def named_files(data: Any, parallel: Any = None, *, need_target: bool = True) -> list[Path] | None:
    """The paths that `data` names, or None where it is the pairs themselves."""
    if parallel is not None:
        return [Path(data), Path(parallel)]
    if isinstance(data, str) and "," in data and not os.path.exists(data):
        data = [part.strip() for part in data.split(",")]
        if len(data) != 2:
            raise DataError("parallel files are two: source,target", got=",".join(data))
        return [Path(data[0]), Path(data[1])]
    if isinstance(data, str | os.PathLike):
        return [Path(data)]
    paths = isinstance(data, list | tuple) and len(data) == 2 and all(isinstance(x, str | os.PathLike) for x in data)
    return [Path(data[0]), Path(data[1])] if paths and need_target else None


def _in_memory(data: Any, settings: Data, need_target: bool) -> Corpus:
    if not is_frame(data) and not isinstance(data, Iterable):
        raise DataError("is neither a file, a table nor an iterable of pairs", got=type(data).__name__)
    items = list(data) if isinstance(data, Iterator) else data
    if isinstance(items, np.ndarray) and items.dtype.kind in "UO":  # pairs as rows of texts
        items = items.tolist()

    def read(report: Report) -> Iterator[Pair]:
        rows = frame_rows(items) if is_frame(items) else item_rows(items)
        found = pairs_of(rows, "pairs", settings, report, need_target=need_target, titled="never")
        return _checked(found, "pairs", report)

    return Corpus("pairs", read, lambda: _digest_pairs(read(Report())))


def _parallel(source: Path, target: Path, settings: Data) -> Corpus:
    name = f"{source},{target}"
    plain = replace(settings, columns=(), context=())

    def read(report: Report) -> Iterator[Pair]:
        rows = _side_by_side(source, target, report)
        return _checked(pairs_of(rows, name, plain, report, need_target=True, titled="never"), name, report)

    return Corpus(name, read, lambda: _digest_files([source, target]))


def _side_by_side(source: Path, target: Path, report: Report) -> Iterator[Row]:
    lengths = array("i"), array("i")
    sides = line_rows(source, report), line_rows(target, report)
    for left, right in zip_longest(*sides):
        if left is None or right is None:
            count = len(lengths[0])
            more = count + 1 + sum(1 for _ in (sides[0] if right is None else sides[1]))
            counts = (more, count) if right is None else (count, more)
            what = f"{source} has {counts[0]:,} lines but {target} has {counts[1]:,}"
            raise DataError(what, do="parallel files need one line for each line of the other; find the one missing")
        lengths[0].append(len(left.values))
        lengths[1].append(len(right.values))
        problem = f"source {left.problem}" if left.problem else f"target {right.problem}" if right.problem else ""
        yield Row(left.number, [left.values, right.values], problem)
    start = shifted(np.asarray(lengths[0]), np.asarray(lengths[1]))
    if start is not None:
        report.add("WARNING: the files look shifted against each other, compare them", f"near {source}:{start}")


def _checked(pairs: Iterator[Pair], name: str, report: Report) -> Iterator[Pair]:
    """The same pairs; afterwards duplicates are counted, and no pair at all is an error."""
    seen = array("q")
    for pair in pairs:
        seen.append(hash((pair.source, pair.target, *sorted(pair.context.items()))))
        yield pair
    if not seen:
        raise DataError("there is no pair in it", where=name, do="check that this is the right file")
    _count_duplicates(np.frombuffer(seen, dtype=np.int64), name, report)


def _count_duplicates(hashes: np.ndarray, name: str, report: Report) -> None:
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    again = order[1:][ranked[1:] == ranked[:-1]]
    if len(again):
        report.add("duplicate pair kept", f"{name}: pair {again.min() + 1}", times=len(again))


def _digest_files(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        open_bytes(path).close()
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _digest_pairs(pairs: Iterable[Pair]) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps([pair.source, pair.target, pair.references, pair.context]).encode())
    return digest.hexdigest()


def group_references(pairs: Iterable[Pair]) -> list[Pair]:
    """One pair for each distinct source and context, with all accepted targets, in first-seen order.

    Which dialogue a pair is of makes no difference.
    """
    groups: dict[tuple[str, ...], dict[str, None]] = {}
    first: dict[tuple[str, ...], Pair] = {}
    for pair in pairs:
        columns = sorted(pair.context.items())
        key = (pair.source, *(f"{name}\0{value}" for name, value in columns if name != DIALOGUE))
        first.setdefault(key, pair)
        groups.setdefault(key, {}).update(dict.fromkeys((pair.target, *pair.references)))
    return [replace(first[key], references=tuple(targets)) for key, targets in groups.items()]


def split(corpus: Corpus, share: float, seed: int = 1, *, most: int | None = None) -> tuple[Corpus, Corpus]:
    """Two views, train and valid: `share` of the distinct sources, at least one and at most `most`, are held out.

    A hash of the source decides, so no source is on both sides, and other rows added later move few. Pairs of one
    dialogue (the column `dialogue`) are on the same side. Nothing else decides: models of other seeds, students, and
    what goes on from a model are judged by the same pairs, which none of them has learned from.
    """
    hashes = np.unique(np.fromiter((_hash(_group(pair), seed) for pair in corpus), dtype=np.uint64))
    if len(hashes) < 2:
        raise DataError("holding out needs two different sources", where=corpus.name, do="give a validation file")
    wanted = min(max(1, round(share * len(hashes))), most or len(hashes), len(hashes) - 1)
    limit = int(hashes[wanted])
    train = corpus.view("train part", lambda pair: _hash(_group(pair), seed) >= limit)
    valid = corpus.view("held-out part", lambda pair: _hash(_group(pair), seed) < limit, quiet=True)
    return train, valid


def _group(pair: Pair) -> str:
    """What keeps pairs together: a history holds the answers of the pairs before."""
    return pair.context.get(DIALOGUE) or pair.source


def _hash(text: str, seed: int) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8, salt=seed.to_bytes(16, "little", signed=True))
    return int.from_bytes(digest.digest(), "little")


@dataclass(frozen=True)
class Overlap:
    """How many distinct validation sources, and whole pairs, the training data has too."""

    sources: int
    pairs: int
    of_sources: int
    of_pairs: int

    def lines(self) -> list[str]:
        """A warning line, or none where nothing is shared."""
        if not self.sources:
            return []
        shared = f"{self.sources:,} of {self.of_sources:,} validation sources"
        return [f"{shared} and {self.pairs:,} of {self.of_pairs:,} pairs are in the training data too"]


def overlap(train: Iterable[Pair], valid: Iterable[Pair]) -> Overlap:
    """Counts what validation shares with training; `valid` is held in memory, `train` is streamed. The same source
    with other facts is another one."""

    def read(pair: Pair) -> tuple[str, str]:
        return pair.source, pair.context.get(FACTS, "")

    pairs = {(read(pair), target) for pair in valid for target in (pair.references or (pair.target,))}
    sources = {source for source, _ in pairs}
    shared_sources: set[tuple[str, str]] = set()
    shared_pairs: set[tuple[tuple[str, str], str]] = set()
    for pair in train:
        if read(pair) in sources:
            shared_sources.add(read(pair))
            shared_pairs.add((read(pair), pair.target))
    return Overlap(len(shared_sources), len(shared_pairs & pairs), len(sources), len(pairs))


def read_lines(data: str | os.PathLike[str] | IO[Any], report: Report | None = None) -> Iterator[str]:
    """Lines of a file or open stream, blank ones too, in order; a damaged line is a `DataError` with its number."""
    report = report if report is not None else Report()
    name, stream = _stream(data)
    with stream:
        for row in read_rows(stream, name, report):
            if row.problem:
                raise DataError(row.problem, where=f"{name}:{row.number}", do="repair or remove the line")
            yield row.values


def _stream(data: str | os.PathLike[str] | IO[Any]) -> tuple[str, IO[bytes]]:
    if isinstance(data, str | os.PathLike):
        return str(data), open_bytes(Path(data))
    name = str(getattr(data, "name", "input"))
    if isinstance(data, io.StringIO):
        return name, io.BytesIO(data.read().encode("utf-8", "surrogatepass"))
    return name, getattr(data, "buffer", data)
