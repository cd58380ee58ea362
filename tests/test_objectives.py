"""Losses are what their definitions say; accumulation and splitting change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from antiphon.core.batch import BOS, Batch, pad
from antiphon.core.config import Training
from antiphon.models.seq2seq import Seq2Seq, build
from antiphon.training.objectives import Fed, Likelihood, r_drop, sampled
from antiphon.training.optimizers import Flat
from antiphon.training.runner import Local, Step, cut, size
from runs import configured


def model(kind: str, **more: Any) -> Seq2Seq:
    return build(configured(kind, **more).model, 11, 12, seed=1)


def batch(rows: int = 5) -> Batch:
    draw = torch.Generator().manual_seed(rows)
    lengths = [2 + row % 3 for row in range(rows)]
    sequences = [[*torch.randint(4, 11, (length,), generator=draw).tolist(), 3] for length in lengths]
    return Batch(pad(sequences), pad([[*s[-2::-1], 3] for s in sequences]))


def test_likelihood_is_the_models_loss() -> None:
    network = model("gru").eval()
    objective = Likelihood(Training(label_smoothing=0.2))
    found = objective({"model": network}, batch(), 0.0)["model"]
    expected = network.loss(batch(), smoothing=0.2)
    assert found.count == expected.count == batch().count
    torch.testing.assert_close(found.total, expected.total)


def test_r_drop_by_hand() -> None:
    network, weight = model("transformer", model__dropout=0.4).train(), 3.0
    torch.manual_seed(5)
    loss = r_drop(network, batch(), weight, 0.0, 0.0)
    torch.manual_seed(5)
    twice = batch().rows(torch.arange(5).repeat(2))
    log_probs = network.log_probs(*network(twice))
    picked = log_probs.gather(2, twice.labels_BT[..., None])[..., 0]
    nats = -(picked * twice.target.mask_BL).sum() / 2
    first, second = log_probs[:5], log_probs[5:]
    kl = torch.nn.functional.kl_div
    apart = kl(first, second, log_target=True, reduction="none") + kl(second, first, log_target=True, reduction="none")
    divergence = (apart.sum(-1) * batch().target.mask_BL).sum() / 2
    assert divergence > 0.01
    torch.testing.assert_close(loss.total, nats + weight * divergence)
    assert loss.count == batch().count


def test_r_drop_without_dropout_is_the_plain_loss() -> None:
    network = model("gru").eval()
    torch.testing.assert_close(
        r_drop(network, batch(), 5.0, 0.1, 0.0).total, network.loss(batch(), smoothing=0.1).total
    )


def test_r_drop_with_a_copy_head_is_finite() -> None:
    network = model("gru", model__head="copy").train()
    plain = batch()
    copying = Batch(
        plain.source, plain.target, {"copy": pad([[12, *[5] * (int(n) - 1)] for n in plain.source.lengths_B])}
    )
    loss = r_drop(network, copying, 1.0, 0.1, 0.5)
    loss.total.backward()
    assert loss.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("kind", ["gru", "transformer", "conv", "ssru"])
def test_scheduled_sampling_takes_a_share_of_inputs_from_the_model(kind: str) -> None:
    network = model(kind).eval()
    nothing, all_of_it = sampled(network, batch(40), 0.0), sampled(network, batch(40), 1.0)
    assert torch.equal(nothing.inputs_BT, batch(40).inputs_BT)
    assert torch.equal(all_of_it.labels_BT, batch(40).labels_BT)
    assert (all_of_it.inputs_BT[:, 0] == BOS).all()
    assert not torch.equal(all_of_it.inputs_BT, batch(40).inputs_BT)


def test_a_recurrent_decoder_reads_what_it_said_itself() -> None:
    network = model("gru").eval()
    read = sampled(network, batch(), 1.0).inputs_BT
    memory = network.encode(batch().source)
    state, token = network.start(memory), torch.full((5, 1), BOS)
    for step in range(read.shape[1]):
        assert torch.equal(token[:, 0], read[:, step])
        steps, state = network.decode(token, memory, state)
        token = network.log_probs(steps, memory)[:, -1:].argmax(-1)


def test_a_parallel_decoder_reads_what_it_said_after_the_right_tokens() -> None:
    network = model("transformer").eval()
    read = sampled(network, batch(), 1.0).inputs_BT
    said = network.log_probs(*network(batch())).argmax(-1)
    assert torch.equal(read[:, 1:], said[:, :-1])


def test_rows_of_a_fed_batch_keep_its_inputs() -> None:
    fed = sampled(model("gru").eval(), batch(), 1.0)
    assert isinstance(fed, Fed)
    assert torch.equal(fed.rows(torch.tensor([3])).inputs_BT[0], fed.inputs_BT[3, : int(fed.target.lengths_B[3])])


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_accumulation_and_splitting_are_exact(kind: str) -> None:
    network = model(kind, model__dropout=0.0).train().double()
    flat, runner = Flat(network), Local(Training())
    objective = Likelihood(Training(label_smoothing=0.1))

    def gradient(batches: list[Batch], limit: int | None = None) -> tuple[torch.Tensor, float, int]:
        flat.zero()
        loss = runner.accumulate(objective, {"model": network}, Step(batches, (1, 1), 0.0, limit))["model"]
        return flat.gradient.clone(), float(loss.total), loss.count

    whole = gradient([batch(9)])
    parts = gradient([batch(9).rows(torch.arange(0, 2)), batch(9).rows(torch.arange(2, 9))])
    split = gradient([batch(9)], limit=size(batch(9)) // 3)
    for other in (parts, split):
        torch.testing.assert_close(other[0], whole[0])
        assert other[1] == pytest.approx(whole[1])
        assert other[2] == whole[2] == batch(9).count


def test_pieces_stay_within_the_limit() -> None:
    whole = batch(9)
    pieces = list(cut(whole, 20))
    assert sum(len(piece.labels_BT) for piece in pieces) == 9
    assert all(size(piece) <= 20 for piece in pieces)
    assert [len(piece.labels_BT) for piece in cut(whole, 1)] == [1] * 9
    assert list(cut(whole, None)) == [whole]


def test_each_piece_draws_from_its_own_seed() -> None:
    network = model("transformer", model__dropout=0.5).train()
    flat, runner, objective = Flat(network), Local(Training()), Likelihood(Training())

    def total(seeds: tuple[int, int]) -> float:
        flat.zero()
        return float(runner.accumulate(objective, {"model": network}, Step([batch(), batch()], seeds))["model"].total)

    assert total((1, 2)) == total((1, 2))
    assert len({total((1, 2)), total((1, 3)), total((2, 2))}) == 3
