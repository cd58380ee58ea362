"""Answers to many inputs in a file of lines that is whole in the end, whatever interrupts it on the way.

Answers are appended to `OUT.partial` as they come, a line each, and `OUT.about.json` says what they depend on. Lines
that are whole are never made again: the number of them is the number of inputs that are done.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from antiphon.core.alone import hold
from antiphon.core.errors import DataError
from antiphon.data.corpus import kind_of_table, read_lines
from antiphon.data.formats import parquet_rows
from antiphon.data.report import Report
from antiphon.data.signals import kind_of
from antiphon.inference.files import write_file
from antiphon.inference.strict_json import dump_json

SYNC = 10.0
"""Seconds after which what was written is on disk, whatever becomes of the machine."""

Answers = Callable[[int], Iterator[str]]
"""The answers from an input on that is told by its number, each as one line without its end."""


def bulk(
    answers: Answers, out: Path, facts: Mapping[str, Any], told: Callable[[int], None] = lambda done: None
) -> tuple[int, int]:
    """Write all answers to `out`; gives how many there are, and how many of these were there before.

    `facts` are what answers depend on: with others in `OUT.about.json`, or with a file in the way, this is a
    `DataError`. `told` hears how many are done.
    """
    if not out.name or out.is_dir():
        raise DataError("this is no name of a file", where=out, do="name the file of answers")
    partial, about = out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.about.json")
    try:
        _begin(out, partial, about, json.loads(dump_json(dict(facts))))
        with partial.open("r+b") as file:
            hold(file, DataError("another process is writing these answers", where=out, do="wait for it"))
            before = done = _whole(file)
            synced = time.monotonic()
            for line in answers(before):
                file.write(line.encode() + b"\n")
                file.flush()
                done += 1
                told(done)
                if time.monotonic() - synced > SYNC:
                    os.fsync(file.fileno())
                    synced = time.monotonic()
            os.fsync(file.fileno())
            os.replace(partial, out)
        about.unlink()
    except OSError as error:
        raise DataError(f"cannot write the answers: {error.strerror}", where=out, do="choose another place") from None
    return done, before


def _begin(out: Path, partial: Path, about: Path, facts: dict[str, Any]) -> None:
    """Refuse what is in the way; else the two files are there."""
    if out.exists():
        raise DataError("is there already", where=out, do="remove it, or choose another name")
    if not partial.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(about, dump_json(facts))
        partial.touch()
        return
    try:
        before = json.loads(about.read_bytes())
    except (OSError, ValueError):
        before = None
    if before != facts:
        changed = sorted(key for key in facts if not isinstance(before, dict) or before.get(key) != facts[key])
        what = "answers of another model, or to other inputs, are there already"
        raise DataError(what, where=partial, got=", ".join(changed), do="remove it, or choose another name")


def _whole(file: IO[bytes]) -> int:
    """The number of whole lines; one that was cut off is taken away."""
    lines = end = 0
    for line in file:
        if line.endswith(b"\n"):
            lines, end = lines + 1, end + len(line)
    file.seek(end)
    file.truncate()
    return lines


def digest(files: Sequence[str]) -> tuple[str, int]:
    """The SHA-256 of the bytes of files, and how many inputs they hold: a line of text each, or one recording.

    Raises `DataError` for a damaged line: before anything is answered, since answers are to the files as they were.
    """
    found, inputs = hashlib.sha256(), 0
    for name in files:
        with open(name, "rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
        if kind_of_table(Path(name)) == ".parquet":
            inputs += sum(1 for _ in parquet_rows(Path(name), Report()))
        else:
            inputs += sum(1 for _ in read_lines(name)) if kind_of(name) == "text" else 1
    return found.hexdigest(), inputs
