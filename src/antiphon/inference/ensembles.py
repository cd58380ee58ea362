"""Whether models can answer together: each must read and write as the first one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from antiphon.core.config import Frames
from antiphon.core.errors import ConfigError
from antiphon.core.keys import get
from antiphon.inference.bundle import Bundle

READ = (
    *(f"data.{side}.{name}" for side in ("source", "target") for name in ("normalize", "lowercase", "spaces")),
    *(f"data.frames.{field.name}" for field in fields(Frames)),
    "model.frontend.reduce",
)
"""Settings by which text and frames are read, beside vocabularies."""


def check_together(bundles: Sequence[Bundle]) -> None:
    """`ConfigError` with the models and the setting where two of them read or write in different ways."""
    first = bundles[0]
    for other in bundles[1:]:
        where = f"{first.path} and {other.path}"
        seen = {name: getattr(first.task, name) for name in ("length", "entities", "turns")}  # each of its own data
        same = replace(other.task, **seen).files() == first.task.files()
        reads = [(each.task.knowledge, bool(each.task.turns)) for each in (first, other)]
        if not same or reads[0] != reads[1]:
            do = "take models that were trained on the same pairs with the same settings, but for training.seed"
            raise ConfigError("models that answer together need the same vocabularies", where=where, do=do)
        for key in READ:
            one, another = get(first.config, key), get(other.config, key)
            if one != another:
                got, do = f"{key}={one} and {another}", "take models that were trained alike"
                raise ConfigError("models that answer together need to read alike", where=where, got=got, do=do)
