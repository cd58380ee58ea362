"""Self-attention to neighbours alone: time and memory grow with the length of the source, not with its square."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.core.batch import State
from antiphon.models.attention import SelfAttention
from antiphon.models.functional import attend_unseen, hide, join_heads, split_heads
from antiphon.models.positions import rotate


class WindowedAttention(SelfAttention):
    """Each position looks at those at most `window` away, in sliding blocks (Longformer, Beltagy et al. 2020).

    The first `global_tokens` positions look, and are looked at, everywhere. Seen from them, and from elsewhere at them,
    whatever is further from the beginning than `window + global_tokens` stands just there: no distance occurs that
    training on sources of that length has not shown. The weights are those of `SelfAttention`.
    """

    def __init__(
        self, width: int, share: float, heads: int, positions: str, window: int, global_tokens: int = 0
    ) -> None:
        super().__init__(width, share, heads, positions, causal=False)
        self.window, self.global_tokens = window, global_tokens

    def forward(self, x_BTD: Tensor, mask_BS: Tensor | None = None) -> tuple[Tensor, State]:
        """`[B, S, D]` attended; there is no past to go on from."""
        if mask_BS is None:
            mask_BS = x_BTD.new_ones(x_BTD.shape[:2], dtype=torch.bool)
        query, keys, values = split_heads(self.inputs(x_BTD), self.heads, 3)
        first = min(self.global_tokens, x_BTD.shape[1])
        context = self._near(query, keys, values, mask_BS, first)
        if first:
            far = self._from_global(query[:, :, :first], keys, values, mask_BS)
            context = torch.cat([far, context[:, :, first:]], 2)
        return self.output(join_heads(context, x_BTD.dtype)), {}

    def _near(self, query: Tensor, keys: Tensor, values: Tensor, mask_BS: Tensor, first: int) -> Tensor:
        """The context `[B, H, S, D/H]` of every position from its neighbours and the global ones."""
        (rows, heads, length, width), device = query.shape, query.device
        # One block of all is as small as several with both their neighbours each; in a graph for all lengths, never.
        one = not torch.compiler.is_compiling() and length <= 3 * self.window
        size, reach = (length, 0) if one else (self.window, self.window)
        place_S = torch.arange(length, device=device)
        looks, near, far = self._turned(query, keys, place_S, first)
        blocks = (length + size - 1) // size
        seen_S = mask_BS & (place_S >= first)
        seen_XK = _windows(seen_S[:, None, :, None], size, reach).view(rows * blocks, 1, 1, -1)
        distance_QK = torch.arange(size, device=device)[:, None] - torch.arange(-reach, size + reach, device=device)
        added = hide(seen_XK & (distance_QK.abs() <= self.window), query.dtype)
        if self.bias is not None:
            added = added + self.bias(distance_QK)
        block_keys, block_values = _windows(near, size, reach), _windows(values, size, reach)
        if first:
            block_keys = torch.cat([_repeated(far[:, :, :first], blocks), block_keys], 2)
            block_values = torch.cat([_repeated(values[:, :, :first], blocks), block_values], 2)
            added = torch.cat([self._to_global(mask_BS[:, :first], blocks, size, added), added], 3)
        looks_XQ = _windows(looks, size, 0)
        context = attend_unseen(looks_XQ, block_keys, block_values, added, self.share, self.training)
        context = context.reshape(rows, blocks, heads, size, -1).transpose(1, 2)
        return context.reshape(rows, heads, -1, width)[:, :, :length]

    def _turned(self, query: Tensor, keys: Tensor, place_S: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, and the keys that they meet near and as global ones.

        Rotary positions turn a query otherwise for either, so it is there twice, beside keys that are half zeros.
        """
        if not self.rotary:
            return query, keys, keys
        near_query, near = rotate(query, place_S), rotate(keys, place_S)
        if not first:
            return near_query, near, near
        far_query, far = (rotate(each, self._capped(place_S)) for each in (query, keys))
        looks = torch.cat([near_query, far_query], 3) * math.sqrt(2)  # for `attend` divides by the root of the width
        zeros = torch.zeros_like(near)
        return looks, torch.cat([near, zeros], 3), torch.cat([zeros, far], 3)

    def _capped(self, place: Tensor) -> Tensor:
        """Places as they are from and to global positions."""
        return place.clamp_max(self.window + self.global_tokens)

    def _to_global(self, mask_BG: Tensor, blocks: int, size: int, added: Tensor) -> Tensor:
        """What is added to the scores of blocks of queries with global keys, `[B * N, H or 1, Q, G]`."""
        rows, first = mask_BG.shape
        hidden = hide(mask_BG, added.dtype)[:, None, None, None].expand(rows, blocks, added.shape[1], size, first)
        if self.bias is not None:
            place_NQ = torch.arange(blocks * size, device=added.device).view(blocks, size)
            key_G = self._capped(torch.arange(first, device=added.device))
            hidden = hidden + self.bias(self._capped(place_NQ)[..., None] - key_G)
        return hidden.flatten(0, 1)

    def _from_global(self, query: Tensor, keys: Tensor, values: Tensor, mask_BS: Tensor) -> Tensor:
        """The context `[B, H, G, D/H]` of the global positions, which look at all."""
        place_S = self._capped(torch.arange(keys.shape[2], device=keys.device))
        place_G = place_S[: query.shape[2]]
        if self.rotary:
            query, keys = rotate(query, place_G), rotate(keys, place_S)
        added = hide(mask_BS, query.dtype)[:, None, None]
        if self.bias is not None:
            added = added + self.bias(place_G[:, None] - place_S)
        return attend_unseen(query, keys, values, added, self.share, self.training)


def _windows(x_BHSD: Tensor, size: int, reach: int) -> Tensor:
    """Blocks of `size` positions with `reach` (0 or `size`) more on either side, `[B * N, H, size + 2 reach, D]`.

    Zeros stand beyond the ends.
    """
    rows, heads, length, width = x_BHSD.shape
    blocks = (length + size - 1) // size + (2 if reach else 0)
    x_BHSD = F.pad(x_BHSD, (0, 0, reach, size - 1 + reach))[:, :, : blocks * size]
    x_BHNWD = x_BHSD.reshape(rows, heads, blocks, size, width)
    if reach:
        x_BHNWD = torch.cat([x_BHNWD[:, :, :-2], x_BHNWD[:, :, 1:-1], x_BHNWD[:, :, 2:]], 3)
    return x_BHNWD.transpose(1, 2).flatten(0, 1)


def _repeated(x_BHGD: Tensor, blocks: int) -> Tensor:
    """The same for every block of a sentence, `[B * N, H, G, D]`."""
    return x_BHGD[:, None].expand(-1, blocks, -1, -1, -1).flatten(0, 1)
