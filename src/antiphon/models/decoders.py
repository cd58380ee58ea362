"""All decoders, side by side: a stack of blocks, told apart by how a block mixes the past into the present."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from antiphon.core.batch import Memory, State, Steps
from antiphon.models.attention import (
    Common,
    CrossAttention,
    FeedForward,
    MultiHead,
    SelfAttention,
    Wrap,
    look_back,
    make_attention,
    with_room,
)
from antiphon.models.functional import scan
from antiphon.models.linear import Linear
from antiphon.models.recurrent import KERNELS, Recurrent


class RecurrentMixer(nn.Module):
    """One recurrent layer that begins from the summary of the source (Sutskever et al. 2014)."""

    def __init__(self, kind: str, width: int, activation: str, share: float) -> None:
        super().__init__()
        self.recurrent = Recurrent(kind, width, width, activation, share)
        self.bridge = Linear(width, width * len(self.recurrent.names))

    def start(self, memory: Memory) -> State:
        """The first state, made from the summary."""
        parts = torch.tanh(self.bridge(memory.summary_BD)).chunk(len(self.recurrent.names), dim=1)
        return dict(zip(self.recurrent.names, parts, strict=True))

    def forward(self, x_NTD: Tensor, state: State) -> tuple[Tensor, State]:
        """`[N, T, D]` to `[N, T, D]`, and the state after it."""
        return self.recurrent(x_NTD, state)


class SSRUMixer(nn.Module):
    """Simpler simple recurrent unit: c_t = f_t c_{t-1} + (1 - f_t) W x_t, y_t = relu(c_t) (Kim et al. 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs = Linear(width, width, bias=False)
        self.forget = Linear(width, width)

    def start(self, memory: Memory) -> State:
        """An empty cell."""
        return {"cell": torch.zeros_like(memory.summary_BD)}

    def forward(self, x_NTD: Tensor, state: State) -> tuple[Tensor, State]:
        """`[N, T, D]` to `[N, T, D]`, and the state after it."""
        forget = torch.sigmoid(self.forget(x_NTD))
        cell_NTD = scan(forget, (1 - forget) * self.inputs(x_NTD), state["cell"])
        return torch.relu(cell_NTD), {"cell": cell_NTD[:, -1]}


class ConvMixer(nn.Module):
    """A gated convolution over the last few positions (Gehring et al. 2017)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.conv = nn.Conv1d(width, 2 * width, kernel)

    def start(self, memory: Memory) -> State:
        """Zeros before the first position."""
        rows, width = memory.summary_BD.shape
        return {"past": memory.summary_BD.new_zeros(rows, self.kernel - 1, width)}

    def forward(self, x_NTD: Tensor, state: State) -> tuple[Tensor, State]:
        """`[N, T, D]` to `[N, T, D]`, and the state after it."""
        seen = torch.cat([state["past"], x_NTD], dim=1)
        y_NTD = nn.functional.glu(self.conv(seen.transpose(1, 2)), dim=1).transpose(1, 2)
        return y_NTD, {"past": seen[:, seen.shape[1] - self.kernel + 1 :].contiguous()}


class SelfAttentionMixer(nn.Module):
    """Each position looks at itself and all before (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int, positions: str, share: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, share, heads, positions, causal=True)

    def start(self, memory: Memory) -> State:
        """No keys and no values."""
        rows, width = memory.summary_BD.shape
        heads = self.attention.heads
        empty = memory.summary_BD.new_zeros(rows, heads, 0, width // heads)
        return {"shared.keys": empty, "shared.values": empty}

    def forward(self, x_NTD: Tensor, state: State) -> tuple[Tensor, State]:
        """`[N, T, D]` to `[N, T, D]`, and the state after it; with what `look_back` gives, where there is a past."""
        return self.attention.go_on(x_NTD, state) if "place" in state else self.attention(x_NTD)


Mixer = RecurrentMixer | SSRUMixer | ConvMixer | SelfAttentionMixer


class DecoderLayer(nn.Module):
    """A mixer, a cross attention where the layer has one, a feed-forward block where there is one, each wrapped."""

    def __init__(
        self,
        mixer: Mixer,
        attention: CrossAttention | MultiHead | None,
        feedforward: FeedForward | None,
        wraps: Iterator[Wrap],
    ) -> None:
        super().__init__()
        self.mix, self.around_mix = mixer, next(wraps)
        self.attention, self.feedforward = attention, feedforward
        if attention is not None:
            self.around_attention = next(wraps)
        if feedforward is not None:
            self.around_feedforward = next(wraps)

    def start(self, memory: Memory) -> State:
        """Everything this layer remembers, before the first step."""
        state: State = _under("mix.", self.mix.start(memory))
        if self.attention is not None:
            state |= _under("memory.", self.attention.memorize(memory.states_BSD))
            state |= _under("attention.", self.attention.start(memory.mask_BS, memory.states_BSD.dtype))
        return state

    def forward(self, x_NTD: Tensor, mask_BS: Tensor, state: State) -> tuple[Tensor, Tensor | None, State]:
        """`[N, T, D]` to `[N, T, D]`, the attention's weights if any (of all heads), and the state after it, without
        what depends on the source alone."""
        weights: Tensor | None = None
        y_NTD, mixed = self.mix(self.around_mix.before(x_NTD), select(state, "mix."))
        x_NTD = self.around_mix.after(x_NTD, y_NTD)
        after = _under("mix.", mixed)
        if self.attention is not None:
            stored, past = select(state, "memory."), select(state, "attention.")
            query_NTD = self.around_attention.before(x_NTD)
            y_NTD, weights, past = self.attention(query_NTD, stored, mask_BS, past)
            x_NTD = self.around_attention.after(x_NTD, y_NTD)
            after |= _under("attention.", past)
        if self.feedforward is not None:
            around = self.around_feedforward
            x_NTD = around.after(x_NTD, self.feedforward(around.before(x_NTD)))
        return x_NTD, weights, after


def _under(prefix: str, state: State) -> State:
    """The entries with a prefix put in front."""
    return {prefix + name: value for name, value in state.items()}


def select(state: State, prefix: str) -> State:
    """The entries under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


class Decoder(nn.Module):
    """A stack of layers; without attention the summary of the source is added to every input (Cho et al. 2014)."""

    def __init__(self, layers: list[DecoderLayer], last: nn.Module, summary: nn.Linear | None) -> None:
        super().__init__()
        self.layers, self.last, self.summary = nn.ModuleList(layers), last, summary
        self.looks_back = any(isinstance(layer.mix, SelfAttentionMixer) for layer in layers)

    def start(self, memory: Memory) -> State:
        """The state before the first step. Keys in front: `memory.` for what depends on the source alone."""
        step = torch.zeros(memory.mask_BS.shape[0], dtype=torch.long, device=memory.mask_BS.device)
        state: State = {"step": step}
        if self.summary is not None:
            state["memory.summary"] = self.summary(memory.summary_BD)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            state |= _join(number, layer.start(memory))
        if self.looks_back:
            state["places"] = step.new_zeros(step.shape[0], 0)
        return state

    @staticmethod
    def _past(state: State, x_NTD: Tensor) -> tuple[State, State]:
        """The state, with room, and what the layers share of the past: nothing, if all is still to come."""
        rows, steps, _ = x_NTD.shape
        sentences = state["0.mix.shared.keys"].shape[0]
        if state["places"].shape[1] == 0 and rows == sentences:
            return state, {"places": torch.arange(steps, device=x_NTD.device).expand(rows, -1)}
        state = with_room(state, steps)
        return state, look_back(state["places"], sentences, steps, x_NTD.dtype)

    def forward(self, x_NTD: Tensor, memory: Memory, state: State) -> tuple[Steps, State]:
        """All steps at once or one at a time; N is B, or a multiple of it (hypotheses, sentence by sentence)."""
        weights: Tensor | None = None
        past: State = {}
        if self.looks_back:
            state, past = self._past(state, x_NTD)
        after: State = {name: value for name, value in state.items() if name.startswith("memory.")}
        after["step"] = state["step"] + x_NTD.shape[1]
        if self.looks_back:
            after["places"] = past.pop("places")
        if self.summary is not None:
            summary_BD = state["memory.summary"]
            x_NTD = x_NTD + summary_BD.repeat_interleave(x_NTD.shape[0] // summary_BD.shape[0], dim=0)[:, None]
        for number, (layer, part) in enumerate(zip(self.layers, _parts(state, len(self.layers)), strict=True)):
            x_NTD, looked, moved = layer(x_NTD, memory.mask_BS, part | _under("mix.", past))
            after |= _under(f"{number}.", moved)
            weights = looked if looked is not None else weights
        shape = *x_NTD.shape[:2], memory.mask_BS.shape[1]
        if weights is None:
            weights = x_NTD.new_zeros(shape)
        elif weights.dim() == 4:
            weights = weights.mean(1).view(shape)
        return Steps(self.last(x_NTD), weights), after


def _join(number: int, state: State) -> State:
    """A layer's entries under the stack's names: `memory.0.keys`, `0.mix.hidden`."""
    fixed = {f"memory.{number}.{name}": value for name, value in select(state, "memory.").items()}
    moving = {f"{number}.{name}": value for name, value in state.items() if not name.startswith("memory.")}
    return fixed | moving


def _parts(state: State, layers: int) -> list[State]:
    """The inverse of `_join`, for all layers."""
    parts: list[State] = [{} for _ in range(layers)]
    for name, value in state.items():
        number, _, rest = name.removeprefix("memory.").partition(".")
        if rest:
            parts[int(number)]["memory." + rest if name.startswith("memory.") else rest] = value
    return parts


def make_decoder(kind: str, common: Common, *, layers: int, attention: str, kernel: int) -> Decoder:
    """The decoder of that family. Recurrent families look at the source once, after their first layer, so that
    the layers above know where it looked; the others look in every layer."""
    width, share = common.width, common.dropout_attention

    def mixer() -> Mixer:
        if kind in KERNELS:
            return RecurrentMixer(kind, width, common.activation, common.dropout_recurrent)
        if kind == "ssru":
            return SSRUMixer(width)
        if kind == "conv":
            return ConvMixer(width, kernel)
        return SelfAttentionMixer(width, common.heads, common.positions, share)

    def layer(number: int) -> DecoderLayer:
        looks = attention != "none" and (number == 0 or kind not in KERNELS)
        cross = make_attention(attention, width, share, common.heads) if looks else None
        return DecoderLayer(mixer(), cross, common.inner(), common.wraps())

    summary = Linear(width, width) if attention == "none" else None
    return Decoder([layer(number) for number in range(layers)], common.last(), summary)
