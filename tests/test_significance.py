"""Intervals and paired tests against theory, simulation and sacrebleu."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest

from antiphon import metrics
from antiphon.metrics.base import Metric, Pooled
from antiphon.metrics.scoring import table
from antiphon.metrics.significance import bootstrap, jackknife, paired, paired_pooled, resample


def additive(name: str) -> Metric:
    metric = metrics.get(name)
    assert not isinstance(metric, Pooled)
    return metric


def hits(values: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Statistics of the exact-match metric."""
    return np.stack([values.astype(np.float64), np.ones(len(values))], axis=1)


def test_interval_is_the_binomial_one() -> None:
    values = np.arange(400) < 280
    low, high = bootstrap(additive("exact"), hits(values), rounds=4000) or (0.0, 0.0)
    half = 196 * math.sqrt(0.7 * 0.3 / 400)
    assert low == pytest.approx(70 - half, abs=0.5)
    assert high == pytest.approx(70 + half, abs=0.5)


def test_interval_covers_the_truth_in_nineteen_cases_of_twenty() -> None:
    draw, metric, covered = np.random.default_rng(4), additive("exact"), 0
    for trial in range(200):
        low, high = bootstrap(metric, hits(draw.random(200) < 0.3), rounds=200, seed=trial) or (0.0, 0.0)
        covered += low <= 30 <= high
    assert 180 <= covered <= 199


def test_resampling_depends_on_the_seed_alone() -> None:
    stats = np.random.default_rng(0).random((50, 3))
    assert np.array_equal(resample(stats, 20, 1), resample(stats, 20, 1))
    assert not np.array_equal(resample(stats, 20, 1), resample(stats, 20, 2))
    both = resample(np.hstack([stats, stats]), 20, 1)
    assert np.allclose(both[:, :3], both[:, 3:])
    assert resample(np.ones((50, 1)), 20, 1).tolist() == [[50.0]] * 20


def test_no_interval_from_one_sentence_or_no_rounds() -> None:
    metric = additive("exact")
    assert bootstrap(metric, hits(np.array([True]))) is None
    assert bootstrap(metric, hits(np.array([True, False])), rounds=0) is None
    assert metrics.corpus(metric, ["a"], ["a"]).interval is None


def test_signature_says_how_the_interval_was_made() -> None:
    score = metrics.corpus(metrics.get("bleu"), ["a b c d", "e"], [["a b c d"], ["f", "g"]], bootstrap=10, seed=3)
    assert score.signature.startswith("nrefs:var|bs:10|seed:3|case:mixed|eff:no|tok:13a|")


def test_jackknife_of_a_mean_is_the_textbook_interval() -> None:
    values = np.random.default_rng(1).normal(10, 2, 2000)
    low, high = jackknife(lambda rows: float(values[rows].mean()), len(values)) or (0.0, 0.0)
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(2.093 * values.std() / math.sqrt(2000), rel=0.4)
    assert jackknife(lambda rows: 0.0, 19) is None


def test_equal_systems_do_not_differ() -> None:
    stats = hits(np.random.default_rng(0).random(100) < 0.5)
    result = paired(additive("exact"), stats, stats, resamples=200, trials=200)
    assert result.difference == 0
    assert result.interval == (0.0, 0.0)
    assert result.p_bootstrap == result.p_randomization == 1.0
    assert result.wins == 0.0
    assert not result.significant


def test_a_large_difference_is_found() -> None:
    draw = np.random.default_rng(0)
    first, second = hits(draw.random(300) < 0.5), hits(draw.random(300) < 0.8)
    result = paired(additive("exact"), first, second)
    assert result.significant
    assert result.p_randomization == pytest.approx(1 / 10001)
    assert result.p_bootstrap is not None
    assert result.p_bootstrap < 0.01
    assert result.wins == 1.0
    assert result.interval is not None
    assert result.interval[0] > 15
    worse = paired(additive("error"), 1 - first + [[0, 1]], 1 - second + [[0, 1]], resamples=200, trials=200)
    assert worse.difference == pytest.approx(-result.difference)
    assert worse.wins == 1.0


