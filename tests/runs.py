"""Small runs for tests of training: tiny models of every family on reversed words, and what to compare."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.config import Config
from antiphon.core.keys import override
from antiphon.core.machine import Products
from antiphon.data.corpus import Corpus, Pair, open_pairs
from antiphon.data.store import Store, prepare
from antiphon.inference.task import Task
from antiphon.training import runner
from antiphon.training.checkpoint import Checkpoints
from antiphon.training.observers import Note, Observer, Result, StepEvent, ValidationEvent, read_log
from antiphon.training.trainer import train

SMALL = {
    "data.source.tokenizer": "char", "data.target.tokenizer": "char", "data.shared": False, "data.batch_tokens": 150,
    "data.source.vocabulary": 100, "data.target.vocabulary": 100, "data.source.max_length": 50,
    "data.target.max_length": 50, "model.encoder.layers": 1, "model.decoder.layers": 1, "model.width": 16,
    "model.heads": 2, "model.feedforward": 16, "model.positions": "sinusoidal", "model.norm": "pre",
    "model.residual": True, "model.activation": "relu", "model.tie": "target", "model.dropout": 0.1,
    "training.label_smoothing": 0.1, "training.rate": 0.01, "training.schedule": "constant", "training.warmup": 5,
    "training.metric": "loss", "training.threads": 1, "training.patience": 3, "decoding.beam": 1,
    "decoding.max_length": 8,
}  # fmt: skip


def words(count: int = 40, seed: int = 1) -> list[tuple[str, str]]:
    """Words and themselves reversed."""
    draw = random.Random(seed)
    made = ["".join(draw.choices("abcde", k=draw.randint(2, 6))) for _ in range(count)]
    return [(word, word[::-1]) for word in made]


def configured(kind: str = "gru", **more: Any) -> Config:
    """A complete configuration of a family; settings with `__` for the dot."""
    encoder = "gru" if kind == "ssru" else kind
    attention = "multihead" if kind in ("transformer", "ssru") else "dot"
    changes = {name.replace("__", "."): value for name, value in more.items()}
    kinds = {"model.encoder.kind": encoder, "model.decoder.kind": kind, "model.attention": attention}
    return override(Config(), {**SMALL, **kinds, **changes})


def prepared(config: Config, pairs: Sequence[tuple[str, str]] | None = None) -> tuple[Task, Store, list[Pair]]:
    """The first pairs to train on, the last eight to validate with."""
    pairs = list(pairs if pairs is not None else words())
    corpus: Corpus = open_pairs(pairs[:-8], config.data)
    task = Task.learn(corpus, config)
    keep = bool(config.data.source.sampling)
    store = prepare(corpus, partial(task.encode), keep_text=keep)
    return task, store, [Pair(*pair) for pair in pairs[-8:]]


def run(config: Config, out: Path, *, resume: bool = False, observers: Sequence[Any] = (), **more: Any) -> Result:
    """Train on `words`."""
    task, store, valid = prepared(config)
    return train(config, task, store, valid, out, resume=resume, observers=observers, **more)


def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what only costs time in tests: waiting for the disk, going through all that pytest holds in memory, and
    comparing matrix products."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(gc, "collect", lambda *generation: 0)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(runner, "probe", lambda: Products("highest", False, {}))


class Recorder(Observer):
    """Keeps all events; stops after `stop_at` steps."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.steps: list[StepEvent] = []
        self.validations: list[ValidationEvent] = []
        self.notes: list[Note] = []

    def step(self, event: StepEvent) -> Any:
        self.steps.append(event)
        return "stop" if event.step == self.stop_at else None

    def validated(self, event: ValidationEvent) -> None:
        self.validations.append(event)

    def noted(self, event: Note) -> None:
        self.notes.append(event)


TIMED = {"seconds", "validation_seconds", "log"}


def outcome(out: Path) -> dict[str, Any]:
    """All that must be the same bit by bit after a resume: weights, optimizer, averages, counters, metrics, best."""
    newest = Checkpoints(out).newest()
    state = json.loads(newest.files["training/state.json"])
    found: dict[str, Any] = {"state": {key: value for key, value in state.items() if key not in TIMED}}
    for name, content in newest.files.items():
        if name.endswith(".safetensors"):
            found[name] = hashlib.sha256(content).hexdigest()
    best = out / "best" / "model.safetensors"
    found["best"] = hashlib.sha256(best.read_bytes()).hexdigest() if best.exists() else None
    found["events"] = [event for event in map(untimed, read_log(out / "log.jsonl")) if event]
    return found


def untimed(event: dict[str, Any]) -> tuple[Any, ...] | None:
    """What of a logged event does not depend on the clock."""
    if event["event"] == "step":
        return event["step"], event["epoch"], event["loss"], event["rate"], event["gradient_norm"], event["tokens"]
    if event["event"] == "validation":
        scores = {name: score["value"] for name, score in event["scores"].items()}
        return event["step"], event["loss"], json.dumps(scores), json.dumps(event["samples"]), event["best"]
    return None


def listing(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file with its time of change and hash."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip
