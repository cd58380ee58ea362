"""Additive attention's scores without the tensor of all pairs, and the tanh that they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHE = 1 << 18
"""Numbers that stay in a core's cache: a megabyte in fp32."""


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = tanh_(x.to(torch.float32, copy=True)).to(x.dtype)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        through: Tensor = torch.ops.aten.tanh_backward(slope, y)
        return through


def tanh_(x: Tensor) -> Tensor:
    """tanh in place as 2 sigmoid(2 x) - 1, right to 2e-7: in cache a quarter of the time of `torch.tanh` on a CPU."""
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, the cheaper way where there is one."""
    if x.device.type != "cpu" or x.dtype == torch.float64 or torch.compiler.is_compiling():
        return torch.tanh(x)
    y: Tensor = _Tanh.apply(x)
    return y


class _AdditiveScores(torch.autograd.Function):
    """A few sentences, or a few queries of one, at a time; the gradient makes the tensor of all pairs again rather than
    keep it."""

    @staticmethod
    def forward(ctx: Any, query_BQD: Tensor, keys_BSD: Tensor, vector_D: Tensor) -> Tensor:
        ctx.save_for_backward(query_BQD, keys_BSD, vector_D)
        scores_BQS = query_BQD.new_empty(*query_BQD.shape[:2], keys_BSD.shape[1])
        for part, some in _parts(query_BQD, keys_BSD):
            torch.matmul(_inner(query_BQD[part, some], keys_BSD[part]), vector_D, out=scores_BQS[part, some])
        return scores_BQS

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_BQS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query_BQD, keys_BSD, vector_D = ctx.saved_tensors
        to_query, to_keys, to_vector = (torch.empty_like(tensor) for tensor in ctx.saved_tensors)
        to_vector.zero_()
        for part, some in _parts(query_BQD, keys_BSD):
            inner_BQSD, slope = _inner(query_BQD[part, some], keys_BSD[part]), slope_BQS[part, some]
            to_vector += slope.flatten() @ inner_BQSD.flatten(0, 2)
            through = torch.ops.aten.tanh_backward(slope[..., None] * vector_D, inner_BQSD)
            torch.sum(through, 2, out=to_query[part, some])
            if some.start:
                to_keys[part] += through.sum(1)
            else:
                torch.sum(through, 1, out=to_keys[part])
        return to_query, to_keys, to_vector


def _inner(query_BQD: Tensor, keys_BSD: Tensor) -> Tensor:
    return tanh_(query_BQD[:, :, None] + keys_BSD[:, None])


def _parts(query_BQD: Tensor, keys_BSD: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of sentences, and of their queries, whose pairs fit in the cache."""
    (sentences, queries, width), sources = query_BQD.shape, keys_BSD.shape[1]
    several = max(1, CACHE // (queries * sources * width))
    some = max(1, CACHE // (sources * width)) if several == 1 else queries
    for first, start in product(range(0, sentences, several), range(0, queries, some)):
        yield slice(first, first + several), slice(start, start + some)


def additive_scores(query_BQD: Tensor, keys_BSD: Tensor, vector_D: Tensor) -> Tensor:
    """vector . tanh(query + key) for every query and key of a sentence, `[B, Q, S]` (Bahdanau et al. 2015)."""
    if query_BQD.device.type != "cpu" or torch.compiler.is_compiling():
        return additive_scores_plainly(query_BQD, keys_BSD, vector_D)
    wide = torch.promote_types(vector_D.dtype, torch.float32)
    scores_BQS: Tensor = _AdditiveScores.apply(query_BQD.to(wide), keys_BSD.to(wide), vector_D.to(wide))
    return scores_BQS.to(query_BQD.dtype)


class _SeeingScores(torch.autograd.Function):
    """One tensor of all pairs at a time, made again for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, query_ND: Tensor, seen_NSF: Tensor, keys_BSD: Tensor, weight_FD: Tensor, vector_D: Tensor
    ) -> Tensor:
        ctx.save_for_backward(query_ND, seen_NSF, keys_BSD, weight_FD, vector_D)
        scores_NS = query_ND.new_empty(seen_NSF.shape[:2])
        for rows, keys in _hypotheses(query_ND, keys_BSD):
            inner_NSD = _seen(query_ND[rows], seen_NSF[rows], keys_BSD[keys], weight_FD)
            torch.matmul(inner_NSD, vector_D, out=scores_NS[rows])
        return scores_NS.view(keys_BSD.shape[0], -1, seen_NSF.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, ...]:
        query_ND, seen_NSF, keys_BSD, weight_FD, vector_D = ctx.saved_tensors
        inner_NSD, slope_NS = _seen(query_ND, seen_NSF, keys_BSD, weight_FD), slope.reshape(seen_NSF.shape[:2])
        to_vector = slope_NS.flatten() @ inner_NSD.flatten(0, 1)
        through_NSD = torch.ops.aten.tanh_backward(slope_NS[..., None] * vector_D, inner_NSD)
        to_keys = through_NSD.unflatten(0, (keys_BSD.shape[0], -1)).sum(1)
        to_weight = seen_NSF.flatten(0, 1).T @ through_NSD.flatten(0, 1)
        return through_NSD.sum(1), through_NSD @ weight_FD.T, to_keys, to_weight, to_vector


def _seen(query_ND: Tensor, seen_NSF: Tensor, keys_BSD: Tensor, weight_FD: Tensor) -> Tensor:
    """tanh(query + key + seen @ weight), `[N, S, D]`, in one buffer."""
    inner_NSD = seen_NSF * weight_FD if len(weight_FD) == 1 else seen_NSF @ weight_FD
    inner_NSD.unflatten(0, (keys_BSD.shape[0], -1)).add_(keys_BSD[:, None])
    return tanh_(inner_NSD.add_(query_ND[:, None]))


def _hypotheses(query_ND: Tensor, keys_BSD: Tensor) -> Iterator[tuple[slice, slice]]:
    """Hypotheses and their sentences: all of them, or each by itself where a sentence is longer than the cache."""
    rows, (sentences, length, width) = len(query_ND), keys_BSD.shape
    if length * width <= CACHE:
        yield slice(0, rows), slice(0, sentences)
        return
    for row in range(rows):
        sentence = row * sentences // rows
        yield slice(row, row + 1), slice(sentence, sentence + 1)


def seeing_scores(query_ND: Tensor, seen_NSF: Tensor, keys_BSD: Tensor, weight_FD: Tensor, vector_D: Tensor) -> Tensor:
    """vector . tanh(query + key + seen @ weight) for one query of each of N / B hypotheses, `[B, N / B, S]`: additive
    scores that see F features of where each has looked (Chorowski et al. 2015; See et al. 2017)."""
    parts = query_ND, seen_NSF, keys_BSD, weight_FD, vector_D
    if query_ND.device.type != "cpu" or torch.compiler.is_compiling():
        return seeing_scores_plainly(*parts)
    wide = torch.promote_types(vector_D.dtype, torch.float32)
    scores: Tensor = _SeeingScores.apply(*(part.to(wide) for part in parts))
    return scores.to(query_ND.dtype)


def seeing_scores_plainly(
    query_ND: Tensor, seen_NSF: Tensor, keys_BSD: Tensor, weight_FD: Tensor, vector_D: Tensor
) -> Tensor:
    """The same in so many words."""
    inner_NSD = query_ND[:, None] + seen_NSF @ weight_FD
    return torch.tanh(inner_NSD.unflatten(0, (keys_BSD.shape[0], -1)) + keys_BSD[:, None]) @ vector_D


def additive_scores_plainly(query_BQD: Tensor, keys_BSD: Tensor, vector_D: Tensor) -> Tensor:
    """The same in so many words."""
    return torch.tanh(query_BQD[:, :, None] + keys_BSD[:, None]) @ vector_D
