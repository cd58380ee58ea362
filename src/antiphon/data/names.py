"""Made-up words in the place of rare ones that a target takes from its source or facts: what teaches to copy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from antiphon.core.errors import ConfigError
from antiphon.data import knowledge
from antiphon.data.columns import Pair
from antiphon.data.knowledge import FACTS, Fact

WORD = re.compile(r"\w+")
COMMON = 0.02
"""A word in more than this share of the targets is no name: it says something, and stays."""


@dataclass(frozen=True)
class Names:
    """Each rare word that the target shares with the source, or with an entity of the facts, becomes at a rate another
    one on both sides: one that other pairs share, or the beginning of one with the end of another. A number gets other
    digits. Nobody can know such a word, so it has to be copied.

    `shared` are the words that pairs share, each once; `common` those that stay.
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
        known = tuple(sorted(word for word in shared - common if not word.isdecimal()))
        if not known:
            what = "data.augment.names does nothing: sources and targets have no rare word in common"
            raise ConfigError(what, do="set it to 0")
        return cls(rate, known, common)

    def __call__(self, pair: Pair, draw: Random) -> Pair:
        said, there = dict.fromkeys(WORD.findall(pair.target)), given(pair)
        new = {
            word: self.other(word, draw)
            for word in said if word in there and word not in self.common and draw.random() < self.rate
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

    def other(self, word: str, draw: Random) -> str:
        """Another word, with a capital where this one has one."""
        if word.isdecimal():
            return "".join(str(draw.randrange(place == 0 < len(word) - 1, 10)) for place in range(len(word)))
        first, second = draw.choice(self.shared), draw.choice(self.shared)
        made = first if draw.random() < 0.5 else first[: (len(first) + 1) // 2] + second[len(second) // 2 :]
        return made[:1].upper() + made[1:] if word[:1].isupper() else made


def given(pair: Pair) -> set[str]:
    """The words of the source and of the entities of the pair's own facts."""
    words = set(WORD.findall(pair.source))
    for entity in knowledge.entities(knowledge.parse(pair.context.get(FACTS, ""))):
        words.update(WORD.findall(knowledge.label(entity)))
    return words
