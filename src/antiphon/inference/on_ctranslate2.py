"""CTranslate2 as an engine: Transformers of text, alone, by greedy search or a beam that stays full."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from antiphon.core.config import Decoding
from antiphon.core.errors import BundleError
from antiphon.core.marks import BOS, EOS, PAD
from antiphon.inference.ctranslate2_model import MODEL, SHORTLIST, check_model, described, positions
from antiphon.inference.hypothesis import BEAM, Hypothesis, check

if TYPE_CHECKING:
    from antiphon.inference.bundle import Bundle
    from antiphon.inference.engines import Asked

FOLDER, EXTRA, PACKAGE, NAME = "ctranslate2", "fast", "ctranslate2", "CTranslate2"
BATCH = 32
"""Sentences that a worker takes at once: fewer leave products small, with more they fall out of the cache."""
END, MARKS = str(EOS), frozenset({str(PAD), str(BOS)})
"""The end mark, and what no answer holds, as CTranslate2 spells them."""
NOWHERE = np.zeros((0, 0), np.float32)
"""The weights of a hypothesis that nobody asked for."""
TINY = 1e-30
"""A length penalty that is none; with 0 its search would end when the first hypothesis of its beam has."""


_Given = tuple["Asked", Hypothesis]


def present() -> bool:
    """Whether the package is installed."""
    return find_spec(PACKAGE) is not None


def open_files(files: Mapping[str, bytes], bundle: Bundle, workers: int) -> CTranslate2:
    """The engine of an exported model, with so many workers of one thread; `BundleError` for what does not fit it."""
    precision = check_model(files, bundle.config, bundle.task)
    fit = {name: content for name, content in files.items() if name in (MODEL, SHORTLIST)}
    # Its own choice leaves AVX-512 out. It is read when the package is first imported.
    if has_avx512():
        os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")
    import ctranslate2

    try:
        translator = ctranslate2.Translator(
            str(bundle.path), device="cpu", inter_threads=workers, intra_threads=1,
            files={**fit, **described(bundle.config, bundle.task)},
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise BundleError(f"CTranslate2 cannot read it: {error}", where=bundle.path) from None
    return CTranslate2(translator, bundle, precision, SHORTLIST in files)


def has_avx512(about: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has the instructions that CTranslate2 means by AVX512."""
    with suppress(OSError):
        flags = re.search(r"^flags\s*:(.*)$", about.read_text(), re.MULTILINE)
        return flags is not None and {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= set(
            flags[1].split()
        )
    return False


class CTranslate2:
    """Answers by one network. Whatever would come out otherwise than in PyTorch, it does not do.

    Its beam is that of `decoding.refill`: a hypothesis that has ended makes room for the next best.
    """

    whole = True

    def __init__(self, translator: Any, bundle: Bundle, precision: str, shortlist: bool) -> None:
        self.translator, self.shortlist = translator, shortlist
        self.source_limit, self.target_limit = positions(bundle.config, bundle.task)
        self.name = f"{NAME} {precision}" + (" with a shortlist" if shortlist else "")
        size = max(bundle.task.source.size, bundle.task.target.size)
        self.words = [str(number) for number in range(size)]

    def lacks(self, settings: Decoding, asked: Asked) -> str:
        """What of this it cannot do, or would do otherwise: it makes probabilities sum to one again after a rule."""
        constraint, length = asked.constraint, len(asked.source.ids)
        if constraint.required or constraint.banned:
            return "required words" if constraint.required else "banned words"
        if constraint.prefix and (settings.beam or BEAM) > 1:
            return "a prefix with a beam"
        if length > self.source_limit:
            return f"a source of {length:,} tokens"
        if asked.limit >= self.target_limit:
            return f"an answer of {asked.limit:,} tokens"
        return lacking(settings)

    def search(
        self, asked: Sequence[Asked], settings: Decoding, *, batch_size: int, details: bool
    ) -> list[list[Hypothesis]]:
        """The `n_best` best hypotheses of each input, best first."""
        check(settings)
        call = _Call(settings.beam or BEAM, settings.penalty)
        told = self._told(asked, call, max(each.limit for each in asked))
        marked = [place for place, mine in enumerate(told) if any(not MARKS.isdisjoint(one.words) for one in mine)]
        self._again(asked, told, marked, replace(call, suppress=True))
        if call.beam > 1:  # where the limit came first, what was found is not what a search up to it finds, or not all
            late = [place for place, (each, mine) in enumerate(zip(asked, told, strict=True))
                    if any(len(one.words) > each.limit for one in mine)]  # fmt: skip
            self._again(asked, told, sorted({*late} - {*marked}), replace(call, patience=2))
            self._again(asked, told, sorted({*late} & {*marked}), replace(call, patience=2, suppress=True))
        return self._ranked(asked, told, settings, details)

    def _again(self, asked: Sequence[Asked], told: list[list[_Told]], places: Sequence[int], call: _Call) -> None:
        """Searches once more for these, each up to its own limit."""
        limits = defaultdict(list)
        for place in places:
            limits[asked[place].limit].append(place)
        for limit, mine in limits.items():
            found = self._told([asked[place] for place in mine], call, limit)
            for place, each in zip(mine, found, strict=True):
                told[place] = each

    def _told(self, asked: Sequence[Asked], call: _Call, limit: int) -> list[list[_Told]]:
        """What CTranslate2 finds with `limit` tokens and an end mark: of a beam all, for its order is not ours."""
        prefixes = [self._spelled(each.constraint.prefix) for each in asked]
        results = self.translator.translate_batch(
            [self._spelled(each.source.ids) for each in asked],
            prefixes if any(prefixes) else None,
            beam_size=call.beam,
            patience=call.patience,
            num_hypotheses=call.beam * call.patience,
            length_penalty=call.length_penalty or TINY,
            max_batch_size=BATCH // 4 if self.shortlist else BATCH,  # whose words all answers of a batch may hold
            max_input_length=0,
            min_decoding_length=0,
            max_decoding_length=limit + 1,
            return_scores=True,
            return_end_token=True,
            use_vmap=self.shortlist,
            suppress_sequences=[[str(PAD)], [str(BOS)]] if call.suppress else None,
        )
        return [
            [
                _Told(words, score * len(words) ** (call.length_penalty or TINY))
                for words, score in zip(result.hypotheses, result.scores, strict=True)
            ]
            for result in results
        ]

    def _spelled(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        return [self.words[number] for number in ids]

    def _ranked(
        self, asked: Sequence[Asked], told: list[list[_Told]], settings: Decoding, details: bool
    ) -> list[list[Hypothesis]]:
        """Finished hypotheses before others, each once, by score. What was cut, or begins with a prefix, gets its score
        from a pass of its own, and with `details` all that are returned get their log probabilities and weights."""
        found = [_distinct(mine, each.limit, settings) for each, mine in zip(asked, told, strict=True)]
        unsure = [
            (each, mine, place)
            for each, mine in zip(asked, found, strict=True)
            for place, one in enumerate(mine)
            if not one.finished or each.constraint.prefix
        ]
        log_probs = self._log_probs([(each, mine[place]) for each, mine, place in unsure])
        for (_, mine, place), values in zip(unsure, log_probs, strict=True):
            score = sum(values) / max(1, len(values)) ** settings.penalty
            mine[place] = replace(mine[place], score=score, total=sum(values))
        found = [sorted(mine, key=lambda one: (-one.finished, -one.score))[: settings.n_best] for mine in found]
        return self._detailed(asked, found) if details else found

    def _detailed(self, asked: Sequence[Asked], found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
        """The same, with the log probability of each token and where it looked."""
        flat = [(each, one) for each, mine in zip(asked, found, strict=True) for one in mine]
        told = iter([replace(one, log_probs=log_probs, weights=weights, total=None) for (_, one), log_probs, weights in
                     zip(flat, self._log_probs(flat), self._weights(flat), strict=True)])  # fmt: skip
        return [[next(told) for _ in mine] for mine in found]

    def _log_probs(self, given: Sequence[_Given]) -> list[list[float]]:
        """Of the tokens of each answer, and of the end mark where it has one."""
        if not given:
            return []
        results = self.translator.score_batch(
            *self._both(given), max_batch_size=BATCH, max_input_length=0
        )  # fmt: skip
        return [result.log_probs[: len(one.tokens) + one.finished]
                for (_, one), result in zip(given, results, strict=True)]  # fmt: skip

    def _weights(self, given: Sequence[_Given]) -> list[np.ndarray]:
        """Where each answer looked, `[T, S]`, from saying it again: what comes out of the search is wrong at the first
        step of a beam, where it has the weights of another sentence."""
        if not given:
            return []
        results = self.translator.translate_batch(
            *self._both(given),
            beam_size=1,
            max_batch_size=BATCH,
            max_input_length=0,
            min_decoding_length=0,
            max_decoding_length=max(len(one.tokens) for _, one in given) + 1,
            return_end_token=True,
            return_attention=True,
        )
        return [
            np.array(looks[: len(one.tokens) + one.finished], np.float32).reshape(-1, len(each.source.ids))
            for (each, one), result in zip(given, results, strict=True)
            for looks in result.attention
        ]

    def _both(self, given: Sequence[_Given]) -> tuple[list[list[str]], list[list[str]]]:
        """Sources and answers as CTranslate2 wants them."""
        return [self._spelled(each.source.ids) for each, _ in given], [self._spelled(one.tokens) for _, one in given]


@dataclass(frozen=True)
class _Call:
    """How CTranslate2 is to search."""

    beam: int
    length_penalty: float
    patience: int = 1
    """2 where the limit comes before as many have ended as the beam is wide: those cut may make them twice as many."""
    suppress: bool = False
    """Never to say what no answer holds, which changes probabilities a little."""


@dataclass(frozen=True)
class _Told:
    """A hypothesis as CTranslate2 tells it: tokens, with the end mark where it came to that, and their chance."""

    words: list[str]
    total: float

    def ended(self, limit: int) -> bool:
        """Whether the end mark came within the limit."""
        return self.words[-1:] == [END] and len(self.words) <= limit + 1

    def cut(self, limit: int, length_penalty: float) -> Hypothesis:
        """Without the end mark, or, where there is none within the limit, without what goes over that."""
        finished = self.ended(limit)
        tokens = list(map(int, self.words[:-1] if finished else self.words[:limit]))
        score = self.total / len(self.words) ** length_penalty
        return Hypothesis(tokens, score, [], NOWHERE, finished, total=self.total)


def _distinct(told: Sequence[_Told], limit: int, settings: Decoding) -> list[Hypothesis]:
    """Those that are still different where they were cut; of a search that was not cut, the best, which come first."""
    if all(one.ended(limit) for one in told):
        return [one.cut(limit, settings.penalty) for one in told[: settings.n_best]]
    cut = [one.cut(limit, settings.penalty) for one in told]
    return list({(tuple(one.tokens), one.finished): one for one in cut[::-1]}.values())[::-1]


@cache
def lacking(settings: Decoding) -> str:
    """The first of the settings that would come out otherwise than in PyTorch; nothing where none would."""
    wrong = {
        "decoding.sample": settings.sample,
        "decoding.groups": settings.groups > 1,
        "decoding.coverage_penalty": bool(settings.coverage_penalty),
        "decoding.ctc": bool(settings.ctc),
        "decoding.no_repeat": bool(settings.no_repeat),
        "decoding.min_length": bool(settings.min_length),
        "a beam with decoding.refill=false": (settings.beam or BEAM) > 1 and not settings.refill,
    }
    return next((name for name, found in wrong.items() if found), "")
