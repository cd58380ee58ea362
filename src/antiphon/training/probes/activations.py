"""What flows through a model in a training pass: how large it is, which units are dead, which gates are stuck."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.models import decoders, encoders
from antiphon.models.attention import CrossAttention, FeedForward
from antiphon.models.encoders import ConformerLayer
from antiphon.models.frontends import Convolutions, Convolutions2d, FramesFrontend, NumbersFrontend, Pictures
from antiphon.models.graph import GraphLayer
from antiphon.models.heads import CopyHead
from antiphon.models.seq2seq import Seq2Seq
from antiphon.training.probes.gates import gates, looked_at
from antiphon.training.runner import is_memory

ASLEEP = {"gelu": -3.0, "silu": -6.0}
"""Inputs below which these activations let through less than 2 % of a unit."""

STUCK, FULL = 0.05, 0.95
"""A gate is saturated outside of these, and a tanh beyond the second of them, either way."""

Reading = dict[str, Any]
"""`name`, `what`, and the tensors `scale` (root mean square), `dead` and `saturated` (shares), None where there is no
such thing."""

Read = Callable[[Any, Any, Any], Iterator[tuple[str, Reading]]]
"""Readings of a module from itself, its inputs and its output, each with an ending of the module's name."""


class Activations:
    """Watches a model in a `with`: the first pass with gradients leaves its `readings`, in forward order."""

    def __init__(self, model: Seq2Seq) -> None:
        self.found: dict[str, Reading] = {}
        self.handles = [module.register_forward_hook(partial(self._see, name, read))
                        for name, module, read in readers(model)]  # fmt: skip

    def __enter__(self) -> Activations:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _see(self, name: str, read: Read, module: nn.Module, inputs: Any, output: Any) -> None:
        if name in self.found or not torch.is_grad_enabled():
            return
        self.found[name] = {}  # has been here
        try:
            with torch.no_grad():
                self.found |= {name + ending: {"name": name + ending, **reading}
                               for ending, reading in read(module, inputs, output)}  # fmt: skip
        except (MemoryError, RuntimeError) as error:
            if not is_memory(error):  # a lack of memory is the training's own to find
                raise

    def readings(self) -> list[Reading]:
        """All of them, as plain numbers."""
        return plain([reading for reading in self.found.values() if reading])


def plain(readings: list[Reading]) -> list[Reading]:
    """The same with numbers for tensors, fetched all at once."""
    places = [(each, key) for each in readings for key, value in each.items() if isinstance(value, Tensor)]
    values = torch.stack([each[key].float().reshape(()) for each, key in places]).tolist() if places else []
    for (each, key), value in zip(places, values, strict=True):
        each[key] = value
    return readings


def readers(model: Seq2Seq) -> Iterator[tuple[str, nn.Module, Read]]:
    """The modules that are worth looking at, by name."""
    for name, module in model.named_modules():
        if isinstance(module, FeedForward):
            yield name, module.input, partial(inner, module)
        elif isinstance(module, nn.RNNBase):
            yield name.removesuffix(".kernel"), module, recurrent
        elif isinstance(module, decoders.SSRUMixer):
            yield f"{name}.forget", module.forget, partial(gated, torch.sigmoid)
            yield name, module, units
        elif isinstance(module, encoders.ConvMixer | decoders.ConvMixer):
            yield f"{name}.gate", module.conv, partial(half, 1)
        elif isinstance(module, CrossAttention):
            yield f"{name}.merge", module.merge, partial(gated, torch.tanh)
        elif isinstance(module, decoders.RecurrentMixer):
            yield f"{name}.bridge", module.bridge, partial(gated, torch.tanh)
        elif isinstance(module, CopyHead):
            yield f"{name}.gate", module.gate, partial(gated, torch.sigmoid)
        yield from convolutions(name, module)
        yield from streams(name, module)


def streams(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module, Read]]:
    """Where a layer, or what reads the ids, hands on its vectors."""
    if isinstance(module, encoders.EncoderLayer | ConformerLayer | decoders.DecoderLayer | GraphLayer):
        yield name, module, stream
    elif isinstance(module, FramesFrontend):
        yield name, module.reducer, stream
    elif name in ("source", "target") or isinstance(module, NumbersFrontend):
        yield name, module, stream
    if isinstance(module, ConformerLayer):
        yield f"{name}.gate", module.gate, partial(half, 2)


