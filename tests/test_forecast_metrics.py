"""Metrics of numbers against their definitions, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from antiphon import metrics
from antiphon.core.config import Config
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.core.numbers import LEVELS, Forecast
from antiphon.inference.evaluate import check_metric, suitable
from antiphon.metrics.scoring import table

ACTUAL = "1,10 2,20"
SAID = Forecast(np.array([[1.0, 12], [4, 20]]), history_SF=np.array([[1.0, 10], [2, 14], [1, 10], [2, 14]]))


def value(name: str, said: str | Forecast, *references: str) -> float:
    metric = metrics.get(name)
    return metrics.corpus(metric, [said], [list(references)], bootstrap=0).value


def test_errors_by_hand() -> None:
    assert value("mae", SAID, ACTUAL) == pytest.approx((0 + 2 + 2 + 0) / 4)
    assert value("rmse", SAID, ACTUAL) == pytest.approx(((4 + 4) / 4) ** 0.5)
    assert value("mase", SAID, ACTUAL) == pytest.approx((0 + 2 / 4 + 2 / 1 + 0) / 4)
    assert value("mae", "1 2 3", "1 2 5") == pytest.approx(2 / 3)


def test_the_season_is_an_option() -> None:
    said = Forecast(np.array([[4.0]]), history_SF=np.array([[1.0], [5], [2], [7]]))
    assert value("mase:2", said, "7") == pytest.approx(3 / 1.5)
    assert value("mase", said, "7") == pytest.approx(3 / 4)
    assert "season:2" in metrics.get("mase:2").signature
    for name in ("mase:0", "mase:000", "mase:2:3", "mase:month", "mae:2"):
        with pytest.raises(ConfigError):
            metrics.get(name)


def test_what_ends_early_stays_there_and_the_nearest_reference_counts() -> None:
    assert value("mae", "1 2", "1 2 4") == pytest.approx(2 / 3)
    assert value("mae", "1 2 4", "1 2") == pytest.approx(2 / 3)
    assert value("mae", "1 2", "5 5", "1 3") == pytest.approx(0.5)


def test_means_are_over_steps_of_all_pairs() -> None:
    score = metrics.corpus(metrics.get("mae"), ["1", "1 1 1"], [["4"], ["1 1 1"]])
    assert score.value == pytest.approx(3 / 4)
    assert score.interval is not None
    assert not score.higher_is_better
    assert "refs:nearest" in score.signature


def test_crps_of_a_gaussian_is_its_integral() -> None:
    mean, deviation, actual = 1.5, 0.7, 2.6
    grid = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    below = torch.distributions.Normal(mean, deviation).cdf(grid) - (grid >= actual).double()
    said = Forecast(np.array([[mean]]), deviation_TF=np.array([[deviation]]))
    assert value("crps", said, str(actual)) == pytest.approx(float(torch.trapezoid(below**2, grid)), rel=1e-4)


def test_crps_of_paths_and_quantiles_come_near_it() -> None:
    draw, normal = np.random.default_rng(1), torch.distributions.Normal(1.5, 0.7)
    exact = value("crps", Forecast(np.array([[1.5]]), deviation_TF=np.array([[0.7]])), "2.6")
    paths = [np.array([[number]]) for number in draw.normal(1.5, 0.7, 20_000)]
    assert value("crps", Forecast(np.array([[1.5]]), paths=paths), "2.6") == pytest.approx(exact, rel=0.03)
    quantiles = normal.icdf(torch.tensor(LEVELS)).numpy()[None, None]
    assert value("crps", Forecast(np.array([[1.5]]), quantiles), "2.6") == pytest.approx(exact, rel=0.05)
    assert value("crps", "1.5", "2.6") == pytest.approx(1.1)


def test_crps_of_paths_by_hand() -> None:
    paths = np.array([1.0, 4, 6])
    away = np.abs(paths - 3).mean()
    between = np.abs(paths[:, None] - paths).sum() / (3 * 2)
    said = Forecast(np.array([[4.0]]), paths=[np.array([[number]]) for number in paths])
    assert value("crps", said, "3") == pytest.approx(away - between / 2)


def test_a_source_that_repeats_itself_is_left_out() -> None:
    flat = Forecast(np.array([[1.0]]), history_SF=np.ones((3, 1)))
    said = Forecast(np.array([[2.0]]), history_SF=np.array([[1.0], [3.0]]))
    assert metrics.corpus(metrics.get("mase"), [flat, said], [["5"], ["3"]], bootstrap=0).value == pytest.approx(0.5)
    assert np.isnan(value("mase", flat, "5"))


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(DataError, match="different features"):
        value("mae", "1", "1,2")
    with pytest.raises(DataError, match="too short for mase:12"):
        value("mase:12", SAID, ACTUAL)
    with pytest.raises(DataError, match="needs sources of numbers"):
        value("mase", "1", "1")
    with pytest.raises(DataError, match="there is no answer"):
        value("mae", "", "1")
    with pytest.raises(ConfigError, match="exact is for text, and these are numbers"):
        table(metrics.get("exact"), [SAID], [[ACTUAL]])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="distinct1 is for text"):
        value("distinct1", SAID, ACTUAL)
    with pytest.raises(ConfigError, match="mae is for numbers"):
        metrics.of_text("mae")


def test_metrics_suit_the_answers() -> None:
    numbers, text = override(Config(), {"data.target.kind": "numbers"}), Config()
    plain, series = ["mae", "rmse", "crps"], override(numbers, {"task": "forecasting", "data.source.kind": "numbers"})
    assert suitable(numbers, [["1"]], "1 2") == plain
    assert suitable(series, [["1"]], "1 2") == suitable(series, [["1"]], "1,5 2,6") == ["mase", *plain]
    assert suitable(series, [["1,2"]], "1 2") == plain
    assert suitable(override(series, {"data.source.kind": "frames"}), [["1"]], "a.npy") == plain
    check_metric(metrics.get("mase:3"), numbers)
    check_metric(metrics.get("exact"), text)
    with pytest.raises(ConfigError, match="exact is for text, and answers are numbers; take one of mae"):
        check_metric(metrics.get("exact"), numbers)
    with pytest.raises(ConfigError, match="mae is for numbers, and answers are text"):
        check_metric(metrics.get("mae"), text)
