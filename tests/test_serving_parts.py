"""Parts of the server by themselves: settings, the log, and processes that die at a bad moment."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from antiphon.core.errors import ConfigError
from antiphon.serving import logs
from antiphon.serving.app import _lines
from antiphon.serving.fleet import Fleet, Process
from antiphon.serving.metrics import Metrics
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