def convolutions(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module, Read]]:
    """The channels of a frontend's convolutions."""
    if isinstance(module, Convolutions | Convolutions2d):
        yield from ((f"{name}.layers.{number}", layer, channels) for number, layer in enumerate(module.layers))
    elif isinstance(module, Pictures):
        kinds = enumerate(module.layers)
        yield from ((f"{name}.layers.{number}", layer, channels) for number, layer in kinds
                    if isinstance(layer, nn.ReLU))  # fmt: skip


# What is read of each kind


def rms(x: Tensor) -> Tensor:
    """Root mean square in fp32."""
    return torch.linalg.vector_norm(x, dtype=torch.float32) / max(1, x.numel()) ** 0.5


def stream(module: nn.Module, inputs: Any, output: Any) -> Iterator[tuple[str, Reading]]:
    """The vectors that a layer hands on."""
    x = output[0] if isinstance(output, tuple) else output
    yield "", {"what": "stream", "scale": rms(x), "dead": None, "saturated": None}


def inner(block: FeedForward, module: nn.Module, inputs: Any, output: Tensor) -> Iterator[tuple[str, Reading]]:
    """The units between the two products of a feed-forward block, by what goes into their activation."""
    x_NE = output.flatten(0, -2)
    if block.gated:
        x_NE = x_NE[:, : x_NE.shape[1] // 2]
    if block.activation is torch.tanh:
        yield from gated(torch.tanh, module, inputs, x_NE)
        return
    low = {F.relu: 0.0, F.gelu: ASLEEP["gelu"], F.silu: ASLEEP["silu"]}.get(block.activation)
    dead = None if low is None else (x_NE.amax(0) <= low).float().mean()
    some = block.activation(x_NE[:: max(1, len(x_NE) // 256)])
    yield "", {"what": "relu", "scale": rms(some), "dead": dead, "saturated": None}


def units(module: nn.Module, inputs: Any, output: Any) -> Iterator[tuple[str, Reading]]:
    """What a ReLU has let through, `[..., D]`."""
    x_ND = (output[0] if isinstance(output, tuple) else output).flatten(0, -2)
    yield "", {"what": "relu", "scale": rms(x_ND), "dead": (x_ND.amax(0) <= 0).float().mean(), "saturated": None}


def channels(module: nn.Module, inputs: Any, output: Tensor) -> Iterator[tuple[str, Reading]]:
    """Convolution channels `[B, C, ...]` in front of a ReLU, or behind it."""
    yield from units(module, inputs, output.movedim(1, -1).relu())


def gated(
    function: Callable[[Tensor], Tensor], module: nn.Module, inputs: Any, output: Tensor
) -> Iterator[tuple[str, Reading]]:
    """A gate or a tanh of some of the rows `[..., D]`."""
    rows = output.flatten(0, -2)
    yield "", gate(function(rows[:: max(1, len(rows) // 256)].float()), "tanh" if function is torch.tanh else "gate")


def half(axis: int, module: nn.Module, inputs: Any, output: Tensor) -> Iterator[tuple[str, Reading]]:
    """The half of a gated linear unit that is its gate, of some of the sentences."""
    rows = looked_at(output.shape[0], output.shape[3 - axis])
    yield "", gate(torch.sigmoid(output[:rows].chunk(2, dim=axis)[1].float()), "gate")


def gate(values: Tensor, what: str) -> Reading:
    """The reading of a gate (0 to 1) or a tanh (-1 to 1)."""
    stuck = (values.abs() > FULL) if what == "tanh" else (values < STUCK) | (values > FULL)
    return {"what": what, "scale": rms(values), "dead": None, "saturated": stuck.float().mean()}


def recurrent(module: nn.RNNBase, inputs: Any, output: Any) -> Iterator[tuple[str, Reading]]:
    """Each gate of a recurrent kernel."""
    for name, (what, values) in gates(module, inputs, output[0]).items():
        if what == "relu":
            yield "", next(units(module, inputs, output))[1]
        else:
            yield f".{name}" if name else "", gate(values, what)
