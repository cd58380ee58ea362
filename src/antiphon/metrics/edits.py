"""Metrics that compare whole sequences: edit rates (WER, CER, PER), exact match and token accuracy.

Careful with "WER": in speech it is the edit rate over words, here `wer`; in grapheme-to-phoneme conversion it is the
share of words that are not entirely right, here `error`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from antiphon.metrics.base import Stats


@dataclass(frozen=True)
class EditRate:
    """Insertions, deletions and substitutions a reference unit, per cent, against the nearest reference.

    The nearest reference is the one with the fewest edits, of several the longest. Above 100 when the
    hypotheses are much too long. Where all references are empty: 0 if nothing was written, else 100.
    """

    name: str
    unit: str
    cut: Callable[[str], Sequence[str]]
    higher_is_better: bool = False

    @property
    def signature(self) -> str:
        """The unit that is counted."""
        return f"unit:{self.unit}|case:mixed|refs:nearest|version:1"

    def stats(self, hypothesis: str, references: Sequence[str]) -> Stats:
        """`[edits, reference units]` of the nearest reference."""
        found = self.cut(hypothesis)
        cuts = [self.cut(reference) for reference in references]
        edits, length = min((Levenshtein.distance(found, cut), -len(cut)) for cut in cuts)
        return np.array([edits, -length], dtype=np.float64)

    def score(self, stats: Stats) -> float:
        """100 x edits / reference units."""
        edits, length = stats.tolist()
        if length:
            return float(100.0 * edits / length)
        return 100.0 if edits else 0.0

    def sentence(self, stats: Stats) -> float:
        """The edit rate of one sentence."""
        return self.score(stats)


def wer(name: str = "wer") -> EditRate:
    """Word error rate as in speech recognition; words are what white space separates."""
    return EditRate(name, "word", str.split)


def cer(name: str = "cer") -> EditRate:
    """Character error rate: Unicode code points, inner spaces included."""
    return EditRate(name, "character", str.strip)


def per(name: str = "per") -> EditRate:
    """Phoneme error rate; phonemes are what white space separates."""
    return EditRate(name, "phoneme", str.split)


@dataclass(frozen=True)
class Exact:
    """Per cent of the hypotheses that equal one of their references; runs of white space count as one space.

    With `error` the complement, the sequence error rate: what grapheme-to-phoneme work calls WER.
    """

    name: str
    error: bool = False

    @property
    def higher_is_better(self) -> bool:
        """False for the error rate."""
        return not self.error

    @property
    def signature(self) -> str:
        """What counts as equal."""
        return f"unit:sequence|case:mixed|space:collapsed|refs:any|count:{'wrong' if self.error else 'right'}|version:1"

    def stats(self, hypothesis: str, references: Sequence[str]) -> Stats:
        """`[1 where it counts, 1]`."""
        right = any(hypothesis.split() == reference.split() for reference in references)
        return np.array([right != self.error, 1.0])

    def score(self, stats: Stats) -> float:
        """The share, 0 to 100."""
        return float(100.0 * stats[0] / stats[1])

    def sentence(self, stats: Stats) -> float:
        """0 or 100."""
        return self.score(stats)


@dataclass(frozen=True)
class MacroF1:
    """The mean over classes of F1, 2 x right / (said + meant), per cent: rare classes count as much as frequent ones.

    The classes are those of the references, so that two systems are judged over the same ones; any other answer is
    wrong. A class that a resample neither says nor means does not count there. Among several references the answer's
    own counts as meant, else the first.
    """

    name: str
    classes: tuple[str, ...] = ()
    higher_is_better: bool = True

    @property
    def signature(self) -> str:
        """What is averaged."""
        return "unit:class|average:macro|classes:references|case:mixed|space:collapsed|version:1"

    def over(self, references: Sequence[Sequence[str]]) -> MacroF1:
        """The metric over the classes of these references."""
        found = {" ".join(reference.split()) for each in references for reference in each}
        return MacroF1(self.name, tuple(sorted(found)))

    def stats(self, hypothesis: str, references: Sequence[str]) -> Stats:
        """`[3 * classes]`: by class whether it is said rightly, said, and meant."""
        classes = self.classes or self.over([references]).classes
        said, meant = " ".join(hypothesis.split()), [" ".join(reference.split()) for reference in references]
        right = said if said in meant else meant[0]
        counts = np.zeros((3, len(classes)))
        if said in classes:
            counts[:2, classes.index(said)] = float(said == right), 1.0
        counts[2, classes.index(right)] = 1.0
        return counts.reshape(-1)

    def score(self, stats: Stats) -> float:
        """The mean, 0 to 100."""
        right, said, meant = stats.reshape(3, -1)
        known = said + meant > 0
        return float(100.0 * (2 * right[known] / (said + meant)[known]).mean()) if known.any() else 0.0

    def sentence(self, stats: Stats) -> float:
        """0 or 100."""
        return 100.0 * float(stats.reshape(3, -1)[0].any())


@dataclass(frozen=True)
class TokenAccuracy:
    """Per cent of positions that hold the same token as the best reference; surplus and missing tokens are wrong.

    For outputs aligned by position, such as tags. Tokens are what white space separates.
    """

    name: str = "token_accuracy"
    higher_is_better: bool = True

    @property
    def signature(self) -> str:
        """What is compared."""
        return "unit:position|case:mixed|refs:best|version:1"

    def stats(self, hypothesis: str, references: Sequence[str]) -> Stats:
        """`[equal positions, positions of the longer of both]` of the best reference."""
        found = hypothesis.split()
        counts = [_positions(found, reference.split()) for reference in references]
        return np.array(max(counts, key=lambda count: count[0] / count[1] if count[1] else 1.0))

    def score(self, stats: Stats) -> float:
        """The share, 0 to 100; nothing expected and nothing written is 100."""
        return float(100.0 * stats[0] / stats[1]) if stats[1] else 100.0

    def sentence(self, stats: Stats) -> float:
        """The accuracy of one sentence."""
        return self.score(stats)


def _positions(first: list[str], second: list[str]) -> tuple[float, float]:
    equal = sum(one == other for one, other in zip(first, second, strict=False))
    return float(equal), float(max(len(first), len(second)))
