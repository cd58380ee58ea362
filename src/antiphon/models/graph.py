"""Facts as a graph: every token of an entity or a relation sees all others by how they are linked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from antiphon.core.batch import Memory, Padded
from antiphon.models.attention import Common, FeedForward, Wrap
from antiphon.models.frontends import TextFrontend
from antiphon.models.functional import attend_unseen, hide, join_heads, split_heads
from antiphon.models.linear import Linear
from antiphon.models.positions import sinusoids

NEAR = 4
"""Distances within a label that are told apart."""

FAR, TO_RELATION, FROM_SUBJECT, TO_OBJECT, FROM_RELATION, TOWARDS, AGAINST, SIBLING, SAME = range(9)
"""How a token is linked to another: not, subject to relation and back, object to relation and back, subject to object
and back, relations of one subject; from `SAME + NEAR` on, tokens of one label by their distance."""

LINKS = SAME + 2 * NEAR + 1


def links(node_BF: Tensor, subject_BF: Tensor, object_BF: Tensor) -> Tensor:
    """The kind of link from each token to each other, `[B, F, F]`; all arguments as in `Batch.context`."""
    own, other = node_BF[:, :, None], node_BF[:, None]
    relation_BF = subject_BF > 0
    kinds = torch.full((*node_BF.shape, node_BF.shape[1]), FAR, dtype=torch.long, device=node_BF.device)

    def mark(where_BFF: Tensor, kind: int) -> None:
        kinds.masked_fill_(where_BFF, kind)

    mark((subject_BF[:, :, None] == subject_BF[:, None]) & relation_BF[:, :, None], SIBLING)
    starts_BFF = (own == subject_BF[:, None]) & relation_BF[:, None]
    ends_BFF = (own == object_BF[:, None]) & relation_BF[:, None]
    joined_BFF = (starts_BFF.float() @ ends_BFF.float().transpose(1, 2)) > 0
    for where_BFF, kind, back in (
        (joined_BFF, TOWARDS, AGAINST), (starts_BFF, TO_RELATION, FROM_SUBJECT), (ends_BFF, TO_OBJECT, FROM_RELATION),
    ):  # fmt: skip
        mark(where_BFF, kind)
        mark(where_BFF.transpose(1, 2), back)
    place_F = torch.arange(node_BF.shape[1], device=node_BF.device)
    distance_FF = (place_F[None] - place_F[:, None]).clamp(-NEAR, NEAR)
    return torch.where(own == other, SAME + NEAR + distance_FF, kinds)


def places(node_BF: Tensor) -> Tensor:
    """The place of each token in its label, from 0."""
    place_F = torch.arange(node_BF.shape[1], device=node_BF.device)
    first_BF = torch.cat([torch.ones_like(node_BF[:, :1], dtype=torch.bool), node_BF[:, 1:] != node_BF[:, :-1]], 1)
    begins_BFF = (place_F * first_BF)[:, None].masked_fill(place_F > place_F[:, None], 0)
    return place_F - begins_BFF.amax(2)


class RelationalAttention(nn.Module):
    """Self-attention with a learned bias for each head and kind of link (Schmitt et al. 2021; Shaw et al. 2018)."""

    def __init__(self, width: int, share: float, heads: int) -> None:
        super().__init__()
        self.heads, self.share = heads, share
        self.inputs = Linear(width, 3 * width)
        self.output = Linear(width, width)
        self.table = nn.Parameter(torch.zeros(LINKS, heads))

    def forward(self, x_BFD: Tensor, links_BFF: Tensor, mask_BF: Tensor) -> Tensor:
        """`[B, F, D]` to `[B, F, D]`."""
        query, keys, values = split_heads(self.inputs(x_BFD), self.heads, 3)
        bias_BHFF = nn.functional.embedding(links_BFF, self.table).movedim(3, 1).to(query.dtype)
        added = bias_BHFF + hide(mask_BF, query.dtype)[:, None, None]
        context = attend_unseen(query, keys, values, added, self.share, self.training)
        return self.output(join_heads(context, x_BFD.dtype))

    @torch.no_grad()
    def initialize(self) -> None:
        """Heads begin by looking along different links; from equal ones they take long to part."""
        nn.init.normal_(self.table, std=2.0)


class GraphLayer(nn.Module):
    """Relational attention, and a feed-forward block unless its inner width is 0, each wrapped."""

    def __init__(self, attention: RelationalAttention, feedforward: FeedForward | None, wraps: Iterator[Wrap]) -> None:
        super().__init__()
        self.attention, self.around_attention = attention, next(wraps)
        self.feedforward = feedforward
        if feedforward is not None:
            self.around_feedforward = next(wraps)

    def forward(self, x_BFD: Tensor, links_BFF: Tensor, mask_BF: Tensor) -> Tensor:
        """`[B, F, D]` to `[B, F, D]`."""
        around = self.around_attention
        x_BFD = around.after(x_BFD, self.attention(around.before(x_BFD), links_BFF, mask_BF))
        if self.feedforward is not None:
            around = self.around_feedforward
            x_BFD = around.after(x_BFD, self.feedforward(around.before(x_BFD)))
        return x_BFD


class GraphEncoder(nn.Module):
    """The facts of a pair to a memory with one position for each token of a label, so that labels can be copied.

    Graformer (Schmitt et al. 2021): the nodes of the Levi graph (Beck et al. 2018), entities and relations, are split
    into their tokens, each of which attends to all others, by heads that know how the two are linked. A token's vector
    is that of the source's embedding, so that unseen entities are read as well as their words are; its place in the
    label and whether that is an entity or a relation are added. The order of the facts is not seen.
    """

    def __init__(self, common: Common, *, layers: int) -> None:
        super().__init__()
        self.kinds = nn.Embedding(2, common.width)
        self.layers = nn.ModuleList(
            GraphLayer(
                RelationalAttention(common.width, common.dropout_attention, common.heads),
                common.inner(),
                common.wraps(),
            )
            for _ in range(layers)
        )
        self.last = common.last()

    def forward(self, frontend: TextFrontend, context: Mapping[str, Padded]) -> Memory:
        """The facts in a batch's context to the memory; a row may have none."""
        facts, node_BF, subject_BF = context["facts"], context["fact_node"].values, context["fact_subject"].values
        mask_BF = facts.mask_BL
        width = self.kinds.embedding_dim
        if not facts.values.shape[1]:
            states = self.kinds.weight.new_zeros(*facts.values.shape, width)
            return Memory(states, mask_BF, states.sum(1))
        waves_BFD = sinusoids(places(node_BF), width) + self.kinds((subject_BF > 0).long()) * frontend.scale
        x_BFD = frontend.placed(facts.values, waves_BFD)
        links_BFF = links(node_BF, subject_BF, context["fact_object"].values)
        for layer in self.layers:
            x_BFD = layer(x_BFD, links_BFF, mask_BF)
        x_BFD = self.last(x_BFD).masked_fill(~mask_BF[:, :, None], 0.0)
        return Memory(x_BFD, mask_BF, x_BFD.sum(1) / mask_BF.sum(1, keepdim=True).clamp_min(1))
