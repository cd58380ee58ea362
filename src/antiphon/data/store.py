"""Encoded pairs as flat arrays of ids, in memory or mapped from files, so that a corpus may exceed memory."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from antiphon.core.errors import DataError
from antiphon.core.marks import PAD
from antiphon.data.balance import Groups
from antiphon.data.columns import Pair
from antiphon.data.modalities import TooLong
from antiphon.data.report import Report

if TYPE_CHECKING:
    from antiphon.core.batch import Batch, Padded

SPILL = 1 << 24
"""Ids of one field held in memory; with a folder to write to, more go to files."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Example:
    """A pair as ids, both sides closed by the end mark, or its source as frames and its target as numbers `[L, F]`;
    `context` by name as in `Batch.context`."""

    source: list[int] | np.ndarray
    target: list[int] | np.ndarray
    context: Mapping[str, list[int] | np.ndarray] = field(default_factory=dict)


class Field(NamedTuple):
    """Sequences of ids, or of frames, end to end: sequence i is `flat[offsets[i] : offsets[i + 1]]`."""

    flat: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Length of each sequence."""
        return np.diff(self.offsets)

    def row(self, number: int) -> np.ndarray:
        """One sequence."""
        return self.flat[self.offsets[number] : self.offsets[number + 1]]

    def pad(self, rows: np.ndarray) -> Padded:
        """The chosen sequences `[B, L]` (frames `[B, L, F]`), without a Python step a token."""
        import torch

        from antiphon.core.batch import Padded

        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        steps = np.arange(int(lengths.max()))
        real = steps < lengths[:, None]
        values = np.full((*real.shape, *self.flat.shape[1:]), PAD, np.int64 if self.flat.ndim == 1 else np.float32)
        values[real] = self.flat[(starts[:, None] + steps)[real]]
        return Padded(torch.from_numpy(values), torch.from_numpy(lengths))


@dataclass(frozen=True)
class Joined:
    """Two fields as one, each staying where it is."""

    first: Field
    second: Field

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((*self.first, *self.second))

    @property
    def lengths(self) -> np.ndarray:
        """Length of each sequence."""
        return np.concatenate([self.first.lengths, self.second.lengths])

    def row(self, number: int) -> np.ndarray:
        """One sequence."""
        border = len(self.first)
        return self.first.row(number) if number < border else self.second.row(number - border)

    def pad(self, rows: np.ndarray) -> Padded:
        """The chosen sequences `[B, L]`, in their order."""
        import torch

        from antiphon.core.batch import Padded

        late = rows >= len(self.first)
        chosen = ((self.first, ~late, rows), (self.second, late, rows - len(self.first)))
        parts = [(torch.from_numpy(np.flatnonzero(mine)), field.pad(places[mine]))
                 for field, mine, places in chosen if mine.any()]  # fmt: skip
        width = max(part.values.shape[1] for _, part in parts)
        values = parts[0][1].values.new_full((len(rows), width, *parts[0][1].values.shape[2:]), PAD)
        lengths = torch.zeros(len(rows), dtype=torch.int64)
        for index, part in parts:
            values[index, : part.values.shape[1]] = part.values
            lengths[index] = part.lengths_B
        return Padded(values, lengths)


@dataclass(frozen=True)
class Store:
    """All examples of a corpus; `texts` has the raw pairs where they are to be cut anew in every epoch.

    The last `old` of them are there to be mixed in: an epoch takes a sample of these. `groups` has the number of each
    other one's group, where an epoch is to be balanced between groups, and `names` their names.
    """

    source: Field | Joined
    target: Field | Joined
    context: Mapping[str, Field | Joined] = field(default_factory=dict)
    texts: Field | Joined | None = None
    old: int = 0
    groups: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> Example:
        context = {name: _listed(part.row(number)) for name, part in self.context.items()}
        return Example(_listed(self.source.row(number)), _listed(self.target.row(number)), context)

    @property
    def source_lengths(self) -> np.ndarray:
        """Ids of each source, end mark and facts included; or its frames."""
        facts = self.context.get("facts")
        return self.source.lengths if facts is None else self.source.lengths + facts.lengths

    @property
    def target_lengths(self) -> np.ndarray:
        """Ids of each target, end mark included."""
        return self.target.lengths

    def batch(self, rows: np.ndarray) -> Batch:
        """The chosen examples as a batch."""
        from antiphon.core.batch import Batch

        context = {name: part.pad(rows) for name, part in self.context.items()}
        return Batch(self.source.pad(rows), self.target.pad(rows), context)

    def pair(self, number: int) -> Pair:
        """The raw pair, where texts were kept."""
        if self.texts is None:
            raise DataError("this store kept no texts", do="prepare it with keep_text=True")
        source, target, context = json.loads(self.texts.row(number).tobytes())
        return Pair(source, target, (), context)


def _listed(row: np.ndarray) -> list[int] | np.ndarray:
    """Ids as a list; frames as they are."""
    return row.tolist() if row.ndim == 1 else row


def join(new: Store, old: Store) -> Store:
    """All of `new`, and after them those of `old` to be mixed in; both have the same fields."""
    source, target = _joined(new.source, old.source), _joined(new.target, old.target)
    context = {name: _joined(part, old.context[name]) for name, part in new.context.items()}
    texts = None if new.texts is None or old.texts is None else _joined(new.texts, old.texts)
    return Store(source, target, context, texts, len(old), new.groups, new.names)


def _joined(first: Field | Joined, second: Field | Joined) -> Joined:
    assert isinstance(first, Field)
    assert isinstance(second, Field)
    return Joined(first, second)


def prepare(
    pairs: Iterable[Pair],
    encode: Callable[[Pair], Example],
    folder: Path | None = None,
    *,
    keep_text: bool = False,
    ids_below: int | None = None,
    report: Report | None = None,
    spill: int = SPILL,
    balance: str = "",
) -> Store:
    """Encodes all pairs in one pass.

    With a `folder`, a field of more than `spill` ids is written there and mapped; else all stays in memory. Ids take
    two bytes where `ids_below` promises at most 65,536 of them. A pair whose `encode` raises `TooLong` with `skip`
    is left out and counted in `report`. `balance` is the column that has the pairs' groups. Raises `DataError` if
    nothing is left.
    """
    kind = "H" if ids_below is not None and ids_below <= 1 << 16 else "i"
    source, target, texts = (_Writer(name, "B" if name == "texts" else kind, folder, spill)
                             for name in ("source", "target", "texts"))  # fmt: skip
    context: dict[str, _Writer] = {}
    groups = Groups(balance)
    for pair in pairs:
        try:
            example = encode(pair)
        except TooLong as error:
            if not error.skip:
                raise
            if report is not None:
                report.add(f"skipped: {error.what}", example=pair.source)
            continue
        if balance:
            groups.add(pair)
        source.add(example.source)
        target.add(example.target)
        for name, ids in example.context.items():
            if name not in context:
                context[name] = _Writer(name, kind, folder, spill)
            context[name].add(ids)
        if keep_text:
            texts.add(json.dumps([pair.source, pair.target, pair.context]).encode())
    if len(source.offsets) == 1:
        raise DataError("no pair is left to train on", do="raise max_length, or allow cutting")
    further = {name: writer.finish() for name, writer in context.items()}
    kept, numbers = texts.finish() if keep_text else None, groups.rows() if balance else None
    return Store(source.finish(), target.finish(), further, kept, 0, numbers, tuple(groups.names))


class _Writer:
    """Collects one field, in memory as long as it is small."""

    def __init__(self, name: str, kind: str, folder: Path | None, spill: int) -> None:
        self.buffer: array[Any] = array(kind)
        self.offsets, self.total = array("q", [0]), 0
        self.spill, self.spilled = spill, False
        self.path = None if folder is None else folder / f"{name}.ids"
        self.features = 0

    def add(self, values: Iterable[int] | np.ndarray) -> None:
        """Appends one sequence; of frames `[L, F]` all have the same F."""
        before = len(self.buffer)
        if isinstance(values, np.ndarray):
            if not self.features:
                self.buffer, self.features = array("f"), values.shape[1]
            self.buffer.frombytes(np.ascontiguousarray(values, np.float32).tobytes())
        else:
            self.buffer.extend(values)
        self.total += len(self.buffer) - before
        self.offsets.append(self.total // max(1, self.features))
        if self.path is not None and len(self.buffer) >= (_CHUNK if self.spilled else self.spill):
            self._flush(self.path)

    def _flush(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab" if self.spilled else "wb") as file:
                self.buffer.tofile(file)
        except OSError as error:
            do = "free some space, or choose another folder"
            raise DataError(f"cannot write the encoded data: {error.strerror}", where=path, do=do) from None
        self.spilled = True
        self.buffer = array(self.buffer.typecode)

    def finish(self) -> Field:
        """The field, mapped from its file where it went to one."""
        offsets = np.frombuffer(self.offsets, dtype=np.int64)
        kind = np.dtype(self.buffer.typecode)
        shape = (-1, self.features) if self.features else (-1,)
        if not self.spilled or self.path is None:
            return Field(np.frombuffer(self.buffer, dtype=kind).reshape(shape), offsets)
        self._flush(self.path)
        return Field(np.memmap(self.path, dtype=kind, mode="r").reshape(shape), offsets)
