"""From what a search has noted to hypotheses: which ended how, best first, rebuilt from their back-pointers.

Axes: A sentences still searched, K slots of a beam, R rows a sentence (1 at the first step, then K), S source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from antiphon.core.config import Decoding
from antiphon.inference.hypothesis import Hypothesis

INF = float("inf")


@dataclass(frozen=True)
class Step:
    """What is kept of a step to rebuild hypotheses from: the sentences, the back-pointers, where rows looked."""

    active_A: np.ndarray
    parents_AK: np.ndarray
    tokens_AK: np.ndarray
    log_probs_AK: np.ndarray
    weights_ARS: np.ndarray


Columns = tuple[np.ndarray, ...]
"""Hypotheses that have ended: sentence, last step, slot, score, finished."""


def collected(
    ends: Columns, steps: Sequence[Step], read_BS: np.ndarray, gaps: np.ndarray, settings: Decoding, slots: int,
    rows: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:  # fmt: skip
    """The answers to these sentences (None: to all), best first; `gaps` become those of their order too, where these
    are smaller.

    `read_BS` is true at the real positions of the memory.
    """
    sentences, *_ = ends
    order = np.argsort(sentences, kind="stable")
    bounds = np.searchsorted(sentences[order], np.arange(len(gaps) + 1))
    chosen, lengths = [], read_BS.sum(1).tolist()
    for row in range(len(gaps)) if rows is None else rows:
        mine, smallest = _ranked(order[bounds[row] : bounds[row + 1]], ends, settings, slots, lengths[row])
        gaps[row] = min(gaps[row], smallest)
        chosen.append(mine if settings.groups > 1 else mine[: settings.n_best])
    flat = _rebuild(steps, read_BS, ends, [end for mine in chosen for end in mine])
    answers = [[next(flat) for _ in mine] for mine in chosen]
    if settings.groups > 1:
        answers = [_distinct(mine)[: settings.n_best] for mine in answers]
    return answers


def _ranked(
    mine: np.ndarray, ends: Columns, settings: Decoding, slots: int, source_length: int
) -> tuple[list[int], float]:
    """A sentence's ends, best first, and the smallest gap in that order, in nats by the root of their length."""
    _, steps, places, scores, finished = ends
    if settings.sample:
        return [int(end) for end in mine[np.argsort(places[mine], kind="stable")]], INF
    size = slots // settings.groups
    by_group = [sorted((int(e) for e in mine if places[e] // size == group), key=lambda e: (-finished[e], -scores[e]))
                for group in range(settings.groups)]  # fmt: skip
    smallest = INF
    for group in by_group:
        for better, worse in pairwise(group[: settings.n_best + 1]):
            if finished[better] == finished[worse]:
                shorter = max(1, min(steps[better], steps[worse]) + 1)
                nats = (scores[better] - scores[worse]) * shorter**settings.penalty
                longer = max(steps[better], steps[worse]) + 1
                error = 1 + settings.coverage_penalty * source_length
                error *= (longer + (settings.ctc or 0.0) ** 2 * source_length) ** 0.5
                smallest = min(smallest, float(nats) / error)
    rounds = max(map(len, by_group), default=0)
    return [group[place] for place in range(rounds) for group in by_group if place < len(group)], smallest


def _distinct(answers: list[Hypothesis]) -> list[Hypothesis]:
    """Without answers that an earlier group has found too."""
    return list({(tuple(answer.tokens), answer.finished): answer for answer in reversed(answers)}.values())[::-1]


def _rebuild(
    records: Sequence[Step], read_BS: np.ndarray, ends: Columns, chosen: list[int]
) -> Iterator[Hypothesis]:  # fmt: skip
    """Hypotheses from back-pointers, all of them together, from the last step to the first."""
    sentences, last, slots, scores, finished = (column[chosen] for column in ends)
    slots = slots.copy()
    count, longest = len(chosen), int(last.max(initial=-1)) + 1
    tokens = np.zeros((count, longest), dtype=np.int64)
    log_probs = np.zeros((count, longest))
    weights = np.zeros((count, longest, read_BS.shape[1]), dtype=np.float32)
    for step in reversed(range(longest)):
        record = records[step]
        place = np.full(len(read_BS), -1)
        place[record.active_A] = np.arange(len(record.active_A))
        rows = (last >= step).nonzero()[0]
        at, slot = place[sentences[rows]], slots[rows]
        tokens[rows, step], log_probs[rows, step] = record.tokens_AK[at, slot], record.log_probs_AK[at, slot]
        slots[rows] = record.parents_AK[at, slot]
        weights[rows, step] = record.weights_ARS[at, slots[rows]]
    for row in range(count):
        size, closed = int(last[row]) + 1, bool(finished[row])
        looks = weights[row, :size][:, read_BS[sentences[row]]]
        yield Hypothesis(
            tokens[row, : size - closed].tolist(), float(scores[row]), log_probs[row, :size].tolist(), looks, closed
        )
