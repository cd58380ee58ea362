"""Adversarial learning: exact gradients, two players apart, all families, accumulation, resume, collapse, learning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.core.batch import Batch, Loss, Padded, pad
from antiphon.core.config import Config, Training
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override
from antiphon.inference.task import Task
from antiphon.training import adversarial, reinforcement
from antiphon.training.adversarial import Adversarial, beginning
from antiphon.training.optimizers import Flat
from antiphon.training.reinforcement import draw, forced, no_dropout, remembered
from antiphon.training.runner import Local, Step, choose, size
from runs import configured, light, run
from test_reinforcement import DECODERS, TINY, every_answer, lively, made, slope, some

ADVERSARIAL: dict[str, Any] = {
    "training__objective": "adversarial", "training__rollouts": 2, "training__discriminator_width": 8,
    "training__discriminator_turns": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def both(config: Config, double: bool = False) -> tuple[Adversarial, dict[str, Any], Task]:
    """The objective, its players, and the task."""
    objective, model, task = made(config)
    judge = objective.opponents(model)["discriminator"][0]
    models = {"discriminator": judge.double() if double else judge, "model": model.double() if double else model}
    objective.begin(model, None)
    return objective, {name: each.train() for name, each in models.items()}, task


def gradients(module: nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


# The two players


@pytest.mark.parametrize("rollouts", [0, 2])
def test_each_player_learns_in_its_turn_alone(rollouts: int) -> None:
    objective, models, task = both(configured("gru", **ADVERSARIAL | {"training__rollouts": rollouts}))
    turns = objective.turns()
    assert len(turns) == 2
    for turn, name, other in zip(turns, ("discriminator", "model"), ("model", "discriminator"), strict=True):
        for model in models.values():
            model.zero_grad()
        (losses := turn(models, some(task), 0.0))[name].total.backward()
        assert list(losses) == [name]
        assert gradients(models[name]) > 0
        assert gradients(models[other]) == 0
    assert losses["model"].count == some(task).count


def test_the_discriminator_learns_who_gave_an_answer() -> None:
    """Its loss is the cross-entropy of both kinds, and a drawn answer is the model's own."""
    objective, models, task = both(configured("gru", **ADVERSARIAL))
    batch, judge = some(task), models["discriminator"].eval()
    torch.manual_seed(3)
    loss = objective.tell_apart(models, batch, 0.0)["discriminator"]
    torch.manual_seed(3)
    with no_dropout(models["model"]):
        answers, _ = objective.answers(models["model"], batch)
    source = judge.read(batch.source)
    kinds = [(judge(source, batch.target), 1.0), (judge(source, answers), 0.0)]
    by_hand = sum(F.binary_cross_entropy_with_logits(x, torch.full_like(x, y), reduction="sum") for x, y in kinds)
    torch.testing.assert_close(loss.total, by_hand)
    assert loss.count == 2 * 7


def test_beginnings_are_of_every_length() -> None:
    torch.manual_seed(1)
    answers = Padded(torch.arange(4, 8).repeat(4000, 1), torch.tensor([1, 2, 3, 4]).repeat(1000))
    lengths = beginning(answers).lengths_B.view(1000, 4)
    for column in range(4):
        found = torch.bincount(lengths[:, column], minlength=6)[1:] / 1000
        expected = torch.tensor([1 / (column + 1) if place <= column else 0.0 for place in range(5)])
        torch.testing.assert_close(found, expected, atol=0.06, rtol=0)


