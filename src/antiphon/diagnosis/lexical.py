"""Which words go with which, learned from the pairs themselves: does this target belong to this source?"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from antiphon.diagnosis.words import Words, distinct

KNOWN, BUCKETS, MOST = 2048, 1024, 8
"""Words of a side that are told apart, buckets for the others by their spelling, and words of a text looked at."""

LEARNED, CHUNK, STRONGEST = 30_000, 4096, 6.0
"""Lines that are learned from, lines looked at together, and the largest association in nats."""


@dataclass(frozen=True)
class Content:
    """The rarest words that recur of each text `[N, MOST]`, as numbers from 1 below `size`; 0 where there is none."""

    table: np.ndarray
    size: int

    @staticmethod
    def of(words: Words) -> Content:
        """Rare words say most; those seen once say something only by their spelling, as names and numbers do."""
        counts = words.counts
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] > 1]
        known = min(KNOWN, len(order))
        spelled = (1 + known + zlib.crc32(kind.encode()) % BUCKETS for kind in words.index)
        numbers = np.fromiter(spelled, np.int64, len(words.index))
        numbers[order[:known]] = 1 + np.arange(known)
        # Sorted by text and then by rarity; the same word twice is one.
        rarity = np.where(counts > 1, counts, counts.max(initial=1))
        found = distinct((words.rows << 40) | (rarity[words.ids] << 16) | numbers[words.ids])
        rows = found >> 40
        place = np.arange(len(found)) - np.searchsorted(rows, np.arange(words.texts))[rows]
        near = place < MOST
        table = np.zeros((words.texts, MOST), np.int32)
        table[rows[near], place[near]] = found[near] & 0xFFFF
        return Content(table, 1 + known + BUCKETS)


@dataclass(frozen=True)
class Association:
    """How much more often a source and a target word come together than by chance `[sources, targets]`, in nats.

    Positive pointwise mutual information (Church and Hanks 1990), where each pair of lines is judged by the others
    alone: lines that it was learned from are explained no better than by what is true of all.
    """

    table: np.ndarray

    @staticmethod
    def learn(source: Content, target: Content, offsets: Sequence[int]) -> Association:
        """From lines beside the targets at each of the offsets, all alike: none has an advantage over another."""
        lines, size = len(source.table), source.size * target.size
        together = np.zeros(size, np.int64)
        for offset in offsets:
            cells = [_cells(source, target, here, offset) for here in _sample(lines, offset)]
            if cells:
                together += np.bincount(np.concatenate(cells), minlength=size)
        counts = together.reshape(source.size, target.size).astype(np.float32)
        chance = np.outer(counts.sum(1), counts.sum(0)) / max(1.0, float(counts.sum())) + 0.3
        found = np.log((np.maximum(counts - 1, 0) + 0.3) / chance)
        found[0] = found[:, 0] = 0
        return Association(np.clip(found, 0, STRONGEST, out=found))

    def scores(self, source: Content, target: Content, offset: int, lines: slice | None = None) -> np.ndarray:
        """How well each source is explained by the target so many lines further, and that target by the source `[N]`.

        The best partner of each word counts; where there is no such target, nothing is explained. `lines` are those to
        look at, the others stay 0.
        """
        count = len(source.table)
        found = np.zeros(count, np.float32)
        wanted = lines or slice(0, count)
        low, high = max(wanted.start, -offset), min(wanted.stop, count - offset)
        for start in range(low, high, CHUNK):
            here = slice(start, min(high, start + CHUNK))
            left, right = source.table[here], target.table[here.start + offset : here.stop + offset]
            cells = self.table[left[:, :, None], right[:, None, :]]
            sizes = np.maximum(1, (left > 0).sum(1)), np.maximum(1, (right > 0).sum(1))
            both = cells.max(2).sum(1) / sizes[0] + cells.max(1).sum(1) / sizes[1]
            found[here] = both * np.sqrt(sizes[0])
        return found


def _cells(source: Content, target: Content, here: slice, offset: int) -> np.ndarray:
    """Every word of these sources beside every word of their targets, as places of the flat table."""
    left, right = source.table[here], target.table[here.start + offset : here.stop + offset]
    cells = left[:, :, None] * target.size + right[:, None, :]
    real: np.ndarray = cells[(left > 0)[:, :, None] & (right > 0)[:, None, :]]
    return real


def _sample(lines: int, offset: int) -> Iterator[slice]:
    """Stretches of lines that have a line at the offset, about `LEARNED` in all, spread evenly."""
    low, high = max(0, -offset), min(lines, lines - offset)
    step = 512
    every = max(1, -(-lines // LEARNED))
    for start in range(low, high, step * every):
        yield slice(start, min(high, start + step))
