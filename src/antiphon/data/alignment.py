"""A cheap look at whether two parallel files are shifted against each other."""

from __future__ import annotations

import numpy as np

BLOCK = 256
SHIFTS = (-3, -2, -1, 1, 2, 3)


def shifted(source_lengths: np.ndarray, target_lengths: np.ndarray) -> int | None:
    """The line, from 1, near which a shift by one to three lines begins, or None.

    Lengths of translations go together. Where, in two blocks of 256 lines running, they go together far better with
    the target's neighbours than with the target itself, a line is missing before.
    """
    margin = max(abs(shift) for shift in SHIFTS)
    source = np.log1p(source_lengths.astype(np.float64))
    target = np.log1p(target_lengths.astype(np.float64))
    found: dict[int, int] = {}
    for start in range(margin, len(source) - BLOCK - margin, BLOCK):
        here = slice(start, start + BLOCK)
        straight = _correlation(source[here], target[here])
        for shift in SHIFTS:
            moved = _correlation(source[here], target[start + shift : start + shift + BLOCK])
            if moved > 0.4 and moved - straight > 0.4:
                if found.get(shift) == start - BLOCK:
                    return start - BLOCK + 1
                found[shift] = start
    return None


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left - left.mean(), right - right.mean()
    size = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / size if size > 1e-9 else 0.0
