"""What the pairs are: how a pair becomes ids, how ids become an answer, and how long an answer may get."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from antiphon.core.config import SIGNALS, Config, Data, Side
from antiphon.core.errors import BundleError, ConfigError
from antiphon.core.marks import EOS, PAD, REVERSED, UNK
from antiphon.data import turns
from antiphon.data.corpus import Pair, Texts
from antiphon.data.covariates import Covariates
from antiphon.data.facts import MARKS, Finder, Graph, Read, fingerprints, linear, nodes, spelled
from antiphon.data.knowledge import entities, topics
from antiphon.data.modalities import Text, TooLong
from antiphon.data.numbers import Numbers, Scale, Season
from antiphon.data.report import Report
from antiphon.data.signals import Signal
from antiphon.data.store import Example
from antiphon.data.vocabulary import copy_ids, extended_ids
from antiphon.inference import tasks
from antiphon.inference.lengths import LengthModel, length_model
from antiphon.inference.strict_json import dump_json, load_json
from antiphon.inference.tags import tag_of, tags_of

if TYPE_CHECKING:
    from antiphon.core.batch import Batch
    from antiphon.data.augment import Augmenter

TASK_FILE, ENTITIES_FILE = "task.json", "entities.json"
MEASURED = 1000
"""Pairs that the length model is learned from at first; `Task.with_lengths` takes all of them."""
MOST_ENTITIES = 1 << 20
"""Entities that a bundle keeps; of more it knows none."""

_HEX = re.compile("[0-9a-f]{16}")

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A source as the model reads it: `tokens` without and `ids` with the end mark; `context` as in `Batch.context`
    (to copy, `PAD` for tags and marks, which are not to be copied), `extra` the tokens that ids past the target
    vocabulary stand for, `facts` the tokens that a graph encoder reads. Of a recording or an array `ids` are its frames
    `[L, F]`, and `tokens` say where in it each position of the memory stands; there is no end mark. Where targets are
    numbers `scale` is that of this one, and `history` the source as it came, if it is numbers too."""

    tokens: list[str]
    ids: list[int] | np.ndarray
    context: Mapping[str, list[int] | np.ndarray]
    extra: list[str]
    facts: list[str] = field(default_factory=list)
    scale: Scale | Season | None = None
    history: np.ndarray | None = None

    @property
    def length(self) -> int:
        """All that is read, end mark included."""
        return len(self.ids) + len(self.facts)

    @property
    def ahead(self) -> int | None:
        """Steps that the context tells of, one by one; an answer of numbers ends there."""
        steps = len(self.context.get("ahead", ()))
        return steps if steps > 1 else None

    @property
    def unknown(self) -> int:
        """Tokens that the vocabulary lacks."""
        return 0 if isinstance(self.ids, np.ndarray) else self.ids.count(UNK)


