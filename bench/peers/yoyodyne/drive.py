"""Trains with yoyodyne's data module and models under its Lightning trainer."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import lightning
import torch
from meter import Meter, read_task
from yoyodyne import data, models, optimizers, special
from yoyodyne.models import modules

SENTENCES = 64
"""A batch; tokens cannot be counted, nor are sentences sorted by length."""


def network(task: dict[str, Any], made: data.DataModule) -> lightning.LightningModule:
    """The model; it ties the embeddings of both sides, but not the output, and its recurrent decoder goes by steps."""
    model, width = task["model"], task["model"]["width"]
    size = {"layers": model["layers"], "dropout": task["dropout"], "embedding_size": width}
    if model["kind"] == "transformer":
        heads, inner = model["heads"], model["feedforward"]
        encoder: Any = modules.TransformerEncoder(**size, attention_heads=heads, hidden_size=inner)
        kind, extra = models.TransformerModel, {"decoder_attention_heads": heads, "decoder_hidden_size": inner}
    else:
        name = model["kind"].upper()
        encoder = getattr(modules, f"{name}Encoder")(**size, hidden_size=width // 2, bidirectional=True)
        kind, extra = getattr(models, f"SoftAttention{name}Model"), {"decoder_hidden_size": width}
    return kind(
        source_encoder=encoder, decoder_layers=model["layers"], decoder_dropout=task["dropout"], embedding_size=width,
        label_smoothing=task["smoothing"], optimizer=partial(optimizers.Adam, lr=task["rate"], beta2=0.98),
        compute_accuracy=False, vocab_size=made.index.vocab_size, target_vocab_size=made.index.target_vocab_size,
        **extra,
    )  # fmt: skip


def prepare(task: dict[str, Any]) -> data.DataModule:
    """The training part as a table."""
    folder, source = Path(task["folder"]), Path(task["data"])
    sides = [(source / f"train.{name}").read_text(encoding="utf-8").split("\n")[:-1] for name in ("en", "de")]
    table = folder / "train.tsv"
    table.write_text("".join(f"{a}\t{b}\n" for a, b in zip(*sides, strict=True)), encoding="utf-8")
    return data.DataModule(
        model_dir=str(folder), train=str(table), source_sep=" ", target_sep=" ", tie_embeddings=True,
        batch_size=SENTENCES,
    )  # fmt: skip


class Watch(lightning.Callback):
    """Hands every step to the meter."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.meter = Meter(task)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
        sources, words = (int((side.tensor != special.PAD_IDX).sum()) for side in (batch.source, batch.target))
        self.meter.step(sources - len(batch.source.tensor) + words, float(outputs["loss"]), words)


def main() -> None:
    """Train until the meter has seen enough."""
    task = read_task()
    torch.set_num_threads(task["threads"])
    made = prepare(task)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=10**6, gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, callbacks=[Watch(task)], default_root_dir=task["folder"],
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(network(task, made), made.train_dataloader())


if __name__ == "__main__":
    main()
