"""Flat parameters are the same as plain ones; schedules; averages."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from antiphon.core.config import Training
from antiphon.core.errors import TrainingError
from antiphon.training import optimizers
from antiphon.training.optimizers import Flat, clip, rate_at
from antiphon.training.regularizers import Average, Last, lent, penalize


class Tied(nn.Module):
    """Two layers, an embedding tied to the output, a frozen matrix, and sizes that are no multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.middle = nn.Linear(5, 5)
        self.output = nn.Linear(5, 7)
        self.output.weight = self.embedding.weight
        self.frozen = nn.Linear(5, 5)
        self.frozen.requires_grad_(False)
        self.frozen.weight.requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.output(torch.tanh(self.frozen(self.middle(self.embedding(ids)))))


def twins() -> tuple[Tied, Tied]:
    torch.manual_seed(3)
    first, second = Tied(), Tied()
    second.load_state_dict(first.state_dict())
    return first, second


def plain(model: Tied, settings: Training) -> torch.optim.Optimizer:
    """The optimizer that anybody would write."""
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices, rest = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim < 2]
    betas, rate = (settings.beta1, settings.beta2), settings.rate or 0.0
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    match settings.optimizer:
        case "adam":
            return torch.optim.Adam(trained, rate, betas)
        case "adamw":
            return torch.optim.AdamW(groups, rate, betas)
        case "rmsprop":
            return torch.optim.RMSprop(trained, rate, momentum=settings.momentum)
        case "sgd":
            return torch.optim.SGD(trained, rate, settings.momentum)
    return torch.optim.Adafactor(trained, rate)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd", "adafactor"])
@pytest.mark.parametrize("penalty", [0.0, 0.01])
def test_flat_updates_equal_plain_ones(name: Any, penalty: float) -> None:
    settings = Training(optimizer=name, rate=0.01, clip=0.5, weight_decay=0.1, l1=penalty, l2=2 * penalty)
    ours, theirs = twins()
    flat = Flat(ours)
    optimizer, reference = optimizers.make(flat, settings), plain(theirs, settings)
    for step in range(8):
        torch.manual_seed(step)
        ids, labels = torch.randint(7, (6,)), torch.randint(7, (6,))
        flat.zero()
        nn.functional.cross_entropy(ours(ids), labels, reduction="sum").backward()
        if penalty:
            flat.gradient.div_(6)
            penalize(flat, settings)
        norm = clip(flat.gradient, settings.clip, 1 if penalty else 6)
        optimizer.step()
        reference.zero_grad()
        loss = nn.functional.cross_entropy(theirs(ids), labels)
        matrices = [p for p in theirs.parameters() if p.requires_grad and p.ndim > 1]
        loss = loss + sum(settings.l1 * p.abs().sum() + settings.l2 / 2 * (p**2).sum() for p in matrices)
        loss.backward()
        expected = nn.utils.clip_grad_norm_([p for p in theirs.parameters() if p.requires_grad], settings.clip)
        assert norm == pytest.approx(float(expected), rel=1e-5)
        reference.step()
    for (key, mine), theirs_value in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs_value, rtol=1e-5, atol=1e-6, msg=key)


def test_tied_and_frozen_parameters_stay_so() -> None:
    model, before = twins()
    flat = Flat(model)
    assert model.output.weight is model.embedding.weight
    assert flat.matrices.numel() % 16 == 0
    assert sum(p.numel() for p in flat.parameters) == 7 * 5 + 5 * 5 + 5 + 7
    model(torch.tensor([1, 2])).sum().backward()
    optimizers.make(flat, Training(rate=0.1)).step()
    torch.testing.assert_close(model.frozen.weight, before.frozen.weight)
    assert not torch.equal(model.output.weight, before.output.weight)
    assert model.output.weight.data_ptr() == model.embedding.weight.data_ptr()


def test_state_dict_goes_out_and_in() -> None:
    model, other = twins()
    flat = Flat(model)
    flat.weights.add_(1.0)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.middle.bias, model.middle.bias)
    model.load_state_dict({key: torch.zeros_like(value) for key, value in other.state_dict().items()})
    assert not any(parameter.any() for parameter in flat.parameters)
    assert flat.weights.data_ptr() == model.embedding.weight.data_ptr()