@pytest.mark.parametrize("kind", DECODERS)
def test_answers_go_on_from_beginnings(kind: str) -> None:
    _, model, task = made(configured(kind, **ADVERSARIAL))
    batch = some(task)
    memory, limits = remembered(model.eval(), batch, 1), torch.full((7,), 6)
    no = torch.zeros(7, dtype=torch.bool)
    begun = (
        torch.tensor([[4, 5, 6]])
        .repeat(7, 1)
        .masked_fill(torch.arange(3) >= torch.tensor([0, 1, 2, 3, 0, 1, 3])[:, None], -1)
    )
    torch.manual_seed(1)
    free = draw(model, memory, limits, ~no)
    told = draw(model, memory, limits, ~no, begun)
    for row, many in enumerate([0, 1, 2, 3, 0, 1, 3]):
        assert told.values[row, :many].tolist() == [4, 5, 6][:many]
        if not many:
            assert told.lengths_B[row] == free.lengths_B[row]
            assert torch.equal(
                told.values[row, : int(told.lengths_B[row])], free.values[row, : int(free.lengths_B[row])]
            )
    said = model.log_probs(forced(model, memory, told), memory).argmax(2)
    for row, many in enumerate([0, 1, 2, 3, 0, 1, 3]):  # what comes after the beginning follows from it
        end = int(told.lengths_B[row])
        assert torch.equal(told.values[row, many:end], said[row, many:end])


def test_the_model_climbs_the_chance_to_be_taken_for_a_person() -> None:
    """The mean over many draws is the exact gradient of the expected verdict, by any number of roll-outs."""
    objective, model, batch = lively(configured("gru", **ADVERSARIAL, **TINY))
    judge = objective.opponents(model)["discriminator"][0]
    answers, log_probs = every_answer(model, batch)
    with torch.no_grad(), no_dropout(judge):
        source = judge.read(batch.source).expand(len(log_probs), -1)
        logits = judge(source, answers)
        judge.output.weight.div_(logits.std())
        judge.output.bias.sub_(logits.mean() / logits.std())
        verdicts = judge(source, answers).sigmoid()
    assert verdicts.std() > 0.1
    exact = -slope(model, (log_probs.exp() * verdicts).sum())
    torch.manual_seed(1)
    rows = 6000
    many = batch.rows(torch.zeros(rows, dtype=torch.long))
    loss = objective({"model": model, "discriminator": judge}, many, 0.0)["model"]
    found = slope(model, loss.total) / rows
    assert torch.cosine_similarity(found, exact, dim=0) > 0.98
    assert float(found.norm() / exact.norm()) == pytest.approx(1, abs=0.1)
    assert objective.facts(loss)["reward"] == pytest.approx(
        float((log_probs.exp() * verdicts).sum().detach()), abs=0.02
    )


