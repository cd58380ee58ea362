"""The parts of the models are what their papers and PyTorch's own modules say."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn

from antiphon.core.batch import EOS, Batch, Memory, of_sentence, pad
from antiphon.core.config import Encoder
from antiphon.core.errors import ConfigError
from antiphon.models.attention import (
    Additive,
    Coverage,
    Dot,
    General,
    Location,
    MultiHead,
    SelfAttention,
    masked_softmax,
)
from antiphon.models.frontends import _runs
from antiphon.models.heads import coverage_loss
from antiphon.models.positions import AlibiBias, T5Bias, rotate, sinusoids
from antiphon.models.recurrent import Recurrent
from antiphon.models.seq2seq import build
from conformance import DECODERS, ENCODERS, SIZE, model

BATCH = Batch(pad([[5, 6, 7, EOS], [8, EOS]]), pad([[4, 5, EOS], [6, 7, EOS]]))


def test_self_attention_is_torchs() -> None:
    torch.manual_seed(1)
    ours, theirs = SelfAttention(16, 0.0, 4, "none", causal=False), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.data.copy_(ours.inputs.weight)
    theirs.in_proj_bias.data.copy_(ours.inputs.bias)
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    x, mask = torch.randn(2, 5, 16), torch.arange(5) < torch.tensor([[5], [3]])
    wanted, _ = theirs(x, x, x, key_padding_mask=~mask)
    assert torch.allclose(ours(x, mask)[0], wanted, atol=1e-5)


def test_cross_attention_is_torchs() -> None:
    torch.manual_seed(1)
    ours, theirs = MultiHead(16, 0.0, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.data.copy_(torch.cat([ours.query.weight, ours.keys_values.weight]))
    theirs.in_proj_bias.data.copy_(torch.cat([ours.query.bias, ours.keys_values.bias]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    query, states, mask = torch.randn(2, 3, 16), torch.randn(2, 5, 16), torch.arange(5) < torch.tensor([[5], [2]])
    wanted, weights = theirs(query, states, states, key_padding_mask=~mask)
    found, looks, _ = ours(query, ours.memorize(states), mask, {})
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(looks.mean(1), weights, atol=1e-5)


@pytest.mark.parametrize("kind", [Dot, General, Additive, Coverage, Location])
def test_a_classic_attention_is_its_formula(kind: type) -> None:
    torch.manual_seed(1)
    part = kind(8, 0.0)
    query, states, mask = torch.randn(1, 1, 8), torch.randn(1, 4, 8), torch.ones(1, 4, dtype=torch.bool)
    q, s = query[0, 0], states[0]
    scores = {
        Dot: lambda: s @ q,
        General: lambda: s @ part.keys.weight.T @ q,
        Additive: lambda: torch.tanh(part.query(q) + s @ part.keys.weight.T) @ part.vector.weight[0],
    }[Additive if kind in (Coverage, Location) else kind]()
    weights = scores.softmax(0)
    wanted = torch.tanh(part.merge(torch.cat([weights @ s, q])))
    found, looks, _ = part(query, part.memorize(states), mask, part.start(mask, states.dtype))
    assert torch.allclose(looks[0, 0], weights, atol=1e-6)
    assert torch.allclose(found[0, 0], wanted, atol=1e-6)


def test_coverage_adds_up_what_was_looked_at_and_changes_the_next_look() -> None:
    torch.manual_seed(1)
    part = Coverage(8, 0.0)
    query, states, mask = torch.randn(1, 1, 8).expand(1, 3, 8), torch.randn(1, 4, 8), torch.ones(1, 4, dtype=torch.bool)
    _, looks, after = part(query, part.memorize(states), mask, part.start(mask, states.dtype))
    assert torch.allclose(after["looked"], looks.sum(1))
    assert not torch.allclose(looks[:, 0], looks[:, 1], atol=1e-4)


def test_location_sees_where_the_last_step_looked_in_so_far_as_its_filters_reach() -> None:
    torch.manual_seed(1)
    part, mask = Location(8, 0.0), torch.ones(1, 300, dtype=torch.bool)
    query, states, looked = torch.randn(1, 1, 8), torch.randn(1, 300, 8), torch.rand(1, 300)
    _, looks, after = part(query, stored := part.memorize(states), mask, {"looked": looked})
    assert torch.equal(after["looked"], looks[:, 0])
    scores = []
    for place in range(300):
        first, last = max(0, place - 100), min(300, place + 101)
        found = part.filters.weight[:, 0, first - place + 100 : last - place + 100] @ looked[0, first:last]
        inner = part.query(query[0, 0]) + stored["keys"][0, place] + part.seen.weight @ found
        scores.append(part.vector.weight[0] @ torch.tanh(inner))
    torch.testing.assert_close(looks[0, 0], torch.stack(scores).softmax(0))


def test_the_coverage_loss_is_the_overlap_with_the_past() -> None:
    from antiphon.core.batch import Steps

    weights = torch.tensor([[[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]]])
    labels = torch.tensor([[4, EOS, 0]])
    assert coverage_loss(Steps(torch.zeros(1, 3, 2), weights), labels).item() == pytest.approx(0.6 + 0.1)


def test_a_row_without_anything_to_look_at_is_not_nan() -> None:
    assert masked_softmax(torch.randn(1, 3), torch.zeros(1, 3, dtype=torch.bool)).isfinite().all()


def test_a_conformer_layer_is_its_formula() -> None:
    torch.manual_seed(1)
    layer = build(model("conformer", "gru"), SIZE, SIZE).eval().encoder.layers[0]
    x, mask = torch.randn(1, 7, 16), torch.ones(1, 7, dtype=torch.bool)
    y = x + layer.first(layer.around_first.norm(x)) / 2
    y = y + layer.mix(layer.around_mix.norm(y), mask)
    value, gate = layer.gate(layer.around_convolution.norm(y)).chunk(2, 2)
    wide, taps = nn.functional.pad(value * torch.sigmoid(gate), (0, 0, 2, 2)), layer.depthwise.weight[:, 0]
    near = layer.norm(sum(wide[:, k : k + 7] * taps[:, k] for k in range(5)) + layer.depthwise.bias)
    y = y + layer.output(near * torch.sigmoid(near))
    y = y + layer.second(layer.around_second.norm(y)) / 2
    torch.testing.assert_close(layer(x, mask), layer.last(y))


@pytest.mark.parametrize("kind", ENCODERS)
def test_positions_are_added_for_what_reads_all_at_once(kind: str) -> None:
    source = build(model(kind, "gru"), SIZE, SIZE).source
    assert (source.positions is not None) == (kind in ("conv", "transformer", "conformer"))


def test_rotation_makes_products_depend_on_distance_alone() -> None:
    torch.manual_seed(1)
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def product(left: int, right: int) -> torch.Tensor:
        return (rotate(query, torch.tensor([left])) * rotate(key, torch.tensor([right]))).sum()

    assert torch.allclose(product(13, 11), product(3, 1), atol=1e-5)
    assert not torch.allclose(product(14, 11), product(3, 1), atol=1e-3)
    assert torch.allclose(rotate(query, torch.tensor([5])).norm(), query.norm())


def test_sinusoids_are_those_of_the_paper() -> None:
    found = sinusoids(torch.tensor([7]), 6)[0]
    for index in range(3):
        angle = 7 / 10000 ** (2 * index / 6)
        assert found[2 * index].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert found[2 * index + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_alibi_slopes_are_those_of_the_paper() -> None:
    place = torch.arange(3)
    bias = AlibiBias(8)(place[:, None] - place)
    assert bias[0, 2].tolist() == [-1.0, -0.5, 0.0]
    assert bias[7, 2, 0].item() == pytest.approx(-2 / 256)


def test_t5_buckets_are_exact_when_near_and_shared_when_far() -> None:
    both, causal = T5Bias(1, causal=False), T5Bias(1, causal=True)
    assert both._bucket(torch.tensor([0, 1, 7, -1, -7])).tolist() == [0, 1, 7, 17, 23]
    assert both._bucket(torch.tensor([127, 128, 5000, -5000])).tolist() == [15, 15, 15, 31]
    assert causal._bucket(torch.tensor([0, 15, 16, 127, 128, 900])).tolist() == [0, 15, 16, 31, 31, 31]


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_recurrent_dropout_drops_weights_and_only_in_training(kind: str) -> None:
    torch.manual_seed(1)
    layer, x = Recurrent(kind, 8, 8, "tanh", 0.5), torch.randn(2, 5, 8)
    assert not torch.allclose(layer(x)[0], layer(x)[0])
    assert torch.equal(layer.eval()(x)[0], layer(x)[0])
    assert torch.equal(layer(x)[0], layer.kernel(x)[0])


def test_an_lstm_begins_by_remembering() -> None:
    layer = Recurrent("lstm", 8, 8, "tanh", 0.0)
    layer.initialize()
    bias = layer.kernel.bias_ih_l0 + layer.kernel.bias_hh_l0
    assert bias[8:16].tolist() == [1.0] * 8
    assert torch.allclose(layer.kernel.weight_hh_l0[:8] @ layer.kernel.weight_hh_l0[:8].T, torch.eye(8), atol=1e-5)


@pytest.mark.parametrize("kind", ["transformer", "conformer"])
def test_deep_initialization_keeps_a_deep_stack_level(kind: str) -> None:
    sizes = {}
    for start in ("deep", "xavier"):
        config = dataclasses.replace(
            model(kind, "transformer", initialization=start), encoder=Encoder(kind=kind, layers=24)
        )
        network = build(dataclasses.replace(config, norm="none"), SIZE, SIZE)
        sizes[start] = network.encode(BATCH.source).states_BSD.std().item()
    assert sizes["deep"] < 3 < sizes["xavier"]


@pytest.mark.parametrize("tie", ["none", "target", "all"])
def test_ties_share_weights(tie: str) -> None:
    network = build(model("lstm", "lstm", tie=tie), SIZE, SIZE)
    assert (network.head.weight is network.target.embedding.weight) == (tie != "none")
    assert (network.source.embedding.weight is network.target.embedding.weight) == (tie == "all")


def test_tying_all_needs_one_vocabulary() -> None:
    with pytest.raises(ConfigError, match=r"one vocabulary.*20 and 21"):
        build(model("lstm", "lstm", tie="all"), SIZE, SIZE + 1)


def test_an_open_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.width has no value"):
        build(dataclasses.replace(model("lstm", "lstm"), width=None), SIZE, SIZE)


def test_learned_positions_end_with_a_clear_error() -> None:
    config = dataclasses.replace(model("transformer", "transformer", positions="learned"), max_positions=3)
    with pytest.raises(ConfigError, match=r"learned positions end at 3.*model\.max_positions"):
        build(config, SIZE, SIZE).encode(BATCH.source)


def test_word_dropout_reads_unknown_and_spares_the_marks() -> None:
    config = dataclasses.replace(model("lstm", "lstm"), dropout_word=0.999)
    frontend = build(config, SIZE, SIZE).source
    torch.manual_seed(1)
    vectors = frontend(BATCH.source.values[:1])
    unknown, end = frontend.embedding.weight[1] * frontend.scale, frontend.embedding.weight[EOS] * frontend.scale
    assert torch.allclose(vectors[0, :3], unknown.expand(3, -1))
    assert torch.allclose(vectors[0, 3], end)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_search_may_begin_with_several_hypotheses(decoder: str, mode: Any) -> None:
    made = build(model("lstm", decoder), SIZE, SIZE).eval()
    with mode():
        memory = made.encode(BATCH.source)
        one, _ = made.decode(BATCH.inputs_BT[:, :1], memory, made.start(memory))
        wide = {name: value if of_sentence(name) else value.repeat_interleave(3, 0)
                for name, value in made.start(memory).items()}  # fmt: skip
        several, _ = made.decode(BATCH.inputs_BT[:, :1].repeat_interleave(3, 0), memory, wide)
    torch.testing.assert_close(several.hidden_BTD, one.hidden_BTD.repeat_interleave(3, 0))


def test_no_hidden_stretch_is_longer_than_its_share() -> None:
    torch.manual_seed(1)
    hidden_BL = _runs(torch.full((2000,), 10), 10, 1, 0.25)
    assert set(hidden_BL.sum(1).tolist()) == {0, 1, 2}
    assert not _runs(torch.full((2000,), 1), 1, 2, 0.3).any()


def test_memories_join_side_by_side() -> None:
    one = Memory(torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 4), torch.full((2, 3), 7))
    two = Memory(torch.zeros(2, 1, 4), torch.zeros(2, 1, dtype=torch.bool), torch.ones(2, 4))
    both = one.join(two)
    assert both.states_BSD.shape == (2, 4, 4)
    assert both.mask_BS.tolist() == [[True, True, True, False]] * 2
    assert both.summary_BD.tolist() == [[2.0] * 4] * 2
    assert both.copy_BS.tolist() == [[7, 7, 7, 0]] * 2
    assert both.rows(torch.tensor([1])).states_BSD.shape == (1, 4, 4)


def test_a_copied_word_outside_the_vocabulary_gets_the_attention_it_had() -> None:
    network = build(model("lstm", "lstm", head="copy"), SIZE, SIZE).eval()
    source, copies = pad([[5, 1, EOS]]), pad([[5, SIZE, EOS]])
    memory = network.encode(source, {"copy": copies})
    steps, _ = network.decode(torch.tensor([[2]]), memory, network.start(memory))
    gate = torch.sigmoid(network.head.gate(steps.hidden_BTD))
    log_probs = network.log_probs(steps, memory)
    assert log_probs.shape[2] == SIZE + 1
    assert log_probs[0, 0, SIZE].exp().item() == pytest.approx(((1 - gate) * steps.weights_BTS[:, :, 1:2]).item(), 1e-4)
