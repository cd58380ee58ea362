"""The mathematics that decides the speed, each piece beside nothing but its definition; parity is in the tests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.core.batch import PAD


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout whose mask costs one random byte an element, 4x cheaper on a CPU than `F.dropout`.

    The share is rounded to 1/256, and the rest is scaled by exactly what is kept.
    """
    threshold = min(255, round(share * 256))
    if not training or threshold == 0:
        return x
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= threshold
    return x * keep.to(x.dtype).mul_(256 / (256 - threshold))


class _Reverse(torch.autograd.Function):
    """Row permutation that is its own inverse, so its gradient is the same gather and never a scatter."""

    @staticmethod
    def forward(ctx: Any, x_BSD: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return x_BSD.reshape(-1, x_BSD.shape[2]).index_select(0, index).view(x_BSD.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return gradient.reshape(-1, gradient.shape[2]).index_select(0, index).view(gradient.shape), None


def reverse(x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
    """Each sequence back to front within its own length; padding stays where it is."""
    rows, length = mask_BS.shape
    position = torch.arange(length, device=x_BSD.device)
    last = mask_BS.sum(1, keepdim=True) - 1
    index = torch.where(mask_BS, last - position, position) + length * torch.arange(rows, device=x_BSD.device)[:, None]
    return _Reverse.apply(x_BSD, index.flatten())


def scan(forget_BTD: Tensor, input_BTD: Tensor, start_BD: Tensor) -> Tensor:
    """All states of c_t = forget_t * c_{t-1} + input_t, in log2(T) parallel steps (Hillis and Steele 1986)."""
    first = input_BTD[:, :1] + forget_BTD[:, :1] * start_BD[:, None]
    state = torch.cat([first, input_BTD[:, 1:]], dim=1)
    decay, reach = forget_BTD, 1
    while reach < state.shape[1]:
        tail = state[:, reach:] + decay[:, reach:] * state[:, :-reach]
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], dim=1)
        state, reach = torch.cat([state[:, :reach], tail], dim=1), reach * 2
    return state


class _LinearCrossEntropy(torch.autograd.Function):
    """Projection, softmax and cross-entropy by chunks of rows, the gradient made while the logits are in cache."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, labels_N: Tensor, smoothing: float, rows: int
    ) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        gradients = tuple(torch.zeros_like(t) for t in (hidden_ND, weight_VD, bias_V)) if wanted else ()
        total = hidden_ND.new_zeros((), dtype=torch.promote_types(hidden_ND.dtype, torch.float32))
        for start in range(0, len(labels_N), rows):
            part = slice(start, start + rows)
            hidden, labels = hidden_ND[part], labels_N[part, None]
            logits = F.linear(hidden, weight_VD, bias_V).to(total.dtype)
            normalizer = logits.logsumexp(1, keepdim=True)
            picked = logits.gather(1, labels)
            total += (normalizer - (1 - smoothing) * picked).sum()
            if smoothing:
                total -= smoothing * logits.mean(1).sum()
            if wanted:
                error = logits.sub_(normalizer).exp_()
                error -= smoothing / len(weight_VD)
                error.scatter_add_(1, labels, torch.full_like(picked, smoothing - 1))
                error = error.to(hidden.dtype)
                gradients[0][part] = error @ weight_VD.to(hidden.dtype)
                gradients[1].add_(error.T @ hidden)
                gradients[2].add_(error.sum(0))
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(part * gradient for part in ctx.saved_tensors), None, None, None


def linear_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, labels_N: Tensor, *, smoothing: float = 0.0, rows: int = 512
) -> Tensor:
    """Sum over rows of the cross-entropy of softmax(hidden @ weight.T + bias), label smoothing uniform over V.

    Never holds more than `rows` x V logits. Rows must be real tokens; padding is left out beforehand.
    """
    return _LinearCrossEntropy.apply(hidden_ND, weight_VD, bias_V, labels_N, smoothing, rows)


def real_rows(labels_BT: Tensor) -> Tensor:
    """Flat indices of the labels that are not padding."""
    return (labels_BT.flatten() != PAD).nonzero().squeeze(1)


def activation(kind: str) -> Callable[[Tensor], Tensor]:
    """The named pointwise function; `swiglu` gates inside `FeedForward`, so here it is SiLU."""
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": F.relu,
        "leaky_relu": F.leaky_relu,
        "gelu": F.gelu,
        "tanh": torch.tanh,
        "swiglu": F.silu,
    }
    return kinds[kind]


def pick_matmul() -> str:
    """Choose the faster fp32 matrix product that is still exact to fp32, set it, and say which.

    PyTorch multiplies by MKL under "highest" and by oneDNN under "medium". oneDNN is over twice as fast where MKL
    declines AVX-512, but where the processor has AMX it may round to bf16; that is seen here and refused.
    """
    noise = torch.Generator().manual_seed(1)
    a, b = (torch.randn(512, 512, generator=noise) for _ in range(2))
    exact = a.double() @ b.double().T
    times = {}
    for mode in ("highest", "medium"):
        torch.set_float32_matmul_precision(mode)
        # bf16 is off by 0.1 here, fp32 by 0.0001.
        if (a @ b.T - exact).abs().max() < 1e-3:
            times[mode] = min(_seconds(lambda: a @ b.T) for _ in range(20))
    # Only where it clearly pays, so that two runs on one machine choose alike.
    best = "medium" if 1.2 * times.get("medium", math.inf) < times.get("highest", math.inf) else "highest"
    torch.set_float32_matmul_precision(best)
    return {"highest": "default", "medium": "oneDNN"}[best]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
