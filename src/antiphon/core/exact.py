"""Dataclasses from nested dictionaries that have the right types already, as files that we wrote do.

It says nothing about others but that they are not; a reader that explains is slower to start.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


class Inexact(Exception):
    """Some value needs a closer look."""


def exactly(kind: type[T], values: dict[str, Any]) -> T:
    """The dataclass; `Inexact` where a value is not of its field's type. Whole numbers are taken for real ones, lists
    of names for tuples."""
    hints = _hints(kind)  # type: ignore[arg-type]
    if type(values) is not dict or not values.keys() <= hints.keys():
        raise Inexact
    return kind(**{name: _value(hints[name], value) for name, value in values.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return exactly(kind, value)
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        if value is None and type(None) in typing.get_args(kind):
            return None
        [kind] = [part for part in typing.get_args(kind) if part is not type(None)]
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        if type(value) is str and value in typing.get_args(kind):
            return value
    elif origin is tuple:
        if type(value) in (list, tuple) and all(type(item) is str for item in value):
            return tuple(value)
    elif kind is float and type(value) in (int, float):
        with suppress(OverflowError):
            return float(value)
    elif type(value) is kind and kind in (bool, int, str):
        return value
    raise Inexact
