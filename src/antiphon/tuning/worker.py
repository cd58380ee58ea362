"""What does a training for a search and says how it goes; and a process that does one after another, over a pipe.

It ends with the process that began it: what it trains has checkpoints, and the next one goes on from these.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from antiphon.core.errors import AntiphonError, UntrainableError
from antiphon.training.observers import Answer, Observer, Result, Started, StepEvent, Stop, ValidationEvent

OFTEN = 0.5
"""Seconds between two messages on how far a training is."""

PRUNED, JUDGED = "pruned", "judged.json"
"""The reason of a run that was not worth going on with; what a finalist's model says of the pairs that judge it."""


class Line:
    """How a training speaks with its search: what it tells, and the search's answers as they come. Override `tell`."""

    def __init__(self) -> None:
        self.answers = queue.Queue[dict[str, Any]]()
        self.stopping = False

    def tell(self, what: str, **values: Any) -> None:
        """Send one message."""
        raise NotImplementedError

    def hear(self, message: dict[str, Any]) -> None:
        """Take one from the search."""
        self.stopping |= message.get("say") == "stop"
        self.answers.put(message)


class Pipe(Line):
    """A pipe to the search, with a line of JSON for each message."""

    def __init__(self, out: IO[str], heard: IO[str]) -> None:
        super().__init__()
        self.out = out
        threading.Thread(target=self._listen, args=(heard,), daemon=True).start()

    def _listen(self, heard: IO[str]) -> None:
        for line in heard:
            self.hear(json.loads(line))
        os._exit(0)  # the search has gone; a checkpoint is never half written

    def tell(self, what: str, **values: Any) -> None:
        """Send one message."""
        self.out.write(json.dumps({"event": what, **values}) + "\n")
        self.out.flush()


class Reporter(Observer):
    """Tells how a training goes, and asks after each validation whether it is worth going on."""

    def __init__(self, line: Line) -> None:
        self.line, self.last, self.begun = line, 0.0, time.monotonic()
        self.limits: Started | None = None
        self.best: float | None = None

    def started(self, event: Started) -> Answer:
        """Sizes and budgets."""
        self.limits, self.begun = event, time.monotonic() - event.seconds
        self.line.tell("started", parameters=event.parameters, resumed=event.resumed)
        return None

    def step(self, event: StepEvent) -> Answer:
        """Now and then; a search that is to stop is obeyed at once."""
        if (now := time.monotonic()) - self.last >= OFTEN:
            self.last = now
            self.line.tell("step", progress=self._progress(event.step), loss=event.loss, speed=event.tokens_per_second)
        return "stop" if self.line.stopping else None

    def validated(self, event: ValidationEvent) -> Answer:
        """What was found; then wait for what the search makes of it."""
        score = event.scores[self.limits.metric] if self.limits else next(iter(event.scores.values()))
        self.line.tell("validated", progress=self._progress(event.step), step=event.step, value=score.value)
        said = "stop" if self.line.stopping else self.line.answers.get()["say"]
        return Stop(PRUNED, "") if said == "prune" else "stop" if said == "stop" else None

    def _progress(self, step: int) -> float:
        """The share of the run's nearest limit that is used up."""
        limits = self.limits
        assert limits is not None
        shares = [step / limits.steps] if limits.steps else []
        shares += [step / (limits.epochs * limits.epoch_steps)] if limits.epochs else []
        shares += [(time.monotonic() - self.begun) / (60 * limits.minutes)] if limits.minutes else []
        return min(1.0, max(shares, default=step / 10_000))


def work(descriptor: str) -> None:
    """A worker's life: it hears what to train, trains it, and asks for more."""
    line = Pipe(os.fdopen(int(descriptor), "w", encoding="utf-8"), sys.stdin)
    line.tell("ready")
    for job in iter(line.answers.get, None):
        if "run" in job:
            done = ended(job, line)
            line.tell(done.pop("event"), **done)


def ended(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Do a job; gives the last message of it: how the training ended, or why it failed."""
    try:
        return {"event": "ended", **_done(job, line)}
    except AntiphonError as error:
        return {"event": "failed", "text": str(error), "untrainable": isinstance(error, UntrainableError)}


def _done(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """How the training of a job ended; a finalist's model is judged as well."""
    result = _trained(job, Reporter(line))
    found = {"reason": result.reason, "best": result.best, "step": result.step, "epoch": result.epoch,
             "seconds": result.seconds, "interrupted": result.reason in ("signal", "observer")}  # fmt: skip
    if job["judge"] and not found["interrupted"] and not (result.out / JUDGED).exists():
        _judge(result, Path(job["judge"]))
    return found


def _trained(job: Mapping[str, Any], reporter: Reporter) -> Result:
    """The run of a job, begun, gone on with, or as it ended before."""
    from antiphon.training.start import fit, resume

    run = Path(job["run"])
    if (run / "config.json").exists():
        _find_pairs(run, job)
        return resume(run, [reporter])
    return fit(job["train"], out=run, valid=job["valid"], assignments=job["settings"], command=job["command"],
               observers=[reporter])  # fmt: skip


def _find_pairs(run: Path, job: Mapping[str, Any]) -> None:
    """Tell a run where its pairs are now, if the study was moved since it began; that they are the same is checked."""
    from antiphon.inference import files as folders
    from antiphon.inference.strict_json import dump_json
    from antiphon.training.start import read_run

    facts = read_run(run)[1]
    here = {name: [str(Path(job[name]).absolute())] for name in ("train", "valid")}
    known = facts.get("files")
    if isinstance(known, dict) and known != (files := {**known, **here}):
        folders.write_file(run / "data.json", dump_json({**facts, "files": files}))


def _judge(result: Result, judge: Path) -> None:
    """Write what the best model of a run says of the judging pairs, with what it takes to compare it."""
    from antiphon.data.corpus import group_references, open_pairs
    from antiphon.inference import files as folders
    from antiphon.inference.bundle import load
    from antiphon.inference.evaluate import evaluate
    from antiphon.inference.forced import LIKELIHOODS
    from antiphon.inference.predictor import as_trained
    from antiphon.inference.strict_json import dump_json

    if result.bundle is None:
        raise UntrainableError("the training gave no model", where=result.out, do="give it more steps, or more minutes")
    bundle, metric = load(result.bundle), result.metric
    predictor = as_trained(bundle, bundle.config, processes=1)
    pairs = group_references(open_pairs(judge, predictor.config.data))
    forced = metric in [each.name for each in LIKELIHOODS]
    found = evaluate(predictor, pairs, [] if forced else [metric], bootstrap=0)
    rows = found.tables.get("" if forced else metric)
    values = {"value": found.scores[metric].value, "answers": found.answers, "valid": result.best,
              "seconds": round(result.seconds, 2), "rows": rows.tolist() if rows is not None else None}  # fmt: skip
    folders.write_file(result.out / JUDGED, dump_json(values))


def lines(descriptor: IO[str]) -> Iterator[dict[str, Any]]:
    """The messages of a worker, to its end."""
    for line in descriptor:
        yield json.loads(line)
