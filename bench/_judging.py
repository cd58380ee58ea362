"""What benches share that compare answers line by line: scores with intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antiphon import metrics
from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor
from antiphon.metrics import significance
from antiphon.metrics.scoring import table


def answers(run: Path, sources: Sequence[str], **given: Any) -> list[str]:
    """The best answer to each source; what is `given` goes to `Predictor.predict`."""
    return [found[0].text for found in Predictor(load(run)).predict(sources, **given)]


def scored(name: str, said: list[str], references: list[list[str]]) -> dict[str, Any]:
    """A metric with its interval. Every line counts, those whose source comes again too, as in published figures."""
    found = metrics.corpus(metrics.get(name), said, references)
    interval = [round(value, 2) for value in found.interval or ()]
    return {"value": round(found.value, 2), "interval": interval, "signature": found.signature}


def above(name: str, other: list[str], said: list[str], references: list[list[str]]) -> dict[str, Any]:
    """By how much `said` is better than `other`, with the interval of the paired difference."""
    metric: Any = metrics.get(name)
    found = significance.paired(metric, *(table(metric, each, references) for each in (other, said)), trials=1000)
    interval = [round(value, 2) for value in found.interval or ()]
    return {name: round(found.difference, 2), "interval": interval, "p": round(found.p_randomization, 4)}
