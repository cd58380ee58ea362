"""Workers, each with a training at a time; what they say comes in one queue. Here they are processes of this machine;
`cluster.py` has those of others."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from antiphon.core.errors import TrainingError
from antiphon.core.machine import cores
from antiphon.tuning.worker import lines

BEGIN = "import sys; sys.path[:] = sys.argv[2:]; from antiphon.tuning.worker import work; work(sys.argv[1])"

LIVES = 3
"""Processes that one training may cost before it is given up."""

TICK = 0.25
"""Seconds between two looks at signals and at the clock."""


@dataclass(frozen=True)
class Job:
    """A training: its name among all jobs, its run folder, its settings; with `judge` its model is judged as well."""

    name: str
    run: Path
    settings: Mapping[str, Any]
    judge: bool = False


class Worker:
    """Does one job at a time, and puts what it says of it in the queue of its crew. Override all."""

    job: Job | None = None

    def tell(self, **message: Any) -> None:
        """Send one message; where it is gone, `gone` comes."""
        raise NotImplementedError

    def close(self) -> None:
        """End it, whatever it does: what counts is on disk."""
        raise NotImplementedError


Heard = queue.Queue[tuple[Worker, dict[str, Any]]]
Hire = Callable[[Heard, IO[bytes]], Worker]
"""Gives a new worker for a queue; what cannot be said to a search goes to the log."""


class Process(Worker):
    """A process of this machine; it never hears Ctrl-C itself, and ends when its pipe does."""

    def __init__(self, heard: Heard, log: IO[bytes], held: int, threads: int) -> None:
        mine, theirs = os.pipe()
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", BEGIN, str(theirs), *sys.path], stdin=subprocess.PIPE, stdout=log, stderr=log,
            pass_fds=(theirs, held), env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.said = os.fdopen(mine, encoding="utf-8")
        self.listener = threading.Thread(target=self._listen, args=(heard,), daemon=True)
        self.listener.start()

    def _listen(self, heard: Heard) -> None:
        with suppress(ValueError):  # a line torn by a kill
            for message in lines(self.said):
                heard.put((self, message))
        heard.put((self, {"event": "gone"}))

    def tell(self, **message: Any) -> None:
        """Send one message; where it is gone, `gone` comes."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """End it, whatever it does: what counts is on disk."""
        self.process.kill()
        self.process.wait()
        self.listener.join()
        self.said.close()
        with suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()


def processes(size: int, held: IO[bytes]) -> Hire:
    """Processes of this machine, which share its cores and hold the study as long as they live."""
    threads = max(1, cores(os.environ) // size)
    return lambda heard, log: Process(heard, log, held.fileno(), threads)


class Crew:
    """So many workers; `take` gives what they say, and `busy` which jobs are in hand."""

    def __init__(self, size: int, out: Path, hire: Hire) -> None:
        self.heard: Heard = queue.Queue()
        self.log, self.hire = open(out / "workers.log", "ab"), hire  # noqa: SIM115
        self.size, self.workers, self.lost = size, list[Worker](), dict[str, int]()

    @property
    def busy(self) -> list[Worker]:
        """Workers with a job."""
        return [worker for worker in self.workers if worker.job is not None]

    def give(self, job: Job, files: Mapping[str, Path], command: str) -> None:
        """Have an idle worker, or a new one, do a job."""
        worker = next((each for each in self.workers if each.job is None), None)
        if worker is None:
            worker = self.hire(self.heard, self.log)
            self.workers.append(worker)
        worker.job = job
        worker.tell(run=str(job.run), settings=dict(job.settings), command=command, train=str(files["train"]),
                    valid=str(files["valid"]), judge=str(files["judge"]) if job.judge else None)  # fmt: skip

    def take(self) -> tuple[Worker, dict[str, Any]] | None:
        """What a worker said, or None after a while. One that is gone is left out of the crew, with its job in hand."""
        with suppress(queue.Empty):
            worker, message = self.heard.get(timeout=TICK)
            if message["event"] == "gone":
                worker.close()
                self.workers.remove(worker)
            return worker, message
        return None

    def again(self, job: Job) -> bool:
        """Whether a job whose worker died is worth another."""
        self.lost[job.name] = self.lost.get(job.name, 0) + 1
        return self.lost[job.name] < LIVES

    def stop(self) -> None:
        """Have all trainings write a checkpoint and end."""
        for worker in self.busy:
            worker.tell(say="stop")

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()
        self.workers = []
        self.log.close()


class Jobs:
    """What a crew is to do. Override all."""

    def next(self) -> Job | None:
        """The next training; None where nothing is left to begin."""
        raise NotImplementedError

    def heard(self, job: Job, message: Mapping[str, Any]) -> str:
        """What a training said: `started`, `step`, or `validated`; the answer to the last is `go` or `prune`."""
        raise NotImplementedError

    def ended(self, job: Job, message: Mapping[str, Any]) -> None:
        """A training is over: `ended`, or `failed` with a text."""
        raise NotImplementedError


def finish(crew: Crew, jobs: Jobs, files: Mapping[str, Path], command: str, stopped: Callable[[], bool]) -> bool:
    """Do all jobs; gives False where `stopped` said so before: trainings then have checkpoints to go on from."""
    waiting, stopping = list[Job](), False
    while True:
        stopping = _stop(crew, stopping, stopped())
        while not stopping and len(crew.busy) < crew.size and (job := waiting.pop() if waiting else jobs.next()):
            crew.give(job, files, command)
        if not crew.busy:
            return not stopping
        if (heard := crew.take()) is not None:
            waiting += _handled(crew, jobs, *heard)


def _stop(crew: Crew, before: bool, now: bool) -> bool:
    if now and not before:
        crew.stop()
    return before or now


def _handled(crew: Crew, jobs: Jobs, worker: Worker, message: Mapping[str, Any]) -> Sequence[Job]:
    """Pass on what a worker said; gives the job that has to be given again, if there is one."""
    job, event = worker.job, message["event"]
    if job is None or event == "ready":
        return ()
    if event == "lost":
        raise TrainingError("the cluster is lost", got=message["text"], do="mend it; the same command goes on")
    if event == "gone":
        if crew.again(job):
            return (job,)
        message = {"event": "failed", "untrainable": False, "text": f"its process died {LIVES} times; see workers.log"}
    elif event not in ("ended", "failed"):
        if (answer := jobs.heard(job, message)) and event == "validated":
            worker.tell(say=answer)
        return ()
    worker.job = None
    if not message.get("interrupted"):
        jobs.ended(job, message)
    return ()


def all_cores() -> int:
    """Workers that suit this machine: one for a GPU, else one a core."""
    import torch

    return 1 if torch.cuda.is_available() else min(8, cores(os.environ))


def never_begun(text: str) -> TrainingError:
    """The error where not even the recipe's own settings can be trained."""
    return TrainingError(f"the recipe's own settings cannot be trained: {text}", do="train with them first")
