"""What a model says to one input, with all that is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from antiphon.core.numbers import Forecast


@dataclass(frozen=True)
class Answer:
    """One answer. `tokens` have no end mark; `probabilities` are theirs, `log_probs` count the end mark in.

    Tokens of facts that a graph encoder has read come after those of the source.
    `probability` is the geometric mean of all token probabilities, end mark included; `confidence` what it says of the
    answer's worth (`antiphon.inference.confidence`), None where the model was not calibrated. An answer that was
    `abstained` from has no text. `weights` `[tokens, source
    tokens + 1]` tell where the model looked (the last column is the source's end mark), `alignment` the likeliest
    source token of each token (empty where the model has no attention). `reason` says what was unusual, else "".
    `utility` is the mean of `decoding.risk` against all candidates, `backward` the score that a backward model gives
    the source, where there was one. An answer of numbers has a `forecast`, whose values its text is, and no tokens.
    """

    text: str
    score: float
    tokens: list[str]
    probabilities: list[float]
    alignment: list[int]
    weights: np.ndarray
    source_tokens: list[str]
    probability: float
    confidence: float | None = None
    abstained: bool = False
    finished: bool = True
    repeated: bool = False
    reason: str = ""
    log_probs: Sequence[float] = ()
    utility: float | None = None
    backward: float | None = None
    forecast: Forecast | None = None


def nothing(reason: str) -> Answer:
    """The answer to an input that was not read."""
    return Answer("", 0.0, [], [], [], np.zeros((0, 1), np.float32), [], 0.0, finished=False, reason=reason)
