"""The same text again, exactly or nearly, within the training data and in what it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from antiphon.diagnosis.words import Words, distinct

ALIKE = 0.8
"""The share of all pairs of neighbouring words that two near duplicates have in common (Jaccard)."""

LEAST, COMMON, HASHES = 7, 16, 8
"""Words of a text that can be nearly another, texts beyond which what they share says nothing, and minima a text."""


def first_rows(keys: Sequence[str]) -> np.ndarray:
    """For each text the row where it stands first `[N]`."""
    seen: dict[str, int] = {}
    return np.fromiter((seen.setdefault(key, row) for row, key in enumerate(keys)), np.int64, len(keys))


@dataclass(frozen=True)
class Shingles:
    """Pairs of neighbouring words as numbers, each once a text, sorted by text: `values[starts[i] : starts[i + 1]]`."""

    values: np.ndarray
    rows: np.ndarray
    starts: np.ndarray

    @staticmethod
    def of(words: Words) -> Shingles:
        """None for texts of fewer than `LEAST` words, and for single words spelled out."""
        inside = (words.rows[1:] == words.rows[:-1]) & (words.lengths[words.rows[1:]] >= LEAST)
        inside &= not words.spelled
        values = (words.ids[:-1][inside] * 0x9E3779B1 + words.ids[1:][inside] * 0x85EBCA6B) & 0xFFFFFFFF
        found = distinct((words.rows[1:][inside] << 32) | values)
        rows = found >> 32
        return Shingles(found & 0xFFFFFFFF, rows, np.searchsorted(rows, np.arange(words.texts + 1)))

    def alike(self, row: int, other: Shingles, place: int) -> bool:
        """Whether a text is nearly one of the others."""
        mine = self.values[self.starts[row] : self.starts[row + 1]]
        theirs = other.values[other.starts[place] : other.starts[place + 1]]
        shared = len(np.intersect1d(mine, theirs, assume_unique=True))
        return bool(shared >= ALIKE * (len(mine) + len(theirs) - shared)) and shared > 0


def near_rows(texts: Shingles, most: int = 20_000) -> dict[int, int]:
    """Texts that are nearly an earlier one, with its row: by minima of hashes (Broder 1997), then counted exactly.

    At most so many of each pair of minima are compared.
    """
    starts, ends = texts.starts[:-1], texts.starts[1:]
    some = np.flatnonzero(ends > starts)
    if not len(some):
        return {}
    found: dict[int, int] = {}
    mixers = np.random.default_rng(1).integers(1, 1 << 31, HASHES, dtype=np.int64) * 2 + 1
    minima = [np.minimum.reduceat((texts.values * mixer >> 7) & 0x7FFFFFFF, starts[some]) for mixer in mixers]
    for first, second in zip(minima[::2], minima[1::2], strict=True):
        keys = (first << 32) ^ second
        order = np.argsort(keys, kind="stable")
        again = np.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
        for place in again[:most]:
            row, before = int(some[order[place]]), int(some[order[place - 1]])
            if row not in found and texts.alike(row, texts, before):
                found[row] = before
    return found


def near_others(texts: Shingles, others: Shingles) -> dict[int, int]:
    """Texts that are nearly one of the others, with its row: all that share a pair of words with few are compared."""
    order = np.argsort(others.values, kind="stable")
    ranked = others.values[order]
    wanted = distinct(others.values)
    count = np.diff(np.append(np.searchsorted(ranked, wanted), len(ranked)))
    begin = np.concatenate([[0], np.cumsum(count)])
    place = np.minimum(np.searchsorted(wanted, texts.values), max(0, len(wanted) - 1))
    known = np.flatnonzero(wanted[place] == texts.values) if len(wanted) else np.zeros(0, np.int64)
    shared = np.bincount(texts.rows[known], minlength=len(texts.starts) - 1)
    sizes = np.diff(texts.starts)
    found: dict[int, int] = {}
    for row in np.flatnonzero((sizes > 0) & (shared >= ALIKE * sizes)):
        mine = place[texts.starts[row] : texts.starts[row + 1]]
        mine = mine[wanted[mine] == texts.values[texts.starts[row] : texts.starts[row + 1]]]
        rare = mine[np.argsort(count[mine], kind="stable")[:3]]
        tried = {int(others.rows[spot]) for value in rare for spot in order[begin[value] : begin[value + 1]][:COMMON]}
        match = next((other for other in sorted(tried) if texts.alike(int(row), others, other)), None)
        if match is not None:
            found[int(row)] = match
    return found
