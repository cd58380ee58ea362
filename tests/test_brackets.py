"""Hyperband: who is compared with whom, and that trials which rise late are not all ended at the first look."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from antiphon.tuning.brackets import TURNS, ends, rungs, turn

TENTHS = tuple(range(10, 101, 10))


@dataclass
class Trial:
    number: int
    user_attrs: dict[str, Any]
    intermediate_values: dict[int, float] = field(default_factory=dict)

    def tell(self, percent: int, value: float, trials: list[Trial], *, higher: bool = False) -> bool:
        self.intermediate_values[percent] = value
        return ends(trials, self, percent, higher=higher)


def searched(curves: list[Callable[[int], float]], turns: Callable[[int], int]) -> dict[int, int]:
    """One trial after another, each with its curve of a loss; gives the percent at which each ended."""
    trials, lasted = list[Trial](), dict[int, int]()
    for number, curve in enumerate(curves):
        trials.append(trial := Trial(number, {"bracket": turns(number)}))
        lasted[number] = next((at for at in TENTHS if trial.tell(at, curve(at), trials)), 100)
    return lasted


def test_brackets_cost_about_the_same() -> None:
    counts = Counter(turn(number) for number in range(60))
    assert counts == {20: 30, 40: 20, 80: 10}
    assert [rungs(first) for first in sorted(set(TURNS))] == [[20, 40, 80], [40, 80], [80]]
    spent = {first: count * share(first) for first, count in counts.items()}
    assert max(spent.values()) < 1.5 * min(spent.values())


def share(first: int) -> float:
    """The mean share of a training that a trial of a bracket gets, where half are ended at each rung."""
    parts = itertools.pairwise([*rungs(first), 100])
    return first + sum((two - one) / 2 ** (place + 1) for place, (one, two) in enumerate(parts))


def early(level: float) -> Callable[[int], float]:
    return lambda percent: level + 1 / percent


def late(level: float) -> Callable[[int], float]:
    return lambda percent: 9.0 if percent < 40 else level + 1 / percent


def test_trials_that_rise_late_are_not_all_ended_at_the_first_look() -> None:
    curves = [(late if number % 3 == 2 else early)(2 - number % 3 / 2 - number / 100) for number in range(24)]
    rising = [number for number in range(24) if number % 3 == 2]
    alone, brackets = searched(curves, lambda number: 20), searched(curves, turn)
    assert {alone[number] for number in rising} == {20}
    assert [number for number in rising if brackets[number] == 100]
    assert sum(brackets.values()) < 0.8 * 100 * len(curves)


def test_the_better_half_of_a_bracket_goes_on() -> None:
    trials = [Trial(number, {"bracket": 20}) for number in range(4)]
    assert [trial.tell(20, value, trials) for trial, value in zip(trials, (3.0, 2.0, 2.5, 1.5), strict=True)] == [
        False, False, True, False]  # fmt: skip
    assert not trials[0].tell(30, 9.0, trials), "between two rungs nobody is compared"
    assert not trials[3].tell(40, 1.0, trials)
    other = Trial(4, {"bracket": 40})
    assert not other.tell(20, 9.0, [*trials, other])
    assert not other.tell(40, 9.0, [*trials, other]), "the first of its bracket"


@pytest.mark.parametrize("higher", [False, True])
def test_what_is_better_depends_on_the_metric(higher: bool) -> None:
    sign = -1 if higher else 1
    trials = [Trial(0, {"bracket": 20}), Trial(1, {"bracket": 20})]
    assert not trials[0].tell(25, sign * 1.0, trials, higher=higher)
    assert trials[1].tell(20, sign * 2.0, trials, higher=higher)


def test_a_trial_of_a_study_without_brackets_is_in_the_first() -> None:
    old = [Trial(0, {}), Trial(1, {})]
    assert not old[0].tell(20, 1.0, old)
    assert old[1].tell(20, 2.0, old)
    assert not Trial(2, {"bracket": 40}).tell(20, 3.0, old)


def test_a_trial_that_was_killed_is_judged_as_it_would_have_been() -> None:
    trials = [Trial(0, {"bracket": 20}), Trial(1, {"bracket": 20})]
    trials[0].tell(20, 1.0, trials)
    assert trials[1].tell(20, 2.0, trials)
    assert ends(trials, trials[1], 20, higher=False), "its validation is done again"
    assert not ends(trials, trials[1], 10, higher=False), "one before that"
