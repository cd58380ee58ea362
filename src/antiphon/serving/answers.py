"""Answers as JSON: what a decoding process makes of what a predictor says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from antiphon.core.numbers import LEVELS, Forecast
from antiphon.inference.answer import Answer
from antiphon.inference.recordings import words
from antiphon.inference.task import Task

if TYPE_CHECKING:
    from antiphon.inference.explore import Explored

DIGITS = 6
"""Decimals of scores and probabilities."""
SHOWN = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of forecasts."""


def answered(answers: Sequence[Answer], task: Task, *, details: bool) -> dict[str, Any]:
    """The best answer with the others beside it; with `details` its pieces, their scores and where it looked."""
    best, *others = answers
    found: dict[str, Any] = {
        "text": best.text,
        "score": None if best.forecast is not None else _short(best.score),
        "confidence": None if best.confidence is None else _short(best.confidence),
        "probability": None if best.forecast is not None else _short(best.probability),
        "reason": best.reason,
        "finished": best.finished,
        "alternatives": [{"text": each.text, "score": _short(each.score)} for each in others],
    }
    if said := words(best, str(task.target.side.tokenizer)):
        found["words"] = [word._asdict() for word in said]
    if best.forecast is not None:
        found["numbers"] = _numbers(best.forecast)
    if details:
        found["details"] = _details(best, task)
    return found


def explored(found: Explored, task: Task) -> dict[str, Any]:
    """A beginning and what may follow it."""
    ways = [
        {"piece": way.token, "text": display(way.token, task), "probability": _short(way.probability), "end": way.end,
         "ahead": way.ahead}
        for way in found.following
    ]  # fmt: skip
    return {"prefix": found.text, "pieces": found.tokens, "next": ways}


def display(token: str, task: Task) -> str:
    """A token of the target as people read it: the marks of subwords are spaces, those of joined words nothing."""
    kind = str(task.target.side.tokenizer)
    if kind in ("bpe", "unigram"):
        return token.replace("▁", " ")
    return token.replace("￭", "") if kind == "word" else token


def _details(answer: Answer, task: Task) -> dict[str, Any]:
    source, width = answer.source_tokens, len(answer.source_tokens)
    marked = str(task.source.side.tokenizer) in ("bpe", "unigram")
    return {
        "source": [token.replace("▁", " ") for token in source] if marked else list(source),
        "target": [display(token, task) for token in answer.tokens],
        "scores": [_short(value) for value in answer.log_probs],
        "attention": [[_short(value, 4) for value in row[:width]] for row in answer.weights.tolist()],
    }


def _numbers(forecast: Forecast) -> dict[str, Any]:
    """Each step's features, and quantiles of these."""
    found: dict[str, Any] = {"values": _table(forecast.values_TF)}
    if forecast.quantiles_TFQ is not None:
        found["quantiles"] = {str(at): _table(forecast.quantiles_TFQ[..., LEVELS.index(at)]) for at in SHOWN}
    return found


def _table(values_TF: Any) -> list[list[float | None]]:
    return [[float(f"{value:.7g}") if math.isfinite(value) else None for value in row] for row in values_TF.tolist()]


def _short(value: float, digits: int = DIGITS) -> float | None:
    """Rounded; what is no number is null in JSON."""
    return round(value, digits) if math.isfinite(value) else None