@dataclass(frozen=True)
class Task:
    """Both sides of the pairs. `context` names the columns that are put before the source as tags, or, where targets
    are numbers, are `covariates` of each step; `augment` changes pairs that are encoded with a seed, which are those of
    training, and is kept in no file.

    `knowledge` says how facts are read (none, linear, graph), `find` which ones; its knowledge base is kept in no file.
    `entities` are fingerprints of those in the facts of training. `turns` is the most turns that a source of training
    had: where it is not 0, sources are dialogues (`antiphon.data.turns`).
    """

    name: str
    source: Text | Signal
    target: Text | Numbers
    copy: bool
    context: tuple[str, ...]
    length: LengthModel
    shared: bool = False
    augment: Augmenter | None = None
    knowledge: str = "none"
    find: Finder = field(default_factory=Finder)
    entities: frozenset[int] | None = None
    turns: int = 0
    covariates: Covariates | None = None

    @staticmethod
    def learn(pairs: Iterable[Pair], config: Config, find: Finder | None = None) -> Task:
        """Learns tokenizers, vocabularies and lengths from pairs that can be gone through several times."""
        data, kind = config.data, config.model.knowledge.kind or "none"
        find = find or Finder(data.facts)
        read = None if kind == "none" else find
        told = Covariates.learn(pairs, data.context) if data.context and data.target.kind == "numbers" else None
        tags = (
            [] if told or not data.context else sorted({tag for pair in pairs for tag in tags_of(pair, data.context)})
        )
        tags += [REVERSED] if data.augment.reverse != "none" else []
        tags += [tag_of(data.mix_tag)] if data.mix_tag else []
        tags += MARKS if kind == "linear" else []
        begins, most = turns.survey(pairs) if tasks.get(config.task).turns else ([], 0)
        tags, texts = [*tags, *begins], turns.Spoken(pairs) if most else pairs
        subwords = data.source.tokenizer in ("bpe", "unigram")
        source: Text | Signal
        target: Text | Numbers
        if data.source.kind in SIGNALS:
            source = Signal.learn(Texts(pairs, ["source"]), data, config.model.frontend.reduce or 1)
            target = _target(pairs, config, source)
        elif data.shared:
            read_both = Read(texts, ("source", "target"), read, subwords)
            both = Text.learn(read_both, _one_side(config), name="shared", tags=tags)
            source, target = (replace(both, side=side, name=name, too_long=data.too_long) for side, name in
                              ((data.source, "source"), (data.target, "target")))  # fmt: skip
        else:
            sources = Read(texts, ["source"], read, subwords)
            source = Text.learn(sources, data.source, name="source", too_long=data.too_long, tags=tags)
            target = _target(pairs, config, source)
        copy = config.model.head == "copy"
        marks = _marks(data.source), _marks(data.target)
        if copy and marks[0] != marks[1] and marks not in (("", "￭"), ("", "")):
            got, do = f"{data.source.tokenizer} and {data.target.tokenizer}", "set data.*.tokenizer alike"
            raise ConfigError("model.head=copy needs the same kind of tokens on both sides", got=got, do=do)
        task = Task(config.task, source, target, copy, tuple(data.context), LengthModel(1, 0), bool(data.shared),
                    knowledge=kind, find=find, turns=most, covariates=told).acquainted(pairs)  # fmt: skip
        lengths = [task._lengths(pair) for pair in islice(pairs, MEASURED)]
        measured = np.array([both for both in lengths if both is not None] or [(1, 1)])
        return task.with_lengths(measured[:, 0], measured[:, 1])

    def extended(
        self, pairs: Iterable[Pair], sizes: tuple[int | None, int | None] = (None, None), tags: Sequence[str] = ()
    ) -> Task:
        """The same ids, and after them the tokens of these pairs that the vocabularies lack, up to `sizes` in all.

        `tags` are further ones of the source. Goes through the pairs several times.
        """
        columns = () if self.covariates else self.context
        found = sorted({tag for pair in pairs for tag in tags_of(pair, columns)}) if columns else []
        marks, most = turns.survey(pairs) if tasks.get(self.name).turns else ([], 0)
        tags, most = [*found, *tags, *marks], max(most, self.turns)
        read, texts = None if self.knowledge == "none" else self.find, turns.Spoken(pairs) if most else pairs
        if isinstance(self.source, Signal):
            return replace(self, target=self.words.extended(Texts(pairs, ["target"]), sizes[1]))
        if self.shared:
            source = self.source.extended(Read(texts, ("source", "target"), read), sizes[0], tags)
            target = replace(self.words, vocabulary=source.vocabulary)
        else:
            source = self.source.extended(Read(texts, ["source"], read), sizes[0], tags)
            target = self.words.extended(Texts(pairs, ["target"]), sizes[1])
        return replace(self, source=source, target=target, turns=most)

    def acquainted(self, pairs: Iterable[Pair]) -> Task:
        """The same, with the entities of these pairs among those it knows, if these are not too many to be kept."""
        if self.knowledge == "none":
            return self
        known = set(self.entities or ())
        for pair in pairs:
            known |= fingerprints(entities(self.find(pair)))
        return replace(self, entities=frozenset(known) if len(known) <= MOST_ENTITIES else None)

    def with_lengths(self, source_lengths: np.ndarray, target_lengths: np.ndarray) -> Task:
        """The same with limits that cover pairs of these lengths (end marks counted), such as those of a `Store`."""
        return replace(self, length=LengthModel.learn(np.asarray(source_lengths), np.asarray(target_lengths)))

    def _lengths(self, pair: Pair) -> tuple[int, int] | None:
        try:
            if isinstance(self.target, Numbers):
                return self.read(pair).length, len(self.target.read(pair.target))
            return self.read(pair).length, len(self.target.ids(pair.target))
        except TooLong:
            return None

    def read(self, pair: Pair | str, *, seed: int | None = None, report: Report | None = None) -> Source:
        """A source as ids; with a seed, cut at random where the settings ask for subword sampling.

        Counts in `report` what was cut. Raises `DataError` where a context column or the facts are missing or the
        source is too long to be allowed.
        """
        pair = Pair(pair, "") if isinstance(pair, str) else pair
        if isinstance(self.source, Signal):
            found = self._heard(self.source, pair.source, seed, report)
        else:
            found = self._read(self.source, pair, seed, report)
        if not isinstance(self.target, Numbers):
            return found
        context = found.context
        if self.covariates is not None:
            steps = len(self.target.read(pair.target)) if pair.target else None
            context = {**context, "ahead": self.covariates.read(pair, steps, report)}
        return replace(found, scale=found.scale or self.target.scale, context=context)

    def _heard(self, signal: Signal, value: str, seed: int | None, report: Report | None) -> Source:
        raw = signal.raw(value, seed=seed, report=report)
        (scale, frames), target = signal.scaled(raw), self.target
        found = Source(signal.places(len(raw)), frames, {}, [])
        if not isinstance(target, Numbers):
            return found
        same = scale.first(target.features) if target.own else target.scale
        return replace(found, scale=same, history=raw if signal.kind == "numbers" else None)

    def _read(self, side: Text, pair: Pair, seed: int | None, report: Report | None) -> Source:
        columns = () if self.covariates else self.context
        tags = tags_of(pair, columns) if columns or pair.context else []
        if self.turns:
            tokens = turns.fit(side, pair.source, seed=seed, report=report, tags=tags)
        else:
            cut = side.cut(pair.source, seed=seed)
            tokens = side.fit(cut, report=report, tags=tags, example=pair.source)
        own, more, graph = tokens[len(tags) :], list[str](), Graph()
        if self.knowledge == "linear":
            more = self._facts(side, linear, pair, len(tokens) + 1, seed, report)
            tokens = side.fit([*tokens, *more], example=pair.source)
        elif self.knowledge == "graph":
            graph = self._facts(side, nodes, pair, 1, seed, report)
            side.fit(graph.tokens, example=pair.source)
        ids = [*side.vocabulary.ids(tokens), EOS]
        context = graph.numbers(side.vocabulary) if self.knowledge == "graph" else {}
        if not self.copy:
            return Source(tokens, ids, context, [], graph.tokens)
        facts = self.find(pair) if more and side.side.lowercase else []
        named = spelled(facts, more, side.spelled)
        marks = [bool(self.turns) and turns.is_mark(token) for token in own]
        spell = partial(turns.spelled, side) if self.turns else side.spelled
        own = [token for token, mark in zip(spell(own, pair.source), marks, strict=True) if not mark]
        spoken = [*own, *named, *graph.spelled(side.spelled)]
        words, extra = copy_ids([self.words.normalize(token) for token in spoken], self.words.vocabulary)
        word = iter(words)
        silent = [True] * len(tags) + marks + [token in MARKS for token in more]
        context["copy"] = [*(PAD if quiet else next(word) for quiet in silent), EOS]
        if self.knowledge == "graph":
            context["fact_copy"] = list(word)
        return Source(tokens, ids, context, extra, graph.tokens)

    def _facts(
        self, side: Text, arrange: Callable[..., T], pair: Pair, used: int, seed: int | None, report: Report | None
    ) -> T:
        """The facts of a pair, as tokens in what room there is, or however many where too long sources are refused."""
        limit = side.side.max_length
        room = None if limit is None or side.too_long != "truncate" else max(0, limit - used)
        return arrange(self.find(pair, report), partial(side.cut, seed=seed), room, report)

    def completed(self, item: str | Pair) -> str | Pair:
        """The same, but what facts alone are given for has their subjects as its source, as in training."""
        if self.knowledge == "none" or isinstance(item, str) or item.source.strip():
            return item
        return replace(item, source=topics(self.find(item)))

    def encode(self, pair: Pair, *, seed: int | None = None, report: Report | None = None) -> Example:
        """A pair as ids for training; with a seed, changed and cut at random as the settings ask."""
        if seed is not None and self.augment is not None:
            pair = self.augment(pair, seed)
        source = self.read(pair, seed=None if seed is None else 2 * seed, report=report)
        if isinstance(self.target, Numbers):
            assert source.scale is not None
            return Example(source.ids, source.scale.to(self.target.read(pair.target, report)), source.context)
        cut = self.target.cut(pair.target, seed=None if seed is None else 2 * seed + 1)
        tokens = self.target.fit(cut, report=report, example=pair.target)
        target = extended_ids(tokens, self.target.vocabulary, source.extra)
        if report is not None:
            read = 0 if self.copy else source.unknown + list(source.context.get("facts", [])).count(UNK)
            for side, lost in (("source", read), ("target", target.count(UNK))):
                if lost:
                    report.add(f"{side} token that the vocabulary lacks", example=getattr(pair, side), times=lost)
        return Example(source.ids, [*target, EOS], source.context)

    def sampled(self, pair: Pair, seed: int) -> Example:
        """A pair changed and cut at random; as usual where a random cut is longer than allowed."""
        try:
            return self.encode(pair, seed=seed)
        except TooLong:
            return self.encode(pair)

    def batch(self, pairs: Sequence[Pair]) -> Batch:
        """The pairs as one batch, in order."""
        from antiphon.data.batching import collate

        return collate([self.encode(pair) for pair in pairs])

    def phrase(self, text: str, extra: Sequence[str] = ()) -> tuple[int, ...]:
        """A piece of target text as ids, for constraints: without end mark, unknown tokens as `UNK`."""
        return tuple(extended_ids(self.words.cut(text), self.words.vocabulary, extra))

    def answer(self, ids: Iterable[int], extra: Sequence[str] = ()) -> str:
        """Target ids as text; ids past the vocabulary are the source's tokens in `extra`."""
        return self.words.text(ids, extra)

    @property
    def words(self) -> Text:
        """The target side where it is text; `ConfigError` where it is numbers."""
        if isinstance(self.target, Numbers):
            raise ConfigError("this is for targets of text, and those of this model are numbers")
        return self.target

    def within(self, data: Data, length: LengthModel) -> Task:
        """The same for pairs of other lengths, with other facts: as an adapter reads and writes."""
        return replace(
            self,
            source=self.source.limited(data.source.max_length, data.too_long),
            target=self.target.limited(data.target.max_length, data.too_long),
            length=length,
            find=replace(self.find, most=data.facts),
        )

    def limit(self, source_length: int) -> int:
        """Most target tokens for a source of so many ids, or steps of numbers."""
        if isinstance(self.target, Numbers) and self.target.horizon:
            return self.target.horizon
        return self.length.limit(source_length)

    def files(self) -> dict[str, bytes]:
        """Everything `load` needs besides the configuration."""
        about = {"name": self.name, "copy": self.copy, "context": list(self.context), "shared": self.shared}
        about |= {"turns": self.turns} if self.turns else {}
        files = {TASK_FILE: dump_json({**about, "length": asdict(self.length)})}
        if self.entities is not None:
            files[ENTITIES_FILE] = dump_json([f"{entity:016x}" for entity in sorted(self.entities)])
        if self.shared:
            return files | self.source.files("shared")
        files |= {} if self.covariates is None else self.covariates.files("target")
        return files | self.source.files("source") | self.target.files("target")

    @staticmethod
    def load(files: Mapping[str, bytes], config: Config) -> Task:
        """Reads what `files` gave; anything else is a `BundleError`."""
        if TASK_FILE not in files:
            raise BundleError("the file is missing", where=TASK_FILE)
        about = _about(load_json(files[TASK_FILE], where=TASK_FILE))
        prefixes = ("shared", "shared") if about["shared"] else ("source", "target")
        source: Text | Signal
        try:
            if config.data.source.kind in SIGNALS:
                source = Signal.load(dict(files), prefixes[0], config.data, config.model.frontend.reduce or 1)
            else:
                source = Text.load(dict(files), prefixes[0], config.data.source)
            if config.data.target.kind == "numbers":
                target: Text | Numbers = Numbers.load(dict(files), prefixes[1], config.data)
            else:
                target = Text.load(dict(files), prefixes[1], config.data.target)
        except ConfigError as error:
            raise BundleError(str(error), where=prefixes[0]) from None
        source = replace(source, name="source", too_long=config.data.too_long)
        target = replace(target, name="target", too_long=config.data.too_long)
        return Task(about["name"], source, target, about["copy"], tuple(about["context"]), about["length"],
                    about["shared"], knowledge=config.model.knowledge.kind or "none", find=Finder(config.data.facts),
                    entities=_entities(files), turns=about["turns"],
                    covariates=Covariates.load(files, "target", config.model.covariates))  # fmt: skip


