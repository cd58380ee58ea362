"""What must be the same for a run to go on: its folder, its settings, its data."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.core.alone import hold
from antiphon.core.config import Config
from antiphon.core.errors import ConfigError, DataError, TrainingError
from antiphon.core.keys import to_dict
from antiphon.data.arrays import INLINE, path_of
from antiphon.data.corpus import Pair
from antiphon.data.signals import kind_of
from antiphon.data.store import Store
from antiphon.inference import files as folders
from antiphon.inference.strict_json import dump_json
from antiphon.training.checkpoint import Checkpoints, Found, State
from antiphon.training.observers import Result

BEGINNING = 1 << 20
"""Bytes of a held-out recording that are looked at, beside its size."""
LOCK = ".lock"
"""A file in the folder of a run that one process holds at a time."""
UNBORN = ".preparing"
"""A file in the folder of a run that has not begun: whoever finds it may clear the folder."""

DATA = {"train": "training data", "mixed": "mixed-in data", "store": "training data", "valid": "validation data"}
DATA |= {
    "held_out": "validation data",
    "synonyms": "synonym data",
    "knowledge": "knowledge data",
    "teachers": "teacher",
}
"""The hashes in `data.json`, and what they are of."""


def claim(run: Path) -> None:
    """Make the folder of a new run; refuse one that has something in it, but for a run that died before it began."""
    if not (run / "config.json").exists() and abandoned(run):
        with alone(run):
            if abandoned(run):  # still, now that nobody else can begin
                clear(run)
    if run.exists() and not run.is_dir():
        raise TrainingError("this is a file, and a run is a folder", where=run, do="choose another name")
    if run.exists() and any(run.iterdir()):
        do = f"choose another, or: antiphon resume {shlex.quote(str(run))}"
        raise TrainingError("the run folder is not empty", where=run, do=do)
    try:
        run.mkdir(parents=True, exist_ok=True)
        prepare(run)
    except OSError as error:
        raise TrainingError(
            f"the run folder cannot be made: {error.strerror}", where=run, do="choose another"
        ) from None


def clear(run: Path) -> None:
    """Remove a run that has not begun, unless another process has begun one there meanwhile; of a link what it leads
    to stays, as an empty folder."""
    if (run / "config.json").exists():
        return
    if run.is_symlink():
        for path in run.iterdir():
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    else:
        shutil.rmtree(run, ignore_errors=True)


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold a run while something is done in it. Raises `TrainingError` where another process holds it."""
    with open(run / LOCK, "ab") as file:
        busy = TrainingError("another process is training in this run", where=run, do="wait for it, or stop it")
        hold(file, busy, seconds=5)
        with suppress(OSError):
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(run / LOCK)):  # it was cleared, and begun anew
                raise busy
        yield


def prepare(folder: Path) -> None:
    """Say that this process is making what goes into a folder."""
    (folder / UNBORN).write_text(f"{os.getpid()} {begun(os.getpid())} {platform.node()}")


def abandoned(folder: Path) -> bool:
    """Whether what was to be made in a folder never was. Raises `TrainingError` where somebody still makes it."""
    try:
        number, since, node = (*(folder / UNBORN).read_text(errors="replace").split(" ", 2), "", "", "")[:3]
    except OSError:  # there is none, or it is not for us to read
        return False
    other = number.isdecimal() and int(number) != os.getpid() and node == platform.node()
    if other and alive(int(number)) and begun(int(number)) == since:
        do = f"wait for it, or choose another; if it is something else, remove the file {UNBORN} there"
        raise TrainingError("another process is preparing this folder", where=folder, got=f"process {number}", do=do)
    return True


def begun(number: int) -> str:
    """When a process began, in ticks of the machine, since its number comes again; ? where that is not told."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "?"


def alive(number: int) -> bool:
    """Whether there is such a process, as far as can be told."""
    if os.name != "posix":  # where asking would end it
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Settings that differ, as `training.rate: 0.1 -> 0.2`."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before!r} -> {after!r}"


def begin(config: Config, out: Path, known: Mapping[str, Any]) -> None:
    """Write down what a new run depends on; from here on it can be resumed."""
    if not (out / UNBORN).exists():
        claim(out)
    folders.write_file(out / "data.json", dump_json(dict(known)))
    folders.write_file(out / "config.json", dump_json(to_dict(config)))
    (out / UNBORN).unlink()


def resumable(config: Config, out: Path, known: Mapping[str, Any]) -> Found | None:
    """The checkpoint to go on from; None where a run was begun and never got to its first one."""
    if not (out / "config.json").exists():
        raise TrainingError("there is no run here", where=out, do="train first")
    same_settings(json.loads((out / "config.json").read_bytes()), config, out)
    same_data(json.loads((out / "data.json").read_bytes()), known, out)
    checkpoints = Checkpoints(out)
    return checkpoints.newest() if checkpoints.all() else None


def same_settings(before: Mapping[str, Any], config: Config, out: Path) -> None:
    """Refuse settings that are not those that the run began with, or that its checkpoint has."""
    changed = list(differences(before, json.loads(dump_json(to_dict(config)))))
    if changed:
        raise ConfigError(f"the settings differ from those of the run: {'; '.join(changed)}", where=out,
                          do="resume with the same settings, or train into another folder")  # fmt: skip


def same_data(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Refuse data that is not what the run began with."""
    for key, what in DATA.items():
        if key in now and before.get(key) != now[key]:
            raise DataError(f"the {what} has changed since this run began", where=out,
                            got=f"sha256 {str(now[key])[:12]}, was {str(before.get(key))[:12]}",
                            do="restore it, or train into another folder")  # fmt: skip


def ended(out: Path, state: State, config: Config) -> Result:
    """The result of a run that had ended already."""
    bundle_path = out / "best" if state.best is not None else None
    return Result(out, "finished", state.step, state.epoch, config.training.metric or "loss", state.best,
                  state.best_step, state.scores, bundle_path, state.seconds, state.skipped,
                  adapter=config.model.adapter.name)  # fmt: skip


def fingerprint_bundle(manifest: Mapping[str, Any]) -> str:
    """The SHA-256 of a bundle's files by their hashes in its manifest; a `training/` folder does not count."""
    files = {name: item["sha256"] for name, item in manifest["files"].items() if not name.startswith("training/")}
    return hashlib.sha256(dump_json(files)).hexdigest()


def fingerprint(store: Store) -> str:
    """The SHA-256 of all ids (and texts, and groups) of a store."""
    digest = hashlib.sha256()
    context = [store.context[name] for name in sorted(store.context)]
    for part in (store.source, store.target, *context, store.texts):
        for values in part or ():
            digest.update(np.ascontiguousarray(values).data)
    if store.groups is not None:
        digest.update(json.dumps(store.names).encode() + store.groups.tobytes())
    return digest.hexdigest()


def fingerprint_pairs(pairs: Sequence[Pair]) -> str:
    """The SHA-256 of pairs; of the recordings, films and arrays that they name, their sizes and how they begin."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps([pair.source, pair.target, pair.references, pair.context], sort_keys=True).encode())
        if not pair.source.startswith(INLINE) and kind_of(pair.source) != "text":
            with suppress(OSError), path_of(pair.source).open("rb") as file:
                digest.update(f"{os.fstat(file.fileno()).st_size}".encode() + file.read(BEGINNING))
    return digest.hexdigest()
