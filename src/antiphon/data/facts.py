"""The facts of a pair as tokens: joined to the source one after the other, or as the nodes of a graph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, pairwise, repeat
from operator import itemgetter
from typing import Literal

from antiphon.core.config import Data
from antiphon.core.errors import DataError
from antiphon.data import knowledge
from antiphon.data.columns import Pair
from antiphon.data.knowledge import Base, Fact
from antiphon.data.report import Report
from antiphon.data.vocabulary import Vocabulary

MARKS = ("<subject>", "<relation>", "<object>")
"""What begins each part of a fact that is joined to the source: one token each, whatever the tokenizer."""

Cut = Callable[[str], list[str]]
Spell = Callable[[Sequence[str], str], list[str]]


@dataclass(frozen=True)
class Finder:
    """What gives a pair its facts: its column, and then the `base`; at most `most` of them."""

    most: int = 30
    base: Base | None = None

    @staticmethod
    def open(settings: Data, report: Report) -> Finder:
        """What the settings ask for, its knowledge base read."""
        return Finder(settings.facts, knowledge.read(settings.knowledge, report) if settings.knowledge else None)

    def __call__(self, pair: Pair, report: Report | None = None) -> list[Fact]:
        """The facts of a pair, each once; what is left out is counted.

        Raises `DataError` for facts that are malformed, and where there is neither a column nor a base.
        """
        if knowledge.FACTS not in pair.context and self.base is None:
            do = ("give a column facts, named too where data.columns is set, or a file of facts: --knowledge FILE "
                  "(in training data.knowledge=FILE)")  # fmt: skip
            raise DataError("the facts that the model wants are missing", where=repr(pair.source[:60]), do=do)
        try:
            given = knowledge.parse(pair.context.get(knowledge.FACTS, ""))
        except DataError as error:
            raise DataError(error.what, where=repr(pair.source[:60]), got=error.got, do=error.do) from None
        found = self.base.about(pair.source) if self.base is not None else []
        facts = list(dict.fromkeys([*given, *found]))
        if report is not None and (again := len(given) - len(set(given))):
            report.add("repeated fact left out", example=pair.source, times=again)
        if report is not None and len(facts) > self.most:
            report.add(
                f"fact beyond data.facts={self.most} left out", example=pair.source, times=len(facts) - self.most
            )
        return facts[: self.most]

    def written(self, pair: Pair) -> Pair:
        """The pair with its facts in its own column, where any model finds them."""
        return replace(pair, context={**pair.context, knowledge.FACTS: knowledge.dump(self(pair))})

    def texts(self, pair: Pair) -> list[str]:
        """What of a pair's facts is read: the labels."""
        return [text for fact in self(pair) for text in labels(fact)]


@dataclass(frozen=True)
class Read:
    """All texts of some sides of pairs, and of their facts where there is something to find them: with `once` each text
    of a fact a single time, or subwords would be learned for whole sentences of facts that many pairs share."""

    pairs: Iterable[Pair]
    sides: Sequence[Literal["source", "target"]]
    find: Finder | None
    once: bool = False

    def __iter__(self) -> Iterator[str]:
        told = set[str]()
        for pair in self.pairs:
            yield from (getattr(pair, side) for side in self.sides)
            if self.find is not None:
                facts = [text for text in self.find.texts(pair) if text not in told]
                yield from facts
                told.update(facts if self.once else ())


def labels(fact: Fact) -> tuple[str, str, str]:
    """The texts of a fact's parts."""
    return knowledge.label(fact.subject), knowledge.relation_label(fact.relation), knowledge.label(fact.object)


def linear(facts: Sequence[Fact], cut: Cut, room: int | None, report: Report | None = None) -> list[str]:
    """Facts as tokens, each part after its mark; whole facts, as many as there is room for, the others counted."""
    tokens: list[str] = []
    for number, fact in enumerate(facts):
        more = [token for mark, text in zip(MARKS, labels(fact), strict=True) for token in (mark, *cut(text))]
        if room is not None and len(tokens) + len(more) > room:
            _left_out(len(facts) - number, fact, report)
            break
        tokens += more
    return tokens


def spelled(facts: Sequence[Fact], tokens: Sequence[str], spell: Spell) -> list[str]:
    """What `linear` gave, without marks, with the capital letters of the facts."""
    found, texts = list[str](), chain((text for fact in facts for text in labels(fact)), repeat(""))
    starts = [*(place for place, token in enumerate(tokens) if token in MARKS), len(tokens)]
    for (start, end), text in zip(pairwise(starts), texts, strict=False):
        found += spell(tokens[start + 1 : end], text)
    return found


@dataclass
class Graph:
    """Tokens of the nodes of a graph, node after node, with the numbers of the nodes as in `Batch.context`; `texts` has
    a label for each node."""

    tokens: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    node: list[int] = field(default_factory=list)
    subject: list[int] = field(default_factory=list)
    object: list[int] = field(default_factory=list)

    def add(self, tokens: Sequence[str], text: str, node: int, subject: int = 0, thing: int = 0) -> None:
        """Append a node with this label."""
        self.texts.append(text)
        self.tokens += tokens
        self.node += [node] * len(tokens)
        self.subject += [subject] * len(tokens)
        self.object += [thing] * len(tokens)

    def spelled(self, spell: Spell) -> list[str]:
        """The tokens with the capital letters of the labels."""
        found = list[str]()
        for node, part in groupby(zip(self.node, self.tokens, strict=True), itemgetter(0)):
            found += spell([token for _, token in part], self.texts[node - 1])
        return found

    def numbers(self, vocabulary: Vocabulary) -> dict[str, list[int]]:
        """What a batch's context holds of it."""
        links = {"fact_node": self.node, "fact_subject": self.subject, "fact_object": self.object}
        return {"facts": vocabulary.ids(self.tokens), **links}


def nodes(facts: Sequence[Fact], cut: Cut, room: int | None, report: Report | None = None) -> Graph:
    """The Levi graph of facts: a node for each entity, and one for the relation of each fact.

    The facts are put in one order, so that theirs cannot matter. As many as there is room for, the others counted.
    """
    found, known = Graph(), dict[str, int]()
    facts = sorted(facts)
    for number, fact in enumerate(facts):
        first, middle, last = (cut(text) for text in labels(fact))
        new = {name: tokens for name, tokens in ((fact.subject, first), (fact.object, last)) if name not in known}
        if room is not None and len(found.tokens) + len(middle) + sum(map(len, new.values())) > room:
            _left_out(len(facts) - number, fact, report)
            break
        for name, tokens in new.items():
            known[name] = len(known) + 1
            found.add(tokens, knowledge.label(name), known[name])
        relation = known[f"\0{number}"] = len(known) + 1
        found.add(middle, labels(fact)[1], relation, known[fact.subject], known[fact.object])
    return found


def _left_out(times: int, fact: Fact, report: Report | None) -> None:
    if report is not None:
        report.add("fact left out: no room within data.source.max_length", example=" | ".join(fact), times=times)


def fingerprints(entities: Iterable[str]) -> set[int]:
    """Entities as numbers of 64 bits, the same for each way to write one: what a model keeps of those it was taught."""
    keys = {name for entity in entities for name in knowledge.names(entity)[:1]}
    return {int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") for name in keys}
