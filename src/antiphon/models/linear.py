"""Linear layers whose products have few sizes, however many rows a batch has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BLOCKS = (1024, 512, 256, 128, 64)
"""Rows of the products that `linear` is made of."""


class _Linear(torch.autograd.Function):
    """The product and its gradients by blocks of rows."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_ED: Tensor, bias_E: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_ND, weight_ED)
        return _by_blocks(x_ND, weight_ED.T, bias_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NE: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_ND, weight_ED = ctx.saved_tensors
        gradient_NE = gradient_NE.contiguous()
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            _by_blocks(gradient_NE, weight_ED, None) if to_x else None,
            _sum_by_blocks(gradient_NE, x_ND) if to_weight else None,
            gradient_NE.sum(0) if to_bias else None,
        )


def linear(x: Tensor, weight_ED: Tensor, bias_E: Tensor | None) -> Tensor:
    """`F.linear` for many rows, `[..., D]` to `[..., E]`, by oneDNN where that is faster.

    oneDNN compiles a product of every new size, which takes as long as to multiply a thousand rows, and batches differ
    in size. With gradients the product is therefore made of blocks of a few sizes. Without them there is a call that is
    quick to plan, adds the bias on the way, and is exact to fp32 whatever `torch.set_float32_matmul_precision` says.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.linear(x, weight_ED, bias_E)
    y: Tensor
    if torch.is_grad_enabled():
        if x.dtype != torch.bfloat16 and torch.get_float32_matmul_precision() == "highest":
            return F.linear(x, weight_ED, bias_E)  # by MKL, to which all sizes are alike
        y = _Linear.apply(x.reshape(-1, x.shape[-1]), weight_ED, bias_E)
        return y.view(*x.shape[:-1], len(weight_ED))
    # What is small is faster by MKL.
    if not _ONEDNN or not x.dtype == weight_ED.dtype == torch.float32 or x.numel() * len(weight_ED) < 1 << 19:
        return F.linear(x, weight_ED, bias_E)
    y = torch.ops.mkldnn._linear_pointwise(x, weight_ED, bias_E, "none", [], "")
    return y


_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def blocks(count: int, sizes: Sequence[int] = BLOCKS) -> Iterator[slice]:
    """Rows in blocks as large as fit; the last one may be smaller than all."""
    start = 0
    for size in sizes:
        while count - start >= size:
            yield slice(start, start + size)
            start += size
    if start < count:
        yield slice(start, count)


def chunks(hidden_ND: Tensor, rows: int) -> list[int]:
    """Rows that are projected onto the vocabulary at once: at most `rows`, of few sizes; on a GPU 32 times as many, and
    in equal parts."""
    if hidden_ND.device.type == "cpu":
        return [block for block in BLOCKS if block <= rows] or [rows]
    parts = max(1, -(-len(hidden_ND) // (32 * rows)))
    return [max(1, -(-len(hidden_ND) // parts))]


def whole(rows_ND: Tensor, size: int = BLOCKS[-1]) -> Tensor:
    """The rows, and zeros below where they are fewer than `size`."""
    missing = size - len(rows_ND)
    return F.pad(rows_ND, (0, 0, 0, missing)) if missing > 0 else rows_ND


def _by_blocks(left_ND: Tensor, right_DE: Tensor, bias_E: Tensor | None) -> Tensor:
    """left @ right + bias."""
    result = left_ND.new_empty(len(left_ND), right_DE.shape[1])
    for part in blocks(len(left_ND)):
        rows, place = left_ND[part], result[part]
        if len(rows) < BLOCKS[-1]:
            place.copy_((whole(rows) @ right_DE)[: len(rows)])
            if bias_E is not None:
                place += bias_E
        elif bias_E is None:
            torch.mm(rows, right_DE, out=place)
        else:
            torch.addmm(bias_E, rows, right_DE, out=place)
    return result


def _sum_by_blocks(left_NE: Tensor, right_ND: Tensor) -> Tensor:
    """left.T @ right."""
    result = left_NE.new_zeros(left_NE.shape[1], right_ND.shape[1])
    for part in blocks(len(left_NE)):
        result.addmm_(whole(left_NE[part]).T, whole(right_ND[part]))
    return result


class Linear(nn.Linear):
    """`nn.Linear` by way of `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """`[..., D]` to `[..., E]`."""
        return linear(input, self.weight, self.bias)
