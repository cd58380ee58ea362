"""Metrics of variety among the outputs themselves: distinct n-grams and self-BLEU."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics.bleu import BLEU

from antiphon.metrics.words import units


@dataclass(frozen=True)
class Distinct:
    """Distinct-n (Li et al. 2016): different n-grams as a percentage of all n-grams of all outputs.

    It falls as the outputs grow in number, so compare systems on the same inputs only. No n-gram at all gives 0.
    """

    name: str
    order: int
    higher_is_better: bool = True

    @property
    def signature(self) -> str:
        """What is counted."""
        return f"unit:word|n:{self.order}|case:mixed|pool:corpus|version:1"

    def whole(self, hypotheses: Sequence[str]) -> float:
        """Distinct-n of all outputs together, 0 to 100."""
        seen: set[tuple[str, ...]] = set()
        total = 0
        for hypothesis in hypotheses:
            grams = _grams(units(hypothesis), self.order)
            seen.update(grams)
            total += len(grams)
        return 100.0 * len(seen) / total if total else 0.0


@dataclass(frozen=True)
class SelfBleu:
    """Self-BLEU (Zhu et al. 2018): the mean BLEU of each output against all the others; high means monotonous.

    Time grows with the number of n-grams, not with the square of the number of outputs. Below two outputs it is 0.
    """

    name: str
    tokenizer: str
    counter: Any
    higher_is_better: bool = False

    @property
    def signature(self) -> str:
        """How BLEU is counted."""
        return f"case:mixed|eff:yes|tok:{self.tokenizer}|smooth:exp|refs:others|pool:corpus|version:1"

    def whole(self, hypotheses: Sequence[str]) -> float:
        """The mean over outputs, 0 to 100."""
        if len(hypotheses) < 2:
            return 0.0
        sentences = [self.counter._preprocess_segment(hypothesis).split() for hypothesis in hypotheses]
        counts = [Counter(gram for n in range(1, 5) for gram in _grams(tokens, n)) for tokens in sentences]
        highest = _two_highest(counts)
        lengths = sorted(len(tokens) for tokens in sentences)
        values = [
            self._one(len(tokens), own, highest, _closest(len(tokens), lengths))
            for tokens, own in zip(sentences, counts, strict=True)
        ]
        return sum(values) / len(values)

    def _one(self, length: int, own: Counter[tuple[str, ...]], highest: _Highest, reference_length: int) -> float:
        correct, total = [0] * 4, [0] * 4
        for gram, count in own.items():
            first, second = highest[gram]
            others = second if count == first else first
            correct[len(gram) - 1] += min(count, others)
            total[len(gram) - 1] += count
        score = self.counter.compute_bleu(
            correct, total, length, reference_length, smooth_method="exp", effective_order=True
        )
        return float(score.score)


def self_bleu(name: str = "self_bleu", *, tokenize: str = "13a") -> SelfBleu:
    """Self-BLEU with one of BLEU's tokenizers."""
    return SelfBleu(name, tokenize, BLEU(tokenize=tokenize, force=True))


_Highest = dict[tuple[str, ...], tuple[int, int]]


def _grams(tokens: list[str], order: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + order]) for start in range(len(tokens) - order + 1)]


def _two_highest(counts: list[Counter[tuple[str, ...]]]) -> _Highest:
    """The highest and second highest count of each n-gram in any one output: without its owner, the second is left."""
    highest: _Highest = {}
    for own in counts:
        for gram, count in own.items():
            first, second = highest.get(gram, (0, 0))
            highest[gram] = (max(first, count), max(second, min(first, count)))
    return highest


def _closest(length: int, lengths: list[int]) -> int:
    """The closest length among the others, the shorter of two; `lengths` is sorted and has the own one in it."""
    place = bisect.bisect_left(lengths, length)
    neighbours = lengths[max(place - 1, 0) : place] + lengths[place + 1 : place + 2]
    return min(neighbours, key=lambda other: (abs(other - length), other))
