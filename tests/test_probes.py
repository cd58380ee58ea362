"""Probes of training: right figures, the same log after a resume, and the same bits with and without them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from antiphon.core.batch import Padded
from antiphon.core.config import Config
from antiphon.inference.bundle import load
from antiphon.inference.forced import teacher_forced
from antiphon.models.attention import FeedForward
from antiphon.models.seq2seq import Seq2Seq
from antiphon.training.checkpoint import Checkpoints
from antiphon.training.observers import read_log
from antiphon.training.probes import activations, answers, looks, losses, watch
from antiphon.training.probes.gates import gates
from antiphon.training.probes.samples import Sample, Samples
from runs import Recorder, configured, light, outcome, prepared, run

KINDS = ("layers", "loss", "attention", "answers", "rate")
FAMILIES = ("transformer", "gru")
Runs = Callable[[str, bool], Path]


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def settings(family: str, **more: Any) -> Config:
    given = {"training__steps": 14, "training__validate_every": 2, "training__clip": 0.5, "training__patience": 0}
    return configured(family, **{**given, **more})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The run of a family with probes or without, made once."""
    folder = tmp_path_factory.mktemp("probed")

    def made(family: str, on: bool) -> Path:
        out = folder / f"{family}-{on}"
        if not out.exists():
            run(settings(family, training__probes=on), out)
        return out

    return made


def probes(out: Path, kind: str = "") -> list[dict[str, Any]]:
    return [each for each in read_log(out / "log.jsonl") if each["event"] == "probe" and kind in ("", each["kind"])]


# What a run is with and without


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_the_same_with_and_without(family: str, runs: Runs) -> None:
    assert outcome(runs(family, True)) == outcome(runs(family, False))


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "copy": ("transformer", {"model__head": "copy", "model__tie": "none"}),
    "coverage": ("lstm", {"model__attention": "coverage", "training__coverage": 1.0}),
    "dropped weights": ("gru", {"model__attention": "additive", "model__dropout_recurrent": 0.2}),
    "rnn": ("rnn", {}), "conv": ("conv", {}), "ssru": ("ssru", {}),
    "swiglu": ("transformer", {"model__activation": "swiglu", "model__norm": "post"}),
    "window": ("transformer", {"model__positions": "rotary", "model__encoder__window": 2}),
    "bf16": ("transformer", {"training__precision": "bf16"}),
    "r-drop": ("transformer", {"training__r_drop": 1.0}),
    "sampling": ("gru", {"training__scheduled_sampling": 0.5}),
    "averages": ("gru", {"training__ema": 0.9, "training__average": 3}),
    "self-critical": ("gru", {"training__objective": "self-critical", "training__reward": "chrf"}),
    "adversarial": ("transformer", {"training__objective": "adversarial", "training__discriminator_width": 8}),
    "unlikelihood": ("lstm", {"training__objective": "unlikelihood"}),
    "two processes": ("transformer", {"training__processes": 2}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS)
def test_weights_are_the_same_with_whatever_is_trained(case: str, tmp_path: Path) -> None:
    family, more = OTHERS[case]
    for on in (True, False):
        run(settings(family, training__probes=on, **more), tmp_path / str(on))
    assert outcome(tmp_path / "True") == outcome(tmp_path / "False")
    assert {each["kind"] for each in probes(tmp_path / "True")} == set(KINDS)


def test_they_are_told_unless_turned_off(runs: Runs) -> None:
    assert {each["kind"] for each in probes(runs("gru", True))} == set(KINDS)
    assert probes(runs("gru", False)) == []
    assert watch.PROBES in Checkpoints(runs("gru", True)).newest().files
    assert watch.PROBES not in Checkpoints(runs("gru", False)).newest().files


@pytest.mark.parametrize(("family", "stop"), [("gru", 4), ("transformer", 9)])
def test_a_resumed_run_tells_the_same(family: str, stop: int, runs: Runs, tmp_path: Path) -> None:
    run(settings(family), tmp_path / "run", observers=[Recorder(stop)])
    assert 0 < len(probes(tmp_path / "run")) < len(probes(runs(family, True)))
    run(settings(family), tmp_path / "run", resume=True)
    assert probes(tmp_path / "run") == probes(runs(family, True))


def test_they_come_early_and_then_seldom(runs: Runs) -> None:
    assert [each["step"] for each in probes(runs("gru", True), "layers")] == [1, 2, 4, 8]
    assert [each["step"] for each in probes(runs("gru", True), "loss")] == [2, 6, 14]  # the last one too
    for steps, most in ((1_000, 1_000), (10_000, 10_000), (None, 100_000)):
        count = len(list(takewhile(partial(_within, most), watch.moments(steps))))
        assert 40 <= count <= 75, steps


