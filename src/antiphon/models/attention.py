"""How one sequence looks at another: the classic single-head scores, multi-head attention, self-attention.

Every cross attention has `memorize(states_BSD)`, what depends on the source alone and is kept for all steps, and
`forward(query_NTD, stored, mask_BS, state)`. N is a multiple of B: the k hypotheses of a sentence are k more queries,
so the memory is never copied for a beam.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.core.batch import State
from antiphon.models.additive import additive_scores, seeing_scores, tanh
from antiphon.models.functional import (
    activation,
    add_dropout,
    attend,
    attend_unseen,
    dropout,
    hide,
    join_heads,
    relu_dropout,
    split_heads,
)
from antiphon.models.linear import Linear
from antiphon.models.positions import AlibiBias, T5Bias, rotate


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis with exactly zero where the mask is False; a row without True is uniform, not NaN."""
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1)


class CrossAttention(nn.Module):
    """Base of the single-head attentions: scores, weights, and Luong's attentional vector tanh(W [context; query])."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__()
        self.share = share
        self.merge = Linear(2 * width, width)

    def memorize(self, states_BSD: Tensor) -> State:
        """What the scores need of the source."""
        return {"values": states_BSD}

    def scores(self, query_BQD: Tensor, stored: State) -> Tensor:
        """Unnormalized scores `[B, Q, S]`."""
        raise NotImplementedError

    def forward(self, query_NTD: Tensor, stored: State, mask_BS: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """The attentional vectors `[N, T, D]`, the weights `[N, T, S]`, and what to remember."""
        query_BQD = query_NTD.reshape(mask_BS.shape[0], -1, query_NTD.shape[2])
        weights = masked_softmax(self.scores(query_BQD, stored), mask_BS[:, None])
        context = (dropout(weights, self.share, self.training) @ stored["values"]).view(query_NTD.shape)
        merged = tanh(self.merge(torch.cat([context, query_NTD], dim=2)))
        return merged, weights.view(*query_NTD.shape[:2], -1), {}

    def start(self, mask_BS: Tensor, dtype: torch.dtype) -> State:
        """What is remembered before the first step."""
        return {}


class Dot(CrossAttention):
    """query . state (Luong et al. 2015)."""

    def scores(self, query_BQD: Tensor, stored: State) -> Tensor:
        """Unnormalized scores `[B, Q, S]`."""
        return query_BQD @ stored["values"].transpose(1, 2)


class General(CrossAttention):
    """query . W state (Luong et al. 2015)."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__(width, share)
        self.keys = Linear(width, width, bias=False)

    def memorize(self, states_BSD: Tensor) -> State:
        """What the scores need of the source."""
        return {"values": states_BSD, "keys": self.keys(states_BSD)}

    def scores(self, query_BQD: Tensor, stored: State) -> Tensor:
        """Unnormalized scores `[B, Q, S]`."""
        return query_BQD @ stored["keys"].transpose(1, 2)


