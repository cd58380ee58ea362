"""What a server allows, and how long it waits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from antiphon.core.errors import ConfigError

COUNTS = ("batch", "queue", "inputs", "characters", "tokens", "hypotheses", "work", "body", "upload", "processes")
TIMES, PAUSES = ("timeout", "patience", "drain", "hang"), ("wait", "watch")
"""Settings from 1 on, seconds above 0, and seconds that may be 0."""


@dataclass(frozen=True)
class Settings:
    """Limits, times in seconds and sizes in bytes.

    Parameters
    ----------
    timeout
        Seconds that a request may take at most; a client may ask for less with the header X-Timeout.
    wait
        Seconds that a request waits for company, to be answered in one batch.
    batch
        Inputs that are decoded together.
    queue
        Room for waiting requests, in source tokens times hypotheses; beyond it requests are refused (429).
    inputs
        Most inputs of one request.
    characters
        Most characters of one input.
    tokens
        Most source tokens of one input.
    hypotheses
        Widest beam, and most answers to one input.
    work
        Most source tokens times hypotheses of one request.
    body
        Most bytes of a request; beyond it is refused (413).
    upload
        Most bytes of an uploaded file.
    patience
        Seconds that a client may take to send a request.
    drain
        Seconds after SIGTERM in which accepted requests are answered.
    hang
        Seconds without a sign of life after which a decoding process is replaced.
    processes
        Decoding processes; one a core where not given.
    watch
        Seconds between looks at the models on disk, to load what has changed; 0 looks only on SIGHUP.
    keys
        A file of API keys, one a line; requests then need one of them.
    cors
        Origins of pages elsewhere that may ask this server, such as https://example.org.
    log_text
        Write what was asked and answered to the log.
    """

    timeout: float = 30.0
    wait: float = 0.005
    batch: int = 128
    queue: int = 500_000
    inputs: int = 128
    characters: int = 20_000
    tokens: int = 4_096
    hypotheses: int = 32
    work: int = 200_000
    body: int = 1 << 20
    upload: int = 32 << 20
    patience: float = 10.0
    drain: float = 30.0
    hang: float = 30.0
    processes: int | None = None
    watch: float = 2.0
    keys: str | None = None
    cors: tuple[str, ...] = ()
    log_text: bool = False

    def check(self) -> None:
        """Raise `ConfigError` for what no server could work with."""
        for name in COUNTS:
            if (count := getattr(self, name)) is not None and count < 1:
                raise _senseless(name, count, "give 1 or more")
        for name in (*TIMES, *PAUSES):
            seconds = getattr(self, name)
            if not (0 <= seconds < math.inf) or (name in TIMES and not seconds):
                raise _senseless(name, seconds, f"give seconds{', more than 0' if name in TIMES else ', 0 or more'}")
        for origin in self.cors:
            parts = urlsplit(origin)
            if origin != "*" and (not parts.netloc or parts.path or parts.query or parts.fragment):
                raise _senseless("cors", origin, "write an origin without a path, such as https://example.org")


def _senseless(name: str, got: Any, do: str) -> ConfigError:
    return ConfigError("no server can work with this", where=f"--{name}", got=got, do=do)
