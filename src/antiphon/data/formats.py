"""Files to raw rows: compression, line ends, encodings and table formats, each fault with its line number.

A row is `(number, values, problem)`: its line or row number from 1, a list of fields (TSV, CSV) or a dict (JSONL,
Parquet, named tables), and what is wrong with it, empty where nothing is. Who reads decides if a problem is fatal.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from antiphon.core.errors import DataError, require
from antiphon.data.report import Report

LONGEST = 1 << 26
"""Bytes of one line beyond which a file is refused: it is not lines of text, or a decompression bomb."""

_BOM = b"\xef\xbb\xbf"
_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
_SUFFIXES = {".gz": _GZIP, ".xz": _XZ}
_BROKEN = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)


class Row(NamedTuple):
    """One raw row: where, what, and what is wrong with it."""

    number: int
    values: Any
    problem: str = ""


def fault(text: str) -> str:
    """What makes a text unusable (a NUL or a lone surrogate), or nothing."""
    if "\0" in text:
        return f"holds a NUL character (at column {text.index(chr(0)) + 1})"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"holds a lone surrogate ({text[error.start]!a} at column {error.start + 1})"
    return ""


def open_bytes(path: Path) -> IO[bytes]:
    """The file's content, decompressed where its first bytes say so; a suffix that disagrees is an error."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DataError("is a pipe or a device, it cannot be read again", where=path, do="save it to a file first")
        with path.open("rb") as file:
            head = file.read(6)
    except FileNotFoundError:
        raise DataError("there is no such file", where=path, do=_near(path)) from None
    except IsADirectoryError:
        raise DataError("this is a folder", where=path, do="name a file in it") from None
    except PermissionError:
        raise DataError("no permission to read this file", where=path, do=f"try: chmod u+r {path}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=path) from None
    expected = _SUFFIXES.get(path.suffix.lower())
    if expected and head and not head.startswith(expected):
        raise DataError(f"ends in {path.suffix} but is not compressed that way", where=path, do="rename it")
    if head.startswith(_GZIP):
        return io.BufferedReader(gzip.GzipFile(path), 1 << 20)
    if head.startswith(_XZ):
        return io.BufferedReader(lzma.LZMAFile(path), 1 << 20)
    return path.open("rb", buffering=1 << 20)


def _near(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return "check the path: its folder is not there either"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.parent / close[0]}?" if close else "check the path"


def read_rows(stream: IO[bytes], name: object, report: Report) -> Iterator[Row]:
    """Lines of a byte stream as text; only a line feed ends a line, one carriage return before it is dropped."""
    for number, raw in enumerate(_raw_lines(stream, name), start=1):
        if number == 1 and raw.startswith(_BOM):
            raw = raw[3:]
            report.add("byte order mark removed", f"{name}:1")
        if raw.endswith(b"\r"):
            raw = raw[:-1]
            report.add("carriage return removed at the end of a line", f"{name}:{number}")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                yield Row(1, "", "is not valid UTF-8 but UTF-16 (try: iconv -f utf-16 -t utf-8)")
            else:
                yield Row(number, "", f"is not valid UTF-8 (byte {error.start + 1} is {raw[error.start]:#04x})")
            continue
        yield Row(number, text, fault(text) if "\0" in text else "")


def _raw_lines(stream: IO[bytes], name: object) -> Iterator[bytes]:
    number = 0
    try:
        while raw := stream.readline(LONGEST + 1):
            number += 1
            if len(raw) > LONGEST:
                raise DataError(f"a line is longer than {LONGEST:,} bytes", where=f"{name}:{number}")
            yield raw[:-1] if raw.endswith(b"\n") else raw
    except _BROKEN as error:
        raise DataError(f"compressed data is damaged: {error}", where=f"{name}:{number + 1}") from None
    except OSError as error:
        raise DataError(f"cannot be read on: {error}", where=f"{name}:{number + 1}") from None


def line_rows(path: Path, report: Report) -> Iterator[Row]:
    """Every line of a text file, blank ones too."""
    with open_bytes(path) as stream:
        yield from read_rows(stream, path, report)


def tsv_rows(path: Path, report: Report) -> Iterator[Row]:
    """Fields between tabs; quotes mean nothing. Blank lines are skipped and counted."""
    for row in line_rows(path, report):
        if row.problem:
            yield row
        elif row.values:
            yield Row(row.number, row.values.split("\t"))
        else:
            report.add("blank line skipped", f"{path}:{row.number}")


def csv_rows(path: Path, report: Report) -> Iterator[Row]:
    """Fields between commas, quoted as in RFC 4180, so a field may hold line feeds."""
    csv.field_size_limit(LONGEST)
    feed = _Feed(line_rows(path, report))
    reader = csv.reader(feed, strict=True)
    while True:
        feed.first, feed.problem = feed.number + 1, ""
        try:
            values, problem = next(reader), feed.problem
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"is not CSV ({error}; the record runs to line {feed.number})"
            yield from (Row(number, [], problem) for number in range(feed.first, feed.number + 1))
            continue
        if values or problem:
            yield Row(feed.first, values, problem)
        else:
            report.add("blank line skipped", f"{path}:{feed.first}")


class _Feed:
    """Lines for the csv module, which counts and remembers what it took for the current record."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self.rows, self.number, self.first, self.problem = rows, 0, 1, ""

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        row = next(self.rows)
        self.number, self.problem = row.number, self.problem or row.problem
        return "" if row.problem else row.values + "\n"


def jsonl_rows(path: Path, report: Report) -> Iterator[Row]:
    """One JSON object a line."""
    for row in line_rows(path, report):
        if row.problem:
            yield row
        elif row.values.strip():
            yield _json_row(row)
        else:
            report.add("blank line skipped", f"{path}:{row.number}")


def _json_row(row: Row) -> Row:
    try:
        value = json.loads(row.values)
    except json.JSONDecodeError as error:
        return Row(row.number, {}, f"is not one JSON object ({error.msg} at column {error.colno})")
    except (RecursionError, ValueError) as error:
        return Row(row.number, {}, f"is not usable JSON ({type(error).__name__})")
    if not isinstance(value, dict):
        return Row(row.number, {}, f"is not one JSON object (it is a {type(value).__name__})")
    return Row(row.number, value)


def parquet_rows(path: Path, report: Report) -> Iterator[Row]:
    """Rows of a Parquet file, read a few thousand at a time."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise require("parquet", "pyarrow") from None
    open_bytes(path).close()
    try:
        with parquet.ParquetFile(path) as file:
            yield from _arrow_rows(file.iter_batches(batch_size=4096))
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"is not a readable Parquet file: {_first_line(error)}", where=path) from None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


