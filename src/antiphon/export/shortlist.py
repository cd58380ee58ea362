"""Which target tokens may come up in the answer to a source, learned from pairs: the output matrix then has hundreds of
rows in place of thousands."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from antiphon.core.marks import EOS
from antiphon.data.store import Example

ROUNDS = 5
"""Steps of expectation maximization."""
EACH, ALWAYS = 20, 200
"""Candidates of each source token; the most frequent tokens, which are candidates whatever the source is."""


def shortlist(examples: Iterable[Example], source_size: int, target_size: int) -> str:
    """The map that CTranslate2 reads (`vmap.txt`): a line for each source token, with its likeliest translations.

    They are likely by IBM Model 1 (Brown et al. 1993): the chance of a target token is a mean over those that the
    tokens of its source make of it, and these tables are fitted to the pairs.
    """
    sources, targets, pairs = _joined(examples)
    keys, which = np.unique(sources * target_size + targets, return_inverse=True)
    source_K, target_K = keys // target_size, keys % target_size
    chance_K = np.ones(len(keys))
    for _ in range(ROUNDS):
        chance_N = chance_K[which]
        shared_N = np.bincount(pairs, chance_N)[pairs]
        count_K = np.bincount(which, chance_N / shared_N, len(keys))
        chance_K = count_K / np.bincount(source_K, count_K, source_size)[source_K]
    lines = [f"\t{' '.join(map(str, _frequent(targets, pairs, target_size)))}"]
    order = np.lexsort((-chance_K, source_K))
    edges = np.searchsorted(source_K[order], np.arange(source_size + 1))
    for token, (begin, end) in enumerate(pairwise(edges)):
        if end > begin:
            best = np.sort(target_K[order[begin : min(end, begin + EACH)]])
            lines.append(f"{token}\t{' '.join(map(str, best))}")
    return "\n".join([*lines, ""])


def _joined(examples: Iterable[Example]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every source token beside every target token of its pair, and the number of that target token."""
    sources, targets, numbers, said = [], [], [], 0
    for example in examples:
        source, target = np.unique(np.asarray(example.source)), np.asarray(example.target)
        sources.append(np.tile(source, len(target)))
        targets.append(np.repeat(target, len(source)))
        numbers.append(np.repeat(np.arange(said, said + len(target)), len(source)))
        said += len(target)
    return np.concatenate(sources), np.concatenate(targets), np.concatenate(numbers)


def _frequent(targets: np.ndarray, pairs: np.ndarray, size: int) -> list[int]:
    """The tokens that targets hold most often, the end mark among them."""
    first = np.flatnonzero(np.diff(pairs, prepend=-1))
    counts = np.bincount(targets[first], minlength=size)
    return sorted({EOS, *(int(token) for token in np.argsort(-counts, kind="stable")[:ALWAYS] if counts[token])})
