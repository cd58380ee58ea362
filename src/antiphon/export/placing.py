"""Where an export that is no bundle goes: a folder of files, written whole or not at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from antiphon.core.errors import BundleError
from antiphon.inference.files import whole


def room(out: Path | str, what: str, mark: str, own: Collection[str]) -> Path:
    """The path of a folder that is to be written; `mark` is a file that `what` has, such as "a page", and `own` what
    may stand in its folder.

    Raises `BundleError` where anything but an earlier one would be lost.
    """
    path = Path(out)
    if path.suffix.lower() == ".zip":
        raise BundleError(f"{what} is a folder, and no archive", where=path, do="leave .zip out of its name")
    there = {each.name for each in path.iterdir()} if path.is_dir() else set()
    if not path.exists() or (path.is_dir() and ((path / mark).exists() or not there) and there <= set(own)):
        return path
    got = ", ".join(sorted(there - set(own))[:3])
    raise BundleError(f"something that is not {what} is there already", where=path, got=got, do="choose another name")


def write(files: Mapping[str, bytes], out: Path) -> int:
    """Write the files by their names within the folder; the bytes of all. Raises `BundleError` where the disk fails."""
    try:
        with whole(out) as temporary:
            for name, content in files.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_bytes(content)
    except OSError as error:
        raise BundleError(f"cannot be written: {error.strerror}", where=out) from None
    return sum(map(len, files.values()))
