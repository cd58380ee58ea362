"""Windowed self-attention is full self-attention under a mask, in outputs and gradients, in less memory."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.utils._python_dispatch
from torch import Tensor

from antiphon.core.batch import EOS, Padded, pad
from antiphon.core.config import Config, Decoding, Encoder, Model
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override, read, to_dict
from antiphon.inference.search import search
from antiphon.models.functional import split_heads
from antiphon.models.positions import rotate
from antiphon.models.seq2seq import build
from antiphon.models.window import WindowedAttention
from conformance import CHECKS, SIZE, made, model

POSITIONS = ("none", "rotary", "t5", "alibi")
WIDTH, HEADS = 16, 4


def plainly(layer: WindowedAttention, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
    """What the layer computes, by all pairs of positions and a mask of those that may look at each other."""
    query, keys, values = split_heads(layer.inputs(x_BSD), layer.heads, 3)
    place = torch.arange(x_BSD.shape[1])
    capped = place.clamp_max(layer.window + layer.global_tokens)
    either_global = (place < layer.global_tokens)[:, None] | (place < layer.global_tokens)
    scores = []
    for where in (place, capped):
        q, k = (rotate(query, where), rotate(keys, where)) if layer.rotary else (query, keys)
        score = q @ k.transpose(2, 3) / query.shape[3] ** 0.5
        distance = where[:, None] - where
        scores.append(score if layer.bias is None else score + layer.bias(distance))
    both = torch.where(either_global, scores[1], scores[0])
    visible = either_global | ((place[:, None] - place).abs() <= layer.window)
    weights = both.masked_fill(~(visible & mask_BS[:, None, None]), torch.finfo(both.dtype).min).softmax(3)
    return layer.output((weights @ values).transpose(1, 2).flatten(2))


def layer_of(positions: str, window: int, global_tokens: int, dtype: torch.dtype = torch.float32) -> WindowedAttention:
    torch.manual_seed(1)
    return WindowedAttention(WIDTH, 0.0, HEADS, positions, window, global_tokens).to(dtype)


@pytest.mark.parametrize(("positions", "global_tokens"), list(itertools.product(POSITIONS, (0, 1, 9))))
@pytest.mark.parametrize(("length", "window"), [(23, 4), (12, 4), (13, 4), (17, 1), (1, 2)])
def test_outputs_and_gradients_are_those_of_a_mask(
    positions: str, global_tokens: int, length: int, window: int
) -> None:
    layer = layer_of(positions, window, global_tokens)
    x = torch.randn(3, length, WIDTH)
    mask = Padded(torch.zeros(3, length), torch.tensor([length, max(1, length - 5), max(1, length // 3)])).mask_BL
    slope = torch.randn(3, length, WIDTH) * mask[:, :, None]
    found = []
    for way in (lambda x: layer(x, mask)[0], lambda x: plainly(layer, x, mask)):
        layer.zero_grad()
        inputs = x.clone().requires_grad_()
        y = way(inputs) * mask[:, :, None]
        (y * slope).sum().backward()
        assert inputs.grad is not None
        found.append([y, inputs.grad, *(weight.grad for weight in layer.parameters())])
    for ours, theirs in zip(*found, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradients_are_right_to_the_last_digit_of_a_double(positions: str) -> None:
    layer = layer_of(positions, 2, 1, torch.float64)
    mask = Padded(torch.zeros(2, 9), torch.tensor([9, 6])).mask_BL
    x = torch.randn(2, 9, WIDTH, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, mask)[0][mask], plainly(layer, x, mask)[mask], atol=1e-12, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda x: layer(x, mask)[0][mask], (x,))


@pytest.mark.parametrize("kind", ["transformer", "conformer"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_a_window_over_all_is_full_attention(positions: str, kind: str) -> None:
    full = build(model(kind, "transformer", positions=positions), SIZE, SIZE, seed=2).eval()
    wide = build(windowed(positions, window=40, kind=kind), SIZE, SIZE, seed=2).eval()
    batch = pad([[5, 6, 7, 8, 9, 10, 11, EOS], [5, 6, EOS]])
    torch.testing.assert_close(wide.encode(batch).summary_BD, full.encode(batch).summary_BD)


def windowed(
    positions: str, window: int = 2, global_tokens: int = 0, kind: str = "transformer", **more: object
) -> Model:
    encoder = Encoder(kind=kind, layers=2, window=window, global_tokens=global_tokens)  # type: ignore[arg-type]
    return model(kind, "transformer", positions=positions, encoder_extra=encoder, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("positions", ["none", "sinusoidal", "learned", "rotary", "t5", "alibi"])
@pytest.mark.parametrize("global_tokens", [0, 1])
def test_every_contract_holds(positions: str, global_tokens: int) -> None:
    network, batch = made(windowed(positions, 1, global_tokens, head="copy"))
    for check in CHECKS:
        check(network, batch)


def test_nothing_beyond_the_window_is_seen_but_through_global_positions() -> None:
    mask = torch.ones(1, 20, dtype=torch.bool)
    for global_tokens, from_eight, from_first in (
        (0, [*range(5, 12)], [0, 1, 2, 3]),
        (1, [0, *range(5, 12)], range(20)),
    ):
        layer = layer_of("rotary", 3, global_tokens)
        for place, expected in ((8, from_eight), (0, from_first)):
            x = torch.randn(1, 20, WIDTH, requires_grad=True)
            layer(x, mask)[0][0, place].sum().backward()
            assert x.grad is not None
            assert (x.grad[0].abs().sum(1) > 0).nonzero().flatten().tolist() == list(expected)


def test_memory_grows_with_the_length() -> None:
    """The largest tensor of a layer on 2,000 positions has a window's worth of scores for each, and not 2,000."""
    layer, sizes = layer_of("alibi", 16, 1), list[int]()
    x = torch.randn(1, 2000, WIDTH, requires_grad=True)

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            sizes.extend(each.numel() for each in (result if isinstance(result, tuple) else [result])
                         if isinstance(each, Tensor))  # fmt: skip
            return result

    with Sizes():
        layer(x, torch.ones(1, 2000, dtype=torch.bool))[0].sum().backward()
    assert max(sizes) <= HEADS * 2016 * (3 * 16 + 1)


@pytest.mark.parametrize("positions", POSITIONS)
def test_answers_do_not_depend_on_the_batch(positions: str) -> None:
    network, _ = made(windowed(positions, 3, 1))
    draw = torch.Generator().manual_seed(3)
    sources = [[*torch.randint(4, SIZE, (length,), generator=draw).tolist(), EOS] for length in (40, 9, 23, 1)]
    together = search([network], pad(sources), Decoding(beam=3), max_lengths=[8] * 4)
    for source, [answer] in zip(sources, together, strict=True):
        [[alone]] = search([network], pad([source]), Decoding(beam=3), max_lengths=[8])
        assert alone.tokens == answer.tokens


def test_settings_are_checked_and_old_ones_are_read() -> None:
    with pytest.raises(ConfigError, match=r"model\.encoder\.window must not be negative"):
        override(Config(), {"model.encoder.window": -1})
    old = to_dict(Config())
    for name in ("window", "global_tokens"):
        del old["model"]["encoder"][name]
    assert read(old).model.encoder.window is None
    with pytest.raises(ConfigError, match=r"needs model\.encoder\.window"):
        override(Config(), {"model.encoder.global_tokens": 1, "model.encoder.window": 0})
