"""Every architecture finds nearly the same loss and gradient in bf16, and the weights stay in fp32."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

import conformance
from antiphon.core.batch import Batch
from antiphon.core.config import Config, Model
from antiphon.core.errors import ConfigError, TrainingError
from antiphon.core.keys import override
from antiphon.training import runner, twin
from antiphon.training.optimizers import Flat
from antiphon.training.runner import Local
from antiphon.training.twin import Twin, compiled


def found(network: conformance.Seq2Seq, batch: Batch) -> Tensor:
    """The loss, after a backward pass."""
    loss = network.loss(batch, smoothing=0.1)
    loss.total.backward()
    return loss.total.detach().float()


@pytest.mark.parametrize("config", conformance.architectures())
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


EACH = [
    conformance.model("transformer", "transformer"),
    conformance.model("lstm", "gru", "additive"),
    conformance.model("rnn", "rnn", "coverage"),
    conformance.model("conv", "conv", "dot", positions="rotary"),
    conformance.model("gru", "ssru", "general", "copy"),
    conformance.model("conformer", "gru", "location"),
    conformance.model("transformer", "lstm", "none", knowledge="graph"),
]
"""Every kind of layer once."""


TRACED = [pytest.param(config, "eager", id=conformance.label(config)) for config in EACH[:2]]
QUIET = pytest.mark.filterwarnings("default")  # the compiler calls what PyTorch has deprecated
TRULY = [
    pytest.param(config, "inductor", id=conformance.label(config), marks=[pytest.mark.slow, QUIET]) for config in EACH
]


@pytest.mark.parametrize(("config", "backend"), [*TRACED, *TRULY])
def test_compiled_layers_find_the_same_gradient(config: Model, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # pytest would have it write a book
    monkeypatch.setattr(twin, "BACKEND", backend)
    torch.compiler.reset()
    network, batch = conformance.made(config)
    flat = Flat(network)
    wanted, gradient = found(network, batch), flat.gradient.clone()
    other = compiled(network)
    for rows in ([0, 1, 2], [1]):  # a compiled layer serves batches of other sizes
        flat.zero()
        near = found(other, batch.rows(torch.tensor(rows)))
    flat.zero()
    near = found(other, batch)
    assert near.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(flat.gradient, gradient, atol=1e-4 * float(gradient.abs().max()))
    assert other.encoder.layers[0].mix is not network.encoder.layers[0].mix


def test_a_compiler_that_does_not_work_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: object, inputs: object) -> None:
        raise OSError("no such compiler\nin many lines")

    monkeypatch.setattr(twin, "BACKEND", broken)
    torch.compiler.reset()
    network, _ = conformance.made(conformance.model("gru", "gru"))
    with pytest.raises(TrainingError, match=r"does not work here.*leave out training\.compile"):
        compiled(network)


def test_compiled_layers_learn_and_the_model_itself_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin, "BACKEND", "eager")
    network, _ = conformance.made(conformance.model("gru", "gru"))
    flat = Flat(network)
    config = override(Config(), {"training.compile": True})
    local = Local(config.training)
    local.begin(config, network, flat, "bf16")
    learner = local.players({"model": network})["model"]
    assert learner is local.compiled["model"] is not network
    assert learner.head.weight is local.twins["model"].model.head.weight
    local.close()


def test_objectives_that_draw_answers_are_not_compiled() -> None:
    config = override(Config(), {"training.compile": True, "training.objective": "self-critical", "training.rate": 1.0,
                                 "training.schedule": "constant", "training.reward": "chrf"})  # fmt: skip
    with pytest.raises(ConfigError, match=r"leave out training\.compile"):
        runner.check(config.training)
