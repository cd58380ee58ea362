"""The tensors that flow: a batch in, a memory across, steps and a loss out.

Letters in names are axes: B batch, S source length, T target length, D width, V vocabulary, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from antiphon.core.marks import BOS, EOS, PAD, UNK

__all__ = ["BOS", "EOS", "PAD", "UNK", "Batch", "Loss", "Memory", "Padded", "State", "Steps", "of_sentence", "pad"]

State = dict[str, Tensor]
"""What a decoder remembers between steps: flat, batch first. Keys that start with `memory.` depend on the
source alone and have one row a sentence, as have those with `.shared.`; all others have one row a hypothesis."""


def of_sentence(name: str) -> bool:
    """Whether an entry of a `State` has a row for each sentence, and not for each hypothesis."""
    return name.startswith("memory.") or ".shared." in name


@dataclass(frozen=True)
class Padded:
    """Sequences of several lengths in one tensor: ids `[B, L]` or frames `[B, L, F]`, and `lengths_B`."""

    values: Tensor
    lengths_B: Tensor

    @cached_property
    def mask_BL(self) -> Tensor:
        """True where a position is real."""
        return torch.arange(self.values.shape[1], device=self.values.device) < self.lengths_B[:, None]

    def rows(self, index: Tensor) -> Padded:
        """The chosen rows, cut to the longest of them."""
        lengths = self.lengths_B[index]
        return Padded(self.values[index, : int(lengths.max())], lengths)

    def to(self, device: torch.device) -> Padded:
        """The same on another device."""
        return Padded(self.values.to(device), self.lengths_B.to(device))


@dataclass(frozen=True)
class Batch:
    """Sources and targets, each sequence closed by its end mark.

    `context` holds further inputs by name. `context["copy"]`, where a copy head is in use, has the source's
    tokens as ids of the target vocabulary, a source word that the target vocabulary lacks being V, V+1, ...
    (numbered per pair); targets then carry the same extended ids, and embeddings read every id >= V as unknown.

    Where a graph encoder reads facts, `context["facts"]` has the tokens of their entities and relations, each of these
    a node, one node after the other; `fact_node` the number of each token's node, from 1; for a relation `fact_subject`
    and `fact_object` the nodes that it joins, else 0; and `fact_copy` what `copy` is to the source.

    Where targets are numbers with context, `context["ahead"]` has what is known of each of their steps, `[B, T, C]`, or
    one step that stands for all.
    """

    source: Padded
    target: Padded
    context: dict[str, Padded] = field(default_factory=dict)

    @property
    def inputs_BT(self) -> Tensor:
        """What the decoder reads: the begin mark, then the target without its last position."""
        rows, _, *features = self.target.values.shape
        begin = self.target.values.new_full((rows, 1, *features), BOS)
        return torch.cat([begin, self.target.values[:, :-1]], dim=1)

    @property
    def labels_BT(self) -> Tensor:
        """What the decoder is to say: the target with its end mark, padded with `PAD`."""
        return self.target.values

    @property
    def count(self) -> int:
        """Target tokens without padding."""
        return int(self.target.lengths_B.sum())

    @property
    def lengths_B(self) -> Tensor:
        """Tokens read for each pair: those of the source and of its facts."""
        facts = self.context.get("facts")
        return self.source.lengths_B if facts is None else self.source.lengths_B + facts.lengths_B

    @property
    def tokens(self) -> int:
        """Tokens read and target tokens, without padding."""
        return self.count + int(self.lengths_B.sum())

    def rows(self, index: Tensor) -> Batch:
        """The chosen pairs."""
        context = {name: value.rows(index) for name, value in self.context.items()}
        return Batch(self.source.rows(index), self.target.rows(index), context)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        context = {name: value.to(device) for name, value in self.context.items()}
        return Batch(self.source.to(device), self.target.to(device), context)


@dataclass(frozen=True)
class Memory:
    """All that crosses from source to target.

    `states_BSD` and `mask_BS` (True where real) are what attention reads, `summary_BD` what a model without
    attention gets, `copy_BS` the ids that a copy head may emit, `ahead` what is known of the steps of numbers that are
    to be said (see `Batch.context`).
    """

    states_BSD: Tensor
    mask_BS: Tensor
    summary_BD: Tensor
    copy_BS: Tensor | None = None
    ahead: Padded | None = None

    def join(self, other: Memory) -> Memory:
        """Both memories side by side; the summaries are added."""
        copies = None
        if self.copy_BS is not None or other.copy_BS is not None:
            copies = torch.cat([_copies(self), _copies(other)], dim=1)
        return Memory(
            torch.cat([self.states_BSD, other.states_BSD], dim=1),
            torch.cat([self.mask_BS, other.mask_BS], dim=1),
            self.summary_BD + other.summary_BD,
            copies,
            self.ahead,
        )

    def rows(self, index: Tensor) -> Memory:
        """The chosen sentences."""
        copies = None if self.copy_BS is None else self.copy_BS[index]
        return replace(
            self,
            states_BSD=self.states_BSD[index],
            mask_BS=self.mask_BS[index],
            summary_BD=self.summary_BD[index],
            copy_BS=copies,
            ahead=None if self.ahead is None else self.ahead.rows(index),
        )


def _copies(memory: Memory) -> Tensor:
    if memory.copy_BS is not None:
        return memory.copy_BS
    return torch.full(memory.mask_BS.shape, PAD, dtype=torch.long, device=memory.mask_BS.device)


@dataclass(frozen=True)
class Steps:
    """What a decoder gives: `hidden_BTD` for the head, and `weights_BTS`, where it looked in the source."""

    hidden_BTD: Tensor
    weights_BTS: Tensor

    def rows(self, index: Tensor) -> Self:
        """The chosen hypotheses."""
        return replace(self, **{each.name: getattr(self, each.name)[index] for each in fields(self)})


@dataclass(frozen=True)
class Loss:
    """A sum and what it is over. Only the trainer divides, so accumulation and uneven batches are exact.

    `sums` are further sums over the same pairs, by name, of what is only logged.
    """

    total: Tensor
    count: int
    sums: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Loss) -> Loss:
        sums = {name: self.sums.get(name, 0.0) + other.sums.get(name, 0.0) for name in {**self.sums, **other.sums}}
        return Loss(self.total + other.total, self.count + other.count, sums)


def pad(sequences: Sequence[Sequence[int]], value: int = PAD) -> Padded:
    """Sequences of ids as one `Padded`; needs at least one sequence."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    values = torch.full((len(sequences), int(lengths.max())), value, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        values[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
    return Padded(values, lengths)
