"""The process of `antiphon serve`: the socket, the signals, the beginning and the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from antiphon.core.errors import AntiphonError, ConfigError
from antiphon.serving import logs, models
from antiphon.serving.app import create
from antiphon.serving.service import Service
from antiphon.serving.settings import Settings

WAITING = 2048
"""Connections that wait to be accepted."""
KEEP_ALIVE = 75
"""Seconds that a connection is kept without a request."""
LAST = 5
"""Seconds for connections to close in the end."""


def bound(host: str, port: int) -> socket.socket:
    """A socket on this address. Raises `ConfigError`."""
    if not 0 <= port < 1 << 16:  # which the system would take for another one
        raise ConfigError("there is no such port", where="--port", got=port, do="choose one from 1 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with contextlib.ExitStack() as closing:
            made = closing.enter_context(socket.socket(family, socket.SOCK_STREAM))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            closing.pop_all()
    except OSError as error:
        what, do = error.strerror or str(error), "choose another --host or --port"
        raise ConfigError(f"cannot listen: {what.lower()}", where=f"{host}:{port}", do=do) from None
    return made


def serve(words: Sequence[str], host: str, port: int, settings: Settings) -> int:
    """Serve models until told to end; the exit code: 0 where every accepted request was answered, else 1.

    Raises `AntiphonError` where a model cannot be served, or the address is taken.
    """
    paths = models.named(words)
    with bound(host, port) as listener:
        service = Service(paths, settings)
        logs.capture()
        name = f"[{host}]" if ":" in host else host
        logs.tell("listening", url=f"http://{name}:{listener.getsockname()[1]}", models=list(paths))
        return asyncio.run(_Main(service, listener).run())


class _Main:
    """One run of the server."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        self.service, self.listener, self.asked, self.code = service, listener, 0, 0
        self.tasks: list[asyncio.Task[Any]] = []
        self.server = _Server(
            uvicorn.Config(
                create(service), http=protocol(service.settings.patience), ws="none", lifespan="off", log_config=None,
                access_log=False, server_header=False, backlog=WAITING, timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=LAST,
            )
        )  # fmt: skip

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(self.service.reload()))
        begin = self._begin(self._start())
        await self.server.serve(sockets=[self.listener])
        await self.service.end()
        if begin.done() and (error := begin.exception()):
            raise error
        logs.tell("ended", code=self.code)
        return self.code

    async def _start(self) -> None:
        try:
            await self.service.start()
        except (AntiphonError, OSError):
            self.server.should_exit = True
            raise

    def _begin(self, work: Any) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]

    def _stop(self, number: int) -> None:
        """The first signal: answer what was accepted, and end. The second: end."""
        self.asked += 1
        if self.asked > 1:
            self.service.fleet.kill()
            self.service.folder.cleanup()
            os._exit(128 + number)
        self._begin(self._drain())

    async def _drain(self) -> None:
        self.code = 0 if await self.service.drain() else 1
        self.service.fleet.batcher.stop()
        self.server.should_exit = True


class _Server(uvicorn.Server):
    """Leaves signals to `_Main`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def protocol(patience: float) -> type[asyncio.Protocol]:
    """Uvicorn's protocol, but a connection whose request has not begun within so many seconds is closed."""

    class Patient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect(transport)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            begun = self.cycle is not None and not self.cycle.response_complete
            if begun and self.late is not None:
                self.late.cancel()
                self.late = None
            elif not begun and self.late is None:
                self._expect(self.transport)

        def connection_lost(self, error: Exception | None) -> None:
            if self.late is not None:
                self.late.cancel()
            super().connection_lost(error)

        def _expect(self, transport: Any) -> None:
            self.late = asyncio.get_running_loop().call_later(patience, transport.close)

    return Patient
