"""How order enters a model that reads all positions at once: added to embeddings, turned into them, or as a bias."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from antiphon.core.errors import ConfigError


def sinusoids(position: Tensor, width: int) -> Tensor:
    """Sines and cosines of the positions, `[..., width]` (Vaswani et al. 2017)."""
    steps = torch.arange(0, width, 2, device=position.device, dtype=torch.float32)
    angle = position[..., None] * torch.exp(steps * (-math.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[..., :width]


class Sinusoidal(nn.Module):
    """Fixed waves added to the embeddings; any length (Vaswani et al. 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, position: Tensor) -> Tensor:
        """Vectors `[..., D]` for integer positions."""
        return sinusoids(position, self.width)


class Learned(nn.Module):
    """One learned vector a position, up to a fixed length (Gehring et al. 2017)."""

    def __init__(self, width: int, longest: int) -> None:
        super().__init__()
        self.table = nn.Embedding(longest, width)

    def forward(self, position: Tensor) -> Tensor:
        """Vectors `[..., D]` for integer positions; a position beyond the table is an error."""
        if not torch.compiler.is_compiling() and position.max() >= self.table.num_embeddings:
            raise ConfigError(
                f"learned positions end at {self.table.num_embeddings}",
                got=int(position.max()) + 1,
                do="raise model.max_positions or choose other model.positions",
            )
        return self.table(position)


def rotate(x_BHTD: Tensor, place: Tensor) -> Tensor:
    """Rotary positions: pairs of features turned by an angle that grows with the place, `[T]` or `[B, 1, T]` (Su et
    al. 2021)."""
    half = x_BHTD.shape[3] // 2
    waves = sinusoids(place, 2 * half).unflatten(-1, (half, 2)).to(x_BHTD.dtype)
    sine, cosine = waves[..., 0], waves[..., 1]
    first, second, rest = x_BHTD.split([half, half, x_BHTD.shape[3] - 2 * half], dim=3)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=3)


class T5Bias(nn.Module):
    """A learned bias for each head and logarithmic bucket of distance (Raffel et al. 2020)."""

    def __init__(self, heads: int, causal: bool, buckets: int = 32, farthest: int = 128) -> None:
        super().__init__()
        self.causal, self.buckets, self.farthest = causal, buckets, farthest
        self.table = nn.Embedding(buckets, heads)

    def forward(self, distance: Tensor) -> Tensor:
        """Bias `[..., H, T, S]` for query place minus key place, `[..., T, S]`."""
        return self.table(self._bucket(distance)).transpose(-1, -2).transpose(-2, -3)

    def _bucket(self, distance: Tensor) -> Tensor:
        buckets, side = self.buckets, torch.zeros_like(distance)
        if not self.causal:
            buckets //= 2
            side = (distance < 0) * buckets
        distance = distance.clamp(min=0) if self.causal else distance.abs()
        exact = buckets // 2
        ratio = (distance.clamp(min=1) / exact).log() / math.log(self.farthest / exact)
        far = (exact + ratio * (buckets - exact)).long().clamp(max=buckets - 1)
        return side + torch.where(distance < exact, distance, far)


class AlibiBias(nn.Module):
    """A penalty that grows with distance at a rate fixed for each head (Press et al. 2022)."""

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """Bias `[..., H, T, S]` for query place minus key place, `[..., T, S]`."""
        return -self.slopes[:, None, None] * distance[..., None, :, :].abs()
