"""Trains with JoeyNMT through its own training function."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import torch
from corpus import write_vocabulary
from joeynmt.training import TrainManager, train
from meter import Meter, read_task


def network(task: dict[str, Any]) -> dict[str, Any]:
    """The model in the peer's words; its recurrent decoder goes step by step in any case."""
    model, tied = task["model"], {"tied_embeddings": True, "tied_softmax": True}
    side = {"num_layers": model["layers"], "hidden_size": model["width"], "dropout": task["dropout"]}
    side["embeddings"] = {"embedding_dim": model["width"], "scale": True}
    if model["kind"] == "transformer":
        side |= {"type": "transformer", "ff_size": model["feedforward"], "num_heads": model["heads"]}
        side |= {"layer_norm": "pre"}
        return {"initializer": "xavier_uniform", **tied, "encoder": dict(side), "decoder": dict(side)}
    side |= {"type": "recurrent", "rnn_type": model["kind"]}
    encoder = {**side, "hidden_size": model["width"] // 2, "bidirectional": True}
    decoder = {**side, "attention": "luong", "init_hidden": "bridge", "input_feeding": False}
    return {**tied, "encoder": encoder, "decoder": decoder}


def settings(task: dict[str, Any]) -> dict[str, Any]:
    """The whole task in the peer's words."""
    data, folder = Path(task["data"]), Path(task["folder"])
    side = {"level": "word", "voc_file": write_vocabulary(task), "max_length": 200, "lowercase": False}
    return {
        "name": "bench", "model_dir": str(folder / "model"), "use_cuda": False, "fp16": False, "random_seed": 1,
        "data": {
            "train": str(data / "train"), "dev": str(data / "valid"), "dataset_type": "plain",
            "src": {"lang": "en", **side}, "trg": {"lang": "de", **side},
        },
        "testing": {"beam_size": 1, "batch_size": 1000, "batch_type": "token", "eval_metrics": ["bleu"]},
        "training": {
            "optimizer": "adam", "adam_betas": [0.9, 0.98], "learning_rate": task["rate"], "clip_grad_norm": 1.0,
            "normalization": "tokens", "label_smoothing": task["smoothing"], "batch_type": "token",
            "batch_size": task["batch_tokens"], "epochs": 10**4, "updates": 10**6, "logging_freq": 10**6,
            "validation_freq": 10**6, "loss": "crossentropy", "scheduling": "warmupinversesquareroot",
            "learning_rate_warmup": 400,
        },
        "model": network(task),
    }  # fmt: skip


def watch(meter: Meter) -> None:
    """Tell the meter of each step; a step is counted when the next one begins, so that its update is in it."""
    original, last = TrainManager._train_step, list[tuple[int, float, int]]()

    def step(self: TrainManager, batch: Any) -> tuple[float, int]:
        if last:
            meter.step(*last.pop())
        tokens, words = int(batch.src_length.sum()) + batch.ntokens, batch.ntokens
        loss, correct = original(self, batch)
        last.append((tokens, loss, words))
        return loss, correct

    TrainManager._train_step = step


def main() -> None:
    """Train until the meter has seen enough."""
    task = read_task()
    (Path(task["folder"]) / "model").mkdir()
    torch.set_num_threads(task["threads"])
    watch(Meter(task))
    train(0, 1, settings(task), skip_test=True)


if __name__ == "__main__":
    main()
