"""Metrics that count n-grams shared with references: BLEU, chrF and TER by sacrebleu, ROUGE by rouge-score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from antiphon.core.errors import require
from antiphon.metrics.base import Stats
from antiphon.metrics.words import sentences, words

BLEU_TOKENIZERS = ("13a", "char", "zh", "none", "intl")


@dataclass(frozen=True)
class Sacre:
    """A metric of sacrebleu; on a corpus it equals sacrebleu's own score to the last bit (Post 2018).

    `counter` scores corpora, `single` one sentence (for BLEU the two differ: one sentence has often no 4-gram at all).
    """

    name: str
    higher_is_better: bool
    counter: Any
    single: Any

    @property
    def signature(self) -> str:
        """sacrebleu's signature without the number of references, which a corpus adds."""
        self.counter.num_refs = 1
        order = getattr(self.counter, "max_ngram_order", 4)  # of BLEU, whose signature leaves it out
        return ("" if order == 4 else f"n:{order}|") + str(self.counter.get_signature()).removeprefix("nrefs:1|")

    def stats(self, hypothesis: str, references: Sequence[str]) -> Stats:
        """sacrebleu's counts `[K]` of one sentence."""
        rows = self.counter._extract_corpus_statistics([hypothesis], [[reference] for reference in references])
        return np.array(rows[0], dtype=np.float64)

    def score(self, stats: Stats) -> float:
        """The score of summed counts, 0 to 100 (TER may be above)."""
        return float(self.counter._compute_score_from_stats(stats.tolist()).score)

    def sentence(self, stats: Stats) -> float:
        """The score of one sentence; BLEU uses only the n-gram orders that the sentence has."""
        return float(self.single._compute_score_from_stats(stats.tolist()).score)


def bleu(name: str, *, tokenize: str = "13a", lowercase: bool = False, most: int = 4) -> Sacre:
    """BLEU (Papineni et al. 2002) up to n-grams of length `most`, smoothed as mteval does."""
    plain, single = (
        BLEU(lowercase=lowercase, tokenize=tokenize, force=True, effective_order=order, max_ngram_order=most)
        for order in (False, True)
    )
    return Sacre(name, True, plain, single)


def chrf(name: str, *, lowercase: bool = False, word_order: int = 0) -> Sacre:
    """chrF2 (Popović 2015) on characters, or chrF++ (Popović 2017) with `word_order` 2."""
    counter = CHRF(lowercase=lowercase, word_order=word_order)
    return Sacre(name, True, counter, counter)


def ter(name: str, *, cased: bool = False) -> Sacre:
    """Translation edit rate (Snover et al. 2006): edits and shifts a reference word, per cent."""
    counter = TER(case_sensitive=cased)
    return Sacre(name, False, counter, counter)


class Words:
    """The tokenizer given to rouge-score, whose own one drops every letter outside a-z."""

    def __init__(self, stem: bool) -> None:
        self.stemmer = None
        if stem:
            from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

            self.stemmer = PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words; with a stemmer those of more than three letters lose their suffixes."""
        found = words(text)
        if self.stemmer is None:
            return found
        return [self.stemmer.stem(word) if len(word) > 3 else word for word in found]


@dataclass(frozen=True)
class Rouge:
    """ROUGE-1, -2, -L or -Lsum (Lin 2004): the mean over answers of F1 against the best reference, 0 to 100.

    ROUGE-L wants the words in the order of the whole reference; ROUGE-Lsum compares sentence with sentence, in any
    order of these. Papers on summaries mean the latter as a rule, with stems.
    """

    name: str
    kind: str
    stem: bool
    scorer: Any
    higher_is_better: bool = True

    @property
    def signature(self) -> str:
        """Tokenizer and stemmer."""
        return f"case:lc|tok:unicode|stem:{'porter' if self.stem else 'no'}|refs:best|version:rouge-score-0.1"

    def stats(self, hypothesis: str, references: Sequence[str]) -> Stats:
        """`[F1, precision, recall, 1]` against the reference of the highest F1."""
        texts = [hypothesis, *references]
        if self.kind == "rougeLsum":
            texts = ["\n".join(sentences(text)) for text in texts]
        best = self.scorer.score_multi(texts[1:], texts[0])[self.kind]
        return np.array([best.fmeasure, best.precision, best.recall, 1.0])

    def score(self, stats: Stats) -> float:
        """The mean F1."""
        return float(100.0 * stats[0] / stats[3])

    def sentence(self, stats: Stats) -> float:
        """F1 of one sentence."""
        return self.score(stats)


def rouge(name: str, kind: str, *, stem: bool = False) -> Rouge:
    """ROUGE of a kind, `rouge1`, `rouge2`, `rougeL` or `rougeLsum`; needs the extra `rouge`."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise require("rouge", "rouge-score") from None
    return Rouge(name, kind, stem, RougeScorer([kind], tokenizer=Words(stem)))
