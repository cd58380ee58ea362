"""What the pairs are: how a pair becomes ids, how ids become an answer, and how long an answer may get."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from typing import Any

import numpy as np

from antiphon.core.batch import EOS, PAD, UNK, Batch, pad
from antiphon.core.config import Config, Side
from antiphon.core.errors import BundleError, ConfigError, DataError
from antiphon.data.augment import REVERSED, REVERSED_KEY, Augmenter
from antiphon.data.corpus import Pair, Texts
from antiphon.data.modalities import Text, TooLong
from antiphon.data.report import Report
from antiphon.data.store import Example
from antiphon.data.vocabulary import copy_ids, extended_ids
from antiphon.inference.files import dump_json, load_json

TASK_FILE = "task.json"
TAG_KEY = "\0tag"
"""Where a pair's context holds a tag of its own; no column can be called that."""
MEASURED = 1000
"""Pairs that the length model is learned from at first; `Task.with_lengths` takes all of them."""


@dataclass(frozen=True)
class LengthModel:
    """The most target tokens to expect for a source of n: `slope * n + offset`, with a tenth and two for slack."""

    slope: float
    offset: float

    def limit(self, source_length: int) -> int:
        """Most tokens, end mark not counted."""
        return max(1, math.ceil(1.1 * (self.slope * source_length + self.offset)) + 2)

    def join(self, other: LengthModel) -> LengthModel:
        """A line on or above both."""
        return LengthModel(max(self.slope, other.slope), max(self.offset, other.offset))

    @staticmethod
    def learn(source_lengths: np.ndarray, target_lengths: np.ndarray) -> LengthModel:
        """The line on or above all points that is lowest at the mean source: an edge of their upper hull."""
        longest = np.zeros(int(source_lengths.max()) + 1, dtype=np.int64)
        np.maximum.at(longest, source_lengths, target_lengths)
        points = [(int(n), int(longest[n])) for n in np.unique(source_lengths)]
        hull: list[tuple[int, int]] = []
        for point in points:
            while len(hull) > 1 and _left(hull[-2], hull[-1], point):
                hull.pop()
            hull.append(point)
        mean = float(source_lengths.mean())
        for (n, t), (m, u) in pairwise(hull):
            if m >= mean and u > t:
                slope = (u - t) / (m - n)
                return LengthModel(slope, t - slope * n)
        return LengthModel(0.0, float(longest.max()))


