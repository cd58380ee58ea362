"""How far a model is with answering many texts, which may take as long as training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from antiphon.cli.display import PLAIN_SECONDS, clock, meter
from antiphon.inference.synthesis import WINDOW

if TYPE_CHECKING:
    from antiphon.core.stopping import Stopped

REDRAW = 0.25
"""Seconds between pictures on a terminal."""


@contextmanager
def answering(console: Console) -> Iterator[Progress]:
    """What tells of progress: a line that moves on a terminal, and one every now and then elsewhere."""
    if not console.is_terminal or console.is_jupyter:
        yield Progress(lambda line: console.print(line, soft_wrap=True, highlight=False), PLAIN_SECONDS)
        return
    live = Live(console=console, transient=True, refresh_per_second=4)

    def show(line: Text) -> None:
        live.start()
        live.update(line)

    try:
        yield Progress(show, REDRAW, live.stop)
    finally:
        live.stop()


class Progress:
    """Says how many inputs have been answered, how fast, and how long still; `end` is called after the last."""

    def __init__(self, say: Callable[[Text], None], every: float, end: Callable[[], None] = lambda: None) -> None:
        self.say, self.every, self.end = say, every, end
        self.begun = self.last = time.monotonic()
        self.before: int | None = None

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if self.before is None:  # of what is told first, at most one window was answered now
            self.before = done - min(done, WINDOW)
        if now - self.last >= self.every and (done - self.before > WINDOW or done >= of):
            self.last = now
            self.say(self.line(done, of, (done - self.before) / max(1e-9, now - self.begun)))
        if done >= of:
            self.end()

    @staticmethod
    def line(done: int, of: int, speed: float) -> Text:
        """One line; `speed` is in inputs a second."""
        line = Text.assemble(("answering  ", "dim"), meter(done, of), f" {done:,} of {of:,}")
        return line.append(f", {speed:,.0f} a second, {clock((of - done) / speed)} left", "dim")


def stopped(console: Console, error: Stopped) -> int:
    """What to tell when a signal ended the answering, and the exit code."""
    console.print("stopped; the same command goes on where it was", highlight=False)
    return 128 + error.number
