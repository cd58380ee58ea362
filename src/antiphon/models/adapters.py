"""Low-rank additions to the matrices of a trained network: W + scale * up @ down (LoRA, Hu et al. 2022).

They are added to the weights before the network runs, so every family of it, each fused kernel and tied embeddings work
as they are, and an answer costs what it cost without. A convolution's kernel is a matrix of its output channels, the
gates of a recurrent layer are one matrix, and a bias or a norm is a matrix of one column: it learns as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Factors(NamedTuple):
    """What makes the addition to one matrix `[E, D]`: `up` `[E, R]` and `down` `[R, D]`."""

    up: Tensor
    down: Tensor


def adaptable(model: nn.Module, *, embeddings: bool) -> Iterator[str]:
    """The trainable weights that an adapter adds to; `embeddings` with those of either side, and the output matrix."""
    for name, weight in model.named_parameters():
        outside = name.startswith(("source.", "target.")) or name == "head.weight"
        if weight.requires_grad and (embeddings or not outside):
            yield name


def freeze(model: nn.Module, *, embeddings: bool) -> None:
    """Freeze all that an adapter leaves alone."""
    changed = set(adaptable(model, embeddings=embeddings))
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in changed)


def shapes(weight: Tensor, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of `up` and `down`; the rank is at most that of the matrix."""
    rows, columns = weight.shape[0], math.prod(weight.shape[1:])
    rank = min(rank, rows, columns)
    return (rows, rank), (rank, columns)


def fresh(weights: Mapping[str, Tensor], rank: int, seed: int) -> dict[str, Factors]:
    """Factors to begin with: `down` is uniform within 1/sqrt(D), or 1 for a vector, `up` zero, so that nothing is added
    yet."""
    draw, found = torch.Generator().manual_seed(seed), {}
    for name, weight in weights.items():
        above, below = shapes(weight, rank)
        down = torch.ones(below)
        if weight.ndim > 1:
            down.uniform_(-1, 1, generator=draw).mul_(below[1] ** -0.5)
        found[name] = Factors(torch.zeros(above, device=weight.device), down.to(weight.device))
    return found


@torch.no_grad()
def added(weight: Tensor, factors: Factors, scale: float) -> Tensor:
    """The matrix with its addition. In fp64, for fp32 products depend on the route that training has chosen."""
    addition = (factors.up.double() @ factors.down.double()).mul_(scale)
    return weight + addition.view(weight.shape).to(weight.dtype)


@torch.no_grad()
def slopes(slope: Tensor, factors: Factors, scale: float) -> Factors:
    """The gradient of both factors from that of the sum."""
    slope_ED = slope.view(len(slope), -1)
    return Factors((slope_ED @ factors.down.T).mul_(scale), (factors.up.T @ slope_ED).mul_(scale))
