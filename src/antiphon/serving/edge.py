"""The first and the last to see a request: its id, its key, its size and time, and what is logged and counted of it."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from starlette.responses import Response

from antiphon.serving.logs import place, tell
from antiphon.serving.refusals import BROKEN, GONE, SLOW, TOO_LARGE, UNKNOWN_KEY, UNREADY, Refusal
from antiphon.serving.service import Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH = ("/healthz", "/readyz", "/metrics")
"""Answered while the server ends, and not logged."""
UPLOADS = ("/v1/files",)
PLAIN = ("/translate", "/languages")
"""Whose errors are plain text within JSON, as LibreTranslate has them."""
FORM = 1 << 16
"""Bytes around an uploaded file."""
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:"
HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer",
           "Cache-Control": "no-store"}  # fmt: skip


def refused(scope: Scope, refusal: Refusal) -> Response:
    """What the client of a request is told that is not answered."""
    scope["state"]["cause"] = refusal.cause
    error: Any = refusal.error
    if scope["path"] in PLAIN:
        what = ": ".join(filter(None, (error["where"], error["what"])))
        error = "; ".join(filter(None, (what, error["do"])))
    content = json.dumps({"error": error})
    return Response(content, refusal.status_code, refusal.headers, media_type="application/json")


def broken(scope: Scope) -> Response:
    """What it is told where the fault is here."""
    what = "the server failed on this request"
    return refused(scope, Refusal(BROKEN, what, where=scope["state"]["id"], do="tell who runs it", cause="error"))


class Edge:
    """Wraps the application."""

    def __init__(self, app: App, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, whatever becomes of it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        scope["state"] = {**scope.get("state", {}), "id": uuid.uuid4().hex[:16], "facts": {}}
        begun, said = time.perf_counter(), _Said(send, scope, self.service)
        counted = scope["path"] not in HEALTH
        self.service.open += counted
        try:
            await self._admitted(scope, receive, said)
        finally:
            self.service.open -= counted
            self._book(scope, said, time.perf_counter() - begun)

    async def _admitted(self, scope: Scope, receive: Receive, said: _Said) -> None:
        try:
            self._admit(scope)
            await self.app(scope, _Limited(receive, scope, self.service), said)
        except Refusal as refusal:  # of this class; those of routes are answered within
            # one who asks before sending would be told to go on by being read
            if refusal.status_code == TOO_LARGE and b"expect" not in dict(scope["headers"]):
                await swallowed(receive, most(scope, self.service))
            await refused(scope, refusal)(scope, receive, said)
        except Exception as error:
            # the client has been told by `broken`, if that was still possible
            tell("error", level="error", id=scope["state"]["id"], error=place(error))

    def _admit(self, scope: Scope) -> None:
        headers, path = dict(scope["headers"]), scope["path"]
        if self.service.draining and path not in HEALTH:
            raise Refusal(UNREADY, "the server ends", do="ask another one", cause="draining", retry=1)
        guarded = path.startswith("/v1/") or path in ("/translate", "/languages", "/metrics")
        if self.service.keys and guarded and scope["method"] != "OPTIONS":
            scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
            allowed = self.service.allowed(headers.get(b"x-api-key") or (key if scheme.lower() == b"bearer" else b""))
            # /translate may have its key in the body, and looks itself
            if not allowed and path != "/translate":
                do = "send the header Authorization: Bearer KEY"
                raise Refusal(UNKNOWN_KEY, "this server wants a key", do=do, cause="key")
            scope["state"]["allowed"] = allowed

    def _book(self, scope: Scope, said: _Said, seconds: float) -> None:
        metrics, state = self.service.metrics, scope["state"]
        # only paths of routes: what else was asked for may hold anything
        known = "route" in scope and "path" in scope and not scope.get("path_params")
        path = scope["path"] if known else "other"
        metrics.requests.labels(path, str(said.status or GONE)).inc()
        metrics.seconds.labels(path).observe(seconds)
        if cause := state.get("cause"):
            metrics.refused.labels(cause).inc()
        if scope["path"] not in HEALTH:
            tell("request", id=state["id"], method=scope["method"] if known else None, route=path,
                 status=said.status or GONE, seconds=seconds, cause=cause, **state["facts"])  # fmt: skip


def most(scope: Scope, service: Service) -> int:
    """Bytes that a request may have."""
    return service.settings.upload + FORM if scope["path"] in UPLOADS else service.settings.body


async def swallowed(receive: Receive, left: int) -> None:
    """Read on, for a second and so many bytes at most, what is not wanted: a connection that is closed with bytes
    unread is reset, and the client may never see why."""
    with suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            while left > 0:
                message = await receive()
                if not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))


class _Said:
    """What is answered: notes the status, and adds headers."""

    def __init__(self, send: Send, scope: Scope, service: Service) -> None:
        self.send, self.scope, self.service, self.status = send, scope, service, 0

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            more = {"X-Request-ID": self.scope["state"]["id"], **HEADERS}
            if self.service.draining:
                more["Connection"] = "close"
            known = {key.lower() for key, _ in message.get("headers", [])}
            new = [(key.lower().encode(), value.encode()) for key, value in more.items()]
            message["headers"] = [*message.get("headers", []), *(pair for pair in new if pair[0] not in known)]
        await self.send(message)


class _Limited:
    """What is received: no more than allowed, and no slower."""

    def __init__(self, receive: Receive, scope: Scope, service: Service) -> None:
        self.receive, self.read, self.over = receive, 0, False
        upload, settings = scope["path"] in UPLOADS, service.settings
        self.limit = most(scope, service)
        self.shown = settings.upload if upload else settings.body
        self.end = time.monotonic() + settings.patience * (3 if upload else 1)
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > self.limit:
            raise self._large()

    async def __call__(self) -> MutableMapping[str, Any]:
        if self.over:  # all is read: what comes is that the client leaves
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), max(0.01, self.end - time.monotonic()))
        except TimeoutError:
            what = "the request came too slowly"
            raise Refusal(SLOW, what, do="send it again", cause="slow") from None
        self.read += len(message.get("body", b""))
        self.over = not message.get("more_body", False)
        if self.read > self.limit:
            if not self.over:
                await swallowed(self.receive, self.limit)
            raise self._large()
        return message

    def _large(self) -> Refusal:
        what = f"a request has at most {self.shown:,} bytes"
        return Refusal(TOO_LARGE, what, where="body", do="send less", cause="too-large")
