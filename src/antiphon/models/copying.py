"""The loss of a pointer-generator by chunks of rows, in the memory and nearly the time of the plain one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from antiphon.models.functional import label_logs
from antiphon.models.linear import blocks, chunks, whole

TINY = 1e-20
"""The least probability of a label, so that its logarithm stays finite."""


class _MixtureCrossEntropy(torch.autograd.Function):
    """As `functional.linear_cross_entropy`, with a label's probability from two sources.

    With g the gate, p the vocabulary's chance of the label, c what is copied of it and m = g p + (1 - g) c, the
    gradient of -log m in the logits is (chances - one at the label) g p / m: chances scaled row by row, while they are
    in cache.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, gate_N: Tensor, copied_N: Tensor,
        labels_N: Tensor, smoothing: float, rows: int,
    ) -> Tensor:  # fmt: skip
        count, size = len(labels_N), len(weight_VD)
        exact, share = torch.promote_types(hidden_ND.dtype, torch.float32), smoothing / size
        sizes = chunks(hidden_ND, rows)
        buffer = hidden_ND.new_empty(sizes[0], size)
        to_hidden, to_gate, to_copied = (torch.empty_like(each) for each in (hidden_ND, gate_N, copied_N))
        to_weight, to_bias = torch.zeros_like(weight_VD), torch.zeros_like(bias_V, dtype=exact)
        known_N = labels_N < size
        places_N, total = labels_N.masked_fill(~known_N, 0), hidden_ND.new_zeros((), dtype=exact)
        for part in blocks(count, sizes):
            hidden, gate, copied = whole(hidden_ND[part], sizes[-1]), gate_N[part], copied_N[part]
            each = torch.arange(len(gate), device=gate.device), places_N[part]
            logits = torch.mm(hidden, weight_VD.T, out=buffer[: len(hidden)]).add_(bias_V)
            first = logits[each].to(exact)
            chances = torch._softmax(logits, 1, False, out=logits)
            chance = chances[each].to(exact)
            total += smoothing * (first - label_logs(chance, first, hidden, weight_VD, bias_V)).sum()
            said = chance * known_N[part]
            mixed = gate * said + (1 - gate) * copied
            total -= (1 - smoothing) * mixed.clamp_min(TINY).log().sum()
            slope = torch.where(mixed > TINY, (smoothing - 1) / mixed.clamp_min(TINY), 0.0)
            to_gate[part], to_copied[part] = slope * (said - copied), slope * (1 - gate)
            moved = -slope * gate * said
            chances[: len(gate)] *= (moved + smoothing).to(chances.dtype)[:, None]
            chances[len(gate) :] = 0
            chances.index_put_(each, -moved.to(chances.dtype), accumulate=True)
            to_hidden[part] = (chances @ weight_VD)[: len(gate)]
            to_weight.addmm_(chances.T, hidden)
            to_bias += chances.sum(0)
        if smoothing:
            # What is uniform over the vocabulary needs no pass over the logits: it is a product of sums.
            hidden_D, weight_D = hidden_ND.sum(0, dtype=exact), weight_VD.sum(0, dtype=exact)
            total -= share * (hidden_D @ weight_D + count * bias_V.sum(dtype=exact))
            to_hidden -= (share * weight_D).to(to_hidden.dtype)
            to_weight -= (share * hidden_D).to(to_weight.dtype)
            to_bias -= share * count
        ctx.save_for_backward(to_hidden, to_weight, to_bias, to_gate, to_copied)
        ctx.dtypes = hidden_ND.dtype, weight_VD.dtype, bias_V.dtype, gate_N.dtype, copied_N.dtype
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parts = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *((part * gradient).to(dtype) for part, dtype in parts), None, None, None


def mixture_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, gate_N: Tensor, copied_N: Tensor, labels_N: Tensor, *,
    smoothing: float = 0.0, rows: int = 512,
) -> Tensor:  # fmt: skip
    """Sum over rows of -log(gate * softmax(hidden @ weight.T + bias)[label] + (1 - gate) * copied), in nats.

    A label of V or more can only be copied. Label smoothing is uniform over the vocabulary's own chances (See et al.
    2017 for the mixture, Szegedy et al. 2016 for the smoothing). `gate` and `copied` are in fp32 at least. Never holds
    more than `rows` x V logits.
    """
    return _MixtureCrossEntropy.apply(hidden_ND, weight_VD, bias_V, gate_N, copied_N, labels_N, smoothing, rows)


def mixture_cross_entropy_plainly(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, gate_N: Tensor, copied_N: Tensor, labels_N: Tensor, *,
    smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """The same in so many words."""
    logs_NV = (hidden_ND @ weight_VD.T + bias_V).to(gate_N.dtype).log_softmax(1)
    known = labels_N < len(weight_VD)
    said = logs_NV.gather(1, labels_N.masked_fill(~known, 0)[:, None]).squeeze(1).exp() * known
    right = (gate_N * said + (1 - gate_N) * copied_N).clamp_min(TINY).log()
    return -(1 - smoothing) * right.sum() - smoothing * logs_NV.mean(1).sum()