def _within(most: int, step: int) -> bool:
    return step <= most


def test_without_attention_nothing_is_said_of_it(tmp_path: Path) -> None:
    run(settings("gru", model__attention="none", training__steps=2), tmp_path / "run")
    assert {each["kind"] for each in probes(tmp_path / "run")} == set(KINDS) - {"attention"}


# Layers


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_of_layers_make_up_the_whole(family: str, runs: Runs) -> None:
    out = runs(family, True)
    first = probes(out, "layers")[0]
    whole = math.hypot(*(layer["gradient"] for layer in first["layers"]))
    (step, *_) = (each for each in read_log(out / "log.jsonl") if each["event"] == "step")
    assert whole == pytest.approx(step["gradient_norm"], rel=1e-4)
    assert first["clipped"] is (step["gradient_norm"] > 0.5)
    names = [layer["name"] for layer in first["layers"]]
    assert names[:2] == ["source.embedding", "encoder.layers.0"]
    assert names[-1] == "head"
    model = load(out / "best").model
    assert sum(layer["parameters"] for layer in first["layers"]) == sum(p.numel() for p in model.parameters())


def test_updates_are_what_weights_have_moved(tmp_path: Path) -> None:
    run(settings("transformer", training__steps=1), tmp_path / "run")
    before, after = (Checkpoints(tmp_path / "run").load(step).files["model.safetensors"] for step in (0, 1))
    from safetensors.torch import load as tensors

    old, new = tensors(before), tensors(after)
    (told,) = probes(tmp_path / "run", "layers")
    for layer in told["layers"]:
        moved = [(new[name] - old[name]).norm() for name in new if name.startswith(layer["name"] + ".")]
        assert layer["update"] == pytest.approx(float(torch.stack(moved).norm()), rel=1e-3), layer["name"]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_gates_are_those_that_made_the_states(kind: type[nn.LSTM] | type[nn.GRU]) -> None:
    torch.manual_seed(1)
    kernel, x_BTD = kind(5, 4, batch_first=True), torch.randn(3, 6, 5)
    first = torch.randn(1, 3, 4)
    past = (first, torch.randn(1, 3, 4)) if kind is nn.LSTM else first
    states_BTH, _ = kernel(x_BTD, past)
    found = {name: values for name, (_, values) in gates(kernel, (x_BTD, past), states_BTH).items()}
    before = torch.cat([first[0][:, None], states_BTH[:, :-1]], 1)
    if kind is nn.GRU:
        made = (1 - found["update"]) * found["new"] + found["update"] * before
    else:
        cell, made = past[1][0], torch.empty_like(states_BTH)
        for step in range(6):
            cell = found["forget"][:, step] * cell + found["input"][:, step] * found["cell"][:, step]
            made[:, step] = found["output"][:, step] * torch.tanh(cell)
    assert torch.allclose(made, states_BTH, atol=1e-6)


def test_dead_units_and_stuck_gates_are_counted() -> None:
    block = FeedForward(4, 8, "relu", 0.0)
    with torch.no_grad():
        block.input.bias[:2] = -100.0
        block.input.weight[:2] = 0.0
    x_BTD = torch.randn(16, 16, 4)
    (reading,) = (each for _, each in activations.inner(block, block.input, (), block.input(x_BTD)))
    assert activations.plain([reading])[0]["dead"] == pytest.approx(0.25)
    gate = activations.gate(torch.tensor([0.01, 0.5, 0.5, 0.99]), "gate")
    assert activations.plain([gate])[0]["saturated"] == pytest.approx(0.5)


def test_a_spike_names_its_worst_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CALM", 3)
    monkeypatch.setattr(watch, "SPIKE", 1.0)
    run(config := settings("gru", training__steps=8), tmp_path / "run")
    task, store, _ = prepared(config)
    named = [each["pairs"] for each in probes(tmp_path / "run", "layers") if each["pairs"]]
    assert named
    for pairs in named:
        assert [each["loss"] for each in pairs] == sorted((each["loss"] for each in pairs), reverse=True)
        for each in pairs:
            assert each["target"] == task.words.text(store[each["row"]].target)


# Losses, attention and answers


@pytest.fixture(scope="module")
def looked_at(runs: Runs) -> tuple[Seq2Seq, Samples]:
    config = settings("transformer")
    task, store, held_out = prepared(config)
    return load(runs("transformer", True) / "best").model, Samples(task, store, held_out, 1, 1000)


