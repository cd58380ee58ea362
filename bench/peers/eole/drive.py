"""Trains with eole through its own command's entry point."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import torch
from corpus import write_vocabulary
from eole.bin.run.train import train
from eole.config.run import TrainConfig
from eole.trainer import Trainer
from meter import Meter, read_task, watch_statistics


def network(model: dict[str, Any]) -> dict[str, Any]:
    """The model in the peer's words; without input feeding, so that its recurrent decoder too runs at once."""
    size = {"layers": model["layers"], "hidden_size": model["width"], "share_embeddings": True}
    size |= {"share_decoder_embeddings": True, "word_vec_size": model["width"]}
    if model["kind"] == "transformer":
        inner = {"heads": model["heads"], "transformer_ff": model["feedforward"], "add_qkvbias": True,
                 "add_final_linear_bias": True, "add_ffnbias": True}  # fmt: skip
        sides = {f"{side}coder": {f"{side}coder_type": "transformer", **inner} for side in ("en", "de")}
        return {**size, **sides, "embeddings": {"word_vec_size": model["width"], "position_encoding": True}}
    return {
        **size, "input_feed": 0, "embeddings": {"word_vec_size": model["width"]},
        "encoder": {"encoder_type": "brnn", "rnn_type": model["kind"].upper()},
        "decoder": {"decoder_type": "rnn", "rnn_type": model["kind"].upper(), "global_attention": "general"},
    }  # fmt: skip


def settings(task: dict[str, Any]) -> TrainConfig:
    """The whole task in the peer's words."""
    data, folder = Path(task["data"]), Path(task["folder"])
    training = {
        "batch_type": "tokens", "batch_size": task["batch_tokens"], "normalization": "tokens", "bucket_size": 29000,
        "num_workers": 0, "optim": "adam", "adam_beta2": 0.98, "learning_rate": task["rate"], "warmup_steps": 400,
        "decay_method": "none", "max_grad_norm": 1.0, "dropout": [task["dropout"]], "attention_dropout": [0.0],
        "label_smoothing": task["smoothing"], "train_steps": 10**6, "valid_steps": 10**7,
        "save_checkpoint_steps": 10**6, "model_path": str(folder / "model"), "world_size": 1, "gpu_ranks": [],
        "compute_dtype": "fp32",
    }  # fmt: skip
    return TrainConfig(
        src_vocab=write_vocabulary(task, "\t1"), share_vocab=True, vocab_size_multiple=1, seed=1, report_every=10**6,
        data={"corpus": {"path_src": str(data / "train.en"), "path_tgt": str(data / "train.de"), "transforms": []}},
        model=network(task["model"]), training=training,
    )  # fmt: skip


def main() -> None:
    """Train until the meter has seen enough."""
    task = read_task()
    torch.set_num_threads(task["threads"])
    watch_statistics(Trainer, Meter(task), "n_tokens", "n_src_tokens")
    train(settings(task))


if __name__ == "__main__":
    main()
