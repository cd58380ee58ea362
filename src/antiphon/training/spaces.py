"""What is worth trying besides what a recipe proposes: for each task the settings that matter, around its values."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from antiphon.core.config import Config
from antiphon.core.keys import get


@dataclass(frozen=True)
class Among:
    """One of some values, in no order."""

    key: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.values))


@dataclass(frozen=True)
class Between:
    """Numbers from `low` to `high`, `step` apart (0: all), evenly by their logarithms where `log` is set."""

    key: str
    low: float
    high: float
    step: float = 0.0
    log: bool = False

    def __str__(self) -> str:
        apart = f", {self.step:g} apart" if self.step else ", by logarithm" if self.log else ""
        return f"{self.low:g} to {self.high:g}{apart}"


Range = Among | Between


class Around(Protocol):
    """Makes a range of what a recipe proposes."""

    @property
    def key(self) -> str:
        """The setting."""

    def around(self, config: Config) -> Range | None:
        """What is worth trying; None where the setting means nothing here."""


@dataclass(frozen=True)
class Choices:
    """These values, and the recipe's own. With `where`, only if that setting has that value."""

    key: str
    values: tuple[Any, ...]
    where: tuple[str, Any] | None = None

    def around(self, config: Config) -> Range | None:
        """All of them."""
        own = get(config, self.key)
        if own is None or (self.where and get(config, self.where[0]) != self.where[1]):
            return None
        return Among(self.key, tuple(dict.fromkeys((*self.values, own))))


@dataclass(frozen=True)
class Factor:
    """From the recipe's value divided by `factor` to that multiplied by it; whole multiples of `step` where given."""

    key: str
    factor: float
    step: int = 0

    def around(self, config: Config) -> Range | None:
        """A range by logarithm, or steps that hit the recipe's value."""
        own = get(config, self.key)
        if not own:
            return None
        low, high = own / self.factor, own * self.factor
        step = math.lcm(self.step, config.model.heads) if self.key == "model.width" else self.step
        return Between(self.key, low, high, log=True) if not step else _grid(self.key, own, low, high, step)


@dataclass(frozen=True)
class Grid:
    """From `low` to `high` in steps, which are moved so that they hit the recipe's value. With `where`, only if that
    setting has that value."""

    key: str
    low: float
    high: float
    step: float
    where: tuple[str, Any] | None = None

    def around(self, config: Config) -> Range | None:
        """The steps."""
        own = get(config, self.key)
        if own is None or (self.where and get(config, self.where[0]) != self.where[1]):
            return None
        return _grid(self.key, own, min(own, self.low), max(own, self.high), self.step)


def _grid(key: str, own: float, low: float, high: float, step: float) -> Between:
    """The multiples of a step away from the recipe's value that lie between."""
    down, up = (math.floor(distance / step + 1e-9) for distance in (own - low, high - own))
    first, last = round(own - down * step, 9) + 0.0, round(own + up * step, 9)  # no -0.0
    if down and first <= 0 < low:
        first = round(first + step, 9)
    return Between(key, first, last, step)


LEARNING: tuple[Around, ...] = (
    Factor("training.rate", 4),
    Factor("data.batch_tokens", 2, step=256),
    Grid("model.dropout", 0.0, 0.5, 0.05),
    Choices("training.ema", (0.0, 0.99, 0.998)),
)
SIZES: tuple[Around, ...] = (
    Factor("model.width", 2, step=32),
    Grid("model.encoder.layers", 1, 6, 1),
    Grid("model.decoder.layers", 1, 4, 1),
)
SMOOTHING: tuple[Around, ...] = (Grid("training.label_smoothing", 0.0, 0.2, 0.05),)
WORDS: tuple[Around, ...] = (
    Choices("model.dropout_word", (0.0, 0.05, 0.1)),
    Grid("data.source.sampling", 0.0, 0.1, 0.05, where=("data.source.tokenizer", "bpe")),
)
TEXT = (*LEARNING, *SIZES, *SMOOTHING, *WORDS)
COPIED = (*TEXT, Grid("data.augment.names", 0.0, 0.6, 0.1, where=("model.head", "copy")))
STRINGS = (
    *LEARNING,
    *SIZES,
    *SMOOTHING,
    Choices("model.encoder.kind", ("lstm", "gru", "transformer")),
    Choices("model.decoder.kind", ("lstm", "gru", "transformer")),
    Choices("model.attention", ("multihead", "general", "additive")),
)
FRAMES: tuple[Around, ...] = (
    Grid("model.frontend.time_masks", 0, 4, 1),
    Grid("model.frontend.feature_masks", 0, 3, 1),
)
HEARD = (
    *LEARNING,
    *SIZES,
    *SMOOTHING,
    *FRAMES,
    Grid("training.ctc", 0.1, 0.5, 0.1, where=("model.ctc", True)),
    Choices("data.augment.speed", (0.0, 0.1)),
)

SPACES: dict[str, tuple[Around, ...]] = {
    "translation": TEXT,
    "summarization": COPIED,
    "dialogue": TEXT,
    "transduction": STRINGS,
    "code": COPIED,
    "data-to-text": COPIED,
    "classification": (*LEARNING, *SIZES[:2], *SMOOTHING, *WORDS),
    "speech": HEARD,
    "captioning": (*LEARNING, *SIZES, *SMOOTHING, *FRAMES[:1]),
    "forecasting": (*LEARNING, *SIZES, Choices("model.head", ("gaussian", "quantile"))),
}
"""What the recipe of each task leaves to a search."""


def space(config: Config, given: Collection[str] = ()) -> list[Range]:
    """The ranges of a task around a complete configuration, without the settings that are `given`."""
    return list(_ranges(config, given))


def _ranges(config: Config, given: Collection[str]) -> Iterator[Range]:
    signal = config.data.source.kind not in (None, "text")
    family = SPACES["forecasting"] if config.data.target.kind == "numbers" else SPACES[config.task]
    if signal and family in (TEXT, COPIED, STRINGS):
        family = HEARD
    for each in family:
        if each.key in given or (signal and each in WORDS):
            continue
        found = each.around(config)
        if isinstance(found, Among | Between) and _many(found):
            yield found


def _many(found: Range) -> bool:
    """Whether there is more than one value."""
    return len(found.values) > 1 if isinstance(found, Among) else found.low < found.high
