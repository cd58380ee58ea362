"""Trains with OpenNMT-py through its own command's entry point."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import torch
from corpus import write_vocabulary
from meter import Meter, read_task, watch_statistics
from onmt.bin.train import _get_parser, train
from onmt.trainer import Trainer


def options(task: dict[str, Any]) -> dict[str, Any]:
    """The task in the peer's words; without input feeding, so that its recurrent decoder too runs at once."""
    model, data = task["model"], Path(task["data"])
    recurrent = {
        "encoder_type": "brnn", "decoder_type": "rnn", "rnn_type": model["kind"].upper(), "global_attention": "general",
        "input_feed": 0,
    }  # fmt: skip
    transformer = {
        "encoder_type": "transformer", "decoder_type": "transformer", "heads": model["heads"], "position_encoding": "",
        "transformer_ff": model["feedforward"], "attention_dropout": 0.0,
    }  # fmt: skip
    return {
        **(transformer if model["kind"] == "transformer" else recurrent),
        "enc_layers": model["layers"], "dec_layers": model["layers"], "hidden_size": model["width"],
        "word_vec_size": model["width"], "dropout": task["dropout"], "label_smoothing": task["smoothing"],
        "share_vocab": "", "share_embeddings": "", "share_decoder_embeddings": "",
        "src_vocab": write_vocabulary(task, "\t1"), "src_vocab_size": 20000, "vocab_size_multiple": 1,
        "data": json.dumps({"corpus": {"path_src": str(data / "train.en"), "path_tgt": str(data / "train.de")}}),
        "batch_type": "tokens", "batch_size": task["batch_tokens"], "normalization": "tokens", "bucket_size": 29000,
        "num_workers": 0, "optim": "adam", "adam_beta2": 0.98, "learning_rate": task["rate"], "warmup_steps": 400,
        "decay_method": "none", "max_grad_norm": 1.0, "train_steps": 10**6, "valid_steps": 10**7, "report_every": 10**6,
        "save_checkpoint_steps": 10**6, "save_model": f"{task['folder']}/model", "seed": 1,
    }  # fmt: skip


def main() -> None:
    """Train until the meter has seen enough."""
    task = read_task()
    torch.set_num_threads(task["threads"])
    watch_statistics(Trainer, Meter(task), "n_words", "n_src_words")
    words = [word for name, value in options(task).items() for word in (f"--{name}", str(value)) if word]
    train(_get_parser().parse_known_args(words)[0])


if __name__ == "__main__":
    main()
