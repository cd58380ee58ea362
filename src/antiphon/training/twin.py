"""Training in bf16: a twin of the model finds the gradients, the weights themselves stay in fp32."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from antiphon.training.optimizers import Flat


class Twin:
    """A copy of a model in bf16, from the layer inputs to the gradients (Kalamkar et al. 2019).

    Whole in bf16 it needs no conversions between layers, and half the memory traffic; sums inside products, softmax,
    normalization and the loss are in fp32 all the same. The small steps of the optimizer go to the fp32 weights.
    """

    def __init__(self, model: nn.Module, flat: Flat) -> None:
        self.original = flat
        self.model = deepcopy(model).to(torch.bfloat16)
        self.flat = Flat(self.model)

    def learn(self) -> None:
        """Take over the weights of the original, rounded, and forget what an interrupted step left."""
        self.flat.weights.copy_(self.original.weights)
        self.flat.zero()

    def teach(self) -> None:
        """Add the gradient that was found to that of the original, and forget it."""
        self.original.gradient.add_(self.flat.gradient)
        self.flat.zero()
