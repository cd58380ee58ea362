"""The machines of a Ray cluster as the workers of a search: each training is a Ray task, and does what a process of
this machine would.

The search stays in this process, with its journal and its queue, so it finds the same and goes on the same way as on
one machine. Runs are written to the study's folder, which all machines share.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import threading
import uuid
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from antiphon import __version__
from antiphon.core.errors import ConfigError, TrainingError, require
from antiphon.tuning.crew import TICK, Heard, Worker
from antiphon.tuning.study import SPEC
from antiphon.tuning.worker import Line, ended

REACHED = 10.0
"""Seconds in which a cluster has to answer; Ray itself would try for minutes."""

ONE_CORE = {"env_vars": {"OMP_NUM_THREADS": "1"}}
"""The environment of a task: a training has a core, as Ray counts them."""


def ray_() -> Any:
    """Ray; the error says how to install it."""
    try:
        import ray
    except ImportError:
        raise require("cluster", "ray") from None
    return ray


class Post:
    """Messages on their way between a search and its tasks, in boxes. It lives in the cluster, where both reach it."""

    def __init__(self) -> None:
        self.boxes: dict[str, asyncio.Queue[dict[str, Any]]] = defaultdict(asyncio.Queue)

    async def put(self, box: str, message: dict[str, Any]) -> None:
        """Add a message."""
        self.boxes[box].put_nowait(message)

    async def take(self, box: str, seconds: float) -> list[dict[str, Any]]:
        """All messages of a box; where there are none, wait for one as long as that."""
        found = list[dict[str, Any]]()
        with suppress(asyncio.TimeoutError):
            found.append(await asyncio.wait_for(self.boxes[box].get(), seconds))
        while not self.boxes[box].empty():
            found.append(self.boxes[box].get_nowait())
        return found

    async def drop(self, *boxes: str) -> None:
        """Forget boxes."""
        for box in boxes:
            self.boxes.pop(box, None)


class Mail(Line):
    """The line of a task: it tells by post, and has a thread that waits for answers."""

    def __init__(self, post: Any, box: str) -> None:
        super().__init__()
        self.post, self.box, self.over = post, box, threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        ray = ray_()
        while not self.over.is_set():
            try:
                for message in ray.get(self.post.take.remote(f"{self.box} told", 4 * TICK)):
                    self.hear(message)
            except ray.exceptions.RayError:
                if not self.over.is_set():
                    os._exit(1)  # the search has gone; a checkpoint is never half written
                return

    def tell(self, what: str, **values: Any) -> None:
        """Send one message, and see that it has come."""
        ray_().get(self.post.put.remote(f"{self.box} said", {"event": what, **values}))


def train(job: Mapping[str, Any], post: Any, box: str) -> dict[str, Any]:
    """The task: do a job; gives its last message. A machine that came later and lacks the folder gives the job back."""
    if not Path(job["train"]).exists():
        raise FileNotFoundError(f"{socket.gethostname()} does not see {job['train']}")
    line = Mail(post, box)
    try:
        return ended(job, line)
    finally:
        line.over.set()


def seen(spec: str) -> tuple[str, str]:
    """What a machine has: its antiphon, and the hash of the study that it sees there."""
    path = Path(spec)
    return __version__, hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


class Task(Worker):
    """Room in the cluster for a training at a time."""

    def __init__(self, cluster: Cluster, heard: Heard, log: IO[bytes]) -> None:
        self.cluster, self.heard, self.log = cluster, heard, log
        self.box, self.stopping = "", False
        self.task: Any = None
        self.listener = threading.Thread()

    def tell(self, **message: Any) -> None:
        """A job begins a task; anything else goes to the one that runs."""
        if "run" not in message:
            self.stopping |= message["say"] == "stop"
            self.cluster.post.put.remote(f"{self.box} told", message)
            return
        self.box = uuid.uuid4().hex
        paths = {key: os.path.abspath(message[key]) for key in ("run", "train", "valid", "judge") if message[key]}
        self.task = self.cluster.train.remote({**message, **paths}, self.cluster.post, self.box)
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        """Hand on what the task says, and how it ended."""
        ray, post = self.cluster.ray, self.cluster.post
        try:
            ready: list[Any] = []
            while not ready:
                ready, _ = ray.wait([self.task], timeout=0)
                for message in ray.get(post.take.remote(f"{self.box} said", 0 if ready else TICK)):
                    self.heard.put((self, message))
        except ray.exceptions.RayError as error:
            self.heard.put((self, {"event": "lost", "text": _first(error)}))
            return
        try:
            last = ray.get(self.task)
        except ray.exceptions.RayError as error:
            self._write(f"{self.job.name if self.job else 'a job'}: {error}\n")
            last = {"event": "gone"}
        if last.get("interrupted") and not self.stopping:
            last = {"event": "gone"}  # its machine is being stopped: another has to go on with it
        post.drop.remote(f"{self.box} said", f"{self.box} told")
        self.heard.put((self, last))

    def _write(self, text: str) -> None:
        with suppress(ValueError):  # the crew has gone home
            self.log.write(text.encode())
            self.log.flush()

    def close(self) -> None:
        """End its task, whatever it does: what counts is on disk."""
        if self.task is not None:
            self.cluster.ray.cancel(self.task, force=True)
        if self.listener.is_alive():
            self.listener.join(REACHED)


class Cluster:
    """A Ray cluster, connected; `size` is how many trainings have room in it, one a GPU or else one a core."""

    def __init__(self, address: str) -> None:
        """Connect: `HOST:PORT` of the cluster's head, `auto` for the one that this machine is part of, or `local` for
        one that is begun here and ends with the search. A program that has called `ray.init` keeps what it has.

        Raises `AntiphonError` where Ray is not installed or not reached.
        """
        self.ray = ray_()
        self.mine = not self.ray.is_initialized()
        if self.mine:
            _connect(self.ray, address)
        resources = self.ray.cluster_resources()
        self.unit = "GPU" if resources.get("GPU", 0) >= 1 else "CPU"
        self.size = max(1, int(resources.get(self.unit, 1)))
        here = self._on(self.ray.get_runtime_context().get_node_id())
        self.post = self.ray.remote(num_cpus=0)(Post).options(scheduling_strategy=here).remote()
        gpus = int(self.unit == "GPU")
        self.train = self.ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, runtime_env=ONE_CORE)(train)

    def _on(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node_id=node, soft=False)

    def check(self, out: Path) -> None:
        """See that every machine that may train has this version and the study's folder. Raises `TrainingError`."""
        spec = os.path.abspath(out / SPEC)
        look, nodes = self.ray.remote(num_cpus=0, max_retries=0)(seen), self.ray.nodes()
        alive = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes
                 if node["Alive"] and node["Resources"].get(self.unit)}  # fmt: skip
        asked = {node: look.options(scheduling_strategy=self._on(node)).remote(spec) for node in alive}
        for node, answer in asked.items():
            try:
                version, found = self.ray.get(answer)
            except self.ray.exceptions.RayError as error:
                raise TrainingError("cannot train", where=alive[node], got=_first(error),
                                    do="pip install 'antiphon[cluster]' on every machine") from None  # fmt: skip
            if version != __version__:
                raise TrainingError("has another version of antiphon", where=alive[node], got=version,
                                    do=f"install {__version__} on every machine")  # fmt: skip
            if not found or found != seen(spec)[1]:
                raise TrainingError("does not see the study", where=alive[node], got=spec,
                                    do="give as --out a folder that all machines share")  # fmt: skip

    def hire(self, heard: Heard, log: IO[bytes]) -> Worker:
        """Another worker."""
        return Task(self, heard, log)

    def close(self) -> None:
        """Leave the cluster; one that was begun here ends."""
        with suppress(self.ray.exceptions.RayError):  # it may be lost
            self.ray.kill(self.post)
        if self.mine:
            self.ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    """Begin to use a cluster; whoever does not answer is asked once, for a few seconds."""
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        how["include_dashboard"] = False
    try:
        if ":" in address:
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), REACHED).close()
        ray.init(address=address, **how)
    except Exception as error:  # Ray raises what has no kind where a cluster does not come up
        raise ConfigError("there is no Ray cluster", where="--cluster", got=f"{address}: {_first(error)}",
                          do="give HOST:PORT of its head, auto, or local") from None  # fmt: skip


def _first(error: BaseException) -> str:
    """What matters of an error of Ray, in a line: these have whole traces in them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines and "Traceback" in str(error) else lines[0] if lines else type(error).__name__)[:200]
