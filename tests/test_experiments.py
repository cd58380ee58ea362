"""Experiments on a run: each one tells a run that is well from one whose fault it is for."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from antiphon.core.batch import Batch, pad
from antiphon.core.errors import AntiphonError
from antiphon.diagnosis import experiments
from antiphon.inference.forced import teacher_forced
from antiphon.models.seq2seq import build
from antiphon.training.start import fit
from runs import configured, light, words

SETTINGS: dict[str, Any] = {
    "model.encoder.kind": "gru", "model.decoder.kind": "gru", "model.encoder.layers": 1, "model.decoder.layers": 1,
    "model.width": 32, "model.dropout": 0.0, "data.batch_tokens": 400, "training.rate": 0.01, "training.threads": 1,
    "training.schedule": "constant", "training.warmup": 5, "training.metric": "loss", "training.probes": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has begun to say words again."""
    folder = tmp_path_factory.mktemp("experiments")
    pairs = [(word, word) for word, _ in words(300)]
    fit(pairs, out=folder / "run", assignments={**SETTINGS, "training.steps": 80})
    return folder / "run"


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose rate is far too low."""
    folder = tmp_path_factory.mktemp("slow")
    fit(words(60), out=folder / "run", assignments={**SETTINGS, "training.rate": 1e-6, "training.steps": 1})
    return folder / "run"


def test_a_batch_is_learned_by_heart_unless_the_rate_is_wrong(trained: Path, slow: Path) -> None:
    good, bad = experiments.overfit_batch(trained, 60), experiments.overfit_batch(slow, 10)
    assert good.learned
    assert good.last < 0.1 * good.first
    assert not bad.learned
    assert (good.pairs, len(good.losses), len(bad.losses)) == (16, 60, 10)


def test_a_rate_that_loses_all_numbers_is_infinitely_bad(slow: Path) -> None:
    found = experiments.rate_range(slow, 12, (1.0, 1e4, 1e44))
    assert found.own == 1e-6
    assert found.best == pytest.approx(1e-2)
    losses = [loss for _, loss in found.losses]
    assert losses[1] < losses[0] < losses[2] == math.inf


def test_shuffled_targets_are_worse_where_sources_tell_something(trained: Path) -> None:
    found = experiments.shuffled_targets(trained, 45)
    assert found.right < found.shuffled - 0.2


def test_a_model_that_looks_loses_by_uniform_attention(trained: Path) -> None:
    found = experiments.uniform_attention(trained)
    assert found is not None
    assert found.uniform > found.loss + 0.2


@pytest.mark.parametrize("attention", ["multihead", "dot", "coverage"])
def test_uniform_attention_is_what_zero_scores_would_give(attention: str) -> None:
    """By a model whose scores are all alike anyway, for which nothing may change."""
    kind = "transformer" if attention == "multihead" else "gru"
    model = build(configured(kind, model__attention=attention).model, 12, 12)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("decoder") and (".attention.query" in name or ".attention.vector" in name):
                weight.zero_()
    batch = Batch(pad([[5, 6, 7, 3], [5, 3]]), pad([[8, 9, 3], [8, 3]]))
    before = teacher_forced(model, [batch]).loss
    with experiments.evenly(model):
        after = teacher_forced(model, [batch]).loss
    assert (after == pytest.approx(before, rel=1e-5)) is (attention != "dot")
    assert teacher_forced(model, [batch]).loss == before


def test_more_data_is_expected_to_help_where_it_has(trained: Path) -> None:
    found = experiments.data_halves(trained, 32)
    counts, losses = zip(*found.losses, strict=True)
    assert counts == (counts[2] // 4, counts[2] // 2, counts[2])
    assert losses[2] < losses[0]
    assert found.doubled <= losses[2]


def test_search_errors_and_model_errors_are_all_that_is_not_exact(trained: Path, slow: Path) -> None:
    good, bad = experiments.search_errors(trained), experiments.search_errors(slow)
    for found in (good, bad):
        assert found.exact + found.search + found.model == pytest.approx(1)
    assert good.exact > bad.exact


def test_a_run_without_its_data_is_an_error(slow: Path, tmp_path: Path) -> None:
    shutil.copytree(slow, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "data")
    with pytest.raises(AntiphonError):
        experiments.shuffled_targets(tmp_path / "run")
