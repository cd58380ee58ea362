"""The log: one JSON object a line on standard error, without what was asked or answered."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any


def tell(event: str, *, level: str = "info", **facts: Any) -> None:
    """Write one event. Facts that are None are left out."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    known = {key: round(value, 6) if isinstance(value, float) else value for key, value in facts.items()}
    line = {"time": now, "level": level, "event": event} | {k: v for k, v in known.items() if v is not None}
    print(json.dumps(line, ensure_ascii=True, default=str), file=sys.stderr, flush=True)


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
