"""The network of a bundle, from bytes that are known to be what was written, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch.overrides import TorchFunctionMode

from antiphon.core.config import Config
from antiphon.core.errors import BundleError
from antiphon.inference.bundle import CONFIG_FILE, WEIGHTS_FILE, tensors
from antiphon.inference.weights import header
from antiphon.models.seq2seq import Seq2Seq, build


def restored(content: bytes, config: Config, sizes: tuple[int, int]) -> Seq2Seq:
    """The network of these weights; `sizes` are the tokens or features of source and target."""
    _check(config, sizes, header(content, WEIGHTS_FILE))
    model = build(config.model, *sizes, seed=0)
    loaded = safetensors.torch.load(content)
    with torch.no_grad():
        for name, tensor in tensors(model).items():
            if not loaded[name].isfinite().all():
                raise BundleError("the weights are not finite", where=WEIGHTS_FILE, got=name)
            tensor.copy_(loaded[name])
    return model.eval()


class _NoInitialization(TorchFunctionMode):
    """Leaves `torch.nn.init` out: on the meta device it would import the compiler, 1.3 CPU seconds, to fill nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def _check(config: Config, sizes: tuple[int, int], shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Compare the weights with the configuration on a model without memory, so that a lie costs nothing."""
    layers = (config.model.encoder.layers or 0) + (config.model.decoder.layers or 0)
    if layers > len(shapes):
        raise BundleError("has fewer tensors than layers", where=WEIGHTS_FILE, got=f"{len(shapes)} for {layers} layers")
    with torch.device("meta"), _NoInitialization():
        model = build(config.model, *sizes, seed=0)
    expected = {name: ("F32", tuple(tensor.shape)) for name, tensor in tensors(model).items()}
    if expected != shapes:
        wrong = min(name for name in expected.keys() | shapes.keys() if expected.get(name) != shapes.get(name))
        got = f"{wrong[:60]}: {shapes.get(wrong)}, the configuration makes {expected.get(wrong)}"
        raise BundleError("does not fit the configuration", where=WEIGHTS_FILE, got=got)
    hidden = sum(buffer.numel() for buffer in model.buffers())
    if hidden > 1 << 28:
        raise BundleError("the configuration needs tables that are too large", where=CONFIG_FILE, got=hidden)
