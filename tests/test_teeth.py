"""The conformance checks bite: each one-line mistake that people make in such code is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from antiphon.core import batch as core
from antiphon.core.config import Model
from antiphon.inference import beam
from antiphon.inference import ctc as hearing
from antiphon.models import (
    attention,
    ctc,
    decoders,
    encoders,
    frontends,
    functional,
    graph,
    heads,
    positions,
    recurrent,
)
from antiphon.models.seq2seq import Seq2Seq
from conformance import CHECKS, made, model

Patch = Callable[[pytest.MonkeyPatch], None]
JOIN = core.Memory.join
original = {"scan": functional.scan, "rotate": positions.rotate}


def swap(owner: Any, name: str, value: Any) -> Patch:
    """Put something else in the place of a function or method."""
    return lambda monkeypatch: monkeypatch.setattr(owner, name, value)


def join_nothing(self: core.Memory, other: core.Memory) -> core.Memory:
    return JOIN(self, replace(other, mask_BS=other.mask_BS & False, summary_BD=other.summary_BD * 0))


def no_links(node_BF: torch.Tensor, subject_BF: torch.Tensor, object_BF: torch.Tensor) -> torch.Tensor:
    return node_BF[:, None] * node_BF[:, :, None] * 0


def shifted_inputs(self: core.Batch) -> torch.Tensor:
    return self.target.values


def whole_mask(self: core.Padded) -> torch.Tensor:
    return torch.ones(self.values.shape[:2], dtype=torch.bool)


def short_mask(self: core.Padded) -> torch.Tensor:
    return torch.arange(self.values.shape[1]) < self.lengths_B[:, None] - 1


def all_rows(labels_BT: torch.Tensor) -> torch.Tensor:
    return torch.arange(labels_BT.numel())


def see_all(distance: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return (distance < 1000) & (places >= 0)


def see_one_more(distance: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return (distance >= -1) & (places >= 0)


def see_from_zero(distance: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return torch.ones(distance.shape, dtype=torch.bool).tril() & (places >= 0)


def see_siblings(distance: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return distance >= 0


def conv_without_mask(self: encoders.ConvMixer, x_BSD: torch.Tensor, mask_BS: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.glu(self.conv(x_BSD.transpose(1, 2)), dim=1).transpose(1, 2)


def conformer_without_mask(self: encoders.ConformerLayer, x_BSD: torch.Tensor, mask_BS: torch.Tensor) -> torch.Tensor:
    return CONVOLVE(self, x_BSD, torch.ones_like(mask_BS))


def conv_forgets(self: decoders.ConvMixer, x_NTD: torch.Tensor, state: core.State) -> tuple[torch.Tensor, core.State]:
    seen = torch.cat([torch.zeros_like(state["past"]), x_NTD], dim=1)
    return torch.nn.functional.glu(self.conv(seen.transpose(1, 2)), dim=1).transpose(1, 2), state


def last_column(self: encoders.RecurrentMixer, x_BSD: torch.Tensor, mask_BS: torch.Tensor) -> torch.Tensor:
    return x_BSD[:, -1]


def last_step_kept(self: Any, x_BTD: torch.Tensor, state: core.State | None = None) -> tuple[torch.Tensor, core.State]:
    y_BTD, _ = self.kernel(x_BTD)
    return y_BTD, state or {}


def no_start(self: Any, ids_BL: torch.Tensor, start_B: torch.Tensor | None = None) -> torch.Tensor:
    return FRONTEND(self, ids_BL, None)


def batch_mean(x_BSD: torch.Tensor, mask_BS: torch.Tensor) -> torch.Tensor:
    return x_BSD.mean(1)


def forgetful(self: Any, query: torch.Tensor, stored: core.State, mask: torch.Tensor, state: core.State) -> Any:
    merged, weights, _ = SEEING(self, query, stored, mask, state)
    return merged, weights, state


def heard_in_padding(self: ctc.CTCHead, memory: core.Memory, target: core.Padded) -> tuple[torch.Tensor, int]:
    return HEARD(self, replace(memory, mask_BS=torch.ones_like(memory.mask_BS)), target)


def interleaved_wrongly(steps: core.Steps, memory: core.Memory) -> torch.Tensor:
    assert memory.copy_BS is not None
    return memory.copy_BS.roll(1, 0).repeat_interleave(len(steps.hidden_BTD) // len(memory.copy_BS), dim=0)


def run_all(network: Seq2Seq, batch: core.Batch) -> None:
    for check in CHECKS:
        check(network, batch)


FRONTEND, SEEING = frontends.TextFrontend.forward, attention.Seeing.forward
BEGIN, HEARD = hearing.begin, ctc.CTCHead.loss
CONVOLVE = encoders.ConformerLayer.convolve
ALIBI = positions.AlibiBias.forward
TRANSFORMER = model("transformer", "transformer")
SABOTAGES: dict[str, tuple[Model, Patch]] = {
    "the decoder reads the label it is to say": (TRANSFORMER, swap(core.Batch, "inputs_BT", property(shifted_inputs))),
    "self-attention sees the future": (TRANSFORMER, swap(attention, "own_past", see_all)),
    "the causal mask is off by one": (TRANSFORMER, swap(attention, "own_past", see_one_more)),
    "the causal mask ignores the cache": (TRANSFORMER, swap(attention, "own_past", see_from_zero)),
    "a hypothesis looks at the past of another": (TRANSFORMER, swap(attention, "own_past", see_siblings)),
    "attention has no mask": (
        TRANSFORMER, swap(attention, "hide", lambda visible, dtype: torch.zeros(visible.shape, dtype=dtype))),
    "the mask hides the last token": (TRANSFORMER, swap(core.Padded, "mask_BL", property(short_mask))),
    "padding counts as real": (model("lstm", "lstm", "dot"), swap(core.Padded, "mask_BL", property(whole_mask))),
    "the loss counts padding": (model("gru", "gru"), swap(heads, "real_rows", all_rows)),
    "the reverse direction starts in the padding": (
        model("lstm", "gru", "none"), swap(encoders, "reverse", lambda x, mask: x.flip(1))),
    "the summary is the last column": (
        model("gru", "gru", "none"), swap(encoders.RecurrentMixer, "summary", last_column)),
    "the mean runs over padding": (model("conv", "lstm", "none"), swap(encoders, "masked_mean", batch_mean)),
    "convolution reads padding": (model("conv", "lstm"), swap(encoders.ConvMixer, "forward", conv_without_mask)),
    "the convolution of a Conformer reads padding": (
        model("conformer", "lstm"), swap(encoders.ConformerLayer, "convolve", conformer_without_mask)),
    "causal convolution forgets its past": (model("lstm", "conv"), swap(decoders.ConvMixer, "forward", conv_forgets)),
    "a recurrent state is not carried on": (
        model("lstm", "lstm"), swap(recurrent.Recurrent, "forward", last_step_kept)),
    "the SSRU scan ignores its start": (
        model("lstm", "ssru"), swap(decoders, "scan", lambda f, x, s: original["scan"](f, x, torch.zeros_like(s)))),
    "positions restart at every step": (TRANSFORMER, swap(frontends.TextFrontend, "forward", no_start)),
    "rotation restarts at every step": (
        model("transformer", "transformer", positions="rotary"),
        swap(attention, "rotate", lambda x, place: original["rotate"](x, place - place[..., :1]))),
    "relative distance is measured from the first key": (
        model("transformer", "transformer", positions="alibi"),
        swap(positions.AlibiBias, "forward", lambda self, far: ALIBI(self, far - far[..., :1, :1]))),
    "coverage forgets": (model("lstm", "lstm", "coverage"), swap(attention.Coverage, "forward", forgetful)),
    "location attention forgets": (
        model("gru", "gru", "location"), swap(attention.Location, "forward", forgetful)),
    "a CTC head hears padding": (model("gru", "gru", ctc=True), swap(ctc.CTCHead, "loss", heard_in_padding)),
    "a search hears padding": (
        model("gru", "gru", ctc=True), swap(hearing, "begin", lambda logs, mask: BEGIN(logs, torch.ones_like(mask)))),
    "copies come from the next sentence": (
        model("gru", "lstm", head="copy"), swap(heads, "_copies", interleaved_wrongly)),
    "the facts are not padded apart": (
        model("lstm", "gru", knowledge="graph"), swap(graph, "hide", lambda mask, dtype: torch.zeros(mask.shape))),
    "facts are linked to all others alike": (
        model("gru", "lstm", knowledge="graph"), swap(graph, "links", no_links)),
    "the order of facts is seen": (
        model("gru", "gru", knowledge="graph"),
        swap(graph, "places", lambda node: torch.arange(node.shape[1]).expand(node.shape))),
    "the facts never reach the decoder": (
        model("transformer", "ssru", knowledge="graph"), swap(core.Memory, "join", join_nothing)),
    "the gate is not a probability": (
        model("lstm", "gru", head="copy"), swap(heads.torch, "sigmoid", lambda x: 2 * torch.special.expit(x))),
    "the summary never reaches the decoder": (
        model("lstm", "lstm", "none"), swap(encoders.RecurrentMixer, "summary", lambda self, x, mask: x[:, 0] * 0)),
    "beams do not move their state": (model("gru", "gru"), swap(beam, "_moved", lambda state, index, keep: state)),
    "search ranks by another length": (
        model("lstm", "transformer"),
        swap(beam.Beams, "_scores", lambda self, totals, length, looked: totals / (length + 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, patch = SABOTAGES[name]
    patch(monkeypatch)
    network, batch = made(config)
    with pytest.raises((AssertionError, RuntimeError)):
        run_all(network, batch)


def test_there_are_enough_of_them() -> None:
    assert len(SABOTAGES) >= 20
