"""From what was read to vectors: embeddings of ids, with positions and word dropout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from antiphon.core.batch import EOS, UNK
from antiphon.models.functional import dropout
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
