"""A server's life: it begins with what is good, goes on through crashes and changes, and ends when all is answered."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from antiphon.inference.files import read, write_folder
from antiphon.inference.strict_json import dump_json
from commands import Call, calling, refused  # noqa: F401
from served import SOURCES, Served, model, served

SLOW = 150
"""Tokens of an answer of the model that is slow."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models; tests copy what they change."""
    folder = tmp_path_factory.mktemp("models")
    for name, given in {"one": {}, "two": {"seed": 2}, "slow": {"least": SLOW}}.items():
        model(folder / name, **given)
    return folder


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as found:
        yield found


def busy(server: Served) -> bool:
    return "antiphon_running_requests 0.0" not in httpx.get(f"{server.url}/metrics").text


def asked(server: Served, pool: ThreadPoolExecutor, *inputs: str, **more: Any) -> Future[httpx.Response]:
    """A request that is being decoded."""
    work = pool.submit(server.ask, *inputs, **more)
    server.until(lambda: busy(server))
    return work


def test_what_cannot_be_served_is_said_in_one_line(models: Path, tmp_path: Path, call: Call) -> None:
    broken = shutil.copytree(models / "one", tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(damaged(broken))
    assert "damaged" in refused(call, "serve", broken)
    assert "there is no model here" in refused(call, "serve", tmp_path / "nothing")
    assert "two models have one name" in refused(call, "serve", f"a={models / 'one'}", f"a={models / 'two'}")
    assert "cannot be the name" in refused(call, "serve", f"a b={models / 'one'}")
    assert "no model to serve" in refused(call, "serve")
    assert "no key in the file" in refused(call, "serve", models / "one", "--keys", os.devnull, "--port", "0")
    assert "no such port" in refused(call, "serve", models / "one", "--port", "70000")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "in use" in refused(call, "serve", models / "one", "--port", str(taken.getsockname()[1]))


def test_a_model_that_only_fails_to_load_is_told_of_too(models: Path, tmp_path: Path, call: Call) -> None:
    _, files = read(models / "one")
    config = json.loads(files["config.json"])
    config["model"]["width"] = 32
    write_folder(tmp_path / "odd", {**files, "config.json": dump_json(config)})
    code, _, errors = call("serve", tmp_path / "odd", "--port", "0", "--processes", "1")
    *events, last = errors.splitlines()
    assert code == 2
    assert last.startswith(f"error: {tmp_path / 'odd'}: model.safetensors: does not fit the configuration")
    assert [json.loads(event)["event"] for event in events] == ["listening"]


def damaged(folder: Path) -> bytes:
    """The weights with one bit changed."""
    content = (folder / "model.safetensors").read_bytes()
    return content[:-1] + bytes([content[-1] ^ 1])


def test_hangs_crashes_changes_and_the_end(models: Path, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """One server goes through all of it, for it costs seconds to start one."""
    changing = shutil.copytree(models / "one", tmp_path / "changing")
    with served(f"m={changing}", models / "slow", "--processes", "1", "--hang", "1.5", "--watch", "0.3", "--timeout",
                "60", folder=tmp_path) as server:  # fmt: skip
        before = server.texts(*SOURCES)
        _hang(server, pool)
        _crash(server, pool)
        _change(server, models, changing, before)
        _end(server, pool)


def _hang(server: Served, pool: ThreadPoolExecutor) -> None:
    """A process without a sign of life is replaced, and what it was at is done again."""
    work = asked(server, pool, "ra", *SOURCES[:7], model="slow", beam=30)
    os.kill(server.workers()[0], signal.SIGSTOP)
    assert work.result().status_code == 200
    assert [event["cause"] for event in server.events("process lost")] == ["hung"]


def _crash(server: Served, pool: ThreadPoolExecutor) -> None:
    """A request whose process dies twice fails, and is not tried again; others wait, and are answered."""
    poison = asked(server, pool, "du", *SOURCES[:7], model="slow", beam=30)
    for count in (2, 3):
        server.until(lambda: busy(server) and server.ready())
        os.kill(server.workers()[0], signal.SIGKILL)
        server.until(lambda count=count: len(server.events("process lost")) == count)
        if count == 2:
            assert not server.ready()
            other = pool.submit(server.ask, "ki")
    reply = poison.result()
    assert reply.status_code == 500
    for event in server.events("process lost")[1:]:
        assert event["requests"] == [reply.json()["error"]["where"]]
        assert event["cause"] == "died"
    assert other.result().status_code == 200
    again = server.ask("du", *SOURCES[:7], model="slow", beam=30)
    assert again.status_code == 422
    assert again.json()["error"]["what"] == "this request has stopped the model before"
    assert server.ask("du").status_code == 200


def _change(server: Served, models: Path, changing: Path, before: list[str]) -> None:
    """A broken model is refused and the old one goes on; a good one takes its place, by itself or on SIGHUP."""
    (changing / "model.safetensors").write_bytes(damaged(changing))
    server.until(lambda: bool(server.events("reload")))
    [refused] = server.events("reload")
    assert (refused["model"], refused["outcome"]) == ("m", "refused")
    assert "damaged" in refused["why"]
    assert server.texts(*SOURCES) == before
    shutil.rmtree(changing)
    shutil.copytree(models / "two", changing)
    server.until(lambda: server.events("reload")[-1]["outcome"] == "loaded")
    after = server.texts(*SOURCES)
    assert after != before
    assert 'reloads_total{model="m",outcome="loaded"} 1.0' in server.client.get("/metrics").text
    count = len(server.events("reload"))
    server.process.send_signal(signal.SIGHUP)
    server.until(lambda: len(server.events("reload")) == count + 2)
    assert [event["outcome"] for event in server.events("reload")[-2:]] == ["same", "same"]
    assert server.texts(*SOURCES) == after


def _end(server: Served, pool: ThreadPoolExecutor) -> None:
    """What was accepted is answered, what comes then is not accepted, and the process ends with 0."""
    works = [
        pool.submit(server.ask, source, *SOURCES[:3], model="slow", beam=30) for source in ["lo", "me", "so", "tu"]
    ]
    server.until(lambda: busy(server))
    time.sleep(0.3)
    kept = httpx.Client(base_url=server.url)
    assert kept.get("/healthz").status_code == 200
    server.process.send_signal(signal.SIGTERM)
    server.until(lambda: bool(server.events("draining")))
    assert kept.get("/readyz").status_code == 503
    late = kept.post("/v1/predict", json={"inputs": ["ba"]})
    assert late.status_code == 503
    assert late.headers["retry-after"]
    kept.close()
    assert [work.result().status_code for work in works] == [200] * 4
    assert server.process.wait(30) == 0
    assert server.events("ended")[-1]["code"] == 0
    assert not list(server.file.parent.glob("antiphon-serve-*"))


def test_a_second_signal_ends_it_at_once_and_keys_are_asked_for(
    models: Path, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# of the test\nsesame\nopen-barley\nsésame\n", encoding="utf-8")
    words = [models / "slow", "--processes", "1", "--keys", keys, "--cors", "https://example.org"]
    with served(*words, folder=tmp_path) as server:
        for headers in ({}, {"Authorization": "Bearer sesam"}, {"X-API-Key": ""}, {"X-API-Key": "sesamé".encode()},
                        {"Authorization": "Basic open-barley"}):  # fmt: skip
            reply = server.client.get("/v1/models", headers=headers)
            assert reply.status_code == 401
            assert "wants a key" in reply.json()["error"]["what"]
        translation = {"q": "ba", "source": "a", "target": "b"}
        assert server.client.post("/translate", json=translation).status_code == 401
        assert server.client.post("/translate", json={**translation, "api_key": "sesame"}).status_code == 400
        for headers in ({"X-API-Key": "sésame".encode()}, {"Authorization": "bearer sesame"}):
            assert server.client.get("/v1/models", headers=headers).status_code == 200
        assert server.client.get("/healthz").status_code == 200
        origin = {"Origin": "https://example.org"}
        assert server.client.get("/healthz", headers=origin).headers["access-control-allow-origin"] == origin["Origin"]
        server.client.headers["Authorization"] = "Bearer open-barley"
        assert server.client.get("/v1/models").status_code == 200
        work = pool.submit(server.ask, *SOURCES[:20], beam=30)
        time.sleep(0.5)
        [worker] = server.workers()
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: bool(server.events("draining")))
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 143
        assert time.monotonic() - begun < 1
        with pytest.raises(httpx.TransportError):
            work.result()
        server.until(lambda: _gone(worker), 5)


def _gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_log_that_nobody_reads_any_more_ends_nothing(models: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "antiphon", "serve", str(models / "one"), "--processes", "1", "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=writing, env=environment) as process:
        os.close(writing)
        with os.fdopen(reading) as log:
            url = next(json.loads(line) for line in log)["url"]
            next(line for line in log if json.loads(line)["event"] == "ready")
        assert httpx.post(f"{url}/v1/predict", json={"inputs": SOURCES[:1]}).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
