"""Targets that are numbers: lines or arrays in, scaled steps `[T, F]` out, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from antiphon.core.config import Data, Side
from antiphon.core.errors import BundleError, DataError
from antiphon.data.arrays import described, read_numbers, shown
from antiphon.data.modalities import TooLong
from antiphon.data.report import Report

NUMBERS_FILE = "numbers.json"
SMALLEST = 1e-4
"""Deviation below which, as a share of its level, a series is not made larger."""


class Scale(NamedTuple):
    """What brings features to mean 0 and deviation 1."""

    mean_F: np.ndarray
    deviation_F: np.ndarray

    def to(self, values_TF: np.ndarray) -> np.ndarray:
        """Numbers as the model reads them."""
        scaled: np.ndarray = ((values_TF - self.mean_F) / self.deviation_F).astype(np.float32)
        return scaled

    def back(self, values_TF: np.ndarray) -> np.ndarray:
        """Numbers as people read them."""
        return values_TF * self.deviation_F + self.mean_F

    def first(self, features: int) -> Scale:
        """That of the first features."""
        return Scale(self.mean_F[:features], self.deviation_F[:features])

    @staticmethod
    def of(mean_F: np.ndarray, deviation_F: np.ndarray, usual_F: np.ndarray | None = None) -> Scale:
        """What never changes is divided by what is usual elsewhere, or by 1."""
        floor_F = np.maximum(deviation_F, SMALLEST * np.abs(mean_F))
        usual_F = np.ones_like(mean_F) if usual_F is None else np.where(usual_F > 0, usual_F, 1.0)
        return Scale(mean_F, np.where(floor_F > 0, floor_F, usual_F))


@dataclass(frozen=True)
class Season:
    """What brings the steps after a series to what they are beyond its trend, its season and where it was last.

    `shape_MF` is what the M steps after the series would be without a trend, `slope_F` what a step adds, `deviation_F`
    that of the series about both. It is a classical decomposition, by means over all seasons (Hyndman and
    Athanasopoulos 2021, chapter 3).
    """

    shape_MF: np.ndarray
    slope_F: np.ndarray
    deviation_F: np.ndarray

    def expected(self, steps: int) -> np.ndarray:
        """What comes if nothing new does, `[T, F]`."""
        step = np.arange(steps)
        expected: np.ndarray = self.shape_MF[step % len(self.shape_MF)]
        return expected + self.slope_F * step[:, None]

    def to(self, values_TF: np.ndarray) -> np.ndarray:
        """Numbers as the model reads them."""
        scaled: np.ndarray = ((values_TF - self.expected(len(values_TF))) / self.deviation_F).astype(np.float32)
        return scaled

    def back(self, values_TF: np.ndarray) -> np.ndarray:
        """Numbers as people read them; there may be axes between steps and features."""
        expected = self.expected(len(values_TF))
        return values_TF * self.deviation_F + expected.reshape(len(expected), *[1] * (values_TF.ndim - 2), -1)

    def first(self, features: int) -> Season:
        """That of the first features."""
        return Season(self.shape_MF[:, :features], self.slope_F[:features], self.deviation_F[:features])

    @staticmethod
    def of(values_SF: np.ndarray, steps: int, usual_F: np.ndarray | None = None) -> tuple[Season, np.ndarray]:
        """That of a series, for seasons of so many steps; and the series itself as what is beyond it.

        Raises `DataError` where there is no more than a season.
        """
        length, values_SF = len(values_SF), values_SF.astype(np.float64)
        if length <= steps:
            do = "give longer ones, or take data.frames.normalize=last"
            raise DataError(f"a series has to be longer than a season of {steps} steps", got=length, do=do)
        slope_F, place = (values_SF[steps:] - values_SF[:-steps]).mean(axis=0) / steps, np.arange(length)
        level_SF = values_SF - slope_F * place[:, None]
        shape_MF = np.stack([level_SF[phase::steps].mean(axis=0) for phase in range(steps)])
        rest_SF = level_SF - shape_MF[place % steps]
        deviation_F = Scale.of(values_SF.mean(axis=0), rest_SF.std(axis=0), usual_F).deviation_F
        after_MF = np.roll(shape_MF, -(length % steps), axis=0) + rest_SF[-1] + slope_F * length
        return Season(after_MF, slope_F, deviation_F), ((rest_SF - rest_SF[-1]) / deviation_F).astype(np.float32)


@dataclass(frozen=True)
class Numbers:
    """The target side where it is numbers. `features` is F; `scale` that of training. `horizon` is how many steps
    every answer has, 0 where the model says where it ends. `own` says that a target has the scale of its source."""

    side: Side
    features: int
    scale: Scale
    horizon: int
    own: bool
    too_long: str = "truncate"
    name: str = "target"

    @property
    def size(self) -> int:
        """Features of a step."""
        return self.features

    def limited(self, max_length: int | None, too_long: str) -> Numbers:
        """The same with another longest length, and what to do with what is longer."""
        return replace(self, side=replace(self.side, max_length=max_length), too_long=too_long)

    def read(self, value: str, report: Report | None = None) -> np.ndarray:
        """A target's steps `[T, F]` as they are, never more than `max_length`; counts in `report` what was cut.

        Raises `DataError` for other features than training had, `TooLong` where cutting is not allowed.
        """
        values, limit = read_numbers(value), self.side.max_length
        if values.shape[1] != self.features:
            what = f"{self.name} has {values.shape[1]} features a step, the model says {self.features}"
            raise DataError(what, where=shown(value)[:60], do="give all targets the same features")
        if limit is None or len(values) <= limit:
            return values
        what = f"{self.name} is longer than max_length={limit} steps"
        if self.too_long != "truncate":
            error = TooLong(what, where=shown(value)[:60], got=len(values), do="raise data.target.max_length")
            error.skip = self.too_long == "skip"
            raise error
        if report is not None:
            report.add(f"{self.name} cut to max_length={limit} steps", example=shown(value))
        return values[:limit]

    def files(self, prefix: str) -> dict[str, bytes]:
        """What `load` needs, by file names that begin with `prefix.`."""
        about = {"features": self.features, "mean": self.scale.mean_F.tolist(), "horizon": self.horizon,
                 "deviation": self.scale.deviation_F.tolist()}  # fmt: skip
        return {f"{prefix}.{NUMBERS_FILE}": json.dumps(about).encode()}

    @classmethod
    def load(cls, files: dict[str, bytes], prefix: str, data: Data) -> Numbers:
        """Reads what `files` gave; anything else is a `BundleError`."""
        where = f"{prefix}.{NUMBERS_FILE}"
        if where not in files:
            raise BundleError("there is no such file", where=where)
        features, horizon, scale = _about(files[where], where)
        return cls(data.target, features, scale, horizon, owning(data), data.too_long)

    @classmethod
    def learn(cls, values: Iterable[str], data: Data, *, ends: bool) -> Numbers:
        """Learns features, scale and, where the model is not to say where it `ends`, how many steps there are; goes
        through the targets once."""
        count, longest, first = 0, 0, ""
        total = squares = np.zeros(0)
        for value in values:
            steps = read_numbers(value)[: data.target.max_length].astype(np.float64)
            if not count:
                first, total, squares = value, np.zeros(steps.shape[1]), np.zeros(steps.shape[1])
            if steps.shape[1] != len(total):
                what = f"target has {steps.shape[1]} features a step, {shown(first)[:60]} has {len(total)}"
                raise DataError(what, where=shown(value)[:60], do="give all targets the same features")
            count, longest = count + len(steps), max(longest, len(steps))
            total, squares = total + steps.sum(axis=0), squares + np.square(steps).sum(axis=0)
        if not count:
            raise DataError("there is no target to learn from")
        mean = total / count
        deviation = np.sqrt(np.maximum(0.0, squares / count - mean**2))
        scale = Scale(np.zeros(len(mean)), np.ones(len(mean)))
        if data.frames.normalize != "none":
            scale = Scale.of(mean, deviation)
        return cls(data.target, len(mean), scale, 0 if ends else longest, owning(data), data.too_long)


def owning(data: Data) -> bool:
    """Whether a target is brought to the scale of its own source: both are one series."""
    return data.source.kind == "numbers" and data.frames.normalize in ("each", "last", "season")


def _about(content: bytes, where: str) -> tuple[int, int, Scale]:
    [horizon], mean, deviation = described(content, where, "numbers", ["horizon"])
    if type(horizon) is not int or not 0 <= horizon < 1 << 31 or not (deviation > 0).all():
        raise BundleError("is not a description of numbers", where=where)
    return len(mean), horizon, Scale(mean, deviation)
