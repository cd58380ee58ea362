"""How good a model is on pairs: scores with intervals, where it is weak, and which of two is better."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from antiphon.core.config import Config, Decoding
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.numbers import Forecast
from antiphon.data.arrays import read_numbers
from antiphon.data.batching import Example, collate
from antiphon.data.corpus import Pair, Report
from antiphon.data.knowledge import Fact
from antiphon.data.modalities import TooLong
from antiphon.inference import tasks
from antiphon.inference.breakdown import Bucket, Group, Worst, by_frequency, by_group, by_length, worst_answers
from antiphon.inference.confidence import Calibration, Trust, judge, quality, trust
from antiphon.inference.forced import LIKELIHOODS, Likelihood, forced_rows, likelihoods
from antiphon.inference.knowing import COVERAGES, by_entities, coverage
from antiphon.metrics import scoring
from antiphon.metrics.base import Metric, Pooled, Score, Stats, Summed
from antiphon.metrics.forecasts import OfNumbers
from antiphon.metrics.significance import Comparison, paired, paired_pooled
from antiphon.models.seq2seq import Seq2Seq

_BATCH = 32  # pairs scored at once
CHINESE = 0.01, 0.2
"""Shares of the letters of references beyond which some, and most, are Chinese."""


class Answered(Protocol):
    """What is needed of an answer."""

    @property
    def text(self) -> str:
        """The answer as text."""

    @property
    def source_tokens(self) -> Sequence[str]:
        """The source as the model read it."""

    @property
    def probability(self) -> float:
        """The geometric mean of its token probabilities."""

    @property
    def abstained(self) -> bool:
        """Whether there is no text because confidence was too small."""

    @property
    def confidence(self) -> float | None:
        """What that says of its worth, where the model was calibrated."""

    @property
    def forecast(self) -> Forecast | None:
        """The answer as numbers, of a model of these."""


class Encoding(Protocol):
    """What is needed of a task."""

    @property
    def knowledge(self) -> str:
        """How facts are read; `none` where they are not."""

    @property
    def find(self) -> Callable[[Pair], list[Fact]]:
        """What gives a pair its facts."""

    @property
    def entities(self) -> frozenset[int] | None:
        """Fingerprints of the entities of training, where these are known."""

    def encode(self, pair: Pair, *, report: Report | None = None) -> Example:
        """The pair as ids; counts in `report` what was cut."""


class Answering(Protocol):
    """What is needed of a predictor."""

    @property
    def models(self) -> Sequence[Seq2Seq]:
        """One model, or an ensemble."""

    @property
    def task(self) -> Encoding:
        """What turns pairs into batches."""

    @property
    def config(self) -> Config:
        """What the model was trained with."""

    @property
    def calibration(self) -> Calibration | None:
        """What gives its answers confidence, if anything does."""

    @property
    def report(self) -> Report:
        """What was odd in the latest pass of `predict`."""

    def predict(self, inputs: Iterable[Pair], *, settings: Decoding | None = None) -> Iterator[Sequence[Answered]]:
        """The answers to each input, best first, in order."""


@dataclass(frozen=True)
class Evaluation:
    """All that was found out about one system on one set of pairs.

    `data` is the sha256 of the pairs; `counted` says what the frequencies of `by_frequency` were counted in;
    `by_entities` is empty where the model reads no facts or does not know which ones it was taught; `notes` are what
    was cut, left out or otherwise unusual.
    `answers` and `tables` (statistics of each sentence by metric) serve `compare`.
    """

    scores: dict[str, Score]
    by_length: list[Bucket]
    by_frequency: list[Bucket]
    counted: str
    by_entities: list[Bucket]
    worst: list[Worst]
    data: str
    decoding: dict[str, Any]
    notes: list[str]
    answers: list[str] = field(repr=False)
    tables: dict[str, Stats] = field(repr=False, compare=False)
    confidence: Trust | None = None
    by_group: list[Group] = field(default_factory=list)

    def to_json(self, about: Mapping[str, Any] | None = None) -> str:
        """Everything but the answers, as JSON, with `about` (a model's name, a command) in front.

        Numbers that JSON has no word for become null.
        """
        kept = ["scores", "by_length", "by_frequency", "counted", "by_entities", "by_group", "worst", "data"]
        kept += ["decoding", "notes", "confidence"]
        values = {**(about or {}), "sentences": len(self.answers)} | {name: asdict(self)[name] for name in kept}
        return json.dumps(finite(values), ensure_ascii=False, indent=2, allow_nan=False)

    def lines(self) -> list[str]:
        """The same for a terminal."""
        lines = [f"{len(self.answers)} sentences, data {self.data[:12]}", *self.notes]
        lines += [f"{score}  ({score.signature})" for score in self.scores.values()]
        lines += ["", "by length of the source:", *(f"  {each}" for each in self.by_length)]
        if self.by_frequency:
            lines += ["", f"words by frequency in {self.counted}:", *(f"  {each}" for each in self.by_frequency)]
        if self.by_entities:
            lines += ["", "by entities of the facts in training:", *(f"  {each}" for each in self.by_entities)]
        for column in dict.fromkeys(each.column for each in self.by_group):
            lines += ["", f"by {column}:", *(f"  {each}" for each in self.by_group if each.column == column)]
        lines += ["", *self.confidence.lines()] if self.confidence else []
        lines += ["", "worst answers:"]
        for each in self.worst:
            lines += [f"  {each.number}: {each.score:.2f}", f"    source     {each.source}"]
            lines += [f"    answer     {each.answer}", f"    reference  {' | '.join(each.references)}"]
        return lines


def evaluate(
    predictor: Answering,
    pairs: Iterable[Pair],
    metric_names: Sequence[str] | None = None,
    *,
    decoding: Decoding | None = None,
    frequencies: Mapping[str, int] | None = None,
    columns: Sequence[str] | None = None,
    bootstrap: int = 1000,
    seed: int = 1,
) -> Evaluation:
    """Answer every source and score the answers against all references of the pair.

    Without `metric_names`, those that suit the task; `decoding` replaces the predictor's own settings. `frequencies`
    are counts of words in the training targets; without them words are counted in the references. `columns` of the
    context have a score for each value; without them, those that the model reads or was balanced by. Loss, perplexity
    and forced accuracy are left out for ensembles. Pairs are taken as they are: give them grouped where several lines
    of a file are references of one source.
    """
    pairs = list(pairs)
    if not pairs:
        raise DataError("there is nothing to evaluate", got="0 pairs")
    references = [pair.references or (pair.target,) for pair in pairs]
    names = suitable(predictor.config, references, pairs[0].source) if metric_names is None else metric_names
    metrics = [scoring.get(name) for name in dict.fromkeys(names)]
    for metric in metrics:
        check_metric(metric, predictor.config)
    best = [answers[0] for answers in predictor.predict(pairs, settings=decoding)]
    answers = [answer.text for answer in best]
    report, read = Report(), Report()
    report.merge(predictor.report)
    spoken = [said(answer) for answer in best]
    tables = {m.name: scoring.table(m, spoken, references) for m in metrics if not isinstance(m, Pooled)}
    forced = _forced_table(predictor, pairs, read)
    report.join(read)
    scores = _likelihoods(predictor, forced, bootstrap, seed)
    for metric in metrics:
        scores[metric.name] = _score(metric, tables, answers, references, bootstrap, seed)
    additive = [metric for metric in metrics if not isinstance(metric, Pooled)]
    facts = [predictor.task.find(pair) for pair in pairs] if predictor.task.knowledge != "none" else []
    if facts:
        tables |= coverage(facts, answers, references)
        scores |= {
            each.name: scoring.summed(each, tables[each.name], rounds=bootstrap, seed=seed) for each in COVERAGES
        }
    known = predictor.task.entities
    columns = grouping(predictor.config, pairs) if columns is None else columns
    return Evaluation(
        scores=scores,
        by_length=by_length(additive, tables, [len(answer.source_tokens) for answer in best]),
        by_frequency=[] if of_numbers(predictor.config) else by_frequency(answers, references, frequencies),
        counted="these references" if frequencies is None else "the training data",
        by_entities=by_entities([*additive, *COVERAGES], tables, facts, known) if facts and known is not None else [],
        worst=worst_answers(additive, tables, pairs, answers, references),
        data=_fingerprint(pairs, references),
        decoding=asdict(decoding or predictor.config.decoding),
        notes=report.lines(),
        answers=answers,
        tables=tables | {"": forced} if forced is not None else tables,
        confidence=_trust(predictor.calibration, best, references),
        by_group=by_group(additive, tables, pairs, columns, bootstrap, seed),
    )


def _trust(
    calibration: Calibration | None, best: Sequence[Answered], references: Sequence[Sequence[str]]
) -> Trust | None:
    """How confidence did; None where the model has none, or was asked to abstain from answers."""
    read = [(answer, each) for answer, each in zip(best, references, strict=True) if answer.confidence is not None]
    if calibration is None or not read or any(answer.abstained for answer in best):
        return None
    good = quality(judge(calibration.metric), [answer.text for answer, _ in read], [each for _, each in read])
    sure, raw = (np.array([getattr(answer, name) for answer, _ in read]) for name in ("confidence", "probability"))
    return trust(calibration.metric, sure, good, raw)


def suitable(config: Config, references: Sequence[Sequence[str]], source: str) -> list[str]:
    """The metrics of the task, and what training was judged by; BLEU by character for Chinese references, and both
    where some are; and errors by those of a naive forecast for numbers that go on from a source of as many features."""
    names = list(tasks.PRESETS.get(config.task, tasks.TRANSDUCTION).metrics)
    if of_numbers(config):
        read = config.data.source.kind == "numbers" and config.task == tasks.FORECASTING.name
        go_on = read and read_numbers(source).shape[1] >= read_numbers(references[0][0]).shape[1]
        names = ["mase"] * go_on + ["mae", "rmse", "crps"]
    judged = config.training.metric
    if judged is not None and judged not in [*names, *(each.name for each in LIKELIHOODS)]:
        names.insert(0, judged)
    every = max(1, len(references) // 1000)
    letters = "".join(reference for each in references[::every] for reference in each)
    chinese = sum("\u3400" <= letter <= "\u9fff" for letter in letters) / max(1, len(letters))
    kinds = ["bleu:zh"] if chinese > CHINESE[1] else ["bleu", "bleu:zh"] if chinese > CHINESE[0] else ["bleu"]
    return list(dict.fromkeys(each for name in names for each in (kinds if name == "bleu" else [name])))


def of_numbers(config: Config) -> bool:
    """Whether answers are numbers."""
    return config.data.target.kind == "numbers"


def said(answer: Answered) -> str | Forecast:
    """What a metric reads of an answer: its text, or its numbers."""
    return answer.text if answer.forecast is None else answer.forecast


def check_metric(metric: Metric | Pooled, config: Config) -> None:
    """Refuse to judge numbers as if they were text, and text as if it were numbers."""
    if isinstance(metric, OfNumbers) != of_numbers(config):
        kinds = ("numbers", "text") if isinstance(metric, OfNumbers) else ("text", "numbers")
        known = [name for name in scoring.NAMES if (name in scoring.OF_NUMBERS) == of_numbers(config)]
        do = f"take one of {', '.join(known)}"
        raise ConfigError(f"{metric.name} is for {kinds[0]}, and answers are {kinds[1]}", where="metric", do=do)


def grouping(config: Config, pairs: Sequence[Pair]) -> list[str]:
    """The context columns that a model reads or was balanced by, as far as all pairs have them."""
    known = dict.fromkeys((*config.data.context, config.data.balance))
    return [name for name in known if name and all(name in pair.context for pair in pairs)]


def compare(first: Evaluation, second: Evaluation, *, seed: int = 1) -> list[Comparison]:
    """Paired tests of two systems on the same pairs, for every metric that both have.

    Likelihoods are compared only where both models cut the targets into equally many tokens: a loss a token says
    nothing about a model with other tokens.
    """
    if first.data != second.data:
        raise DataError(
            "the systems were evaluated on different pairs", got=f"{first.data[:12]} and {second.data[:12]}"
        )
    results = []
    for name in first.scores:
        if name not in second.scores:
            continue
        metric = _summed(name)
        if isinstance(metric, Pooled):
            results.append(paired_pooled(metric, first.answers, second.answers, seed=seed))
            continue
        key = "" if isinstance(metric, Likelihood) else name
        one, other = first.tables[key], second.tables[key]
        if not key:
            read = (one[:, 1] > 0) & (other[:, 1] > 0)
            one, other = one[read], other[read]
        if key or (len(one) and np.array_equal(one[:, 1], other[:, 1])):
            results.append(paired(metric, one, other, seed=seed))
    return results


def _forced_table(predictor: Answering, pairs: Sequence[Pair], report: Report) -> Stats | None:
    """Statistics of every reference of every pair, in order, zeros for a pair left out; None for an ensemble, or where
    another engine than PyTorch answers."""
    if not predictor.models:
        report.add("loss and perplexity are left out: the engine of an exported model does not tell them")
    if len(predictor.models) != 1:
        return None
    examples = []
    for pair in pairs:
        for reference in pair.references or (pair.target,):
            examples.append(_encoded(predictor.task, Pair(pair.source, reference, context=pair.context), report))
    real = [(row, example) for row, example in enumerate(examples) if example is not None]
    real.sort(key=lambda item: (len(item[1].target), len(item[1].source)))
    chunks = [real[start : start + _BATCH] for start in range(0, len(real), _BATCH)]
    batches = (collate([example for _, example in chunk]) for chunk in chunks)
    table = np.zeros((len(examples), 3))
    for chunk, rows in zip(chunks, forced_rows(predictor.models[0], batches), strict=True):
        table[[row for row, _ in chunk]] = rows
    return table


def _encoded(task: Encoding, pair: Pair, report: Report) -> Example | None:
    try:
        return task.encode(pair, report=report)
    except TooLong as error:
        if not error.skip:
            raise
        report.add(f"left out of the loss: {error.what}", example=pair.source)
        return None


def forced_scores(
    predictor: Answering, pairs: Sequence[Pair], *, bootstrap: int = 1000, seed: int = 1
) -> dict[str, Score]:
    """Loss, perplexity and forced accuracy over all references, by name; nothing for an ensemble."""
    return _likelihoods(predictor, _forced_table(predictor, pairs, Report()), bootstrap, seed)


def _likelihoods(predictor: Answering, table: Stats | None, rounds: int, seed: int) -> dict[str, Score]:
    read = None if table is None else table[table[:, 1] > 0]  # without pairs that are too long
    if read is None or not len(read):
        return {}
    known = likelihoods(predictor.models[0])
    return {each.name: scoring.summed(each, read, rounds=rounds, seed=seed) for each in known}


def _score(
    metric: Metric | Pooled,
    tables: Mapping[str, Stats],
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    rounds: int,
    seed: int,
) -> Score:
    if isinstance(metric, Pooled):
        return scoring.corpus(metric, answers, references, bootstrap=rounds, seed=seed)
    nrefs = scoring.reference_count(references)
    return scoring.summed(metric, tables[metric.name], rounds=rounds, seed=seed, nrefs=nrefs)


def _summed(name: str) -> Summed | Pooled:
    likelihoods = {each.name: each for each in LIKELIHOODS}
    coverages = {each.name: each for each in COVERAGES}
    return likelihoods.get(name) or coverages.get(name) or scoring.get(name)


def _fingerprint(pairs: Sequence[Pair], references: Sequence[Sequence[str]]) -> str:
    digest = hashlib.sha256()
    for pair, each in zip(pairs, references, strict=True):
        digest.update(json.dumps([pair.source, list(each), pair.context], sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def finite(value: Any) -> Any:
    """The same with null for infinite numbers."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
