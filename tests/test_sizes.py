"""What a person is told of lengths before training."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.data.sizes import sizes


def test_text_is_told_in_tokens_and_targets_by_their_sources() -> None:
    told = sizes(np.array([4, 10, 20]), np.array([2, 20, 20]), frames=False)
    assert told == (
        "sources of 4 to 20 (middle 10) tokens; targets of 2 to 20 (middle 20) tokens, "
        "0.5 to 2 (middle 1) times as long as their sources"
    )


def test_recordings_are_told_in_time_and_targets_by_the_second() -> None:
    told = sizes(np.array([50, 100, 400]), np.array([1, 4, 4]), frames=True, seconds=0.01)
    assert told == (
        "sources of 0.5 to 4 (middle 1) s, 5.5 s in all; targets of 1 to 4 (middle 4) tokens, "
        "1 to 4 (middle 2) a second"
    )


@pytest.mark.parametrize(("count", "time"), [(6000, "1.0 minutes"), (720_000, "2.0 hours")])
def test_long_times_are_told_in_larger_units(count: int, time: str) -> None:
    assert f", {time} in all" in sizes(np.array([count]), np.array([3]), frames=True, seconds=0.01)


def test_what_is_as_long_is_told_so() -> None:
    told = sizes(np.array([4, 6]), np.array([4, 6]), frames=False)
    assert told.endswith("targets of 4 to 6 (middle 5) tokens, as long as their sources")


def test_nothing_is_divided_by_zero_and_equal_lengths_are_told_once() -> None:
    told = sizes(np.array([0, 0]), np.array([1500, 1500]), frames=True)
    assert told == "sources of 0 frames; targets of 1,500 tokens, 1,500 times as long as their sources"
