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
import numpy as np
import soundfile
import torch

from antiphon.core.keys import read
from antiphon.data.corpus import Pair
from antiphon.inference import bundle
from antiphon.inference.task import Task
from antiphon.models.seq2seq import build

WORDS = ["ba", "du", "ki", "lo", "me", "ra", "so", "tu"]
RATE = 8000
DRAW = random.Random(1)
SOURCES = [" ".join(DRAW.choices(WORDS, k=1 + n % 7)) for n in range(40)]


def model(path: Path, *, seed: int = 1, least: int = 4) -> Path:
    """A bundle of letters to words, whose weights are sharpened so that it has opinions; answers have at least so many
    tokens, which makes it as slow as a test needs."""
    pairs = [Pair(text, " ".join(reversed(text.split()))) for text in SOURCES]
    return _saved(path, pairs, {"tokenizer": "char"}, {"beam": 3, "min_length": least, "max_length": least + 6}, seed)


def listener(path: Path) -> Path:
    """The same for recordings of a third of a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = []
    for n, source in enumerate(SOURCES[:8]):
        file = path.parent / f"{n}.wav"
        soundfile.write(file, tones(1 / 3, n), RATE)
        pairs.append(Pair(str(file), source))
    return _saved(path, pairs, {"kind": "speech"}, {"beam": 2, "min_length": 3, "max_length": 6}, 1)


def tones(seconds: float, pitch: int = 0) -> np.ndarray:
    """What is heard."""
    return 0.3 * np.sin(2 * np.pi * (300 + 40 * pitch) * np.arange(int(seconds * RATE)) / RATE)


def _saved(path: Path, pairs: list[Pair], source: dict[str, Any], decoding: dict[str, Any], seed: int) -> Path:
    sides = {"source": source, "target": {"tokenizer": "whitespace"}, "frames": {"rate": RATE, "mels": 16}}
    heard = source.get("kind") == "speech"
    frontend = {"frontend": {"kind": "stack", "reduce": 4, "time_masks": 0, "feature_masks": 0}} if heard else {}
    network = {
        **frontend, "encoder": {"kind": "gru", "layers": 1}, "decoder": {"kind": "gru", "layers": 1}, "width": 16,
        "feedforward": 32, "attention": "dot", "positions": "none", "norm": "pre", "residual": True, "tie": "none",
        "dropout": 0.1, "head": "vocabulary", "heads": 2, "activation": "relu",
    }  # fmt: skip
    config = read({"data": sides, "model": network, "decoding": decoding})
    task = Task.learn(pairs, config)
    made = build(config.model, task.source.size, len(task.target.vocabulary), seed=seed)
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
        # what a server that is killed leaves behind goes where the test's files go
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
        with self.file.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file, env=environment)
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def until(self, good: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while not good():
            assert time.monotonic() < end, self.file.read_text()
            time.sleep(0.05)

    @property
    def log(self) -> list[dict[str, Any]]:
        time.sleep(0.05)  # lines are written beside the answers
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
