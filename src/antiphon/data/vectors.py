"""Word vectors in word2vec, GloVe and fastText text format, as starting embeddings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from antiphon.core.errors import DataError
from antiphon.data.formats import line_rows
from antiphon.data.report import Report
from antiphon.data.vocabulary import Vocabulary


class Vectors(NamedTuple):
    """`matrix` is float32 `[V, width]` with zeros where `covered` (bool `[V]`) is false; `line` tells the coverage."""

    matrix: np.ndarray
    covered: np.ndarray
    line: str


def read_vectors(path: str | os.PathLike[str], vocabulary: Vocabulary, width: int) -> Vectors:
    """The vectors of the vocabulary's tokens from a text file, plain, gzip or xz; a header line is seen through.

    Of a token listed twice the first vector counts. Raises `DataError` with the line for a wrong width, a value that
    is not a finite number, or bad UTF-8.
    """
    matrix = np.zeros((len(vocabulary), width), dtype=np.float32)
    covered = np.zeros(len(vocabulary), dtype=bool)
    for row in line_rows(Path(path), Report()):
        place = f"{path}:{row.number}"
        if row.problem:
            raise DataError(row.problem, where=place)
        parts = row.values.rstrip().split(" ")
        if row.number == 1 and len(parts) == 2 and all(part.isdecimal() for part in parts):
            _check_width(int(parts[1]), width, place)
            continue
        if len(parts) <= width:
            _check_width(len(parts) - 1, width, place)
        token = " ".join(parts[:-width])
        number = vocabulary.index.get(token)
        if number is not None and not covered[number]:
            matrix[number] = _numbers(parts[-width:], place)
            covered[number] = True
        elif row.number <= 2:
            _check_first(parts, width, place)
    return Vectors(matrix, covered, _line(path, covered, vocabulary))


def _check_width(found: int, width: int, place: str) -> None:
    if found != width:
        do = f"set model.width={found}, or use vectors of width {width}"
        raise DataError(f"the vector has {found} numbers, {width} are needed", where=place, do=do)


def _check_first(parts: list[str], width: int, place: str) -> None:
    """A token may hold spaces, but in the first lines a number before the vector means vectors too wide."""
    if len(parts) > width + 2:
        _check_width(len(parts) - 1, width, place)
    _numbers(parts[-width:], place)


def _numbers(parts: list[str], place: str) -> np.ndarray:
    try:
        values = np.array(parts, dtype=np.float64)
    except ValueError as error:
        raise DataError(f"not a number: {error}", where=place) from None
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise DataError("a vector holds a value that is not finite", where=place)
    return values.astype(np.float32)


def _line(path: object, covered: np.ndarray, vocabulary: Vocabulary) -> str:
    size, found = len(vocabulary.index), int(covered.sum())
    return f"{path} covers {found:,} of {size:,} tokens ({found / max(1, size):.1%})"
