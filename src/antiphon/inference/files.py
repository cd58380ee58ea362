"""Folders of files that are written whole or not at all, and read only when every byte is as it was written.

The protocol: a temporary sibling folder, each file flushed and synced, `manifest.json` (sizes and sha256) last,
rename, sync of the parent. A crash at any moment leaves the old folder, the new one, or both.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import antiphon.core.errors as errors
from antiphon.inference.strict_json import JSON_LIMIT, dump_json, load_json

FORMAT = 1
"""Version of the bundle format; a reader refuses what is newer."""

MANIFEST, CARD = "manifest.json", "README.md"
TOTAL_LIMIT = 16 << 30
RATIO_LIMIT, RATIO_FLOOR = 100, 64 << 20
MEMBERS, DIRECTORY = 100, 1 << 17
"""Limits in bytes, times and numbers; a real bundle is far below all of them."""

SAID = 300
"""Characters of what a library says about a file, parts of which may come from the file."""

_NAME = re.compile(
    r"config\.json|task\.json|entities\.json|confidence\.json|model\.safetensors"
    r"|(?:source|target|shared)(?:\.[a-z0-9_]{1,32}){1,3}"
    r"|adapters/[a-z0-9][a-z0-9_-]{0,40}\.(?:json|safetensors)"
    r"|(?:ctranslate2|onnx)/[a-z][a-z0-9_]{0,40}\.(?:bin|json|onnx|txt)"
    r"|training/[a-z][a-z0-9_]{0,40}\.(?:json|safetensors)",
    re.ASCII,
)

_FAULTS: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError)
_FAULTS += (OverflowError, KeyError, IndexError, struct.error, zlib.error, zipfile.BadZipFile)
"""What reading a damaged file or archive may raise."""

Content = bytes | Callable[[Path], object]
"""The bytes of a file, or a function that writes it to the path it is given."""


def is_allowed(name: str) -> bool:
    """True for the names that a bundle may hold besides its manifest and card."""
    return _NAME.fullmatch(name) is not None


def write_folder(final: Path, files: Mapping[str, Content], *, facts: Mapping[str, Any] | None = None) -> None:
    """Write a folder of files atomically and durably, replacing an older one.

    `files` maps allowed names (and optionally README.md) to contents; `facts` are further entries of the
    manifest (strict JSON). Raises `BundleError` for a name outside the allow-list and `OSError` where the disk
    fails; the older folder is then untouched and the temporary one removed.
    """
    final = Path(final)
    for name in files:
        if name != CARD and not is_allowed(name):
            raise errors.BundleError("a bundle cannot hold a file of this name", where=final, got=repr(name))
    with whole(final) as temporary:
        entries = {name: _write(temporary / name, content) for name, content in sorted(files.items())}
        entries.pop(CARD, None)
        _write(temporary / MANIFEST, render_manifest(entries, facts or {}))
        for folder in {(temporary / name).parent for name in files} | {temporary}:
            _sync(folder)


@contextmanager
def whole(final: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `final` in the end, or is removed where something fails."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f"{final.name}.tmp-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        yield temporary
        _swap(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_file(final: Path, content: bytes) -> None:
    """Write one file atomically and durably, replacing an older one."""
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f"{final.name}.tmp-{os.getpid()}"
    try:
        _write(temporary, content)
        os.replace(temporary, final)
        _sync(final.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_zip(final: Path, files: Mapping[str, bytes], *, facts: Mapping[str, Any] | None = None) -> None:
    """The same files as one archive, stored, with fixed dates: equal contents give equal bytes."""
    entries = {name: entry(content) for name, content in sorted(files.items()) if name != CARD}
    members = {**dict(sorted(files.items())), MANIFEST: render_manifest(entries, facts or {})}
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f"{final.name}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                for name, content in members.items():
                    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, final)
        _sync(final.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def current(final: Path) -> Path:
    """The folder itself, or the older one that a crash in the middle of replacing it has left."""
    final = Path(final)
    if final.exists():
        return final
    kept = sorted(final.parent.glob(f"{glob_escape(final.name)}.old-*"))
    return kept[-1] if kept else final


def glob_escape(name: str) -> str:
    """A name that `Path.glob` takes literally."""
    return re.sub(r"([*?[])", r"[\1]", name)


def verify(path: Path, *, training: bool = False) -> dict[str, Any]:
    """The manifest of a folder or archive after checking every name, size and hash in it.

    A checkpoint whose `training/` folder was removed is a good bundle; `training=True` asks for that folder.
    Raises `BundleError` that names the file and what is wrong with it.
    """
    return read(path, keep=frozenset(), training=training)[0]


def read(
    path: Path, *, keep: frozenset[str] | None = None, training: bool = False
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The verified manifest and the verified bytes of the files (only of those in `keep`, where given).

    What is returned are the very bytes that were hashed, so nothing can change between check and use. Files of
    `training/` are read only when `training` is true. Files that the manifest does not list are never opened.
    """
    path = Path(path)
    source: _Folder | _Archive
    if path.is_dir():
        source = _Folder(path)
    elif path.is_file():
        source = _Archive(path)
    else:
        raise errors.BundleError("there is no model here", where=path, do="give a bundle folder, a .zip or a run")
    try:
        return _read(source, path, keep, training)
    except _FAULTS as error:
        raise errors.BundleError(f"cannot be read: {str(error)[:SAID]}", where=path) from None
    finally:
        source.close()


