"""Settings as people type them: `key=value` words and TOML files, made into dotted assignments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from antiphon.core.errors import ConfigError, nearest


def assignments(words: Iterable[str], group: str = "") -> dict[str, str]:
    """`["model.width=128"]` as `{"model.width": "128"}`; within a group its name may be left out: `beam=5`."""
    from antiphon.core.keys import leaves  # a help page needs no settings

    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError("a setting is written key=value", where="command line", got=word)
        key = f"{group}.{key}" if group and f"{group}.{key}" in leaves() else key
        if group and not key.startswith(group):
            near = nearest(key, [name.removeprefix(f"{group}.") for name in leaves() if name.startswith(group)])
            raise ConfigError(f"unknown setting {key}", where="command line", do=near)
        found[key] = value
    return found


def from_file(path: Path) -> dict[str, Any]:
    """The settings of a TOML file by their dotted names."""
    import tomllib

    from antiphon.core.keys import flat, read

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not TOML: {error}", where=path, do="write key = value under [tables]") from None
    except OSError as error:
        do = "give a TOML file, such as best.toml of a search"
        raise ConfigError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=path, do=do) from None
    read(values, where=str(path))
    return flat(values)
