"""All encoders, side by side: a stack of blocks, told apart by how a block mixes positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from antiphon.core.batch import Memory
from antiphon.models.attention import FeedForward, SelfAttention, Wrap, make_norm
from antiphon.models.functional import reverse
from antiphon.models.recurrent import KERNELS, Recurrent


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
            return ahead  # type: ignore[no-any-return]
        back, _ = self.back(reverse(x_BSD, mask_BS))
        return torch.cat([ahead, reverse(back, mask_BS)], dim=2)

    def summary(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """The last state of each direction, `[B, D]` (Sutskever et al. 2014)."""
        last = x_BSD[torch.arange(len(x_BSD), device=x_BSD.device), mask_BS.sum(1) - 1]
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
    """Every position looks at every other (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int, positions: str, share: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, share, heads, positions, causal=False)

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """`[B, S, D]` to `[B, S, D]`."""
        return self.attention(x_BSD, mask_BS)[0]  # type: ignore[no-any-return]

    def summary(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """The mean over the source, `[B, D]`."""
        return masked_mean(x_BSD, mask_BS)


def masked_mean(x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
    """Mean over the real positions, `[B, D]`."""
    return x_BSD.masked_fill(~mask_BS[:, :, None], 0.0).sum(1) / mask_BS.sum(1, keepdim=True)


class EncoderLayer(nn.Module):
    """A mixer, and a feed-forward block unless its inner width is 0, each wrapped."""

    def __init__(self, mixer: nn.Module, feedforward: FeedForward | None, wraps: list[Wrap]) -> None:
        super().__init__()
        self.mix, self.feedforward, self.wraps = mixer, feedforward, nn.ModuleList(wraps)

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """`[B, S, D]` to `[B, S, D]`."""
        wrap = self.wraps[0]
        x_BSD = wrap.after(x_BSD, self.mix(wrap.before(x_BSD), mask_BS))
        if self.feedforward is not None:
            wrap = self.wraps[1]
            x_BSD = wrap.after(x_BSD, self.feedforward(wrap.before(x_BSD)))
        return x_BSD


class Encoder(nn.Module):
    """A stack of layers, and a last normalization where blocks normalize before."""

    def __init__(self, layers: list[EncoderLayer], last: nn.Module) -> None:
        super().__init__()
        self.layers, self.last = nn.ModuleList(layers), last

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> Memory:
        """Vectors of the source to the memory that decoders read."""
        for layer in self.layers:
            x_BSD = layer(x_BSD, mask_BS)
        x_BSD = self.last(x_BSD)
        return Memory(x_BSD, mask_BS, self.layers[-1].mix.summary(x_BSD, mask_BS))


def make_encoder(
    kind: str,
    *,
    width: int,
    layers: int,
    feedforward: int,
    heads: int,
    bidirectional: bool,
    kernel: int,
    positions: str,
    norm: str,
    norm_kind: str,
    activation: str,
    residual: bool,
    dropout: float,
    dropout_attention: float,
    dropout_recurrent: float,
) -> Encoder:
    """The encoder of that family."""

    def mixer() -> nn.Module:
        if kind in KERNELS:
            return RecurrentMixer(kind, width, bidirectional, activation, dropout_recurrent)
        if kind == "conv":
            return ConvMixer(width, kernel)
        return SelfAttentionMixer(width, heads, positions, dropout_attention)

    def layer() -> EncoderLayer:
        inner = FeedForward(width, feedforward, activation, dropout) if feedforward else None
        wraps = [Wrap(width, norm, norm_kind, residual, dropout) for _ in range(2 if feedforward else 1)]
        return EncoderLayer(mixer(), inner, wraps)

    last = make_norm(width, norm_kind) if norm == "pre" else nn.Identity()
    return Encoder([layer() for _ in range(layers)], last)
