"""Optimizers over flat parameters, and the learning rate over time: few large operations instead of many small ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from antiphon.core.config import Training
from antiphon.core.errors import TrainingError

ALIGN = 16
"""Every parameter starts at a multiple of this many floats (64 bytes), as fresh tensors do."""


class Flat:
    """All trainable parameters of a model in one buffer, and their gradients in another.

    The buffer begins with the matrices (which weight decay and L1/L2 touch), then the rest; `matrices` and `rest`
    are views of the two parts. The model's parameters become views too, so `state_dict`, tied and frozen
    parameters work as before. Build it after the model is on its device; call `zero` instead of `zero_grad`.
    """

    def __init__(self, model: nn.Module) -> None:
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if len({parameter.dtype for parameter in trainable}) > 1:
            raise TrainingError("all trainable parameters must have one dtype")
        ordered = [p for p in trainable if p.ndim >= 2]
        border = sum(_room(p) for p in ordered)
        ordered += [p for p in trainable if p.ndim < 2]
        self.parameters = ordered
        self.weights = _zeros(sum(_room(p) for p in ordered), trainable)
        self.gradient = torch.zeros_like(self.weights)
        self._adopt()
        self.matrices = _part(self.weights[:border], self.gradient[:border])
        self.rest = _part(self.weights[border:], self.gradient[border:])

    def _adopt(self) -> None:
        start = 0
        for parameter in self.parameters:
            end = start + parameter.numel()
            self.weights[start:end] = parameter.data.reshape(-1)
            parameter.data = self.weights[start:end].view(parameter.shape)
            parameter.grad = self.gradient[start:end].view(parameter.shape)
            start += _room(parameter)

    def zero(self) -> None:
        """Forget the gradient, keeping its memory."""
        self.gradient.zero_()


def _room(parameter: Tensor) -> int:
    return -(-parameter.numel() // ALIGN) * ALIGN


def _zeros(size: int, like: list[nn.Parameter]) -> Tensor:
    if not like:
        raise TrainingError("the model has nothing to train: every parameter is frozen")
    return torch.zeros(size, dtype=like[0].dtype, device=like[0].device)


def _part(weights: Tensor, gradient: Tensor) -> nn.Parameter:
    part = nn.Parameter(weights)
    part.grad = gradient
    return part


def clip(gradient: Tensor, limit: float, count: int) -> float:
    """Divide a summed gradient by what it is over, then scale it down to norm `limit` (0: no limit).

    Gives the norm before scaling; where that is not finite the gradient is left alone.
    """
    norm = float(torch.linalg.vector_norm(gradient)) / count
    if math.isfinite(norm):
        factor = min(1.0, limit / (norm + 1e-6)) if limit else 1.0
        gradient.mul_(factor / count)
    return norm


def make(flat: Flat, settings: Training) -> torch.optim.Optimizer:
    """The optimizer of the settings: fused on the flat buffers, but for Adafactor, which needs each matrix's shape.

    Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019; decay on matrices only), RMSProp, SGD with momentum,
    Adafactor (Shazeer & Stern 2018).
    """
    rate, parts = settings.rate or 0.0, [part for part in (flat.matrices, flat.rest) if part.numel()]
    betas = (settings.beta1, settings.beta2)
    match settings.optimizer:
        case "adam":
            return torch.optim.Adam(parts, rate, betas, fused=True)
        case "adamw":
            decays = {id(flat.matrices): settings.weight_decay}
            groups = [{"params": [part], "weight_decay": decays.get(id(part), 0.0)} for part in parts]
            return torch.optim.AdamW(groups, rate, betas, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(parts, rate, momentum=settings.momentum)
        case "sgd":
            return torch.optim.SGD(parts, rate, settings.momentum, fused=True)
        case "adafactor":
            return torch.optim.Adafactor(flat.parameters, rate)


def tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's memory as named tensors: `<parameter number>.<name>`."""
    return {
        f"{number}.{name}": value
        for number, parameter in _numbered(optimizer)
        for name, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore(optimizer: torch.optim.Optimizer, values: dict[str, Tensor]) -> None:
    """Give the optimizer the memory that `tensors` took; shapes must fit."""
    parameters = dict(_numbered(optimizer))
    optimizer.state.clear()
    for key, value in values.items():
        number, name = key.split(".", 1)
        parameter = parameters.get(int(number))
        if parameter is None or (value.ndim and name in _LIKE_WEIGHTS and value.shape != parameter.shape):
            raise TrainingError(f"optimizer state {key} does not fit this model", got=tuple(value.shape))
        device = value.device if name == "step" and parameter.device.type == "cpu" else parameter.device
        optimizer.state[parameter][name] = value.clone().to(device)


_LIKE_WEIGHTS = ("exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg")


def _numbered(optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, nn.Parameter]]:
    number = count()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield next(number), parameter


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use this learning rate from now on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def rate_at(settings: Training, step: int, progress: float, hurry: float = 0.0) -> float:
    """The learning rate of step `step` (counted from 1).

    `progress` is the share of the whole budget used up (cosine falls to zero with it). `hurry` is the share of the
    wall-clock budget used up: warm-up ends after `warmup` steps or a tenth of that budget, whichever comes first.
    Inverse square root (Vaswani et al. 2017) falls from the end of warm-up on; plateau is lowered by the trainer.
    """
    peak, warmup = settings.rate or 0.0, settings.warmup or 0
    warm = min(1.0, max(step / warmup, hurry / 0.1)) if warmup else 1.0
    match settings.schedule or "constant":
        case "inverse_sqrt":
            return peak * warm * math.sqrt(max(warmup, 1) / max(step, warmup, 1))
        case "cosine":
            return peak * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        case _:
            return peak * warm


def describe(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Name and settings of an optimizer, for people."""
    group = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    return {"name": type(optimizer).__name__, **group}
