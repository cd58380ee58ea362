"""What benches share that run `antiphon` as a user would: where the data sets are, and a command with what it cost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

TRANSFORMER = (
    "model.encoder.kind=transformer", "model.decoder.kind=transformer", "data.source.tokenizer=bpe",
    "data.target.tokenizer=bpe",
)  # fmt: skip
"""What the recipe proposes for much text, for benches that take little of it."""


class Done(NamedTuple):
    """A command that has ended: its output, and the seconds that it took."""

    output: str
    cpu_seconds: float
    wall_seconds: float


def antiphon(*words: str, threads: int | None = None) -> Done:
    """Run a command, with so many threads (None: as the environment says); what it says of errors is passed through."""
    begun, command = time.monotonic(), [sys.executable, "-m", "antiphon", *words]
    environment = {"OMP_NUM_THREADS": str(threads)} if threads is not None else {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **environment}) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)  # of this command alone, whatever runs beside it
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Done(output.decode(), usage.ru_utime + usage.ru_stime, time.monotonic() - begun)


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