def _arrow_rows(batches: Iterable[Any]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        names = _distinct(batch.schema.names)
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            number += 1
            yield Row(number, dict(zip(names, values, strict=True)))


def is_frame(data: object) -> bool:
    """True for a DataFrame of pandas or polars, or a pyarrow table."""
    return any(hasattr(data, name) for name in ("itertuples", "iter_rows", "to_batches"))


def frame_rows(frame: Any) -> Iterator[Row]:
    """Rows of a pandas or polars DataFrame or of a pyarrow table, as dicts; missing values are None."""
    if hasattr(frame, "to_batches"):
        yield from _arrow_rows(frame.to_batches())
        return
    names = _distinct([str(name) for name in frame.columns])
    rows = frame.itertuples(index=False, name=None) if hasattr(frame, "itertuples") else frame.iter_rows()
    for number, values in enumerate(rows, start=1):
        yield Row(number, dict(zip(names, map(_plain, values), strict=True)))


def _distinct(names: list[str]) -> list[str]:
    """The names of columns; `DataError` where one stands twice."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError("two columns have the same name", got=twice[0], do="rename one, or leave it out")
    return names


def _plain(value: Any) -> Any:
    """A cell as JSON would have it: None where it is missing, a list for an array of objects."""
    if _missing(value):
        return None
    return value.tolist() if isinstance(value, np.ndarray) and value.dtype.kind == "O" else value


def _missing(value: object) -> bool:
    return (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")


def item_rows(items: Iterable[Any]) -> Iterator[Row]:
    """Rows of any iterable of tuples, dicts or pairs."""
    for number, item in enumerate(items, start=1):
        if isinstance(item, Sequence) and not isinstance(item, str | bytes):
            yield Row(number, list(item))
        else:
            yield Row(number, item)
