"""A decoding process: loads models, warms them up, answers batches, and ends when the server does.

What comes through its socket: `load` with the files of each model, then `answer` or `explore` with jobs, and
`cancel` with the id of a job at any time. What goes: `ready` or `broken`; `alive`, `partial` and `early` while it
decodes, and `answered` with what is left.
"""

from __future__ import annotations

import ctypes
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.core.config import Decoding
from antiphon.core.errors import AntiphonError
from antiphon.data.arrays import written
from antiphon.data.corpus import Pair
from antiphon.data.knowledge import FACTS
from antiphon.data.modalities import Text
from antiphon.inference.answer import Answer
from antiphon.inference.bundle import Bundle, load
from antiphon.inference.hypothesis import BEAM
from antiphon.inference.predictor import Predictor
from antiphon.inference.tags import values_of
from antiphon.inference.task import Task
from antiphon.serving.answers import answered, explored
from antiphon.serving.channel import Channel, Message
from antiphon.serving.logs import place

ALIVE = 0.5
"""Seconds between signs of life."""
REST = 5.0
"""Seconds without a request after which memory that was freed goes back to the system."""
PRACTICE = 4
"""Inputs of a batch that warms a model up."""

Result = dict[str, Any]


class Worker:
    """Answers one batch after the other."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self.told = channel, 0.0
        self.bundles: dict[str, list[Bundle]] = {}
        self.predictors: dict[tuple[str, str | None], Predictor] = {}
        self.waiting: deque[Message] = deque()
        self.cancelled: set[str] = set()

    def run(self) -> None:
        """Until the server goes."""
        while True:
            if not self.waiting and not self.channel.waiting(REST):
                give_back()
            message = self.waiting.popleft() if self.waiting else self.channel.receive()
            if message["do"] == "load":
                self.channel.send(self.load(message["models"]))
            elif message["do"] != "cancel":  # which comes too late, if it comes here
                results = dict(self.results(message, message["jobs"]))
                self.cancelled.clear()
                self.channel.send({"is": "answered", "results": results})

    def load(self, models: dict[str, list[str]]) -> Message:
        """Load all models and answer something with each; how fast that went, or why it did not."""
        paces, name = {}, ""
        try:
            for name, paths in models.items():
                self.bundles[name] = [load(Path(path)) for path in paths]
                paces[name] = self._practise(self.predictor(name, None))
        except AntiphonError as error:
            return {"is": "broken", "model": name, "what": error.what, "got": error.got, "do": error.do}
        except Exception as error:
            return {"is": "broken", "model": name, "what": f"it cannot answer: {place(error)}", "got": "", "do": ""}
        return {"is": "ready", "paces": paces}

    def predictor(self, model: str, adapter: str | None) -> Predictor:
        """What answers for a model, or for one of its adapters, by the fastest engine that there is for it."""
        if (model, adapter) not in self.predictors:
            self.predictors[model, adapter] = Predictor(self.bundles[model], processes=1, adapter=adapter)
        return self.predictors[model, adapter]

    def _practise(self, predictor: Predictor) -> tuple[float, float]:
        """Tokens times hypotheses, and the seconds that they took."""
        if (sample := practice(predictor.task)) is None:
            return 0.0, 0.0
        begun, cost = time.perf_counter(), 0
        for count in (1, PRACTICE):
            begun = time.perf_counter()
            list(predictor.predict([sample] * count))
            cost = count * predictor.task.read(sample).length * (predictor.config.decoding.beam or BEAM)
        return float(cost), time.perf_counter() - begun

    def results(self, batch: Message, jobs: Sequence[Message]) -> Iterator[tuple[str, Result]]:
        """The answers to each job by its id; where one job spoils a batch, each is done by itself."""
        try:
            predictor = self.predictor(batch["model"], batch["adapter"])
            does = self._explore if batch["do"] == "explore" else self._answer
            yield from does(predictor, batch, jobs)
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    yield from self.results(batch, [job])
            elif isinstance(error, AntiphonError):
                yield jobs[0]["id"], {"error": {"what": error.what, "do": error.do}}
            else:
                yield jobs[0]["id"], {"failed": place(error)}

    def _answer(self, predictor: Predictor, batch: Message, jobs: Sequence[Message]) -> list[tuple[str, Result]]:
        inputs = [each for job in jobs for each in job["inputs"]]
        prefixes, required = (
            [each.get(name, empty) for each in inputs] for name, empty in (("prefix", ""), ("required", []))
        )
        watcher = _Watcher(self, jobs, predictor.task)
        found = predictor.predict(
            [_pair(each) for each in inputs],
            settings=Decoding(**batch["decoding"]),
            prefixes=prefixes if any(prefixes) else None,
            required=required if any(required) else None,
            banned=batch["banned"],
            watcher=watcher,
        )
        results = {job["id"]: _Result(job, predictor.task) for job in jobs}
        places = [(job["id"], at) for job in jobs for at in range(len(job["inputs"]))]
        for (number, at), answers in zip(places, found, strict=True):
            if number not in watcher.done:
                results[number].add(at, answers)
        return [(number, result.content) for number, result in results.items() if number not in watcher.done]

    def _explore(self, predictor: Predictor, batch: Message, jobs: Sequence[Message]) -> Iterator[tuple[str, Result]]:
        from antiphon.inference.explore import explore  # by PyTorch, which others need not load

        for job in jobs:

            def look(
                going: Collection[int], tokens: Callable[[int], list[int] | None], number: str = job["id"]
            ) -> Collection[int]:
                return going if number in self.hear() else ()

            found = explore(predictor, _pair(job["inputs"][0]), prefix=job["prefix"], tokens=job["pieces"],
                            width=job["width"], look=look)  # fmt: skip
            yield job["id"], {"explored": explored(found, predictor.task)}

    def hear(self) -> set[str]:
        """Say that this process lives, and hear what has been cancelled."""
        while self.channel.waiting():
            message = self.channel.receive()
            if message["do"] == "cancel":
                self.cancelled.add(message["id"])
            else:
                self.waiting.append(message)
        if time.monotonic() - self.told > ALIVE:
            self.told = time.monotonic()
            self.channel.send({"is": "alive"})
        return self.cancelled


class _Result:
    """The answers to one job, which come in any order."""

    def __init__(self, job: Message, task: Task) -> None:
        self.job, self.task, self.id = job, task, job["id"]
        self.answers: list[Any] = [None] * len(job["inputs"])
        self.counts: list[Any] = [None] * len(job["inputs"])

    def add(self, place: int, answers: list[Answer]) -> bool:
        """One more; true where these are all."""
        self.answers[place] = answered(answers, self.task, details=self.job["details"])
        self.counts[place] = [len(answers[0].source_tokens), len(answers[0].log_probs)]
        return None not in self.answers

    @property
    def content(self) -> Result:
        """What is sent."""
        return {"answers": self.answers, "counts": self.counts}


class _Watcher:
    """Tells of what is streamed, and of jobs that are done before their batch is; gives up what is cancelled."""

    def __init__(self, worker: Worker, jobs: Sequence[Message], task: Task) -> None:
        self.worker, self.latest, self.done = worker, dict[int, str](), set[str]()
        self.results = [(_Result(job, task), place) for job in jobs for place in range(len(job["inputs"]))]

    def look(self, going: Collection[int], text: Callable[[int], str | None]) -> list[int]:
        cancelled = self.worker.hear()
        for number in going:
            job = self.results[number][0].job
            said = text(number) if job["stream"] else None
            if said is not None and said != self.latest.get(number):
                self.latest[number] = said
                self.worker.channel.send({"is": "partial", "id": job["id"], "text": said})
        return [number for number in going if self.results[number][0].id in cancelled]

    def tell(self, number: int, answers: list[Answer]) -> None:
        result, place = self.results[number]
        if result.add(place, answers):
            self.done.add(result.id)
            self.worker.channel.send({"is": "early", "id": result.id, "result": result.content})


def _pair(given: Message) -> str | Pair:
    return Pair(given["source"], "", (), given["context"]) if given.get("context") else str(given["source"])


def practice(task: Task) -> Pair | None:
    """Something that a model can read; None for films, which cannot be made up."""
    context = {name: next(iter(values), "") for name, values in tags(task).items()}
    context |= {column.name: column.example for column in task.covariates.columns} if task.covariates else {}
    if task.knowledge != "none":
        context[FACTS] = "a | b | c"
    if isinstance(task.source, Text):
        tokens = [token for token in task.source.vocabulary.tokens[4:] if not token.startswith("<")][:8]
        return Pair(task.source.tokenizer.decode(tokens).strip() or "a", "", (), context)
    draw = np.random.default_rng(1)
    if task.source.kind == "video":
        return None
    rows = max(32, 2 * (task.source.settings.season or 1))  # a series is longer than its season
    shape: int | tuple[int, int] = 16_000 if task.source.kind == "speech" else (rows, task.source.features)
    return Pair(written(draw.normal(0, 0.1, shape)), "", (), context)


def tags(task: Task) -> dict[str, list[str]]:
    """The values that training had of each context column; nothing of one of numbers."""
    if task.covariates:
        return {column.name: list(column.words) for column in task.covariates.columns}
    return values_of(task.source.vocabulary.tokens if isinstance(task.source, Text) else (), task.context)


def give_back() -> None:
    """Return freed memory to the system, where the C library keeps it (glibc): batches of all sizes leave gaps."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def serve(descriptor: int) -> None:
    """Serve the socket of this descriptor; `EOFError` once it is closed."""
    Worker(Channel(socket.socket(fileno=descriptor))).run()
