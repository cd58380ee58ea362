"""One step's decisions: which candidates stay in the beam, and by how much each decision was made.

Axes: A sentences still searched, R rows (hypotheses) of a sentence, K slots of its beam, V vocabulary.
A `gap` is the smallest difference, in nats, by which a candidate was kept and another dropped: where it is above
the error of floating point, the decision is the same whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.inference.hypothesis import MARGIN, NoNumbers

INF = float("inf")
BLOCK = 64
"""Tokens of the vocabulary that are first looked at as one."""
ROUND = 16
"""What the number of rows whose probabilities are asked for is a multiple of, where there are so many."""


@dataclass(frozen=True)
class Choice:
    """The kept candidates of a step. A slot whose total is -inf is empty."""

    parents_AK: Tensor
    tokens_AK: Tensor
    log_probs_AK: Tensor
    totals_AK: Tensor
    gaps_A: Tensor


def top(values_NV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row with their places, best first.

    Exact: they lie in the `count` blocks with the largest maxima, and finding those is one pass at memory speed.
    """
    width = values_NV.shape[1]
    count = min(count, width)
    if width < 4 * count * BLOCK:
        return values_NV.topk(count, 1)
    best = _maxima(values_NV).topk(count, 1).indices
    index = (best[:, :, None] * BLOCK + torch.arange(BLOCK, device=best.device)).flatten(1)
    found = values_NV.gather(1, index.clamp_max(width - 1)).masked_fill(index >= width, -INF)
    values, places = found.topk(count, 1)
    return values, index.gather(1, places).clamp_max(width - 1)


def _maxima(values_NV: Tensor) -> Tensor:
    """The largest of every `BLOCK` columns, the last block being what is left."""
    width = values_NV.shape[1]
    whole = width // BLOCK * BLOCK
    maxima = values_NV[:, :whole].unflatten(1, (-1, BLOCK)).amax(2)
    return maxima if whole == width else torch.cat([maxima, values_NV[:, whole:].amax(1, keepdim=True)], 1)


def plain(totals_AR: Tensor, log_probs_ARV: Tensor, room_A: Tensor, slots: int) -> Choice:
    """Beam search: the best `room` continuations of all rows together; end marks are nothing special."""
    return _best(totals_AR, log_probs_ARV, log_probs_ARV, room_A, slots)


def quick(
    totals_AR: Tensor, log_probs: Callable[[Tensor], Tensor], room_A: Tensor, slots: int, *, rows: int = 192
) -> Choice:
    """What `plain` chooses, given a function from the numbers of rows to their log probabilities `[N, V]`.

    It asks for living rows alone (and for as many more as make their number a round one, for which a product has been
    planned before), and for about `rows` at a time, so that what is compared is still in the cache.
    """
    living_A = (totals_AR > -INF).sum(1).cumsum(0)
    parts, begin = [], 0
    for end in _cuts(living_A, rows):
        parts.append(_quick(totals_AR[begin:end], log_probs, room_A[begin:end], slots, begin * totals_AR.shape[1]))
        begin = end
    if len(parts) == 1:
        return parts[0]
    return Choice(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Choice)))


