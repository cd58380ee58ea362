"""Trained and untrained models to start from, and new pairs for them, for tests of fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from antiphon.data.corpus import open_pairs
from antiphon.inference import bundle
from antiphon.inference.predictor import Predictor
from antiphon.inference.task import Task
from antiphon.models.seq2seq import build
from antiphon.training.start import fit
from runs import SMALL, light, words

QUICK = {key: SMALL[key] for key in SMALL if key.startswith("training.") or key == "data.batch_tokens"}
STILL = {**QUICK, "training.steps": 1, "training.rate": 1e-30}
SHORT = {**QUICK, "training.steps": 12, "training.validate_every": 4}
FAMILIES = ("rnn", "lstm", "gru", "conv", "transformer", "ssru")


def copies(letters: str = "abcde") -> list[tuple[str, str]]:
    """The new domain: words that are answered by themselves."""
    return [(word.translate(table), word.translate(table)) for word, _ in words(60, seed=3)
            for table in [str.maketrans("abcde", (letters * 5)[:5])]]  # fmt: skip


def trained(folder: Path, **more: Any) -> Path:
    """A run on reversed words."""
    kinds = {"model.encoder.kind": "gru", "model.decoder.kind": "gru", "model.attention": "dot"}
    changes = {name.replace("__", "."): value for name, value in more.items()}
    fit(words(60), out=folder, assignments={**SMALL, **kinds, "training.steps": 40, **changes})
    return folder


@pytest.fixture(scope="module", name="start")
def shared_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small trained model; nobody may change it."""
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        yield trained(tmp_path_factory.mktemp("start") / "general")


def raw(folder: Path, config: Any, pairs: list[tuple[str, str]] | None = None) -> Path:
    """A bundle whose weights nobody trained."""
    task = Task.learn(open_pairs(pairs or words(), config.data), config)
    model = build(config.model, len(task.source.vocabulary), len(task.target.vocabulary), seed=5)
    bundle.save(folder, model=model, task=task, config=config, card={"data": "old.tsv", "data_hash": "abc"})
    return folder


def answers(path: Path, inputs: list[str]) -> list[tuple[str, float]]:
    return [(best[0].text, best[0].score) for best in Predictor(bundle.load(path)).predict(inputs)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return bundle.tensors(bundle.load(path).model)
