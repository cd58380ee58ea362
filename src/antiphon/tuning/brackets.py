"""Hyperband (Li et al. 2018): when trials are compared, so that poor ones end early and those that rise late need not.

A trial is in one bracket, named by the percent of a training after which its trials are compared for the first time.
From there on, each time that the percent has doubled, the better half of all trials of the bracket that came so far
goes on (the asynchronous form of Li et al. 2020). What is compared is read from what trials reported, and nothing else
is kept: a search that was killed decides as it would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

FIRST, HALF = 20, 2
"""The percent of the earliest bracket, which is the only one that studies before there were brackets know; and of how
many trials one goes on."""

TURNS = (20, 40, 20, 80, 20, 40)
"""The brackets of trials, by turns: the earlier trials end, the more of them there are, so that each bracket costs
about the same."""

BRACKET = "bracket"
"""What Optuna's journal calls the bracket of a trial."""


class Reported(Protocol):
    """A trial as Optuna gives it."""

    @property
    def number(self) -> int:
        """Its place among all trials."""

    @property
    def intermediate_values(self) -> Mapping[int, float]:
        """What it reported, by percent of its training."""

    @property
    def user_attrs(self) -> Mapping[str, Any]:
        """What was written down of it."""


def turn(number: int) -> int:
    """The bracket of a new trial: nothing but its number decides."""
    return TURNS[number % len(TURNS)]


def bracket(trial: Reported) -> int:
    """The bracket that a trial is in."""
    found: int = trial.user_attrs.get(BRACKET, FIRST)
    return found


def rungs(first: int) -> list[int]:
    """The percents after which the trials of a bracket are compared."""
    found = [first]
    while found[-1] * HALF < 100:
        found.append(found[-1] * HALF)
    return found


def ends(trials: Iterable[Reported], trial: Reported, percent: int, *, higher: bool) -> bool:
    """Whether a trial that has just reported after so many percent is not worth going on with."""
    before = max((step for step in trial.intermediate_values if step < percent), default=0)
    passed = [rung for rung in rungs(bracket(trial)) if before < rung <= percent]
    if not passed or percent not in trial.intermediate_values:
        return False
    rivals = [each for each in trials if each.number != trial.number and bracket(each) == bracket(trial)]
    return not all(_goes_on(trial, rivals, rung, higher) for rung in passed)


def _goes_on(trial: Reported, rivals: Iterable[Reported], rung: int, higher: bool) -> bool:
    """Whether a trial is in the better half of those that came to a rung."""
    sign = -1 if higher else 1
    mine = _reached(trial, rung)
    came = sorted(sign * value for each in (trial, *rivals) if (value := _reached(each, rung)) is not None)
    return mine is not None and sign * mine <= came[max(1, len(came) // HALF) - 1]


def _reached(trial: Reported, rung: int) -> float | None:
    """What a trial reported when it had come to a rung; None where it has not."""
    later = [step for step in trial.intermediate_values if step >= rung]
    return trial.intermediate_values[min(later)] if later else None
