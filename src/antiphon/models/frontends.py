"""From what was read to vectors: embeddings of ids, and fewer and wider frames; with positions and dropout."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from antiphon.core.batch import EOS, UNK, Padded
from antiphon.core.config import Frontend
from antiphon.core.errors import ConfigError
from antiphon.models.encoders import RecurrentMixer
from antiphon.models.functional import dropout
from antiphon.models.linear import Linear
from antiphon.models.positions import Learned, Sinusoidal


class TextFrontend(nn.Module):
    """Ids to vectors: an embedding scaled by sqrt(D), positions added if asked for, dropout.

    Ids at or above the vocabulary (words that a copy head took from the source) are read as unknown.
    """

    def __init__(self, embedding: nn.Embedding, *, positions: str, longest: int, share: float, words: float) -> None:
        super().__init__()
        width = embedding.embedding_dim
        self.embedding, self.share, self.words = embedding, share, words
        self.scale = width**0.5
        self.positions: nn.Module | None = None
        if positions == "sinusoidal":
            self.positions = Sinusoidal(width)
        elif positions == "learned":
            self.positions = Learned(width, longest)

    def forward(self, ids_BL: Tensor, start_B: Tensor | None = None) -> Tensor:
        """`[B, L]` to `[B, L, D]`; the first id of row b stands at position `start_B[b]`, 0 where not given."""
        if self.positions is None:
            return self.placed(ids_BL)
        position = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        return self.placed(ids_BL, self.positions(position if start_B is None else position + start_B[:, None]))

    def read(self, source: Padded) -> tuple[Tensor, Tensor]:
        """Source ids to `[B, S, D]`, and where these are real, `[B, S]`."""
        return self(source.values), source.mask_BL

    @property
    def size(self) -> int:
        """Tokens of the vocabulary."""
        return self.embedding.num_embeddings

    def placed(self, ids_BL: Tensor, waves: Tensor | None = None) -> Tensor:
        """`[B, L]` to `[B, L, D]`, with `waves` for their places added."""
        ids_BL = ids_BL.masked_fill(ids_BL >= self.embedding.num_embeddings, UNK)
        if self.training and self.words:
            lost = torch.rand(ids_BL.shape, device=ids_BL.device) < self.words
            ids_BL = ids_BL.masked_fill(lost & (ids_BL > EOS), UNK)
        x_BLD = self.embedding(ids_BL)
        if waves is None:
            return dropout(x_BLD * self.scale, self.share, self.training)
        return dropout(torch.add(waves.to(x_BLD.dtype), x_BLD, alpha=self.scale), self.share, self.training)


class NumbersFrontend(nn.Module):
    """The numbers before to vectors: a matrix, a learned vector before the first, positions if asked for, dropout; and
    a matrix for the `covariates` of each step that is to be said, where there are some."""

    def __init__(
        self, features: int, width: int, *, positions: str, longest: int, share: float, covariates: int = 0
    ) -> None:  # fmt: skip
        super().__init__()
        self.size, self.share = features, share
        self.output = Linear(features, width)
        self.covariates = Linear(covariates, width) if covariates else None
        self.begin = nn.Parameter(torch.zeros(width))
        self.positions: nn.Module | None = None
        if positions == "sinusoidal":
            self.positions = Sinusoidal(width)
        elif positions == "learned":
            self.positions = Learned(width, longest)

    def forward(self, values_BLF: Tensor, start_B: Tensor | None = None, ahead: Padded | None = None) -> Tensor:
        """`[B, L, F]` to `[B, L, D]`; the first step of row b stands at place `start_B[b]`, 0 where not given. What
        stands at place 0 is not read: the learned vector is. `ahead` has the covariates `[B, T, C]` of all steps, the
        last of which stands for those after it."""
        place = torch.arange(values_BLF.shape[1], device=values_BLF.device)
        place = place if start_B is None else place + start_B[:, None]
        x_BLD = self.output(values_BLF.to(self.begin.dtype))
        x_BLD = torch.where((place == 0)[..., None], self.begin, x_BLD)
        if self.positions is not None:
            x_BLD = x_BLD + self.positions(place).to(x_BLD.dtype)
        if self.covariates is not None:
            assert ahead is not None, "this model needs Batch.context['ahead']"
            times = len(values_BLF) // len(ahead.lengths_B)  # rows are hypotheses, several a source
            last_B = (ahead.lengths_B - 1).repeat_interleave(times)
            known_BL = torch.minimum(place.expand(len(values_BLF), -1), last_B[:, None])
            index_BLC = known_BL[..., None].expand(-1, -1, ahead.values.shape[2])
            known_BLC = ahead.values.repeat_interleave(times, 0).gather(1, index_BLC)
            x_BLD = x_BLD + self.covariates(known_BLC.to(x_BLD.dtype))
        return dropout(x_BLD, self.share, self.training)


class Stack(nn.Module):
    """Frames side by side, as many as become one vector, and a matrix."""

    def __init__(self, features: int, width: int, reduce: int) -> None:
        super().__init__()
        self.reduce = reduce
        self.output = Linear(reduce * features, width)

    def forward(self, x_BLF: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, L, F]` to `[B, S, D]` and its mask; S is L / reduce, rounded up."""
        rows, length, features = x_BLF.shape
        whole = (length + self.reduce - 1) // self.reduce
        x_BLF = nn.functional.pad(x_BLF, (0, 0, 0, self.reduce - 1))[:, : whole * self.reduce]
        return self.output(x_BLF.reshape(rows, whole, self.reduce * features)), mask_BL[:, :: self.reduce]


