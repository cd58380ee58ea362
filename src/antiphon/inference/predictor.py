"""From inputs to answers: streaming, in order, in constant memory, with nothing dropped in silence."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from antiphon.core.batch import UNK
from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.machine import cores
from antiphon.core.numbers import spell
from antiphon.data.arrays import as_text
from antiphon.data.batching import Example, collate
from antiphon.data.corpus import Pair
from antiphon.data.facts import Finder
from antiphon.data.modalities import TooLong
from antiphon.data.numbers import Numbers
from antiphon.data.report import Report
from antiphon.inference.answer import Answer, nothing
from antiphon.inference.bundle import Bundle
from antiphon.inference.confidence import probability
from antiphon.inference.constraints import Constraint, Phrase
from antiphon.inference.ctc import heard
from antiphon.inference.helpers import Helpers, possible
from antiphon.inference.recordings import Pieces, Whole
from antiphon.inference.rerank import BEAM, Candidates, Ranked, Ranker, pool, ranker
from antiphon.inference.rollout import Rolled, roll_out
from antiphon.inference.search import Hypothesis, search
from antiphon.inference.selection import MARGIN
from antiphon.inference.task import Source, Task
from antiphon.models.seq2seq import Seq2Seq

BATCH_TOKENS = 16_384
"""Most source tokens of a batch, padding included."""
LOOKS = 1 << 24
"""Most source tokens of a batch times steps to be expected: where each step looked is kept to the end."""
WINDOW = 8
"""Batches that are sorted by length together."""
SHARE = 32
"""The fewest sentences that are worth a process of their own."""
ROUNDS = 20
"""Most attempts to find another wording for a banned phrase."""


@dataclass(frozen=True)
class _Job:
    """One input on its way: its number, what the model reads (None: `reason` says why nothing), constraints, and
    the `pair` as it was given."""

    number: int
    source: Source | None
    constraint: Constraint
    reason: str = ""
    pair: Pair | None = None


_Find = Callable[[Sequence[_Job]], list[list[Hypothesis]]]


class Watcher(Protocol):
    """Looks on while inputs, told apart by their numbers, are answered with text."""

    def look(self, going: Collection[int], text: Callable[[int], str | None]) -> Collection[int]:
        """After each step: what goes on, and the text of the best answer so far (None where an ended one is better);
        the numbers of inputs to be given up, whose answers are then what there is of them, and not `finished`."""
        ...

    def tell(self, number: int, answers: list[Answer]) -> None:
        """The answers to an input as soon as they are certain, where that is before the others of its batch."""
        ...


class Predictor:
    """Answers with a model, or with several of one task as an ensemble.

    With a `backward` model, which was trained to answer the targets with the sources, the candidates of the search are
    ranked again against dull answers (`antiphon.inference.rerank.Mutual`). `adapter` names the one that answers.

    `report` counts what was odd in the latest pass of `predict` and is complete when that pass is: empty inputs,
    inputs that were cut, answers without an end, sentences decoded twice because of a near tie. `knowledge` is a file
    of facts for a model that reads some; `facts` counts what was odd in it. On a CPU, batches are
    decoded by `processes` side by side; unless told, one a core, where there is enough to do and this is Linux.
    """

    def __init__(
        self, bundles: Bundle | Sequence[Bundle], *, backward: Bundle | None = None, processes: int | None = None,
        knowledge: Path | str | None = None, adapter: str | None = None,
    ) -> None:  # fmt: skip
        bundles = [bundles] if isinstance(bundles, Bundle) else list(bundles)
        bundles = [bundle.adapted(adapter) for bundle in bundles] if adapter else bundles
        if not bundles:
            raise ConfigError("there is no model to predict with")
        if processes is not None and processes < 1:
            raise ConfigError("processes must be at least 1", got=processes)
        self.models: list[Seq2Seq] = [bundle.model for bundle in bundles]
        self.processes = processes or cores(os.environ)
        self.task: Task = bundles[0].task
        self.config = bundles[0].config
        self.backward = backward
        self.calibration = bundles[0].confidence if len(bundles) == 1 else None
        self.report, self.facts = Report(), Report()
        for other in bundles[1:]:
            seen = {name: getattr(self.task, name) for name in ("length", "entities", "turns")}  # each of its own data
            same = replace(other.task, **seen).files() == self.task.files()
            reads = [(each.knowledge, bool(each.turns)) for each in (self.task, other.task)]
            if not same or reads[0] != reads[1]:
                where = " and ".join(str(bundle.path) for bundle in (bundles[0], other))
                raise ConfigError("models that answer together need the same vocabularies", where=where)
        if knowledge is not None:
            self.task = replace(self.task, find=self._found(knowledge))
        if backward and (missing := sorted(set(backward.task.context) - set(self.task.context))):
            raise ConfigError("the backward model wants context that the model does not", got=", ".join(missing))

    def _found(self, path: Path | str) -> Finder:
        if self.task.knowledge == "none":
            do = "train one with model.knowledge.kind=linear or graph"
            raise ConfigError("the model reads no facts", got=f"knowledge={path}", do=do)
        return Finder.open(replace(self.config.data, knowledge=str(path)), self.facts)

    def predict(
        self,
        inputs: Iterable[Any],
        *,
        settings: Decoding | None = None,
        batch_size: int = 128,
        window: int | None = None,
        prefixes: Iterable[str] | None = None,
        required: Iterable[Sequence[str]] | None = None,
        banned: Sequence[str] = (),
        first: int = 0,
        watcher: Watcher | None = None,
    ) -> Iterator[list[Answer]]:
        """The answers to each input (a text, a `Pair`, an array), best first, in the order of the inputs.

        `window` inputs at a time are read, sorted by length and decoded in batches of `batch_size`; the answers do
        not depend on either. `prefixes` (what the answer must begin with) and `required` (words it must hold) go
        along with the inputs, one item each; `banned` words are for all. A blank input has the empty answer.
        `first` is the number of the first input where earlier ones were answered before: sampling depends on it.
        Recordings longer than any in training are cut where they are quiet, unless they come with prefixes or words.
        `watcher` sees answers of text grow, may give some up, and is told early of others.
        """
        given = prefixes, required, banned
        if isinstance(self.task.target, Numbers) and not (prefixes is None and required is None and not banned):
            raise ConfigError("prefixes, required and banned words are for answers of text", where="predict")
        pieces = Pieces.wanted(self.task) if prefixes is None and required is None else None
        watcher = Whole(watcher, pieces.owners) if pieces and watcher else watcher
        inputs = map(as_text, inputs)
        asked = pieces.cut(inputs) if pieces else inputs
        found = self._predict(asked, settings or self.config.decoding, batch_size, window, *given, first, watcher)
        yield from pieces.join(found, lambda: self.report) if pieces else found

    def _predict(
        self, inputs: Iterable[str | Pair], settings: Decoding, batch_size: int, window: int | None,
        prefixes: Iterable[str] | None, required: Iterable[Sequence[str]] | None, banned: Sequence[str], first: int,
        watcher: Watcher | None,
    ) -> Iterator[list[Answer]]:  # fmt: skip
        if batch_size < 1 or (window is not None and window < 1):
            raise ConfigError("batch_size and window must be at least 1", got=f"{batch_size} and {window}")
        if settings.abstain and self.calibration is None:
            what = "an ensemble has no confidence" if len(self.models) > 1 else "this model has no confidence yet"
            do = "type: antiphon calibrate MODEL VALID, or leave out decoding.abstain"
            raise ConfigError(what, where="decoding.abstain", got=settings.abstain, do=do)
        window, chooser = window or batch_size * WINDOW, ranker(settings, self.backward)
        if chooser is not None:
            batch_size = max(1, min(batch_size, batch_size * BEAM // pool(settings)))
        certain = not (banned or settings.abstain or chooser)  # which decide when all else is done
        find = partial(self._find, settings=settings, chooser=chooser, watcher=watcher, early=certain)
        report = self.report = Report()
        asked = self._with_constraints(inputs, prefixes, required)
        jobs = (self._job(number, *each, banned, report) for number, each in enumerate(asked, first))
        helpers: Helpers[list[_Job], list[list[Hypothesis]]] | None = None
        try:
            while chunk := list(itertools.islice(jobs, window)):
                if watcher is None and helpers is None and (count := self._helpers(len(chunk))) > 1:
                    helpers = Helpers(find, count)
                answered = self._window(chunk, find, batch_size, banned, report, helpers)
                yield from (self._surely(job, mine, settings.abstain, find, banned, report) for job, mine in answered)
        finally:
            if helpers is not None:
                helpers.close()
            if helpers is not None and helpers.lost:
                report.add("a helping process ended, and its sentences were answered here", times=helpers.lost)

    def _helpers(self, sentences: int) -> int:
        """Processes that are worth their making."""
        models = [*self.models, *([self.backward.model] if self.backward else [])]
        on_cpu = all(next(model.parameters()).device.type == "cpu" for model in models)
        return min(self.processes, sentences // SHARE) if on_cpu and possible() else 1

    @staticmethod
    def _with_constraints(
        inputs: Iterable[str | Pair], prefixes: Iterable[str] | None, required: Iterable[Sequence[str]] | None
    ) -> Iterator[tuple[str | Pair, str, Sequence[str]]]:
        begin = itertools.repeat("") if prefixes is None else iter(prefixes)
        words: Iterator[Sequence[str]] = itertools.repeat(()) if required is None else iter(required)
        for item in inputs:
            try:
                yield item, next(begin), next(words)
            except StopIteration:
                raise DataError("there are fewer prefixes or required words than inputs") from None

    def _job(
        self, number: int, item: str | Pair, prefix: str, required: Sequence[str], banned: Sequence[str], report: Report
    ) -> _Job:
        item = self.task.completed(item)
        text, place = item if isinstance(item, str) else item.source, f"input {number + 1}"
        if not text.strip():
            report.add("empty input, answered with nothing", place)
            return _Job(number, None, Constraint(), "empty input")
        odd = Report()
        try:
            source = self.task.read(item, report=odd)
        except TooLong as error:
            if not error.skip:
                raise
            report.add(f"not answered: {error.what}", place)
            return _Job(number, None, Constraint(), error.what)
        except DataError as error:
            if error.where:
                raise
            raise DataError(error.what, where=place, got=error.got, do=error.do) from None
        if (longest := self.task.length.longest) and source.length > longest:
            odd.add("longer than any source in training")
        for reason in odd.counts:
            report.add(reason, place, text)
        unknown = source.unknown
        if unknown and not self.task.copy:
            report.add("unknown token in the input", place, text, times=unknown)
        pair = Pair(item, "") if isinstance(item, str) else Pair(item.source, "", (), item.context)
        return _Job(number, source, self._constraint(prefix, required, banned, source), "; ".join(odd.counts), pair)

    def _constraint(self, prefix: str, required: Sequence[str], banned: Sequence[str], source: Source) -> Constraint:
        def known(text: str) -> Phrase:
            phrase = self.task.phrase(text, source.extra)
            if UNK in phrase or not phrase:
                raise ConfigError(
                    "the model cannot write this", got=repr(text), do="leave it out, or spell it otherwise"
                )
            return phrase

        ban = (self.task.phrase(text, source.extra) for text in banned)
        found = Constraint(
            known(prefix) if prefix else (), tuple(map(known, required)), tuple(p for p in ban if p and UNK not in p)
        )
        if found.needed > self.longest:
            raise ConfigError("more is asked for than the model can write", got=f"{found.needed} of {self.longest}")
        return found

    def _window(
        self, jobs: list[_Job], find: _Find, batch_size: int, banned: Sequence[str], report: Report,
        helpers: Helpers[list[_Job], list[list[Hypothesis]]] | None,
    ) -> Iterator[tuple[_Job, list[Answer]]]:  # fmt: skip
        answers = {job.number: [nothing(job.reason)] for job in jobs if job.source is None}
        most = min(batch_size, -(-len(jobs) // self.processes)) if helpers else batch_size
        # The longest first: what comes last should be short, for then the others wait.
        batches = list(_batches(jobs, most, self.task.limit))[::-1]
        each = helpers.map(batches) if helpers else ((n, find(b)) for n, b in enumerate(batches))
        for number, answered in each:
            for job, found in zip(batches[number], answered, strict=True):
                found = self._reword(job, found, find, banned, report)
                if isinstance(found[0], Ranked) and found[0].reason:
                    report.add(found[0].reason, f"input {job.number + 1}")
                answers[job.number] = [self._answer(job, hypothesis) for hypothesis in found]
        for job in jobs:
            mine = answers[job.number]
            if not mine[0].finished and job.source is not None:
                report.add("answer without an end, cut at the longest length", f"input {job.number + 1}")
            if mine[0].repeated:
                report.add("decoded again alone because of a near tie", f"input {job.number + 1}")
            yield job, mine

    def _surely(
        self, job: _Job, mine: list[Answer], least: float, find: _Find, banned: Sequence[str], report: Report
    ) -> list[Answer]:
        """The answers, or an empty one where confidence in the best is below the least; where the error of floating
        point could decide that, it is that of the sentence decoded alone."""
        best, calibration = mine[0], self.calibration
        if not least or calibration is None or best.confidence is None:
            return mine
        if abs(best.confidence - least) <= calibration.slack(MARGIN, len(best.tokens) + 1):
            [found] = find([job])
            mine = [self._answer(job, each) for each in self._reword(job, found, find, banned, report)]
            best = mine[0]
        assert best.confidence is not None
        if best.confidence >= least:
            return mine
        reason = f"not answered: confidence is below {least:g}"
        report.add(reason, f"input {job.number + 1}")
        reasons = "; ".join(filter(None, [best.reason, reason]))
        return [replace(best, text="", abstained=True, reason=reasons)]

    def _find(
        self,
        jobs: Sequence[_Job],
        settings: Decoding,
        chooser: Ranker | None,
        watcher: Watcher | None,
        early: bool,
    ) -> list[list[Hypothesis]]:
        """What the search finds; where there is a choice to make, the best of all its candidates."""
        if chooser is None:
            return self._search(jobs, settings, watcher, early)
        found = self._search(jobs, replace(settings, n_best=pool(settings)), watcher, early)
        ranked = chooser.rank([self._candidates(job, mine) for job, mine in zip(jobs, found, strict=True)])
        answers: list[list[Hypothesis]] = []
        for job, (best, close) in zip(jobs, ranked, strict=True):
            if close and len(jobs) > 1:
                [again] = self._find([job], settings, chooser, watcher, early)
                answers.append([replace(hypothesis, repeated=True) for hypothesis in again])
            else:
                answers.append(list(best))
        return answers

    def _candidates(self, job: _Job, found: list[Hypothesis]) -> Candidates:
        assert job.source is not None
        assert job.pair is not None
        return Candidates(job.pair, found, [self.task.answer(each.tokens, job.source.extra) for each in found])

    def _search(
        self, jobs: Sequence[_Job], settings: Decoding, watcher: Watcher | None, early: bool
    ) -> list[list[Hypothesis]]:
        sources = [job.source for job in jobs if job.source is not None]
        device = next(self.models[0].parameters()).device
        batch = collate([Example(source.ids, [], source.context) for source in sources]).to(device)
        limits = [settings.max_length or self.task.limit(source.length) for source in sources]
        if isinstance(self.task.target, Numbers):
            most, ids = [min(limit, self.longest) for limit in limits], [job.number for job in jobs]
            rolled = roll_out(self.models, batch.source, settings, max_lengths=most, context=batch.context,
                              sample_ids=ids)  # fmt: skip
            return [list[Hypothesis](each) for each in rolled]
        numbered = {job.number: job for job in jobs}
        found = search(
            self.models, batch.source, settings,
            max_lengths=[min(limit, self.longest) for limit in limits], context=batch.context,
            constraints=[job.constraint for job in jobs], sample_ids=[job.number for job in jobs],
            look=partial(self._look, watcher, numbered) if watcher else None,
            tell=partial(self._tell, watcher, numbered) if watcher and early and self.models[0].ctc is None else None,
        )  # fmt: skip
        return heard(self.models[0], batch, found)

    def _tell(self, watcher: Watcher, jobs: dict[int, _Job], number: int, found: list[Hypothesis]) -> None:
        watcher.tell(number, [self._answer(jobs[number], each) for each in found])

    def _look(
        self, watcher: Watcher, jobs: dict[int, _Job], going: Collection[int],
        leading: Callable[[int], list[int] | None],
    ) -> Collection[int]:  # fmt: skip
        def text(number: int) -> str | None:
            tokens, source = leading(number), jobs[number].source
            return None if tokens is None or source is None else self.task.answer(tokens, source.extra)

        return watcher.look(going, text)

    @property
    def longest(self) -> int:
        """The most tokens of an answer: learned positions end somewhere."""
        ends = [model.config.max_positions - 1 for model in self.models if model.config.positions == "learned"]
        return min(ends, default=1 << 20)

    def _reword(
        self, job: _Job, found: list[Hypothesis], find: _Find, banned: Sequence[str], report: Report
    ) -> list[Hypothesis]:
        """Bans are on tokens, but a tokenizer may spell one word in many ways: ban each spelling that turns up."""
        if not banned or job.source is None:
            return found
        patterns = [re.compile(rf"(?<!\w){re.escape(self.task.words.normalize(word))}(?!\w)") for word in banned]
        for _ in range(ROUNDS):
            spelled = {phrase for each in found for phrase in self._spellings(each.tokens, patterns, job.source.extra)}
            if not spelled:
                return found
            constraint = replace(job.constraint, banned=(*job.constraint.banned, *sorted(spelled)))
            job = replace(job, constraint=constraint)
            [found] = find([job])
        report.add("a banned word could not be avoided", f"input {job.number + 1}")
        return found

    def _spellings(self, tokens: list[int], patterns: list[re.Pattern[str]], extra: list[str]) -> Iterator[Phrase]:
        for pattern in patterns:
            if not pattern.search(self.task.answer(tokens, extra)):
                continue
            end = next(n for n in range(len(tokens) + 1) if pattern.search(self.task.answer(tokens[:n], extra)))
            begin = next(n for n in range(end, -1, -1) if pattern.search(self.task.answer(tokens[n:end], extra)))
            yield tuple(tokens[begin:end])

    def _answer(self, job: _Job, found: Hypothesis) -> Answer:
        assert job.source is not None
        weights = real = found.weights if isinstance(found, Rolled) else found.weights[: len(found.tokens)]
        if not isinstance(job.source.ids, np.ndarray):
            end = len(job.source.ids) - 1
            real = np.delete(weights, end, 1) if weights.shape[1] > end else weights
            weights = np.append(real, weights[:, end : end + 1], 1)
            real = weights[:, :-1] if weights.shape[1] > 1 else weights
        if isinstance(found, Rolled):
            forecast = found.scaled(job.source.scale, job.source.history)
            reasons = [job.reason, "" if found.finished else "no end within the longest length"]
            places = [*job.source.tokens, *job.source.facts]
            looks = real.argmax(1).tolist() if weights.any() else []
            return Answer(spell(forecast.values_TF), 0.0, [], [], looks, weights, places, 1.0, finished=found.finished,
                          reason="; ".join(filter(None, reasons)), forecast=forecast)  # fmt: skip
        ranked = found if isinstance(found, Ranked) else Ranked(**vars(found))
        reasons = [job.reason, ranked.reason, "" if found.finished else "no end mark within the longest length"]
        return Answer(
            text=self.task.answer(found.tokens, job.source.extra),
            score=found.score,
            tokens=self.task.words.tokens(found.tokens, job.source.extra),
            probabilities=[math.exp(value) for value in found.log_probs[: len(found.tokens)]],
            alignment=list(found.heard) or (real.argmax(1).tolist() if found.weights.any() else []),
            weights=weights,
            source_tokens=[*job.source.tokens, *job.source.facts],
            probability=probability(found.log_probs),
            confidence=self.calibration(found.log_probs, found.finished) if self.calibration else None,
            finished=found.finished,
            repeated=found.repeated,
            log_probs=found.log_probs,
            reason="; ".join(filter(None, reasons)),
            utility=ranked.utility,
            backward=ranked.backward,
        )


def _batches(jobs: Sequence[_Job], most: int, limit: Callable[[int], int]) -> Iterator[list[_Job]]:
    """Jobs with a source, by length, in batches of at most `most` sentences, `BATCH_TOKENS` tokens and `LOOKS`."""
    real = [job for job in jobs if job.source is not None]
    real.sort(key=lambda job: job.source.length if job.source else 0)
    batch: list[_Job] = []
    for job in real:
        length = job.source.length if job.source else 0
        tokens = min(BATCH_TOKENS, LOOKS // limit(length))
        if batch and (len(batch) == most or (len(batch) + 1) * length > tokens):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch
