"""Processes that share each batch of a step on one machine, a core each; they meet once a step.

The main process keeps everything: optimizer, data, log, checkpoints. A worker has the same model over the same weights,
in memory that all see, and a gradient of its own there, which the main process adds to its own, always in the same
order. Over their private pipe goes JSON and safetensors. A worker whose main process has gone ends by itself.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import IO, Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from antiphon.core import errors
from antiphon.core.batch import Batch, Loss, Padded
from antiphon.core.config import Config
from antiphon.core.errors import AntiphonError, TrainingError
from antiphon.core.keys import read, to_dict
from antiphon.core.machine import cores
from antiphon.core.stopping import ending
from antiphon.models.seq2seq import Seq2Seq, build
from antiphon.training import runner as running
from antiphon.training.checkpoint import State
from antiphon.training.distillation import from_settings
from antiphon.training.objectives import Turn
from antiphon.training.optimizers import Flat
from antiphon.training.runner import Local, OutOfMemory, Split, Step

HANG = 120.0
"""Seconds without an answer, on top of ten times what its own share took the main process, until one is given up."""

DYING = 5.0
"""Seconds that a process whose pipe has closed may take to end."""

PULSE = 10.0
"""Seconds between a waiting worker's looks at whether its main process is still there."""

BEGIN = "import sys; sys.path[:] = sys.argv[3:]; from antiphon.training.workers import work; work(*sys.argv[1:3])"


def launch(config: Config, before: State | None = None) -> Local:
    """The runner that the settings ask for, or the one that a run had `before`; its workers are waking up.

    Close it in the end. Call it early: a worker takes seconds to import PyTorch.
    """
    able = os.name == "posix" and bool(sys.executable) and not hasattr(sys, "frozen") and not torch.cuda.is_available()
    most = running.MOST if able else 1
    if before is not None:
        split = Split(before.processes if able else 1, before.threads)
    else:
        split = running.choose(config.training, config.data.batch_tokens or 4096, cores(os.environ), most)
    return Parallel(config.training, split) if split.processes > 1 else Local(config.training, split)


class Pipe:
    """One end of a private pipe; a message is a table of plain values, and tensors by name."""

    def __init__(self, descriptor: int) -> None:
        self.connection = Connection(descriptor)

    def tell(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Send a message; `OSError` where nobody is there."""
        self.connection.send_bytes(json.dumps(values).encode())
        self.connection.send_bytes(save({name: tensor.contiguous() for name, tensor in (tensors or {}).items()}))

    def hear(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The next message, waited for; `EOFError` or `OSError` where the other end has gone."""
        return json.loads(self.connection.recv_bytes()), load(self.connection.recv_bytes())


class Worker:
    """A worker process as the main process sees it."""

    def __init__(self, threads: int, memory: int) -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(HANG), 0))
        self.pipe = Pipe(ours.detach())
        with theirs, deaf():
            command = [sys.executable, "-P", "-c", BEGIN, str(theirs.fileno()), str(memory), *sys.path]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=(theirs.fileno(), memory),
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )  # fmt: skip
        self.seconds = 0.0

    def tell(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Send a message; where that fails, `answer` says why."""
        with suppress(OSError):
            self.pipe.tell(values, tensors)

    def answer(self, patience: float) -> dict[str, Loss] | OutOfMemory:
        """The losses of its share, or what did not fit. Raises `TrainingError` where it died or hangs, and what it
        refused."""
        try:
            if not self.pipe.connection.poll(patience):
                raise TimeoutError
            values, _ = self.pipe.hear()
        except (EOFError, OSError):
            raise self._lost() from None
        if "refused" in values:
            kind, what, where, got, do = values["refused"]
            raise getattr(errors, kind)(what, where=where, got=got, do=do)
        if "error" in values:
            raise RuntimeError(f"in a worker process of training:\n{values['error']}")
        self.seconds = values["seconds"]
        if "memory" in values:
            return OutOfMemory(*values["memory"])
        found = values["losses"].items()
        return {name: Loss(torch.tensor(total, dtype=torch.float64), *rest) for name, (total, *rest) in found}

    def _lost(self) -> TrainingError:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(DYING)
        code = self.process.returncode
        self.close()
        if code is None:
            return TrainingError("a worker process of training does not answer", do=AGAIN)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return TrainingError(f"a worker process of training died ({how})", do=AGAIN)

    def close(self) -> None:
        """End it, whatever it does: all that counts is in the main process."""
        self.pipe.connection.close()
        self.process.kill()
        self.process.wait()


AGAIN = (
    "go on with `antiphon resume`; if it happens again, look for a lack of memory, or train anew with "
    "training.processes=1 or a smaller data.batch_tokens"
)


class Parallel(Local):
    """This process and its workers, each with a share of every batch. `begin` comes before the first step."""

    def __init__(self, settings: Any, split: Split) -> None:
        super().__init__(settings, split)
        self.memory = nameless()
        self.workers = [Worker(split.threads, self.memory.fileno()) for _ in range(split.processes - 1)]

    def begin(self, config: Config, model: Seq2Seq, flat: Flat, precision: str) -> None:
        """Move the weights to where the workers see them, and tell the workers what to train."""
        self.memory.truncate(self.split.processes * flat.weights.nbytes)
        rows = seen(self.memory.fileno(), flat.weights.dtype, self.split.processes)
        rows[0].copy_(flat.weights)
        flat.use(rows[0], flat.gradient)
        super().begin(config, model, flat, precision)
        self.gradient, self.gradients = flat.gradient, rows[1:]
        frozen = {name: weight.data for name, weight in model.named_parameters() if not weight.requires_grad}
        sizes, matmul = (model.source_size, model.target_size), torch.get_float32_matmul_precision()
        for rank, worker in enumerate(self.workers, 1):
            place = {"rank": rank, "processes": self.split.processes, "threads": self.split.threads}
            how = {"matmul": matmul, "precision": precision}
            worker.tell({"config": to_dict(config), "sizes": sizes, **how, **place}, frozen)

    def accumulate(self, objective: Turn, models: Mapping[str, nn.Module], step: Step) -> dict[str, Loss]:
        """Add the gradients of the summed loss of all batches; gives that sum by player.

        Raises `OutOfMemory` as soon as all have answered, with half-made gradients in place.
        """
        own, *others = self.shares(step)
        busy = [(worker, part, row) for worker, part, row in zip(self.workers, others, self.gradients, strict=True)
                if part.batches]  # fmt: skip
        for worker, part, _ in busy:
            worker.tell(*packed(part))
        begun, full, sums = time.monotonic(), None, dict[str, Loss]()
        try:
            sums = super().accumulate(objective, models, own)
        except OutOfMemory as error:
            full = error
        patience = HANG + 10 * (time.monotonic() - begun)
        for worker, _, gradient in busy:
            found = worker.answer(patience)
            if isinstance(found, OutOfMemory):
                full = found
            else:
                running.add(sums, found)
                self.gradient.add_(gradient)
        if full:
            raise full
        return sums

    def shares(self, step: Step) -> list[Step]:
        """A share for each process, this one's first."""
        return running.share(step, self.split.processes)

    def seconds(self) -> float:
        """CPU seconds of all processes."""
        return super().seconds() + sum(worker.seconds for worker in self.workers)

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.close()
        self.workers = []
        self.memory.close()
        super().close()


@contextmanager
def deaf() -> Iterator[None]:
    """Processes begun in here never hear what ends training: it may go to all of a group, and one decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def nameless() -> IO[bytes]:
    """A file without a name, in memory if possible, that goes when the last process that has it open ends somehow."""
    return open(os.memfd_create("antiphon"), "r+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()


def seen(memory: int, kind: torch.dtype, rows: int) -> Tensor:
    """The whole of such a file as rows of numbers: the weights, then each worker's gradient."""
    return torch.frombuffer(mmap.mmap(memory, 0), dtype=kind).view(rows, -1)


def packed(step: Step) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A step as a message."""
    tensors = {}
    for number, batch in enumerate(step.batches):
        for name, padded in {"source": batch.source, "target": batch.target, **batch.context}.items():
            tensors[f"{number}.{name}.values"] = padded.values
            tensors[f"{number}.{name}.lengths"] = padded.lengths_B
    context = sorted(step.batches[0].context) if step.batches else []
    rest = {name: value for name, value in vars(step).items() if name != "batches"}
    return {"many": len(step.batches), "context": context, "step": rest}, tensors


def unpacked(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Step:
    """What `packed` packed."""

    def padded(number: int, name: str) -> Padded:
        return Padded(tensors[f"{number}.{name}.values"], tensors[f"{number}.{name}.lengths"])

    batches = [
        Batch(padded(number, "source"), padded(number, "target"),
              {name: padded(number, name) for name in values["context"]})
        for number in range(values["many"])
    ]  # fmt: skip
    return Step(batches, **values["step"])


# In the worker


class Share:
    """A worker's own model, over the weights that all see."""

    def __init__(self, memory: int, values: Mapping[str, Any], frozen: Mapping[str, Tensor]) -> None:
        torch.set_num_threads(values["threads"])
        torch.set_float32_matmul_precision(values["matmul"])
        config = read(values["config"])
        model = build(config.model, *values["sizes"])
        for name, weight in frozen.items():
            model.get_parameter(name).requires_grad_(False).copy_(weight)
        self.flat = Flat(model)
        rows = seen(memory, self.flat.weights.dtype, values["processes"])
        self.flat.use(rows[0], rows[values["rank"]])
        self.local, self.objective, self.models = (
            Local(config.training),
            from_settings(config.training),
            {"model": model},
        )
        self.local.begin(config, model, self.flat, values["precision"])

    def __call__(self, step: Step) -> dict[str, Any]:
        """Leaves the gradient in its row; gives the losses as the answer to a step."""
        self.flat.zero()
        try:
            losses = self.local.accumulate(self.objective, self.models, step)
        except OutOfMemory as error:
            return {"memory": (error.size, error.rows), "seconds": time.process_time()}
        found = {name: (float(loss.total), loss.count, dict(loss.sums)) for name, loss in losses.items()}
        return {"losses": found, "seconds": time.process_time()}


def work(descriptor: str, memory: str) -> None:
    """A worker's life: it hears what to train, then answers one step after another."""
    pipe, parent = Pipe(int(descriptor)), os.getppid()
    try:
        share = Share(int(memory), *pipe.hear())
        while os.getppid() == parent:
            if pipe.connection.poll(PULSE):
                pipe.tell(share(unpacked(*pipe.hear())))
    except (EOFError, ConnectionError):
        pass  # the main process has gone
    except AntiphonError as error:
        kind = next(each for each in type(error).mro() if each.__module__ == errors.__name__)
        with suppress(OSError):
            pipe.tell({"refused": (kind.__name__, error.what, error.where, error.got, error.do)})
    except BaseException:
        with suppress(OSError):
            pipe.tell({"error": traceback.format_exc()})
    os._exit(0)
