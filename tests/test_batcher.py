"""The queue: what is decoded together, what is refused, what is forgotten, and what is tried again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import pytest

from antiphon.serving.batcher import Batcher, Job
from antiphon.serving.metrics import Metrics
from antiphon.serving.refusals import Refusal
from antiphon.serving.settings import Settings


class Decoder:
    """Holds batches until it is told to answer."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher, self.batches, self.given_up = batcher, list[list[Job]](), list[Job]()

    def begin(self, jobs: list[Job]) -> None:
        self.batches.append(jobs)

    def give_up(self, job: Job) -> None:
        self.given_up.append(job)

    def answer(self, seconds: float = 1.0) -> None:
        jobs = self.batches[-1]
        self.batcher.answered(self, jobs, {job.id: job.id for job in jobs}, seconds, free=True)

    @property
    def ids(self) -> list[list[str]]:
        return [[job.id for job in batch] for batch in self.batches]


def queue(**settings: Any) -> tuple[Batcher, Decoder]:
    batcher = Batcher(Settings(**{"wait": 0.0, **settings}), Metrics(), lambda: 1, open=True)
    return batcher, Decoder(batcher)


def job(name: str, cost: int = 10, *, key: str = "", seconds: float = 30.0, **more: Any) -> Job:
    loop = asyncio.get_running_loop()
    rows = [{"source": name}] * more.pop("inputs", 1)
    return Job(name, "m", key, {"key": key}, rows, cost, loop.time() + seconds, loop.create_future(), **more)


def looped(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


@looped
async def test_equals_go_together_oldest_first() -> None:
    batcher, decoder = queue(batch=4)
    for name, key in (("a", "x"), ("b", "y"), ("c", "x"), ("d", "x"), ("e", "x"), ("f", "x")):
        batcher.submit(job(name, key=key, inputs=1))
    batcher.submit(job("many", key="x", inputs=9))
    batcher.submit(job("alone", key="x", alone=True))
    batcher.free(decoder)
    for _ in range(4):
        decoder.answer()
    assert decoder.ids == [["a", "c", "d", "e"], ["b"], ["f"], ["many"], ["alone"]]


@looped
async def test_a_batch_waits_for_company_but_not_for_long() -> None:
    batcher, decoder = queue(wait=0.05, batch=3)
    batcher.free(decoder)
    batcher.submit(job("a"))
    await asyncio.sleep(0.02)
    batcher.submit(job("b"))
    assert decoder.ids == []
    await asyncio.sleep(0.05)
    assert decoder.ids == [["a", "b"]]
    decoder.answer()
    for name in "cde":
        batcher.submit(job(name))
    assert decoder.ids[1:] == [["c", "d", "e"]]


@looped
async def test_the_queue_is_bounded_in_tokens_and_in_time() -> None:
    batcher, decoder = queue(queue=100)
    batcher.submit(job("long", 1000))  # an empty queue takes anything that a request may be
    with pytest.raises(Refusal, match="429") as refused:
        batcher.submit(job("b", 10))
    assert refused.value.headers == {"Retry-After": "1"}
    batcher.free(decoder)
    batcher.submit(job("c", 60))
    batcher.submit(job("d", 40))
    with pytest.raises(Refusal):
        batcher.submit(job("e", 1))
    decoder.answer(seconds=10.0)  # 100 a second
    decoder.answer(seconds=1.0)
    batcher.submit(job("running", 100))
    batcher.submit(job("f", 50))
    with pytest.raises(Refusal):
        batcher.submit(job("impatient", 10, seconds=2.0))
    batcher.submit(job("patient", 10, seconds=20.0))
    assert batcher.waiting == 60


@looped
async def test_what_nobody_waits_for_is_not_begun() -> None:
    batcher, decoder = queue()
    jobs = [job("a"), job("late", seconds=0.01), job("left"), job("b")]
    for each in jobs:
        batcher.submit(each)
    batcher.cancel(jobs[2])
    await asyncio.sleep(0.02)
    batcher.free(decoder)
    assert decoder.ids == [["a", "b"]]
    batcher.cancel(jobs[0])
    assert decoder.given_up == [jobs[0]]
    decoder.answer()
    assert jobs[0].future.cancelled()
    assert jobs[3].future.result() == "b"
    assert (batcher.waiting, sum(batcher.pending.values()), batcher.running) == (0, 0, set())


@looped
async def test_a_crash_costs_one_request_at_most() -> None:
    batcher, decoder = queue()
    jobs = [job(name) for name in "abc"]
    for each in jobs:
        batcher.submit(each)
    batcher.free(decoder)
    assert decoder.ids == [["a", "b", "c"]]
    batcher.lost(jobs)
    for _ in range(3):
        batcher.free(decoder)
        if decoder.ids[-1] == ["b"]:
            batcher.lost([jobs[1]])
        else:
            decoder.batcher.idle.clear()
            jobs_done = decoder.batches[-1]
            batcher.answered(decoder, jobs_done, {jobs_done[0].id: "ok"}, 1.0, free=False)
    assert decoder.ids[1:] == [["a"], ["b"], ["c"]]
    assert [jobs[0].future.result(), jobs[2].future.result()] == ["ok", "ok"]
    assert jobs[1].future.exception().status_code == 500  # type: ignore[union-attr]
    with pytest.raises(Refusal, match="stopped the model before"):
        batcher.submit(job("b"))
    assert sum(batcher.pending.values()) == 0
    batcher.refused = OrderedDict.fromkeys(batcher.refused, asyncio.get_running_loop().time())
    batcher.submit(job("b"))  # after a while


@looped
async def test_a_closed_queue_refuses() -> None:
    batcher, _ = queue()
    waiting = job("a")
    batcher.submit(waiting)
    batcher.stop()
    assert waiting.future.exception().status_code == 503  # type: ignore[union-attr]
    with pytest.raises(Refusal, match="503"):
        batcher.submit(job("b"))
