"""Going on from a trained model: nothing of it changes unasked, new pairs are learned, and a resume is exact."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from antiphon import Seq2Seq
from antiphon.__main__ import main
from antiphon.core.config import Training
from antiphon.core.errors import BundleError, ConfigError, DataError
from antiphon.core.keys import override
from antiphon.data.corpus import Pair
from antiphon.diagnosis.doctor import examine
from antiphon.inference import bundle
from antiphon.inference.lengths import LengthModel
from antiphon.models.seq2seq import build
from antiphon.training.finetuning import Start
from antiphon.training.learner import Learner
from antiphon.training.recipes import propose
from antiphon.training.start import fit, resume
from antiphon.training.statistics import Statistics
from antiphon.training.validation import Validator
from forecasts import waves
from runs import Recorder, configured, light, outcome, words
from starts import (
    FAMILIES,
    QUICK,
    SHORT,
    STILL,
    answers,
    copies,
    raw,
    shared_start,  # noqa: F401
    weights,
)


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


# What stays


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_step_at_rate_zero_changes_no_answer(kind: str, tmp_path: Path) -> None:
    old = raw(tmp_path / "old", configured(kind))
    fit(copies(), out=tmp_path / "run", assignments=STILL, start=old)
    inputs = ["abc", "ed", "cabde", "a", "x"]
    assert answers(tmp_path / "run", inputs) == answers(old, inputs)
    for name, tensor in weights(old).items():
        assert torch.allclose(weights(tmp_path / "run")[name], tensor, rtol=0, atol=1e-20), name


def test_network_tokenizers_and_search_come_from_the_start(start: Path, tmp_path: Path) -> None:
    fit(copies(), out=tmp_path / "run", assignments={**STILL, "data.source.max_length": 30}, start=start)
    old, new = bundle.load(start), bundle.load(tmp_path / "run")
    assert new.config.model == old.config.model
    assert new.config.decoding == old.config.decoding
    assert new.task.source.vocabulary == old.task.source.vocabulary
    assert new.task.source.side.max_length == 30
    assert new.config.data.target == old.config.data.target


def test_limits_of_length_cover_old_and_new_pairs(start: Path, tmp_path: Path) -> None:
    fit([(a[:2], b[:2]) for a, b in copies()], out=tmp_path / "run", assignments=STILL, start=start)
    old, new = bundle.load(start).task.length, bundle.load(tmp_path / "run").task.length
    assert all(new.limit(n) >= old.limit(n) for n in range(50))
    low, steep = LengthModel(0.5, 4), LengthModel(2, 0)
    assert all(low.join(steep).limit(n) >= max(low.limit(n), steep.limit(n)) for n in range(50))


def test_unknown_tokens_are_counted(start: Path, tmp_path: Path) -> None:
    seen = Recorder()
    fit(copies("abxyz"), out=tmp_path / "run", assignments=STILL, start=start, observers=[seen])
    assert any("token that the vocabulary lacks" in note.text for note in seen.notes)
    assert any(note.kind == "start" and "general" in note.text for note in seen.notes)


# What is learned


def test_new_pairs_are_learned(start: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "training.steps": 60, "training.validate_every": 20, "training.patience": 0}
    result = fit(copies(), out=tmp_path / "run", assignments=settings, start=start)
    held_out = [Pair(*pair) for pair in copies()][:20]

    def loss(path: Path) -> float:
        old = bundle.load(path)
        return Validator(override(old.config, {"training.metric": "loss"}), old.task, held_out)(old.model, int).loss

    assert result.best is not None
    assert loss(tmp_path / "run") < 0.8 * loss(start)


def test_a_pull_keeps_weights_near_the_start(start: Path, tmp_path: Path) -> None:
    def moved(name: str, pull: float) -> float:
        settings = {**SHORT, "training.l2_start": pull, "training.clip": 0, "training.optimizer": "sgd"}
        settings |= {"training.rate": 0.2, "training.momentum": 0.0, "training.warmup": 0}
        fit(copies(), out=tmp_path / name, assignments=settings, start=start)
        new = weights(tmp_path / name / "checkpoints" / "step-00000012")
        return sum(float((new[key] - old).square().sum()) for key, old in weights(start).items())

    assert moved("pulled", 1.0) < 0.5 * moved("free", 0.0)


def test_the_pull_is_the_gradient_of_its_penalty() -> None:
    model = build(configured().model, 9, 11)
    model.source.embedding.weight.requires_grad_(False)
    old = {name: torch.randn_like(tensor) for name, tensor in bundle.tensors(model).items()}
    old["head.bias"] = old["head.bias"][:8]
    learner = Learner(model, Training(l2_start=0.5, clip=0), old)
    learner.flat.zero()
    learner.ready(4)
    penalty = sum(
        0.25 * (weight[: len(old[name])] - old[name]).square().sum() for name, weight in model.named_parameters()
        if weight.requires_grad
    )  # fmt: skip
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    wanted = dict(zip(found, torch.autograd.grad(penalty, [model.get_parameter(name) for name in found]), strict=True))
    for name, gradient in found.items():
        assert torch.allclose(gradient, wanted[name], atol=1e-6), name
    assert model.source.embedding.weight.grad is None


# Resuming


def started(out: Path, start: Path, stop: int | None = None, **more: Any) -> Path:
    settings = {**SHORT, "data.extend": True, "training.l2_start": 0.01, "training.ema": 0.9}
    fit(copies("abcXY"), out=out, assignments={**settings, **more}, start=start, observers=[Recorder(stop)])
    return out


@pytest.mark.parametrize("stop", [3, 8])
def test_a_resumed_run_needs_no_start_and_ends_with_the_same_bits(stop: int, start: Path, tmp_path: Path) -> None:
    expected = outcome(started(tmp_path / "whole", start))
    shutil.copytree(start / "best", tmp_path / "copy")
    started(tmp_path / "parts", tmp_path / "copy", stop)
    shutil.rmtree(tmp_path / "copy")
    resume(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == expected
    assert "training/start.safetensors" in expected


KILLED = """
import os, signal, sys
from antiphon.training.observers import Observer
import runs, test_start
runs.runner.probe = lambda: runs.Products("highest", False, {})
class Killer(Observer):
    def step(self, event):
        if event.step == 7:
            os.kill(os.getpid(), signal.SIGKILL)