def read_card(path: Path) -> bytes:
    """The model card, which no manifest lists; an error where there is none."""
    if path.is_dir():
        return (path / CARD).read_bytes()
    archive = _Archive(path)
    try:
        return archive.read(CARD, JSON_LIMIT)
    finally:
        archive.close()


def _read(
    source: _Folder | _Archive, path: Path, keep: frozenset[str] | None, training: bool
) -> tuple[dict[str, Any], dict[str, bytes]]:
    manifest = parse_manifest(source.read(MANIFEST, JSON_LIMIT), where=path / MANIFEST)
    listed = {name: item for name, item in manifest["files"].items() if training or not name.startswith("training/")}
    if training and not any(name.startswith("training/") for name in listed):
        raise errors.BundleError("there is no training state here", where=path, do="this is a bundle, not a checkpoint")
    source.check(listed)
    contents = {}
    for name, item in listed.items():
        content = source.read(name, item["size"])
        if entry(content) != item:
            raise errors.BundleError("the file is damaged: size or sha256 differs from the manifest", where=path / name)
        if keep is None or name in keep:
            contents[name] = content
    return manifest, contents


class _Folder:
    """A bundle as a folder: regular files only, no links."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str, limit: int) -> bytes:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            descriptor = os.open(self.path / name, flags)
        except OSError as error:
            missing = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error.strerror}"
            raise errors.BundleError(f"the file {missing}", where=self.path / name) from None
        with open(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise errors.BundleError("not a regular file", where=self.path / name)
            if status.st_size > limit:
                raise errors.BundleError("the file is larger than declared", where=self.path / name, got=status.st_size)
            return stream.read(limit + 1)

    def check(self, listed: Mapping[str, dict[str, Any]]) -> None:
        for folder in {(self.path / name).parent for name in listed} - {self.path}:
            if folder.is_symlink():
                raise errors.BundleError("not a folder but a link", where=folder)

    def close(self) -> None: ...


class _Archive:
    """A bundle as one zip: checked by its directory before anything is read, and again while reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as stream:
                _check_directory_size(stream, path)
            self.archive = zipfile.ZipFile(path)
        except _FAULTS as error:
            raise errors.BundleError(f"not a bundle: {str(error)[:SAID]}", where=path) from None
        self.members: dict[str, zipfile.ZipInfo] = {}
        for member in self.archive.infolist():
            self._admit(member)
        packed = sum(member.compress_size for member in self.members.values())
        size = sum(member.file_size for member in self.members.values())
        if size > TOTAL_LIMIT or (size > RATIO_FLOOR and size > RATIO_LIMIT * max(packed, 1)):
            self._refuse("the archive unpacks to far more than it should", f"{packed} -> {size} bytes")

    def _admit(self, member: zipfile.ZipInfo) -> None:
        # `orig_filename` keeps what `filename` hides: a name cut at NUL, or with its separators exchanged
        name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
        if name not in (MANIFEST, CARD) and not is_allowed(name):
            self._refuse("an archive member has a name that no bundle has", repr(name[:80]))
        if name in self.members:
            self._refuse("two archive members have one name", repr(name))
        if kind not in (0, stat.S_IFREG):
            self._refuse("an archive member is not a regular file", repr(name))
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            self._refuse("an archive member is encrypted or packed in an unknown way", repr(name))
        self.members[name] = member

    def read(self, name: str, limit: int) -> bytes:
        if name not in self.members:
            raise errors.BundleError("the file is missing", where=self.path / name)
        if self.members[name].file_size > limit:
            raise errors.BundleError("the file is larger than declared", where=self.path / name)
        with self.archive.open(self.members[name]) as stream:
            return stream.read(limit + 1)

    def check(self, listed: Mapping[str, dict[str, Any]]) -> None:
        known = {name for name in self.members if name not in (MANIFEST, CARD) and not name.startswith("training/")}
        if extra := known - set(listed):
            self._refuse("an archive member is not in the manifest", min(extra))

    def _refuse(self, what: str, got: str) -> NoReturn:
        raise errors.BundleError(what, where=self.path, got=got)

    def close(self) -> None:
        self.archive.close()


