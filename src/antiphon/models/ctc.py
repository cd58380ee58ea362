"""Connectionist temporal classification: the target as it is heard state by state, beside what the decoder says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.core.batch import PAD, Memory, Padded
from antiphon.models.linear import Linear


class CTCHead(nn.Module):
    """Each state of the encoder says a token of the target, or nothing: a blank, whose id is that of padding.

    Tokens that stand beside themselves without a blank between are one (Graves et al. 2006). There are no end marks.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.output = Linear(width, size)

    def log_probs(self, memory: Memory) -> Tensor:
        """`[B, S, V]`, in fp32."""
        logits: Tensor = self.output(memory.states_BSD)
        return logits.float().log_softmax(2)

    def loss(self, memory: Memory, target: Padded) -> tuple[Tensor, int]:
        """The negative log likelihood of the targets in nats, summed, and how many of them have more tokens than their
        source has room for: these add nothing."""
        lengths_B = target.lengths_B - 1
        nats_B = F.ctc_loss(
            self.log_probs(memory).transpose(0, 1), target.values, memory.mask_BS.sum(1), lengths_B,
            blank=PAD, reduction="none", zero_infinity=True,
        )  # fmt: skip
        return nats_B.sum(), int(((nats_B == 0) & (lengths_B > 0)).sum())


def align(log_probs_SV: Tensor, tokens: Sequence[int]) -> list[int]:
    """The state at which each token begins on the likeliest way through the states that says just these tokens.

    Empty where there are fewer states than that takes.
    """
    ways = [PAD, *(each for token in tokens for each in (token, PAD))]  # a blank may stand before, between and after
    said = log_probs_SV[:, ways].double().cpu().numpy()
    skip = np.array([place > 2 and way != PAD and way != ways[place - 2] for place, way in enumerate(ways)])
    best = np.full(len(ways), -np.inf)
    best[:2] = said[0, :2]
    steps = np.zeros(said.shape, np.int64)
    for state in range(1, len(said)):
        from_before = np.stack([best, np.roll(best, 1), np.where(skip, np.roll(best, 2), -np.inf)])
        from_before[1, 0] = -np.inf
        steps[state] = from_before.argmax(0)
        best = from_before.max(0) + said[state]
    at = len(ways) - 1 if best[-1] >= best[len(ways) - 2] else len(ways) - 2
    if not np.isfinite(best[at]):
        return []
    begins = [0] * len(tokens)
    for state in range(len(said) - 1, -1, -1):
        if at % 2:
            begins[at // 2] = state
        at -= steps[state, at]
    return begins
