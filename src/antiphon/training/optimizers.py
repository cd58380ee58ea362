"""Optimizers over flat parameters, and the learning rate over time: few large operations instead of many small ones."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

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
        self.parameters, self.border = ordered, border
        self.weights = _zeros(sum(_room(p) for p in ordered), trainable)
        self.gradient = torch.zeros_like(self.weights)
        for parameter, place in zip(ordered, self.places(self.weights), strict=True):
            place.copy_(parameter.data)
        self.matrices = _part(self.weights[:border], self.gradient[:border])
        self.rest = _part(self.weights[border:], self.gradient[border:])
        self.use(self.weights, self.gradient)

    def use(self, weights: Tensor, gradient: Tensor) -> None:
        """Live in these buffers from now on, with the weights that are in them."""
        self.weights, self.gradient = weights, gradient
        places = zip(self.parameters, self.places(weights), self.places(gradient), strict=True)
        for parameter, own, slope in places:
            parameter.data, parameter.grad = own, slope
        self.matrices.data, self.matrices.grad = weights[: self.border], gradient[: self.border]
        self.rest.data, self.rest.grad = weights[self.border :], gradient[self.border :]

    def places(self, buffer: Tensor) -> Iterator[Tensor]:
        """Where each parameter is in a buffer."""
        start = 0
        for parameter in self.parameters:
            yield buffer[start : start + parameter.numel()].view(parameter.shape)
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


class Optimizer(Protocol):
    """What training asks of an optimizer, and what PyTorch's are."""

    param_groups: list[dict[str, Any]]
    state: Any

    def step(self) -> Any:
        """Change the parameters by their gradients."""


class Functional:
    """PyTorch's functions on flat parts. Its classes call the same, but import the compiler: a second, and 80 MB."""

    def __init__(self, flat: Flat, settings: Training) -> None:
        decay = settings.weight_decay if settings.optimizer == "adamw" else 0.0
        self.settings = settings
        self.param_groups: list[dict[str, Any]] = [
            {"params": [part], "lr": settings.rate, "weight_decay": decays}
            for part, decays in ((flat.matrices, decay), (flat.rest, 0.0))
            if part.numel()
        ]
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters by their gradients."""
        for group in self.param_groups:
            (part,) = group["params"]
            self.update(part, part.grad, group, self.state[part])

    def update(self, part: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
        """Change one part."""
        raise NotImplementedError


class AdamW(Functional):
    """Adam (Kingma and Ba 2015) with weight decay apart from the gradient (Loshchilov and Hutter 2019)."""

    def update(self, part: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
        """Change one part."""
        if not state:
            device = part.device if part.is_cuda else None
            state["step"] = torch.zeros((), device=device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(part), torch.zeros_like(part)
        adamw(
            [part], [gradient], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]], fused=True,
            lr=group["lr"], weight_decay=group["weight_decay"], beta1=self.settings.beta1, beta2=self.settings.beta2,
            eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip


class SGD(Functional):
    """Gradient descent with momentum (Polyak 1964)."""

    def update(self, part: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
        """Change one part."""
        buffers: list[Tensor | None] = [state.get("momentum_buffer")]
        sgd(
            [part], [gradient], buffers, fused=True, lr=group["lr"], weight_decay=group["weight_decay"],
            momentum=self.settings.momentum, dampening=0.0, nesterov=False, maximize=False,
        )  # fmt: skip
        if buffers[0] is not None:
            state["momentum_buffer"] = buffers[0]


class RMSProp(Functional):
    """The gradient over the root of its mean square (Tieleman and Hinton 2012)."""

    def update(self, part: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
        """Change one part."""
        if not state:
            state["step"], state["square_avg"] = torch.zeros(()), torch.zeros_like(part)
            if self.settings.momentum:
                state["momentum_buffer"] = torch.zeros_like(part)
        buffers = [state["momentum_buffer"]] if self.settings.momentum else []
        rmsprop(
            [part], [gradient], [state["square_avg"]], [], buffers, [state["step"]], foreach=False, lr=group["lr"],
            weight_decay=group["weight_decay"], momentum=self.settings.momentum, alpha=0.99, eps=1e-8, centered=False,
        )  # fmt: skip


def make(flat: Flat, settings: Training) -> Optimizer:
    """The optimizer of the settings, on the flat buffers; weight decay touches matrices only.

    Adafactor (Shazeer and Stern 2018) needs each matrix's shape, and is PyTorch's.
    """
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(flat.parameters, settings.rate or 0.0)
    kinds = {"adam": AdamW, "adamw": AdamW, "sgd": SGD, "rmsprop": RMSProp}
    return kinds[settings.optimizer](flat, settings)


def tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's memory as named tensors: `<parameter number>.<name>`."""
    return {
        f"{number}.{name}": value
        for number, parameter in _numbered(optimizer)
        for name, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore(optimizer: Optimizer, values: dict[str, Tensor]) -> None:
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


def _numbered(optimizer: Optimizer) -> Iterator[tuple[int, nn.Parameter]]:
    number = count()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield next(number), parameter


def set_rate(optimizer: Optimizer, rate: float) -> None:
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
