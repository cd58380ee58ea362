"""Cross-entropy against the distributions of teachers, a chunk of rows at a time, and its plain version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from antiphon.core.batch import PAD, Memory, Steps
from antiphon.models.heads import VocabularyHead
from antiphon.models.linear import blocks, chunks, whole

ROWS = 512
"""Rows whose probabilities are held at once."""
NEVER = -1e4
"""The log probability of what a model cannot say: finite, so that none of it is nothing."""


class Projection(NamedTuple):
    """Hidden rows, and what makes logits of them: softmax(hidden @ weight.T + bias)."""

    hidden_ND: Tensor
    weight_VD: Tensor
    bias_V: Tensor

    def logits(self, part: slice, least: int, temperature: float, product: Tensor, out: Tensor) -> Tensor:
        """Of some rows, divided by the temperature, in `out`; rows of zeros fill up to `least`.

        `product` is a buffer of the weight's kind, and may be `out` itself.
        """
        rows = whole(self.hidden_ND[part], least)
        made = torch.mm(rows, self.weight_VD.T, out=product[: len(rows)]).add_(self.bias_V)
        logits = made if product is out else out[: len(rows)].copy_(made)
        return logits if temperature == 1 else logits.div_(temperature)


class _SoftCrossEntropy(torch.autograd.Function):
    """The gradient is made in the forward pass, while both distributions are in the cache.

    Chunks share three buffers: fresh ones cost more in page faults than the mathematics done in them.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, teachers: Sequence[Projection],
        temperature: float, rows: int,
    ) -> Tensor:  # fmt: skip
        student = Projection(hidden_ND, weight_VD, bias_V)
        exact, dtype = torch.promote_types(hidden_ND.dtype, torch.float32), hidden_ND.dtype
        sizes = chunks(hidden_ND, rows)
        shape, least = (sizes[0], len(weight_VD)), sizes[-1]
        first, second, third = (hidden_ND.new_empty(shape, dtype=exact) for _ in range(3))
        product = None if dtype == exact else hidden_ND.new_empty(shape)
        hidden_gradient, total = torch.empty_like(hidden_ND), hidden_ND.new_zeros((), dtype=exact)
        weight_gradient, bias_gradient = torch.zeros_like(weight_VD), torch.zeros_like(bias_V, dtype=exact)
        for part in blocks(len(hidden_ND), sizes):
            count = len(hidden_ND[part])
            wanted_NV = _mean_chances(teachers, part, least, temperature, product, (first, third))
            logits_NV = student.logits(part, least, temperature, second if product is None else product, second)
            logs_NV = torch.log_softmax(logits_NV, 1, out=logits_NV)
            total -= torch.dot(wanted_NV[:count].flatten(), logs_NV[:count].flatten())
            slope_NV = logs_NV.exp_().sub_(wanted_NV).div_(temperature)
            slope_NV[count:] = 0
            bias_gradient += slope_NV.sum(0)
            slope_NV = slope_NV if product is None else product[: len(slope_NV)].copy_(slope_NV)
            hidden_gradient[part] = (slope_NV @ weight_VD)[:count]
            weight_gradient.addmm_(slope_NV.T, whole(hidden_ND[part], least))
        ctx.save_for_backward(hidden_gradient, weight_gradient, bias_gradient)
        ctx.dtype = dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *((part * gradient).to(ctx.dtype) for part in ctx.saved_tensors), None, None, None


def _mean_chances(
    teachers: Sequence[Projection], part: slice, least: int, temperature: float, product: Tensor | None,
    buffers: tuple[Tensor, Tensor],
) -> Tensor:  # fmt: skip
    """The mean of the teachers' probabilities for some rows, each at this temperature, in the first buffer."""
    total = buffers[0]
    for number, teacher in enumerate(teachers):
        out = buffers[min(number, 1)]
        logits = teacher.logits(part, least, temperature, out if product is None else product, out)
        chances = torch.softmax(logits, 1, out=logits)
        total = total.add_(chances) if number else chances
    return total if len(teachers) == 1 else total.div_(len(teachers))


