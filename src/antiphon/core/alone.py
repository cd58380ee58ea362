"""One process at a time: a lock on an open file, which ends with the process whatever that dies of."""

from __future__ import annotations

import time
from typing import IO

from antiphon.core.errors import AntiphonError

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]


def hold(file: IO[bytes], busy: AntiphonError, *, seconds: float = 0.0) -> None:
    """Hold the file until it is closed. Whoever has a copy of it, such as a worker, holds it too.

    Raises `busy` where somebody else does, and does not let go of it in time. Where a system or its disk has no locks
    nobody is kept out.
    """
    end = time.monotonic() + seconds
    while fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise busy from None
            time.sleep(0.1)
        except OSError:
            return
