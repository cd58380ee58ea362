"""Helping processes: the same answers, whatever becomes of them, and none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from antiphon.core.errors import ConfigError
from antiphon.inference import predictor as predicting
from antiphon.inference.helpers import Helpers, possible
from antiphon.inference.predictor import Predictor
from test_predictor import make, said, texts

pytestmark = pytest.mark.skipif(not possible(), reason="processes cannot be copied here")


def test_many_processes_answer_as_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "SHARE", 4)
    bundle, inputs = make("transformer"), texts(40)
    expected = said(list(Predictor(bundle, processes=1).predict(inputs)))
    for processes, window in ((2, 40), (3, 16)):
        several = Predictor(bundle, processes=processes)
        assert several._helpers(40) == processes
        assert said(list(several.predict(inputs, batch_size=8, window=window, banned=["qq"]))) == expected


def test_what_a_helper_cannot_do_is_done_here() -> None:
    here = os.getpid()

    def work(number: int) -> int:
        if os.getpid() != here and number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if os.getpid() != here and number == 5:
            raise MemoryError
        return number * 2

    helpers = Helpers(work, 2)
    assert dict(helpers.map([1])) == {0: 2}
    assert dict(helpers.map(range(8))) == {number: number * 2 for number in range(8)}
    assert helpers.lost == 1
    for process in helpers.pipes.values():
        process.kill()
        process.join()
    assert dict(helpers.map(range(4))) == {number: number * 2 for number in range(4)}
    assert helpers.lost == 2
    helpers.close()


def test_an_error_is_the_same_as_without_helpers() -> None:
    def work(number: int) -> int:
        raise ConfigError(f"no {number}")

    helpers = Helpers(work, 2)
    with pytest.raises(ConfigError, match="no"):
        list(helpers.map([1, 2, 3]))
    helpers.close()


def test_nobody_stays_when_the_main_process_is_killed() -> None:
    script = """
import os, time
from antiphon.inference.helpers import Helpers
helpers = Helpers(lambda seconds: time.sleep(seconds), 3)
print(*(process.pid for process in helpers.pipes.values()), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        helpers = [int(number) for number in process.stdout.readline().split()]
        process.kill()
    assert len(helpers) == 3
    deadline = time.monotonic() + 20
    while any(_lives(number) for number in helpers):
        assert time.monotonic() < deadline, "a helper goes on"
        time.sleep(0.02)


def _lives(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_leaving_early_ends_the_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "SHARE", 4)
    made: list[Helpers[object, object]] = []
    original = Helpers.__init__
    monkeypatch.setattr(Helpers, "__init__", lambda self, *given: (original(self, *given), made.append(self))[0])
    answers = Predictor(make(), processes=2).predict(texts(40), window=20)
    next(answers)
    processes = list(made[0].pipes.values())
    assert [process.is_alive() for process in processes] == [True, True]
    answers.close()
    assert not any(process.is_alive() for process in processes)


def test_no_copies_beside_other_threads() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert not possible()
        assert Predictor(make(), processes=4)._helpers(1000) == 1
    finally:
        done.set()
        thread.join()


def test_at_least_one_process() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Predictor(make(), processes=0)
