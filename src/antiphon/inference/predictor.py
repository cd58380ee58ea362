"""From inputs to answers: streaming, in order, in constant memory, with nothing dropped in silence."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from antiphon.core.config import Config, Decoding
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.machine import cores
from antiphon.core.marks import UNK
from antiphon.data.arrays import as_text
from antiphon.data.corpus import Pair
from antiphon.data.facts import Finder
from antiphon.data.modalities import Text, TooLong
from antiphon.data.numbers import Numbers
from antiphon.data.report import Report
from antiphon.inference.answer import Answer, nothing
from antiphon.inference.bundle import Bundle
from antiphon.inference.confidence import unsure
from antiphon.inference.engines import Asked, Engine, divided, open_engine, watched
from antiphon.inference.ensembles import check_together
from antiphon.inference.hypothesis import BEAM, MARGIN, Constraint, Hypothesis, Phrase, Ranked, pool
from antiphon.inference.jobs import Job, Watcher, answered, batched, constrained, place_of
from antiphon.inference.recordings import Pieces, Whole
from antiphon.inference.task import Source, Task

if TYPE_CHECKING:
    from antiphon.inference.helpers import Helpers
    from antiphon.inference.on_pytorch import PyTorch
    from antiphon.inference.rerank import Candidates, Ranker
    from antiphon.models.seq2seq import Seq2Seq

WINDOW = 8
"""Batches that are sorted by length together."""
SHARE = 32
"""The fewest sentences that are worth a process of their own."""
ROUNDS = 20
"""Most attempts to find another wording for a banned phrase."""


_Find = Callable[[Sequence[Job]], list[list[Hypothesis]]]


class _Seen(NamedTuple):
    """A watcher, and whether what the search has found is the answer."""

    watcher: Watcher
    certain: bool


class Predictor:
    """Answers with a model, or with several of one task as an ensemble.

    With a `backward` model, which was trained to answer the targets with the sources, the candidates of the search are
    ranked again against dull answers (`antiphon.inference.rerank.Mutual`). `adapter` names the one that answers.

    `report` counts what was odd in the latest pass of `predict` and is complete when that pass is: empty inputs,
    inputs that were cut, answers without an end, sentences decoded twice because of a near tie. `knowledge` is a file
    of facts for a model that reads some; `facts` counts what was odd in it. On a CPU, batches are
    decoded by `processes` side by side; unless told, one a core, where there is enough to do and this is Linux.

    An exported model is answered for by the fastest `engine` there is. What that one cannot do, PyTorch does, and
    `report` says so; or it is refused, where the model was exported without PyTorch's weights.
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
        self.bundles, self.processes, self.backward = bundles, processes or cores(os.environ), backward
        self.adapter = adapter or ""
        self.task: Task = bundles[0].task
        self.config = bundles[0].config
        exported = open_engine(bundles[0], self.processes) if len(bundles) == 1 else None
        self.engine: Engine = exported or self._pytorch
        self.report, self.facts = Report(), Report()
        self.calibration = bundles[0].confidence if len(bundles) == 1 else None
        check_together(bundles)
        if knowledge is not None:
            self.task = replace(self.task, find=self._found(knowledge))
        if backward and not isinstance(self.task.source, Text):
            raise ConfigError("a backward model scores texts", got=f"sources of {self.config.data.source.kind}")
        if backward and (missing := sorted(set(backward.task.context) - set(self.task.context))):
            raise ConfigError("the backward model wants context that the model does not", got=", ".join(missing))

    @cached_property
    def _pytorch(self) -> PyTorch:
        """PyTorch with the networks, which are built for it. `BundleError` where one was exported without."""
        from antiphon.inference.on_pytorch import PyTorch

        return PyTorch([bundle.model for bundle in self.bundles], self.task)

    @property
    def models(self) -> list[Seq2Seq]:
        """The networks in PyTorch, where it is these that answer."""
        return [bundle.model for bundle in self.bundles] if self.engine.name == "PyTorch" else []

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
        details: bool = True,
        watcher: Watcher | None = None,
    ) -> Iterator[list[Answer]]:
        """The answers to each input (a text, a `Pair`, an array), best first, in the order of the inputs.

        `window` inputs at a time are read, sorted by length and decoded in batches of `batch_size`; the answers do
        not depend on either. `prefixes` (what the answer must begin with) and `required` (words it must hold) go
        along with the inputs, one item each; `banned` words are for all. A blank input has the empty answer.
        `first` is the number of the first input where earlier ones were answered before: sampling depends on it.
        Without `details` an exported model need not find out what it takes time to find out: answers then have no
        probabilities of tokens, weights or alignment.
        Recordings longer than any in training are cut where they are quiet, unless they come with prefixes or words.
        `watcher` sees answers of text grow, may give some up, and is told early of others.
        """
        given = prefixes, required, banned
        if isinstance(banned, str):
            raise ConfigError("banned words are a list", got=repr(banned), do="write banned=[...]")
        if isinstance(self.task.target, Numbers) and not (prefixes is None and required is None and not banned):
            raise ConfigError("prefixes, required and banned words are for answers of text", where="predict")
        pieces = Pieces.wanted(self.task) if prefixes is None and required is None else None
        watcher = Whole(watcher) if pieces and watcher else watcher
        inputs, settings = map(as_text, inputs), settings or self.config.decoding
        asked = pieces.cut(inputs, lambda: self.report, first) if pieces else inputs
        numbers = pieces.numbered() if pieces else itertools.count(first)
        found = self._predict(asked, settings, batch_size, window, *given, numbers, details, watcher)
        yield from pieces.join(found, lambda: self.report) if pieces else found

    def _predict(
        self, inputs: Iterable[str | Pair], settings: Decoding, batch_size: int, window: int | None,
        prefixes: Iterable[str] | None, required: Iterable[Sequence[str]] | None, banned: Sequence[str],
        numbers: Iterator[int], details: bool, watcher: Watcher | None,
    ) -> Iterator[list[Answer]]:  # fmt: skip
        if batch_size < 1 or (window is not None and window < 1):
            raise ConfigError("batch_size and window must be at least 1", got=f"{batch_size} and {window}")
        if settings.abstain and self.calibration is None:
            raise unsure("decoding.abstain", len(self.bundles), self.adapter)
        window, chooser = window or batch_size * WINDOW, self._ranker(settings)
        if chooser is not None:
            batch_size = max(1, min(batch_size, batch_size * BEAM // pool(settings)))
        details = details or chooser is not None or self.calibration is not None
        certain = not (banned or settings.abstain or chooser)  # which decide when all else is done
        seen = _Seen(watcher, certain) if watcher is not None else None
        find = partial(
            self._find, settings=settings, chooser=chooser, batch_size=batch_size, details=details, seen=seen
        )
        report = self.report = Report()
        asked = constrained(inputs, prefixes, required)
        jobs = (self._job(number, *each, banned, report) for each, number in zip(asked, numbers, strict=False))
        jobs = (self._able(job, settings, report) for job in jobs)
        helpers: Helpers[list[Job], list[list[Hypothesis]]] | None = None
        try:
            while chunk := list(itertools.islice(jobs, window)):
                if watcher is None and helpers is None and (count := self._helpers(len(chunk))) > 1:
                    from antiphon.inference.helpers import Helpers

                    helpers = Helpers(find, count)
                windowed = self._window(chunk, find, batch_size, banned, report, helpers)
                yield from (self._surely(job, mine, settings.abstain, find, banned, report) for job, mine in windowed)
        finally:
            if helpers is not None:
                helpers.close()
            if helpers is not None and helpers.lost:
                report.add("a helping process ended, and its sentences were answered here", times=helpers.lost)

    def _ranker(self, settings: Decoding) -> Ranker | None:
        """What chooses among candidates, where something does."""
        if not settings.risk and self.backward is None:
            return None
        from antiphon.inference.rerank import ranker

        return ranker(settings, self.backward)

    def _able(self, job: Job, settings: Decoding, report: Report) -> Job:
        """The job, once somebody is known who can do it."""
        lack = "" if job.source is None else self.engine.lacks(settings, self._asked(job, settings))
        if lack and not self.bundles[0].complete:
            do = "leave it out, or export the model again with --keep"
            raise ConfigError(f"{self.engine.name} cannot do {lack}, and PyTorch's weights are not here", do=do)
        if not lack:
            return job
        report.add(reason := f"answered by PyTorch, since {self.engine.name} cannot do {lack}", job.place)
        return replace(job, reason="; ".join(filter(None, [job.reason, reason])))

    def _helpers(self, sentences: int) -> int:
        """Processes that are worth their making."""
        if self.engine.whole:
            return 1
        from antiphon.inference.helpers import possible

        models = [*self.models, *([self.backward.model] if self.backward else [])]
        on_cpu = all(next(model.parameters()).device.type == "cpu" for model in models)
        return min(self.processes, sentences // SHARE) if on_cpu and possible() else 1

    def _job(
        self, number: int, item: str | Pair, prefix: str, required: Sequence[str], banned: Sequence[str], report: Report
    ) -> Job:
        item = self.task.completed(item)
        text, place = item if isinstance(item, str) else item.source, place_of(number)
        if not text.strip():
            report.add("empty input, answered with nothing", place)
            return Job(number, None, Constraint(), "empty input")
        odd = Report()
        try:
            source = self.task.read(item, report=odd)
        except TooLong as error:
            if not error.skip:
                raise
            report.add(f"not answered: {error.what}", place)
            return Job(number, None, Constraint(), error.what)
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
        return Job(number, source, self._constraint(prefix, required, banned, source), "; ".join(odd.counts), pair)

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
        self, jobs: list[Job], find: _Find, batch_size: int, banned: Sequence[str], report: Report,
        helpers: Helpers[list[Job], list[list[Hypothesis]]] | None,
    ) -> Iterator[tuple[Job, list[Answer]]]:  # fmt: skip
        answers = {job.number: [nothing(job.reason)] for job in jobs if job.source is None}
        most = min(batch_size, -(-len(jobs) // self.processes)) if helpers else batch_size
        # The longest first: what comes last should be short, for then the others wait.
        batches = list(batched(jobs, most, self.task.limit))[::-1]
        batches = [[job for batch in batches for job in batch]] if self.engine.whole and batches else batches
        each = helpers.map(batches) if helpers else ((n, find(b)) for n, b in enumerate(batches))
        for number, hypotheses in each:
            for job, found in zip(batches[number], hypotheses, strict=True):
                found = self._reword(job, found, find, banned, report)
                if isinstance(found[0], Ranked) and found[0].reason:
                    report.add(found[0].reason, job.place)
                answers[job.number] = [answered(job, hypothesis, self.task, self.calibration) for hypothesis in found]
        for job in jobs:
            mine = answers[job.number]
            if not mine[0].finished and job.source is not None:
                report.add("answer without an end, cut at the longest length", job.place)
            if mine[0].repeated:
                report.add("decoded again alone because of a near tie", job.place)
            yield job, mine

    def _surely(
        self, job: Job, mine: list[Answer], least: float, find: _Find, banned: Sequence[str], report: Report
    ) -> list[Answer]:
        """The answers, or an empty one where confidence in the best is below the least; where the error of floating
        point could decide that, it is that of the sentence decoded alone."""
        best, calibration = mine[0], self.calibration
        if not least or calibration is None or best.confidence is None:
            return mine
        if abs(best.confidence - least) <= calibration.slack(MARGIN, len(best.tokens) + 1):
            [found] = find([job])
            mine = [
                answered(job, each, self.task, self.calibration)
                for each in self._reword(job, found, find, banned, report)
            ]
            best = mine[0]
        assert best.confidence is not None
        if best.confidence >= least:
            return mine
        reason = f"not answered: confidence is below {least:g}"
        report.add(reason, job.place)
        reasons = "; ".join(filter(None, [best.reason, reason]))
        return [replace(best, text="", abstained=True, reason=reasons)]

    def _find(
        self, jobs: Sequence[Job], settings: Decoding, chooser: Ranker | None, batch_size: int, details: bool,
        seen: _Seen | None,
    ) -> list[list[Hypothesis]]:  # fmt: skip
        """What the search finds; where there is a choice to make, the best of all its candidates."""
        if chooser is None:
            return self._search(jobs, settings, batch_size, details, seen)
        found = self._search(jobs, replace(settings, n_best=pool(settings)), batch_size, details, seen)
        ranked = chooser.rank([self._candidates(job, mine) for job, mine in zip(jobs, found, strict=True)])
        answers: list[list[Hypothesis]] = []
        for job, (best, close) in zip(jobs, ranked, strict=True):
            if close and len(jobs) > 1:
                [again] = self._find([job], settings, chooser, batch_size, details, seen)
                answers.append([replace(hypothesis, repeated=True) for hypothesis in again])
            else:
                answers.append(list(best))
        return answers

    def _candidates(self, job: Job, found: list[Hypothesis]) -> Candidates:
        from antiphon.inference.rerank import Candidates

        assert job.source is not None
        assert job.pair is not None
        return Candidates(job.pair, found, [self.task.answer(each.tokens, job.source.extra) for each in found])

    def _asked(self, job: Job, settings: Decoding) -> Asked:
        assert job.source is not None
        limit = settings.max_length or max(self.task.limit(job.source.length), settings.min_length or 0)
        limit = min(limit, job.source.ahead or limit)
        return Asked(job.source, job.constraint, max(1, limit, job.constraint.needed), job.number)

    def _search(
        self, jobs: Sequence[Job], settings: Decoding, batch_size: int, details: bool, seen: _Seen | None
    ) -> list[list[Hypothesis]]:
        """By the engine, and by PyTorch where that one cannot."""
        asked = [self._asked(job, settings) for job in jobs]
        if seen is not None:
            return self._watched(jobs, asked, settings, batch_size, details, seen)
        return divided(self.engine, lambda: self._pytorch, asked, settings, batch_size=batch_size, details=details)

    def _watched(
        self, jobs: Sequence[Job], asked: Sequence[Asked], settings: Decoding, batch_size: int, details: bool,
        seen: _Seen,
    ) -> list[list[Hypothesis]]:  # fmt: skip
        """While somebody looks on."""
        by_number = {job.number: job for job in jobs}

        def look(going: Collection[int], leading: Callable[[int], list[int] | None]) -> Collection[int]:
            def text(number: int) -> str | None:
                tokens, source = leading(number), by_number[number].source
                return None if tokens is None or source is None else self.task.answer(tokens, source.extra)

            return seen.watcher.look(going, text)

        def tell(number: int, found: list[Hypothesis]) -> None:
            job = by_number[number]
            seen.watcher.tell(number, [answered(job, each, self.task, self.calibration) for each in found])

        return watched(self.engine, lambda: self._pytorch, asked, settings, batch_size=batch_size, details=details,
                       look=look, tell=tell if seen.certain else None)  # fmt: skip

    @property
    def longest(self) -> int:
        """The most tokens of an answer: learned positions end somewhere."""
        models = [bundle.config.model for bundle in self.bundles]
        return min((each.max_positions - 1 for each in models if each.positions == "learned"), default=1 << 20)

    def _reword(
        self, job: Job, found: list[Hypothesis], find: _Find, banned: Sequence[str], report: Report
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
        report.add("a banned word could not be avoided", job.place)
        return found

    def _spellings(self, tokens: list[int], patterns: list[re.Pattern[str]], extra: list[str]) -> Iterator[Phrase]:
        for pattern in patterns:
            if not pattern.search(self.task.answer(tokens, extra)):
                continue
            end = next(n for n in range(len(tokens) + 1) if pattern.search(self.task.answer(tokens[:n], extra)))
            begin = next(n for n in range(end, -1, -1) if pattern.search(self.task.answer(tokens[n:end], extra)))
            yield tuple(tokens[begin:end])


def as_trained(bundle: Bundle, config: Config, *, processes: int | None = None) -> Predictor:
    """Who answers as the run with this configuration learned to: by its adapter, with the facts of its file."""
    facts = config.data.knowledge if bundle.task.knowledge != "none" else ""
    adapter = config.model.adapter.name
    return Predictor(bundle, processes=processes, knowledge=facts or None, adapter=adapter or None)
