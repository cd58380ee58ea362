"""Confidence from pairs that training has not seen: answer them, see how good the answers are, and fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError
from antiphon.data.corpus import Pair
from antiphon.inference.bundle import Bundle
from antiphon.inference.confidence import Calibration, features, fit, judge, quality
from antiphon.inference.predictor import Answer, Predictor


@dataclass(frozen=True)
class Calibrated:
    """A calibration, and `notes` on what was odd in the pairs it was fitted to."""

    calibration: Calibration
    notes: list[str]

    def lines(self) -> list[str]:
        """For a terminal."""
        made = self.calibration
        right = made.metric in ("exact", "accuracy", "error")
        what = "the chance that an answer is right" if right else f"the expected {made.metric}, as a share of the best"
        return [
            f"confidence is {what}, fitted to {made.pairs:,} answers",
            f"calibration error {made.error:.3f}, that of plain probabilities {made.raw_error:.3f}",
        ]


def calibrate(
    bundle: Bundle, pairs: Sequence[Pair], metric: str | None = None, *, decoding: Decoding | None = None,
    processes: int | None = None, knowledge: Path | str | None = None,
) -> Calibrated:  # fmt: skip
    """The confidence of a model's best answers in the metric (that of training, or `exact` where that was a loss).

    Inputs that were not read, such as empty ones, are left out. `knowledge` is as in `Predictor`. Raises
    `DataError` where too few remain, `ConfigError` for a metric that cannot judge a single answer.
    """
    if bundle.config.data.target.kind == "numbers":
        do = "look at the quantiles of its forecasts"
        raise ConfigError("a model of numbers has no confidence", where=bundle.path, do=do)
    judged = judge(metric or bundle.config.training.metric)
    predictor = Predictor(replace(bundle, confidence=None), processes=processes, knowledge=knowledge)
    settings = replace(decoding or bundle.config.decoding, abstain=0.0)
    found = [answers[0] for answers in predictor.predict(pairs, settings=settings)]
    read = [
        (answer, pair.references or (pair.target,)) for answer, pair in zip(found, pairs, strict=True) if known(answer)
    ]
    rows = np.array([features(answer.log_probs, answer.finished) for answer, _ in read])
    good = quality(judged, [answer.text for answer, _ in read], [references for _, references in read])
    raw = np.array([answer.probability for answer, _ in read])
    return Calibrated(fit(judged.name, rows, good, raw), [*predictor.facts.lines(), *predictor.report.lines()])


def known(answer: Answer) -> bool:
    """Whether the model said it, and not a rule about inputs."""
    return len(answer.log_probs) > 0
