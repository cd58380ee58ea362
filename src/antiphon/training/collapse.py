"""Notices when adversarial learning has failed, and how: answers are ever the same, or the discriminator has won."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from antiphon.core.errors import BundleError
from antiphon.inference.strict_json import dump_json, load_json
from antiphon.training.observers import Answer, Observer, Started, StepEvent, Stop, ValidationEvent

COLLAPSE = "training/collapse.json"

BEGINNING, WINDOW = 10, 100
"""Steps whose mean is what training began with, and that are held against it together: one batch decides nothing."""

WON, NOTHING = 0.98, 0.02
"""Mean accuracy of the discriminator above which, with a mean reward below the other, the model learns nothing."""

EASIER = "lower training.discriminator_rate or .discriminator_turns, or raise training.likelihood"
SLOWER = "lower training.rate, raise training.likelihood, or allow it with training.collapse"
"""What to try."""


class Collapse(Observer):
    """Ends a run where answers lose their variety, or nothing is left to learn from; `share` 0 lets it go on.

    Distinct-2 of the answers to held-out sources is held against the first validation's, distinct-2 and entropy of
    drawn answers against those of the first steps.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.recent: deque[list[float]] = deque(maxlen=WINDOW)
        self.first: dict[str, float] = {}
        self.verdict = ""

    def started(self, event: Started) -> Answer:
        """Asks to stop where a run that goes on had collapsed."""
        return self._answer()

    def step(self, event: StepEvent) -> Answer:
        """Hold the means of the latest steps against those of the first."""
        if not event.facts:
            return self._answer()
        self.recent.append([event.facts[name] for name in ("entropy", "distinct2", "accuracy", "reward")])
        entropy, distinct, accuracy, reward = (sum(column) / len(column) for column in zip(*self.recent, strict=True))
        if len(self.recent) == min(BEGINNING, WINDOW):
            self.first = {"entropy": entropy, "drawn": distinct} | self.first
        if self.share and len(self.recent) == WINDOW:
            self._compare("entropy", entropy, f"the entropy of answers drawn in {WINDOW} steps")
            self._compare("drawn", distinct, f"distinct-2 of answers drawn in {WINDOW} steps")
            if accuracy > WON and reward < NOTHING:
                what = f"the discriminator tells {accuracy:.1%} of answers apart, and the mean reward is {reward:.3f}"
                self._end(f"{what}: nothing is left to learn from", EASIER)
        return self._answer()

    def validated(self, event: ValidationEvent) -> Answer:
        """Hold the distinct-2 of held-out answers against the first."""
        if self.share and "distinct2" in event.scores:
            self._compare("distinct2", event.scores["distinct2"].value, "distinct-2 of held-out answers")
        return self._answer()

    def _compare(self, name: str, now: float, what: str) -> None:
        first = self.first.setdefault(name, now)
        if now < self.share * first:
            self._end(f"{what} has fallen to {now:.3g}, from {first:.3g}: the model says ever the same", SLOWER)

    def _end(self, what: str, do: str) -> None:
        self.verdict = self.verdict or f"collapsed: {what}; the best model is kept; {do}"

    def _answer(self) -> Answer:
        return Stop("collapse", self.verdict) if self.verdict else None

    def files(self) -> dict[str, bytes]:
        """What it remembers, as a file of a checkpoint."""
        return {COLLAPSE: dump_json({"recent": list(self.recent), "first": self.first, "verdict": self.verdict})}

    def restore(self, files: Mapping[str, bytes]) -> None:
        """What `files` gave; anything else is a `BundleError`."""
        values: Any = load_json(files[COLLAPSE], where=COLLAPSE) if COLLAPSE in files else None
        try:
            recent = [[float(number) for number in row] for row in values["recent"]]
            first = {str(name): float(value) for name, value in values["first"].items()}
            verdict = str(values["verdict"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BundleError("is not what was watched of adversarial training", where=COLLAPSE) from None
        self.recent, self.first, self.verdict = deque(recent, maxlen=WINDOW), first, verdict
