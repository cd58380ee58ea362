"""Trains with OpenNMT-py through its own command's entry point."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import torch
from meter import Meter, read_task
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
        "src_vocab": vocabulary(task), "src_vocab_size": 20000, "vocab_size_multiple": 1,
        "data": json.dumps({"corpus": {"path_src": str(data / "train.en"), "path_tgt": str(data / "train.de")}}),
        "batch_type": "tokens", "batch_size": task["batch_tokens"], "normalization": "tokens", "bucket_size": 29000,
        "num_workers": 0, "optim": "adam", "adam_beta2": 0.98, "learning_rate": task["rate"], "warmup_steps": 400,
        "decay_method": "none", "max_grad_norm": 1.0, "train_steps": 10**6, "valid_steps": 10**7, "report_every": 10**6,
        "save_checkpoint_steps": 10**6, "save_model": f"{task['folder']}/model", "seed": 1,
    }  # fmt: skip


def vocabulary(task: dict[str, Any]) -> str:
    """Its vocabulary file: pieces with counts, without the special tokens, which it adds."""
    lines = (Path(task["data"]) / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[4:-1]
    path = Path(task["folder"]) / "vocabulary.txt"
    path.write_text("".join(f"{line}\t1\n" for line in lines), encoding="utf-8")
    return str(path)


def watch(meter: Meter) -> None:
    """Tell the meter of each step, from the statistics that it reports; an end mark a source is counted as for all."""
    seen = {"words": 0, "sources": 0, "loss": 0.0}

    def report(self: Trainer, step: int, steps: int, rate: float, stats: Any) -> Any:
        now = {"words": stats.n_words, "sources": stats.n_src_words + stats.n_sents, "loss": stats.loss}
        words, sources, loss = (now[name] - seen[name] for name in seen)
        seen.update(now)
        meter.step(int(words + sources), loss / max(1, words), int(words))
        return stats

    Trainer._maybe_report_training = report


def main() -> None:
    """Train until the meter has seen enough."""
    task = read_task()
    torch.set_num_threads(task["threads"])
    watch(Meter(task))
    words = [word for name, value in options(task).items() for word in (f"--{name}", str(value)) if word]
    train(_get_parser().parse_known_args(words)[0])


if __name__ == "__main__":
    main()