class Convolutions(nn.Module):
    """Convolutions over time, each but the first of reduce 1 keeping every other place."""

    def __init__(self, features: int, width: int, reduce: int) -> None:
        super().__init__()
        steps = [2] * (reduce.bit_length() - 1) or [1]
        sizes = [features, *[width] * len(steps)]
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, 3, step, padding=1)
            for before, after, step in zip(sizes, sizes[1:], steps, strict=False)
        )
        self.output = Linear(width, width)

    def forward(self, x_BLF: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, L, F]` to `[B, S, D]` and its mask."""
        for layer in self.layers:
            assert isinstance(layer, nn.Conv1d)
            x_BLF = layer(x_BLF.transpose(1, 2)).relu().transpose(1, 2)
            x_BLF, mask_BL = _kept(x_BLF, mask_BL, layer.stride[0])
        return self.output(x_BLF), mask_BL


class Convolutions2d(nn.Module):
    """Convolutions over time and features, which a voice may share at another height (Dong et al. 2018)."""

    CHANNELS = 32

    def __init__(self, features: int, width: int, reduce: int) -> None:
        super().__init__()
        halvings = reduce.bit_length() - 1
        steps = [(2, 2)] * halvings + [(1, 2)] * (2 - halvings)
        sizes = [1, *[self.CHANNELS] * len(steps)]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, step, padding=1)
            for before, after, step in zip(sizes, sizes[1:], steps, strict=False)
        )
        self.output = Linear(self.CHANNELS * -(-features // 2 ** len(steps)), width)

    def forward(self, x_BLF: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, L, F]` to `[B, S, D]` and its mask."""
        x_BCLF = x_BLF[:, None]
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d)
            mask_BL = mask_BL[:, :: layer.stride[0]]
            x_BCLF = layer(x_BCLF).relu().masked_fill(~mask_BL[:, None, :, None], 0.0)
        return self.output(x_BCLF.transpose(1, 2).flatten(2)), mask_BL


class Pyramid(nn.Module):
    """LSTMs in both directions, each of which hands on its states in pairs (Chan et al. 2016)."""

    def __init__(self, features: int, width: int, reduce: int) -> None:
        super().__init__()
        self.input = Linear(features, width)
        layers = range(reduce.bit_length() - 1)
        self.layers = nn.ModuleList(RecurrentMixer("lstm", width, True, "tanh", 0.0) for _ in layers)
        self.pairs = nn.ModuleList(Stack(width, width, 2) for _ in layers)

    def forward(self, x_BLF: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, L, F]` to `[B, S, D]` and its mask."""
        x_BLD = self.input(x_BLF)
        for layer, pair in zip(self.layers, self.pairs, strict=True):
            x_BLD, _ = _kept(layer(x_BLD, mask_BL), mask_BL, 1)
            x_BLD, mask_BL = pair(x_BLD, mask_BL)
        return x_BLD, mask_BL


