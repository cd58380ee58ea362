"""Every architecture holds every contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from antiphon.core.batch import EOS, Batch, Memory, Padded, State, pad
from antiphon.core.config import Model
from antiphon.models.seq2seq import Seq2Seq, build
from conformance import CHECKS, DECODERS, ENCODERS, SIZE, combinations, label, made, model, variants

DYNAMIC = torch.export.Dim.DYNAMIC


@pytest.mark.parametrize("config", [*combinations(), *variants()], ids=label)
def test_every_architecture_holds_every_contract(config: Model) -> None:
    network, batch = made(config)
    for check in CHECKS:
        check(network, batch)


class Read(torch.nn.Module):
    """The encoder, tensors in and tensors out, as an exporter wants it."""

    def __init__(self, network: Seq2Seq) -> None:
        super().__init__()
        self.network = network

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        memory = self.network.encode(Padded(source, lengths))
        return memory.states_BSD, memory.mask_BS, memory.summary_BD


class Say(torch.nn.Module):
    """One cached step of the decoder."""

    def __init__(self, network: Seq2Seq) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, tokens: Tensor, states: Tensor, mask: Tensor, summary: Tensor, state: State
    ) -> tuple[Tensor, State]:
        memory = Memory(states, mask, summary)
        steps, state = self.network.decode(tokens, memory, state)
        return self.network.log_probs(steps, memory), state


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # the flat weights that torch keeps in an RNN
@pytest.mark.parametrize("encoder", ENCODERS)
def test_torch_export_reads_at_other_sizes(encoder: str) -> None:
    """Recurrent kernels are unrolled by the exporter, so theirs is one padded length; the lengths within it vary."""
    network = build(model(encoder, "ssru"), SIZE, SIZE).eval()
    source, other = pad([[5, 6, 7, 8, 9, EOS], [8, 9, EOS], [4, EOS]]), pad([[4, 5, 6, 7, 8, EOS], [5, EOS]])
    free = {0: DYNAMIC} if encoder in ("rnn", "lstm", "gru") else {0: DYNAMIC, 1: DYNAMIC}
    if 1 in free:
        other = pad([[4, 5, 6, EOS], [5, EOS]])
    inputs = source.values, source.lengths_B
    exported = torch.export.export(Read(network), inputs, dynamic_shapes=(free, {0: DYNAMIC})).module()
    with torch.no_grad():
        wanted = Read(network)(other.values, other.lengths_B)
        for found, part in zip(exported(other.values, other.lengths_B), wanted, strict=True):
            assert torch.allclose(found.float(), part.float(), atol=1e-5)


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # the flat weights that torch keeps in an RNN
@pytest.mark.parametrize("decoder", DECODERS)
@torch.no_grad()
def test_torch_export_says_at_other_sizes(decoder: str) -> None:
    network = build(model("conv", decoder), SIZE, SIZE).eval()
    exported = None
    for sources in ([[5, 6, 7, EOS], [8, 9, EOS], [4, EOS]], [[4, 5, 6, 7, 8, EOS], [5, EOS]]):
        source = pad(sources)
        memory = network.encode(source)
        parts = memory.states_BSD, memory.mask_BS, memory.summary_BD
        state = network.start(memory)
        for token in (2, 5, 6, 7):
            tokens = torch.full((len(sources), 1), token)
            if token == 6 and exported is None:
                shapes = [{0: DYNAMIC, 1: DYNAMIC}, {0: DYNAMIC, 1: DYNAMIC}, {0: DYNAMIC}]
                exported = torch.export.export(
                    Say(network), (tokens, *parts, state),
                    dynamic_shapes=({0: DYNAMIC}, *shapes, {name: _moving(name) for name in state}),
                ).module()  # fmt: skip
            wanted, after = Say(network)(tokens, *parts, state)
            if exported is not None:
                found, _ = exported(tokens, *parts, state)
                assert torch.allclose(found, wanted, atol=1e-5)
            state = after


def _moving(name: str) -> dict[int, object]:
    """The axes of a state entry that change: rows always, source positions, and the length of a cache."""
    if name.endswith("places"):
        return {0: DYNAMIC, 1: DYNAMIC}
    return {0: DYNAMIC, 2: DYNAMIC} if name.endswith(("keys", "values")) else {0: DYNAMIC}


def test_dropout_acts_only_in_training() -> None:
    network = build(model("lstm", "transformer", dropout=0.3), SIZE, SIZE)
    batch = Batch(pad([[5, 6, EOS]]), pad([[7, 8, EOS]]))
    network.train()
    assert not torch.equal(network(batch)[0].hidden_BTD, network(batch)[0].hidden_BTD)
    network.eval()
    assert torch.equal(network(batch)[0].hidden_BTD, network(batch)[0].hidden_BTD)


def test_fresh_weights_follow_from_the_seed_alone() -> None:
    config = model("gru", "conv")
    torch.manual_seed(1)
    first = build(config, SIZE, SIZE, seed=5)
    torch.manual_seed(2)
    second, third = build(config, SIZE, SIZE, seed=5), build(config, SIZE, SIZE, seed=6)
    weights = [torch.cat([p.flatten() for p in network.parameters()]) for network in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
