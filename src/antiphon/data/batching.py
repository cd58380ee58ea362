"""Which examples go together in which order, and their batches made ahead of time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch

from antiphon.core.batch import Batch
from antiphon.core.errors import DataError
from antiphon.data.balance import balanced
from antiphon.data.columns import Pair
from antiphon.data.store import Example, Field, Store, prepare

__all__ = ["Example", "Loader", "Store", "collate", "epoch_plan", "mix", "mixed_in", "padding", "plan", "prepare"]

HANG = 30.0
"""Seconds without a batch after which a worker process is taken for dead."""


def plan(
    source_lengths: np.ndarray, target_lengths: np.ndarray, batch_tokens: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """The batches of one epoch, each an array of example numbers; every example is in exactly one.

    Pairs of like length come together: sorted by target, then by source, rising and falling in turn so that
    neighbours stay alike; ties and the order of batches are random. `(S + T) * rows` with padding stays within
    `batch_tokens`; a longer pair is a batch by itself. Depends on the arguments alone.
    """
    draw = np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, epoch])
    source, target = np.asarray(source_lengths, np.int64), np.asarray(target_lengths, np.int64)
    mixed = draw.permutation(len(source))
    there_and_back = np.where(target % 2, source, (1 << 31) - source)
    order = mixed[np.argsort((target << 32 | there_and_back)[mixed], kind="stable")]
    cuts = _cuts(source[order], target[order], batch_tokens)
    batches = [order[start:end] for start, end in pairwise(cuts)]
    return [batches[number] for number in draw.permutation(len(batches))]


def epoch_plan(
    store: Store, batch_tokens: int, seed: int, epoch: int, share: float, temperature: float = 1.0
) -> list[np.ndarray]:
    """The batches of one epoch of a store; of what is mixed in, a new sample that is `share` of the epoch's pairs.

    Where there is less of it than that, all of it is taken, once. Where the store has groups they are balanced by
    `temperature`, see `balanced`. Depends on the arguments alone.
    """
    source, target = store.source_lengths, store.target_lengths
    if not store.old and store.groups is None:
        return plan(source, target, batch_tokens, seed, epoch)
    new = len(store) - store.old
    rows = np.arange(new)
    if store.groups is not None:
        rows = balanced(store.groups, temperature, np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, epoch, 2]))
    if store.old:
        draw = np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, epoch, 1])
        sample = draw.choice(store.old, mixed_in(new, store.old, share), replace=False)
        rows = np.concatenate([rows, new + np.sort(sample)])
    return [rows[batch] for batch in plan(source[rows], target[rows], batch_tokens, seed, epoch)]


def mixed_in(new: int, old: int, share: float) -> int:
    """How many of so many old pairs are mixed into so many new ones, to be `share` of both together."""
    return min(old, round(new * share / (1 - share)))


def _cuts(source: np.ndarray, target: np.ndarray, batch_tokens: int) -> list[int]:
    """Where batches begin in pairs sorted by target length, and the end."""
    cuts = [0]
    while cuts[-1] < len(source):
        start = cuts[-1]
        window = slice(start, start + batch_tokens // int(source[start] + target[start]) + 1)
        width = np.maximum.accumulate(source[window]) + target[window]
        cost = width * np.arange(1, len(width) + 1)
        cuts.append(start + max(1, int(np.searchsorted(cost, batch_tokens, side="right"))))
    return cuts


def padding(source_lengths: np.ndarray, target_lengths: np.ndarray, batches: Sequence[np.ndarray]) -> float:
    """The share of positions of these batches that are padding."""
    full = sum(len(rows) * int(source_lengths[rows].max() + target_lengths[rows].max()) for rows in batches)
    real = sum(int(source_lengths[rows].sum() + target_lengths[rows].sum()) for rows in batches)
    return 1 - real / max(1, full)


def collate(examples: Sequence[Example]) -> Batch:
    """Examples as one batch, padded; all of them have a context of the same names."""
    rows = np.arange(len(examples))
    context = {name: _field([example.context[name] for example in examples]) for name in examples[0].context}
    source = _field([example.source for example in examples]).pad(rows)
    target = _field([example.target for example in examples]).pad(rows)
    return Batch(source, target, {name: value.pad(rows) for name, value in context.items()})


def _field(sequences: Sequence[Sequence[int] | np.ndarray]) -> Field:
    lengths = np.fromiter((len(sequence) for sequence in sequences), np.int64, len(sequences))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if isinstance(sequences[0], np.ndarray):
        return Field(np.concatenate(sequences), offsets)
    return Field(np.fromiter(chain.from_iterable(sequences), np.int64, int(offsets[-1])), offsets)


def mix(*numbers: int) -> int:
    """One 32-bit seed from several numbers, so that neighbours get unrelated ones."""
    return int(np.random.SeedSequence([number & 0xFFFFFFFFFFFFFFFF for number in numbers]).generate_state(1)[0])


@dataclass(frozen=True)
class Loader:
    """Batches of a plan, from the `start`-th on, each with its number in the plan, made while the last one is used.

    `workers` 0 uses a thread, more use processes; the batches are the same. With `encode`, and a store that kept
    texts, each pair is encoded anew by `encode(pair, seed)`, its seed following from `seed` and the pair's number.
    """

    store: Store
    batches: Sequence[np.ndarray]
    start: int = 0
    workers: int = 0
    encode: Callable[[Pair, int], Example] | None = None
    seed: int = 0
    ahead: int = 4

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        return self._processes() if self.workers else self._thread()

    def __len__(self) -> int:
        return max(0, len(self.batches) - self.start)

    def batch(self, number: int) -> Batch:
        """The batch of this number in the plan."""
        rows = self.batches[number]
        if self.encode is None or self.store.texts is None:
            return self.store.batch(rows)
        return collate([self.encode(self.store.pair(int(row)), mix(self.seed, int(row))) for row in rows])

    def _thread(self) -> Iterator[tuple[int, Batch]]:
        ready: queue.Queue[Any] = queue.Queue(self.ahead)
        stop = threading.Event()
        worker = threading.Thread(target=self._fill, args=(ready, stop), name="antiphon-loader", daemon=True)
        worker.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            worker.join(timeout=HANG)

    def _fill(self, ready: queue.Queue[Any], stop: threading.Event) -> None:
        try:
            for number in range(self.start, len(self.batches)):
                if not _put(ready, (number, self.batch(number)), stop):
                    return
            _put(ready, None, stop)
        except BaseException as error:
            _put(ready, error, stop)

    def _processes(self) -> Iterator[tuple[int, Batch]]:
        """Through PyTorch's worker processes, with a generator of their own, so that training's is untouched."""
        loader = torch.utils.data.DataLoader(
            _Numbered(self),
            batch_size=None,
            sampler=range(self.start, len(self.batches)),
            num_workers=self.workers,
            prefetch_factor=self.ahead,
            collate_fn=_as_it_is,
            generator=torch.Generator().manual_seed(0),
            timeout=HANG,
        )
        try:
            yield from zip(range(self.start, len(self.batches)), loader, strict=True)
        except RuntimeError as error:
            if "DataLoader" not in str(error) or str(error).startswith("Caught"):
                raise
            do = "look for a lack of memory, or load in this process with workers=0"
            raise DataError(
                f"a data loading process died or hangs: {str(error).partition(chr(10))[0]}", do=do
            ) from None


@dataclass(frozen=True)
class _Numbered(torch.utils.data.Dataset[Batch]):
    """A loader's batches as PyTorch's DataLoader wants them."""

    loader: Loader

    def __getitem__(self, number: int) -> Batch:
        return self.loader.batch(number)

    def __len__(self) -> int:
        return len(self.loader.batches)


def _as_it_is(batch: Any) -> Any:
    return batch


def _put(ready: queue.Queue[Any], item: Any, stop: threading.Event) -> bool:
    """Waits for room unless the reader has gone."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False
