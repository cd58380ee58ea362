"""Trains with Sockeye through its own command's entry point."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import torch
from meter import Meter, read_task
from sockeye import arguments
from sockeye.train import train
from sockeye.training import EarlyStoppingTrainer


def options(task: dict[str, Any]) -> dict[str, Any]:
    """The task in the peer's words; it has Transformers only."""
    model, data, folder = task["model"], Path(task["data"]), Path(task["folder"])
    both = f"{task['dropout']}:{task['dropout']}"
    vocabulary = write_vocabulary(data, folder)
    return {
        "source": data / "train.en", "target": data / "train.de", "validation-source": data / "valid.en",
        "validation-target": data / "valid.de", "source-vocab": vocabulary, "target-vocab": vocabulary,
        "shared-vocab": None, "output": folder / "model", "use-cpu": None, "num-layers": model["layers"],
        "transformer-model-size": model["width"], "transformer-feed-forward-num-hidden": model["feedforward"],
        "transformer-attention-heads": model["heads"], "transformer-dropout-prepost": both,
        "transformer-dropout-act": both, "transformer-dropout-attention": "0.0", "embed-dropout": both,
        "weight-tying-type": "src_trg_softmax", "batch-type": "word", "batch-size": task["batch_tokens"],
        "batch-sentences-multiple-of": 1, "bucket-width": 1, "label-smoothing": task["smoothing"],
        "label-smoothing-impl": "torch", "optimizer": "adam", "optimizer-betas": "0.9:0.98",
        "initial-learning-rate": task["rate"], "learning-rate-warmup": 400, "learning-rate-scheduler-type": "none",
        "gradient-clipping-type": "norm", "gradient-clipping-threshold": 1.0, "checkpoint-interval": 10**6,
        "max-updates": 10**6, "decode-and-evaluate": 0, "seed": 1,
    }  # fmt: skip


def write_vocabulary(data: Path, folder: Path) -> Path:
    """Its vocabulary file, whose first four tokens must be as ours."""
    words = (data / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[:-1]
    path = folder / "vocabulary.json"
    path.write_text(json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8")
    return path


def watch(meter: Meter) -> None:
    """Tell the meter of each step."""
    original = EarlyStoppingTrainer._step

    def step(self: EarlyStoppingTrainer, batch: Any) -> bool:
        done = original(self, batch)
        words = int(batch.target_length.sum())
        meter.step(words + int(batch.source_length[:, 0].sum()), self.loss_functions[0].metric.get(), words)
        self.loss_functions[0].metric.reset()
        return done

    EarlyStoppingTrainer._step = step


def main() -> None:
    """Train until the meter has seen enough."""
    task = read_task()
    torch.set_num_threads(task["threads"])
    watch(Meter(task))
    words = [word for name, value in options(task).items() for word in (f"--{name}", value) if word is not None]
    parser = arguments.ConfigArgumentParser()
    arguments.add_train_cli_args(parser)
    train(parser.parse_args([str(word) for word in words]))


if __name__ == "__main__":
    main()
