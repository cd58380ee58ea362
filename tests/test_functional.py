"""The fast mathematics equals the plain mathematics, in values and in gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from antiphon.core.batch import PAD
from antiphon.models import functional
from antiphon.models.functional import (
    add_dropout,
    attend,
    attend_fused,
    attend_plainly,
    attend_unseen,
    dropout,
    hide,
    join_heads,
    kept,
    linear_cross_entropy,
    real_rows,
    relu_dropout,
    reverse,
    scan,
    softmax_,
    split_heads,
    split_heads_plainly,
    through_softmax_,
)


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


def test_the_chunked_loss_knows_what_a_float_cannot_hold() -> None:
    hidden, bias, labels = torch.tensor([[1.0], [-1.0]]), torch.zeros(2), torch.tensor([1, 1])
    weight = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    total = linear_cross_entropy(hidden, weight, bias, labels)
    assert total.item() == pytest.approx(400.0)
    total.backward()
    assert torch.allclose(weight.grad, torch.tensor([[1.0], [-1.0]]))


def test_the_chunked_loss_in_bf16_is_near() -> None:
    torch.manual_seed(1)
    leaves = [torch.randn(size, requires_grad=True) for size in ((600, 16), (50, 16), (50,))]
    twins = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves]
    labels = torch.randint(0, 50, (600,))
    total, near = (linear_cross_entropy(*parts, labels, smoothing=0.1) for parts in (leaves, twins))
    assert near.dtype == torch.float32
    assert near.item() == pytest.approx(total.item(), rel=0.01)
    total.backward()
    near.backward()
    for leaf, twin in zip(leaves, twins, strict=True):
        assert torch.nn.functional.cosine_similarity(leaf.grad.flatten(), twin.grad.flatten().float(), 0) > 0.999


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


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("share", "training"), [(0.0, True), (0.3, True), (0.3, False)])
def test_relu_with_dropout_is_one_after_the_other(share: float, training: bool, kind: torch.dtype) -> None:
    torch.manual_seed(1)
    values, slope, results = torch.randn(7, 33, dtype=kind), torch.randn(7, 33, dtype=kind), []
    values[0, 0] = 0.0
    for both in (relu_dropout, lambda x, *rest: dropout(F.relu(x), *rest)):
        torch.manual_seed(2)
        leaf = values.clone().requires_grad_()
        result = both(leaf, share, training)
        result.backward(slope)
        results.append((result.detach(), leaf.grad))
    for fast, plain in zip(*results, strict=True):
        assert torch.allclose(fast, plain, rtol=1e-2 if kind == torch.bfloat16 else 1e-6)
    assert bool((results[0][0] == 0).any())


def test_relu_with_dropout_keeps_its_result_alone() -> None:
    result = relu_dropout(torch.randn(9, 9, requires_grad=True), 0.3, True)
    assert [saved.data_ptr() for saved in result.grad_fn.saved_tensors] == [result.data_ptr()]


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


@pytest.mark.parametrize("length", [1, 5, 15, 16, 40])
def test_softmax_in_place_is_softmax(length: int) -> None:
    torch.manual_seed(1)
    scores, slope = torch.randn(2, 3, length) * 30, torch.randn(2, 3, length)
    scores[0, 0, 1:] = torch.finfo(torch.float32).min
    leaf = scores.clone().requires_grad_()
    wanted = leaf.softmax(-1)
    wanted.backward(slope)
    found = softmax_(scores)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert found[0, 0, 1:].eq(0).all()
    assert torch.allclose(through_softmax_(slope, found), leaf.grad, atol=1e-6)


@pytest.mark.parametrize("lengths", [(3, 5), (18, 20), (1, 4)])
def test_attention_is_torchs_and_its_plain_version(lengths: tuple[int, int]) -> None:
    torch.manual_seed(1)
    steps, length = lengths
    added = hide(torch.rand(2, 1, steps, length) < 0.7, torch.float32)
    added[..., 0] = 0.0
    results = []
    for kind in ("fast", "plain", "torch"):
        torch.manual_seed(2)
        leaves = [torch.randn(2, 3, size, 4, requires_grad=True) for size in (steps, length, length)]
        if kind == "torch":
            context, weights = attend_fused(*leaves, added, 0.0, True), None
        else:
            context, weights = (attend if kind == "fast" else attend_plainly)(*leaves, added, 0.0, True)
        loss = (context * torch.arange(4)).sum()
        loss.backward()
        results.append([context.detach(), *(leaf.grad for leaf in leaves)])
        assert weights is None or torch.allclose(weights @ leaves[2], context, atol=1e-5)
    for fast, *others in zip(*results, strict=True):
        assert all(torch.allclose(fast, other, atol=1e-5) for other in others)


def test_attention_without_weights_is_fused_off_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [torch.randn(2, 3, size, 4) for size in (3, 5, 5)]
    assert torch.allclose(attend_unseen(*parts, None, 0.0, False), attend_fused(*parts, None, 0.0, False), atol=1e-6)
    monkeypatch.setattr(functional, "attend_fused", lambda query, *rest: query)
    elsewhere = [part.to("meta") for part in parts]
    assert attend_unseen(*elsewhere, None, 0.0, False) is elsewhere[0]


@pytest.mark.parametrize("added", [(2, 3), (1, 2, 3)], ids=["broadcast", "whole"])
@pytest.mark.parametrize("length", [5, 17])
def test_attention_has_the_right_gradient_in_double_precision(length: int, added: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    sizes = (1, 2, 3, 4), (1, 2, length, 4), (1, 2, length, 4), (*added, length)
    leaves = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]

    def dropped(*parts: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        return attend(*parts, 0.5, True)

    assert torch.autograd.gradcheck(lambda *parts: attend(*parts, 0.0, True), leaves)
    assert torch.autograd.gradcheck(dropped, leaves)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_heads_are_split_and_joined_as_by_views(parts: int) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 5, parts * 12, dtype=torch.float64, requires_grad=True)
    for fast, plain in zip(split_heads(x, 3, parts), split_heads_plainly(x, 3, parts), strict=True):
        assert torch.equal(fast, plain)
        assert fast.is_contiguous()
    assert torch.autograd.gradcheck(lambda x: split_heads(x, 3, parts), [x])
    whole = split_heads(x[..., :12], 3, 1)[0]
    assert torch.equal(join_heads(whole, x.dtype), x[..., :12])
    assert torch.autograd.gradcheck(lambda x: join_heads(x, x.dtype), [whole.detach().requires_grad_()])


def test_heads_are_in_fp32_at_least() -> None:
    x = torch.randn(2, 5, 12).bfloat16().requires_grad_()
    (split,) = split_heads(x, 3, 1)
    assert split.dtype == torch.float32
    joined = join_heads(split, torch.bfloat16)
    assert torch.equal(joined, x)
    joined.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_adding_what_was_dropped_out_is_both_in_one() -> None:
    x, y = torch.randn(64, 64, requires_grad=True), torch.randn(64, 64, requires_grad=True)
    results = []
    for work in (lambda: add_dropout(x, y, 0.3, True), lambda: x + dropout(y, 0.3, True)):
        torch.manual_seed(1)
        results.append([z := work(), *torch.autograd.grad(z.square().sum(), (x, y))])
    for fused, plain in zip(*results, strict=True):
        assert torch.allclose(fused, plain, atol=1e-5)
    assert torch.equal(add_dropout(x, y, 0.3, False), x + y)


def test_a_dropout_mask_keeps_the_mean_in_every_precision() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        mask = kept(torch.empty(1000, 1000, dtype=dtype), 0.3)
        assert mask.dtype == dtype
        assert mask.float().mean().item() == pytest.approx(1.0, abs=0.01)
