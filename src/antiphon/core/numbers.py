"""Sequences of numbers as text, and what a model foretells of one.

Axes: T steps, F features of a step, Q quantiles, S steps of the source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from antiphon.core.errors import DataError

LEVELS = tuple(round(0.05 * place, 2) for place in range(1, 20))
"""Of the quantiles that a forecast has: even, so that their mean pinball loss is half the CRPS; one is the median."""

HOW = "write steps with spaces between, and features of one step with commas: 1.5,2 3.25,4"

_PLAIN = re.compile(r"[+-]?\d+\.\d+(?:[eE][+-]?\d+)?")


def parse(text: str) -> np.ndarray:
    """The numbers `[T, F]` of a line; `DataError` for a word, what is no finite number, and uneven features."""
    rows = [entry.split(",") for entry in text.split()]
    if not rows:
        raise DataError("there is no number in it", do=HOW)
    for step, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            what = f"step {step} has another number of features than the first ({len(row)}, not {len(rows[0])})"
            raise DataError(what, do=HOW)
    values = np.array([[_number(entry, step) for entry in row] for step, row in enumerate(rows, start=1)])
    return values.astype(np.float32)


def _number(entry: str, step: int) -> float:
    try:
        value = float(entry) if "_" not in entry else float("nan")
    except ValueError:
        value = float("nan")
    if not abs(value) < 3e38:
        raise DataError(f"step {step} is no number", got=repr(entry[:40]), do=HOW)
    return value


def spell(values_TF: np.ndarray) -> str:
    """Numbers as a line that `parse` reads, with the seven digits that they are good for."""
    return " ".join(",".join(f"{value:.7g}" for value in row) for row in values_TF.tolist())


def is_plain(text: str, least: int = 1) -> bool:
    """Whether a line is numbers without a doubt: at least so many steps, and every number with a decimal point."""
    entries = [entry for step in text.split() for entry in step.split(",")]
    return len(text.split()) >= least and all(_PLAIN.fullmatch(entry) for entry in entries)


@dataclass(frozen=True)
class Forecast:
    """What a model says of a sequence: `values_TF` is its best guess, `quantiles_TFQ` those of `LEVELS`.

    `deviation_TF` is there where a step is Gaussian about its value, `paths` where some were drawn: the quantiles are
    then those of the paths, otherwise those of each step after the best guess so far. `history_SF` is the source as it
    came, where that is numbers.
    """

    values_TF: np.ndarray
    quantiles_TFQ: np.ndarray | None = None
    deviation_TF: np.ndarray | None = None
    paths: Sequence[np.ndarray] = ()
    history_SF: np.ndarray | None = None

    @staticmethod
    def of(said: str | Forecast) -> Forecast:
        """A forecast as it is; a line of numbers as one that is sure of itself."""
        return said if isinstance(said, Forecast) else Forecast(parse(said))


def held(values_TF: np.ndarray, length: int) -> np.ndarray:
    """So many steps: what is too short stays where it ended."""
    missing = max(0, length - len(values_TF))
    return np.concatenate([values_TF, np.repeat(values_TF[-1:], missing, axis=0)])[:length]
