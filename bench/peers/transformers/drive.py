"""Trains a Marian model with Hugging Face's `Seq2SeqTrainer`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import torch
from corpus import read_ids
from meter import Meter, read_task
from transformers import MarianConfig, MarianMTModel, Seq2SeqTrainer, Seq2SeqTrainingArguments

SENTENCES = 64
"""A batch: the fastest of 32, 64, 128 and 256 here; tokens cannot be counted."""


def build(task: dict[str, Any], size: int) -> MarianMTModel:
    """A model of the task's size with fresh weights."""
    model = task["model"]
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (
            ("layers", model["layers"]), ("ffn_dim", model["feedforward"]), ("attention_heads", model["heads"])
        )
    }  # fmt: skip
    return MarianMTModel(MarianConfig(
        vocab_size=size, d_model=model["width"], **sides, dropout=task["dropout"], activation_function="relu",
        max_position_embeddings=256, scale_embedding=True, tie_word_embeddings=True, pad_token_id=0, eos_token_id=3,
        decoder_start_token_id=0, forced_eos_token_id=None,
    ))  # fmt: skip


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Rows as one padded batch."""

    def padded(name: str, value: int) -> torch.Tensor:
        tensors = [torch.tensor(row[name]) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

    ids, labels = padded("input_ids", 0), padded("labels", -100)
    inputs = torch.nn.functional.pad(labels[:, :-1].clamp(min=0), (1, 0))
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels, "decoder_input_ids": inputs}


class Trainer(Seq2SeqTrainer):
    """Counts real tokens."""

    meter: Meter | None = None

    def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        self.words = int((inputs["labels"] != -100).sum())
        self.seen = self.words + int(inputs["attention_mask"].sum())
        self.loss = super().training_step(model, inputs, *rest, **named)
        return self.loss

    def optimizer_stepped(self) -> None:
        """Tell the meter."""
        if self.meter is not None:
            self.meter.step(self.seen, float(self.loss), self.words)


def trainer(task: dict[str, Any]) -> Trainer:
    """The trainer of a task."""
    from transformers import TrainerCallback

    data = Path(task["data"])
    rows = [{"input_ids": source, "labels": target} for source, target in read_ids(data, "train")]
    torch.manual_seed(1)
    size = len((data / "vocabulary.txt").read_text(encoding="utf-8").split("\n")) - 1
    arguments = Seq2SeqTrainingArguments(
        output_dir=task["folder"], per_device_train_batch_size=task.get("sentences") or SENTENCES, use_cpu=True,
        max_steps=task.get("train_steps") or 10**6, learning_rate=task["rate"], warmup_steps=400,
        lr_scheduler_type="inverse_sqrt", label_smoothing_factor=task["smoothing"], logging_strategy="no",
        save_strategy="no", report_to=[], optim="adamw_torch_fused", train_sampling_strategy="group_by_length",
        disable_tqdm=True, weight_decay=0.0,
    )  # fmt: skip
    made = Trainer(model=build(task, size), args=arguments, train_dataset=rows, data_collator=collate)

    class Watch(TrainerCallback):
        """Hands every step to the meter."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            made.optimizer_stepped()

    made.add_callback(Watch())
    return made


def main() -> None:
    """Train until the meter has seen enough."""
    task = read_task()
    torch.set_num_threads(task["threads"])
    made = trainer(task)
    made.meter = Meter(task)
    made.train()


if __name__ == "__main__":
    main()
