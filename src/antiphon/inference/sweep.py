"""How good and how varied a model's answers are, from cautious to bold: a model is a line here, not a point.

Temperature trades quality for variety in any model, so that models are compared along it (Caccia et al. 2020): one is
better than another where its line is further out, and not because its usual temperature lies elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from antiphon import metrics
from antiphon.core.batch import Batch, Memory, Steps
from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError
from antiphon.data.corpus import Pair
from antiphon.inference.evaluate import forced_scores
from antiphon.inference.predictor import Predictor
from antiphon.metrics import Pooled, Score

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
VARIETY = ("distinct1", "distinct2", "self_bleu")
PEOPLE = "people"
"""The name of the answers that are the references."""


@dataclass(frozen=True)
class Point:
    """Scores of one model decoded in one way: a `temperature`, or none for a search. `answers` are to the same inputs
    everywhere; the perplexity is of the references at that temperature."""

    model: str
    how: str
    temperature: float | None
    scores: dict[str, Score]
    answers: list[str]


def sweep(
    name: str, predictor: Predictor, pairs: Sequence[Pair], settings: Decoding, *,
    temperatures: Sequence[float] = TEMPERATURES, quality: str = "bleu:2", ranked: Predictor | None = None,
) -> Iterator[Point]:  # fmt: skip
    """Points of a model: drawn at each temperature, searched for, and where `ranked` has a backward model by that too.

    `quality` is the metric against the references. Draws depend on `decoding.seed` alone.
    """
    check(temperatures, quality)
    plain = replace(settings, sample=False, risk="", n_best=1)
    for temperature in sorted(temperatures):
        drawn = replace(plain, sample=True, temperature=temperature, groups=1, ctc=None)
        yield _point(name, f"T {temperature:g}", predictor, pairs, drawn, quality)
    beam = plain.beam or 5
    yield _point(name, f"beam {beam}" if beam > 1 else "greedy", predictor, pairs, plain, quality)
    if ranked is not None:
        yield _point(name, "MMI", ranked, pairs, plain, quality)


def check(temperatures: Sequence[float], quality: str) -> None:
    """Raises `ConfigError` for what cannot be swept."""
    if isinstance(metrics.of_text(quality), Pooled):
        raise ConfigError("quality needs a metric with references", got=quality, do="take bleu:2 or chrf")
    if not temperatures:
        raise ConfigError("there is no temperature to draw at", where="--temperatures", do="give one or more: 0.5,1")
    for temperature in temperatures:
        if not 0 < temperature < 100:
            raise ConfigError("a temperature must be above 0 and below 100", got=temperature)


def people(pairs: Sequence[Pair], quality: str = "bleu:2") -> Point:
    """How varied the references are: the first one of each pair, of which there is no quality."""
    answers = [(pair.references or (pair.target,))[0] for pair in pairs]
    return Point(PEOPLE, PEOPLE, None, _scores(pairs, answers, VARIETY), answers)


def _point(name: str, how: str, predictor: Predictor, pairs: Sequence[Pair], settings: Decoding, quality: str) -> Point:
    answers = [found[0].text for found in predictor.predict(pairs, settings=settings)]
    scores = _scores(pairs, answers, (quality, *VARIETY))
    temperature = settings.temperature if settings.sample else None
    if temperature is not None and len(predictor.models) == 1:
        scores["perplexity"] = forced_scores(_Tempered.of(predictor, temperature), pairs)["perplexity"]
    return Point(name, how, temperature, scores, answers)


def _scores(pairs: Sequence[Pair], answers: list[str], names: Sequence[str]) -> dict[str, Score]:
    references = [pair.references or (pair.target,) for pair in pairs]
    return {name: metrics.corpus(metrics.get(name), answers, references) for name in names}


class _Tempered(nn.Module):
    """A model as it is at a temperature, as far as it takes to say how likely given answers are."""

    def __init__(self, model: Any, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature, self.target_size = model, temperature, model.target_size

    @staticmethod
    def of(predictor: Predictor, temperature: float) -> Any:
        """The predictor with that model."""
        return _Answering([_Tempered(predictor.models[0], temperature)], predictor.task)

    def forward(self, batch: Batch) -> tuple[Steps, Memory]:
        """What the model gives."""
        found: tuple[Steps, Memory] = self.model(batch)
        return found

    def log_probs(self, steps: Steps, memory: Memory) -> Tensor:
        """Log probabilities at the temperature."""
        log_probs: Tensor = self.model.log_probs(steps, memory) / self.temperature
        return log_probs.log_softmax(-1)


@dataclass(frozen=True)
class _Answering:
    models: Sequence[nn.Module]
    task: Any
