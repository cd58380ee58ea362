"""Requests on their way: a queue bounded in tokens, batches of what can be decoded together, and what each may cost."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from antiphon.serving.metrics import Metrics
from antiphon.serving.refusals import BROKEN, FULL, LATE, UNREADY, WRONG, Refusal
from antiphon.serving.settings import Settings

CRASHES = 2
"""Times that a request may bring a process down; then it is refused for a while."""
REMEMBERED, FORGOTTEN = 1000, 600.0
"""Requests that are refused so, at most, and the seconds after which they may try again: it may not have been they."""
SHARE = 0.5
"""Of its time, what a request may be expected to wait."""
FORGET = 0.8
"""What older measurements weigh beside a new batch."""


@dataclass(eq=False)
class Job:
    """One request: what a decoding process needs to know, and what has become of it.

    Jobs of equal `key` have the same `task` (model, adapter and how to search) and may be decoded together, unless they
    want to be `alone`; `inputs` and `row` are of this one only. `cost` is in source tokens times
    hypotheses, `deadline` on the clock of the event loop. The `future` holds the answers or a `Refusal`; what has been
    found until now goes to `partials`, where somebody listens; None ends that.
    """

    id: str
    model: str
    key: Hashable
    task: dict[str, Any]
    inputs: list[dict[str, Any]]
    cost: int
    deadline: float
    future: asyncio.Future[Any]
    row: dict[str, Any] = field(default_factory=dict)
    alone: bool = False
    partials: asyncio.Queue[str | None] | None = None
    queued: float = 0.0
    crashes: int = 0
    worker: Decoder | None = None

    @property
    def fingerprint(self) -> bytes:
        """What stands for the request where it is remembered."""
        return hashlib.sha256(json.dumps([self.task, self.inputs, self.row]).encode()).digest()


class Decoder(Protocol):
    """What decodes batches, one at a time, and tells the batcher when it has."""

    def begin(self, jobs: list[Job]) -> None:
        """Start with a batch."""
        ...

    def give_up(self, job: Job) -> None:
        """Nobody waits for this one."""
        ...


@dataclass
class Pace:
    """How fast a model is: tokens times hypotheses a second of one process, the latest batches counting most."""

    cost: float = 0.0
    seconds: float = 0.0

    def add(self, cost: float, seconds: float) -> None:
        """One more batch."""
        self.cost, self.seconds = FORGET * self.cost + cost, FORGET * self.seconds + seconds

    @property
    def rate(self) -> float:
        """Infinite before anything was measured."""
        return self.cost / self.seconds if self.seconds else float("inf")


@dataclass
class Batcher:
    """The one queue, which is `open` once the models have answered something. Decoders that have nothing to do are
    `idle`; `decoders` tells how many there are in all: none for a while, where the last one is being replaced.

    `waiting` is what the queue costs, `pending` that with what is running, by model.
    """

    settings: Settings
    metrics: Metrics
    decoders: Callable[[], int]
    queue: deque[Job] = field(default_factory=deque)
    running: set[Job] = field(default_factory=set)
    idle: list[Decoder] = field(default_factory=list)
    paces: dict[str, Pace] = field(default_factory=dict)
    refused: OrderedDict[bytes, float] = field(default_factory=OrderedDict)
    open: bool = False
    waiting: int = 0
    pending: Counter[str] = field(default_factory=Counter)
    timer: asyncio.TimerHandle | None = None

    def submit(self, job: Job) -> None:
        """Accept a request, or raise a `Refusal`."""
        if self.refused and self.refused.get(job.fingerprint, 0.0) > _now():
            raise Refusal(WRONG, "this request has stopped the model before", do="change it", cause="quarantine")
        if not self.open:
            raise Refusal(UNREADY, "no model is ready", do="try again soon", cause="unready", retry=1)
        seconds, patience = self.expected(), SHARE * (job.deadline - _now())
        if self.queue and (self.waiting + job.cost > self.settings.queue or seconds > patience):
            what = f"too much is waiting: {self.waiting:,} of {self.settings.queue:,} tokens times hypotheses"
            raise Refusal(FULL, what, do="try again later", cause="full", retry=max(seconds, 0.1))
        job.queued = _now()
        self.queue.append(job)
        self.waiting += job.cost
        self.pending[job.model] += job.cost
        self.pump()

    def expected(self) -> float:
        """Seconds until all that was accepted is answered."""
        seconds = sum(cost / self._pace(model).rate for model, cost in self.pending.items())
        return seconds / max(1, self.decoders())

    def _pace(self, model: str) -> Pace:
        return self.paces.setdefault(model, Pace())

    def measured(self, model: str, cost: float, seconds: float) -> None:
        """How long a batch took."""
        self._pace(model).add(cost, seconds)

    def pump(self) -> None:
        """Give batches to decoders that are idle, as soon as the batches are full or their first has waited enough."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        while self.idle and self.queue:
            batch, full = self._next()
            left = 0.0 if full else batch[0].queued + self.settings.wait - _now()
            if left > 0:
                self.timer = asyncio.get_running_loop().call_later(left, self.pump)
                break
            self._begin(batch)
        self.metrics.queue(self.waiting, len(self.queue), len(self.running))

    def _next(self) -> tuple[list[Job], bool]:
        """The oldest request with those that can be decoded with it, and whether there is no room for more."""
        first, batch, size = self.queue[0], list[Job](), 0
        for job in self.queue:
            fits = size + len(job.inputs) <= self.settings.batch
            if job is first or (job.key == first.key and fits and not job.alone and not first.alone):
                batch.append(job)
                size += len(job.inputs)
            if size >= self.settings.batch:
                break
        return batch, first.alone or size >= self.settings.batch

    def _begin(self, batch: list[Job]) -> None:
        gone, now = set(batch), _now()
        self.queue = deque(job for job in self.queue if job not in gone)
        self.waiting -= sum(job.cost for job in batch)
        for job in batch:
            if job.deadline <= now:
                self._forget(job)
        batch = [job for job in batch if job.deadline > now]
        if not batch:
            return
        decoder = self.idle.pop()
        self.running.update(batch)
        for job in batch:
            job.worker = decoder
        self.metrics.batch(sum(len(job.inputs) for job in batch), [now - job.queued for job in batch])
        decoder.begin(batch)

    def _forget(self, job: Job) -> None:
        """It is neither waiting nor running."""
        self.pending[job.model] -= job.cost
        self.running.discard(job)

    def cancel(self, job: Job) -> None:
        """Nobody waits for this one any more."""
        if job in self.running and job.worker is not None and not job.future.done():
            job.worker.give_up(job)
        elif job in self.queue:
            self.queue.remove(job)
            self.waiting -= job.cost
            self._forget(job)
            self.pump()
        job.future.cancel()

    def answered(
        self, decoder: Decoder, jobs: list[Job], results: dict[str, Any], seconds: float, *, free: bool
    ) -> None:
        """A decoder has done a batch, and may be `free` for another; a result is the answers, or a `Refusal`."""
        for job in jobs:
            self._forget(job)
        for job in jobs:
            settle(job, results.get(job.id, Refusal(BROKEN, "the answer was lost", where=job.id)))
        if not any(job.future.cancelled() for job in jobs):  # what is given up takes less time
            self.measured(jobs[0].model, sum(job.cost for job in jobs), seconds)
        if free:
            self.free(decoder)

    def free(self, decoder: Decoder) -> None:
        """A decoder has nothing to do."""
        self.idle.append(decoder)
        self.pump()

    def lost(self, jobs: list[Job]) -> None:
        """A decoder has died or hung over a batch: each request of it gets another chance by itself, and is refused
        for a while where that ends in the same way."""
        for job in reversed(jobs):
            job.crashes, job.alone, job.worker = job.crashes + 1, True, None
            if job.crashes < CRASHES and not job.future.done():
                self.running.discard(job)
                self.queue.appendleft(job)
                self.waiting += job.cost
                continue
            self._forget(job)
            if job.future.done():
                continue
            self.refused[job.fingerprint] = _now() + FORGOTTEN
            while len(self.refused) > REMEMBERED:
                self.refused.popitem(last=False)
            settle(job, Refusal(BROKEN, "the model stopped over this request", where=job.id, cause="crash"))
        self.pump()

    def stop(self) -> None:
        """Refuse all that is still waiting, and all that comes."""
        self.open = False
        for job in [*self.queue, *self.running]:
            settle(job, Refusal(UNREADY, "the server ends", do="try again soon", cause="draining", retry=1))


async def result(job: Job) -> Any:
    """The answers, by the deadline. Raises `Refusal`."""
    done, _ = await asyncio.wait([job.future], timeout=max(0.0, job.deadline - _now()))
    if not done:
        raise late()
    return job.future.result()


def late() -> Refusal:
    """What is said when the time is over."""
    return Refusal(LATE, "there was no answer in time", do="send less, or try again later", cause="late", retry=1)


def settle(job: Job, outcome: Any) -> None:
    """This has become of a job, if nothing has before: its answers, or a `Refusal`."""
    if job.future.done():
        return
    if isinstance(outcome, Refusal):
        job.future.set_exception(outcome)
    else:
        job.future.set_result(outcome)


def _now() -> float:
    return asyncio.get_running_loop().time()
