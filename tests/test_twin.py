"""Every architecture finds nearly the same loss and gradient in bf16, and the weights stay in fp32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import conformance
from antiphon.core.batch import Batch
from antiphon.core.config import Model
from antiphon.training.optimizers import Flat
from antiphon.training.twin import Twin

MODELS = [*conformance.combinations(), *conformance.variants()]


def found(network: conformance.Seq2Seq, batch: Batch) -> Tensor:
    """The loss, after a backward pass."""
    loss = network.loss(batch, smoothing=0.1)
    loss.total.backward()
    return loss.total.detach().float()


@pytest.mark.parametrize("config", MODELS, ids=conformance.label)
def test_bf16_is_near_fp32(config: Model) -> None:
    network, batch = conformance.made(config)
    flat = Flat(network)
    twin = Twin(network, flat)
    twin.learn()
    wanted = found(network, batch)
    gradient = flat.gradient.clone()
    flat.zero()
    near = found(twin.model, batch)
    twin.teach()
    assert near.item() == pytest.approx(wanted.item(), rel=0.02)
    assert torch.cosine_similarity(gradient, flat.gradient, 0) > 0.98
    assert not twin.flat.gradient.any()


def test_weights_stay_in_fp32() -> None:
    network, batch = conformance.made(conformance.model("transformer", "transformer"))
    flat = Flat(network)
    twin = Twin(network, flat)
    before = flat.weights.clone()
    twin.learn()
    found(twin.model, batch)
    twin.teach()
    assert flat.weights.dtype == flat.gradient.dtype == torch.float32
    assert torch.equal(flat.weights, before)
    assert twin.flat.weights.dtype == torch.bfloat16
    assert torch.equal(twin.flat.weights, before.bfloat16())
    assert network.head.weight is network.target.embedding.weight
    assert twin.model.head.weight is twin.model.target.embedding.weight


def test_what_an_interrupted_step_left_is_forgotten() -> None:
    network, batch = conformance.made(conformance.model("gru", "gru"))
    flat = Flat(network)
    twin = Twin(network, flat)
    found(twin.model, batch)
    twin.learn()
    twin.teach()
    assert not flat.gradient.any()
