"""The fast mathematics equals the plain mathematics, in values and in gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from antiphon.core.batch import PAD
from antiphon.models.functional import dropout, linear_cross_entropy, pick_matmul, real_rows, reverse, scan


def plain_loss(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight, bias), labels, label_smoothing=smoothing, reduction="sum")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [4, 7, 512])
def test_the_chunked_loss_is_the_plain_loss(smoothing: float, rows: int) -> None:
    torch.manual_seed(1)
    hidden, weight, bias = torch.randn(19, 8), torch.randn(30, 8), torch.randn(30)
    labels = torch.randint(0, 30, (19,))
    results = []
    for loss in (
        lambda *t: linear_cross_entropy(*t, labels, smoothing=smoothing, rows=rows),
        lambda *t: plain_loss(*t, labels, smoothing),
    ):
        leaves = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
        total = loss(*leaves)
        (3 * total).backward()
        results.append([total.detach(), *(leaf.grad for leaf in leaves)])
    for fast, plain in zip(*results, strict=True):
        assert torch.allclose(fast, plain, rtol=1e-5, atol=1e-5)


def test_the_chunked_loss_has_the_right_gradient_in_double_precision() -> None:
    torch.manual_seed(1)
    leaves = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((5, 4), (6, 4), (6,))]
    labels = torch.tensor([0, 5, 2, 2, 1])
    assert torch.autograd.gradcheck(lambda *t: linear_cross_entropy(*t, labels, smoothing=0.2, rows=2), leaves)


def test_the_chunked_loss_needs_no_gradient_to_be_right() -> None:
    hidden, weight, bias, labels = torch.randn(5, 4), torch.randn(6, 4), torch.randn(6), torch.arange(5)
    found = linear_cross_entropy(hidden, weight, bias, labels, smoothing=0.1)
    assert torch.allclose(found, plain_loss(hidden, weight, bias, labels, 0.1), atol=1e-5)


def test_real_rows_are_those_with_a_label() -> None:
    assert real_rows(torch.tensor([[4, 3, PAD], [PAD, 5, 3]])).tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(share: float) -> None:
    torch.manual_seed(1)
    x = torch.ones(1001, 1003, requires_grad=True)
    y = dropout(x, share, training=True)
    assert (y == 0).float().mean().item() == pytest.approx(share, abs=0.004)
    assert y.mean().item() == pytest.approx(1.0, abs=0.01)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_outside_training_and_at_zero_is_nothing() -> None:
    x = torch.randn(5, 5)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_dropout_follows_the_seed() -> None:
    x, draws = torch.ones(64, 64), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(dropout(x, 0.5, training=True))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_dropout_masks_are_independent_across_bytes() -> None:
    torch.manual_seed(1)
    kept = dropout(torch.ones(8000, 8), 0.5, training=True) > 0
    correlation = torch.corrcoef(kept.T.float())
    assert (correlation - torch.eye(8)).abs().max() < 0.05


def test_reverse_turns_each_sequence_within_its_length() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False]])
    x = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [9.0]]], requires_grad=True)
    y = reverse(x, mask)
    assert y.squeeze(2).tolist() == [[3, 2, 1], [5, 4, 9]]
    (y * torch.tensor([[[1.0], [10.0], [100.0]], [[1.0], [10.0], [100.0]]])).sum().backward()
    assert x.grad.squeeze(2).tolist() == [[100, 10, 1], [10, 1, 100]]


def test_reversing_twice_makes_the_packed_bidirectional_lstm() -> None:
    torch.manual_seed(1)
    lengths, x = torch.tensor([5, 2, 3]), torch.randn(3, 5, 4)
    mask = torch.arange(5) < lengths[:, None]
    both = torch.nn.LSTM(4, 6, batch_first=True, bidirectional=True)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    wanted, _ = pad_packed_sequence(both(packed)[0], batch_first=True)
    back = torch.nn.LSTM(4, 6, batch_first=True)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    back.load_state_dict({name: getattr(both, f"{name}_reverse") for name in names})
    found = reverse(back(reverse(x, mask))[0], mask)
    assert torch.allclose(found[mask], wanted[..., 6:][mask], atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_the_scan_is_the_loop(length: int) -> None:
    torch.manual_seed(1)
    forget, inputs, start = (torch.rand(s, dtype=torch.float64) for s in ((2, length, 3), (2, length, 3), (2, 3)))
    state, states = start, []
    for step in range(length):
        state = forget[:, step] * state + inputs[:, step]
        states.append(state)
    assert torch.allclose(scan(forget, inputs, start), torch.stack(states, 1))
    leaves = [t.requires_grad_() for t in (forget, inputs, start)]
    assert torch.autograd.gradcheck(scan, leaves)


def test_the_chosen_product_is_exact_to_fp32() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        assert pick_matmul() in ("default", "oneDNN")
        a, b = torch.randn(300, 700), torch.randn(700, 200)
        assert (a @ b - (a.double() @ b.double())).abs().max() < 1e-3
    finally:
        torch.set_float32_matmul_precision(before)
