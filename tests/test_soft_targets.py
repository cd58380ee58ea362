"""The chunked cross-entropy against teachers is the plain one, value and gradients, for every number of rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from antiphon.core.batch import PAD, Memory, Steps
from antiphon.models.distillation import (
    Projection,
    Said,
    mixed_cross_entropy,
    soft_cross_entropy,
    soft_cross_entropy_plainly,
)
from antiphon.models.heads import CopyHead, VocabularyHead

SIZE = 37


def projection(rows: int, width: int, seed: int, *, learns: bool = False) -> Projection:
    draw = torch.Generator().manual_seed(seed)
    shapes = [(rows, width), (SIZE, width), (SIZE,)]
    tensors = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    return Projection(*(tensor.requires_grad_(learns) for tensor in tensors))


def gradients(total: Tensor, student: Projection) -> list[Tensor]:
    return list(torch.autograd.grad(3 * total, list(student)))


@pytest.mark.parametrize("rows", [1, 63, 64, 200, 515])
@pytest.mark.parametrize(("teachers", "temperature"), [(1, 1.0), (1, 2.5), (3, 1.0), (2, 0.5)])
def test_chunks_give_the_plain_sum_and_gradients(rows: int, teachers: int, temperature: float) -> None:
    student = projection(rows, 8, 1, learns=True)
    taught = [projection(rows, 5 + number, 2 + number) for number in range(teachers)]
    plain = soft_cross_entropy_plainly(student, taught, temperature=temperature)
    chunked = soft_cross_entropy(student, taught, temperature=temperature, rows=128)
    torch.testing.assert_close(chunked, plain)
    for one, other in zip(gradients(chunked, student), gradients(plain, student), strict=True):
        torch.testing.assert_close(one, other)


def test_a_student_that_is_its_teacher_has_its_entropy_and_no_gradient() -> None:
    student = projection(70, 8, 1, learns=True)
    total = soft_cross_entropy(student, [Projection(*(part.detach() for part in student))])
    chances = (student.hidden_ND @ student.weight_VD.T + student.bias_V).softmax(1)
    torch.testing.assert_close(total, -(chances * chances.log()).sum())
    for gradient in gradients(total, student):
        assert gradient.abs().max() < 1e-12


def test_bf16_is_close() -> None:
    student, teacher = projection(70, 8, 1, learns=True), projection(70, 8, 2)
    rough = Projection(*(part.detach().bfloat16().requires_grad_() for part in student))
    total = soft_cross_entropy(rough, [Projection(*(part.bfloat16() for part in teacher))])
    assert total.dtype == torch.float32
    exact = soft_cross_entropy_plainly(student, [teacher])
    torch.testing.assert_close(total.double(), exact, rtol=0.01, atol=0)
    for one, other in zip(gradients(total, rough), gradients(exact, student), strict=True):
        assert one.dtype == torch.bfloat16
        assert (one.double() - other).norm() < 0.03 * other.norm()


def test_a_hopeless_token_costs_a_finite_price() -> None:
    student = Projection(torch.zeros(1, 1), torch.zeros(2, 1), torch.tensor([0.0, -300.0]))
    teacher = Projection(torch.zeros(1, 1), torch.zeros(2, 1), torch.tensor([-300.0, 0.0]))
    assert float(soft_cross_entropy(student, [teacher])) == pytest.approx(300.0)


# Students that copy

COPIES = [[4, 38, 6, 3], [37, 39, 7, 3]]


def said(head: type[VocabularyHead], seed: int, *, learns: bool = False) -> Said:
    """A head over steps that look at four source tokens."""
    draw = torch.Generator().manual_seed(seed)
    made = head(torch.nn.Parameter(torch.randn(SIZE, 8, generator=draw)))
    hidden = torch.randn(2, 9, 8, generator=draw).requires_grad_(learns)
    weights = torch.rand(2, 9, 4, generator=draw).softmax(2).requires_grad_(learns)
    memory = Memory(torch.zeros(2, 4, 8), torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, 8), torch.tensor(COPIES))
    return Said(made, Steps(hidden, weights), memory)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("teachers", [[CopyHead], [VocabularyHead], [CopyHead, VocabularyHead]])
def test_pieces_of_mixtures_give_the_plain_sum_and_gradients(teachers: list[Any], temperature: float) -> None:
    """By hand: probabilities to a power, divided by their sum, and zero where a teacher cannot say a word."""
    labels = torch.full((2, 9), 5)
    labels[1, 6:] = PAD
    student = said(CopyHead, 1, learns=True)
    taught = [said(head, 2 + number) for number, head in enumerate(teachers)]
    learns = [student.steps.hidden_BTD, student.steps.weights_BTS, *student.head.parameters()]

    def spread(each: Said) -> Tensor:
        powers = each.log_probs(slice(None)).exp() ** (1 / temperature)
        chances = powers if temperature == 1 else powers / powers.sum(2, keepdim=True)
        return torch.nn.functional.pad(chances, (0, SIZE + 3 - chances.shape[2]))

    wanted = torch.stack([spread(each).detach() for each in taught]).mean(0)
    plain = -(wanted * spread(student).log().clamp_min(-100))[labels != PAD].sum()
    found = mixed_cross_entropy(student, taught, labels, temperature=temperature, rows=4)
    torch.testing.assert_close(found, plain)
    for one, other in zip(torch.autograd.grad(found, learns), torch.autograd.grad(plain, learns), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_copying_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    student = said(CopyHead, 1, learns=True)
    found = mixed_cross_entropy(student, [student], torch.full((2, 9), 5))
    [gradient] = torch.autograd.grad(found, [student.head.weight])
    assert gradient.abs().max() < 1e-5


def test_a_pair_does_not_hear_of_the_words_of_others_at_a_temperature() -> None:
    """Other sources of the batch have words that this one lacks, whose chances are 0 to whatever power."""
    student, teacher, labels = said(CopyHead, 1), said(CopyHead, 2), torch.full((2, 9), 5)
    each = [
        mixed_cross_entropy(_row(student, row), [_row(teacher, row)], labels[:1], temperature=8.0) for row in range(2)
    ]
    together = mixed_cross_entropy(student, [teacher], labels, temperature=8.0)
    torch.testing.assert_close(together, each[0] + each[1], rtol=1e-6, atol=0)


def _row(one: Said, row: int) -> Said:
    index = torch.tensor([row])
    steps = Steps(one.steps.hidden_BTD[index], one.steps.weights_BTS[index])
    return Said(one.head, steps, one.memory.rows(index))