def _cuts(living_A: Tensor, rows: int) -> list[int]:
    """The ends of parts of sentences with about as many living rows each, at most about `rows`; `living_A` counts them
    from the first sentence on."""
    count = max(1, -(-int(living_A[-1]) // rows))
    wanted = torch.arange(1, count, device=living_A.device) * int(living_A[-1]) // count
    return sorted({*(torch.searchsorted(living_A, wanted) + 1).tolist(), len(living_A)})


def _quick(
    totals_AR: Tensor, log_probs: Callable[[Tensor], Tensor], room_A: Tensor, slots: int, first: int
) -> Choice:  # fmt: skip
    """All rows of a sentence compete by the maxima of their blocks; the blocks that win are opened."""
    sentences, rows = totals_AR.shape
    totals_X = totals_AR.flatten()
    dead_X = totals_X == -INF
    order_X = dead_X.argsort(stable=True)
    rows_N = order_X[: -(-max(1, int((~dead_X).sum())) // ROUND) * ROUND]
    log_probs_NV = log_probs(rows_N + first)
    maxima_NW, size, device = _maxima(log_probs_NV), log_probs_NV.shape[1], totals_AR.device
    ranks_NW = maxima_NW.double() + totals_X[rows_N, None]
    width = ranks_NW.shape[1]
    ranks_XW = ranks_NW.new_full((sentences * rows, width), -INF).index_copy_(0, rows_N, ranks_NW)
    opened_AC = ranks_XW.view(sentences, -1).topk(min(slots + 1, rows * width), 1).indices
    parents_AC = opened_AC // width
    place_X = order_X.argsort().clamp_max_(len(rows_N) - 1)
    place_AC = place_X[parents_AC + rows * torch.arange(sentences, device=device)[:, None]]
    tokens_ACI = (opened_AC % width * BLOCK)[..., None] + torch.arange(BLOCK, device=device)
    index_ACI = (place_AC * size)[..., None] + tokens_ACI
    found_ACI = log_probs_NV.take(index_ACI.clamp_max_(log_probs_NV.numel() - 1))
    ranks_ACI = found_ACI.double() + totals_AR.gather(1, parents_AC)[..., None]
    ranks, places = _padded_top(ranks_ACI.masked_fill_(tokens_ACI >= size, -INF).flatten(1), slots + 1)
    kept = places[:, :slots]
    empty = (torch.arange(slots, device=device) >= room_A[:, None]) | (ranks[:, :slots] == -INF)
    return Choice(
        parents_AC.gather(1, kept // BLOCK),
        tokens_ACI.flatten(1).gather(1, kept),
        found_ACI.flatten(1).gather(1, kept),
        ranks[:, :slots].masked_fill(empty, -INF),
        gap(ranks, room_A),
    )


def grouped(
    totals_AR: Tensor, log_probs_ARV: Tensor, room_AG: Tensor, slots: int, *, diversity: float
) -> Choice:  # fmt: skip
    """Diverse beam search (Vijayakumar et al. 2018): group by group, each avoiding what earlier groups chose now.

    The penalty decides this step's choice only; totals stay plain log probabilities.
    """
    groups = room_AG.shape[1]
    size, rows = slots // groups, totals_AR.shape[1]
    counts_AV = torch.zeros_like(log_probs_ARV[:, 0])
    choices = []
    for group in range(groups):
        first, last = (0, 1) if rows == 1 else (group * size, (group + 1) * size)
        part_ARV = log_probs_ARV[:, first:last]
        ranked_ARV = part_ARV - diversity * counts_AV[:, None]
        choice = _best(totals_AR[:, first:last], ranked_ARV, part_ARV, room_AG[:, group], size, first)
        counts_AV.scatter_add_(1, choice.tokens_AK, (choice.totals_AK > -INF).to(counts_AV.dtype))
        choices.append(choice)
    return Choice(
        torch.cat([choice.parents_AK for choice in choices], 1),
        torch.cat([choice.tokens_AK for choice in choices], 1),
        torch.cat([choice.log_probs_AK for choice in choices], 1),
        torch.cat([choice.totals_AK for choice in choices], 1),
        torch.stack([choice.gaps_A for choice in choices]).amin(0),
    )


def _best(
    totals_AR: Tensor, ranked_ARV: Tensor, log_probs_ARV: Tensor, room_A: Tensor, slots: int, first: int = 0
) -> Choice:
    """The best `room` of all continuations by `totals + ranked`."""
    sentences, rows, size = ranked_ARV.shape
    values, tokens = top(ranked_ARV.reshape(sentences * rows, size), slots + 1)
    ranks = (totals_AR[:, :, None] + values.view(sentences, rows, -1).double()).flatten(1)
    ranks, places = _padded_top(ranks, slots + 1)
    parents = (places // values.shape[1])[:, :slots]
    chosen = tokens.view(sentences, -1).gather(1, places)[:, :slots]
    device = totals_AR.device
    log_probs = log_probs_ARV[torch.arange(sentences, device=device)[:, None], parents, chosen]
    empty = (torch.arange(slots, device=device) >= room_A[:, None]) | (ranks[:, :slots] == -INF)
    totals = (totals_AR.gather(1, parents) + log_probs.double()).masked_fill(empty, -INF)
    return Choice(parents + first, chosen, log_probs, totals, gap(ranks, room_A))


def _padded_top(values_AC: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`topk` that fills up with -inf where there are fewer candidates."""
    missing = count - values_AC.shape[1]
    values, places = values_AC.topk(min(count, values_AC.shape[1]), 1)
    if missing > 0:
        values, places = F.pad(values, (0, missing), value=-INF), F.pad(places, (0, missing))
    return values, places


def gap(ranks_AC: Tensor, room_A: Tensor) -> Tensor:
    """Between the last kept and the first dropped of sorted candidates; inf where nothing real was dropped."""
    if ranks_AC.isnan().any():
        raise NoNumbers()
    last = ranks_AC.gather(1, (room_A - 1).clamp_min(0)[:, None]).squeeze(1)
    dropped = ranks_AC.gather(1, room_A[:, None]).squeeze(1)
    return torch.where((room_A > 0) & (last > -INF), last - dropped, INF)


def uniform(seed: int, sentence: int, step: int, size: int, rows: int) -> np.ndarray:
    """Random numbers in (0, 1), `[rows, size]`, that depend on the arguments alone; a larger size only appends."""
    key = np.array([seed % 2**64, sentence % 2**64], dtype=np.uint64)
    source = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, step]))
    drawn: np.ndarray = source.random((size, rows)).T
    return np.maximum(drawn, 2.0**-60)


def sampled(
    totals_AR: Tensor, log_probs_ARV: Tensor, slots: int, noise_AKV: Tensor, *,
    temperature: float, top_k: int, top_p: float,
) -> Choice:  # fmt: skip
    """One draw a row by the Gumbel-max trick, which makes sampling a search with gaps like any other.

    `noise` is uniform; a token on the edge of the top-k or top-p set that would win makes the gap zero.
    """
    sentences, rows, size = log_probs_ARV.shape
    parents = torch.arange(slots, device=totals_AR.device).expand(sentences, slots) % rows
    log_probs = log_probs_ARV.expand(sentences, slots, size)
    totals = totals_AR.expand(sentences, slots)
    scaled = log_probs.double() / temperature
    possible, inside, sure = _edges(scaled, temperature, top_k, top_p)
    noisy = scaled - (-noise_AKV.log()).log()
    tokens = noisy.masked_fill(~inside, -INF).argmax(2)
    first, winner = noisy.masked_fill(~possible, -INF).topk(min(2, size), 2)
    gaps = (first[..., 0] - first[..., -1]) * temperature if size > 1 else torch.full_like(first[..., 0], INF)
    gaps = gaps.masked_fill(~sure.gather(2, winner[..., :1]).squeeze(2), 0)
    chosen = log_probs.gather(2, tokens[..., None]).squeeze(2)
    totals = totals + chosen.double()
    if totals.isnan().any():
        raise NoNumbers()
    return Choice(parents, tokens, chosen, totals, gaps.masked_fill(totals == -INF, INF).amin(1))


def _edges(scaled: Tensor, temperature: float, top_k: int, top_p: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which tokens may be, are, and surely are in the set that is sampled from."""
    size = scaled.shape[2]
    everything = scaled > -INF
    most = min(top_k, size) if top_k else size
    if most == size and top_p >= 1:
        return everything, everything, everything
    ranked = scaled.sort(2, descending=True).values
    probabilities = ranked.softmax(2)
    before = probabilities.cumsum(2) - probabilities
    slack = MARGIN / temperature

    def edge(share: float) -> Tensor:
        inside = (before < share).sum(2) if top_p < 1 else torch.full(scaled.shape[:2], size, device=scaled.device)
        return inside.clamp(1, most)[..., None]

    last = ranked.gather(2, edge(top_p + MARGIN) - 1)
    inside = ranked.gather(2, edge(top_p) - 1)
    next_one = F.pad(ranked, (0, 1), value=-INF).gather(2, edge(top_p - MARGIN))
    return everything & (scaled >= last - slack), everything & (scaled >= inside), scaled > next_one + slack
