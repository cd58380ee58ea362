"""Training pairs changed at random, anew in each epoch: noise, typing errors, synonyms, SwitchOut, reversal.

A change works on the text of a pair before it is cut into tokens, and follows from a seed alone.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from random import Random

from antiphon.core.config import Augment, Data
from antiphon.core.errors import ConfigError
from antiphon.core.marks import REVERSED, REVERSED_KEY
from antiphon.data import synonyms
from antiphon.data.columns import Pair
from antiphon.data.corpus import Texts
from antiphon.data.modalities import count_tokens
from antiphon.data.names import Names, Stems
from antiphon.data.noise import NOISE, Mixed, Typos, recased, unpunctuated, with_texts
from antiphon.data.synonyms import Synonyms
from antiphon.data.tokenizers import Char, Tokenizer, Whitespace

MASK = "\ufffc"
"""The object replacement character: no vocabulary has it, so a mask reads as an unknown token."""

MOST_UNITS, SPACED, SAMPLE, SHOWN = 20_000, 1000, 1000, 60
"""Units that may be put in; texts and pairs looked at; characters of an example."""

Change = Callable[[Pair, Random], Pair]
Units = list[str]
Noise = Callable[[Units, Random], Units]


@dataclass(frozen=True)
class Augmenter:
    """Changes a `share` of the pairs, each by all of `changes` in turn; the same pair and seed give the same."""

    changes: Mapping[str, Change]
    share: float

    def __call__(self, pair: Pair, seed: int) -> Pair:
        draw = Random(f"augment {seed}")
        if draw.random() >= self.share:
            return pair
        for change in self.changes.values():
            pair = change(pair, draw)
        return pair


def learn(
    pairs: Iterable[Pair], data: Data, source: Tokenizer, target: Tokenizer, noise: Collection[str] = NOISE
) -> Augmenter | None:
    """What the settings ask for, or None; units and synonyms are learned from training pairs, gone through again.

    `source` and `target` are the tokenizers of the sides: their kinds say what a unit of text is. `noise` are the kinds
    of it that leave a source's meaning as it is, for `data.augment.robust`. Raises `ConfigError` for a setting that
    could do nothing, and what `synonyms.learn` raises.
    """
    settings = data.augment
    wanted = any(getattr(settings, name) for name in (*RATES, "switchout", "synonyms", "robust"))
    wanted = wanted or settings.reverse != "none"
    if not wanted or not settings.share:
        return None
    if settings.casing and data.source.lowercase:
        raise ConfigError("data.augment.casing does nothing where data.source.lowercase is set", do="set it to 0")
    ours = Side.learn(Texts(pairs, ["source"]), source)
    theirs = ours
    if settings.switchout or settings.stems or settings.reverse in ("target", "both"):
        theirs = Side.learn(Texts(pairs, ["target"]), target)
    table = None
    if settings.synonyms and settings.synonym_rate:
        cut = source.encode if source.kind == "chinese" else synonyms.words_of if ours.spaced else None
        table = synonyms.learn(settings.synonyms, Texts(pairs, ["source"]), cut)
    label = target.kind == "label"
    changes = {name: change for name, rate, change in _kinds(settings, ours, theirs, table, label) if rate}
    if settings.robust:
        changes |= {"robust": Mixed.learn(noise, ours.letters)}
    if settings.stems:
        changes = {"stems": Stems.learn(settings.stems, pairs, ours.units, theirs.units), **changes}
    if settings.names:
        changes = {"names": Names.learn(settings.names, pairs), **changes}
    return Augmenter(changes, settings.share) if changes else None


RATES = ("names", "stems", "punctuation", "replace", "mask", "drop", "swap", "insert", "casing", "typos")


def _kinds(
    settings: Augment, ours: Side, theirs: Side, table: Synonyms | None, label: bool
) -> Iterator[tuple[str, float, Change]]:
    """Every kind with its rate, in the order in which a pair goes through them."""
    yield "punctuation", settings.punctuation, Sometimes(settings.punctuation, unpunctuated)
    if table is not None:
        yield "synonyms", settings.synonym_rate, Replaced(settings.synonym_rate, table)
    yield "switchout", settings.switchout, SwitchOut(settings.switchout, ours, None if label else theirs)
    yield "replace", settings.replace, Noisy(ours.units, Replace(settings.replace, ours))
    yield "mask", settings.mask, Noisy(ours.units, Mask(settings.mask))
    yield "drop", settings.drop, Noisy(ours.units, Drop(settings.drop))
    yield "swap", settings.swap, Noisy(ours.units, Swap(settings.swap))
    yield "insert", settings.insert, Noisy(ours.units, Insert(settings.insert, ours))
    yield "casing", settings.casing, Sometimes(settings.casing, recased)
    yield "typos", settings.typos, Typos(settings.typos, ours.letters)
    if settings.reverse != "none":
        rate = settings.reverse_rate
        yield "reverse", rate, Reverse(rate, settings.reverse, ours.units, theirs.units)


# What a side's text is made of


@dataclass(frozen=True)
class Side:
    """The units of one side: characters where it is cut into these or into bytes, or has no spaces; jieba's words where
    it is cut so, whole labels; else what white space parts. `known` are those of training, `totals` their counts, each
    with those before."""

    units: Tokenizer
    spaced: bool
    known: tuple[str, ...]
    totals: tuple[int, ...]
    letters: tuple[str, ...]

    @classmethod
    def learn(cls, texts: Iterable[str], tokenizer: Tokenizer) -> Side:
        """From the texts of a side, gone through twice, and the tokenizer that cuts it."""
        looked = list(islice(iter(texts), SPACED))
        spaced = 2 * sum(len(text.split()) > 1 for text in looked) > len(looked)
        units: Tokenizer = Whitespace() if spaced and tokenizer.kind not in ("char", "byte") else Char()
        units = tokenizer if tokenizer.kind in ("chinese", "label") else units
        counts = count_tokens(units, texts)
        ranked = sorted(((-count, unit) for unit, count in counts.items() if unit.strip()))[:MOST_UNITS]
        letters = Counter[str]()
        for count, unit in ranked:
            for letter in unit:
                letters[letter] -= count
        kept = sorted((letter for letter in letters if letter.isalpha()), key=lambda letter: (-letters[letter], letter))
        totals = tuple(accumulate(-count for count, _ in ranked))
        return cls(units, spaced, tuple(unit for _, unit in ranked), totals, tuple(kept))

    def common(self, draw: Random) -> str:
        """A unit, as often as it is in the training texts."""
        return self.known[bisect(self.totals, draw.randrange(self.totals[-1]))]

    def other(self, unit: str, draw: Random) -> str:
        """A unit that is not this one, all alike; itself where there is no other."""
        while (found := draw.choice(self.known)) == unit and len(self.known) > 1:
            pass
        return found


# Noise on units


@dataclass(frozen=True)
class Noisy:
    """Noise on the units of the source; a text that it leaves as it is keeps its spaces."""

    units: Tokenizer
    noise: Noise

    def __call__(self, pair: Pair, draw: Random) -> Pair:
        before = self.units.encode(pair.source)
        after = self.noise(before, draw)
        return pair if after == before else with_texts(pair, self.units.decode(after), pair.target)


@dataclass(frozen=True)
class Drop:
    """Leaves out each unit at a rate, but never all (Iyyer et al. 2015)."""

    rate: float

    def __call__(self, units: Units, draw: Random) -> Units:
        kept = [unit for unit in units if draw.random() >= self.rate]
        return kept or [units[draw.randrange(len(units))]] if units else units


@dataclass(frozen=True)
class Swap:
    """Each unit, at a rate, changes places with the next, which then stays (Artetxe et al. 2018)."""

    rate: float

    def __call__(self, units: Units, draw: Random) -> Units:
        units, place = list(units), 0
        while place + 1 < len(units):
            if draw.random() < self.rate:
                units[place : place + 2] = units[place + 1], units[place]
                place += 1
            place += 1
        return units


@dataclass(frozen=True)
class Replace:
    """Puts another unit in the place of each at a rate, drawn by frequency: unigram noising (Xie et al. 2017)."""

    rate: float
    side: Side

    def __call__(self, units: Units, draw: Random) -> Units:
        return [self.side.common(draw) if draw.random() < self.rate else unit for unit in units]


@dataclass(frozen=True)
class Mask:
    """Puts a mask in the place of each unit at a rate: blank noising (Xie et al. 2017)."""

    rate: float

    def __call__(self, units: Units, draw: Random) -> Units:
        return [MASK if draw.random() < self.rate else unit for unit in units]


@dataclass(frozen=True)
class Insert:
    """Puts a unit, drawn by frequency, before each at a rate."""

    rate: float
    side: Side

    def __call__(self, units: Units, draw: Random) -> Units:
        found = Units()
        for unit in units:
            if draw.random() < self.rate:
                found.append(self.side.common(draw))
            found.append(unit)
        return found


@dataclass(frozen=True)
class SwitchOut:
    """On both sides n units become others, all alike, where n has probability in proportion to `exp(-n / temperature)`
    (Wang et al. 2018). A target that is a label stays (None): another would be wrong."""

    temperature: float
    source: Side
    target: Side | None

    def __call__(self, pair: Pair, draw: Random) -> Pair:
        source = self._switched(pair.source, self.source, draw)
        return with_texts(pair, source, self._switched(pair.target, self.target, draw) if self.target else pair.target)

    def _switched(self, text: str, side: Side, draw: Random) -> str:
        units = side.units.encode(text)
        weights = [math.exp(-number / self.temperature) for number in range(len(units) + 1)]
        number = draw.choices(range(len(weights)), weights)[0]
        if not number:
            return text
        for place in draw.sample(range(len(units)), number):
            units[place] = side.other(units[place], draw)
        return side.units.decode(units)


# Changes of a text


@dataclass(frozen=True)
class Sometimes:
    """Changes the whole source at a rate."""

    rate: float
    change: Callable[[str, Random], str]

    def __call__(self, pair: Pair, draw: Random) -> Pair:
        if draw.random() >= self.rate:
            return pair
        return with_texts(pair, self.change(pair.source, draw), pair.target)


@dataclass(frozen=True)
class Replaced:
    """Each word of the source that has synonyms becomes one of them at a rate (Zhang et al. 2015)."""

    rate: float
    synonyms: Synonyms

    def __call__(self, pair: Pair, draw: Random) -> Pair:
        pieces = self.synonyms.cut(pair.source)
        for place, piece in enumerate(pieces):
            others = self.synonyms.of(piece)
            if others and draw.random() < self.rate:
                pieces[place] = draw.choice(others)
        return with_texts(pair, "".join(pieces), pair.target)


@dataclass(frozen=True)
class Reverse:
    """At a rate, the units of a side, or of both, come in reverse order, and a tag before the source says so
    (Sánchez-Cartagena et al. 2021): what has no tag, as all that is predicted, is in its own order."""

    rate: float
    sides: str
    source: Tokenizer
    target: Tokenizer

    def __call__(self, pair: Pair, draw: Random) -> Pair:
        if draw.random() >= self.rate:
            return pair
        source, target = pair.source, pair.target
        if self.sides != "target":
            source = self.source.decode(self.source.encode(source)[::-1])
        if self.sides != "source":
            target = self.target.decode(self.target.encode(target)[::-1])
        return Pair(source, target, (), {**pair.context, REVERSED_KEY: ""})


# What it comes to


def effects(augmenter: Augmenter, pairs: Sequence[Pair], total: int) -> list[str]:
    """What all changes, and each alone, come to in an epoch of `total` pairs, of which `pairs` are a sample."""
    alone = [(f"augmentation by {name}", {name: change}) for name, change in augmenter.changes.items()]
    both = [("augmentation", augmenter.changes)] if len(alone) > 1 else []
    lines = []
    for name, changes in both + alone:
        change = Augmenter(changes, augmenter.share)
        lines.append(effect(name, [(pair, change(pair, number)) for number, pair in enumerate(pairs)], total))
    return lines


def effect(name: str, looked: Sequence[tuple[Pair, Pair]], total: int) -> str:
    """How many of `total` pairs a change meets, from a sample before and after it, and three examples."""
    sides = [(_shown(old), _shown(new)) for old, new in looked]
    changed = [(old, new) for old, new in sides if old != new]
    line = f"{name} changes about {round(total * len(changed) / max(1, len(sides))):,} of {total:,} pairs in an epoch"
    # The first three, or those before them that can be shown whole.
    picked = sorted(changed, key=lambda both: max(0, *(len(text) - SHOWN for text in both[0] + both[1])))[:3]
    return "; ".join([line, *(_arrow(old, new) for old, new in picked)])


def _shown(pair: Pair) -> tuple[str, str]:
    return (f"{REVERSED} " if REVERSED_KEY in pair.context else "") + pair.source, pair.target


def _arrow(old: tuple[str, str], new: tuple[str, str]) -> str:
    """`'a b' -> 'b a'` for the sides that differ."""
    sides = [(before, after) for before, after in zip(old, new, strict=True) if before != after]
    return " and ".join(f"{_short(before)!r} -> {_short(after)!r}" for before, after in sides)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
