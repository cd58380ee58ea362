"""How well a model says a few right targets, part by part: by length, by place, and with another pair's source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from antiphon.core.batch import EOS, PAD, Batch
from antiphon.models.forecasting import NumbersHead
from antiphon.models.seq2seq import Seq2Seq
from antiphon.training.probes.looks import Looks
from antiphon.training.probes.samples import Sample

EDGES = (1, 2, 5, 10, 20, 40, 80, 160, 1 << 30)
"""Where the ranges of lengths and of places begin; the end mark counts."""


@contextmanager
def resting(model: Seq2Seq) -> Iterator[None]:
    """No dropout and no gradients; afterwards all is as it was."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@dataclass(frozen=True)
class Told:
    """Of every target token of a sample, one number a column: its `row` (the number of its pair) and `place` from 1,
    the `length` of its target, the `nats` it costs, whether it is said `right`, the chance of the `end` mark, and the
    `entropy` of what could come, in nats. Of numbers the last three are 0."""

    row: np.ndarray
    place: np.ndarray
    length: np.ndarray
    nats: np.ndarray
    right: np.ndarray
    end: np.ndarray
    entropy: np.ndarray

    @property
    def loss(self) -> float:
        """Nats a token."""
        return float(self.nats.mean())

    def accuracy(self, rows: int) -> float:
        """The share of tokens said right, in so many first pairs."""
        return float(self.right[self.row < rows].mean())


def told(model: Seq2Seq, sample: Sample, looks: Looks | None = None) -> Told:
    """Look at each target with the right beginning shown; `looks` watches the attention meanwhile."""
    device, parts = next(model.parameters()).device, list[np.ndarray]()
    with resting(model):
        for rows, batch in sample.batches(0 if isinstance(model.head, NumbersHead) else model.target_size):
            batch = batch.to(device)
            if looks is not None:
                looks.mask_BT = batch.target.mask_BL
            parts.append(_columns(torch.tensor(rows, device=device), _values(model, batch), batch))
    return Told(*np.concatenate(parts, axis=1))


def _values(model: Seq2Seq, batch: Batch) -> tuple[Tensor, ...]:
    """nats, right, end and entropy, each `[B, T]`."""
    steps, memory = model(batch)
    if isinstance(model.head, NumbersHead):
        nats_BT = model.head.losses(steps, batch.target)
        return nats_BT, *(torch.zeros_like(nats_BT) for _ in range(3))
    logs_BTV = model.log_probs(steps, memory)
    nats_BT = -logs_BTV.gather(2, batch.labels_BT[:, :, None])[:, :, 0]
    right_BT = (logs_BTV.argmax(2) == batch.labels_BT) & (batch.labels_BT != PAD)
    end_BT, first_BV = logs_BTV[:, :, EOS].exp(), logs_BTV[:, 0]
    entropy_BT = torch.zeros_like(nats_BT)  # which is asked for at the first place alone
    entropy_BT[:, 0] = -(first_BV.exp() * first_BV).sum(1)
    return nats_BT, right_BT, end_BT, entropy_BT


def _columns(rows_B: Tensor, values: tuple[Tensor, ...], batch: Batch) -> np.ndarray:
    mask_BT = batch.target.mask_BL
    place_BT = torch.arange(1, mask_BT.shape[1] + 1, device=mask_BT.device).expand(mask_BT.shape)
    length_BT, row_BT = batch.target.lengths_B[:, None].expand(mask_BT.shape), rows_B[:, None].expand(mask_BT.shape)
    return torch.stack([each[mask_BT].double() for each in (row_BT, place_BT, length_BT, *values)]).cpu().numpy()


def facts(model: Seq2Seq, train: Told, valid: Told, mixed: Told) -> dict[str, Any]:
    """The facts of a `loss` probe."""
    found: dict[str, Any] = {
        "train": train.loss, "valid": valid.loss, "shuffled": mixed.loss,
        "by_length": ranges(valid.length, valid.nats), "by_position": ranges(valid.place, valid.nats),
    }  # fmt: skip
    if isinstance(model.head, NumbersHead):
        return found
    early = valid.place < valid.length
    return {
        **found, "token_accuracy": float(valid.right.mean()), "train_accuracy": float(train.right.mean()),
        "end_probability": float(valid.end[early].mean()) if early.any() else None,
        "first_token_entropy": float(valid.entropy[valid.place == 1].mean()),
    }  # fmt: skip


def ranges(by: np.ndarray, nats: np.ndarray) -> list[tuple[int, int, float, int]]:
    """`(from, to, nats a token, tokens)` of each range that has tokens, both ends counted in."""
    found = []
    for low, high in pairwise(EDGES):
        inside = (by >= low) & (by < high)
        if inside.any():
            found.append((low, min(high - 1, int(by[inside].max())), float(nats[inside].mean()), int(inside.sum())))
    return found


def by_row(told: Told) -> dict[int, float]:
    """Nats a token of each pair, by its number."""
    return {int(row): float(told.nats[told.row == row].mean()) for row in np.unique(told.row)}
