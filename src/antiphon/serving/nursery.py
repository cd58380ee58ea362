"""Where decoding processes come from: one process imports what they need and decodes nothing itself, so that each is
forked in no time and shares that memory with the others.

    python -m antiphon.serving.nursery DESCRIPTOR [pytorch]

The descriptor is a socket, on which the ends of decoding processes come, each answered with the number of its process.
Exported models need no PyTorch, and it is imported where it is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys

BYTES = 4
"""Of the number of a process."""


class Nursery:
    """The server's side."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.pytorch = False

    async def bear(self, end: socket.socket, *, pytorch: bool) -> int:
        """A new decoding process with this end of a pair of sockets; its number. Raises `OSError`."""
        async with self.turn:
            if pytorch and not self.pytorch:
                self.kill()
            self.pytorch = self.pytorch or pytorch
            if self.process is None or self.process.poll() is not None:
                self._begin()
            socket.send_fds(self.socket, [b"+"], [end.fileno()])
            number = await asyncio.get_running_loop().sock_recv(self.socket, BYTES)
        if len(number) < BYTES:
            self.kill()
            raise OSError("the nursery has gone")
        return int.from_bytes(number, "big")

    def _begin(self) -> None:
        self.socket, theirs = socket.socketpair()
        command = [sys.executable, "-m", "antiphon.serving.nursery", str(theirs.fileno())]
        command += ["pytorch"] if self.pytorch else []
        # A session of its own: what a terminal sends to the server is not for it, and it ends when the socket closes.
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                                        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
        theirs.close()
        self.socket.setblocking(False)

    def kill(self) -> None:
        """End it; those that it has borne go on."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.socket.close()
            self.process = None


def main() -> None:
    """Bear a process whenever asked to, until the server has gone."""
    from antiphon.serving.worker import serve

    if "pytorch" in sys.argv[2:]:
        import antiphon.inference.explore
        import antiphon.inference.on_pytorch  # noqa: F401
    requests = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead need no burial
    gc.freeze()
    while True:
        asked, ends, _, _ = socket.recv_fds(requests, 1, 1)
        if not asked:
            return
        number = os.fork()
        if not number:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            with contextlib.suppress(EOFError, ConnectionError):
                serve(ends[0])
            os._exit(0)
        os.close(ends[0])
        requests.sendall(number.to_bytes(BYTES, "big"))


if __name__ == "__main__":
    main()