@pytest.mark.parametrize(("rollouts", "judge"), [(0, "gru"), (0, "rnn"), (0, "conv"), (0, "transformer"), (2, "gru")])
def test_what_tokens_count_for_adds_up_to_the_answer(
    rollouts: int, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last value is the verdict on the whole; without roll-outs those before it are verdicts on beginnings."""
    monkeypatch.setattr(adversarial, "ROWS", 3)
    settings = ADVERSARIAL | {"training__rollouts": rollouts, "training__discriminator": judge}
    objective, models, task = both(configured("lstm", **settings))
    model, player, batch = models["model"].eval(), models["discriminator"].eval(), some(task)
    with torch.no_grad():
        answers, _ = objective.answers(model, batch)
        source = player.read(batch.source)
        values = objective.values(model, player, batch, source, answers)
        for row, length in enumerate(answers.lengths_B.tolist()):
            whole = Padded(answers.values[row : row + 1], answers.lengths_B[row : row + 1])
            torch.testing.assert_close(values[row, length], player(source[row : row + 1], whole).sigmoid()[0])
            assert (values[row, length + 1 :] == 0).all()
            if not rollouts:
                begun = Padded(whole.values, torch.ones_like(whole.lengths_B))
                assert values[row, 0] == 0.5
                torch.testing.assert_close(values[row, 1], player(source[row : row + 1], begun).sigmoid()[0])


# Every family, accumulation, settings

JUDGES = ("rnn", "lstm", "gru", "conv", "transformer", "gru")


@pytest.mark.parametrize(("kind", "judge"), [*zip(DECODERS, JUDGES, strict=True)])
@pytest.mark.parametrize("rollouts", [0, 2])
def test_every_decoder_family_learns(kind: str, judge: str, rollouts: int) -> None:
    head = {"model__head": "copy"} if kind in ("gru", "transformer") else {}
    settings = ADVERSARIAL | {"training__rollouts": rollouts, "training__discriminator": judge}
    objective, models, task = both(configured(kind, **settings, **head))
    flats, runner = {name: Flat(model) for name, model in models.items()}, Local(Training())
    found: dict[str, Loss] = {}
    for turn in objective.turns():
        found |= runner.accumulate(turn, models, Step([some(task), some(task, 3)], (1, 1)))
    for name, flat in flats.items():
        assert flat.gradient.isfinite().all()
        assert flat.gradient.abs().max() > 0, name
    facts = objective.facts(found["model"])
    assert set(facts) == {"accuracy", "reward", "entropy", "kl", "length", "distinct2", "identical"}
    assert facts["kl"] == pytest.approx(0, abs=1e-5)
    assert all(0 <= facts[name] <= 1 for name in ("accuracy", "reward", "distinct2", "identical"))


@pytest.mark.parametrize("rollouts", [0, 2])
def test_accumulation_and_splitting_are_exact(rollouts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With answers that depend on their source alone, a batch gives what its parts give."""

    def fixed(model: Any, memory: Any, limits_N: Tensor, greedy_N: Tensor, begun_NT: Tensor | None = None) -> Padded:
        plain = [[4 + int(n) % 3] * int(n) + [3] for n in memory.mask_BS.sum(1)]
        if begun_NT is None:
            return pad(plain)
        begun = [[token for token in row if token >= 0] for row in begun_NT.tolist()]
        return pad([[*start, *rest[len(start) :]] for start, rest in zip(begun, plain, strict=True)])

    monkeypatch.setattr(reinforcement, "draw", fixed)
    monkeypatch.setattr("antiphon.training.adversarial.beginning", lambda answers: answers)
    config = configured("lstm", **ADVERSARIAL | {"training__rollouts": rollouts}, model__dropout=0.0)
    monkeypatch.setattr("antiphon.models.discriminator.DROPOUT", 0.0)
    objective, models, task = both(config, double=True)
    flats, runner, batch = {name: Flat(model) for name, model in models.items()}, Local(Training()), some(task, 6)

    def gradient(turn: Any, name: str, batches: list[Batch], limit: int | None = None) -> tuple[Tensor, Loss]:
        flats[name].zero()
        loss = runner.accumulate(turn, models, Step(batches, (1, 1), 0.0, limit))[name]
        return flats[name].gradient.clone(), loss

    even = [batch.rows(torch.arange(0, 4)), batch.rows(torch.arange(4, 6))]
    for turn, name in zip(objective.turns(), ("discriminator", "model"), strict=True):
        whole = gradient(turn, name, [batch])
        for other in (gradient(turn, name, even), gradient(turn, name, [batch], limit=size(batch) // 2)):
            torch.testing.assert_close(other[0], whole[0])
            assert other[1].count == whole[1].count == (batch.count if name == "model" else 12)
            assert float(other[1].total) == pytest.approx(float(whole[1].total))


@pytest.mark.parametrize(("settings", "message"), [
    ({"discriminator_width": 6}, "training.discriminator_width must be a multiple of 4 .got 6"),
    ({"rollouts": -1}, "training.rollouts must not be negative"),
    ({"discriminator_turns": 0}, "training.discriminator_turns must be at least 1"),
    ({"discriminator_rate": 0.0}, "training.discriminator_rate must be above 0"),
    ({"collapse": 1.0}, "training.collapse must be at least 0 and below 1"),
    ({"discriminator": "ssru"}, "training.discriminator.*got 'ssru'"),
])  # fmt: skip
def test_bad_settings_are_named(settings: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    changed = {f"training.{name}": value for name, value in settings.items()}
    with pytest.raises(ConfigError, match=message):
        run(override(configured(**ADVERSARIAL), changed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_process_draws_and_judges() -> None:
    assert choose(Training(objective="adversarial", processes=4), 99_999, 8).processes == 1