def _left(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    """True where b is not above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


@dataclass(frozen=True)
class Source:
    """A source as the model reads it: `tokens` without and `ids` with the end mark; `copy` as in `Batch.context`
    (`PAD` for tags, which are not to be copied), `extra` the tokens that ids past the target vocabulary stand for."""

    tokens: list[str]
    ids: list[int]
    copy: list[int] | None
    extra: list[str]


@dataclass(frozen=True)
class Task:
    """Both sides of the pairs. `context` names the columns that are put before the source as tags; `augment` changes
    pairs that are encoded with a seed, which are those of training, and is kept in no file."""

    name: str
    source: Text
    target: Text
    copy: bool
    context: tuple[str, ...]
    length: LengthModel
    shared: bool = False
    augment: Augmenter | None = None

    @staticmethod
    def learn(pairs: Iterable[Pair], config: Config) -> Task:
        """Learns tokenizers, vocabularies and lengths from pairs that can be gone through several times."""
        data = config.data
        tags = sorted({tag for pair in pairs for tag in _tags(pair, data.context)}) if data.context else []
        tags += [REVERSED] if data.augment.reverse != "none" else []
        tags += [tag_of(data.mix_tag)] if data.mix_tag else []
        if data.shared:
            both = Text.learn(Texts(pairs, ("source", "target")), _one_side(config), name="shared", tags=tags)
            source, target = (replace(both, side=side, name=name, too_long=data.too_long) for side, name in
                              ((data.source, "source"), (data.target, "target")))  # fmt: skip
        else:
            sources, targets = Texts(pairs, ["source"]), Texts(pairs, ["target"])
            source = Text.learn(sources, data.source, name="source", too_long=data.too_long, tags=tags)
            target = Text.learn(targets, data.target, name="target", too_long=data.too_long)
        copy = config.model.head == "copy"
        task = Task(config.task, source, target, copy, tuple(data.context), LengthModel(1, 0), bool(data.shared))
        lengths = [task._lengths(pair) for pair in islice(pairs, MEASURED)]
        measured = np.array([both for both in lengths if both is not None] or [(1, 1)])
        return task.with_lengths(measured[:, 0], measured[:, 1])

    def extended(
        self, pairs: Iterable[Pair], sizes: tuple[int | None, int | None] = (None, None), tags: Sequence[str] = ()
    ) -> Task:
        """The same ids, and after them the tokens of these pairs that the vocabularies lack, up to `sizes` in all.

        `tags` are further ones of the source. Goes through the pairs several times.
        """
        found = sorted({tag for pair in pairs for tag in _tags(pair, self.context)}) if self.context else []
        tags = [*found, *tags]
        if self.shared:
            source = self.source.extended(Texts(pairs, ("source", "target")), sizes[0], tags)
            return replace(self, source=source, target=replace(self.target, vocabulary=source.vocabulary))
        source = self.source.extended(Texts(pairs, ["source"]), sizes[0], tags)
        return replace(self, source=source, target=self.target.extended(Texts(pairs, ["target"]), sizes[1]))

    def with_lengths(self, source_lengths: np.ndarray, target_lengths: np.ndarray) -> Task:
        """The same with limits that cover pairs of these lengths (end marks counted), such as those of a `Store`."""
        return replace(self, length=LengthModel.learn(np.asarray(source_lengths), np.asarray(target_lengths)))

    def _lengths(self, pair: Pair) -> tuple[int, int] | None:
        try:
            return len(self.read(pair).ids), len(self.target.ids(pair.target))
        except TooLong:
            return None

    def read(self, pair: Pair | str, *, seed: int | None = None, report: Report | None = None) -> Source:
        """A source as ids; with a seed, cut at random where the settings ask for subword sampling.

        Counts in `report` what was cut. Raises `DataError` where a context column is missing or the source is too
        long to be allowed.
        """
        pair = Pair(pair, "") if isinstance(pair, str) else pair
        tags = _tags(pair, self.context)
        tokens = self.source.fit(self.source.cut(pair.source, seed=seed), report=report, tags=tags, example=pair.source)
        ids = [*self.source.vocabulary.ids(tokens), EOS]
        if not self.copy:
            return Source(tokens, ids, None, [])
        words, extra = copy_ids(tokens[len(tags) :], self.target.vocabulary)
        return Source(tokens, ids, [*[PAD] * len(tags), *words, EOS], extra)

    def encode(self, pair: Pair, *, seed: int | None = None, report: Report | None = None) -> Example:
        """A pair as ids for training; with a seed, changed and cut at random as the settings ask."""
        if seed is not None and self.augment is not None:
            pair = self.augment(pair, seed)
        source = self.read(pair, seed=None if seed is None else 2 * seed, report=report)
        cut = self.target.cut(pair.target, seed=None if seed is None else 2 * seed + 1)
        tokens = self.target.fit(cut, report=report, example=pair.target)
        target = extended_ids(tokens, self.target.vocabulary, source.extra)
        if report is not None:
            for side, ids in (("source", [] if self.copy else source.ids), ("target", target)):
                if lost := ids.count(UNK):
                    report.add(f"{side} token that the vocabulary lacks", example=getattr(pair, side), times=lost)
        return Example(source.ids, [*target, EOS], source.copy)

    def batch(self, pairs: Sequence[Pair]) -> Batch:
        """The pairs as one batch, in order."""
        examples = [self.encode(pair) for pair in pairs]
        copies = [example.copy for example in examples if example.copy is not None]
        context = {"copy": pad(copies)} if self.copy else {}
        return Batch(pad([item.source for item in examples]), pad([item.target for item in examples]), context)

    def phrase(self, text: str, extra: Sequence[str] = ()) -> tuple[int, ...]:
        """A piece of target text as ids, for constraints: without end mark, unknown tokens as `UNK`."""
        return tuple(extended_ids(self.target.cut(text), self.target.vocabulary, extra))

    def answer(self, ids: Iterable[int], extra: Sequence[str] = ()) -> str:
        """Target ids as text; ids past the vocabulary are the source's tokens in `extra`."""
        return self.target.text(ids, extra)

    def limit(self, source_length: int) -> int:
        """Most target tokens for a source of so many ids."""
        return self.length.limit(source_length)

    def files(self) -> dict[str, bytes]:
        """Everything `load` needs besides the configuration."""
        about = {"name": self.name, "copy": self.copy, "context": list(self.context), "shared": self.shared}
        files = {TASK_FILE: dump_json({**about, "length": asdict(self.length)})}
        if self.shared:
            return files | self.source.files("shared")
        return files | self.source.files("source") | self.target.files("target")

    @staticmethod
    def load(files: Mapping[str, bytes], config: Config) -> Task:
        """Reads what `files` gave; anything else is a `BundleError`."""
        if TASK_FILE not in files:
            raise BundleError("the file is missing", where=TASK_FILE)
        about = _about(load_json(files[TASK_FILE], where=TASK_FILE))
        prefixes = ("shared", "shared") if about["shared"] else ("source", "target")
        try:
            source = Text.load(dict(files), prefixes[0], config.data.source)
            target = Text.load(dict(files), prefixes[1], config.data.target)
        except ConfigError as error:
            raise BundleError(str(error), where=prefixes[0]) from None
        source = replace(source, name="source", too_long=config.data.too_long)
        target = replace(target, name="target", too_long=config.data.too_long)
        length = LengthModel(about["length"]["slope"], about["length"]["offset"])
        return Task(about["name"], source, target, about["copy"], tuple(about["context"]), length, about["shared"])


def _about(about: Any) -> dict[str, Any]:
    kinds = {"name": str, "copy": bool, "context": list, "shared": bool, "length": dict}
    good = isinstance(about, dict) and set(about) == set(kinds)
    good = good and all(isinstance(about[name], kind) for name, kind in kinds.items())
    good = good and all(isinstance(column, str) for column in about["context"])
    numbers = [about["length"].get("slope"), about["length"].get("offset")] if good else []
    if not good or not all(type(value) in (int, float) and abs(value) < 1e6 for value in numbers):
        raise BundleError("is not a task description", where=TASK_FILE)
    return about


def _tags(pair: Pair, context: Sequence[str]) -> list[str]:
    """`<name:value>` for every context column; a tag is one token, whatever the tokenizer."""
    missing = [name for name in context if name not in pair.context]
    if missing:
        what = f"the context column {missing[0]} is missing"
        raise DataError(
            what, where=repr(pair.source[:60]), do="give it with every input, in a table or as Pair.context"
        )
    own = [
        tag for key, tag in ((REVERSED_KEY, REVERSED), (TAG_KEY, pair.context.get(TAG_KEY, ""))) if key in pair.context
    ]
    return own + [f"<{name}:{pair.context[name]}>" for name in context]


def tag_of(name: str) -> str:
    """A tag's token."""
    return f"<{name}>"


def tagged(pair: Pair, name: str) -> Pair:
    """The pair with a tag before its source, which is as it stands in no text."""
    return replace(pair, context={**pair.context, TAG_KEY: tag_of(name)})


def _one_side(config: Config) -> Side:
    """The side settings of a shared vocabulary: those of the source, which the target's must equal."""
    source, target = config.data.source, config.data.target
    for name in ("tokenizer", "vocabulary", "min_count", "normalize", "lowercase"):
        if getattr(source, name) != getattr(target, name):
            got = f"{getattr(source, name)} and {getattr(target, name)}"
            raise ConfigError(f"data.shared=true needs one {name} for both sides", got=got, do="make them equal")
    return source
