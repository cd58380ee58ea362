"""Metrics of numbers: absolute and squared errors, errors by the size of a naive forecast, and how good a spread is.

Where answer and reference are of different lengths, the shorter one stays where it ended. Of several references the
nearest counts. All add up over sentences; a step counts as much as any other, and so does a feature.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from antiphon.core.errors import DataError
from antiphon.core.numbers import LEVELS, Forecast, held, parse
from antiphon.metrics.base import Stats

_INSIDE = np.sqrt(2 * np.pi)


@dataclass(frozen=True)
class OfNumbers:
    """A metric that reads forecasts, or lines of numbers as forecasts that are sure of themselves."""

    name: str
    higher_is_better: bool = False

    @property
    def signature(self) -> str:
        """How it counts."""
        return f"unit:number|{self.how}|lengths:held|refs:nearest|version:1"

    @property
    @abstractmethod
    def how(self) -> str:
        """What is added up, for the signature."""

    @abstractmethod
    def misses(self, forecast: Forecast, actual_TF: np.ndarray) -> np.ndarray | None:
        """The error of each number; None where the pair says nothing."""

    def stats(self, hypothesis: str | Forecast, references: Sequence[str]) -> Stats:
        """`[sum of errors, numbers]` against the nearest reference; an answer of nothing is a `DataError`."""
        if not hypothesis:
            raise DataError("there is no answer to compare with numbers", do="remove the input that has none")
        forecast = Forecast.of(hypothesis)
        found = [self.misses(forecast, parse(reference).astype(np.float64)) for reference in references]
        known = [errors for errors in found if errors is not None]
        best = min(known, key=lambda errors: float(errors.mean())) if known else np.zeros(0)
        return np.array([best.sum(), best.size], dtype=np.float64)

    def score(self, stats: Stats) -> float:
        """The mean error of summed statistics; NaN where no pair said anything."""
        total, count = stats.tolist()
        return float(total / count) if count else float("nan")

    def sentence(self, stats: Stats) -> float:
        """The mean error of one sentence."""
        return self.score(stats)


def _errors(forecast: Forecast, actual_TF: np.ndarray) -> np.ndarray:
    """Answer minus reference, both as long as the longer one."""
    said_TF = forecast.values_TF
    if said_TF.shape[1] != actual_TF.shape[1]:
        got = f"{said_TF.shape[1]} and {actual_TF.shape[1]}"
        raise DataError("answer and reference have different features", got=got)
    length = max(len(said_TF), len(actual_TF))
    errors: np.ndarray = held(said_TF, length) - held(actual_TF, length)
    return errors


class MeanAbsolute(OfNumbers):
    """Mean absolute error, in units of the data."""

    @property
    def how(self) -> str:
        return "error:absolute"

    def misses(self, forecast: Forecast, actual_TF: np.ndarray) -> np.ndarray:
        return np.abs(_errors(forecast, actual_TF))


class RootMeanSquare(OfNumbers):
    """The root of the mean squared error, in units of the data."""

    @property
    def how(self) -> str:
        return "error:squared|root:yes"

    def misses(self, forecast: Forecast, actual_TF: np.ndarray) -> np.ndarray:
        return _errors(forecast, actual_TF) ** 2

    def score(self, stats: Stats) -> float:
        """The root of the mean of summed statistics."""
        return super().score(stats) ** 0.5


@dataclass(frozen=True)
class Scaled(OfNumbers):
    """Mean absolute scaled error (Hyndman and Koehler 2006): 1 is the mean error, in the source, of saying what was
    `season` steps before. A source that shows none, since it repeats itself exactly, is left out."""

    season: int = 1

    @property
    def how(self) -> str:
        return f"error:absolute|scale:naive in the source|season:{self.season}|constant:left out"

    def misses(self, forecast: Forecast, actual_TF: np.ndarray) -> np.ndarray | None:
        features, history_SF = actual_TF.shape[1], forecast.history_SF
        if history_SF is None or history_SF.shape[1] < features:
            raise DataError("mase needs sources of numbers that the targets go on from", do="take mae")
        if len(history_SF) <= self.season:
            do = f"give sources of {self.season + 1} steps or more, or a shorter season: mase:1"
            raise DataError(f"a source is too short for {self.name}", got=f"{len(history_SF)} steps", do=do)
        past_SF = history_SF[:, :features].astype(np.float64)
        scale_F = np.abs(past_SF[self.season :] - past_SF[: -self.season]).mean(axis=0)
        if not (scale_F > 0).all():
            return None
        return np.abs(_errors(forecast, actual_TF)) / scale_F


class Ranked(OfNumbers):
    """Continuous ranked probability score (Gneiting and Raftery 2007), in units of the data: of drawn paths without
    bias, of a Gaussian in closed form, of quantiles twice their mean pinball loss, else the absolute error."""

    @property
    def how(self) -> str:
        return "error:crps|by:paths, gaussian or quantiles"

    def misses(self, forecast: Forecast, actual_TF: np.ndarray) -> np.ndarray:
        errors_TF = -_errors(forecast, actual_TF)  # reference minus answer, which also checks the features
        length = len(errors_TF)
        actual_TF = held(actual_TF, length)
        if len(forecast.paths) > 1:
            return _of_paths(np.stack([held(path, length) for path in forecast.paths]), actual_TF)
        if forecast.deviation_TF is not None:
            return _of_gaussian(errors_TF, held(forecast.deviation_TF, length))
        if forecast.quantiles_TFQ is not None:
            over_TFQ = actual_TF[..., None] - held(forecast.quantiles_TFQ, length)
            levels_Q = np.array(LEVELS)
            pinball: np.ndarray = 2 * np.maximum(levels_Q * over_TFQ, (levels_Q - 1) * over_TFQ).mean(axis=-1)
            return pinball
        return np.abs(errors_TF)


def _of_paths(paths_KTF: np.ndarray, actual_TF: np.ndarray) -> np.ndarray:
    """Mean distance to the paths, less half of that between two of them (by their order, which needs no pairs)."""
    many = len(paths_KTF)
    ordered_KTF = np.sort(paths_KTF, axis=0)
    weights_K = 2 * np.arange(1, many + 1) - many - 1
    between_TF = 2 * np.tensordot(weights_K, ordered_KTF, axes=1) / (many * (many - 1))
    apart: np.ndarray = np.abs(paths_KTF - actual_TF).mean(axis=0) - between_TF / 2
    return apart


def _of_gaussian(errors_TF: np.ndarray, deviation_TF: np.ndarray) -> np.ndarray:
    """In closed form: sigma * (z * (2 * Phi(z) - 1) + 2 * phi(z) - 1 / sqrt(pi))."""
    z = errors_TF / deviation_TF
    density = np.exp(-0.5 * z**2) / _INSIDE
    found: np.ndarray = deviation_TF * (z * _erf(z / np.sqrt(2)) + 2 * density - 1 / np.sqrt(np.pi))
    return found


def _erf(values: np.ndarray) -> np.ndarray:
    import torch

    return torch.erf(torch.from_numpy(np.ascontiguousarray(values))).numpy()
