"""What a client is told when it is not answered: a status, and an error that says where, what, got and do."""

from __future__ import annotations

import math
from typing import Any

from starlette.exceptions import HTTPException

from antiphon.core.errors import AntiphonError

BAD, UNKNOWN_KEY, MISSING, SLOW, TOO_LARGE, WRONG, FULL = 400, 401, 404, 408, 413, 422, 429
GONE, BROKEN, UNREADY, LATE = 499, 500, 503, 504


class Refusal(HTTPException):
    """A request that is not answered, with the HTTP `status` that says so; `retry` are seconds to wait before another
    attempt, `cause` a word for the metrics."""

    def __init__(
        self, status: int, what: str, *, where: str = "", got: object = "", do: str = "", cause: str = "",
        retry: float = 0,
    ) -> None:  # fmt: skip
        headers = {"Retry-After": str(math.ceil(retry))} if retry else {}
        headers |= {"WWW-Authenticate": "Bearer"} if status == UNKNOWN_KEY else {}
        headers |= {"Connection": "close"} if status in (SLOW, TOO_LARGE) else {}
        super().__init__(status, what, headers)
        self.cause = cause or str(status)
        self.error: dict[str, Any] = {"where": where, "what": what, "got": str(got), "do": do}


def wrong(error: AntiphonError, where: str) -> Refusal:
    """A mistake in an input. What the error quotes stays out: it may be the input, or the name of a file."""
    return Refusal(WRONG, error.what, where=where, do=error.do, cause="input")
