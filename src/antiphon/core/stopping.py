"""The signals that end what takes long, where there is nothing to save."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stopped(BaseException):
    """A signal came before training began: like `KeyboardInterrupt`, no error that anything may turn into another."""

    def __init__(self, number: int) -> None:
        super().__init__("stopped by a signal")
        self.number = number


def ending() -> tuple[int, ...]:
    """Ctrl-C, SIGTERM, and that the terminal has closed, unless that is ignored (nohup)."""
    found: list[int] = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return tuple(found)


@contextmanager
def interruptible() -> Iterator[None]:
    """What ends a process raises `Stopped`. Off the main thread Python allows no handlers, and nothing is changed."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.signal(number, stop) for number in ending()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
