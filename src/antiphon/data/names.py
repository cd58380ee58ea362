"""Made-up words, or stems of words, in the place of what a target takes from its source: what teaches to copy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from random import Random

from antiphon.core.errors import ConfigError
from antiphon.data import knowledge
from antiphon.data.columns import Pair
from antiphon.data.knowledge import FACTS, Fact
from antiphon.data.tokenizers import Tokenizer

WORD = re.compile(r"\w+")
COMMON = 0.02
"""A word in more than this share of the targets is no name: it says something, and stays."""


@dataclass(frozen=True)
class Names:
    """Each rare word that the target shares with the source, or with an entity of the facts, becomes at a rate another
    one on both sides: one that other pairs share, or the beginning of one with the end of another. A number gets other
    digits. Nobody can know such a word, so it has to be copied.

    `shared` are the words that pairs share, each once, without numbers; `common` those that stay.
    """

    rate: float
    shared: tuple[str, ...]
    common: frozenset[str]

    @classmethod
    def learn(cls, rate: float, pairs: Iterable[Pair]) -> Names:
        """From training pairs. Raises `ConfigError` where source and target have no rare word in common."""
        said, shared, count = Counter[str](), set[str](), 0
        for pair in pairs:
            words = set(WORD.findall(pair.target))
            said.update(words)
            shared |= words & given(pair)
            count += 1
        common = frozenset(word for word, times in said.items() if times > max(1, COMMON * count))
        if not shared - common:
            what = "data.augment.names does nothing: sources and targets have no rare word in common"
            raise ConfigError(what, do="set it to 0")
        known = (word for word in shared - common if not word.isdecimal())
        return cls(rate, tuple(sorted(known)), common)

    def __call__(self, pair: Pair, draw: Random) -> Pair:
        said, there = dict.fromkeys(WORD.findall(pair.target)), given(pair)
        new = {
            word: self.other(word, draw)
            for word in said if self.could(word) and word in there and draw.random() < self.rate
        }  # fmt: skip

        def renamed(text: str) -> str:
            return WORD.sub(lambda found: new.get(found[0], found[0]), text)

        if not new:
            return pair
        context = dict(pair.context)
        if FACTS in context:
            context[FACTS] = knowledge.dump(
                Fact(renamed(knowledge.label(fact.subject)), fact.relation, renamed(knowledge.label(fact.object)))
                for fact in knowledge.parse(context[FACTS])
            )
        return Pair(renamed(pair.source), renamed(pair.target), (), context)

    def could(self, word: str) -> bool:
        """Whether there is another word for it: pairs to learn from may share numbers alone, and others be mixed in."""
        return word not in self.common and (word.isdecimal() or bool(self.shared))

    def other(self, word: str, draw: Random) -> str:
        """Another word, with a capital where this one has one."""
        if word.isdecimal():
            return "".join(str(draw.randrange(place == 0 < len(word) - 1, 10)) for place in range(len(word)))
        first, second = draw.choice(self.shared), draw.choice(self.shared)
        made = first if draw.random() < 0.5 else first[: (len(first) + 1) // 2] + second[len(second) // 2 :]
        return made[:1].upper() + made[1:] if word[:1].isupper() else made


SHORTEST = 3
"""Units of what counts as a stem."""


@dataclass(frozen=True)
class Stems:
    """The longest run of units that both sides of a pair share becomes, at a rate, another on both, drawn from those of
    all such runs as often as they are there: the hallucination of Anastasopoulos and Neubig (2019).

    What is left, the endings and what stands beside the word, then has to be told from what is in it.
    """

    rate: float
    source: Tokenizer
    target: Tokenizer
    drawn: tuple[str, ...]

    @classmethod
    def learn(cls, rate: float, pairs: Iterable[Pair], source: Tokenizer, target: Tokenizer) -> Stems:
        """From training pairs. Raises `ConfigError` where no pair shares a stem."""
        drawn = list[str]()
        for pair in pairs:
            ours, theirs = source.encode(pair.source), target.encode(pair.target)
            start, _, size = stem(ours, theirs)
            drawn += ours[start : start + size]
        if not drawn:
            what = f"data.augment.stems does nothing: no source shares {SHORTEST} units in a row with its target"
            raise ConfigError(what, do="set it to 0")
        return cls(rate, source, target, tuple(sorted(drawn)))

    def __call__(self, pair: Pair, draw: Random) -> Pair:
        if draw.random() >= self.rate:
            return pair
        ours, theirs = self.source.encode(pair.source), self.target.encode(pair.target)
        start, place, size = stem(ours, theirs)
        made = [draw.choice(self.drawn) for _ in range(size)]
        ours[start : start + size], theirs[place : place + size] = made, made
        return Pair(self.source.decode(ours), self.target.decode(theirs), (), pair.context)


def stem(ours: list[str], theirs: list[str]) -> tuple[int, int, int]:
    """Where the longest run of units that both have begins in each, and its length; 0 if that is below `SHORTEST`."""
    found = SequenceMatcher(None, ours, theirs, autojunk=False).find_longest_match()
    return (found.a, found.b, found.size) if found.size >= SHORTEST else (0, 0, 0)


def taken(pairs: Sequence[Pair]) -> float:
    """The share of pairs whose target has a rare word of its source or facts."""
    said = Counter(word for pair in pairs for word in set(WORD.findall(pair.target)))
    common = {word for word, times in said.items() if times > max(1, COMMON * len(pairs))}
    return sum(not common >= set(WORD.findall(pair.target)) & given(pair) for pair in pairs) / max(1, len(pairs))


def given(pair: Pair) -> set[str]:
    """The words of the source and of the entities of the pair's own facts."""
    words = set(WORD.findall(pair.source))
    for entity in knowledge.entities(knowledge.parse(pair.context.get(FACTS, ""))):
        words.update(WORD.findall(knowledge.label(entity)))
    return words
