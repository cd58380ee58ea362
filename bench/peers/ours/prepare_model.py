"""Trains the model that decoding is measured with: t128 with the norm after each block, so that Marian can hold it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from antiphon.training.start import fit


def main() -> None:
    """Train in the folder that the task names."""
    task = json.loads(Path(sys.argv[1]).read_text())
    model, data = task["model"], Path(task["data"])
    settings = {
        "model.encoder.kind": "transformer", "model.decoder.kind": "transformer", "model.width": model["width"],
        "model.encoder.layers": model["layers"], "model.decoder.layers": model["layers"],
        "model.feedforward": model["feedforward"], "model.heads": model["heads"], "model.dropout": 0.1,
        "model.tie": "all", "model.residual": True, "model.norm": "post", "model.attention": "multihead",
        "model.positions": "sinusoidal", "model.activation": "relu", "data.shared": True,
        "data.source.tokenizer": "whitespace", "data.target.tokenizer": "whitespace", "data.batch_tokens": 4096,
        "training.label_smoothing": 0.1, "training.optimizer": "adam", "training.rate": 2e-3, "training.warmup": 300,
        "training.schedule": "cosine", "training.steps": task["train_steps"], "training.metric": "loss",
        "training.validate_every": task["train_steps"], "decoding.beam": 5,
    }  # fmt: skip
    pairs, valid = ((data / f"{part}.en", data / f"{part}.de") for part in ("train", "valid"))
    fit(pairs, valid=valid, out=task["run"], task="translation", assignments=settings)


if __name__ == "__main__":
    main()