def _check_directory_size(stream: Any, path: Path) -> None:
    """Refuse a million members before `zipfile` makes a million objects."""
    stream.seek(max(0, os.path.getsize(path) - 65557))
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise errors.BundleError("neither a bundle folder nor a zip", where=path)
    if b"PK\x06\x07" in tail and os.path.getsize(path) < 1 << 32:
        raise errors.BundleError("a small archive in the format of huge ones", where=path)
    if int.from_bytes(tail[at + 10 : at + 12], "little") > MEMBERS:
        raise errors.BundleError("the archive has too many members", where=path)
    if int.from_bytes(tail[at + 12 : at + 16], "little") > DIRECTORY:
        raise errors.BundleError("the archive's directory is too large", where=path)


def entry(content: bytes) -> dict[str, Any]:
    """A file's line in the manifest."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def render_manifest(entries: Mapping[str, dict[str, Any]], facts: Mapping[str, Any]) -> bytes:
    """The manifest's only valid form: sorted, indented, with the sha256 of itself without that line."""
    body = {**facts, "format": FORMAT, "files": dict(entries)}
    return dump_json({**body, "sha256": hashlib.sha256(dump_json(body)).hexdigest()})


def parse_manifest(content: bytes, *, where: Path) -> dict[str, Any]:
    """The manifest, checked against its own hash and its only valid form."""
    manifest = load_json(content, where=where)
    entries = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(entries, dict) or type(manifest.get("format")) is not int:
        raise errors.BundleError("not a bundle's manifest", where=where)
    if manifest["format"] > FORMAT:
        raise errors.BundleError(
            "written by a newer version", where=where, got=f"format {manifest['format']}", do="upgrade antiphon"
        )
    total = 0
    for name, item in entries.items():
        if not is_allowed(name):
            raise errors.BundleError("lists a file that no bundle has", where=where, got=repr(name[:80]))
        if not isinstance(item, dict) or type(item.get("size")) is not int or item["size"] < 0:
            raise errors.BundleError("a file's size is not given", where=where, got=repr(name))
        total += item["size"]
    if total > TOTAL_LIMIT:
        raise errors.BundleError("declares more bytes than a bundle may have", where=where, got=total)
    facts = {key: value for key, value in manifest.items() if key not in ("sha256", "files")}
    if render_manifest(entries, facts) != content:
        raise errors.BundleError("the manifest is damaged: it does not match its own sha256", where=where)
    return manifest


def _write(path: Path, content: Content) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content(path)
        content = path.read_bytes()
    else:
        with open(path, "wb") as stream:
            stream.write(content)
    _sync(path)
    return entry(content)


def _swap(temporary: Path, final: Path) -> None:
    """Rename into place; an older folder steps aside first, where `current` still finds it."""
    aside = final.parent / f"{final.name}.old-{os.getpid()}"
    if final.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(final, aside)
    try:
        os.rename(temporary, final)
    except BaseException:
        if aside.exists():
            os.rename(aside, final)
        raise
    _sync(final.parent)
    for old in final.parent.glob(f"{glob_escape(final.name)}.old-*"):
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
