"""What keeps weights modest: L1 and L2 penalties, a pull to where they started, and averages of them over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from antiphon.core.config import Training
from antiphon.training.optimizers import Flat


def penalize(flat: Flat, settings: Training) -> None:
    """Add the gradients of `l1 * sum|w|` and `l2 * sum w^2 / 2` over all matrices."""
    weights, gradient = flat.matrices.data, flat.matrices.grad
    assert gradient is not None
    if settings.l1:
        gradient.add_(weights.sign(), alpha=settings.l1)
    if settings.l2:
        gradient.add_(weights, alpha=settings.l2)


def pull(model: nn.Module, start: Mapping[str, Tensor], weight: float) -> None:
    """Add the gradient of `weight * sum (w - start)^2 / 2` over all weights that training started from.

    L2-SP (Li et al. 2018), in translation Miceli Barone et al. 2017. `start` has the tensors by name; rows that were
    added to a vocabulary have none there, and are free.
    """
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            old = start[name]
            rows = slice(len(old)) if old.ndim else ...
            parameter.grad[rows].add_(parameter.data[rows] - old, alpha=weight)


class Average:
    """An exponential moving average of the weights (Polyak & Juditsky 1992).

    Early on the decay is `(1 + n) / (10 + n)` after n updates, so that the random start is soon forgotten.
    """

    def __init__(self, flat: Flat, decay: float) -> None:
        self.flat, self.decay, self.updates = flat, decay, 0
        self.weights = flat.weights.clone()

    def update(self) -> None:
        """Take the present weights in."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.weights.lerp_(self.flat.weights, 1 - decay)


@contextmanager
def lent(flat: Flat, weights: Tensor | None) -> Iterator[None]:
    """Let the model use other weights for a while (None: its own); its own come back even after an error."""
    if weights is None:
        yield
        return
    own = flat.weights.clone()
    flat.weights.copy_(weights)
    try:
        yield
    finally:
        flat.weights.copy_(own)


class Last:
    """The last `size` validated weights, oldest first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[Tensor] = []

    def add(self, weights: Tensor) -> None:
        """Keep these, drop the oldest."""
        self.kept = [*self.kept, weights.clone()][-self.size :]

    def mean(self) -> Tensor:
        """Their average."""
        return torch.stack(self.kept).mean(0)
