"""Connectionist temporal classification: the target as it is heard state by state, beside what the decoder says."""

from __future__ import annotations

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
        lengths_B, states_B = target.lengths_B - 1, memory.mask_BS.sum(1)
        nats_B = F.ctc_loss(
            self.log_probs(memory).transpose(0, 1), target.values, states_B, lengths_B,
            blank=PAD, reduction="none", zero_infinity=True,
        )  # fmt: skip
        again_BT = (target.values[:, 1:] == target.values[:, :-1]) & target.mask_BL[:, 1:]
        return nats_B.sum(), int((lengths_B + again_BT.sum(1) > states_B).sum())
