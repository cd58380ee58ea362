"""How large the weights of each layer are, their gradients, and what the last step changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from antiphon.models.seq2seq import Seq2Seq
from antiphon.training.optimizers import Flat

ORDER = ("source", "graph", "encoder", "target", "decoder", "head", "ctc")
"""The parts of a model in the order that a batch goes through them."""


def layer_of(name: str) -> str:
    """The layer that a parameter belongs to: `encoder.layers.0`, `source.embedding`, `decoder.last`, `head`."""
    path = name.split(".")[:-1]
    if "layers" in path:
        return ".".join(path[: path.index("layers") + 2])
    return ".".join(path[:2])


@torch.no_grad()
def norms(model: Seq2Seq, flat: Flat, change: Tensor | None, scale: float | None) -> list[dict[str, Any]]:
    """L2 norms by layer, in forward order: of `weight`, of `gradient` and of `update`.

    The gradient is what lies in the flat buffer, times `scale` (None: there is no gradient to speak of); the update
    that of the flat buffer `change`, where there is one. What is frozen has weights alone.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.numel()]
    slots = {id(weight): number for number, weight in enumerate(flat.parameters)}
    table: dict[str, Sequence[Tensor]] = {"weight": torch._foreach_norm([weight.data for _, weight in named])}
    trained = [(number, slots[id(weight)]) for number, (_, weight) in enumerate(named) if id(weight) in slots]
    for kind, buffer, by in (("gradient", flat.gradient, scale), ("update", change, 1.0)):
        if buffer is not None and by is not None:
            places = list(flat.places(buffer))
            sizes = torch._foreach_norm([places[place] for _, place in trained])
            found = {number: size * by for (number, _), size in zip(trained, sizes, strict=True)}
            table[kind] = [found.get(number, table["weight"][0].new_tensor(0.0)) for number in range(len(named))]
    squares = {kind: torch.stack(list(sizes)).double().square().tolist() for kind, sizes in table.items()}
    return _by_layer([(name, weight.numel()) for name, weight in named], squares)


def _by_layer(sizes: list[tuple[str, int]], squares: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Sums over the parameters of each layer."""
    rows: dict[str, dict[str, Any]] = {}
    for number, (name, size) in enumerate(sizes):
        row = rows.setdefault(layer_of(name), {"parameters": 0, "weight": 0.0, "gradient": None, "update": None})
        row["parameters"] += size
        for kind, column in squares.items():
            row[kind] = (row[kind] or 0.0) + column[number]
    ordered = sorted(rows, key=lambda name: ORDER.index(name.split(".")[0]))
    return [{"name": name, "parameters": rows[name]["parameters"],
             **{kind: _root(rows[name][kind]) for kind in ("weight", "gradient", "update")}}
            for name in ordered]  # fmt: skip


def _root(square: float | None) -> float | None:
    return None if square is None else float(square) ** 0.5
