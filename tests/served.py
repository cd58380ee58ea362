"""A server as a process of its own, with small models of fresh weights, for tests over a real socket."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from antiphon.core.config import read
from antiphon.data.corpus import Pair
from antiphon.inference import bundle
from antiphon.inference.task import Task
from antiphon.models.seq2seq import build

WORDS = ["ba", "du", "ki", "lo", "me", "ra", "so", "tu"]
DRAW = random.Random(1)
SOURCES = [" ".join(DRAW.choices(WORDS, k=1 + n % 7)) for n in range(40)]


def model(path: Path, *, seed: int = 1, least: int = 4) -> Path:
    """A bundle of letters to words, whose weights are sharpened so that it has opinions; answers have at least so many
    tokens, which makes it as slow as a test needs."""
    sides = {"source": {"tokenizer": "char"}, "target": {"tokenizer": "whitespace"}}
    network = {
        "encoder": {"kind": "gru", "layers": 1}, "decoder": {"kind": "gru", "layers": 1}, "width": 16,
        "feedforward": 32, "attention": "dot", "positions": "none", "norm": "pre", "residual": True, "tie": "none",
        "dropout": 0.1, "head": "vocabulary", "heads": 2, "activation": "relu",
    }  # fmt: skip
    decoding = {"beam": 3, "min_length": least, "max_length": least + 6}
    config = read({"data": sides, "model": network, "decoding": decoding})
    pairs = [Pair(text, " ".join(reversed(text.split()))) for text in SOURCES]
    task = Task.learn(pairs, config)
    made = build(config.model, len(task.source.vocabulary), len(task.target.vocabulary), seed=seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.mul_(6 if name == "head.weight" else 2)
    bundle.save(path, model=made, task=task, config=config, card={"data": "made up"})
    return path


class Served:
    """A server that runs: `url`, and a client that talks to it; `log` are the events until now."""

    def __init__(self, words: list[str], folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.file, self.url = folder / f"log-{self.port}", f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-W", "error", "-m", "antiphon", "serve", *words, "--port", str(self.port)]
        with self.file.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def until(self, good: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while not good():
            assert time.monotonic() < end, self.file.read_text()
            time.sleep(0.05)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.log if event["event"] == name]

    def ready(self) -> bool:
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            assert self.process.poll() is None, self.file.read_text()
            return False

    def ask(self, *inputs: Any, **more: Any) -> httpx.Response:
        return self.client.post("/v1/predict", json={"inputs": list(inputs), **more})

    def texts(self, *inputs: Any, **more: Any) -> list[str]:
        reply = self.ask(*inputs, **more)
        assert reply.status_code == 200, reply.text
        return [answer["text"] for answer in reply.json()["answers"]]

    def workers(self) -> list[int]:
        return [worker for nursery in children(self.process.pid) for worker in children(nursery)]

    def end(self) -> int:
        """Tell it to end, and wait; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


@contextmanager
def served(*words: str | Path, folder: Path) -> Iterator[Served]:
    """A server until the block ends."""
    found = Served([str(word) for word in words], folder)
    try:
        found.until(found.ready)
        yield found
    finally:
        found.client.close()
        found.process.kill()
        found.process.wait()
