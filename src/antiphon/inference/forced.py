"""How likely a model finds the right targets when it is shown the right beginnings: loss, perplexity, accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from antiphon.core.batch import PAD, Batch
from antiphon.core.errors import DataError
from antiphon.metrics.base import Stats
from antiphon.models.forecasting import NumbersHead
from antiphon.models.seq2seq import Seq2Seq

LOGITS = 1 << 24
"""Log probabilities that are held at once."""


class Forced(NamedTuple):
    """How well a model says the right targets when it is shown the right beginnings.

    `loss` is in nats a token (end marks included), `perplexity` its exponential, `token_accuracy` 0 to 100.
    """

    loss: float
    perplexity: float
    token_accuracy: float


@dataclass(frozen=True)
class Likelihood:
    """A score of teacher forcing, from statistics `[nats, tokens, tokens said right]`."""

    name: str
    unit: str = "model token|end:counted"

    @property
    def higher_is_better(self) -> bool:
        """True for the accuracy."""
        return self.name == "forced_accuracy"

    @property
    def signature(self) -> str:
        """What it is over."""
        return f"unit:{self.unit}|refs:each|smooth:no|version:1"

    def score(self, stats: Stats) -> float:
        """Loss, perplexity or accuracy of summed statistics."""
        nats, tokens, right = stats.tolist()
        if not tokens:
            return math.nan
        if self.name == "forced_accuracy":
            return 100.0 * right / tokens
        loss = nats / tokens
        return loss if self.name == "loss" else _exp(loss)


LIKELIHOODS = tuple(Likelihood(name) for name in ("loss", "perplexity", "forced_accuracy"))
OF_NUMBERS = (Likelihood("loss", "scaled step"),)


def likelihoods(model: Seq2Seq) -> tuple[Likelihood, ...]:
    """What is told of a model; of one of numbers the loss alone, in the units that it was trained by."""
    return OF_NUMBERS if _numbers(model) is not None else LIKELIHOODS


def _numbers(model: object) -> NumbersHead | None:
    """The head of a model of numbers."""
    head = model.head if isinstance(model, Seq2Seq) else None
    return head if isinstance(head, NumbersHead) else None


def teacher_forced(model: Seq2Seq, batches: Iterable[Batch]) -> Forced:
    """Loss a token in nats, perplexity and token accuracy over all target tokens of the batches.

    The model is put into evaluation mode and left as it was.
    """
    total = sum((rows.sum(axis=0) for rows in forced_rows(model, batches)), np.zeros(3))
    if not total[1]:
        raise DataError("there is nothing to score", got="0 target tokens")
    return Forced(*(each.score(total) for each in LIKELIHOODS))


@torch.no_grad()
def forced_rows(model: Seq2Seq, batches: Iterable[Batch]) -> Iterator[Stats]:
    """`[nats, tokens, tokens said right]` of every target, a table a batch."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        for batch in batches:
            rows, length = batch.target.values.shape[:2]
            step = max(1, LOGITS // (length * model.target_size))
            parts = [torch.arange(start, min(start + step, rows)) for start in range(0, rows, step)]
            yield np.concatenate([_part(model, batch.rows(part).to(device)) for part in parts])
    finally:
        model.train(training)


def _part(model: Seq2Seq, batch: Batch) -> Stats:
    if (head := _numbers(model)) is not None:
        losses_BT = head.losses(model(batch)[0], batch.target).double()
        lengths_B = batch.target.lengths_B.double()
        return torch.stack([losses_BT.sum(1), lengths_B, torch.zeros_like(lengths_B)], dim=1).cpu().numpy()
    log_probs_BTV = model.log_probs(*model(batch))
    labels, mask = batch.labels_BT, batch.target.mask_BL & (batch.labels_BT != PAD)
    nats = -log_probs_BTV.gather(2, labels[:, :, None])[:, :, 0].double().masked_fill(~mask, 0.0)
    right = (log_probs_BTV.argmax(dim=2) == labels) & mask
    return torch.stack([nats.sum(1), mask.sum(1).double(), right.sum(1).double()], dim=1).cpu().numpy()


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf
