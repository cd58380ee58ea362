"""What benches share that run `antiphon` as a user would: where the data sets are, and a command with what it cost."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Done(NamedTuple):
    """A command that has ended: its output, and the seconds that it took."""

    output: str
    cpu_seconds: float
    wall_seconds: float


def antiphon(*words: str, threads: int | None = None) -> Done:
    """Run a command, with so many threads (None: as the environment says); what it says of errors is passed through."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {"OMP_NUM_THREADS": str(threads)} if threads is not None else {}
    command = [sys.executable, "-m", "antiphon", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, **environment})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Done(done.stdout.decode(), cpu_seconds, time.monotonic() - begun)


@contextmanager
def kept(folder: Path | None) -> Iterator[Path]:
    """The folder, made if need be, or one that is gone afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        out = folder or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        yield out


def data_sets() -> Path | None:
    """The folder of the data sets; None, and what to do is said, where the environment names none."""
    if "ANTIPHON_DATA" in os.environ:
        return Path(os.environ["ANTIPHON_DATA"])
    print("skipped: this needs the data sets; set ANTIPHON_DATA to their folder")
    return None