def _target(pairs: Iterable[Pair], config: Config, source: Text | Signal) -> Text | Numbers:
    """The target side; `ConfigError` where it is numbers and cannot have the scale of its source."""
    data = config.data
    if data.target.kind != "numbers":
        return Text.learn(Texts(pairs, ["target"]), data.target, name="target", too_long=data.too_long)
    found = Numbers.learn(Texts(pairs, ["target"]), config.data, ends=bool(config.model.ends))
    if found.own and source.size < found.features:
        what = f"data.frames.normalize={data.frames.normalize} needs sources"
        what += " whose first features are those of the target"
        raise ConfigError(what, got=f"{found.features} features", do="take data.frames.normalize=all")
    return found


def _entities(files: Mapping[str, bytes]) -> frozenset[int] | None:
    """The entities of training, where a bundle has them."""
    if ENTITIES_FILE not in files:
        return None
    listed = load_json(files[ENTITIES_FILE], where=ENTITIES_FILE)
    if not isinstance(listed, list) or not all(isinstance(item, str) and _HEX.fullmatch(item) for item in listed):
        raise BundleError("is not a list of entities", where=ENTITIES_FILE)
    return frozenset(int(item, 16) for item in listed)


def _about(about: Any) -> dict[str, Any]:
    kinds = {"name": str, "copy": bool, "context": list, "shared": bool, "length": dict, "turns": int}
    about = {"turns": 0, **about} if isinstance(about, dict) else about
    good = isinstance(about, dict) and set(about) == set(kinds)
    good = good and all(isinstance(about[name], kind) for name, kind in kinds.items())
    good = good and type(about["turns"]) is int and abs(about["turns"]) < 1e6
    if not good or not all(isinstance(column, str) for column in about["context"]):
        raise BundleError("is not a task description", where=TASK_FILE)
    return {**about, "length": length_model(about["length"], TASK_FILE)}


def _marks(side: Side) -> str:
    """How tokens say where they touch, which those that are copied say to the tokenizer of the target; "" for bare ones
    that go anywhere."""
    return {"bpe": "▁", "unigram": "▁", "word": "￭", "byte": "<"}.get(str(side.tokenizer), "")


def _one_side(config: Config) -> Side:
    """The side settings of a shared vocabulary: those of the source, which the target's must equal."""
    source, target = config.data.source, config.data.target
    for name in ("tokenizer", "vocabulary", "min_count", "normalize", "lowercase"):
        if getattr(source, name) != getattr(target, name):
            got = f"{getattr(source, name)} and {getattr(target, name)}"
            raise ConfigError(f"data.shared=true needs one {name} for both sides", got=got, do="make them equal")
    return source
