"""Runs by objectives of whole answers, and by unlikelihood: exact resume, and each one moves its own target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from antiphon.core.batch import Padded
from antiphon.core.config import Config, Training
from antiphon.core.errors import BundleError
from antiphon.data.corpus import Pair
from antiphon.inference.bundle import tensors
from antiphon.inference.task import Task
from antiphon.models.seq2seq import Seq2Seq, build
from antiphon.training.checkpoint import Checkpoints
from antiphon.training.initial import adopt
from antiphon.training.objectives import Likelihood, Unlikelihood, unlikelihood
from antiphon.training.observers import read_log
from antiphon.training.reinforcement import INITIAL, Reward, draw, remembered
from antiphon.training.repetition import again
from antiphon.training.trainer import train
from runs import Recorder, configured, light, outcome, prepared, run, words
from test_reinforcement import KINDS, WHOLE, made

COMMON: dict[str, Any] = {"training__steps": 9, "training__validate_every": 4, "training__accumulate": 2}


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def case(kind: str, precision: str) -> Config:
    family = "transformer" if precision == "bf16" else "gru"
    return configured(family, **COMMON, **KINDS[kind], training__precision=precision)


def logged(folder: Path) -> list[Any]:
    return [event["facts"] for event in read_log(folder / "log.jsonl") if event["event"] == "step"]


STOPS = [("self-critical", "fp32", 3), ("self-critical", "bf16", 4), ("minimum-risk", "fp32", 5)]
STOPS += [("unlikelihood", "fp32", 2), ("sequence-unlikelihood", "fp32", 4)]


@pytest.mark.parametrize(("kind", "precision", "stop"), STOPS)
def test_a_stopped_run_ends_with_the_same_bits(kind: str, precision: str, stop: int, tmp_path: Path) -> None:
    run(case(kind, precision), tmp_path / "whole")
    run(case(kind, precision), tmp_path / "parts", observers=[Recorder(stop)])
    run(case(kind, precision), tmp_path / "parts", resume=True)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    found = logged(tmp_path / "parts")
    assert found == logged(tmp_path / "whole")
    assert len(found) == 9
    if kind in WHOLE:
        assert found[0]["kl"] == pytest.approx(0, abs=1e-6 if precision == "fp32" else 1e-3)
        assert found[-1]["kl"] > 1e-3
        assert INITIAL in Checkpoints(tmp_path / "parts").newest().files
        assert not (tmp_path / "parts" / "best" / INITIAL).exists()


def test_a_checkpoint_without_the_beginning_is_refused() -> None:
    objective, model, _ = made(configured("gru", **KINDS["self-critical"]))
    objective.begin(model, files := objective.files())
    assert objective.files() == files
    with pytest.raises(BundleError, match="lacks the weights that training began with"):
        objective.begin(model, {})


def test_unlikelihood_is_shared_among_processes(tmp_path: Path) -> None:
    settings = {**KINDS["unlikelihood"], "training__steps": 3, "model__dropout": 0.0}
    one, two = Recorder(), Recorder()
    run(configured("gru", **settings), tmp_path / "one", observers=[one])
    run(configured("gru", **settings, training__processes=2), tmp_path / "two", observers=[two])
    for first, second in zip(one.steps, two.steps, strict=True):
        assert first.facts == pytest.approx(second.facts, rel=1e-3)
        assert first.loss == pytest.approx(second.loss, rel=1e-3)


# Each objective moves its own target


def learned(
    config: Config, out: Path, start: Mapping[str, Tensor] | None = None, pairs: Sequence[tuple[str, str]] = ()
) -> tuple[Seq2Seq, Task]:
    """The model at the end of a run."""
    task, store, valid = prepared(config, list(pairs) or words(300))
    train(config, task, store, valid, out, start=start)
    model = build(config.model, len(task.source.vocabulary), len(task.target.vocabulary))
    adopt(model, load(Checkpoints(out).newest().files["model.safetensors"]))
    return model.eval(), task


LEARN: dict[str, Any] = {
    "model__width": 32, "model__feedforward": 32, "data__batch_tokens": 600, "training__validate_every": 1000,
    "training__warmup": 0, "training__rate": 0.003, "model__dropout": 0.0, "training__label_smoothing": 0.0,
    "model__decoder__layers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights of a model that likelihood has half trained."""
    patch = pytest.MonkeyPatch()
    light(patch)
    try:
        model, _ = learned(configured("gru", **LEARN, training__steps=START), tmp_path_factory.mktemp("start") / "run")
    finally:
        patch.undo()
    return dict(tensors(model))


START, STEPS = 100, 240


def rewarded(model: Seq2Seq, task: Task) -> tuple[float, float]:
    """The mean reward of drawn and of greedy answers to the sources that were learned from."""
    batch = task.batch([Pair(*pair) for pair in words(300)[:200]])
    with torch.no_grad():
        memory = remembered(model, batch, 4)
        torch.manual_seed(1)
        answers = draw(model, memory, torch.full((800,), 9), torch.arange(800) % 4 == 3)
    rewards = Reward("cer", task)(batch, answers).view(-1, 4)
    return float(rewards[:, :3].mean()), float(rewards[:, 3].mean())


