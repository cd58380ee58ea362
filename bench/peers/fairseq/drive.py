"""Trains with fairseq through its own commands' entry points, in the one release that still imports (fairseq-fixed)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import torch
from corpus import write_vocabulary
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer
from fairseq_cli import preprocess, train
from meter import Meter, read_task


def network(task: dict[str, Any]) -> list[str]:
    """The model in the peer's words. Its LSTM is one-way or both ways and always feeds its input; it has no GRU."""
    model = task["model"]
    words = ["--dropout", task["dropout"], "--share-all-embeddings"]
    for side in ("encoder", "decoder"):
        words += [f"--{side}-embed-dim", model["width"], f"--{side}-layers", model["layers"]]
    if model["kind"] == "lstm":
        words += ["--arch", "lstm", "--encoder-bidirectional", "--encoder-hidden-size", model["width"] // 2]
        return [*words, "--decoder-hidden-size", model["width"], "--decoder-out-embed-dim", model["width"]]
    if model["kind"] != "transformer":
        raise SystemExit(f"there is no {model['kind']}")
    for side in ("encoder", "decoder"):
        words += [f"--{side}-ffn-embed-dim", model["feedforward"], f"--{side}-attention-heads", model["heads"]]
    return ["--arch", "transformer", *words, "--activation-dropout", 0.0, "--attention-dropout", 0.0]


def settings(task: dict[str, Any], folder: Path) -> list[str]:
    """The whole task in the peer's words."""
    words = [
        str(folder), *network(task), "--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr", task["rate"],
        "--lr-scheduler", "inverse_sqrt", "--warmup-updates", 400, "--criterion", "label_smoothed_cross_entropy",
        "--label-smoothing", task["smoothing"], "--max-tokens", task["batch_tokens"], "--clip-norm", 1.0, "--cpu",
        "--no-save", "--disable-validation", "--max-update", 10**6, "--no-progress-bar", "--log-interval", 10**6,
        "--save-dir", task["folder"], "--num-workers", 0, "--seed", 1,
    ]  # fmt: skip
    return [str(word) for word in words]


def binarize(task: dict[str, Any]) -> Path:
    """The corpus as the peer wants it."""
    data, folder = Path(task["data"]), Path(task["folder"])
    words = [
        "--source-lang", "en", "--target-lang", "de", "--trainpref", data / "train", "--validpref", data / "valid",
        "--destdir", folder / "binary", "--srcdict", write_vocabulary(task, " 1"), "--joined-dictionary",
    ]  # fmt: skip
    parser = options.get_preprocessing_parser()
    preprocess.main(parser.parse_args([str(word) for word in words]))
    return folder / "binary"


def watch(meter: Meter) -> None:
    """Tell the meter of each step."""
    original = Trainer.train_step

    def step(self: Trainer, samples: list[dict[str, Any]], *rest: Any, **named: Any) -> Any:
        told = original(self, samples, *rest, **named)
        words = sum(sample["ntokens"] for sample in samples)
        meter.step(words + sum(int(sample["net_input"]["src_lengths"].sum()) for sample in samples))
        return told

    Trainer.train_step = step


def main() -> None:
    """Train until the meter has seen enough."""
    task = read_task()
    torch.set_num_threads(task["threads"])
    folder = binarize(task)
    watch(Meter(task))
    parser = options.get_training_parser()
    train.main(convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, settings(task, folder))))


if __name__ == "__main__":
    main()
