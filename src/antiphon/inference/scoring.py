"""How models score hypotheses: what search needs of a model, the mean of several, and what settles near ties.

Axes: N hypotheses, R those of one sentence, T steps, V vocabulary, S source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from antiphon.core.batch import BOS, Memory, Padded, State, Steps


class Model(Protocol):
    """What search needs of a model; `antiphon.models.Seq2Seq` is one."""

    @property
    def target_size(self) -> int:
        """Tokens in the target vocabulary."""
        ...

    def encode(self, source: Padded, context: Mapping[str, Padded] | None = None) -> Memory:
        """Source, and what stands beside it in the batch, to memory."""
        ...

    def start(self, memory: Memory) -> State:
        """The state before the first step."""
        ...

    def decode(self, tokens_NT: Tensor, memory: Memory, state: State) -> tuple[Steps, State]:
        """The next steps."""
        ...

    def log_probs(self, steps: Steps, memory: Memory) -> Tensor:
        """Log probabilities of the next token."""
        ...


def average(log_probs: list[Tensor]) -> Tensor:
    """The log of the mean probability."""
    if len(log_probs) == 1:
        return log_probs[0]
    return torch.stack(log_probs).logsumexp(0) - math.log(len(log_probs))


def coverage(looks_S: Tensor, weight: float) -> Tensor:
    """weight * sum over the source of log min(attention so far, 1) (Wu et al. 2016)."""
    return weight * looks_S.double().clamp(1e-9, 1).log().sum(-1)


class Referee:
    """Settles near ties of a beam by scores that depend on the sentence alone (docs/decisions/0001-near-ties.md).

    Each hypothesis is scored by itself beside its source without padding, so that no other can touch a bit.
    """

    def __init__(self, models: Sequence[Model], source: Padded, context: Mapping[str, Padded]) -> None:
        self.models, self.source, self.context = models, source, context
        self.memories: dict[int, list[Memory]] = {}

    def best(self, sentence: int, hypotheses: list[list[int]], totals_RV: Tensor, room: int, margin: float) -> Tensor:
        """The `room` best continuations of all hypotheses, as places in `totals_RV.flatten()`.

        These totals are the batch's, each wrong by less than half of `margin`: what is above the last place by more is
        in, what is below it by more is out. Between the others the exact totals decide, and where even these are equal,
        the lower ids.
        """
        totals_X, size = totals_RV.flatten(), totals_RV.shape[1]
        last = totals_X.topk(room).values[-1]
        sure = (totals_X > last + margin).nonzero().flatten()
        near = ((totals_X - last).abs() <= margin).nonzero().flatten().tolist()
        exact = {row: self.totals(sentence, hypotheses[row]) for row in {place // size for place in near}}

        def rank(place: int) -> tuple[float, list[int], int]:
            row, token = divmod(place, size)
            return -float(exact[row][token]), hypotheses[row], token

        return torch.cat([sure, sure.new_tensor(sorted(near, key=rank)[: room - len(sure)])])

    def totals(self, sentence: int, tokens: list[int]) -> Tensor:
        """Log probabilities `[V]` of these tokens followed by each one, in double precision."""
        memories = self._memories(sentence)
        inputs_NT = torch.tensor([[BOS, *tokens]], device=self.source.values.device)
        parts = []
        for model, memory in zip(self.models, memories, strict=True):
            steps, _ = model.decode(inputs_NT, memory, model.start(memory))
            parts.append(model.log_probs(steps, memory)[0])
        log_probs_TV = average(parts).double()
        return log_probs_TV[:-1].gather(1, inputs_NT[0, 1:, None]).sum() + log_probs_TV[-1]

    def _memories(self, sentence: int) -> list[Memory]:
        if sentence not in self.memories:
            index = torch.tensor([sentence], device=self.source.values.device)
            own = {name: padded.rows(index) for name, padded in self.context.items()}
            self.memories[sentence] = [model.encode(self.source.rows(index), own) for model in self.models]
        return self.memories[sentence]
