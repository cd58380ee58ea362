"""The settings that a run is given, checked as far as can be before its data is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from antiphon.core.config import Config
from antiphon.core.errors import ConfigError
from antiphon.core.keys import get, override
from antiphon.core.marks import REVERSED
from antiphon.data.modalities import Text
from antiphon.inference.tags import tag_of
from antiphon.inference.task import Task
from antiphon.training import finetuning
from antiphon.training.distillation import Teachers
from antiphon.training.finetuning import Start

FILES = ("data.knowledge", "data.source.vectors", "data.target.vectors", "data.augment.synonyms")
"""Settings that name a file, which a run has to find again from wherever it is resumed."""

OBJECTIVES = {
    "training.reward": ("self-critical", "minimum-risk"),
    "training.likelihood": ("self-critical", "minimum-risk", "adversarial", "sequence-unlikelihood", "distillation"),
    **dict.fromkeys(("training.samples", "training.risk_sharpness"), ("minimum-risk",)),
    "training.unlikelihood": ("unlikelihood",),
    "training.temperature": ("distillation",),
    **{f"training.{name}": ("adversarial",) for name in (
        "rollouts", "discriminator", "discriminator_width", "discriminator_rate", "discriminator_turns", "collapse")},
}  # fmt: skip
"""Settings that only some objectives look at."""

PLACED = ("transformer", "conformer", "conv")
"""Encoders and decoders that are told where a token stands."""


def settings(assignments: Mapping[str, Any], origin: Start | None) -> Config:
    """The configuration of a run as far as it is known before its data is. Raises `AntiphonError`."""
    assignments = {key: _located(key, value) for key, value in assignments.items()}
    config, kept = finetuning.settings(assignments, origin), origin.bundle.task if origin else None
    if config.training.objective == "distillation" or config.training.teachers:
        found = Teachers.open(config.training.teachers)
        config, kept = config if origin else found.settings(assignments), kept or found.bundles[0].task
        if config.training.objective == "distillation":
            found.check_heads(config.model.head == "copy")
    if kept is not None and isinstance(kept.source, Text):
        _marks(config, kept, kept.source)
    for key, objectives in OBJECTIVES.items():
        if (
            key in assignments
            and config.training.objective not in objectives
            and get(config, key) != get(Config(), key)
        ):
            do = f"add training.objective={' or '.join(objectives)}, or leave it out"
            got = f"training.objective={config.training.objective}"
            raise ConfigError(f"{key} does nothing with this objective", got=got, do=do)
    return override(config, {key: _located(key, get(config, key)) for key in FILES})


def _located(key: str, value: Any) -> Any:
    """The value of a setting; a file that is there by its whole path."""
    return str(Path(value).absolute()) if key in FILES and value and Path(value).exists() else value


def nothing_to_mix(config: Config) -> None:
    """Refuse settings of data that is mixed in, where there is none."""
    for key in ("data.mix", "data.mix_tag"):
        if get(config, key) != get(Config(), key):
            raise ConfigError(f"{key} is for data that is mixed in, and there is none", do="give it with --mix")


def enough_positions(config: Config) -> None:
    """Refuse sequences that may be longer than there are learned positions, of the model or of a teacher."""
    models = {"model.max_positions": config.model}
    models |= {
        f"model.max_positions of {path}": Start.open(path).bundle.config.model for path in config.training.teachers
    }
    for name, model in models.items():
        for side, half in (("source", model.encoder), ("target", model.decoder)):
            text = getattr(config.data, side).kind in (None, "text")
            reduce = 1 if text else model.frontend.reduce or 1  # frames are placed after they are reduced
            longest = (getattr(config.data, side).max_length or 0) if text or side == "source" else 0
            if model.positions == "learned" and half.kind in PLACED and longest > reduce * model.max_positions:
                what = f"data.{side}.max_length is above {name}, and learned positions end there"
                do = f"take data.{side}.max_length={reduce * model.max_positions}, or other positions"
                got = f"{longest} and {model.max_positions}" + (f" of {reduce} frames" if reduce > 1 else "")
                raise ConfigError(what, got=got, do=do)


def _marks(config: Config, kept: Task, source: Text) -> None:
    """Refuse marks of pairs that a vocabulary which is kept does not have."""
    known, data = source.vocabulary.index, config.data
    tag = tag_of(data.mix_tag) if data.mix_tag else ""
    if tag and not data.extend and tag not in known:
        do = "leave out data.mix_tag, or take data.extend=true with --from"
        raise ConfigError(f"the vocabulary that is kept has no tag {tag}", do=do)
    if data.augment.reverse != "none" and REVERSED not in known:
        do = "take data.augment.reverse=none, or train anew"
        raise ConfigError(f"the vocabulary that is kept has no {REVERSED}", do=do)
