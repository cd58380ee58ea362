"""Where a CTC head hears the tokens of an answer, whichever engine found it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from antiphon.core.marks import PAD


def align(log_probs_SV: np.ndarray, tokens: Sequence[int]) -> list[int]:
    """The state at which each token begins on the likeliest way through the states that says just these tokens.

    Empty where there are fewer states than that takes.
    """
    ways = [PAD, *(each for token in tokens for each in (token, PAD))]  # a blank may stand before, between and after
    said = log_probs_SV[:, ways].astype(np.float64)
    skip = np.array([place > 2 and way != PAD and way != ways[place - 2] for place, way in enumerate(ways)])
    best = np.full(len(ways), -np.inf)
    best[:2] = said[0, :2]
    steps = np.zeros(said.shape, np.int64)
    for state in range(1, len(said)):
        from_before = np.stack([best, np.roll(best, 1), np.where(skip, np.roll(best, 2), -np.inf)])
        from_before[1, 0] = -np.inf
        steps[state] = from_before.argmax(0)
        best = from_before.max(0) + said[state]
    at = len(ways) - 1 if best[-1] >= best[len(ways) - 2] else len(ways) - 2
    if not np.isfinite(best[at]):
        return []
    begins = [0] * len(tokens)
    for state in range(len(said) - 1, -1, -1):
        if at % 2:
            begins[at // 2] = state
        at -= steps[state, at]
    return begins
