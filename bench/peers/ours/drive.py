"""Trains with Antiphon as its users do: `fit` on two files, watched by an observer.

A task may ask for tricks to be switched `off`, for the `curve` of the losses, or for a `profile`, and not for speed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

from meter import Meter, operations, read_task
from ours.tricks import switch_off
from torch.profiler import ProfilerActivity, profile

from antiphon.core.keys import leaves
from antiphon.training.observers import Observer, StepEvent, ValidationEvent
from antiphon.training.start import fit


class Watch(Observer):
    """Hands every step to the meter."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.meter = Meter(task)

    def step(self, event: StepEvent) -> None:
        self.meter.step(event.tokens, event.loss)


class Curve(Observer):
    """Writes the losses down."""

    def __init__(self) -> None:
        self.training: list[float] = []
        self.validation = 0.0

    def step(self, event: StepEvent) -> None:
        self.training.append(event.loss)

    def validated(self, event: ValidationEvent) -> None:
        self.validation = event.loss

    def told(self) -> dict[str, Any]:
        """What was written; `run` in `bench/training.py` wants rates too."""
        return {"training": self.training, "validation": self.validation, "tokens": 0, "wall": 1, "cpu": 1}


class Profile(Observer):
    """After the warm-up, CPU microseconds of so many steps by PyTorch operation, and the FLOPs of its products."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.warmup, self.steps = task["warmup"], task["profile"]
        self.profiler = profile(activities=[ProfilerActivity.CPU], with_flops=True)
        self.tokens = 0

    def step(self, event: StepEvent) -> str | None:
        if event.step == self.warmup:
            self.profiler.start()
            self.cpu = time.process_time()
        elif event.step > self.warmup:
            self.tokens += event.tokens
        if event.step < self.warmup + self.steps:
            return None
        self.cpu = time.process_time() - self.cpu
        self.profiler.stop()
        return "stop"

    def told(self) -> dict[str, Any]:
        """The operations, and the rates that `run` in `bench/training.py` wants."""
        return {"operations": operations(self.profiler), "tokens": self.tokens, "wall": self.cpu, "cpu": self.cpu}


def settings(task: dict[str, Any]) -> dict[str, Any]:
    """The task's model and budget as settings; where both cores are asked for, their use is left to Antiphon."""
    model, recurrent = task["model"], task["model"]["kind"] != "transformer"
    given: dict[str, Any] = {
        "model.encoder.kind": model["kind"], "model.decoder.kind": model["kind"], "model.width": model["width"],
        "model.encoder.layers": model["layers"], "model.decoder.layers": model["layers"],
        "model.feedforward": model["feedforward"], "model.heads": model["heads"], "model.dropout": task["dropout"],
        "model.tie": "all", "model.residual": not recurrent, "model.norm": "none" if recurrent else "pre",
        "model.attention": "general" if recurrent else "multihead", "model.activation": "relu",
        "data.shared": True, "data.source.tokenizer": "whitespace", "data.target.tokenizer": "whitespace",
        "data.batch_tokens": 2 * task["batch_tokens"], "training.label_smoothing": task["smoothing"],
        "training.optimizer": "adam", "training.rate": task["rate"], "training.schedule": "inverse_sqrt",
        "training.warmup": 400, "training.precision": task.get("precision", "fp32"), "training.metric": "loss",
    }  # fmt: skip
    if not task.get("curve"):
        given |= {"training.steps": 10**6, "training.validate_every": 10**6}
    if task["threads"] == 1:
        given |= {"training.threads": 1} | ({"training.processes": 1} if "training.processes" in leaves() else {})
    return given | task.get("settings", {})


def main() -> None:
    """Train until the meter has seen enough."""
    task = read_task()
    switch_off(task.get("off", []))
    data, folder = Path(task["data"]), Path(task["folder"])
    pairs, valid = ((data / f"{part}.en", data / f"{part}.de") for part in ("train", "valid"))
    watch = Curve() if task.get("curve") else Profile(task) if task.get("profile") else Watch(task)
    fit(pairs, valid=valid, out=folder / "run", assignments=settings(task), observers=[watch])
    if not isinstance(watch, Watch):
        print("\n" + json.dumps(watch.told()))


if __name__ == "__main__":
    main()
