"""Small models to export, with opinions, and what they answer, for tests of engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from antiphon.core.batch import BOS, PAD
from antiphon.core.config import Config
from antiphon.data.corpus import Pair
from antiphon.inference.answer import Answer
from antiphon.inference.bundle import Bundle
from antiphon.inference.predictor import Predictor
from antiphon.inference.task import Task
from antiphon.models.seq2seq import build
from runs import configured, words

INPUTS = [word for word, _ in words(40, seed=5)]


def made(kind: str = "transformer", *, seed: int = 1, sharp: float = 3.0, **settings: Any) -> Bundle:
    """A model that nobody trained, sharpened so that it does not say all with one chance; what no answer holds is as
    unlikely as training makes it."""
    config: Config = configured(kind, **{"decoding__beam": 4, "decoding__max_length": None, **settings})
    task = Task.learn([Pair(*pair) for pair in words(40)], config)
    network = build(config.model, len(task.source.vocabulary), len(task.target.vocabulary), seed=seed).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
            parameter.mul_(sharp if name in ("head.weight", "target.embedding.weight") else 1.3)
        network.get_parameter("head.bias")[[PAD, BOS]] = -30.0
    return Bundle(network, task, config, {}, Path("model"))


def answers(bundle: Bundle, inputs: list[str] | None = None, **settings: Any) -> list[list[Answer]]:
    """All answers to the inputs."""
    predictor = Predictor(bundle, processes=1)
    return list(predictor.predict(inputs or INPUTS, settings=replace(predictor.config.decoding, **settings)))


def pairs() -> list[Pair]:
    """Pairs to check an export on."""
    return [Pair(*pair) for pair in words(40, seed=5)]
