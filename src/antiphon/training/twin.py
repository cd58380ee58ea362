"""Who finds the gradients in place of the model: a twin in bf16, or a copy whose layers are compiled."""

from __future__ import annotations

import warnings
from copy import deepcopy

import torch

from antiphon.core.errors import TrainingError
from antiphon.models.seq2seq import Seq2Seq
from antiphon.training.optimizers import Flat


class Twin:
    """A copy of a model in bf16, from the layer inputs to the gradients (Kalamkar et al. 2019).

    Whole in bf16 it needs no conversions between layers, and half the memory traffic; sums inside products, softmax,
    normalization and the loss are in fp32 all the same. The small steps of the optimizer go to the fp32 weights.
    """

    def __init__(self, model: Seq2Seq, flat: Flat) -> None:
        self.original = flat
        self.model: Seq2Seq = deepcopy(model).to(torch.bfloat16)
        self.flat = Flat(self.model)

    def learn(self) -> None:
        """Take over the weights of the original, rounded, and forget what an interrupted step left."""
        self.flat.weights.copy_(self.original.weights)
        self.flat.zero()

    def teach(self) -> None:
        """Add the gradient that was found to that of the original, and forget it."""
        self.original.gradient.add_(self.flat.gradient)
        self.flat.zero()


BACKEND = "inductor"
"""The compiler of `torch.compile`."""


def compiled(model: Seq2Seq) -> Seq2Seq:
    """The same weights in a model whose layers `torch.compile` makes faster; `model` stays as it is, for search.

    Layers that are alike share what is compiled, for batches of all sizes. Raises `TrainingError` where the compiler
    does not work.
    """
    try:
        torch.compile(torch.neg, backend=BACKEND)(torch.ones(8, device=next(model.parameters()).device))
    except Exception as error:  # of many kinds: no compiler, no headers, a processor that it does not know
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        do = "install a C++ compiler and Python's headers, or leave out training.compile"
        raise TrainingError("training.compile: PyTorch's compiler does not work here", got=said, do=do) from None
    # PyTorch warns of what its own compiler does.
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf", UserWarning)
    twin = deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    for stack in twin.encoder.layers, twin.decoder.layers, twin.graph.layers if twin.graph else ():
        for layer in stack:
            layer.compile(backend=BACKEND, dynamic=True)
    return twin
