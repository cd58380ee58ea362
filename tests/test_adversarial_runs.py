"""Adversarial runs: exact resume, what checkpoints keep of both players, collapse, learning by the discriminator."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from antiphon.core.batch import Batch, Loss
from antiphon.core.config import Config, Training
from antiphon.core.errors import BundleError
from antiphon.core.keys import override
from antiphon.data.corpus import Pair
from antiphon.inference import bundle
from antiphon.inference.task import Task
from antiphon.models.seq2seq import Seq2Seq, build
from antiphon.training import collapse, trainer
from antiphon.training.adversarial import Adversarial
from antiphon.training.checkpoint import Checkpoints
from antiphon.training.collapse import Collapse
from antiphon.training.initial import adopt
from antiphon.training.learner import Learner, Players
from antiphon.training.observers import Stop, read_log
from antiphon.training.reinforcement import draw, remembered
from antiphon.training.trainer import train
from runs import Recorder, configured, light, outcome, prepared, run
from test_adversarial import ADVERSARIAL, both


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


COMMON: dict[str, Any] = {"training__steps": 7, "training__validate_every": 3, "training__accumulate": 2}


@pytest.mark.parametrize(
    ("kind", "precision", "stop", "rollouts"), [("gru", "fp32", 3, 0), ("transformer", "bf16", 4, 1)]
)
def test_a_stopped_run_ends_with_the_same_bits(
    kind: str, precision: str, stop: int, rollouts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collapse, "WINDOW", 4)
    settings = {
        **ADVERSARIAL,
        "training__rollouts": rollouts,
        "training__precision": precision,
        "training__collapse": 1e-6,
    }
    config = configured(kind, **COMMON, **settings)
    run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", observers=[Recorder(stop)])
    run(config, tmp_path / "parts", resume=True)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    newest, other = (Checkpoints(tmp_path / name).newest().files for name in ("parts", "whole"))
    assert newest[collapse.COLLAPSE] == other[collapse.COLLAPSE]
    names = {"training/discriminator.safetensors", "training/discriminator_optimizer.safetensors", collapse.COLLAPSE}
    assert names <= set(newest)
    assert not any("discriminator" in str(path) for path in (tmp_path / "parts" / "best").rglob("*"))
    checkpoint = Checkpoints(tmp_path / "parts").all()[0]
    shutil.rmtree(checkpoint / "training")
    assert bundle.load(checkpoint).model.target_size > 4
    told = read_log(tmp_path / "parts" / "log.jsonl")
    assert {"loss", "distinct1", "distinct2"} <= set(next(e for e in told if e["event"] == "validation")["scores"])


def test_a_checkpoint_without_a_player_is_refused(tmp_path: Path) -> None:
    objective, models, _ = both(configured("gru", **ADVERSARIAL))
    players = Players(Learner(models["model"], Training()), {"discriminator": (models["discriminator"], Training())})
    files = {"model.safetensors": b"", **players.files(), **objective.files()}
    assert players.size > sum(parameter.numel() for parameter in models["model"].parameters())
    del files["training/discriminator_optimizer.safetensors"]
    with pytest.raises(BundleError, match="lacks what a player has learned"):
        players.learners["discriminator"].restore(files)
    with pytest.raises(BundleError, match="is not what was watched"):
        objective.watcher.restore({})


def test_every_turn_draws_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the discriminator would be asked about the very answers that it has just learned from."""
    seeds = []
    for name in ("tell_apart", "__call__"):
        right = getattr(Adversarial, name)

        def seen(self: Any, *rest: Any, right: Any = right) -> Any:
            seeds.append(torch.initial_seed())
            return right(self, *rest)

        monkeypatch.setattr(Adversarial, name, seen)
    settings = {**ADVERSARIAL, "training__discriminator_turns": 2, "training__steps": 2}
    run(configured("gru", **settings), tmp_path / "run")
    assert len(seeds) == len(set(seeds)) == 6