@pytest.mark.parametrize("kind", ["p_bootstrap", "p_randomization"])
def test_chance_alone_is_seldom_significant(kind: str) -> None:
    """Two systems of the same quality: p below 0.05 in about one case of twenty."""
    draw, metric, found = np.random.default_rng(2), additive("exact"), []
    for trial in range(300):
        first, second = hits(draw.random(80) < 0.4), hits(draw.random(80) < 0.4)
        found.append(getattr(paired(metric, first, second, resamples=200, trials=200, seed=trial), kind))
    assert 2 <= sum(value < 0.05 for value in found) <= 28
    assert 0.3 < np.mean(found) < 0.7


def test_randomization_is_sacrebleus() -> None:
    """The same test with other random draws, so equal within their noise."""
    draw = np.random.default_rng(8)
    references = [" ".join(map(str, draw.integers(8, size=9))) for _ in range(120)]

    def noisy(share: float) -> list[str]:
        return [" ".join(w if draw.random() > share else "x" for w in line.split()) for line in references]

    first, second = noisy(0.2), noisy(0.23)
    metric = additive("bleu")
    ours = paired(metric, table(metric, first, references), table(metric, second, references))
    peer = PairedTest([("a", first), ("b", second)], {"BLEU": BLEU(force=True)}, [references], "ar", 10000)
    expected = peer()[1]["BLEU"][1].p_value
    assert 0.01 < expected < 0.9
    assert ours.p_randomization == pytest.approx(expected, abs=0.02)
    assert ours.p_bootstrap == pytest.approx(expected, abs=0.1)


def test_pooled_metrics_have_an_interval_of_the_difference() -> None:
    draw = np.random.default_rng(3)
    varied = [" ".join(map(str, draw.integers(500, size=8))) for _ in range(100)]
    dull = [" ".join(map(str, draw.integers(50, size=8))) for _ in range(100)]
    metric = metrics.get("distinct1")
    assert isinstance(metric, Pooled)
    result = paired_pooled(metric, dull, varied)
    assert result.significant
    assert result.interval is not None
    assert result.interval[0] < result.difference < result.interval[1]
    assert not paired_pooled(metric, varied, list(varied)).significant
    score = metrics.corpus(metric, varied, varied)
    assert score.interval is not None
    assert score.interval[0] < score.value < score.interval[1]


def test_a_thousand_resamples_take_little_time() -> None:
    stats = np.random.default_rng(0).random((5000, 10)).round() + 1
    begin = time.process_time()
    bootstrap(additive("bleu"), stats)
    assert time.process_time() - begin < 2.0


def test_lines_are_readable() -> None:
    result = paired(additive("exact"), hits(np.arange(50) < 25), hits(np.arange(50) < 26), resamples=50, trials=50)
    assert str(result).startswith("exact 50.00 -> 52.00: +2.00 [")
    assert str(result).endswith("p = 1.0000, better in 58.0% of resamples, not significant")


def test_a_bootstrap_of_distinct_would_miss_the_score() -> None:
    """Why pooled metrics have a jackknife: docs/decisions/0002-intervals.md."""
    draw = np.random.default_rng(5)
    answers = [" ".join(map(str, draw.integers(2000, size=8))) for _ in range(200)]
    metric = metrics.get("distinct1")
    assert isinstance(metric, Pooled)
    resampled = [metric.whole([answers[row] for row in draw.integers(200, size=200)]) for _ in range(200)]
    value, interval = metric.whole(answers), metrics.corpus(metric, answers, answers).interval
    assert max(resampled) < value
    assert interval is not None
    assert interval[0] < value < interval[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["distinct1", "distinct2"])
def test_the_jackknife_covers_the_truth(name: str) -> None:
    """Words of a Zipf distribution; the truth is the mean over many samples of the same size."""
    draw, metric = np.random.default_rng(0), metrics.get(name)
    assert isinstance(metric, Pooled)
    shares = 1 / np.arange(1, 3001)
    shares /= shares.sum()

    def sample() -> list[str]:
        return [" ".join(map(str, row)) for row in draw.choice(3000, (100, 8), p=shares)]

    truth, covered = float(np.mean([metric.whole(sample()) for _ in range(1000)])), 0
    for _ in range(200):
        answers = sample()
        score = metrics.corpus(metric, answers, answers)
        assert score.interval is not None
        covered += score.interval[0] <= truth <= score.interval[1]
    assert covered >= 186
