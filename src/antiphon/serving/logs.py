"""The log: one JSON object a line on standard error, without what was asked or answered."""

from __future__ import annotations

import atexit
import json
import logging
import sys
import threading
import time
import traceback
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

WAITING, LAST = 10_000, 2.0
"""Lines that wait to be written at most, and seconds that those left have in the end."""


def tell(event: str, *, level: str = "info", **facts: Any) -> None:
    """Write one event, without waiting for whoever reads it. Facts that are None are left out."""
    _log.write(_line(event, level, facts))


def flush(seconds: float = LAST) -> None:
    """Wait until all is written, but not longer than this."""
    end = time.monotonic() + seconds
    while _log.lines and time.monotonic() < end:
        time.sleep(0.01)


def _line(event: str, level: str, facts: dict[str, Any]) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    known = {key: round(value, 6) if isinstance(value, float) else value for key, value in facts.items()}
    line = {"time": now, "level": level, "event": event} | {k: v for k, v in known.items() if v is not None}
    return json.dumps(line, ensure_ascii=True, default=str)


class _Log:
    """Lines on their way to standard error. A reader that is slow, paused or gone holds up this thread alone."""

    def __init__(self) -> None:
        self.lines, self.lost = deque[str](), 0
        self.some, self.thread = threading.Event(), threading.Thread(target=self._run, daemon=True, name="log")

    def write(self, line: str) -> None:
        if len(self.lines) >= WAITING:
            self.lost += 1
            return
        self.lines.append(line)
        if not self.thread.ident:
            self.thread.start()
            atexit.register(flush)
        self.some.set()

    def _run(self) -> None:
        while self.some.wait():
            self.some.clear()
            while self.lines:
                self._print(self.lines[0])
                self.lines.popleft()  # only now: `flush` waits for what is being written too
            if self.lost:
                lost, self.lost = self.lost, 0
                self._print(_line("log lines lost", "warning", {"lines": lost}))

    def _print(self, line: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads any more, which is no reason to stop answering
            print(line, file=sys.stderr, flush=True)


_log = _Log()


def place(error: BaseException) -> str:
    """The kind of an error and where in the code it was raised; its message may hold what was asked."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + where


class Handler(logging.Handler):
    """Brings what libraries log into the same form, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        what = record.msg if record.args or error else record.getMessage()
        tell("library", level=record.levelname.lower(), logger=record.name, what=str(what)[:200],
             error=place(error) if error else None)  # fmt: skip


def capture() -> None:
    """Send warnings of the libraries here."""
    root = logging.getLogger()
    root.handlers = [Handler()]
    root.setLevel(logging.WARNING)
