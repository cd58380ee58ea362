"""The few pairs that are looked at again and again: always the same ones, in batches of like lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from antiphon.core.batch import Batch
from antiphon.core.marks import UNK
from antiphon.data.batching import collate
from antiphon.data.corpus import Pair
from antiphon.data.store import Example, Store
from antiphon.inference.task import Task

PAIRS, FEWEST = 64, 8
"""The most pairs of a sample, and the fewest, however long they are."""

ROWS, TOKENS, CELLS = 16, 4096, 1 << 22
"""The most pairs of a batch, its most tokens with padding, and its most log probabilities."""


@dataclass(frozen=True)
class Sample:
    """Some pairs as ids; `pairs` has their texts where they are of validation."""

    examples: Sequence[Example]
    pairs: Sequence[Pair] = ()

    @property
    def tokens(self) -> int:
        """Of sources and targets."""
        return sum(length(example) for example in self.examples)

    def batches(self, vocabulary: int) -> Iterator[tuple[list[int], Batch]]:
        """Numbers of pairs, and these as a batch; not more of them than their log probabilities have room for."""
        order = sorted(range(len(self.examples)), key=lambda row: (len(self.examples[row].target), row))
        while order:
            next_ones = [self.examples[row] for row in order[:ROWS]]
            source, target = (max(len(getattr(each, side)) for each in next_ones) for side in ("source", "target"))
            rows = order[: max(1, min(ROWS, TOKENS // (source + target), CELLS // (target * max(1, vocabulary))))]
            order = order[len(rows) :]
            yield rows, collate([self.examples[row] for row in rows])

    def first(self, many: int) -> Sample:
        """The first of them."""
        return Sample(self.examples[:many], self.pairs[:many])

    def shuffled(self, vocabulary: int | None) -> Sample:
        """Every target with the source of another pair; what only its own source could spell is then unknown."""
        count = len(self.examples)
        others = [self.examples[(row + count // 2) % count] for row in range(count)]
        mixed = [replace(other, target=_plain(mine.target, vocabulary))
                 for mine, other in zip(self.examples, others, strict=True)]  # fmt: skip
        return Sample(mixed, self.pairs)


def _plain(target: list[int] | np.ndarray, vocabulary: int | None) -> list[int] | np.ndarray:
    if vocabulary is None or isinstance(target, np.ndarray):
        return target
    return [token if token < vocabulary else UNK for token in target]


def length(example: Example) -> int:
    """Tokens of both sides."""
    return len(example.source) + len(example.target)


class Samples:
    """One sample of what is learned and one of what is held out, drawn by the seed; `room` is in tokens of each."""

    def __init__(self, task: Task, store: Store, held_out: Sequence[Pair], seed: int, room: int) -> None:
        self.task, self.store, self.held_out, self.seed, self.room = task, store, held_out, seed, room

    @cached_property
    def train(self) -> Sample:
        """Of the training pairs that are not only mixed in."""
        return Sample(self._fitting([self.store[row] for row in self._drawn(len(self.store) - self.store.old)]))

    @cached_property
    def valid(self) -> Sample:
        """Of the held-out pairs, each with its first accepted target."""
        rows = (self.held_out[row] for row in self._drawn(len(self.held_out)))
        pairs = [replace(pair, target=(pair.references or (pair.target,))[0]) for pair in rows]
        examples = self._fitting([self.task.encode(pair) for pair in pairs])
        return Sample(examples, pairs[: len(examples)])

    def _drawn(self, count: int) -> list[int]:
        draw = np.random.default_rng([self.seed & 0xFFFFFFFFFFFFFFFF, count])
        return [int(row) for row in draw.choice(count, min(count, PAIRS), replace=False)]

    def _fitting(self, examples: list[Example]) -> list[Example]:
        used = np.cumsum([length(example) for example in examples])
        return examples[: max(FEWEST, int((used <= self.room).sum()))]