def test_what_is_not_finite_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step of both players is skipped, and the note names the player."""
    right, watcher = Adversarial.tell_apart, Recorder()

    def wrong(self: Any, models: Any, batch: Batch, progress: float) -> dict[str, Loss]:
        loss = right(self, models, batch, progress)["discriminator"]
        if len(watcher.steps) == 2:
            weight = models["discriminator"].output.weight
            return {"discriminator": Loss(loss.total + (weight - weight.detach()).abs().sqrt().sum(), loss.count)}
        return {"discriminator": loss}

    monkeypatch.setattr(Adversarial, "tell_apart", wrong)
    run(configured("gru", **ADVERSARIAL, training__steps=5), tmp_path / "run", observers=[watcher])
    assert next(note.text for note in watcher.notes if note.kind == "skip").endswith(
        "skipped: not finite, first in the gradient of discriminator.output.weight"
    )
    assert [bool(event.facts) for event in watcher.steps] == [True, True, False, True, True]
    assert watcher.steps[-1].skipped == 1
    files = Checkpoints(tmp_path / "run").newest().files
    for name in ("model.safetensors", "training/discriminator.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load(files[name]).values())


def test_fresh_weights_are_warned_of(tmp_path: Path) -> None:
    watcher = Recorder()
    run(configured("gru", **ADVERSARIAL, training__steps=1), tmp_path / "run", observers=[watcher])
    assert [note.text for note in watcher.notes if note.kind == "start"] == [
        f"training.objective=adversarial {trainer.FRESH}"
    ]


# Collapse


def event(entropy: float = 2.0, distinct2: float = 0.5, accuracy: float = 0.7, reward: float = 0.4) -> Any:
    facts = {"entropy": entropy, "distinct2": distinct2, "accuracy": accuracy, "reward": reward}
    return SimpleNamespace(facts=facts)


def validation(value: float) -> Any:
    return SimpleNamespace(scores={"distinct2": SimpleNamespace(value=value)})


@pytest.mark.parametrize(("after", "message"), [
    ([event(entropy=0.9)] * 4, r"entropy of answers drawn in 4 steps has fallen to 0.9, from 2: .*lower training.rate"),
    ([event(distinct2=0.1)] * 4, r"distinct-2 of answers drawn in 4 steps has fallen to 0.2, from 0.5"),
    ([event(accuracy=1.0, reward=0.001)] * 4, r"tells 100.0% of answers apart, .* is 0.001: nothing"),
    ([validation(9.0)], r"distinct-2 of held-out answers has fallen to 9, from 20"),
    ([event(entropy=1.1), validation(11.0)] * 9, ""),
    ([event(accuracy=1.0, reward=0.001)] * 3, ""),
    ([SimpleNamespace(facts={})] * 9, ""),
])  # fmt: skip
def test_collapse_is_named(after: list[Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "WINDOW", 4)
    watcher, calm = Collapse(0.5), Collapse(0.0)
    said: list[Any] = []
    for each in [*[event()] * 4, validation(20.0), *after]:
        what = "validated" if hasattr(each, "scores") else "step"
        assert getattr(calm, what)(each) is None
        again = Collapse(0.5)
        again.restore(watcher.files())  # as if resumed after every event
        watcher = again
        said.append(getattr(watcher, what)(each))
    if message:
        assert isinstance(said[-1], Stop)
        assert said[-1].reason == "collapse"
        assert watcher.started(SimpleNamespace()) == said[-1]  # type: ignore[arg-type]
        assert re.search(message, said[-1].text)
    else:
        assert said == [None] * len(said)


def test_an_early_collapse_is_held_against_the_first_steps() -> None:
    watcher = Collapse(0.5)
    said = [watcher.step(each) for each in [event()] * collapse.BEGINNING + [event(entropy=0.5)] * collapse.WINDOW]
    first = next(number for number, each in enumerate(said) if each is not None)
    assert first == collapse.WINDOW - 1
    assert "entropy" in watcher.verdict


def test_a_run_that_collapses_ends_with_its_best_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: tuple[Config, dict[str, Tensor]]
) -> None:
    """A discriminator that learns nothing has one favourite answer."""
    monkeypatch.setattr(collapse, "WINDOW", 10)
    config, weights = start
    settings = {"objective": "adversarial", "discriminator_rate": 1e-30, "rate": 0.01, "steps": 200, "rollouts": 0}
    config = override(config, {f"training.{name}": value for name, value in settings.items()} | {
        "training.likelihood": 0.0, "training.validate_every": 15, "training.discriminator_turns": 1,
    })  # fmt: skip
    task, store, valid = prepared(config, letters(1.0))
    watcher = Recorder()
    result = train(config, task, store, valid, tmp_path / "run", start=weights, observers=[watcher])
    assert result.reason == "collapse"
    assert result.step < 200
    assert result.best is not None
    assert "collapsed: " in next(note.text for note in watcher.notes if note.kind == "stop")
    assert bundle.load(tmp_path / "run")
    assert train(config, task, store, valid, tmp_path / "run", start=weights, resume=True).reason == "finished"


# Learning

LETTERS: dict[str, Any] = {
    "model__width": 32, "data__batch_tokens": 400, "training__validate_every": 1000, "training__warmup": 0,
    "training__rate": 0.003, "model__dropout": 0.0, "training__label_smoothing": 0.0,
}  # fmt: skip


def letters(ordered: float, count: int = 300) -> list[tuple[str, str]]:
    """Answers of three to six letters; a share of them in alphabetical order, the others in any."""
    draws = random.Random(1)
    made = []
    for _ in range(count):
        source, answer = draws.choices("abcde", k=draws.randint(2, 5)), draws.choices("abcde", k=draws.randint(3, 6))
        made.append(("".join(source), "".join(sorted(answer) if draws.random() < ordered else answer)))
    return made


def learned(
    config: Config, out: Path, data: list[tuple[str, str]], start: Mapping[str, Tensor] | None = None
) -> Seq2Seq:
    """The model at the end of a run."""
    task, store, valid = prepared(config, data)
    train(config, task, store, valid, out, start=start)
    model = build(config.model, len(task.source.vocabulary), len(task.target.vocabulary))
    adopt(model, load(Checkpoints(out).newest().files["model.safetensors"]))
    return model.eval()


@pytest.fixture(scope="module", name="start")
def shared_start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict[str, Tensor]]:
    """A model that has learned from answers of which only a third are in order."""
    patch = pytest.MonkeyPatch()
    light(patch)
    try:
        config = configured("gru", **LETTERS, training__steps=150)
        model = learned(config, tmp_path_factory.mktemp("start") / "run", letters(0.3))
    finally:
        patch.undo()
    return config, dict(bundle.tensors(model))


def in_order(model: Seq2Seq, task: Task, temperature: float = 1.0) -> tuple[float, int]:
    """Of 600 drawn answers the share of those that could be a person's, and how many different ones there are."""
    with torch.no_grad():
        model.head.weight.div_(temperature)
        model.head.bias.div_(temperature)
        memory = remembered(model, task.batch([Pair(*pair) for pair in letters(1.0)[:200]]), 3)
        torch.manual_seed(1)
        answers = draw(model, memory, torch.full((600,), 9), torch.zeros(600, dtype=torch.bool))
    both = zip(answers.values, answers.lengths_B.tolist(), strict=True)
    texts = [task.answer(row[:length].tolist()) for row, length in both]
    good = [text for text in texts if sorted(text) == list(text) and 3 <= len(text) <= 6]
    return len(good) / len(texts), len(set(good))


