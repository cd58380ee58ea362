"""Texts as code points: scripts, capitals, marks at the end, languages told apart by their letters."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

SCRIPTS = (
    "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "SYRIAC", "ETHIOPIC", "DEVANAGARI", "BENGALI",
    "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "TIBETAN",
    "MYANMAR", "GEORGIAN", "KHMER", "MONGOLIAN", "HANGUL", "HIRAGANA", "KATAKANA", "CJK",
)  # fmt: skip

USUAL, FEW = 0.05, 3
"""Share of a side's letters from which a script belongs to it, and letters of a text below which nothing is said."""

BINS = 1 << 16
"""Kinds of three letters in a row that are told apart."""


@dataclass(frozen=True)
class Characters:
    """The code points of all texts in a row; those of text i are `points[starts[i] : starts[i + 1]]`."""

    points: np.ndarray
    starts: np.ndarray

    @staticmethod
    def of(texts: Sequence[str]) -> Characters:
        """A line feed stands between two texts."""
        points = np.frombuffer("\n".join(texts).encode("utf-32-le", "replace"), np.uint32)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return Characters(points, np.concatenate([[0], np.cumsum(lengths + 1)]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def counts(self) -> np.ndarray:
        """How often each code point occurs."""
        return np.bincount(self.points, minlength=0x110000)

    def table(self, of: Callable[[str], int]) -> np.ndarray:
        """What `of` says of each character that occurs, by code point."""
        found = np.zeros(0x110000, np.int8)
        for point in np.flatnonzero(self.counts):
            found[point] = of(chr(point))
        return found

    def each(self, values: np.ndarray) -> np.ndarray:
        """The sum over each text of a value for each code point."""
        sums = np.concatenate([[0], np.cumsum(values[self.points], dtype=np.int64)])
        ends = np.minimum(self.starts[1:], len(self.points))
        found: np.ndarray = sums[ends] - sums[self.starts[:-1]]
        return found

    @cached_property
    def scripts(self) -> np.ndarray:
        """The script of each code point, as its place in `SCRIPTS` from 1; 0 for what is no letter of these."""
        return self.table(_script)

    def main_scripts(self) -> dict[str, float]:
        """Scripts of these texts with their share of the letters, the largest first."""
        totals = np.bincount(self.scripts, weights=self.counts, minlength=len(SCRIPTS) + 1)[1:]
        shares = totals / max(1.0, totals.sum())
        order = np.argsort(-shares, kind="stable")
        return {SCRIPTS[place]: float(shares[place]) for place in order if shares[place] > 0}

    def in_other_scripts(self) -> np.ndarray:
        """Texts whose letters are of scripts that hardly belong to this side, but for a few."""
        usual = {name for name, share in self.main_scripts().items() if share >= USUAL}
        strange = np.array([0, *(name not in usual for name in SCRIPTS)], np.int8)[self.scripts]
        letters, others = self.each(np.minimum(self.scripts, 1)), self.each(strange)
        return np.flatnonzero((others >= FEW) & (others > 0.8 * letters))


def _script(character: str) -> int:
    if not character.isalpha():
        return 0
    words = unicodedata.name(character, "").split()
    name = words[1] if words[:1] in (["FULLWIDTH"], ["HALFWIDTH"]) else words[0] if words else ""
    return SCRIPTS.index(name) + 1 if name in SCRIPTS else 0


@dataclass(frozen=True)
class Languages:
    """How much each text looks like the sources (above 0) or the targets (below), in nats for each three letters."""

    source: np.ndarray
    target: np.ndarray
    lengths: tuple[np.ndarray, np.ndarray]

    @staticmethod
    def of(source: Characters, target: Characters) -> Languages:
        """By the letters that stand beside each other (naive Bayes over trigrams)."""
        grams = [_trigrams(side) for side in (source, target)]
        counts = [np.bincount(each, minlength=BINS) + 0.5 for each in grams]
        ratio = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())
        means = [_means(ratio[each], side) for each, side in zip(grams, (source, target), strict=True)]
        lengths = [np.diff(side.starts) for side in (source, target)]
        return Languages(means[0], means[1], (lengths[0], lengths[1]))

    def apart(self, least: int) -> bool:
        """Whether nearly all texts of some length are known by their letters to be of their side."""
        sides = self.source[self.lengths[0] >= least] > 0, self.target[self.lengths[1] >= least] < 0
        return all(len(side) >= 50 and side.mean() > 0.97 for side in sides)

    def like_sources(self, least: int) -> np.ndarray:
        """Targets that look like sources."""
        return np.flatnonzero((self.lengths[1] >= least) & (self.target > 0.5 * float(np.median(self.source))))

    def like_targets(self, least: int) -> np.ndarray:
        """Sources that look like targets."""
        return np.flatnonzero((self.lengths[0] >= least) & (self.source < 0.5 * float(np.median(self.target))))


def _trigrams(side: Characters) -> np.ndarray:
    """A number below `BINS` for each character and its two neighbours, capitals as small letters, digits alike."""
    small = np.arange(0x110000, dtype=np.uint32)
    for point in np.flatnonzero(side.counts):
        character = chr(point).lower()
        small[point] = 48 if character.isdigit() else ord(character[0])
    points = small[side.points].astype(np.uint64)
    before, after = np.roll(points, 1), np.roll(points, -1)
    mixed = before * np.uint64(0x9E3779B1) + points * np.uint64(0x85EBCA6B) + after * np.uint64(0xC2B2AE35)
    found: np.ndarray = ((mixed >> np.uint64(15)) % np.uint64(BINS)).astype(np.int64)
    return found


def _means(values: np.ndarray, side: Characters) -> np.ndarray:
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    ends = np.minimum(side.starts[1:], len(values))
    found: np.ndarray = (sums[ends] - sums[side.starts[:-1]]) / np.maximum(1, ends - side.starts[:-1])
    return found


@dataclass(frozen=True)
class Profile:
    """How the texts of one side are written: shares of all texts that begin with a capital, are all capitals, have none
    though they have letters of two cases, end with a mark of a sentence, and have space before such a mark."""

    begins_with_capital: float
    all_capitals: float
    no_capitals: float
    ends_with_mark: float
    spaced_marks: float

    @staticmethod
    def of(characters: Characters, texts: Sequence[str]) -> Profile:
        """Counted over all texts."""
        upper = characters.each(characters.table(lambda character: character.isupper()))
        lower = characters.each(characters.table(lambda character: character.islower()))
        total = max(1, len(texts))
        return Profile(
            begins_with_capital=sum(text[:1].isupper() for text in texts) / total,
            all_capitals=float(((upper > 1) & (lower == 0)).mean()) if len(texts) else 0.0,
            no_capitals=float(((upper == 0) & (lower > 0)).mean()) if len(texts) else 0.0,
            ends_with_mark=sum(text.rstrip()[-1:] in ENDS for text in texts) / total,
            spaced_marks=sum(" ." in text or " ," in text or " ?" in text for text in texts) / total,
        )


ENDS = frozenset(".!?…。！？।؟")
