"""The pairs of a batch that the model finds worst, where a gradient was far out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from antiphon.core.batch import Batch
from antiphon.data.modalities import Text
from antiphon.inference.forced import forced_rows
from antiphon.inference.task import Task
from antiphon.models.seq2seq import Seq2Seq

SHOWN, CHARACTERS = 5, 80


def worst(model: Seq2Seq, task: Task, batches: Sequence[Batch], rows: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Those with the highest loss in nats a token, each with its number among the encoded pairs, from 0, and what of
    it is text. Where no pair has a finite loss, the first."""
    found: list[tuple[float, int, Batch, int]] = []
    for batch, numbers, stats in zip(batches, rows, forced_rows(model, batches), strict=True):
        each = np.nan_to_num(stats[:, 0] / np.maximum(1, stats[:, 1]), nan=np.inf)
        found += [(float(loss), int(numbers[place]), batch, place) for place, loss in enumerate(each)]
    found.sort(key=lambda item: (-item[0], item[1]))
    return [{"row": row, "loss": loss, **_texts(task, batch, place)} for loss, row, batch, place in found[:SHOWN]]


def _texts(task: Task, batch: Batch, place: int) -> dict[str, str]:
    """Beginnings of both sides, as the vocabulary spells them."""
    sides = {"source": (task.source, batch.source), "target": (task.target, batch.target)}
    return {name: side.text([token if token < side.size else 0 for token in padded.values[place].tolist()])[:CHARACTERS]
            for name, (side, padded) in sides.items() if isinstance(side, Text)}  # fmt: skip
