"""What makes recurrent models fast is what it replaces: outputs and gradients, whole sequences and single steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from antiphon.models import additive
from antiphon.models.additive import additive_scores, additive_scores_plainly, tanh
from antiphon.models.functional import scan

F64 = torch.float64


def noise(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Reproducible tensors that want gradients."""
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=draw, dtype=dtype).requires_grad_() for shape in shapes]


def scan_plainly(forget_BTD: Tensor, input_BTD: Tensor, start_BD: Tensor) -> Tensor:
    """The recurrence, step by step."""
    states = [start_BD]
    for step in range(input_BTD.shape[1]):
        states.append(forget_BTD[:, step] * states[-1] + input_BTD[:, step])
    return torch.stack(states[1:], dim=1)


def same(fast: Callable[..., Tensor], plain: Callable[..., Tensor], tensors: list[Tensor]) -> None:
    """Outputs and all gradients agree to 1e-5 of the greatest."""
    slope = torch.cos(torch.arange(plain(*tensors).numel())).view(plain(*tensors).shape)
    found, wanted = (
        [part(*tensors), *torch.autograd.grad((part(*tensors) * slope).sum(), tensors)] for part in (fast, plain)
    )
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-5 * max(1.0, other.abs().max().item())


def scan_inputs(rows: int, steps: int, width: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    forget, values, start = noise((rows, steps, width), (rows, steps, width), (rows, width), dtype=dtype)
    return [torch.sigmoid(forget).detach().requires_grad_(), values, start]


@pytest.mark.parametrize("steps", [1, 2, 7, 33])
def test_a_scan_is_its_recurrence(steps: int) -> None:
    same(scan, scan_plainly, scan_inputs(3, steps, 5))


def test_a_parallel_scan_is_its_recurrence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for steps in (1, 2, 7, 33):
        same(scan, scan_plainly, scan_inputs(3, steps, 5))


def test_the_gradient_of_a_scan_is_right() -> None:
    assert torch.autograd.gradcheck(scan, scan_inputs(2, 4, 3, F64))


def test_a_scan_in_pieces_is_the_scan() -> None:
    forget, values, start = scan_inputs(2, 6, 3)
    first = scan(forget[:, :4], values[:, :4], start)
    second = scan(forget[:, 4:], values[:, 4:], first[:, -1])
    assert torch.equal(torch.cat([first, second], 1), scan(forget, values, start))


@pytest.mark.parametrize("start_kind", [torch.bfloat16, torch.float32])
def test_a_scan_of_bf16_adds_up_in_fp32(start_kind: torch.dtype) -> None:
    forget, values, start = scan_inputs(2, 60, 3)
    low = [forget.detach().bfloat16(), values.detach().bfloat16(), start.detach().to(start_kind)]
    exact = scan_plainly(*(part.float() for part in low))
    found = scan(*(part.requires_grad_() for part in low))
    assert found.dtype == start_kind
    assert torch.allclose(found.float(), exact, rtol=0.004 if start_kind == torch.bfloat16 else 0, atol=1e-5)
    gradients = torch.autograd.grad(found.sum(), low)
    assert [gradient.dtype for gradient in gradients] == [part.dtype for part in low]


def test_bf16_goes_by_way_of_fp32() -> None:
    low = [part.detach().bfloat16() for part in noise((2, 3, 8), (2, 4, 8), (8,))]
    scores = additive_scores(*low)
    assert scores.dtype == torch.bfloat16
    assert torch.allclose(scores, additive_scores_plainly(*(part.float() for part in low)).bfloat16(), rtol=0.01)
    assert torch.allclose(tanh(low[0]), torch.tanh(low[0].float()).bfloat16(), rtol=0.01)


@pytest.mark.parametrize("cache", [1, 100, 1 << 18])
@pytest.mark.parametrize("queries", [1, 4])
def test_additive_scores_are_their_formula_however_they_are_cut(
    cache: int, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(additive, "CACHE", cache)
    same(additive_scores, additive_scores_plainly, noise((5, queries, 6), (5, 3, 6), (6,)))


def test_the_gradient_of_additive_scores_is_right() -> None:
    assert torch.autograd.gradcheck(additive_scores, noise((3, 2, 4), (3, 5, 4), (4,), dtype=F64))


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("cache", [1, 1 << 18])
def test_scores_that_see_the_past_are_their_formula(cache: int, features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(additive, "CACHE", cache)
    parts = noise((6, 4), (6, 5, features), (3, 5, 4), (features, 4), (4,), dtype=F64)

    def formula(query: Tensor, seen: Tensor, keys: Tensor, weight: Tensor, vector: Tensor) -> Tensor:
        each = [[torch.tanh(query[n] + keys[n // 2] + seen[n] @ weight) @ vector for n in (2 * b, 2 * b + 1)]
                for b in range(3)]  # fmt: skip
        return torch.stack([torch.stack(rows) for rows in each])

    same(additive.seeing_scores, formula, parts)
    same(additive.seeing_scores_plainly, formula, parts)
    assert torch.autograd.gradcheck(additive.seeing_scores, parts)


def test_tanh_is_torchs() -> None:
    (values,) = noise((1000,))
    same(tanh, torch.tanh, [values])
    same(tanh, torch.tanh, noise((9,), dtype=F64))
    wide = torch.tensor([-1e4, -20.0, -1e-6, 0.0, 1e-6, 20.0, 1e4])
    assert torch.allclose(tanh(wide), torch.tanh(wide), rtol=0, atol=2e-7)
