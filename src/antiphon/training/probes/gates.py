"""The gates inside a fused recurrent kernel, which hands on its states alone: made again from these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKENS = 256
"""About as many tokens are looked at as this."""


def looked_at(rows: int, length: int) -> int:
    """How many of so many sentences."""
    return min(rows, max(1, TOKENS // max(1, length)))


def gates(kernel: nn.RNNBase, inputs: Sequence[Any], states_BTH: Tensor) -> dict[str, tuple[str, Tensor]]:
    """By name what each gate is (gate, tanh or relu) and its values, for the first sentences of a batch.

    Every state is known, so all steps are made at once: by two products, not one a step. Names are those of the papers:
    input, forget, cell and output of an LSTM, reset, update and new of a GRU, and none for a plain RNN.
    """
    if isinstance(kernel, nn.RNN):
        return {"": ("relu" if kernel.nonlinearity == "relu" else "tanh", states_BTH)}
    many = 4 if isinstance(kernel, nn.LSTM) else 3
    x_BTD, past = inputs[0], inputs[1] if len(inputs) > 1 else None
    rows = looked_at(*states_BTH.shape[:2])
    past = past[0] if isinstance(past, tuple) else past
    first = torch.zeros_like(states_BTH[:rows, :1]) if past is None else past[0, :rows, None]
    before = torch.cat([first, states_BTH[:rows, :-1]], dim=1)
    into, over = (
        F.linear(read, *(getattr(kernel, f"{name}_{kind}_l0") for name in ("weight", "bias"))).float().chunk(many, 2)
        for kind, read in (("ih", x_BTD[:rows]), ("hh", before))
    )
    if isinstance(kernel, nn.LSTM):
        names = ("input", "forget", "cell", "output")
        return {name: _squashed(name == "cell", a + b) for name, a, b in zip(names, into, over, strict=True)}
    reset = torch.sigmoid(into[0] + over[0])
    return {"reset": ("gate", reset), "update": _squashed(False, into[1] + over[1]),
            "new": _squashed(True, into[2] + reset * over[2])}  # fmt: skip


def _squashed(both_ways: bool, x: Tensor) -> tuple[str, Tensor]:
    return ("tanh", torch.tanh(x)) if both_ways else ("gate", torch.sigmoid(x))