class Additive(CrossAttention):
    """v . tanh(W query + U state) (Bahdanau et al. 2015)."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__(width, share)
        self.query = Linear(width, width)
        self.keys = Linear(width, width, bias=False)
        self.vector = Linear(width, 1, bias=False)

    def memorize(self, states_BSD: Tensor) -> State:
        """What the scores need of the source."""
        return {"values": states_BSD, "keys": self.keys(states_BSD)}

    def scores(self, query_BQD: Tensor, stored: State) -> Tensor:
        """Unnormalized scores `[B, Q, S]`."""
        return additive_scores(self.query(query_BQD), stored["keys"], self.vector.weight[0])


class Seeing(Additive):
    """Base of additive attentions that see where they looked before; step by step, so slower."""

    features = 1

    def __init__(self, width: int, share: float) -> None:
        super().__init__(width, share)
        self.seen = Linear(self.features, width, bias=False)

    def start(self, mask_BS: Tensor, dtype: torch.dtype) -> State:
        """Nothing has been looked at."""
        return {"looked": torch.zeros(mask_BS.shape, dtype=dtype, device=mask_BS.device)}

    def see(self, looked_NS: Tensor) -> Tensor:
        """What is seen of it beside each state of the source, `[N, S, F]`."""
        raise NotImplementedError

    def follow(self, looked_NS: Tensor, weights_NS: Tensor) -> Tensor:
        """What is remembered after a step."""
        raise NotImplementedError

    def forward(self, query_NTD: Tensor, stored: State, mask_BS: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """The attentional vectors `[N, T, D]`, the weights `[N, T, S]`, and what to remember."""
        rows, steps, _ = query_NTD.shape
        queries, seen_FD, vector_D = self.query(query_NTD), self.seen.weight.T, self.vector.weight[0]
        looked_NS, weights = state["looked"], []
        for step in range(steps):
            scores = seeing_scores(queries[:, step], self.see(looked_NS), stored["keys"], seen_FD, vector_D)
            weights.append(masked_softmax(scores, mask_BS[:, None]).view(rows, -1))
            looked_NS = self.follow(looked_NS, weights[-1])
        weights_NTS = torch.stack(weights, dim=1)
        folded = weights_NTS.view(mask_BS.shape[0], -1, weights_NTS.shape[2])
        context = (dropout(folded, self.share, self.training) @ stored["values"]).view(query_NTD.shape)
        merged = tanh(self.merge(torch.cat([context, query_NTD], dim=2)))
        return merged, weights_NTS, {"looked": looked_NS}


class Coverage(Seeing):
    """Sees how much each state has had already (See et al. 2017)."""

    def see(self, looked_NS: Tensor) -> Tensor:
        """All of it as it is."""
        return looked_NS[:, :, None]

    def follow(self, looked_NS: Tensor, weights_NS: Tensor) -> Tensor:
        """All weights until now."""
        return looked_NS + weights_NS


class Location(Seeing):
    """Sees where the last step looked, by filters over it (Chorowski et al. 2015): it can move on from there."""

    features, reach = 10, 100

    def __init__(self, width: int, share: float) -> None:
        super().__init__(width, share)
        self.filters = nn.Conv1d(1, self.features, 2 * self.reach + 1, padding=self.reach, bias=False)

    def see(self, looked_NS: Tensor) -> Tensor:
        """What the filters find around each state."""
        return self.filters(looked_NS[:, None]).transpose(1, 2)

    def follow(self, looked_NS: Tensor, weights_NS: Tensor) -> Tensor:
        """The last weights."""
        return weights_NS


class MultiHead(nn.Module):
    """Scaled dot products in several subspaces (Vaswani et al. 2017); weights are the mean over heads."""

    def __init__(self, width: int, share: float, heads: int) -> None:
        super().__init__()
        self.heads, self.share = heads, share
        self.query = Linear(width, width)
        self.keys_values = Linear(width, 2 * width)
        self.output = Linear(width, width)

    def memorize(self, states_BSD: Tensor) -> State:
        """Keys and values of all heads, from one product."""
        keys, values = split_heads(self.keys_values(states_BSD), self.heads, 2)
        return {"keys": keys.contiguous(), "values": values.contiguous()}

    def start(self, mask_BS: Tensor, dtype: torch.dtype) -> State:
        """What is remembered before the first step."""
        return {}

    def forward(self, query_NTD: Tensor, stored: State, mask_BS: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """The attended vectors `[N, T, D]`, the weights of all heads `[B, H, Q, S]`, and what to remember."""
        query_BQD = query_NTD.reshape(mask_BS.shape[0], -1, query_NTD.shape[2])
        (query,) = split_heads(self.query(query_BQD), self.heads, 1)
        added = hide(mask_BS, query.dtype)[:, None, None]
        context, weights = attend(query, stored["keys"], stored["values"], added, self.share, self.training)
        return self.output(join_heads(context, query_NTD.dtype)).view(query_NTD.shape), weights, {}


class SelfAttention(nn.Module):
    """A sequence looking at itself, from its beginning or step by step; queries, keys and values from one product.

    What is kept between steps belongs to a sentence and not to a hypothesis: the columns of keys and values that any
    of its hypotheses has made. The stack keeps for each hypothesis the `places` that they have in its own past (-1: not
    its own), so a beam that is sorted anew moves a few integers and no keys.
    """

    def __init__(self, width: int, share: float, heads: int, positions: str, causal: bool) -> None:
        super().__init__()
        self.heads, self.share, self.causal, self.rotary = heads, share, causal, positions == "rotary"
        self.inputs = Linear(width, 3 * width)
        self.output = Linear(width, width)
        self.bias: nn.Module | None = None
        if positions == "t5":
            self.bias = T5Bias(heads, causal)
        elif positions == "alibi":
            self.bias = AlibiBias(heads)

    def forward(self, x_BTD: Tensor, mask_BS: Tensor | None = None) -> tuple[Tensor, State]:
        """`[B, T, D]` attended, and the past to go on from."""
        query, keys, values = split_heads(self.inputs(x_BTD), self.heads, 3)
        place_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
        if self.rotary:
            query, keys = rotate(query, place_T), rotate(keys, place_T)
        distance_TS, added = place_T[:, None] - place_T, None
        if self.causal and x_BTD.shape[1] > 1:
            added = hide(own_past(distance_TS, place_T), query.dtype)
        elif mask_BS is not None:
            added = hide(mask_BS, query.dtype)[:, None, None]
        y_BTD = self._attend(query, keys, values, added, distance_TS, x_BTD.dtype)
        return y_BTD, {"shared.keys": keys, "shared.values": values}

    def go_on(self, x_NTD: Tensor, past: State) -> tuple[Tensor, State]:
        """The next positions `[N, T, D]` of the hypotheses of each sentence, attended, and the longer `past`."""
        sentences, place_BQ, distance_BQS = past["shared.keys"].shape[0], past["place"], past["distance"]
        query, keys, values = split_heads(self.inputs(x_NTD.reshape(sentences, -1, x_NTD.shape[2])), self.heads, 3)
        if self.rotary:
            query, keys = rotate(query, place_BQ[:, None]), rotate(keys, place_BQ[:, None])
        columns = distance_BQS.shape[2]
        after = {
            "shared.keys": _append(past["shared.keys"], keys, columns),
            "shared.values": _append(past["shared.values"], values, columns),
        }
        keys, values = after["shared.keys"][:, :, :columns], after["shared.values"][:, :, :columns]
        y_BQD = self._attend(query, keys, values, past["hidden"], distance_BQS, x_NTD.dtype)
        return y_BQD.view(x_NTD.shape), after

    def _attend(
        self, query: Tensor, keys: Tensor, values: Tensor, added: Tensor | None, distance: Tensor, dtype: torch.dtype
    ) -> Tensor:
        if self.bias is not None:
            bias = self.bias(distance)
            added = bias if added is None else bias + added
        context = attend_unseen(query, keys, values, added, self.share, self.training)
        return self.output(join_heads(context, dtype))


def look_back(places_NS: Tensor, sentences: int, steps: int, dtype: torch.dtype) -> State:
    """What all self-attentions of a stack have in common when each hypothesis goes on by `steps` positions.

    `places` `[N, S]` of the columns, the new ones among them; `place` `[B, Q]` of the queries, the positions of all
    hypotheses of a sentence in a row; `distance` `[B, Q, S]` from one to the other; `hidden` `[B, 1, Q, S]`, to be
    added to the scores: a query looks at itself and at what is before it in its own past.
    """
    rows, device = places_NS.shape[0], places_NS.device
    place_NT = (places_NS >= 0).sum(1)[:, None] + torch.arange(steps, device=device)
    place_BQ = place_NT.view(sentences, -1)
    number_K = torch.arange(rows // sentences, device=device)
    own = (number_K[:, None] == number_K)[:, :, None]
    new = place_BQ.view(sentences, 1, -1, steps).masked_fill(~own, -1)
    places_NS = torch.cat([places_NS, new.view(rows, -1)], 1)
    places_BQS = places_NS[:, None].expand(-1, steps, -1).reshape(sentences, place_BQ.shape[1], -1)
    distance_BQS = place_BQ[:, :, None] - places_BQS
    visible = own_past(distance_BQS, places_BQS)
    hidden = hide(visible, torch.promote_types(dtype, torch.float32))[:, None]
    return {"places": places_NS, "place": place_BQ, "distance": distance_BQS, "hidden": hidden}


def own_past(distance: Tensor, places: Tensor) -> Tensor:
    """Where a query may look."""
    return (distance >= 0) & (places >= 0)


def with_room(state: State, steps: int) -> State:
    """The state with room for the columns of `steps` more positions: without those that have come to be no
    hypothesis' own any more, and with caches of twice the size and more. In inference mode alone, where caches are
    written in place and a state can be gone on from only once."""
    places_NS, caches = state["places"], {name: value for name, value in state.items() if ".shared." in name}
    sentences, _, size, _ = next(iter(caches.values())).shape
    (rows, known), columns = places_NS.shape, places_NS.shape[0] // sentences * steps
    if not torch.is_inference_mode_enabled() or known + columns <= size:
        return state
    needed_BS = (places_NS >= 0).view(sentences, rows // sentences, known).any(1)
    known = int(needed_BS.sum(1).max())
    index_BS = needed_BS.byte().argsort(dim=1, descending=True, stable=True)[:, :known]
    result = {**state, "places": places_NS.gather(1, index_BS.repeat_interleave(rows // sentences, 0))}
    for name, cache in caches.items():
        _, heads, _, width = cache.shape
        result[name] = cache.new_empty(sentences, heads, max(48, 2 * (known + columns)), width)
        result[name][:, :, :known] = cache.gather(2, index_BS[:, None, :, None].expand(-1, heads, -1, width))
    return result


def _append(cache_BHSD: Tensor, new_BHTD: Tensor, columns: int) -> Tensor:
    """The cache with the new columns, so that it has so many; in inference mode in place."""
    known = columns - new_BHTD.shape[2]
    if not torch.is_inference_mode_enabled():
        return torch.cat([cache_BHSD[:, :, :known], new_BHTD], 2)
    cache_BHSD[:, :, known:columns] = new_BHTD
    return cache_BHSD


class FeedForward(nn.Module):
    """Two products with an activation between; `swiglu` gates with a third (Shazeer 2020)."""

    def __init__(self, width: int, inner: int, kind: str, share: float) -> None:
        super().__init__()
        self.gated, self.share, self.activation = kind == "swiglu", share, activation(kind)
        self.input = Linear(width, inner * (2 if self.gated else 1))
        self.output = Linear(inner, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`[B, T, D]` to `[B, T, D]`."""
        inner = self.input(x_BTD)
        if self.activation is F.relu:
            return self.output(relu_dropout(inner, self.share, self.training))
        if self.gated:
            gate, inner = inner.chunk(2, dim=2)
            inner = self.activation(gate) * inner
        else:
            inner = self.activation(inner)
        return self.output(dropout(inner, self.share, self.training))


