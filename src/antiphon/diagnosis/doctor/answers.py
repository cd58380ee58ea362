"""Answers of a run's best model to some held-out sources, by its own search and by others: who is to blame, and what.

Search errors and model errors are told apart by scoring the references (Stahlberg and Byrne 2019).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from antiphon import metrics
from antiphon.core.config import Decoding
from antiphon.data.columns import Pair
from antiphon.diagnosis.doctor.material import Material
from antiphon.inference.bundle import Bundle
from antiphon.inference.forced import forced_rows
from antiphon.inference.predictor import as_trained

SETTINGS = ("beam", "length_penalty", "coverage_penalty", "no_repeat", "min_length", "max_length", "sample",
            "temperature", "groups", "refill")  # fmt: skip
"""What of the search is tried another way."""


@dataclass
class Answers:
    """Answers are found when they are first asked for, a search at a time."""

    bundle: Bundle
    material: Material
    found: dict[Decoding, list[str]] = field(default_factory=dict)

    @cached_property
    def pairs(self) -> list[Pair]:
        """The held-out pairs that are answered."""
        return self.material.asked

    @property
    def own(self) -> Decoding:
        """The search of the run, one answer each and none withheld."""
        return replace(self.bundle.config.decoding, n_best=1, abstain=0.0)

    @cached_property
    def usual(self) -> Decoding:
        """The search that the recipe proposes; a narrower beam than its is no fault, but a choice of speed."""
        values = {name: self.material.advice(f"decoding.{name}") for name in SETTINGS}
        values["beam"] = min(values["beam"] or 1, self.own.beam or 1)
        return replace(self.own, **values)

    @cached_property
    def differing(self) -> list[str]:
        """Settings of the search that are not as proposed."""
        return [name for name in SETTINGS if getattr(self.own, name) != getattr(self.usual, name)]

    def by(self, settings: Decoding) -> list[str]:
        """The answers of one search."""
        if settings not in self.found:
            predictor = as_trained(self.bundle, self.material.record.config, processes=1)
            found = predictor.predict(self.pairs, settings=settings, details=False)
            self.found[settings] = [answers[0].text if answers else "" for answers in found]
        return self.found[settings]

    def score(self, settings: Decoding) -> float:
        """chrF of the answers, 0 to 100: it has something to say of words as of letters, and of one as of many."""
        references = [pair.references or (pair.target,) for pair in self.pairs]
        return metrics.corpus(metrics.get("chrf"), self.by(settings), references).value

    def without(self, name: str) -> Decoding:
        """The run's search with one setting as proposed."""
        return replace(self.own, **{name: getattr(self.usual, name)})

    @cached_property
    def against_references(self) -> float:
        """The share of sources whose reference the model itself finds likelier than its answer: search errors."""
        said = [Pair(pair.source, answer or " ", (), pair.context) for pair, answer in
                zip(self.pairs, self.by(self.own), strict=True)]  # fmt: skip
        plain = [replace(pair, references=()) for pair in self.pairs]
        both = [np.concatenate(list(forced_rows(self.bundle.model, [self.bundle.task.batch(some)])))[:, 0]
                for some in (said, plain)]  # fmt: skip
        worse = [answer != pair.target for pair, answer in zip(self.pairs, self.by(self.own), strict=True)]
        return float(np.mean((both[1] < both[0]) & np.array(worse)))

    def lengths(self, settings: Decoding) -> float:
        """The length of all answers over that of all references, in characters."""
        return sum(map(len, self.by(settings))) / max(1, sum(len(pair.target) for pair in self.pairs))


def repeating(texts: Sequence[str]) -> float:
    """The share of texts that say a word three times in a row, or four words twice."""
    return sum(map(_repeats, texts)) / max(1, len(texts))


def _repeats(text: str) -> bool:
    words = text.split() if " " in text else list(text)
    grams = Counter(zip(*(words[at:] for at in range(4)), strict=False))
    return (
        any(a == b == c for a, b, c in zip(words, words[1:], words[2:], strict=False))
        or max(grams.values(), default=0) > 1
    )
