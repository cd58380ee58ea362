"""Arrays of numbers as pairs hold them: the name of a file, or the numbers themselves in a line of text."""

from __future__ import annotations

import base64
import binascii
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.core import numbers
from antiphon.core.errors import BundleError, DataError, require
from antiphon.data.formats import open_bytes

INLINE = "data:application/x-npy;base64,"
"""How an array in a line of text begins: a data URI of the `.npy` format."""

_BROKEN = (ValueError, EOFError, OSError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading an array raises where its file is damaged, locked, or promises more than there is room for."""

MEMBER = "#"
"""Between the name of an `.npz` file and that of an array in it."""


def written(values: Any) -> str:
    """Numbers as a line of text that `read_array` understands; `DataError` for what is not an array of numbers."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError("rows of numbers must be of one length", got=f"{values!r:.80}") from None
    if array.dtype.kind not in "fiub":
        raise DataError("is no array of numbers", got=f"{array.dtype}")
    file = io.BytesIO()
    with np.errstate(over="ignore"):  # what is too large is no number, and found when it is read
        np.save(file, array.astype(np.float32), allow_pickle=False)
    return INLINE + base64.b64encode(file.getvalue()).decode()


def is_numbers(value: object) -> bool:
    """Whether a value is an array, or a list of numbers or of lists of them."""
    if isinstance(value, np.ndarray):
        return True
    if isinstance(value, list | tuple) and value:
        first = value[0]
        return (isinstance(first, int | float | np.number) and not isinstance(first, bool)) or is_numbers(first)
    return False


def as_text(value: Any) -> Any:
    """An array or a list of numbers as a line of text; anything else as it is."""
    return written(value) if is_numbers(value) else value


def shown(value: str) -> str:
    """A value as people want to see it: without the numbers of an array."""
    return "(an array)" if value.startswith(INLINE) else value


def path_of(value: str) -> Path:
    """The file that a value names."""
    path, _, member = value.partition(MEMBER)
    return Path(path if member and path.lower().endswith(".npz") else value)


def located(value: str, folder: Path) -> str:
    """The same value with its path, if it has one, made absolute, counted from the folder."""
    if value.startswith(INLINE) or not value.strip():
        return value
    path = path_of(value)
    member = "" if str(path) == str(Path(value)) else MEMBER + value.partition(MEMBER)[2]
    return str(folder.absolute() / path) + member


def read_array(value: str) -> np.ndarray:
    """The array that a value names: of a `.npy`, `.npz` (`file.npz#name`) or `.parquet` file, or in the line itself.

    Raises `DataError` where there is none, or it is not one of numbers.
    """
    if value.startswith(INLINE):
        try:
            return _numbers(_npy(io.BytesIO(base64.b64decode(value[len(INLINE) :], validate=True))), "array")
        except (binascii.Error, ValueError, EOFError) as error:
            raise DataError(f"is no array: {error}", where=value[:60]) from None
    path = path_of(value)
    readers = {".npy": _read_npy, ".npz": _read_npz, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        do = f"frames come from {', '.join(readers)}; for recordings set data.source.kind=speech, for films video"
        raise DataError("is no file of frames", where=shown(value)[:200], do=do)
    open_bytes(path).close()
    return _numbers(readers[path.suffix.lower()](path, value.partition(MEMBER)[2]), value)


def read_numbers(value: str) -> np.ndarray:
    """Numbers `[T, F]` of a line, or of an array in one, whose further axes become features; else a `DataError`."""
    if not value.startswith(INLINE):
        return numbers.parse(value)
    array = read_array(value)
    if array.ndim == 0 or not array.size:
        raise DataError("there is no number in it")
    if not np.isfinite(array).all():
        place = int(np.argwhere(~np.isfinite(array))[0][0])
        raise DataError(f"step {place + 1} is no number", got=array[place])
    return array.reshape(len(array), -1)


def as_line(value: str) -> str:
    """The numbers of a value as a line; `DataError` where they are none."""
    values = read_numbers(value)
    return numbers.spell(values) if value.startswith(INLINE) else value


def _npy(file: Any) -> Any:
    return np.lib.format.read_array(file, allow_pickle=False)


def _read_npy(path: Path, member: str) -> Any:
    try:
        with path.open("rb") as file:
            return _npy(file)
    except _BROKEN as error:
        raise DataError(f"is not a whole .npy file: {_first_line(error)}", where=path) from None


def _read_npz(path: Path, member: str) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            if not member and len(names) == 1:
                member = names[0]
            if member not in names:
                do = f"write {path.name}{MEMBER}NAME, such as {path.name}{MEMBER}{names[0]}" if names else ""
                raise DataError(f"has no array {member!r}" if member else "has several arrays", where=path, do=do)
            with archive.open(f"{member}.npy") as file:
                return _npy(file)
    except _BROKEN as error:
        raise DataError(f"is not a whole .npz file: {_first_line(error)}", where=path) from None


def _read_parquet(path: Path, member: str) -> Any:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise require("parquet", "pyarrow") from None
    try:
        table = parquet.read_table(path)
        return np.stack([column.to_numpy() for column in table.columns], axis=1)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"is not a table of numbers: {_first_line(error)}", where=path) from None


def _numbers(array: Any, where: object) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise DataError("is no array of numbers", where=where, got=getattr(array, "dtype", type(array).__name__))
    return array.astype(np.float32)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


def described(content: bytes, where: str, what: str, names: Sequence[str]) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """The values of these names in a file of a bundle, and the means and deviations of its features, `[features]` each.

    `BundleError` where one is missing, or no finite number.
    """
    try:
        about: Any = json.loads(content)
        values = [about[name] for name in names]
        features = about["features"]
        mean, deviation = (np.asarray(about[name], np.float64) for name in ("mean", "deviation"))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BundleError(f"is not a description of {what}", where=where) from None
    good = type(features) is int and features > 0 and mean.shape == deviation.shape == (features,)
    if not good or not np.isfinite([mean, deviation]).all():
        raise BundleError(f"is not a description of {what}", where=where)
    return values, mean, deviation