def _kept(x_BLD: Tensor, mask_BL: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Zeros where a position is padding, so that nothing past the end of a source can be told from silence."""
    mask_BL = mask_BL[:, ::step]
    return x_BLD.masked_fill(~mask_BL[:, :, None], 0.0), mask_BL


class Pictures(nn.Module):
    """Pictures to vectors, each by itself, with convolutions that halve its sides until these are small; then
    convolutions over time, as `Convolutions`. F is side * side * channels, of which there are one or three."""

    CHANNELS, MOST, SIDE, GROUPS = 16, 64, 4, 4
    """Channels of the first layer, twice as many in each that follows, up to the most; the longest side that is left;
    and groups of channels that are normalized together, in each picture (Wu and He 2018)."""

    def __init__(self, features: int, width: int, reduce: int) -> None:
        super().__init__()
        self.side, self.channels = _square(features)
        layers, side, before = list[nn.Module](), self.side, self.channels
        while side > self.SIDE or not layers:
            after = min(self.MOST, 2 * before if layers else self.CHANNELS)
            layers += [nn.Conv2d(before, after, 3, 2, padding=1), nn.GroupNorm(self.GROUPS, after), nn.ReLU()]
            before, side = after, -(-side // 2)
        self.layers = nn.Sequential(*layers)
        self.output, self.norm = Linear(before * side**2, width), nn.LayerNorm(width)
        self.time = Convolutions(width, width, reduce)

    def forward(self, x_BLF: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, L, F]` to `[B, S, D]` and its mask."""
        x_NYXC = x_BLF.reshape(-1, self.side, self.side, self.channels)
        x_NF = self.layers(x_NYXC.permute(0, 3, 1, 2)).flatten(1)
        x_BLD, mask_BL = _kept(self.norm(self.output(x_NF)).reshape(*x_BLF.shape[:2], -1), mask_BL, 1)
        found: tuple[Tensor, Tensor] = self.time(x_BLD, mask_BL)
        return found


def _square(features: int) -> tuple[int, int]:
    """Side and channels of pictures of so many numbers; `ConfigError` where these make no square."""
    for channels in (3, 1):
        side = math.isqrt(features // channels)
        if side * side * channels == features:
            return side, channels
    what = "model.frontend.kind=pictures needs square ones: side * side * 3 features, or side * side"
    raise ConfigError(what, got=features, do="choose another model.frontend.kind, or data.source.kind=video")


REDUCERS = {"stack": Stack, "conv": Convolutions, "conv2d": Convolutions2d, "pyramid": Pyramid, "pictures": Pictures}


class FramesFrontend(nn.Module):
    """Frames to vectors: fewer of them, of width D, positions added if asked for, dropout.

    While training, stretches of time and runs of features are hidden at random (SpecAugment, Park et al. 2019).
    """

    def __init__(
        self, size: int, width: int, settings: Frontend, *, positions: str, longest: int, share: float
    ) -> None:
        super().__init__()
        self.size, self.settings, self.share = size, settings, share
        self.reducer = REDUCERS[settings.kind or "conv"](size, width, settings.reduce or 1)
        self.positions: nn.Module | None = None
        if positions == "sinusoidal":
            self.positions = Sinusoidal(width)
        elif positions == "learned":
            self.positions = Learned(width, longest)

    def read(self, source: Padded) -> tuple[Tensor, Tensor]:
        """Source frames `[B, L, F]` to `[B, S, D]`, and where these are real, `[B, S]`."""
        x_BLF, _ = _kept(source.values.to(next(self.reducer.parameters()).dtype), source.mask_BL, 1)
        if self.training:
            x_BLF = self.hidden(x_BLF, source.lengths_B)
        x_BSD, mask_BS = self.reducer(x_BLF, source.mask_BL)
        if self.positions is not None:
            x_BSD = x_BSD + self.positions(torch.arange(x_BSD.shape[1], device=x_BSD.device)).to(x_BSD.dtype)
        return dropout(x_BSD, self.share, self.training), mask_BS

    def hidden(self, x_BLF: Tensor, lengths_B: Tensor) -> Tensor:
        """The frames with zeros, which is what is usual, in some stretches of time and runs of features."""
        given, (rows, longest, features) = self.settings, x_BLF.shape
        if given.time_masks:
            over_BL = _runs(lengths_B, longest, given.time_masks, given.time_share)
            x_BLF = x_BLF.masked_fill(over_BL[:, :, None], 0.0)
        if given.feature_masks:
            over_BF = _runs(lengths_B.new_full((rows,), features), features, given.feature_masks, given.feature_share)
            x_BLF = x_BLF.masked_fill(over_BF[:, None], 0.0)
        return x_BLF


def _runs(lengths_B: Tensor, longest: int, count: int, share: float) -> Tensor:
    """True in so many runs a row, `[B, longest]`: each starts anywhere and takes up to that share of the row."""
    draws_2BN = torch.rand(2, len(lengths_B), count, device=lengths_B.device)
    width_BN = (draws_2BN[0] * ((share * lengths_B[:, None]).floor() + 1)).floor()
    start_BN = (draws_2BN[1] * (lengths_B[:, None] - width_BN + 1)).floor()
    place = torch.arange(longest, device=lengths_B.device)
    return ((place >= start_BN[..., None]) & (place < (start_BN + width_BN)[..., None])).any(1)
