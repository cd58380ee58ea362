"""What a recipe needs to know of the pairs: how much there is, how long it is, and how each side is written."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from antiphon.core.config import SIGNALS, Data
from antiphon.data.corpus import Pair
from antiphon.data.facts import Finder
from antiphon.data.knowledge import FACTS
from antiphon.data.names import taken
from antiphon.data.signals import Overview

if TYPE_CHECKING:
    from antiphon.training.forecasting import Targets

FAR = 10
"""Times as long as one text in twenty is: more of it says nothing of the others."""
SAMPLE, LOOKED, OPENED = 100_000, 10_000, 200
"""Pairs that are looked at, those looked at for words to copy, and recordings or arrays that are opened."""


@dataclass(frozen=True)
class SideStatistics:
    """What one side looks like: kinds and mean numbers of characters and words, and how its script behaves."""

    characters: float
    words: float
    longest_words: int
    character_kinds: int
    word_kinds: int
    new_words: float
    chinese: float
    many_characters: float = 0.0
    many_words: float = 0.0

    @staticmethod
    def of(texts: list[str]) -> SideStatistics:
        """Statistics of a sample; `new_words` is the share of words in its last tenth unseen before; one text in
        twenty has `many_characters`, and one `many_words`, or more."""
        words = [text.split() for text in texts]
        many = _many(list(map(len, texts))), _many(list(map(len, words)))
        early = set(itertools.chain.from_iterable(words[: len(words) * 9 // 10]))
        late = list(itertools.chain.from_iterable(words[len(words) * 9 // 10 :]))
        characters = Counter(itertools.chain.from_iterable(texts))
        total = max(1, characters.total())
        return SideStatistics(
            characters=_mean(list(map(len, texts)), many[0]),
            words=_mean(list(map(len, words)), many[1]),
            longest_words=max(map(len, words), default=0),
            character_kinds=len(characters),
            word_kinds=len(early.union(late)),
            new_words=sum(word not in early for word in late) / max(1, len(late)),
            chinese=sum(n for character, n in characters.items() if "\u3400" <= character <= "\u9fff") / total,
            many_characters=many[0],
            many_words=many[1],
        )

    def tail(self) -> SideStatistics:
        """The same for the longest twentieth."""
        return replace(self, characters=self.many_characters, words=self.many_words)


@dataclass(frozen=True)
class Statistics:
    """What a recipe needs to know of the pairs."""

    pairs: int
    source: SideStatistics
    target: SideStatistics
    common: float
    """Kinds of characters that both sides have, as a share of those of the side that has more."""
    facts: bool = False
    own: float = 1.0
    """The share of what is read that is the pair's own source, and not its facts."""
    taken: float = 0.0
    """The share of targets that have a rare word of their source or facts."""
    signal: Overview | None = None
    """What sources are like that are recordings or arrays; `source` then says nothing."""
    numbers: Targets | None = None
    """What targets are like that are numbers; `target` then counts their steps as words."""

    @staticmethod
    def of(pairs: Iterable[Pair], find: Finder | None = None, data: Data | None = None) -> Statistics:
        """One pass: all pairs are counted, the first `SAMPLE` are looked at, with the facts that `find` gives them."""
        stream = iter(pairs)
        sample = list(itertools.islice(stream, SAMPLE))
        numbers = None
        if data is not None and data.target.kind == "numbers":
            from antiphon.training.forecasting import Targets  # it builds on what is below

            numbers = Targets.of(sample, data)
        if data is not None and data.source.kind in SIGNALS:
            count, step = len(sample) + sum(1 for _ in stream), max(1, len(sample) // OPENED)
            signal = Overview.of([pair.source for pair in sample[::step]], data)
            said = SideStatistics.of([pair.target for pair in sample])
            return Statistics(count, SideStatistics.of([]), said, 0.0, signal=signal, numbers=numbers)
        facts = find is not None and (find.base is not None or any(FACTS in pair.context for pair in sample))
        sources, targets = [pair.source for pair in sample], [pair.target for pair in sample]
        if facts and find is not None:
            sources = [" ".join([pair.source, *find.texts(pair)]) for pair in sample]
        own = sum(len(pair.source) for pair in sample) / max(1, sum(map(len, sources)))
        kinds = set(itertools.chain.from_iterable(sources)), set(itertools.chain.from_iterable(targets))
        common = len(kinds[0] & kinds[1]) / max(1, len(kinds[0]), len(kinds[1]))
        count = len(sample) + sum(1 for _ in stream)
        sides = SideStatistics.of(sources), SideStatistics.of(targets)
        return Statistics(count, *sides, common, facts, own, taken(sample[:LOOKED]), numbers=numbers)


def _mean(lengths: list[int], many: float) -> float:
    """The mean, in which a few texts that are far longer than most, and will be cut, count as `FAR` times `many`."""
    most = FAR * many if many else math.inf
    return sum(min(length, most) for length in lengths) / max(1, len(lengths))


def _many(lengths: list[int]) -> float:
    """What one in twenty reaches, 0 for none at all."""
    return float(sorted(lengths)[len(lengths) * 19 // 20]) if lengths else 0.0
