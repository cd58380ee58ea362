"""All encoders, side by side: a stack of blocks, told apart by how a block mixes positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from antiphon.core.batch import Memory
from antiphon.models.attention import Common, FeedForward, SelfAttention, Wrap, make_norm
from antiphon.models.functional import reverse
from antiphon.models.linear import Linear
from antiphon.models.recurrent import KERNELS, Recurrent
from antiphon.models.window import WindowedAttention


class RecurrentMixer(nn.Module):
    """One recurrent layer; in both directions each half of the width, the second from the true end of each source."""

    def __init__(self, kind: str, width: int, bidirectional: bool, activation: str, share: float) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        hidden = width // 2 if bidirectional else width
        self.ahead = Recurrent(kind, width, hidden, activation, share)
        if bidirectional:
            self.back = Recurrent(kind, width, width - hidden, activation, share)

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """`[B, S, D]` to `[B, S, D]`."""
        ahead, _ = self.ahead(x_BSD)
        if not self.bidirectional:
            return ahead
        back, _ = self.back(reverse(x_BSD, mask_BS))
        return torch.cat([ahead, reverse(back, mask_BS)], dim=2)

    def summary(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """The last state of each direction, `[B, D]` (Sutskever et al. 2014)."""
        last = x_BSD[torch.arange(x_BSD.shape[0], device=x_BSD.device), mask_BS.sum(1) - 1]
        if not self.bidirectional:
            return last
        hidden = self.ahead.kernel.hidden_size
        return torch.cat([last[:, :hidden], x_BSD[:, 0, hidden:]], dim=1)


class ConvMixer(nn.Module):
    """A gated convolution over neighbours on both sides (Gehring et al. 2017)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, 2 * width, kernel, padding=kernel // 2)

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """`[B, S, D]` to `[B, S, D]`; padding is read as zeros, as the space beyond the ends is."""
        x_BDS = x_BSD.masked_fill(~mask_BS[:, :, None], 0.0).transpose(1, 2)
        return nn.functional.glu(self.conv(x_BDS), dim=1).transpose(1, 2)

    def summary(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """The mean over the source, `[B, D]`."""
        return masked_mean(x_BSD, mask_BS)


class SelfAttentionMixer(nn.Module):
    """Every position looks at every other (Vaswani et al. 2017), or at its neighbours."""

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """`[B, S, D]` to `[B, S, D]`."""
        return self.attention(x_BSD, mask_BS)[0]

    def summary(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """The mean over the source, `[B, D]`."""
        return masked_mean(x_BSD, mask_BS)


Mixer = RecurrentMixer | ConvMixer | SelfAttentionMixer


def masked_mean(x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
    """Mean over the real positions, `[B, D]`."""
    return x_BSD.masked_fill(~mask_BS[:, :, None], 0.0).sum(1) / mask_BS.sum(1, keepdim=True)


class EncoderLayer(nn.Module):
    """A mixer, and a feed-forward block unless its inner width is 0, each wrapped."""

    def __init__(self, mixer: Mixer, feedforward: FeedForward | None, wraps: Iterator[Wrap]) -> None:
        super().__init__()
        self.mix, self.around_mix = mixer, next(wraps)
        self.feedforward = feedforward
        if feedforward is not None:
            self.around_feedforward = next(wraps)

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """`[B, S, D]` to `[B, S, D]`."""
        x_BSD = self.around_mix.after(x_BSD, self.mix(self.around_mix.before(x_BSD), mask_BS))
        if self.feedforward is not None:
            around = self.around_feedforward
            x_BSD = around.after(x_BSD, self.feedforward(around.before(x_BSD)))
        return x_BSD


class ConformerLayer(nn.Module):
    """Half a feed-forward block, self-attention, convolution, the other half, normalization (Gulati et al. 2020).

    A norm of each position stands where the paper has one of the batch: no sentence changes what is said of another.
    """

    def __init__(self, mixer: SelfAttentionMixer, common: Common, kernel: int) -> None:
        super().__init__()
        width, wraps = common.width, common.wraps()
        self.mix, self.around_mix = mixer, next(wraps)
        self.gate, self.around_convolution = Linear(width, 2 * width), next(wraps)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm, self.output = make_norm(width, common.norm_kind), Linear(width, width)
        self.first, self.second, self.last = common.inner(), common.inner(), common.last()
        if common.feedforward:
            self.around_first, self.around_second = next(wraps), next(wraps)

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """`[B, S, D]` to `[B, S, D]`."""
        if self.first is not None:
            x_BSD = self._half(x_BSD, self.first, self.around_first)
        x_BSD = self.around_mix.after(x_BSD, self.mix(self.around_mix.before(x_BSD), mask_BS))
        around = self.around_convolution
        x_BSD = around.after(x_BSD, self.convolve(around.before(x_BSD), mask_BS))
        if self.second is not None:
            x_BSD = self._half(x_BSD, self.second, self.around_second)
        y_BSD: Tensor = self.last(x_BSD)
        return y_BSD

    def convolve(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """Each feature by itself over neighbours on both sides; padding is read as zeros, as what is beyond is."""
        gated_BSD = nn.functional.glu(self.gate(x_BSD), dim=2).masked_fill(~mask_BS[:, :, None], 0.0)
        near_BSD = self.depthwise(gated_BSD.transpose(1, 2)).transpose(1, 2)
        return self.output(nn.functional.silu(self.norm(near_BSD)))

    @staticmethod
    def _half(x_BSD: Tensor, feedforward: FeedForward, around: Wrap) -> Tensor:
        return around.after(x_BSD, feedforward(around.before(x_BSD)) / 2)


Layer = EncoderLayer | ConformerLayer


class Encoder(nn.Module):
    """A stack of layers, and a last normalization where blocks normalize before."""

    def __init__(self, layers: Sequence[Layer], last: nn.Module) -> None:
        super().__init__()
        self.layers, self.last = nn.ModuleList(layers), last

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Memory:
        """Vectors of the source to the memory that decoders read."""
        for layer in self.layers:
            x_BSD = layer(x_BSD, mask_BS)
        x_BSD = self.last(x_BSD)
        assert isinstance(layer, Layer)
        return Memory(x_BSD, mask_BS, layer.mix.summary(x_BSD, mask_BS))


def make_encoder(
    kind: str, common: Common, *, layers: int, bidirectional: bool, kernel: int, window: int = 0, global_tokens: int = 0
) -> Encoder:
    """The encoder of that family; with a window, self-attention looks no further than that."""
    several = common.width, common.dropout_attention, common.heads, common.positions

    def attention() -> SelfAttentionMixer:
        if window:
            return SelfAttentionMixer(WindowedAttention(*several, window, global_tokens))
        return SelfAttentionMixer(SelfAttention(*several, causal=False))

    def mixer() -> Mixer:
        if kind in KERNELS:
            return RecurrentMixer(kind, common.width, bidirectional, common.activation, common.dropout_recurrent)
        return ConvMixer(common.width, kernel) if kind == "conv" else attention()

    if kind == "conformer":  # whose layers end with a normalization themselves
        return Encoder([ConformerLayer(attention(), common, kernel) for _ in range(layers)], nn.Identity())
    return Encoder([EncoderLayer(mixer(), common.inner(), common.wraps()) for _ in range(layers)], common.last())
