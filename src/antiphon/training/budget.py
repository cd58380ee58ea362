"""How far a run is, when it validates, and when it ends: steps, epochs, minutes and patience."""

from __future__ import annotations

import time

from antiphon.core.config import Training
from antiphon.training.checkpoint import State


class Budget:
    """The limits of a run. Wall-clock time counts from `start`, on top of what earlier sessions took.

    `validation_seconds` is what the latest validation took; `epoch_steps` how many steps this epoch has.
    """

    def __init__(self, settings: Training) -> None:
        self.settings = settings
        self.epoch_steps = 1
        self.start(0.0)

    def start(self, before: float, validation_seconds: float = 0.0) -> None:
        """The clock runs, from so many seconds on."""
        self.before, self.began, self.validation_seconds = before, time.monotonic(), validation_seconds

    def elapsed(self) -> float:
        """Seconds so far, over all sessions."""
        return self.before + time.monotonic() - self.began

    def due(self, state: State) -> bool:
        """Whether to validate now."""
        every = self.settings.validate_every
        if state.step == 0 or state.validated == state.step:
            return False
        return state.step % every == 0 if every else state.group == 0

    def used_up(self, state: State) -> str:
        """Which limit ends the run; empty while none does."""
        settings = self.settings
        limits = [
            ("patience", bool(settings.patience) and state.stale >= settings.patience),
            ("steps", settings.steps is not None and state.step >= settings.steps),
            ("epochs", settings.epochs is not None and state.epoch >= settings.epochs),
            ("minutes", self.hurry() >= 1),
        ]
        return next((name for name, reached in limits if reached), "")

    def hurry(self) -> float:
        """The share of the wall-clock budget that is used up; time for the last validation is kept back."""
        if not self.settings.minutes:
            return 0.0
        return self.elapsed() / max(1.0, self.settings.minutes * 60 - self.validation_seconds)

    def progress(self, state: State) -> float:
        """The share of the nearest limit that is used up; without any, of ten thousand steps."""
        settings = self.settings
        shares = [self.hurry()] if settings.minutes else []
        if settings.steps:
            shares.append(state.step / settings.steps)
        if settings.epochs:
            shares.append((state.epoch + state.group / self.epoch_steps) / settings.epochs)
        return min(1.0, max(shares, default=state.step / 10_000))

    def eta(self, state: State) -> float | None:
        """Seconds still to go, where there is a limit."""
        limited = self.settings.minutes or self.settings.steps or self.settings.epochs
        progress = self.progress(state)
        return self.elapsed() * (1 - progress) / progress if limited and progress else None
