"""The recipe for targets that are numbers: small recurrent networks, which few series do not wear out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from antiphon.core.config import Data
from antiphon.data.arrays import read_numbers
from antiphon.data.corpus import Pair
from antiphon.data.numbers import Scale, Season
from antiphon.training.recipes import step_down, up
from antiphon.training.sensing import Hearing

HOW = {
    "all": "the level of sources says little of that of targets",
    "each": "targets keep about the level of their sources",
    "last": "targets go on from the last step of their sources",
    "season": "targets go on with the trend and the season of their sources",
}
"""Ways to scale, and what speaks for each."""

STILL = 0.1
"""The share of sources that may never change where errors are told in the changes of others."""

WATCHED = 200
"""Pairs among which a season is looked for."""


@dataclass(frozen=True)
class Targets:
    """What targets of numbers are like: steps of the mean and of the longest one, whether all have as many, features,
    whether they go on from their sources, which are numbers too then, and the scale under which they are spread least,
    where sources can give them theirs, with the steps of a season. `moving`: nearly all sources change from step to
    step, so that errors can be told in these changes."""

    steps: float
    longest: int
    even: bool
    features: int
    go_on: bool = False
    scale: str = "all"
    season: int = 1
    moving: bool = False

    @staticmethod
    def of(pairs: Sequence[Pair], data: Data) -> Targets:
        """Looks at these pairs."""
        found = [read_numbers(pair.target) for pair in pairs]
        lengths, features = [len(values) for values in found], found[0].shape[1]
        scale, season, go_on, moving = "all", 1, False, False
        if data.source.kind == "numbers" and all(values.shape[1] == features for values in found):
            sources = [read_numbers(pair.source) for pair in pairs]
            if go_on := all(source.shape[1] >= features for source in sources):
                sources = [source[:, :features].astype(np.float64) for source in sources]
                scale, season = _least_spread(sources, found, data.frames.season or None)
                still = sum(not np.diff(source, axis=0).any(axis=0).all() for source in sources)
                moving = still <= STILL * len(sources) and min(map(len, sources)) > 1
        even = len(set(lengths)) == 1
        return Targets(float(np.mean(lengths)), max(lengths), even, features, go_on, scale, season, moving)


def _least_spread(sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], season: int | None) -> tuple[str, int]:
    """The scale under which the numbers of targets are nearest to 0, in the mean over pairs, features and steps; and
    the steps of the season that does it, or those that are set."""
    read, every = np.concatenate(sources), np.concatenate(targets)
    usual = Scale.of(read.mean(axis=0), read.std(axis=0)).deviation_F
    spread = dict.fromkeys(HOW, 0.0)
    for source, target in zip(sources, targets, strict=True):
        own = Scale.of(source.mean(axis=0), source.std(axis=0), usual)
        level = {"each": own, "last": own._replace(mean_F=source[-1]),
                 "all": Scale.of(every.mean(axis=0), every.std(axis=0))}  # fmt: skip
        for name, scale in level.items():
            spread[name] += float(np.abs(scale.to(target)).clip(max=FAR).mean())
    spread["all"] /= CLEAR
    steps, share = _season(sources, targets, usual, season)
    # Watched in fewer pairs, so it is told as a share of what the last step says there.
    spread["season"] = spread["last"] * share / CLEAR_SEASON
    return min(HOW, key=lambda name: spread[name]), steps


def _season(
    sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], usual_F: np.ndarray, season: int | None
) -> tuple[int, float]:
    """The steps of the season that foretells targets best, with the trend, and how far off these are then, as a share
    of how far they are from the last step of their sources."""
    every = max(1, len(sources) // WATCHED)
    pairs = list(zip(sources[::every], targets[::every], strict=True))
    longest = min(len(source) for source, _ in pairs) // 2

    def miss(steps: int) -> float:
        return sum(_off(target - Season.of(source, steps)[0].expected(len(target)), source, usual_F)
                   for source, target in pairs)  # fmt: skip

    plain = sum(_off(target - source[-1], source, usual_F) for source, target in pairs)
    tried = [season] if season and season <= longest else range(1, longest + 1)
    misses = {steps: miss(steps) for steps in tried}
    if not misses or not plain:
        return season or 1, 1.0
    best = min(misses, key=lambda steps: misses[steps])
    return best, misses[best] / plain


def _off(missed_TF: np.ndarray, source_SF: np.ndarray, usual_F: np.ndarray) -> float:
    """The mean size of misses, in deviations of the source."""
    own = Scale.of(source_SF.mean(axis=0), source_SF.std(axis=0), usual_F)
    return float(np.abs(missed_TF / own.deviation_F).clip(max=FAR).mean())


CLEAR = 0.7
"""What one scale for all must bring the spread down to: it does not provide for levels that training did not have."""

CLEAR_SEASON = 0.9
"""What a season must bring it down to beside the last step: of many lengths one is the best by chance."""

FAR = 10.0
"""Scaled numbers beyond this are no farther, so that a few series that change their level do not decide."""


class Forecasting(Hearing):
    """The plan for targets of numbers, whatever the sources are."""

    most_epochs = 200

    @property
    def numbers(self) -> Targets:
        """What targets are like."""
        assert self.statistics.numbers is not None
        return self.statistics.numbers

    def task(self) -> None:
        """What the task brings, and how numbers are said."""
        for choice in self.preset.choices:
            self.propose(choice.key, choice.value, choice.reason)
        self.propose("model.head", "gaussian", "a mean and a deviation for each step")
        even = self.numbers.even
        reason = f"all targets have {self.numbers.longest} steps" if even else "targets are of different lengths"
        self.propose("model.ends", not even, reason)
        if self.config.training.precision == "auto":
            self.replace("training.precision", "fp32", "numbers have more digits than bf16")

    def tokenizers(self) -> None:
        """How sources are read, and the scale of both sides."""
        self.propose("data.shared", False, "targets are numbers")
        longest = max(100, 2 * self.numbers.longest)
        self.propose("data.target.max_length", longest, "longer ones are cut, and counted")
        if self.statistics.signal is None:
            self._source_of_text()
            self.propose("data.frames.normalize", "all", "sources have no level")
        elif self.config.data.source.kind == "numbers":
            self.propose("data.frames.normalize", self.numbers.scale, HOW[self.numbers.scale])
            if self.config.data.frames.normalize == "season" and not self.config.data.frames.season:
                self.replace("data.frames.season", self.numbers.season, "so a series is most like itself")
            self.propose("model.frontend.kind", "stack", "a matrix: each step may count")
            reduce = step_down(self.signal.frames / 200, (1, 2, 4, 8))
            self.propose("model.frontend.reduce", reduce, f"about {self.signal.frames:,.0f} steps to read")
            self._longest_source(max(500, 10 * round(self.signal.frames / 5)), "the newest are read")
        else:
            self._frames()

    def _source_of_text(self) -> None:
        kind, reason = self._tokenizer("source")
        self.propose("data.source.tokenizer", kind, reason)
        self.propose("data.source.vocabulary", *self._size("source"))
        self.propose("data.source.min_count", 1, "every token counts")
        self._longest("source")

    def network(self) -> None:
        """One recurrent layer on either side."""
        self.propose("model.knowledge.kind", "none", "no facts")
        self.propose("model.encoder.kind", "lstm", "order matters, and series are few")
        self.propose("model.decoder.kind", "lstm", "each step follows from the last")
        width = step_down(self._tokens() / 1000, (32, 64, 128))
        self.propose(
            "model.width", up(width, self.config.model.heads), f"about {self._tokens():,.0f} steps to learn from"
        )
        for side in ("encoder", "decoder"):
            self.propose(f"model.{side}.layers", 1, "enough for a series")
        self.propose("model.tie", "none", "numbers have no embeddings")
        if {self.config.model.encoder.kind, self.config.model.decoder.kind} <= {"rnn", "lstm", "gru"}:
            self.propose("model.norm", "none", "a step that is twice as large may matter twice as much")
        super().network()

    def regularization(self) -> None:
        """Dropout by the size of the data; nothing is hidden, smoothed or made up."""
        self.propose("model.frontend.time_masks", 0, "each step may count")
        self.propose("model.frontend.feature_masks", 0, "each feature may count")
        self.propose("data.augment.speed", 0.0, "only recordings have a speed")
        self.propose("data.augment.names", 0.0, "numbers have no names")
        self.propose("model.dropout_embedding", 0.0, "numbers are read as they are")
        self.propose("model.dropout", 0.1, "a little keeps few series from being learned by heart")
        self.propose("training.label_smoothing", 0.0, "numbers have no labels")

    def batches(self) -> None:
        """How much goes into a step."""
        size = min(8192, max(512, 256 * round(self._tokens() / 50 / 256)))
        self.propose("data.batch_tokens", size, "many steps an epoch")

    def judging(self) -> None:
        """By errors, in units that suit all series; what is rolled out is one path."""
        own = self.numbers.moving and (
            self.preset.name == "forecasting" or self.config.data.frames.normalize in ("each", "last", "season")
        )
        self.propose("training.metric", "mase" if own else "mae",
                     "series of any size count alike" if own else "judged on real answers")  # fmt: skip
        self.propose("decoding.beam", 1, "there are no tokens to choose among")
        self.propose("decoding.length_penalty", 1.0, "there are no tokens to choose among")
        self.propose("decoding.min_length", 0, "the model says where an answer ends")
        self.propose("decoding.no_repeat", 0, "numbers may recur")

    def _lengths(self) -> tuple[float, float]:
        """Steps read and said."""
        if self.statistics.signal is None:
            return super(Hearing, self)._lengths()
        return self.signal.frames, self.numbers.steps