def soft_cross_entropy(
    student: Projection, teachers: Sequence[Projection], *, temperature: float = 1.0, rows: int = ROWS
) -> Tensor:
    """Sum over rows of the cross-entropy of the student's softmax against the mean of the teachers' (Hinton et al.).

    All logits are divided by the temperature. Never holds more than about `rows` x V probabilities of each. No gradient
    flows to the teachers. Rows must be real tokens; padding is left out beforehand.
    """
    return _SoftCrossEntropy.apply(*student, teachers, temperature, rows)


def soft_cross_entropy_plainly(
    student: Projection, teachers: Sequence[Projection], *, temperature: float = 1.0
) -> Tensor:
    """The plain version of `soft_cross_entropy`."""
    chances = [(F.linear(*teacher) / temperature).softmax(1) for teacher in teachers]
    wanted_NV = torch.stack(chances).mean(0).detach()
    return -(wanted_NV * (F.linear(*student) / temperature).log_softmax(1)).sum()


class Said(NamedTuple):
    """What a model says of all steps, whatever its head."""

    head: VocabularyHead
    steps: Steps
    memory: Memory

    def log_probs(self, part: slice) -> Tensor:
        """Of some steps, `[B, t, V]`, with the source's own words behind if the head copies."""
        steps = Steps(self.steps.hidden_BTD[:, part], self.steps.weights_BTS[:, part])
        return self.head.log_probs(steps, self.memory)


def mixed_cross_entropy(
    student: Said, teachers: Sequence[Said], labels_BT: Tensor, *, temperature: float = 1.0, rows: int = ROWS
) -> Tensor:
    """The same for a student that copies: its whole distribution, over the vocabulary and the words of the source.

    A teacher may copy or not; all number their tokens alike. A distribution at a temperature is its power
    1/temperature, divided by its sum, which is what dividing logits gives. A few steps are held at once, and made again
    for their gradient.
    """
    size, length = labels_BT.shape
    count = max(1, rows // size)

    def piece(hidden_BTD: Tensor, weights_BTS: Tensor, part: slice) -> Tensor:
        with torch.no_grad():
            wanted_BTV = torch.stack(
                _together([_tempered(each.log_probs(part), each, temperature) for each in teachers])
            )
            wanted_BTV = wanted_BTV.exp().mean(0)
        said = student.head.log_probs(Steps(hidden_BTD, weights_BTS), student.memory)
        logs_BTV, wanted_BTV = _together([_tempered(said, student, temperature), wanted_BTV], 0.0)
        return -(wanted_BTV * logs_BTV).sum(2)[labels_BT[:, part] != PAD].sum()

    total = labels_BT.new_zeros((), dtype=torch.float32)
    for begin in range(0, length, count):
        part = slice(begin, begin + count)
        hidden_BTD, weights_BTS = student.steps.hidden_BTD[:, part], student.steps.weights_BTS[:, part]
        total = total + checkpoint(piece, hidden_BTD, weights_BTS, part, use_reentrant=False)
    return total


def _tempered(log_probs_BTV: Tensor, said: Said, temperature: float) -> Tensor:
    """At a temperature the words that other sources of a batch have would be likely too, tiny as their chances are."""
    if temperature == 1:
        return log_probs_BTV
    size, copy_BS = len(said.head.weight), said.memory.copy_BS
    absent_BV = torch.arange(log_probs_BTV.shape[2], device=log_probs_BTV.device).repeat(len(log_probs_BTV), 1) >= size
    if copy_BS is not None and absent_BV.shape[1] > size:
        absent_BV.scatter_(1, copy_BS, False)
    tempered = (log_probs_BTV / temperature).masked_fill(absent_BV[:, None], -torch.inf).log_softmax(2)
    return tempered.masked_fill(absent_BV[:, None], NEVER)


def _together(parts: Sequence[Tensor], empty: float = -torch.inf) -> list[Tensor]:
    """All as wide as the widest."""
    width = max(part.shape[2] for part in parts)
    return [F.pad(part, (0, width - part.shape[2]), value=empty) for part in parts]