def test_losses_are_those_of_teacher_forcing(looked_at: tuple[Seq2Seq, Samples]) -> None:
    model, samples = looked_at
    told = losses.told(model, samples.valid)
    whole = teacher_forced(model, [samples.task.batch(samples.valid.pairs)])
    assert told.loss == pytest.approx(whole.loss, rel=1e-5)
    assert 100 * told.accuracy(len(samples.valid.pairs)) == pytest.approx(whole.token_accuracy)
    facts = losses.facts(model, told, told, losses.told(model, samples.valid.shuffled(model.target_size)))
    for table in (facts["by_length"], facts["by_position"]):
        total = sum(loss * tokens for _, _, loss, tokens in table)
        assert total / sum(tokens for *_, tokens in table) == pytest.approx(told.loss)
    assert facts["shuffled"] != pytest.approx(told.loss)


def test_every_target_gets_another_source(looked_at: tuple[Seq2Seq, Samples]) -> None:
    valid = looked_at[1].valid
    mixed = valid.shuffled(None)
    pairs = list(zip(mixed.examples, valid.examples, strict=True))
    assert all(new.target == old.target for new, old in pairs)
    assert sorted(map(tuple, (new.source for new, _ in pairs))) == sorted(tuple(old.source) for _, old in pairs)
    assert all(new is not old for new, old in pairs)


def test_a_sample_is_cut_to_its_room(looked_at: tuple[Seq2Seq, Samples]) -> None:
    samples = looked_at[1]
    small = Samples(samples.task, samples.store, samples.held_out, 1, 10)
    assert len(small.train.examples) == 8
    assert len(samples.train.examples) == len(samples.store)
    rows = sorted(row for numbers, _ in samples.train.batches(100) for row in numbers)
    assert rows == list(range(len(samples.store)))


def test_attention_is_measured() -> None:
    real = torch.ones(1, 4, dtype=torch.bool)

    def shares(weights_TS: torch.Tensor) -> dict[str, float | None]:
        return looks._shares(looks.measured(weights_TS[None, None], real, real))

    even = shares(torch.full((4, 4), 0.25))
    assert even["entropy"] == pytest.approx(1.0)
    straight, back = shares(torch.eye(4)), shares(torch.eye(4).flip(0))
    assert straight["entropy"] == pytest.approx(0.0)
    assert straight["diagonality"] == pytest.approx(1.0)
    assert back["diagonality"] == pytest.approx(1.0)
    assert straight["coverage"] == 1.0
    stuck = torch.zeros(4, 4)
    stuck[:, 3] = 1.0
    assert shares(stuck)["end"] == 1.0
    assert shares(stuck)["coverage"] == 0.25


def test_padding_has_no_part_in_attention() -> None:
    weights = torch.rand(2, 1, 3, 5).softmax(-1)
    weights[0, :, :, 3:] = 0.0
    weights[0] /= weights[0].sum(-1, keepdim=True)
    source, target = (Padded(torch.zeros(2, size), torch.tensor(lengths)).mask_BL
                      for size, lengths in ((5, [3, 5]), (3, [2, 3])))  # fmt: skip
    both = looks.measured(weights, source, target)
    alone = [looks.measured(weights[:1, :, :2, :3], source[:1, :3], target[:1, :2]),
             looks.measured(weights[1:], source[1:], target[1:])]  # fmt: skip
    for name, value in both.items():
        assert torch.allclose(value, sum(each[name] for each in alone)), name


@pytest.mark.parametrize(("tokens", "expected"), [
    ([1, 2, 3, 4, 5], False), ([1, 2, 2, 3], False), ([1, 2, 2, 2], True), ([1, 2, 3, 4, 9, 1, 2, 3, 4], True),
    ([], False),
])  # fmt: skip
def test_repetition(tokens: list[int], expected: bool) -> None:
    assert answers.repeats(tokens) is expected


def test_long_targets_are_not_answered(looked_at: tuple[Seq2Seq, Samples], monkeypatch: pytest.MonkeyPatch) -> None:
    valid = looked_at[1].valid
    monkeypatch.setattr(answers, "LONGEST", min(len(each.target) for each in valid.examples))
    few = answers.answerable(Sample(valid.examples, valid.pairs))
    assert 0 < len(few.examples) < len(valid.examples)
    assert {len(each.target) for each in few.examples} == {answers.LONGEST}


def test_answers_are_held_against_references(looked_at: tuple[Seq2Seq, Samples]) -> None:
    model, samples = looked_at
    facts = answers.facts(model, samples.task, samples.valid, 0.5)
    assert facts["forced_accuracy"] == 0.5
    assert 0 < facts["common"] <= 1
    assert facts["copied_reference"] == 1.0  # a word and its letters back to front
    assert facts["copied"] == 0.0
