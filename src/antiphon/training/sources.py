"""Where the pairs of a run come from, so that a run that goes on finds them again, and that they are the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from antiphon.core.config import HELD, SIGNALS, Config, Data, Kind
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.data import knowledge, synonyms
from antiphon.data.arrays import INLINE, located, read_array
from antiphon.data.batching import mixed_in
from antiphon.data.columns import REFERENCES, SOURCES, TARGETS
from antiphon.data.corpus import Corpus, Pair, named_files, open_pairs, split
from antiphon.data.facts import Finder
from antiphon.data.signals import kinds_of
from antiphon.inference import tasks
from antiphon.training import distillation
from antiphon.training.identity import same_data
from antiphon.training.statistics import Statistics

HELD_OUT = 10_000
"""The most sources held out where no validation data is given."""

NAMED = {*SOURCES, *TARGETS, *REFERENCES}
"""Names that columns of pairs have where these are kept."""

ALIKE = "held_out_alike"
"""In `data.json` where the held-out pairs do not depend on the seed."""

SNIFFED = 20
"""Pairs that say whether both sides are numbers."""


@dataclass(frozen=True)
class Sources:
    """Where the pairs of a run are: files, absolute or inside the run (`copied`); one, or source and target.

    `lost` says what was left out when pairs in memory were written down; `mix` is other data to be mixed in. `alike` is
    false for runs of before held-out pairs were the same for every seed.
    """

    run: Path
    train: tuple[str, ...]
    valid: tuple[str, ...]
    copied: tuple[str, ...]
    lost: tuple[str, ...] = ()
    mix: tuple[str, ...] = ()
    alike: bool = True

    @classmethod
    def keep(cls, run: Path, data: Any, valid: Any, parallel: Any, settings: Data, mix: Any = None) -> Sources:
        """Note the files; write what is in memory to `data/` of the run."""
        found: dict[str, tuple[str, ...]] = {"train": (), "valid": (), "mix": ()}
        copied, lost, kind = [], list[str](), settings.source.kind
        for name, value, other in (("train", data, parallel), ("valid", valid, None), ("mix", mix, None)):
            if value is None:
                continue
            files, corpus = named_files(value, other), open_pairs(value, settings, parallel=other)
            if name == "train" and files and len(files) == 2 and settings.columns:
                do = "leave data.columns out; the first file is the source"
                raise ConfigError("a source and a target file have no columns to choose", where="data.columns", do=do)
            kind = kind or kinds_of([(pair.source, pair.target) for pair in islice(corpus, SNIFFED)], settings)[0]
            if files is None:
                copied.append(name)
                nameable(settings)
                write_pairs(run / f"data/{name}.jsonl", corpus, kind)
                lost += [f"{name} data: {line}" for line in corpus.report.lines() if "skipped" in line]
            found[name] = tuple(str(path.absolute()) for path in files) if files else (f"data/{name}.jsonl",)
        return cls(run, found["train"], found["valid"], tuple(copied), tuple(lost), found["mix"])

    @classmethod
    def recall(cls, run: Path, facts: Mapping[str, Any]) -> Sources:
        """What `keep` found, from `data.json`."""
        try:
            files = {"mix": (), **facts["files"]}
            train, valid, copied, mix = (tuple(map(str, files[name])) for name in ("train", "valid", "copied", "mix"))
            if not train:
                raise KeyError("train")
        except (KeyError, TypeError):
            raise DataError("this run does not know its data", where=run, do="train anew from a file") from None
        return cls(run, train, valid, copied, mix=mix, alike=ALIKE in facts)

    def names(self) -> str:
        """The training files by name alone: a model card goes to other people."""
        new, old = (", ".join(Path(path).name for path in paths) for paths in (self.train, self.mix))
        return f"{new}; mixed in: {old}" if old else new

    @classmethod
    def unchanged(cls, run: Path, facts: Mapping[str, Any], config: Config) -> Sources:
        """Those of a run, whose pairs must be what they were. Raises `DataError`."""
        found = cls.recall(run, facts)
        now = {"train": found.corpus("train", config.data).fingerprint()}
        now |= {"held_out": found.corpus("valid", config.data).fingerprint()} if found.valid else {}
        same_data(facts, {key: value for key, value in now.items() if key in facts}, run)
        return found

    def facts(self, config: Config) -> dict[str, Any]:
        """For `data.json`: the files and their hashes."""
        files = {"train": list(self.train), "valid": list(self.valid), "copied": list(self.copied)}
        files |= {"mix": list(self.mix)} if self.mix else {}
        facts = {"files": files, **self.hashes(config), **({ALIKE: True} if self.alike else {})}
        if config.training.objective == "distillation":
            facts["teachers"] = distillation.fingerprint(config.training.teachers)
        if config.data.augment.synonyms:
            facts["synonyms"] = synonyms.fingerprint(config.data.augment.synonyms)
        if config.data.knowledge:
            facts["knowledge"] = knowledge.fingerprint(config.data.knowledge)
        return facts

    def unmoved(self, before: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """The same for pairs that have been read in several passes, whose `hashes` were these before. Raises
        `DataError` where they have changed meanwhile."""
        facts = self.facts(config)
        same_data(before, {key: facts[key] for key in before}, self.run)
        return facts

    def hashes(self, config: Config) -> dict[str, Any]:
        """Of the pairs alone."""
        parts = {"train": "train", "held_out": "valid", "mixed": "mix"}
        return {key: self.corpus(name, config.data).fingerprint() for key, name in parts.items() if getattr(self, name)}

    def old(self, config: Config) -> Corpus | None:
        """The pairs to be mixed in, if there are any."""
        return self.corpus("mix", config.data) if self.mix else None

    def looked_at(self, config: Config, train_part: Corpus, find: Finder) -> Statistics:
        """What the recipe sees: the training pairs, as many as an epoch has with what is mixed in."""
        found = Statistics.of(train_part, None if config.model.knowledge.kind == "none" else find, config.data)
        many = sum(1 for _ in old) if (old := self.old(config)) else 0
        return replace(found, pairs=found.pairs + mixed_in(found.pairs, many, config.data.mix))

    def open(self, config: Config) -> tuple[Corpus, Corpus]:
        """The training and the held-out pairs."""
        corpus = self.corpus("train", config.data)
        if self.valid:
            return corpus, self.corpus("valid", config.data)
        return split(corpus, config.data.valid, 1 if self.alike else config.training.seed, most=HELD_OUT)

    def kind(self, config: Config) -> Config:
        """The settings with what sources and targets are: as set, what the first look like, or as the task says."""
        given, preset = config.data, tasks.get(config.task)
        if preset.target == "numbers" and given.target.kind is None:
            config = override(config, {"data.target.kind": "numbers"})
        if None not in (given.source.kind, given.target.kind):
            return config
        first = list(islice(self.corpus("train", given), SNIFFED))
        source, target = kinds_of([(pair.source, pair.target) for pair in first], config.data)
        arrays = source == "frames" and bool(first) and first[0].source.startswith(INLINE)
        samples = preset.source == "speech" and arrays and read_array(first[0].source).ndim == 1
        source = (preset.source or source) if (source == "text" or samples) and given.source.kind is None else source
        return override(config, {"data.source.kind": source, "data.target.kind": target})

    def corpus(self, name: str, settings: Data) -> Corpus:
        """The pairs of `train`, `valid` or `mix`: by the columns of its files, or as they were read from memory."""
        paths = {"train": self.train, "valid": self.valid, "mix": self.mix}[name]
        if name in self.copied:
            return open_pairs(self.run / paths[0], replace(settings, columns=()))
        return open_pairs(paths[0], settings, parallel=paths[1] if len(paths) > 1 else None)


def nameable(settings: Data) -> None:
    """Refuse context that could not be told from the pairs, where these are kept with names of columns."""
    if taken := [name for name in (*settings.context, settings.balance) if name in NAMED]:
        what = f"a column of context cannot be called {taken[0]} here, where pairs are copied"
        raise ConfigError(what, where="data.context", do="rename it in the data")


def write_pairs(path: Path, pairs: Iterable[Pair], kind: Kind) -> None:
    """Keep pairs as JSONL; sources become absolute where they are names of files."""
    signal = kind in SIGNALS and kind not in HELD
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            for pair in pairs:
                source = located(pair.source, Path()) if signal else pair.source
                beside = {name: value for name, value in pair.context.items() if name not in NAMED}
                values = {**beside, "source": source, "target": pair.target}
                file.write(json.dumps(values) + "\n")
    except OSError as error:
        raise DataError(f"cannot keep the pairs: {error.strerror}", where=path, do="free some space") from None
