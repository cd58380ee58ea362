"""What a search is asked for besides the source, and what it finds; whichever engine does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError, TrainingError
from antiphon.core.marks import BOS, EOS, PAD
from antiphon.core.numbers import Forecast
from antiphon.data.numbers import Scale, Season

BEAM = 5
"""Hypotheses kept where the settings leave it open."""

MARGIN = 4e-5
"""Gaps below this many nats, times the root of the number of tokens, count as ties (docs/decisions/0001)."""

Phrase = tuple[int, ...]


class NoNumbers(TrainingError):
    """A model gives no probabilities, as one does whose training went astray."""

    def __init__(self) -> None:
        what, do = "the model gives probabilities that are not numbers", "train anew with a lower training.rate"
        super().__init__(what, do=do)


def pool(settings: Decoding) -> int:
    """How many candidates there are to choose from by risk or a backward model."""
    return settings.samples if settings.sample else settings.beam or BEAM


def check(settings: Decoding) -> None:
    """Refuse settings of a search that contradict each other."""
    beam = settings.beam or BEAM
    if settings.sample and settings.groups > 1:
        raise ConfigError("decoding.sample and decoding.groups exclude each other")
    if settings.sample and settings.ctc:
        do = "leave one of them out"
        raise ConfigError("decoding.ctc gives scores, and no probabilities to sample from", do=do)
    if not settings.sample and settings.n_best > beam:
        do = f"give beam={settings.n_best} too, or fewer answers"
        raise ConfigError("decoding.n_best is larger than the beam", got=f"{settings.n_best} and {beam}", do=do)
    if beam % settings.groups:
        raise ConfigError("decoding.beam must be a multiple of decoding.groups", got=f"{beam} and {settings.groups}")
    if settings.penalty < 0 or settings.coverage_penalty < 0:
        raise ConfigError("decoding.length_penalty and decoding.coverage_penalty must not be negative")
    if settings.sample and not (settings.temperature > 0 and 0 < settings.top_p <= 1 and settings.top_k >= 0):
        got = f"{settings.temperature}, {settings.top_p} and {settings.top_k}"
        raise ConfigError("sampling needs temperature > 0, 0 < top_p <= 1 and top_k >= 0", got=got)


@dataclass(frozen=True)
class Constraint:
    """What one sentence's answer must begin with, must hold and must not hold, as target ids."""

    prefix: Phrase = ()
    required: tuple[Phrase, ...] = ()
    banned: tuple[Phrase, ...] = ()

    def __post_init__(self) -> None:
        for phrase in (self.prefix, *self.required, *self.banned):
            if {PAD, BOS, EOS} & set(phrase):
                raise ConfigError("a constraint holds a special token", got=phrase)
        if not all((*self.required, *self.banned)):
            raise ConfigError("a required or banned phrase is empty", do="leave it out")
        for phrase in self.banned:
            if any(_holds(text, phrase) for text in (*self.required, self.prefix)):
                raise ConfigError("a phrase is both banned and asked for", got=phrase)

    @property
    def needed(self) -> int:
        """Tokens that the constraint asks for."""
        return len(self.prefix) + sum(map(len, self.required))


def _holds(text: Phrase, phrase: Phrase) -> bool:
    return any(text[at : at + len(phrase)] == phrase for at in range(len(text) - len(phrase) + 1))


@dataclass(frozen=True)
class Hypothesis:
    """One answer: `tokens` without the end mark, natural log probabilities with it, `weights` `[T, S]` likewise, of all
    that is real in the memory.

    `finished` is false where the length limit came before the end mark; `repeated` is true where a near tie made
    the search decode the sentence again on its own. `heard` are the states of the source at which a CTC head hears each
    token, where there is one and these were asked for. Where an engine was not asked for details, `log_probs` and
    `weights` are empty and `total` is the sum of the former.
    """

    tokens: list[int]
    score: float
    log_probs: list[float]
    weights: np.ndarray
    finished: bool = True
    repeated: bool = False
    heard: Sequence[int] = ()
    total: float | None = None


@dataclass(frozen=True)
class Ranked(Hypothesis):
    """A hypothesis that was chosen among candidates.

    `utility` is its mean score by the metric of `decoding.risk`, `backward` the score that the backward model gives
    the source; `reason` says what was unusual, else "".
    """

    utility: float | None = None
    backward: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Rolled(Hypothesis):
    """An answer of numbers: `forecast` is what `tokens` are to text."""

    forecast: Forecast | None = None

    def scaled(self, scale: Scale | Season | None, history_SF: np.ndarray | None) -> Forecast:
        """The forecast in units of the source."""
        found = self.forecast
        assert found is not None
        if scale is None:
            return replace(found, history_SF=history_SF)
        quantiles_TFQ, deviation_TF = found.quantiles_TFQ, found.deviation_TF
        if quantiles_TFQ is not None:
            quantiles_TFQ = scale.back(quantiles_TFQ.swapaxes(1, 2)).swapaxes(1, 2)
        deviation_TF = None if deviation_TF is None else deviation_TF * scale.deviation_F
        paths = [scale.back(path) for path in found.paths]
        return Forecast(scale.back(found.values_TF), quantiles_TFQ, deviation_TF, paths, history_SF)
