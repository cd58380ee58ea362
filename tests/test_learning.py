"""Every family learns what it must: to copy, reverse and sort, to 95 % on inputs it has not seen."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor
from antiphon.training.start import fit

LETTERS = "abcdefgh"
TASKS: dict[str, Callable[[str], str]] = {
    "copy": lambda word: word,
    "reverse": lambda word: word[::-1],
    "sort": lambda word: "".join(sorted(word)),
}
QUICK = [("copy", "transformer", "transformer"), ("reverse", "lstm", "gru"), ("sort", "conv", "ssru")]
SLOW = [
    ("reverse", "rnn", "rnn"), ("copy", "lstm", "lstm"), ("sort", "gru", "conv"), ("reverse", "transformer", "ssru"),
    ("sort", "transformer", "lstm"), ("copy", "conv", "conv"),
]  # fmt: skip


def words(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(LETTERS, k=draw.randint(2, 7))) for _ in range(count)]


def exact(task: str, encoder: str, decoder: str, run: Path) -> float:
    """Train for a moment, and give the share of right answers on fresh words."""
    answer, known = TASKS[task], words(3000, seed=1)
    settings = {
        "model.encoder.kind": encoder, "model.decoder.kind": decoder, "model.encoder.layers": 2, "model.width": 64,
        "model.decoder.layers": 2, "model.feedforward": 128, "model.dropout": 0.0, "training.rate": 0.004,
        "training.steps": 300, "data.batch_tokens": 1024, "training.validate_every": 300, "training.metric": "loss",
        "training.threads": 1, "training.label_smoothing": 0.0, "data.source.tokenizer": "char",
        "data.target.tokenizer": "char",
    }  # fmt: skip
    fit([(word, answer(word)) for word in known], out=run, assignments=settings)
    fresh = sorted(set(words(400, seed=2)) - set(known))
    answers = Predictor(load(run)).predict(fresh)
    right = [found[0].text == answer(word) for word, found in zip(fresh, answers, strict=True)]
    return sum(right) / len(right)


@pytest.mark.parametrize(("task", "encoder", "decoder"), QUICK)
def test_it_learns(task: str, encoder: str, decoder: str, tmp_path: Path) -> None:
    assert exact(task, encoder, decoder, tmp_path / "run") >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("task", "encoder", "decoder"), SLOW)
def test_the_others_learn_too(task: str, encoder: str, decoder: str, tmp_path: Path) -> None:
    assert exact(task, encoder, decoder, tmp_path / "run") >= 0.95
