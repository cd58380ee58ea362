"""Many texts as flat arrays of word numbers, so that a hundred thousand of them are looked at without a Python loop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_ALONE = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Scripts that put no space between words: their characters stand for themselves."""

WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+|\n")
LETTER = re.compile(r"\w|\n")

SPELLED = 1.5
"""Mean words of a text below which it is a single word, whose letters are looked at instead."""


@dataclass(frozen=True)
class Words:
    """Texts as words: word j belongs to text `rows[j]` and is `kinds[ids[j]]`; both arrays are in reading order."""

    ids: np.ndarray
    rows: np.ndarray
    index: dict[str, int]
    texts: int
    spelled: bool

    @cached_property
    def lengths(self) -> np.ndarray:
        """Words of each text."""
        return np.bincount(self.rows, minlength=self.texts)

    @cached_property
    def counts(self) -> np.ndarray:
        """How often each kind occurs, by its number."""
        return np.bincount(self.ids, minlength=len(self.index))

    @cached_property
    def kinds(self) -> list[str]:
        """The words by number."""
        return list(self.index)


def cut(texts: Sequence[str], index: dict[str, int] | None = None, *, spelled: bool | None = None) -> Words:
    """Lowercased words of all texts, without punctuation; letters, where texts are single words.

    A given `index` is extended, so that two cuts can be compared.
    """
    index = {} if index is None else index
    if spelled is None:
        some = texts[:: max(1, len(texts) // 1000)]
        spelled = sum(len(WORD.findall(text)) for text in some) < SPELLED * len(some)
    whole = "\n".join([text.replace("\n", " ") if "\n" in text else text for text in texts]).lower()
    found = (LETTER if spelled else WORD).findall(whole)
    # A line feed stands between texts: it takes the number of a word, and no row.
    for word in dict.fromkeys(("\n", *found)):
        index.setdefault(word, len(index))
    end = index["\n"]
    ids = np.fromiter(map(index.__getitem__, found), np.int64, len(found))
    ends = ids == end
    rows = np.cumsum(ends)
    return Words(ids[~ends], rows[~ends], index, len(texts), spelled)


def distinct(values: np.ndarray) -> np.ndarray:
    """Each value once, sorted; `np.unique` may go through a hash table, which takes five times as long."""
    ranked = np.sort(values)
    return ranked[np.concatenate([[True], ranked[1:] != ranked[:-1]])] if len(ranked) else ranked