@pytest.mark.parametrize(("rollouts", "steps"), [(0, 40), pytest.param(3, 120, marks=pytest.mark.slow)])
def test_drawn_answers_become_like_those_of_people(
    rollouts: int, steps: int, start: tuple[Config, dict[str, Tensor]], tmp_path: Path
) -> None:
    """By the discriminator alone, without likelihood: neither one that learns nothing nor a low temperature does it.

    Fewer than fifty different answers do not count: one that learns nothing may like a single good answer.
    """
    config, weights = start
    settings = {"objective": "adversarial", "rollouts": rollouts, "likelihood": 0.0, "collapse": 0.0, "steps": steps,
                "rate": 0.0015}  # fmt: skip
    task, _, _ = prepared(config, letters(1.0))
    found, more = {}, {f"training.{name}": value for name, value in settings.items()}
    for name, rate in (("learning", 0.003), ("blind", 1e-30)):
        changed = override(config, {**more, "training.discriminator_rate": rate})
        found[name] = in_order(learned(changed, tmp_path / name, letters(1.0), weights), task)
    for name, temperature in (("before", 1.0), ("cold", 0.5)):
        model = build(config.model, len(task.source.vocabulary), len(task.target.vocabulary))
        adopt(model, weights)
        found[name] = in_order(model.eval(), task, temperature)
    others = [
        share if several > 50 else 0.0 for share, several in (found[name] for name in ("before", "blind", "cold"))
    ]
    assert found["learning"][0] > max(others) + 0.1, found
    assert found["learning"][1] > 50, found


def test_a_plateau_lowers_the_rate_of_the_model_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[float, set[float]] = {}
    update = Learner.update

    def noted(learner: Learner, rate: float) -> None:
        rates.setdefault(learner.settings.rate or 0.0, set()).add(rate)
        update(learner, rate)

    monkeypatch.setattr(Learner, "update", noted)
    given = {"training__schedule": "plateau", "training__patience": 2, "training__rate": 0.5, "training__warmup": 0}
    given |= {"training__steps": 9, "training__validate_every": 1, "training__collapse": 0.0}
    run(configured("gru", **{**ADVERSARIAL, **COMMON, **given}), tmp_path / "run")
    assert rates.pop(0.001) == {0.001}
    assert len(rates[0.5]) > 1
