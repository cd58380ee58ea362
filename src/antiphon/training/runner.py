"""Where training runs: device, threads, precision, seeds, one optimizer step over pieces of batches, and signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from antiphon.core.batch import Batch, Loss
from antiphon.core.config import Training
from antiphon.core.errors import ConfigError, TrainingError
from antiphon.data.batching import mix
from antiphon.training.objectives import Objective

HALVINGS = 4
"""How often a batch that does not fit in memory is halved before training gives up."""


@dataclass(frozen=True)
class Step:
    """What one optimizer step sees: its batches, its two seeds (run and step), how far training is (0 to 1), and
    the most padded tokens that go through the model at once (None: any; a single pair always does)."""

    batches: Sequence[Batch]
    seeds: tuple[int, int]
    progress: float = 0.0
    limit: int | None = None


class Runner(Protocol):
    """One process, or one of several: what the trainer asks of it."""

    device: torch.device

    def accumulate(self, objective: Objective, models: Mapping[str, nn.Module], step: Step) -> dict[str, Loss]:
        """Add the gradients of a step's batches."""


class OutOfMemory(Exception):
    """A piece of this many padded tokens did not fit; `rows` is how many pairs it had."""

    def __init__(self, size: int, rows: int) -> None:
        super().__init__(f"{rows} pairs, {size} tokens with padding")
        self.size, self.rows = size, rows


class Local:
    """One process on the GPU where there is one, else on the CPU.

    bf16 is what `auto` means on a GPU that has it; on a CPU `auto` is fp32, which `models.functional.pick_matmul`
    makes fast. Results repeat bit by bit with the same number of threads and the same `matmul`.
    """

    def __init__(self, settings: Training) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        bf16 = settings.precision == "bf16"
        if settings.precision == "auto":
            bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.precision = "bf16" if bf16 else "fp32"

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products in bf16, where that is the precision."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def accumulate(self, objective: Objective, models: Mapping[str, nn.Module], step: Step) -> dict[str, Loss]:
        """Add the gradients of the summed loss of all batches; gives that sum by player.

        Each piece draws from its own seed (run, step, piece).
        Raises `OutOfMemory` with half-made gradients in place.
        """
        sums: dict[str, Loss] = {}
        pieces = (piece for batch in step.batches for piece in cut(batch, step.limit))
        for number, piece in enumerate(pieces):
            torch.manual_seed(mix(*step.seeds, number))
            try:
                losses = self._one(objective, models, piece, step.progress)
            except (MemoryError, RuntimeError) as error:
                if not is_memory(error):
                    raise
                full = OutOfMemory(size(piece), len(piece.labels_BT))
            else:
                for name, loss in losses.items():
                    sums[name] = sums[name] + loss if name in sums else loss
                continue
            raise full  # here, and not above, the frames that hold the big tensors are gone
        return sums

    def _one(
        self, objective: Objective, models: Mapping[str, nn.Module], piece: Batch, progress: float
    ) -> dict[str, Loss]:
        with self.autocast():
            losses = objective(models, piece.to(self.device), progress)
        torch.stack([loss.total for loss in losses.values()]).sum().backward()
        return {name: Loss(loss.total.detach().double(), loss.count) for name, loss in losses.items()}


def is_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory. On a CPU, PyTorch says so by a plain RuntimeError of its allocator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def size(batch: Batch) -> int:
    """Padded source and target tokens."""
    return len(batch.labels_BT) * (batch.source.values.shape[1] + batch.labels_BT.shape[1])


def cut(batch: Batch, limit: int | None) -> Iterator[Batch]:
    """The batch in pieces of at most `limit` padded tokens; a single pair is never cut."""
    rows = len(batch.labels_BT)
    if limit is None or size(batch) <= limit or rows == 1:
        yield batch
        return
    step = max(1, limit * rows // size(batch))
    for start in range(0, rows, step):
        yield batch.rows(torch.arange(start, min(start + step, rows)))


def set_threads(wanted: int | None) -> int:
    """Use this many CPU threads, or one for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(wanted or cores)
    return wanted or cores


def blame(runner: Local, objective: Objective, models: Mapping[str, nn.Module], step: Step) -> str:
    """The first module whose output is not finite, found by doing the step again and watching every module."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not all(bool(value.isfinite().all()) for value in floats(output)):
                found.append(name)

        return hook

    named = [(f"{player}.{name}".rstrip("."), part) for player, m in models.items() for name, part in m.named_modules()]
    handles = [module.register_forward_hook(watch(name)) for name, module in named]
    try:
        losses = runner.accumulate(objective, models, step)
    finally:
        for handle in handles:
            handle.remove()
    if not found and not all(bool(loss.total.isfinite()) for loss in losses.values()):
        return "the loss"
    return found[0] if found else blame_gradient(models)


def blame_gradient(models: Mapping[str, nn.Module]) -> str:
    """The first parameter whose gradient is not finite."""
    for player, model in models.items():
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
                return f"the gradient of {player}.{name}"
    return "the gradient's norm"


def floats(value: Any) -> Iterator[Tensor]:
    """All floating-point tensors in a module's output."""
    if isinstance(value, Tensor) and value.is_floating_point():
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from floats(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from floats(part)
    elif hasattr(value, "__dataclass_fields__"):
        yield from floats(list(vars(value).values()))


class Interrupted(Exception):
    """Raised inside long loops once a signal has come, so that they end soon."""


class Signals:
    """Ctrl-C and SIGTERM as a flag; a second one ends the process at once with 128 + its number.

    Off the main thread Python allows no handlers: there it stays quiet, and whoever runs the thread decides.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number

    def poll(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.number:
            raise Interrupted


def check(settings: Training) -> None:
    """Settings that must be there before training can start."""
    for name in ("rate", "schedule"):
        if getattr(settings, name) is None:
            raise ConfigError(f"training.{name} has no value", do="let the recipe propose one, or set it")
    if not (settings.steps or settings.epochs or settings.minutes or settings.patience):
        raise ConfigError("training would never end", do="set training.epochs, .steps, .minutes or .patience")


def no_room(error: OutOfMemory) -> TrainingError:
    """The error for a batch that does not fit however it is cut."""
    what = f"not enough memory for {error}"
    return TrainingError(what, do="lower model.width, data.batch_tokens or data.*.max_length")
