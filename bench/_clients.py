"""What `bench/serving.py` asks a server with: the server as a process, and clients that cost little themselves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")


class Reply(NamedTuple):
    """What came back, after how many seconds; status 0 is a connection that was lost."""

    status: int
    seconds: float
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection, which is kept."""

    def __init__(self, port: int) -> None:
        self.port, self.pipe = port, None

    async def get(self, path: str) -> Reply:
        """Ask without a body."""
        return await self._ask(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())

    async def post(self, path: str, content: Any) -> Reply:
        """Ask with JSON."""
        body = json.dumps(content).encode()
        return await self._ask(
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )

    async def _ask(self, request: bytes) -> Reply:
        begun = time.perf_counter()
        try:
            if self.pipe is None:
                self.pipe = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self.pipe
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return Reply(0, time.perf_counter() - begun, {}, b"")
        if headers.get("connection") == "close":
            self.close()
        return Reply(int(head[0].split()[1]), time.perf_counter() - begun, headers, body)

    def close(self) -> None:
        """Leave."""
        if self.pipe is not None:
            self.pipe[1].close()
            self.pipe = None


class Server(NamedTuple):
    """A server that runs."""

    process: subprocess.Popen[bytes]
    port: int

    def workers(self) -> list[int]:
        """Its decoding processes."""
        return [worker for nursery in _children(self.process.pid) for worker in _children(nursery)]

    def memory(self) -> float:
        """Resident megabytes of all its processes, what they share counted once (PSS)."""
        return sum(map(_pss, (self.process.pid, *_children(self.process.pid), *self.workers())))

    def cpu(self) -> tuple[float, float]:
        """CPU seconds of the server process, and of its decoding processes."""
        return _cpu(self.process.pid), sum(map(_cpu, self.workers()))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _pss(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def serving(*words: str, log: Path) -> Iterator[Server]:
    """`antiphon serve` with these words on a free port, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "antiphon", "serve", *words, "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file, stdout=file)
    try:
        _await(port, process)
        yield Server(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).read()
            return
        except OSError:
            time.sleep(0.1)
        if process.poll() is not None:
            break
    raise RuntimeError(f"the server did not begin, exit code {process.poll()}")
