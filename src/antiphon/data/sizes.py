"""How long the pairs of a store are, and a target for its source, in the line that a person sees before training."""

from __future__ import annotations

import numpy as np

MINUTE, HOUR = 60, 3600


def sizes(source_lengths: np.ndarray, target_lengths: np.ndarray, *, frames: bool, seconds: float | None = None) -> str:
    """Sources, targets and the length of a target by that of its source, each from the least to the most with the
    middle. Sources are counted in tokens or frames, or told in time, given the `seconds` from a frame to the next."""
    targets = f"targets of {_range(target_lengths)} tokens"
    if seconds is not None:
        lasting = source_lengths * seconds
        ratio = _range(target_lengths / np.maximum(lasting, seconds))
        return f"sources of {_range(lasting)} s, {_time(lasting.sum())} in all; {targets}, {ratio} a second"
    ratio = _range(target_lengths / np.maximum(1, source_lengths))
    kind = "frames" if frames else "tokens"
    times = "as long as" if ratio == "1" else f"{ratio} times as long as"
    return f"sources of {_range(source_lengths)} {kind}; {targets}, {times} their sources"


def _range(values: np.ndarray) -> str:
    least, middle, most = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in
                           (values.min(), np.median(values), values.max()))  # fmt: skip
    return f"{least} to {most} (middle {middle})" if least != most else least


def _time(seconds: float) -> str:
    if seconds >= HOUR:
        return f"{seconds / HOUR:.1f} hours"
    return f"{seconds / MINUTE:.1f} minutes" if seconds >= MINUTE else f"{seconds:.1f} s"