def test_gradients_are_added_in_place() -> None:
    model, _ = twins()
    flat = Flat(model)
    for _ in range(2):
        model(torch.tensor([1])).sum().backward()
    assert flat.gradient[-16:-9].tolist() == [2.0] * 7
    flat.zero()
    assert model.middle.weight.grad is not None
    assert not model.middle.weight.grad.any()


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(TrainingError, match="nothing to train"):
        Flat(nn.Linear(2, 2).requires_grad_(False))


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd", "adafactor"])
def test_optimizer_memory_round_trip(name: Any) -> None:
    settings = Training(optimizer=name, rate=0.01)
    ours, theirs = twins()
    pairs = [(flat, optimizers.make(flat, settings)) for flat in (Flat(ours), Flat(theirs))]

    def step(flat: Flat, optimizer: optimizers.Optimizer) -> None:
        flat.gradient.copy_(torch.linspace(-1, 1, flat.gradient.numel()))
        optimizer.step()

    for _ in range(3):
        step(*pairs[0])
    pairs[1][0].weights.copy_(pairs[0][0].weights)
    optimizers.restore(pairs[1][1], optimizers.tensors(pairs[0][1]))
    for pair in pairs:
        step(*pair)
    assert torch.equal(pairs[0][0].weights, pairs[1][0].weights)


def test_optimizer_memory_of_another_model_is_refused() -> None:
    flat = Flat(twins()[0])
    optimizer = optimizers.make(flat, Training(optimizer="adam", rate=0.01))
    with pytest.raises(TrainingError, match="does not fit"):
        optimizers.restore(optimizer, {"0.exp_avg": torch.zeros(3)})


def test_a_norm_that_is_not_finite_changes_nothing() -> None:
    gradient = torch.tensor([1.0, math.inf])
    assert math.isinf(clip(gradient, 1.0, 2))
    assert gradient.tolist() == [1.0, math.inf]


def test_schedules() -> None:
    def rates(schedule: Any, *points: tuple[int, float]) -> list[float]:
        return [rate_at(Training(rate=1.0, warmup=4, schedule=schedule), *point) for point in points]

    assert rates("constant", (1, 0.0), (4, 0.0), (9, 0.9)) == [0.25, 1.0, 1.0]
    assert rates("inverse_sqrt", (2, 0.0), (4, 0.0), (16, 0.5)) == [0.5, 1.0, 0.5]
    assert rates("cosine", (4, 0.0), (9, 0.5), (9, 1.0)) == pytest.approx([1.0, 0.5, 0.0])
    assert rates("plateau", (1, 0.0), (9, 0.5)) == [0.25, 1.0]


def test_warm_up_fits_itself_to_the_time() -> None:
    settings = Training(rate=1.0, warmup=1000, schedule="constant")
    assert rate_at(settings, 10, 0.05, hurry=0.05) == pytest.approx(0.5)
    assert rate_at(settings, 10, 0.05) == pytest.approx(0.01)


def test_averages_of_weights() -> None:
    model, _ = twins()
    flat = Flat(model)
    start = flat.weights.clone()
    average, last = Average(flat, 0.5), Last(2)
    for value in (1.0, 2.0, 4.0):
        flat.weights.fill_(value)
        average.update()
        last.add(flat.weights)
    expected, first = start, 2 / 11
    for value, decay in ((1.0, first), (2.0, 3 / 12), (4.0, 4 / 13)):
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(average.weights, expected)
    assert last.mean()[0] == 3.0


def test_lent_weights_come_back_after_an_error() -> None:
    model, _ = twins()
    flat = Flat(model)
    before = flat.weights.clone()

    def failing() -> None:
        with lent(flat, torch.zeros_like(before)):
            assert not model.middle.weight.any()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        failing()
    assert torch.equal(flat.weights, before)


def test_the_first_step_does_not_import_the_compiler() -> None:
    code = """
import sys, torch
from antiphon.core.config import Training
from antiphon.training import optimizers
flat = optimizers.Flat(torch.nn.Linear(2, 2))
optimizers.make(flat, Training(rate=0.1)).step()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
