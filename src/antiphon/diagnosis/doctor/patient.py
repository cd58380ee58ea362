"""What rules look at: the log of a run, and where it can be opened, what it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from antiphon.diagnosis.doctor.material import Advice, Material
from antiphon.diagnosis.doctor.record import FEWEST, Record
from antiphon.diagnosis.doctor.weighing import lost_again, second_half, sure

LIMIT = 3
"""Ratios to the recipe's proposal that are below this are taste."""


@dataclass
class Patient:
    """A record with its material; while a model still trains there is none, and `advice` is all that is known."""

    record: Record
    material: Material | None = None
    given_advice: Advice | None = field(default=None)

    @cached_property
    def advice(self) -> Advice | None:
        """The recipe's."""
        return self.material.advice if self.material else self.given_advice

    def advised(self, *keys: str) -> Any:
        """What the recipe proposes for a setting, were it and these others open."""
        return self.advice(*keys) if self.advice else None

    def ratio(self, key: str, *others: str) -> float:
        """A setting over what is advised for it; 1 where there is nothing to compare."""
        value, advised = self.record.value(key), self.advised(key, *others)
        return value / advised if value and advised else 1.0

    @cached_property
    def unigram(self) -> float | None:
        """Nats a target token where nothing but frequencies is known; None where that cannot be found out."""
        return self.material.train.unigram if self.material and self.material.train else None

    @cached_property
    def learned(self) -> float:
        """How much of what frequencies leave open the best model knows, 0 to 1."""
        best, floor = self.record.best_loss, self.unigram
        if best is None or not floor:
            return max(0.0, 1 - self.left) if len(self.record.losses) >= FEWEST else 1.0
        return max(0.0, 1 - best / floor)

    @cached_property
    def left(self) -> float:
        """The training loss at the end, as a share of what it was at first."""
        curve = self.record.curve
        return float(curve[-1] / self.record.losses[0]) if len(curve) else 1.0

    @cached_property
    def stuck(self) -> float:
        """How sure it is that hardly anything was learned."""
        return sure(1 - self.learned, 0.75, 0.95)

    @cached_property
    def lost(self) -> float:
        """The share of what was learned that was lost again at the end of training."""
        return lost_again(self.record.curve) if len(self.record.curve) >= FEWEST else 0.0

    @cached_property
    def late(self) -> float:
        """The share of the fall of the validation loss (or of that of training) in the second half of the run."""
        losses = self.record.validation_losses
        curve = self.record.curve
        if len(curve) < FEWEST:
            return 0.0
        if len(losses) >= 4 and self.record.losses.size:
            return _late(losses, float(self.record.losses[0]), len(self.record.steps))
        return second_half(curve)

    @cached_property
    def gap(self) -> float:
        """Validation loss over training loss at the end: by probes without dropout; else as the log has them."""
        probed = self.record.last("loss", "train"), self.record.last("loss", "valid")
        if probed[0] and probed[1]:
            return probed[1] / probed[0]
        losses, curve = self.record.validation_losses, self.record.curve
        return losses[-1][1] / float(curve[-1]) if losses and len(curve) and curve[-1] > 0 else 1.0

    @property
    def recurrent(self) -> bool:
        """Whether anything in the model is recurrent."""
        return bool(
            {"rnn", "lstm", "gru"} & {self.record.value(f"model.{side}.kind") for side in ("encoder", "decoder")}
        )


def _late(losses: Sequence[tuple[int, float]], first: float, steps: int) -> float:
    """The share of the fall from the very first loss that came after half of the steps."""
    half = min(losses, key=lambda found: abs(found[0] - steps / 2))[1]
    lowest = min(loss for _, loss in losses)
    return max(0.0, half - lowest) / (first - lowest) if first > lowest else 1.0