@pytest.mark.parametrize("kind", WHOLE)
def test_the_reward_rises_and_not_by_a_constant_one(kind: str, start: dict[str, Tensor], tmp_path: Path) -> None:
    more = {**LEARN, "training__steps": STEPS, "training__likelihood": 0.0, "training__rate": 0.001}
    found = {}
    for reward in ("cer", "constant"):
        settings = {**KINDS[kind], **more, "training__reward": reward}
        found[reward] = rewarded(*learned(configured("gru", **settings), tmp_path / reward, start))
    task, _, _ = prepared(configured("gru", **LEARN), words(300))
    before = build(configured("gru", **LEARN).model, len(task.source.vocabulary), len(task.target.vocabulary))
    adopt(before, start)
    found["before"] = rewarded(before.eval(), task)
    assert found["cer"][0] > found["before"][0] + 0.04
    assert found["constant"][0] < found["before"][0] + 0.01


def test_unlikelihood_by_hand() -> None:
    _, model, task = made(configured("gru"))
    batch = task.batch([Pair("abc", "aba"), Pair("a", "bb")])
    steps, memory = model.eval()(batch)
    log_probs = model.log_probs(steps, memory).detach()
    a, b = batch.labels_BT[0, :2].tolist()
    seen = [(0, 1, a), (0, 2, b), (0, 3, a), (0, 3, b), (1, 2, b)]
    by_hand = -sum(math.log(1 - math.exp(float(log_probs[row, step, token]))) for row, step, token in seen)
    assert float(unlikelihood(log_probs, batch.target)) == pytest.approx(by_hand, rel=1e-5)
    settings = Training(label_smoothing=0.1, unlikelihood=2.0, coverage=0.5)
    loss = Unlikelihood(settings)({"model": model}, batch, 0.0)["model"]
    plain = Likelihood(settings)({"model": model}, batch, 0.0)["model"]
    assert float(loss.total.detach()) == pytest.approx(float(plain.total.detach()) + 2 * by_hand, rel=1e-5)
    assert loss.count == plain.count


def test_unlikelihood_lowers_repetition(tmp_path: Path) -> None:
    """Half-trained models say what they have said already; one that learns not to does so less."""
    shares = {}
    for kind in ("likelihood", "unlikelihood"):
        settings = {**LEARN, "training__steps": 40, "training__objective": kind, "training__unlikelihood": 2.0}
        model, task = learned(configured("gru", **settings), tmp_path / kind)
        batch = task.batch([Pair(*pair) for pair in words(300)[:100]])
        memory = remembered(model, batch, 1)
        answers = draw(model, memory, torch.full((100,), 9), torch.ones(100, dtype=torch.bool))
        drawn = [row[:n].tolist() for row, n in zip(answers.values, answers.lengths_B.tolist(), strict=True)]
        shares[kind] = sum(len(row) - len(set(row)) for row in drawn) / sum(map(len, drawn))
    assert shares["unlikelihood"] < 0.7 * shares["likelihood"]


def test_runs_that_come_again_are_found() -> None:
    """Runs of four may overlap; what is behind the end does not count."""
    rows = ["abcdefgh", "abcdxabcd", "aaaaa", "aaaa", "abcdeabcdezz", "abcdabcd"]
    lengths = [8, 9, 5, 4, 10, 7]
    width = max(map(len, rows))
    values = torch.tensor([[ord(letter) for letter in row.ljust(width, ".")] for row in rows])
    found = again(Padded(values, torch.tensor(lengths)))
    marks = ["".join("x" if each else "." for each in row) for row in found.tolist()]
    assert marks == ["." * 12, ".....xxxx...", ".xxxx.......", "." * 12, ".....xxxxx..", "." * 12]
    assert not again(Padded(values[:, :4], torch.tensor([4] * 6))).any()


def test_sequence_unlikelihood_ends_loops(start: dict[str, Tensor], tmp_path: Path) -> None:
    """A model that learns to say everything three times over runs in loops; then it learns not to."""
    shares, thrice = {}, [(source, 3 * target) for source, target in words(300)]
    for kind in ("likelihood", "sequence-unlikelihood"):
        settings = {**LEARN, "training__steps": 60, "training__objective": kind, "training__likelihood": 0.0}
        model, task = learned(configured("gru", **settings), tmp_path / kind, start, thrice)
        start = dict(tensors(model))
        batch = task.batch([Pair(*pair) for pair in thrice[:100]])
        with torch.no_grad():
            memory = remembered(model, batch, 1)
            answers = draw(model, memory, torch.full((100,), 24), torch.ones(100, dtype=torch.bool))
        shares[kind] = float(again(answers).sum() / answers.lengths_B.sum())
    assert shares["likelihood"] > 0.5
    assert shares["sequence-unlikelihood"] < 0.1
