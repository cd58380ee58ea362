"""The decoding processes: started, watched, replaced when they die or hang, and exchanged when a model has changed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any

from antiphon.core.errors import BundleError
from antiphon.core.machine import cores
from antiphon.serving.batcher import Batcher, Job, settle
from antiphon.serving.channel import Message, packed, received
from antiphon.serving.logs import tell
from antiphon.serving.metrics import Metrics
from antiphon.serving.models import Served
from antiphon.serving.nursery import Nursery
from antiphon.serving.refusals import BROKEN, Refusal, wrong
from antiphon.serving.settings import Settings

LOADING = 300.0
"""Seconds that loading all models may take."""
LOOK = 0.25
"""Seconds between looks at processes."""
LONGEST = 30.0
"""Most seconds between attempts to replace a process."""

Models = Mapping[str, Served]


class Process:
    """One decoding process, as the server sees it. It has the models that it was started with, and never others."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.jobs, self.begun, self.heard = fleet, list[Job](), 0.0, 0.0
        self.listening: asyncio.Task[None] | None = None
        self.retired, self.cause, self.number = False, "died", 0

    async def start(self, models: Models) -> dict[str, tuple[float, float]]:
        """Wait until it has loaded and tried all models; how fast each was. Raises `BundleError`."""
        ours, theirs = socket.socketpair()
        with theirs:
            self.reader, self.writer = await asyncio.open_connection(sock=ours)
            pytorch = any(model.engine == "PyTorch" for model in models.values())
            self.number = await self.fleet.nursery.bear(theirs, pytorch=pytorch)
        self.send({"do": "load", "models": {name: list(model.copies) for name, model in models.items()}})
        try:
            message = await asyncio.wait_for(received(self.reader), LOADING)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            what = "takes too long to load" if isinstance(error, TimeoutError) else "the process that loads it died"
            raise BundleError(what, where=", ".join(models)) from None
        if message["is"] == "broken":
            where = ", ".join(map(str, models[message["model"]].paths))
            raise BundleError(message["what"], where=where, got=message["got"], do=message["do"])
        self.listening = asyncio.create_task(self._listen())
        paces: dict[str, tuple[float, float]] = message["paces"]
        return paces

    def send(self, message: Message) -> None:
        """Send without waiting; to one that has died, in vain."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            self.writer.write(packed(message))

    def begin(self, jobs: list[Job]) -> None:
        """Start with a batch."""
        self.jobs, self.begun = jobs, asyncio.get_running_loop().time()
        self.heard = self.begun
        rows = [{"id": job.id, "inputs": job.inputs, "stream": job.partials is not None, **job.row} for job in jobs]
        self.send({**jobs[0].task, "jobs": rows})

    def give_up(self, job: Job) -> None:
        """Nobody waits for this one."""
        self.send({"do": "cancel", "id": job.id})

    async def _listen(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                message = await received(self.reader)
                self.heard = asyncio.get_running_loop().time()
                if message["is"] == "partial":
                    self._partial(message)
                elif message["is"] == "early":
                    self._early(message)
                elif message["is"] == "answered":
                    jobs, self.jobs = self.jobs, []
                    self.fleet.answered(self, jobs, message["results"], self.heard - self.begun)
        self.close()
        self.fleet.died(self)

    def _partial(self, message: Message) -> None:
        for job in self.jobs:
            if job.id == message["id"] and job.partials is not None:
                job.partials.put_nowait(message["text"])

    def _early(self, message: Message) -> None:
        for job in self.jobs:
            if job.id == message["id"]:
                settle(job, message["result"])

    def end(self, cause: str = "") -> None:
        """End it now, whatever it is at."""
        self.cause = cause or self.cause
        if self.number:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.number, signal.SIGKILL)

    def close(self) -> None:
        """It has gone, or is to go: its number may be that of another process from now on."""
        self.number = 0
        self.writer.close()


class Fleet:
    """All processes of the present models."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.size = settings.processes or cores(os.environ)
        self.models: Models = {}
        self.nursery = Nursery()
        self.processes: list[Process] = []
        self.everybody: set[Process] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.ending = False
        self.batcher = Batcher(settings, metrics, lambda: len(self.processes))

    async def load(self, models: Models) -> None:
        """Start processes with these models, and let them take the place of those before once all have answered.

        Raises `BundleError`; those before then go on.
        """
        started = await asyncio.gather(*(self._start(models) for _ in range(self.size)), return_exceptions=True)
        if broken := [each for each in started if isinstance(each, BaseException)]:
            for each in started:
                if isinstance(each, Process):
                    self._retire(each)
            raise broken[0]
        before, self.models, self.batcher.open = self.processes, models, True
        self.processes = [each for each in started if each in self.everybody]  # the others died since
        for process in before:
            self._retire(process)
        for _ in range(len(started) - len(self.processes)):
            self._spawn(self._replace(models))
        for process in self.processes:
            self.batcher.free(process)

    async def _start(self, models: Models) -> Process:
        process = Process(self)
        self.everybody.add(process)
        try:
            paces = await process.start(models)
        except BaseException:
            self.everybody.discard(process)
            process.end()
            process.close()
            raise
        for name, (cost, seconds) in paces.items():
            self.batcher.measured(name, cost, seconds)
        return process

    def _retire(self, process: Process) -> None:
        """It ends with the batch that it is at."""
        process.retired = True
        if process in self.batcher.idle:
            self.batcher.idle.remove(process)
        if not process.jobs:
            process.end()

    def answered(self, process: Process, jobs: list[Job], results: dict[str, Any], seconds: float) -> None:
        """A process has done a batch."""
        found = {
            job.id: _outcome(job, results.get(job.id, {"failed": "lost"})) for job in jobs if not job.future.done()
        }
        self.metrics.batch_seconds.observe(seconds)
        if process.retired:
            process.end()
        self.batcher.answered(process, jobs, found, seconds, free=not process.retired)

    def died(self, process: Process) -> None:
        """A process has gone, wanted or not."""
        self.everybody.discard(process)
        if process in self.batcher.idle:
            self.batcher.idle.remove(process)
        if not (process.retired or self.ending):
            self.metrics.restarts.labels(process.cause).inc()
            tell("process lost", level="error", cause=process.cause, requests=[job.id for job in process.jobs] or None)
        if process in self.processes:
            self.processes.remove(process)
            self._spawn(self._replace(self.models))
        if process.jobs:
            self.batcher.lost(process.jobs)

    async def _replace(self, models: Models) -> None:
        delay = 1.0
        while not self.ending and models is self.models:
            try:
                process = await self._start(models)
            except (BundleError, OSError) as error:
                tell("process not replaced", level="error", error=type(error).__name__, retry=delay)
                await asyncio.sleep(delay)
                delay = min(LONGEST, 2 * delay)
                continue
            if self.ending or models is not self.models:
                return self._retire(process)
            self.processes.append(process)
            tell("process replaced")
            return self.batcher.free(process)

    async def watch(self) -> None:
        """Replace what gives no sign of life."""
        while True:
            await asyncio.sleep(LOOK)
            now = asyncio.get_running_loop().time()
            for process in list(self.everybody):
                if process.jobs and now - process.heard > self.settings.hang:
                    process.end("hung")

    async def end(self) -> None:
        """End all processes."""
        self.ending = True
        self.batcher.stop()
        for task in list(self.tasks):
            task.cancel()
        self.kill()
        await asyncio.gather(*(process.listening for process in list(self.everybody) if process.listening))

    def kill(self) -> None:
        """The same without waiting."""
        for process in self.everybody:
            process.end()
        self.nursery.kill()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def _outcome(job: Job, found: dict[str, Any]) -> Any:
    """What a process says of a job: its result, or a refusal."""
    if "error" in found:
        return wrong(BundleError(found["error"]["what"], do=found["error"]["do"]), "inputs")
    if "failed" in found:
        tell("request failed", level="error", id=job.id, model=job.model, error=found["failed"])
        return Refusal(BROKEN, "the model failed on this request", where=job.id, do="tell who runs this server")
    return found
