"""A run's model on pairs: scores with intervals, where it errs, its best and worst answers, and where it looked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from antiphon.core.errors import AntiphonError
from antiphon.data.corpus import Corpus, Pair, group_references, open_pairs
from antiphon.diagnosis.report.reading import Run
from antiphon.inference.breakdown import Worst, best_answers
from antiphon.inference.bundle import load
from antiphon.inference.evaluate import Evaluation, compare, evaluate, of_numbers
from antiphon.inference.predictor import Predictor, as_trained
from antiphon.metrics import scoring
from antiphon.metrics.base import Metric, Pooled
from antiphon.metrics.significance import Comparison
from antiphon.metrics.words import units
from antiphon.training.sources import ALIKE, Sources

PAIRS, COUNTED = 1000, 200_000
"""Pairs that are answered where nobody says how many, and training targets whose words are counted."""
MAPS, LONGEST = 4, 24
"""Attention maps that are drawn, and the most tokens of a side of one."""


@dataclass(frozen=True)
class Look:
    """Where a model looked: weights `[T, S]` of an answer's tokens on its source's."""

    source: list[str]
    answer: list[str]
    weights_TS: np.ndarray


@dataclass(frozen=True)
class Judged:
    """A model on pairs; `why` says why there is nothing where the model or its data are not here."""

    evaluation: Evaluation | None = None
    best: tuple[Worst, ...] = ()
    looks: tuple[Look, ...] = ()
    parameters: int = 0
    why: str = ""


@dataclass(frozen=True)
class Judgement:
    """All runs on the same pairs of `data`, and tests of each later one against the first."""

    data: str
    pairs: int
    of: int
    judged: list[Judged]
    tests: list[list[Comparison]]
    learned: int = 0
    """Pairs that were left out, since another of the runs learned from them."""

    @property
    def about(self) -> str:
        """Which pairs, in words."""
        some = f"{self.pairs:,} of {self.of:,}" if self.pairs < self.of else f"{self.pairs:,}"
        without = f", without {self.learned:,} that another of the runs learned from" if self.learned else ""
        return f"{some} {self.data}{', evenly spread' if self.pairs < self.of else ''}{without}"


def judge(runs: Sequence[Run], data: str | None = None, most: int = PAIRS) -> Judgement:
    """Answer the same pairs with the model of each run: those of `data`, else the first run's validation pairs.

    At most `most` of them, spread evenly; with 0 nothing is answered.
    """
    if not most:
        return Judgement("", 0, 0, [Judged(why="nothing was answered, as you asked") for _ in runs], [])
    try:
        corpus, train = _opened(runs[0], data, [name for run in runs for name in run.config.data.context])
        pairs = group_references(corpus)
        known = learned(runs, pairs) if data is None else set()
    except AntiphonError as error:
        if data is not None:
            raise
        return Judgement("", 0, 0, [Judged(why=f"the pairs of the run cannot be read: {error}") for _ in runs], [])
    fresh = [pair for pair in pairs if pair.source not in known]
    if not fresh:
        why = "the other runs learned from all validation pairs of the first: give pairs with --data"
        return Judgement("", 0, 0, [Judged(why=why) for _ in runs], [])
    left, pairs = len(pairs) - len(fresh), fresh
    some = pairs[:: max(1, -(-len(pairs) // most))]
    frequencies = _frequencies(train)
    judged = [_judged(run, some, frequencies) for run in runs]
    name = f"pairs of {data}" if data else "validation pairs"
    tests = [_tests(judged[0], each) for each in judged[1:]]
    return Judgement(name, len(some), len(pairs), judged, tests, left)


def learned(runs: Sequence[Run], pairs: Sequence[Pair]) -> set[str]:
    """Sources of the first run's held-out pairs that are among the training pairs of another, and not of its own."""

    def parts(run: Run) -> tuple[Any, ...]:
        seed = None if ALIKE in run.facts else run.config.training.seed
        return run.facts.get("train"), run.facts.get("held_out"), run.config.data.valid, seed

    def of(run: Run) -> set[str]:
        with suppress(AntiphonError, OSError):
            train = Sources.recall(run.path, run.facts).open(run.config)[0]  # changed ones are mostly what they were
            return {pair.source for pair in train} & asked
        return set()

    asked = {pair.source for pair in pairs}
    known = [of(run) for run in runs[1:] if parts(run) != parts(runs[0])]
    return set().union(*known) - of(runs[0]) if any(known) else set()


def _opened(run: Run, data: str | None, context: Sequence[str]) -> tuple[Corpus, Corpus | None]:
    """The pairs to answer, with the columns that any model reads, and those of training where they are still there."""
    read = run.config.data
    if read.columns:
        read = replace(read, context=tuple(dict.fromkeys(context)))
    if data is None:
        train, valid = Sources.unchanged(run.path, run.facts, run.config).open(replace(run.config, data=read))
        return valid, train
    train_part = None
    with suppress(AntiphonError, OSError):
        train_part = Sources.unchanged(run.path, run.facts, run.config).open(run.config)[0]
    return open_pairs(data, read), train_part


def _frequencies(train: Corpus | None) -> dict[str, int] | None:
    """How often words occur in the training targets; None where these are gone."""
    if train is None:
        return None
    counted: Counter[str] = Counter()
    with suppress(AntiphonError, OSError):
        for number, pair in enumerate(train):
            if number == COUNTED:
                break
            counted.update(units(pair.target))
    return dict(counted) or None


def _judged(run: Run, pairs: Sequence[Pair], frequencies: dict[str, int] | None) -> Judged:
    try:
        predictor = as_trained(load(run.path), run.config)
    except AntiphonError as error:
        there = (run.path / "best").exists()
        return Judged(why=f"{'its model cannot be opened' if there else 'the run has no model yet'}: {error}")
    try:
        found = evaluate(predictor, pairs, frequencies=frequencies)
    except AntiphonError as error:
        return Judged(why=f"its model cannot answer these pairs: {error}")
    metrics = [metric for name in found.tables if name and (metric := _metric(name)) is not None]
    best = best_answers(metrics, found.tables, pairs, found.answers) if metrics else []
    size = sum(weights.numel() for model in predictor.models for weights in model.parameters())
    looks = [] if of_numbers(run.config) else list(_looks(predictor, pairs, found.answers))
    return Judged(found, tuple(best), tuple(looks), size)


def _metric(name: str) -> Metric | None:
    with suppress(AntiphonError):
        found = scoring.get(name)
        return None if isinstance(found, Pooled) else found
    return None


def _looks(predictor: Predictor, pairs: Sequence[Pair], answers: Sequence[str]) -> Iterator[Look]:
    """Where the model looked at a few sources of middling length."""
    lengths = [len(answer) for answer in answers]
    order = sorted(range(len(pairs)), key=lambda row: abs(lengths[row] - np.median(lengths)))
    looked = 0
    for [answer, *_] in predictor.predict([pairs[row] for row in order[: 4 * MAPS]]):
        weights_TS = np.asarray(answer.weights)
        fits = 1 < len(answer.source_tokens) <= LONGEST and 1 < len(answer.tokens) <= LONGEST
        if fits and weights_TS.ndim == 2 and weights_TS.shape[0] >= len(answer.tokens) and weights_TS.any():
            yield Look(list(answer.source_tokens), list(answer.tokens), weights_TS[: len(answer.tokens)])
            looked += 1
        if looked == MAPS:
            return


def _tests(first: Judged, other: Judged) -> list[Comparison]:
    if first.evaluation is None or other.evaluation is None:
        return []
    return compare(first.evaluation, other.evaluation)
