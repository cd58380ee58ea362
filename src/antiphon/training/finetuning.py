"""Going on from a trained model with other data: what comes from it, what may differ, and what is added to it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from antiphon.core.config import Adapter, Config, Data
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import get, override
from antiphon.data.corpus import Pair
from antiphon.data.facts import Finder
from antiphon.data.modalities import Text, TooLong, check_sampling
from antiphon.data.numbers import Numbers
from antiphon.inference import tasks
from antiphon.inference.adapters import FREE, MOST, file_names
from antiphon.inference.bundle import Bundle, load, tensors
from antiphon.inference.files import is_allowed
from antiphon.inference.tags import tag_of
from antiphon.inference.task import Task
from antiphon.models.adapters import adaptable, shapes
from antiphon.training.identity import fingerprint_bundle

SIDE = ("kind", "tokenizer", "vocabulary", "min_count", "normalize", "lowercase", "spaces", "vectors")
GROWING = ("vocabulary", "min_count")
"""Settings of a side that the start decides, and those of them that say how far its vocabulary may be extended."""

SHOWN = 5
"""Added tokens that a note names."""


@dataclass(frozen=True)
class Start:
    """A trained model to go on from. `name` is what other people may read, `sha256` that of its files."""

    path: Path
    name: str
    bundle: Bundle
    sha256: str

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Start:
        """Any bundle, or the best model of a run; `BundleError` for whatever is wrong with it."""
        found = Path(path).absolute()
        bundle = load(found)
        return cls(found, found.name, bundle, fingerprint_bundle(bundle.manifest))

    @classmethod
    def recall(cls, facts: Mapping[str, Any], run: Path) -> Start:
        """The start of a run that has no checkpoint yet, by its `data.json`; it must be what it was."""
        try:
            path, before = str(facts["start"]["path"]), facts["start"]["sha256"]
        except (KeyError, TypeError):
            raise DataError("this run does not know what it started from", where=run, do="train anew") from None
        start = cls.open(path)
        if start.sha256 != before:
            raise DataError("the model that this run starts from has changed since it began", where=run,
                            got=f"{path}, sha256 {start.sha256[:12]}, was {str(before)[:12]}",
                            do="restore it, or train into another folder")  # fmt: skip
        return start

    @property
    def weights(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return tensors(self.bundle.model)

    def facts(self) -> dict[str, Any]:
        """For `data.json` and the model card."""
        return {"start": {"path": str(self.path), "sha256": self.sha256}, "trained_from": self.lineage()}

    def told(self, config: Config) -> Iterator[str]:
        """What to tell of it: where it comes from, what an adapter adds to it, and adapters that are left behind."""
        yield f"going on from {self.lineage()}"
        adapter, known = config.model.adapter, sorted(self.bundle.adapters)
        if not adapter.name and known:
            yield f"adapters do not fit weights that change, and stay behind: {', '.join(known)}"
        if adapter.name:
            changed = [weight for name in adaptable(self.bundle.model, embeddings=adapter.embeddings)
                       for weight in [self.bundle.model.get_parameter(name)]]  # fmt: skip
            size = sum(rows * columns for weight in changed for rows, columns in shapes(weight, adapter.rank))
            whole = sum(weight.numel() for weight in self.bundle.model.parameters())
            ranks = f"rank {adapter.rank} in {sum(weight.ndim > 1 for weight in changed)} matrices"
            yield f"adapter {adapter.name}: {size:,} weights learn, {ranks}; the {whole:,} of the model stay"

    def lineage(self) -> str:
        """Its name, hash and data, and what it was trained from itself."""
        card = self.bundle.manifest.get("card") or {}
        data = f"{card.get('data', 'unknown data')} (sha256 {str(card.get('data_hash', 'unknown'))[:12]})"
        before = f", from {card['trained_from']}" if "trained_from" in card else ""
        return f"{self.name} (sha256 {self.sha256[:12]}), trained on {data}{before}"

    def settings(self, assignments: Mapping[str, Any]) -> Config:
        """The start's task, data, network and search, with these settings put in; training is left to the recipe.

        Raises `ConfigError` that names a setting which contradicts the start.
        """
        given, known = override(Config(), dict(assignments)), self.bundle.config
        kept = {key for key in assignments if decided(key, given.data.extend and get(given, key) is not None)}
        for key in sorted(kept):
            do = "leave it out, or train without a start"
            if key in {f"data.{side}.{name}" for side in ("source", "target") for name in GROWING}:
                do += "; data.extend=true adds tokens"
            agree(key, given, known, "the model to start from", self.path, do)
        kinds = ("source", "target", "shared", "context", "frames", "facts", "history")
        data = replace(Data(), **{name: getattr(known.data, name) for name in kinds})
        model = replace(known.model, adapter=Adapter())
        base = replace(Config(), task=known.task, data=data, model=model, decoding=known.decoding)
        config = override(base, {key: value for key, value in assignments.items() if key not in kept})
        for name in ("source", "target"):
            check_sampling(getattr(config.data, name), name)
            self._check_growth(config, name)
        self._check_adapter(config)
        return config

    def _check_adapter(self, config: Config) -> None:
        """An adapter has a name of its own, and changes no vocabulary."""
        name, known = config.model.adapter.name, self.bundle.adapters
        if not name:
            return
        if not is_allowed(file_names(name)[0]):
            do = "take up to 41 of a-z, 0-9, - and _"
            raise ConfigError("an adapter cannot have this name", where="model.adapter.name", got=repr(name), do=do)
        if name in known:
            raise ConfigError(f"there is an adapter {name} already", where=self.path, do="choose another name")
        if len(known) == MOST:
            raise ConfigError(f"a bundle has at most {MOST} adapters", where=self.path, do="begin another bundle")
        for key in (key for key in ("data.extend", "training.l2_start") if get(config, key)):
            raise ConfigError(f"{key} changes weights that an adapter leaves alone", where=self.path, do="leave it out")

    def _check_growth(self, config: Config, name: str) -> None:
        """A vocabulary may grow, if its word vectors are not frozen, but not shrink."""
        key, side, text = f"data.{name}.vocabulary", getattr(config.data, name), getattr(self.bundle.task, name)
        if config.data.extend and side.vectors and side.freeze:
            do = f"set data.{name}.freeze=false"
            raise ConfigError("data.extend=true would add word vectors that are never trained", where=self.path, do=do)
        size = get(config, key)
        if isinstance(text, Text) and size is not None and size != get(self.bundle.config, key) and size < text.size:
            what = f"{key} is below the {text.size:,} tokens of the model to start from"
            raise ConfigError(what, where=self.path, got=size, do="raise it, or leave it out")

    def task(
        self, config: Config, pairs: Iterable[Pair], find: Finder | None = None
    ) -> tuple[Task, Config, list[str]]:  # fmt: skip
        """Its task under these settings, the settings with the sizes of its vocabularies, and what to tell of them."""
        task = Task.load(self.bundle.task.files(), config)
        task = replace(task, find=find or task.find).acquainted(pairs)
        if isinstance(numbers := task.target, Numbers) and numbers.horizon:
            lengths = [numbers.horizon]
            for pair in pairs:
                with suppress(TooLong):  # skipped or refused where pairs are encoded
                    lengths.append(len(numbers.read(pair.target)))
            task = replace(task, target=replace(numbers, horizon=max(lengths)))
        if not config.data.extend:
            return task, config, []
        keys = ("data.source.vocabulary", "data.target.vocabulary")
        if task.shared and get(config, keys[0]) != get(config, keys[1]):
            got = f"{get(config, keys[0])} and {get(config, keys[1])}"
            raise ConfigError("data.shared=true needs one vocabulary for both sides", got=got, do="make them equal")
        limits = [get(config, key) if get(config, key) != get(self.bundle.config, key) else None for key in keys]
        tags = [tag_of(config.data.mix_tag)] if config.data.mix_tag else []
        grown = task.extended(pairs, (limits[0], limits[1]), tags)
        both = [(key, side) for key, side in zip(keys, (grown.source, grown.target), strict=True)
                if isinstance(side, Text)]  # fmt: skip
        sizes = {key: max(get(config, key) or 0, side.size) for key, side in both}
        return grown, override(config, sizes), list(_added(task, grown))


def decided(key: str, extend: bool) -> bool:
    """Whether the start decides this setting; `extend` leaves open how large its vocabularies may become."""
    if key.startswith("model."):
        return not key.startswith(FREE)
    group, _, name = key.removeprefix("data.").partition(".")
    if group in ("source", "target"):
        return name in SIDE and not (extend and name in GROWING)
    return key in ("task", "data.shared", "data.context") or group == "frames"


def agree(key: str, given: Config, known: Config, whose: str, where: Any, do: str) -> None:
    """Refuse a given setting that is another one in a model that decides it; an open one agrees."""
    wanted, own = get(given, key), get(known, key)
    if key.endswith(".vectors") and wanted and own:
        wanted, own = (str(Path(path).absolute()) for path in (wanted, own))
    if wanted not in (None, own):
        what = f"{key} is {_shown(get(known, key))} in {whose}"
        raise ConfigError(what, where=where, got=_shown(get(given, key)), do=do)


def settings(assignments: Mapping[str, Any], start: Start | None) -> Config:
    """The configuration of a run as far as it is known before its data is."""
    config = override(Config(), dict(assignments)) if start is None else start.settings(assignments)
    tasks.get(config.task)
    needing = ("data.extend", "training.l2_start", "model.adapter.name")
    for what in (key for key in needing if get(config, key) and start is None):
        raise ConfigError(f"{what} needs a model to start from", do="give one with --from, or fit(start=...)")
    if config.model.adapter != Adapter() and not config.model.adapter.name:
        raise ConfigError("these settings of model.adapter are for an adapter", do="name one with --adapter NAME")
    return config


def _added(before: Task, after: Task) -> Iterator[str]:
    """A line for each vocabulary that was to be extended."""
    both: list[tuple[str, object, object]] = [("vocabulary", before.source, after.source)]
    if not before.shared:
        both = [("source vocabulary", before.source, after.source), ("target vocabulary", before.target, after.target)]
    for name, old, new in both:
        if isinstance(old, Text) and isinstance(new, Text):
            yield f"{name}: {_growth(old, new)}"


def _growth(old: Text, new: Text) -> str:
    fixed = "; the subword pieces stay as they are" if old.tokenizer.kind in ("bpe", "unigram") else ""
    tokens = new.vocabulary.tokens[len(old.vocabulary) :]
    if not tokens:
        return f"nothing to add to its {len(old.vocabulary):,} tokens{fixed}"
    shown = ", ".join(map(repr, islice(tokens, SHOWN))) + (", ..." if len(tokens) > SHOWN else "")
    return f"{len(tokens):,} tokens added to {len(old.vocabulary):,}: {shown}{fixed}"


def _shown(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, tuple):
        return ",".join(value) or "empty"
    return str(value).lower() if isinstance(value, bool) else str(value) or "empty"
