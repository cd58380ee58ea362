"""Cross-entropy against the distributions of teachers, a chunk of rows at a time, and its plain version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from antiphon.models.linear import blocks, chunks, whole

ROWS = 512
"""Rows whose probabilities are held at once."""


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
