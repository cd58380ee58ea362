"""Settings by their dotted names: a configuration read strictly, changed, listed and looked into."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from antiphon.core import limits
from antiphon.core.config import Config
from antiphon.core.errors import ConfigError, nearest
from antiphon.core.exact import Inexact, exactly

if TYPE_CHECKING:
    import pydantic


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain nested dictionaries."""
    return dataclasses.asdict(config)


def read(values: dict[str, Any], *, where: str = "configuration") -> Config:
    """A configuration from nested dictionaries; unknown keys and wrong types are errors that name the key."""
    _check_keys(Config, values, "", where)
    return _validated(values, where, strict=True)


def override(config: Config, assignments: dict[str, Any], *, where: str = "command line") -> Config:
    """The configuration with dotted settings replaced: `{"model.encoder.kind": "gru"}`; strings are parsed."""
    values = to_dict(config)
    for key, value in assignments.items():
        if key not in leaves():
            raise ConfigError(f"unknown setting {key}", where=where, do=nearest(key, leaves()))
        *path, last = key.split(".")
        group = values
        for name in path:
            group = group[name]
        group[last] = _parse(value, leaves()[key])
    return _validated(values, where)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as settings by their dotted names."""
    found = dict[str, Any]()
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


@cache
def leaves() -> dict[str, dataclasses.Field[Any]]:
    """Every setting by its dotted name."""
    return dict(_walk(Config, ""))


def get(config: Config, key: str) -> Any:
    """The value of a dotted setting."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _walk(kind: type, prefix: str) -> typing.Iterator[tuple[str, dataclasses.Field[Any]]]:
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[item.name]):
            yield from _walk(hints[item.name], f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, item


def _parse(value: Any, item: dataclasses.Field[Any]) -> Any:
    """A command-line string as the field wants it: `auto` opens an optional field, as does `none` where that is no
    value of its own; commas part a tuple."""
    if not isinstance(value, str):
        return value
    if "tuple" in str(item.type):
        return [name for name in value.split(",") if name]
    kind = str(item.type)
    if "None" in kind and (value == "auto" or (value == "none" and "'none'" not in kind and '"none"' not in kind)):
        return None
    return value


def _check_keys(kind: type, values: Any, prefix: str, where: str) -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"{prefix.rstrip('.') or 'the whole'} must be a table", where=where, got=repr(values))
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(f"unknown setting {prefix}{name}", where=where, do=nearest(f"{prefix}{name}", leaves()))
        if dataclasses.is_dataclass(hints[name]) and not isinstance(hints[name], types.UnionType):
            _check_keys(hints[name], value, f"{prefix}{name}.", where)


def _validated(values: dict[str, Any], where: str, *, strict: bool = False) -> Config:
    try:
        config = exactly(Config, values)
    except Inexact:  # what explains this takes longer to import than all else that an answer needs
        config = _explained(values, where, strict)
    limits.check(config, where)
    return config


def _explained(values: dict[str, Any], where: str, strict: bool) -> Config:
    """Where it is not `strict`, strings may be numbers and truths, as they are where somebody types them."""
    import pydantic

    try:
        if strict:  # of JSON, which has no tuples either
            return _adapter().validate_json(json.dumps(values, default=str), strict=True)
        return _adapter().validate_python(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(step) for step in first["loc"] if str(step) in _names())
        raise ConfigError(f"{name}: {first['msg']}", where=where, got=repr(first["input"])) from None


@cache
def _names() -> frozenset[str]:
    return frozenset(step for key in leaves() for step in key.split("."))


@cache
def _adapter() -> pydantic.TypeAdapter[Config]:
    import pydantic

    return pydantic.TypeAdapter(Config)
