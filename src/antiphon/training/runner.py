"""Where training runs: device, cores, precision, seeds, one optimizer step over pieces of batches, and signals."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from antiphon.core.batch import Batch, Loss
from antiphon.core.config import Config, Training
from antiphon.core.errors import ConfigError, UntrainableError
from antiphon.core.machine import probe
from antiphon.core.stopping import ending
from antiphon.data.batching import mix
from antiphon.models.seq2seq import Seq2Seq
from antiphon.training.objectives import SEQUENCE_LEVEL, Turn
from antiphon.training.optimizers import Flat
from antiphon.training.twin import Twin, compiled

HALVINGS = 4
"""How often a batch that does not fit in memory is halved before training gives up."""

SHARE = 1000
"""The fewest padded tokens of a batch that are worth a process of their own."""

MOST = 8
"""The most processes that are chosen unasked: one of them adds up what the others found."""


@dataclass(frozen=True)
class Split:
    """How cores work together: processes that share each batch, threads of each, and why, where that was chosen."""

    processes: int = 1
    threads: int = 1
    reason: str = ""

    def __str__(self) -> str:
        return f"training.processes = {self.processes}, training.threads = {self.threads}: {self.reason}"


def choose(settings: Training, batch_tokens: int, cores: int, most: int = MOST) -> Split:
    """One process a core while each has enough to do; who limits the threads wants one process, unless told otherwise.

    `most` is the most processes that can be.
    """
    if settings.objective in SEQUENCE_LEVEL:
        return Split(1, settings.threads or cores, "one process draws and scores the answers")
    if most == 1:
        return Split(1, settings.threads or cores, "batches are shared on the CPU alone, and under Unix")
    if settings.processes:
        return Split(settings.processes, settings.threads or max(1, cores // settings.processes))
    if settings.threads:
        return Split(1, settings.threads)
    processes = max(1, min(cores, most, batch_tokens // SHARE))
    reason = f"{cores} core{'s' if cores > 1 else ''}, and {batch_tokens:,} tokens a batch to share"
    return Split(processes, cores // processes, reason)


@dataclass(frozen=True)
class Arithmetic:
    """The route of fp32 matrix products (`torch.set_float32_matmul_precision`), fp32 or bf16, and why."""

    matmul: str = "highest"
    precision: str = "fp32"
    reason: str = ""

    def __str__(self) -> str:
        return f"training.precision = {self.precision}: {self.reason}"


def arithmetic(settings: Training, device: torch.device) -> Arithmetic:
    """What the settings ask for, or the fastest there is: bf16 where the machine has fast products for it."""
    if device.type == "cuda":
        matmul, fast, reason = "highest", torch.cuda.is_bf16_supported(), torch.cuda.get_device_name(device)
    else:
        products = probe()
        matmul, fast, reason = products.fp32, products.bf16, str(products)
    if settings.precision != "auto":
        return Arithmetic(matmul, settings.precision, f"as set; {reason}")
    return Arithmetic(matmul, "bf16" if fast else "fp32", reason)


@dataclass(frozen=True)
class Step:
    """What one turn of a step sees: its batches, its seeds (run, step, and turn after the first), how far training is
    (0 to 1), and the most padded tokens that go through the model at once (None: any; a single pair always does).

    With `ranks` above 1 it is the share of one process (`rank`, from 0) of so many.
    """

    batches: Sequence[Batch]
    seeds: tuple[int, ...]
    progress: float = 0.0
    limit: int | None = None
    rank: int = 0
    ranks: int = 1


class OutOfMemory(Exception):
    """A piece of this many padded tokens did not fit; `rows` is how many pairs it had."""

    def __init__(self, size: int, rows: int) -> None:
        super().__init__(f"{rows} pairs, {size} tokens with padding")
        self.size, self.rows = size, rows


class Local:
    """One process on the GPU where there is one, else on the CPU.

    Results repeat bit by bit with the same split, the same precision and the same route of matrix products.
    """

    def __init__(self, settings: Training, split: Split | None = None) -> None:
        self.split = split or Split()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cuda":
            # cuDNN plans attention anew for every size, and no two batches have one. What is fp32 is not to be TF32.
            torch.backends.cuda.enable_cudnn_sdp(False)
            torch.backends.cudnn.allow_tf32 = False
            # All weights lie in one piece for the optimizer; cuDNN gathers those of its layers at each call.
            warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        self.twins: dict[str, Twin] = {}
        self.compiled: dict[str, Seq2Seq] = {}

    def begin(self, config: Config, model: Seq2Seq, flat: Flat, precision: str) -> None:
        """The model is ready; with `bf16` its twin finds the gradients, where the settings say so a compiled one."""
        if precision == "bf16":
            self.twins = {"model": Twin(model, flat)}
        if config.training.compile:
            self.compiled = {"model": compiled(self.twins["model"].model if self.twins else model)}
        # What is loaded by now stays. To look through it for garbage again and again took 3 % of the time.
        gc.collect()
        gc.freeze()

    def players(self, models: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
        """The models that find the gradients."""
        return {**models, **{name: twin.model for name, twin in self.twins.items()}, **self.compiled}

    def accumulate(self, objective: Turn, models: Mapping[str, nn.Module], step: Step) -> dict[str, Loss]:
        """Add the gradients of the summed loss of all batches; gives that sum by player.

        Each piece draws from its own seed (run, step, piece).
        Raises `OutOfMemory` with half-made gradients in place.
        """
        sums: dict[str, Loss] = {}
        for twin in self.twins.values():
            twin.learn()
        pieces = (piece for batch in step.batches for piece in cut(batch, step.limit))
        for number, piece in enumerate(pieces):
            torch.manual_seed(mix(*step.seeds, step.rank + step.ranks * number))
            try:
                losses = self._one(objective, models, piece, step.progress)
            except (MemoryError, RuntimeError) as error:
                if not is_memory(error):
                    raise
                full = OutOfMemory(size(piece), len(piece.labels_BT))
            else:
                add(sums, losses)
                continue
            raise full  # here, and not above, the frames that hold the big tensors are gone
        return sums

    def _one(self, objective: Turn, models: Mapping[str, nn.Module], piece: Batch, progress: float) -> dict[str, Loss]:
        losses = objective(self.players(models), piece.to(self.device), progress)
        torch.stack([loss.total for loss in losses.values()]).sum().backward()
        for twin in self.twins.values():
            twin.teach()
        return {name: replace(loss, total=loss.total.detach().double()) for name, loss in losses.items()}

    def shares(self, step: Step) -> list[Step]:
        """The whole step."""
        return [step]

    def seconds(self) -> float:
        """CPU seconds of this process."""
        return time.process_time()

    def close(self) -> None:
        """Let go of everything; twice is no error."""
        gc.unfreeze()


def add(sums: dict[str, Loss], losses: Mapping[str, Loss]) -> None:
    """Add losses to their sums by player."""
    for name, loss in losses.items():
        sums[name] = sums[name] + loss if name in sums else loss


def is_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory. On a CPU, PyTorch says so by a plain RuntimeError of its allocator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


@contextmanager
def within_memory(where: object) -> Iterator[None]:
    """A lack of memory becomes an error that says so, an `UntrainableError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory(error):
            raise
    else:
        return
    do = "lower model.width, data.batch_tokens or data.*.max_length"
    raise UntrainableError("not enough memory", where=where, do=do)


def size(batch: Batch) -> int:
    """Padded tokens of sources, facts and targets."""
    read = [batch.source, *(padded for name, padded in batch.context.items() if name == "facts")]
    return len(batch.labels_BT) * (sum(padded.values.shape[1] for padded in read) + batch.labels_BT.shape[1])


def cut(batch: Batch, limit: int | None) -> Iterator[Batch]:
    """The batch in pieces of at most `limit` padded tokens; a single pair is never cut."""
    rows = len(batch.labels_BT)
    if limit is None or size(batch) <= limit or rows == 1:
        yield batch
        return
    step = max(1, limit * rows // size(batch))
    for start in range(0, rows, step):
        yield batch.rows(torch.arange(start, min(start + step, rows)))


def share(step: Step, ranks: int) -> list[Step]:
    """The step for each of so many processes: of every batch neighbouring rows with a like number of tokens."""
    batches: list[list[Batch]] = [[] for _ in range(ranks)]
    for batch in step.batches:
        tokens_B = batch.lengths_B + batch.target.lengths_B
        middle_B = 2 * tokens_B.cumsum(0) - tokens_B
        rank_B = (middle_B * ranks - 1) // (2 * tokens_B.sum())
        for rank in rank_B.unique().tolist():
            batches[rank].append(batch.rows((rank_B == rank).nonzero().squeeze(1)))
    return [replace(step, batches=mine, rank=rank, ranks=ranks) for rank, mine in enumerate(batches)]


def blame(runner: Local, objective: Turn, models: Mapping[str, nn.Module], step: Step) -> str:
    """The first module whose output is not finite, found by doing the step again and watching every module."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not all(bool(value.isfinite().all()) for value in floats(output)):
                found.append(name)

        return hook

    whole, runner.compiled = runner.compiled, {}  # what is compiled cannot be watched
    watched = runner.players(models)
    named = [
        (f"{player}.{name}".rstrip("."), part) for player, m in watched.items() for name, part in m.named_modules()
    ]
    handles = [module.register_forward_hook(watch(name)) for name, module in named]
    try:
        losses: dict[str, Loss] = {}
        for part in runner.shares(step):
            add(losses, Local.accumulate(runner, objective, models, part))  # in this process, which is watched
    finally:
        runner.compiled = whole
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
    """What ends training as a flag; a second one ends the process at once with 128 + its number.

    Off the main thread Python allows no handlers: there it stays quiet, and whoever runs the thread decides.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in ending():
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
    if settings.compile and settings.objective in SEQUENCE_LEVEL:
        what = f"training.objective={settings.objective} draws answers, which compiled layers cannot"
        raise ConfigError(what, do="leave out training.compile")
    if not (settings.steps or settings.epochs or settings.minutes or settings.patience):
        raise ConfigError("training would never end", do="set training.epochs, .steps, .minutes or .patience")


def no_room(error: OutOfMemory) -> UntrainableError:
    """The error for a batch that does not fit however it is cut."""
    what = f"not enough memory for {error}"
    return UntrainableError(what, do="lower model.width, data.batch_tokens or data.*.max_length")
