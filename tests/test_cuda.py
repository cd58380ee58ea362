"""On a GPU, where there is one: every family learns what it learns on the CPU, and then answers alike on both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from antiphon.inference import bundle
from antiphon.inference.predictor import Predictor
from runs import Recorder, configured, light, run, words

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

MODELS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in ("rnn", "lstm", "gru", "conv", "transformer", "ssru")},
    "copy": {"kind": "lstm", "model__head": "copy", "data__shared": True, "training__coverage": 0.2},
    "additive": {"kind": "gru", "model__attention": "additive"},
    "fixed vector": {"kind": "lstm", "model__attention": "none"},
    "alibi": {"kind": "transformer", "model__positions": "alibi"},
    "t5": {"kind": "transformer", "model__positions": "t5", "model__norm": "post"},
    "rotary": {"kind": "transformer", "model__positions": "rotary", "model__norm_kind": "rms"},
}


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


@pytest.mark.parametrize("name", MODELS)
def test_the_gpu_learns_what_the_cpu_learns(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(**MODELS[name], model__dropout=0.0, training__steps=30, training__precision="fp32")
    here, there = Recorder(), Recorder()
    run(config, tmp_path / "gpu", observers=[there])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run(config, tmp_path / "cpu", observers=[here])
    assert [step.loss for step in there.steps[:5]] == pytest.approx([step.loss for step in here.steps[:5]], rel=1e-4)
    assert there.steps[-1].loss == pytest.approx(here.steps[-1].loss, rel=0.05)
    assert there.steps[-1].loss < 0.9 * there.steps[0].loss


@pytest.mark.parametrize("name", MODELS)
def test_what_learned_in_bf16_on_the_gpu_answers_on_both(name: str, tmp_path: Path) -> None:
    run(configured(**MODELS[name], training__steps=60, training__precision="bf16"), tmp_path / "run")
    inputs = [word for word, _ in words(20, seed=4)]
    texts = [
        [found[0].text for found in Predictor(bundle.load(tmp_path / "run", device=device)).predict(inputs)]
        for device in ("cpu", "cuda")
    ]
    assert sum(a == b for a, b in zip(*texts, strict=True)) >= 19  # a near tie may fall otherwise
