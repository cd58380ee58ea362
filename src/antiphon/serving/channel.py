"""Messages between the server and its decoding processes: JSON, each after its length in four bytes."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from typing import Any

Message = dict[str, Any]

LENGTH = 4


def packed(message: Message) -> bytes:
    """A message as it is sent."""
    content = json.dumps(message, allow_nan=False).encode()
    return len(content).to_bytes(LENGTH, "big") + content


async def received(reader: asyncio.StreamReader) -> Message:
    """The next message; `asyncio.IncompleteReadError` where the other side has gone."""
    length = int.from_bytes(await reader.readexactly(LENGTH), "big")
    message: Message = json.loads(await reader.readexactly(length))
    return message


class Channel:
    """The end of a decoding process, which waits."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def send(self, message: Message) -> None:
        """Send a message whole."""
        self.end.sendall(packed(message))

    def waiting(self, seconds: float = 0.0) -> bool:
        """Whether there is something to receive, or comes within so many seconds."""
        return bool(select.select([self.end], [], [], seconds)[0])

    def receive(self) -> Message:
        """The next message; `EOFError` where the other side has gone."""
        message: Message = json.loads(self._exactly(int.from_bytes(self._exactly(LENGTH), "big")))
        return message

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self.end.recv(min(count, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)
