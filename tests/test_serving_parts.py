"""Parts of the server by themselves: settings, the log, and processes that die at a bad moment."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import platform
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from antiphon.core.errors import ConfigError
from antiphon.serving import logs, worker
from antiphon.serving.app import _lines, create
from antiphon.serving.channel import Channel
from antiphon.serving.fleet import Fleet, Process
from antiphon.serving.metrics import Metrics
from antiphon.serving.nursery import Nursery
from antiphon.serving.service import Service
from antiphon.serving.settings import Settings


@pytest.mark.parametrize(
    "given",
    [
        {"processes": -1}, {"processes": 0}, {"inputs": 0}, {"batch": 0}, {"timeout": float("nan")}, {"timeout": 0.0},
        {"wait": -1.0}, {"hang": float("inf")}, {"cors": ("https://example.org/",)}, {"cors": ("example.org",)},
    ],
)  # fmt: skip
def test_what_no_server_can_work_with_is_refused(given: dict[str, Any]) -> None:
    [name] = given
    with pytest.raises(ConfigError, match=f"--{name}: no server can work with this"):
        Settings(**given).check()
    Settings(processes=1, wait=0.0, watch=0.0, cors=("*", "https://example.org:8000")).check()


def test_text_is_read_as_files_are() -> None:
    assert _lines("\ufeffa b\r\nc\n".encode(), None).inputs == ["a b", "c"]


class Pipe:
    """What standard error leads to: a reader that is `paused`, or `gone`."""

    def __init__(self) -> None:
        self.paused, self.gone, self.text = threading.Event(), False, ""
        self.paused.set()

    def write(self, text: str) -> None:
        self.paused.wait()
        if self.gone:
            raise BrokenPipeError
        self.text += text

    def flush(self) -> None:
        pass


def test_the_log_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe()
    monkeypatch.setattr("sys.stderr", pipe)
    monkeypatch.setattr(logs, "WAITING", 20)
    monkeypatch.setattr(logs, "_log", logs._Log())
    pipe.paused.clear()
    for number in range(30):
        logs.tell("tick", number=number)
    logs.flush(0.05)
    pipe.paused.set()
    logs.flush()
    told = [json.loads(line) for line in pipe.text.splitlines()]
    assert [line["number"] for line in told if line["event"] == "tick"] == list(range(20))
    while not logs._log.lines and "log lines lost" not in pipe.text:
        pass
    assert json.loads(pipe.text.splitlines()[-1])["lines"] == 10
    pipe.gone = True
    logs.tell("nobody reads")
    logs.flush()
    pipe.gone = False
    logs.tell("somebody reads")
    logs.flush()
    assert json.loads(pipe.text.splitlines()[-1])["event"] == "somebody reads"


def test_a_decoding_process_at_rest_gives_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given = threading.Event()
    monkeypatch.setattr(worker, "REST", 0.01)
    monkeypatch.setattr(worker, "give_back", given.set)
    server, process = socket.socketpair()
    threading.Timer(0.2, server.close).start()
    with process, pytest.raises(EOFError):
        worker.Worker(Channel(process)).run()
    assert given.is_set()


HELD = """
from pathlib import Path
from antiphon.serving.worker import give_back
def pages(): return int(Path("/proc/self/statm").read_text().split()[1])
blocks = [bytearray(100_000) for _ in range(1000)]
last, full = blocks.pop(), pages()
del blocks
held = pages()
give_back()
print(full - held, held - pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
def test_what_was_freed_goes_back_to_the_system() -> None:
    kept, given = map(int, subprocess.check_output([sys.executable, "-c", HELD], text=True).split())
    assert given > 20_000 > kept  # of some 24,400 pages


def test_a_process_that_dies_while_others_load_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def load() -> None:
        fleet, made, replaced = Fleet(Settings(processes=2), Metrics()), list[Process](), list[Any]()

        async def start(models: Any) -> Process:
            made.append(process := Process(fleet))
            fleet.everybody.add(process)
            if len(made) == 2:
                fleet.died(made[0])
            return process

        async def replace(models: Any) -> None:
            replaced.append(models)

        monkeypatch.setattr(fleet, "_start", start)
        monkeypatch.setattr(fleet, "_replace", replace)
        await fleet.load(models := {})
        await asyncio.sleep(0)
        assert fleet.processes == list(fleet.batcher.idle) == made[1:]
        assert replaced == [models]

    asyncio.run(load())


def test_a_nursery_that_lacks_pytorch_is_replaced_where_a_model_wants_it() -> None:
    async def course() -> None:
        nursery, ends = Nursery(), [socket.socketpair() for _ in range(2)]
        try:
            first = await nursery.bear(ends[0][1], pytorch=False)
            assert nursery.process is not None
            assert "pytorch" not in nursery.process.args
            second = await nursery.bear(ends[1][1], pytorch=True)
            assert "pytorch" in nursery.process.args
            assert first != second
            os.kill(first, 0)  # it lives on
        finally:
            nursery.kill()
            for each in (*ends[0], *ends[1]):
                each.close()

    asyncio.run(course())


def test_no_request_goes_through_a_thread() -> None:
    """What is no coroutine is run in one, which costs each request and leaves as many threads as there were clients."""
    left, calls = [create(Service({}, Settings())).app], list[Any]()  # type: ignore[attr-defined]
    while left:
        router = left.pop()
        calls += [each.dependency for each in getattr(router, "dependencies", [])]
        for route in getattr(router, "routes", []):
            left += [route.original_router] if hasattr(route, "original_router") else []
            calls += [route.endpoint] if hasattr(route, "endpoint") else []
            calls += [each.dependency for each in getattr(route, "dependencies", [])]
    assert len(calls) > 15
    assert "_query" in {call.__name__ for call in calls}
    assert [call for call in calls if not inspect.iscoroutinefunction(call)] == []