test_start.Recorder = lambda stop: Killer()
test_start.started(test_start.Path(sys.argv[1]), test_start.Path(sys.argv[2]))
"""


def test_a_killed_run_ends_with_the_same_bits(start: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", KILLED, tmp_path / "run", start]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(started(tmp_path / "whole", start))


def unborn(run: Path) -> Path:
    """The run as a kill before its first checkpoint leaves it."""
    for name in ("checkpoints", "best"):
        shutil.rmtree(run / name)
    (run / "log.jsonl").unlink()
    return run


def test_without_a_checkpoint_the_start_is_read_again(start: Path, tmp_path: Path) -> None:
    shutil.copytree(start / "best", tmp_path / "copy")
    expected = outcome(started(tmp_path / "run", tmp_path / "copy"))
    resume(unborn(tmp_path / "run"))
    assert outcome(tmp_path / "run") == expected
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(BundleError, match="there is no model here"):
        resume(unborn(tmp_path / "run"))


def test_without_a_checkpoint_a_start_that_has_changed_is_refused(start: Path, tmp_path: Path) -> None:
    shutil.copytree(start / "best", tmp_path / "copy")
    unborn(started(tmp_path / "run", tmp_path / "copy"))
    shutil.rmtree(tmp_path / "copy")
    raw(tmp_path / "copy", configured())
    with pytest.raises(DataError, match="the model that this run starts from has changed"):
        resume(tmp_path / "run")


# What is told


def test_card_and_data_file_name_the_start(start: Path, tmp_path: Path) -> None:
    fit(copies(), out=tmp_path / "first", assignments=STILL, start=start)
    fit(copies(), out=tmp_path / "second", assignments=STILL, start=tmp_path / "first" / "best")
    known = json.loads((tmp_path / "first" / "data.json").read_text())["start"]
    assert known == {"path": str(start), "sha256": Start.open(start / "best").sha256}
    card = (tmp_path / "second" / "best" / "README.md").read_text()
    [line] = [line for line in card.splitlines() if line.startswith("| Trained from |")]
    assert f"from general (sha256 {known['sha256'][:12]}), trained on train.jsonl" in line
    assert str(tmp_path) not in line
    assert "| Trained from | fresh weights |" in (start / "best" / "README.md").read_text()


def test_the_recipe_for_a_trained_model_is_gentler() -> None:
    statistics, config = Statistics.of([Pair(*pair) for pair in words(3000)]), configured()
    config = override(config, {"training.rate": "auto", "training.warmup": "auto", "training.steps": 4000})
    plain, gentle = (propose(config, statistics, trained=trained) for trained in (False, True))
    assert gentle[0].training.rate < plain[0].training.rate
    assert gentle[0].training.warmup < plain[0].training.warmup
    assert all(choice.reason for choice in gentle[1])
    assert propose(override(config, {"training.rate": 0.5}), statistics, trained=True)[0].training.rate == 0.5


# Doors


def test_the_command_shows_and_trains(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in copies()))
    words = ["train", str(tmp_path / "new.tsv"), "--from", str(start), "--out", str(tmp_path / "run"),
             "training.steps=2", "training.threads=1"]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main([*words, "--show"])
    shown = capsys.readouterr().out
    assert (end.value.code or 0, (tmp_path / "run").exists()) == (0, False)
    assert "training.rate" in shown
    assert "model.width" not in shown
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    assert "going on from general" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["info", str(tmp_path / "run")])
    assert "trained from" in capsys.readouterr().out


def test_the_estimator_goes_on_from_a_path_or_a_model(start: Path) -> None:
    inputs = ["abc", "deab"]
    for origin in (start, Seq2Seq.load(start)):
        model = Seq2Seq(settings=STILL, verbose=False).fit(copies(), start=origin)
        assert model.predict(inputs) == Seq2Seq.load(start).predict(inputs)


def test_a_reference_that_is_too_long_is_left_out_with_its_pair_kept(tmp_path: Path) -> None:
    rows = [{"source": word, "references": [back, back * 20]} for word, back in words(40)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {**SHORT, "data.too_long": "skip", "data.target.max_length": 20, "data.target.tokenizer": "char"}
    fit(path, out=tmp_path / "run", assignments={**given, "training.steps": 2, "training.validate_every": 2})
    found = examine(tmp_path / "run")
    assert found.looked_at


def test_numbers_are_not_judged_by_what_tokens_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.metric: numbers have no tokens to count \(got perplexity\)"):
        fit(waves(30), out=tmp_path / "run", task="forecasting", assignments={"training.metric": "perplexity"})
