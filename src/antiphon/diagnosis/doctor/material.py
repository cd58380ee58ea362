"""What a run was made of: its pairs, what the recipe would propose for them, and what its model makes of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from antiphon.core.config import SIGNALS, Config, Data
from antiphon.core.errors import AntiphonError, BundleError
from antiphon.core.keys import get, override
from antiphon.core.marks import UNK
from antiphon.data.columns import Pair
from antiphon.data.corpus import group_references
from antiphon.data.facts import Finder
from antiphon.data.modalities import Text, TooLong
from antiphon.data.report import Report
from antiphon.diagnosis.data import audit
from antiphon.diagnosis.doctor.record import Record
from antiphon.diagnosis.findings import Finding as Remark
from antiphon.inference.bundle import Bundle, load
from antiphon.inference.task import Task
from antiphon.training import recipes
from antiphon.training.sources import Sources
from antiphon.training.start import fits
from antiphon.training.statistics import Statistics

MOST, LOOKED, ASKED, AUDITED = 100_000, 2000, 48, 200_000
"""Pairs that are read, that are cut into tokens, that are answered, and those from which on the audit is left out."""


class Advice:
    """What the recipe proposes for these pairs, setting by setting."""

    def __init__(self, config: Config, statistics: Statistics, *, trained: bool = False) -> None:
        self.config, self.statistics, self.trained = config, statistics, trained

    def __call__(self, *keys: str) -> Any:
        """Its value of the first of these settings, were all of them left open; None where it has none."""
        if any("None" not in str(_kind(key)) for key in keys):
            return get(Config(), keys[0])  # it is no choice of the recipe's, but has a default
        try:
            opened = override(self.config, dict.fromkeys(keys))
            return get(recipes.propose(opened, self.statistics, trained=self.trained)[0], keys[0])
        except AntiphonError:
            return None


def _kind(key: str) -> object:
    from antiphon.core.keys import leaves

    return leaves()[key].type


@dataclass(frozen=True)
class Sides:
    """Of a sample of pairs as the model reads them: shares of tokens unknown and of texts cut, and lengths."""

    unknown: tuple[float, float]
    cut: tuple[float, float]
    lengths: tuple[float, float]
    unigram: float
    """Nats that a target token costs whoever knows how frequent each is, and nothing else; the end mark counts."""


@dataclass
class Material:
    """The pairs behind a record, read when they are first asked for."""

    record: Record

    @cached_property
    def sources(self) -> Sources:
        """The files."""
        return Sources.unchanged(self.record.run, self.record.facts, self.record.config)

    @cached_property
    def parts(self) -> tuple[list[Pair], list[Pair]]:
        """Pairs of training and held-out ones, at most `MOST` of each."""
        train, valid = self.sources.open(self.record.config)
        return list(islice(train, MOST)), list(islice(valid, MOST))

    @cached_property
    def count(self) -> int:
        """All training pairs."""
        return len(self.parts[0])

    @property
    def textual(self) -> bool:
        """Whether both sides are texts."""
        data: Data = self.record.config.data
        return data.source.kind not in SIGNALS and data.target.kind != "numbers"

    @cached_property
    def advice(self) -> Advice:
        """What the recipe would say."""
        config = self.record.config
        find = None if config.model.knowledge.kind == "none" else Finder.open(config.data, Report())
        statistics = Statistics.of(self.parts[0], find, config.data)
        return Advice(config, statistics, trained="start" in self.record.facts)

    @cached_property
    def opened(self) -> tuple[Bundle | None, str]:
        """The best model of the run, where there is one that can answer; and why one that is there cannot be opened."""
        best = self.record.run / "best"
        if not best.exists() or self.record.config.model.adapter.name:
            return None, ""
        try:
            return load(best), ""
        except BundleError as error:
            return None, str(error)

    @property
    def bundle(self) -> Bundle | None:
        """The best model of the run; none where there is none, or it is damaged."""
        return self.opened[0]

    def measured(self, pairs: Sequence[Pair]) -> Sides | None:
        """A sample of pairs through the model's own eyes; None where there is no model, or it reads no text."""
        task = self.bundle.task if self.bundle else None
        if task is None or not isinstance(task.source, Text) or not isinstance(task.target, Text) or not pairs:
            return None
        return _measure(task, pairs[:: -(-len(pairs) // LOOKED)])

    @cached_property
    def train(self) -> Sides | None:
        """Training pairs, measured."""
        return self.measured(self.parts[0])

    @cached_property
    def held_out(self) -> Sides | None:
        """Held-out pairs, measured."""
        return self.measured(self.parts[1])

    @cached_property
    def asked(self) -> list[Pair]:
        """Some held-out pairs, spread evenly, each source once with all its references."""
        grouped, bundle = group_references(self.parts[1]), self.bundle
        pairs = [pair for pair in grouped if bundle is None or fits(pair, bundle.task)]
        return pairs[:: -(-len(pairs) // ASKED)] if pairs else []

    @cached_property
    def remarks(self) -> tuple[Remark, ...]:
        """What an audit of the files says; nothing where they are no texts, in memory, or very many."""
        if not self.textual or self.sources.copied or self.count >= min(MOST, AUDITED):
            return ()
        valid = ",".join(self.sources.valid) or None
        try:
            return audit(",".join(self.sources.train), _open_sizes(self.record.config), valid=valid).findings
        except AntiphonError:
            return ()


def _open_sizes(config: Config) -> Config:
    """The settings of the data alone: an audit proposes the rest."""
    return override(Config(), {f"data.{name}": getattr(config.data, name) for name in ("columns", "context")})


def _measure(task: Task, pairs: Sequence[Pair]) -> Sides:
    counts, report = Counter[int](), Report()
    tokens, unknown, lengths = [0, 0], [0, 0], [0, 0]
    for pair in pairs:
        try:
            example = task.encode(pair, report=report)
        except TooLong:
            continue
        target = list(map(int, example.target))
        counts.update(target)
        for side, ids in enumerate((list(map(int, example.source)), target)):
            tokens[side] += len(ids)
            unknown[side] += ids.count(UNK)
            lengths[side] += 1
    whole = (_uncut(task.source, [pair.source for pair in pairs]), _uncut(task.words, [pair.target for pair in pairs]))
    many = max(1, lengths[0])
    shares = np.array(list(counts.values()), dtype=np.float64) / max(1, counts.total())
    return Sides(
        (0.0 if task.copy else unknown[0] / max(1, tokens[0]), unknown[1] / max(1, tokens[1])), whole,
        (tokens[0] / many, tokens[1] / many), float(-(shares * np.log(shares)).sum()) if len(shares) else math.nan,
    )  # fmt: skip


def _uncut(side: Any, texts: Sequence[str]) -> float:
    """The share of texts that are longer than the model reads."""
    limit = side.side.max_length
    return sum(len(side.cut(text)) + 1 > limit for text in texts) / max(1, len(texts)) if limit else 0.0
