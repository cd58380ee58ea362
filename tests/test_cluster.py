"""A search whose trainings are tasks of a Ray cluster: what it says where there is none, its post, and a real one."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.errors import ConfigError, TrainingError
from antiphon.tuning.cluster import Cluster, Post, _connect, _first, seen, train
from antiphon.tuning.crew import Worker, _handled
from antiphon.tuning.search import Row
from antiphon.tuning.tune import Watcher, tune
from commands import Call, calling, refused  # noqa: F401
from runs import words
from searches import BUDGET, FIXED, killed, same


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cluster") / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in words(120)), encoding="utf-8")
    return path


def test_without_ray_it_says_what_to_install(
    call: Call, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refused(call, "tune", data, "--out", tmp_path / "study", "--cluster", "auto")
    assert said == "error: this needs the package ray; type: pip install 'antiphon[cluster]'"
    assert not (tmp_path / "study").exists()


class Nobody:
    """Ray, where no cluster is. What it raises has no kind where one does not come up."""

    def init(self, **how: Any) -> None:
        raise Exception("The current node timed out during startup.\nmore")


@pytest.mark.parametrize("address", ["auto", "local", "127.0.0.1:none", "127.0.0.1:99999", "free"])
def test_a_cluster_that_is_not_there_is_named_at_once(address: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        address = f"127.0.0.1:{port}" if address == "free" else address
        with pytest.raises(ConfigError, match=rf"^--cluster: there is no Ray cluster \(got {address}: "):
            _connect(Nobody(), address)


def test_post_keeps_order_and_waits() -> None:
    async def scene() -> None:
        post = Post()
        await post.put("a", {"at": 1})
        await post.put("b", {"at": 9})
        await post.put("a", {"at": 2})
        assert await post.take("a", 1) == [{"at": 1}, {"at": 2}]
        assert await post.take("a", 0.01) == []
        waiting = asyncio.create_task(post.take("a", 10))
        await asyncio.sleep(0)
        await post.put("a", {"at": 3})
        assert await waiting == [{"at": 3}]
        await post.drop("a", "b", "never")
        assert await post.take("b", 0) == []

    asyncio.run(scene())


def test_a_machine_says_what_it_has(tmp_path: Path) -> None:
    here = seen(str(tmp_path / "study.json"))
    (tmp_path / "study.json").write_text("{}")
    assert here[0] == seen(str(tmp_path / "study.json"))[0]
    assert here[1] == ""
    assert len(seen(str(tmp_path / "study.json"))[1]) == 64
    with pytest.raises(FileNotFoundError, match="does not see"):
        train({"train": str(tmp_path / "none")}, None, "box")


def test_a_lost_cluster_is_an_error_and_no_failed_trial() -> None:
    worker = Worker()
    worker.job = object()  # type: ignore[assignment]
    with pytest.raises(TrainingError, match=r"the cluster is lost \(got it died\).*the same command goes on"):
        _handled(None, None, worker, {"event": "lost", "text": "it died"})  # type: ignore[arg-type]
    assert _first(ValueError("Traceback:\n  line\nKeyError: x\n")) == "KeyError: x"
    assert _first(ValueError("what\nmore")) == "what"
    assert _first(ValueError()) == "ValueError"


@pytest.fixture(scope="module")
def two_cores() -> Iterator[Any]:
    """Ray on this machine, for the tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray = pytest.importorskip("ray", reason="needs ray: pip install 'antiphon[cluster]'")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            yield ray
        finally:
            ray.shutdown()


def tasks() -> list[int]:
    """Processes below this one that train."""
    parents, found = dict[int, int](), list[int]()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if (path / "cmdline").read_bytes().startswith(b"ray::train"):
                found.append(int(path.name))
        except OSError:
            continue

    def mine(number: int) -> bool:
        return number == os.getpid() or (number in parents and mine(parents[number]))

    return [number for number in found if mine(number)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_cluster_finds_what_this_machine_finds(two_cores: Any, data: Path, tmp_path: Path) -> None:
    lost = list[int]()

    def moved(row: Row) -> None:
        if row.name == "2" and row.values and not lost:
            lost.extend(tasks())
            for number in lost:
                os.kill(number, signal.SIGKILL)

    out = tmp_path / "far"
    killed(data, out, "trials/0000")
    killed(data, out, "trials/0001", "--cluster", two_cores.get_runtime_context().gcs_address)
    far = tune(str(data), out, assignments=FIXED, budget=BUDGET, watcher=Watcher(row=moved), cluster="auto")
    assert len(lost) == 1
    assert [row.name for row in far.trials] == ["0", "1", "2", "3"]
    assert "2: " in (out / "workers.log").read_text()
    same(far, tune(str(data), tmp_path / "here", assignments=FIXED, budget=BUDGET))


@pytest.mark.slow
def test_machines_that_do_not_share_the_folder_are_refused(two_cores: Any, tmp_path: Path) -> None:
    cluster = Cluster("auto")
    assert cluster.size == 2
    with pytest.raises(TrainingError, match=r"does not see the study .* all machines share"):
        cluster.check(tmp_path)
    cluster.close()
    assert two_cores.is_initialized()