@dataclass(frozen=True)
class Common:
    """What encoder and decoder layers have in common; see `core.config.Model` for each field."""

    width: int
    feedforward: int
    heads: int
    positions: str
    norm: str
    norm_kind: str
    activation: str
    residual: bool
    dropout: float
    dropout_attention: float
    dropout_recurrent: float

    def inner(self) -> FeedForward | None:
        """A feed-forward block, unless its inner width is 0."""
        return FeedForward(self.width, self.feedforward, self.activation, self.dropout) if self.feedforward else None

    def wraps(self) -> Iterator[Wrap]:
        """A fresh wrap for every block of a layer."""
        while True:
            yield Wrap(self.width, self.norm, self.norm_kind, self.residual, self.dropout)

    def last(self) -> nn.Module:
        """What ends a stack: a normalization where blocks normalize before themselves only."""
        return make_norm(self.width, self.norm_kind) if self.norm == "pre" else nn.Identity()


class Wrap(nn.Module):
    """What stands around every block: normalization before or after, dropout, and the residual connection."""

    def __init__(self, width: int, norm: str, kind: str, residual: bool, share: float) -> None:
        super().__init__()
        self.place, self.residual, self.share = norm, residual, share
        self.norm: nn.Module = make_norm(width, kind) if norm != "none" else nn.Identity()

    def before(self, x: Tensor) -> Tensor:
        """What the block reads."""
        return self.norm(x) if self.place == "pre" else x

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        """The block's input and output as one."""
        y = add_dropout(x, y, self.share, self.training) if self.residual else dropout(y, self.share, self.training)
        return self.norm(y) if self.place == "post" else y


def make_norm(width: int, kind: str) -> nn.Module:
    """Layer norm (Ba et al. 2016) or root-mean-square norm (Zhang and Sennrich 2019)."""
    return nn.RMSNorm(width, eps=1e-6) if kind == "rms" else nn.LayerNorm(width)


ATTENTIONS = {"dot": Dot, "general": General, "additive": Additive, "coverage": Coverage, "location": Location}


def make_attention(kind: str, width: int, share: float, heads: int) -> CrossAttention | MultiHead:
    """The cross attention of that name."""
    return MultiHead(width, share, heads) if kind == "multihead" else ATTENTIONS[kind](width, share)
