"""Waiting for answers with an eye on who waits: a client that leaves is noticed, and its work is given up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from antiphon.serving.batcher import Job, late
from antiphon.serving.edge import Receive, Scope, Send
from antiphon.serving.refusals import GONE, Refusal
from antiphon.serving.service import Service


async def left(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer(service: Service, job: Job, receive: Receive) -> Any:
    """The result of a job. Raises `Refusal`: refused, failed, too late, or nobody waits any more."""
    service.fleet.batcher.submit(job)
    gone = asyncio.ensure_future(left(receive))
    try:
        seconds = max(0.0, job.deadline - asyncio.get_running_loop().time())
        await asyncio.wait([job.future, gone], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if job.future.done():
            return job.future.result()
        raise Refusal(GONE, "the client left", cause="left") if gone.done() else late()
    finally:
        gone.cancel()
        service.fleet.batcher.cancel(job)


class Events(Response):
    """A response of server-sent events: `partial` as the answer grows, then `answer` or `error`."""

    def __init__(self, service: Service, job: Job, final: Callable[[Any], dict[str, Any]]) -> None:
        super().__init__()
        self.service, self.job, self.final = service, job, final

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Until the answer is there, or the client leaves."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        work = asyncio.ensure_future(answer(self.service, self.job, receive))
        # a request that is not accepted is refused as any other: what is raised at once is raised here
        await asyncio.sleep(0)
        if work.done():
            work.result()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            await self._partials(work, send)
            event, content = "answer", self.final(await work)
        except Refusal as refusal:
            scope["state"]["cause"] = refusal.cause
            if refusal.status_code == GONE:
                return
            event, content = "error", {"error": refusal.error}
        finally:
            work.cancel()
        await send({"type": "http.response.body", "body": _event(event, content), "more_body": False})

    async def _partials(self, work: asyncio.Future[Any], send: Send) -> None:
        """What was found until now, as it comes: all of it, however soon after it the answer is there."""
        partials = self.job.partials
        assert partials is not None
        work.add_done_callback(lambda _: partials.put_nowait(None))
        while (text := await partials.get()) is not None:
            content = _event("partial", {"text": text, "done": False})
            await send({"type": "http.response.body", "body": content, "more_body": True})


def _event(name: str, content: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content, ensure_ascii=False)}\n\n".encode()
