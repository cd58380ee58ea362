"""The chunked cross-entropy against teachers is the plain one, value and gradients, for every number of rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from antiphon.models.distillation import Projection, soft_cross_entropy, soft_cross_entropy_plainly

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
