"""From pairs to settings that suit them: the search, the finals, and what came of both."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from antiphon.core.config import Config
from antiphon.core.errors import ConfigError
from antiphon.core.keys import get, override
from antiphon.core.stopping import interruptible
from antiphon.inference import files as folders
from antiphon.inference.strict_json import dump_json
from antiphon.training.runner import Signals
from antiphon.training.spaces import Among, Range
from antiphon.tuning.cluster import Cluster
from antiphon.tuning.crew import Crew, Jobs, all_cores, finish, processes
from antiphon.tuning.finals import RECIPE, Final, Finals, Gain, gain
from antiphon.tuning.search import Clock, Row, Tell, Trials, importance, ranked
from antiphon.tuning.study import PARTS, SPEC, Study, lock

TRIALS, SHARE, ROUND = 30, 0.6, 20
"""Trials where no budget is given; the share of a budget of minutes that is for the search; and trainings that such a
budget is to have room for, one after another."""


@dataclass(frozen=True)
class Budget:
    """How long to search: trials in all, or minutes in all sessions, or both; finalists, and seeds for each."""

    trials: int | None = None
    minutes: float | None = None
    workers: int | None = None
    finalists: int = 2
    seeds: int = 3

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("workers", 1), ("finalists", 1), ("seeds", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name} must be at least {least}", where="tune", got=value)
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise ConfigError("--minutes must be above 0", where="tune", got=self.minutes)

    @property
    def wanted(self) -> int:
        """Trials in all."""
        return self.trials or (TRIALS if self.minutes is None else 100_000)


@dataclass(frozen=True)
class Weight:
    """How much a setting matters: its share in what makes a trial one of the best, and what these have in common."""

    key: str
    share: float
    text: str


@dataclass(frozen=True)
class Outcome:
    """What came of a search. `best` are the winner's settings besides those given, `bundle` its best model; `gain` is
    that of the best finalist over the recipe. All are None where it was stopped before."""

    out: Path
    metric: str
    trials: list[Row]
    finals: list[Final]
    weights: list[Weight]
    gain: Gain | None
    winner: str
    best: dict[str, Any] | None
    bundle: Path | None
    command: str
    seconds: float
    interrupted: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One sentence: whether the recipe is beaten."""
        if self.best is None:
            return "stopped before the end; the same command goes on"
        if self.gain is None:
            return "no trial was trained to its end: the recipe stands"
        by, seeds = str(self.gain), f"{self.gain.seeds} fresh seed{'s' if self.gain.seeds > 1 else ''}"
        if self.gain.better:
            return f"beats the recipe: {by}, {seeds}"
        if self.gain.worse:
            return f"does not beat the recipe, which is better: {by}, {seeds}"
        return f"is not shown to beat the recipe: {by}, {seeds}"

    def to_bytes(self) -> bytes:
        """As a file."""
        values = {key: getattr(self, key) for key in ("metric", "winner", "best", "command", "verdict", "notes")}
        values |= {"trials": [asdict(row) for row in self.trials], "weights": [asdict(each) for each in self.weights]}
        values |= {"finals": [_final(each) for each in self.finals], "study": str(self.out),
                   "seconds": round(self.seconds, 1), "bundle": str(self.bundle) if self.bundle else None}  # fmt: skip
        if self.gain is not None:
            values["gain"] = {**asdict(self.gain), "difference": self.gain.difference, "better": self.gain.better}
        return dump_json(values)


def _final(each: Final) -> dict[str, Any]:
    return {**asdict(each), "runs": [str(run) for run in each.runs]}


@dataclass(frozen=True)
class Watcher:
    """What is called while a search goes on: `opened` once, `row` whenever a trial or final has moved, `tick` now and
    then, and `finals` where these begin."""

    opened: Callable[[Study, Budget], None] = lambda study, budget: None
    row: Tell = lambda row: None
    finals: Callable[[Sequence[Row]], None] = lambda rows: None


def tune(
    data: Any, out: str | os.PathLike[str], *, valid: Any = None, test: Any = None,
    assignments: Mapping[str, Any] | None = None, budget: Budget | None = None, watcher: Watcher | None = None,
    command: str = "", cluster: str = "",
) -> Outcome:  # fmt: skip
    """Search for settings that beat the recipe's on these pairs; what is in `assignments` is not searched.

    The study is in the folder `out`; called again after whatever ended it, it goes on where it was, trainings from
    their checkpoints. `valid` are pairs that trainings are compared by and `test` those that only the finals see; what
    is not given is held out. `cluster` is the address of a Ray cluster whose machines do the trainings, and share the
    folder. Raises `AntiphonError`; a signal is no error but `Outcome.interrupted`.
    """
    data = list(data) if isinstance(data, Iterator) else data
    budget, watcher, given = budget or Budget(), watcher or Watcher(), dict(assignments or {})
    with ExitStack() as stack:
        with interruptible():
            far = stack.enter_context(closing(Cluster(cluster))) if cluster else None
            budget = replace(budget, workers=budget.workers or (far.size if far else all_cores()))
            study = Study.open(data, Path(out), valid=valid, test=test, given=given, limit=_limit(given, budget))
            if far:
                far.check(study.out)
        watcher.opened(study, budget)
        held, signals = stack.enter_context(lock(study.out)), stack.enter_context(Signals())
        size = budget.workers or 1
        crew = stack.enter_context(closing(Crew(size, study.out, far.hire if far else processes(size, held))))
        return _Search(study, budget, watcher, crew, signals, command).run()


def _limit(given: Mapping[str, Any], budget: Budget) -> dict[str, Any]:
    """An end for each training, where only all of them together have one."""
    limits = ("training.minutes", "training.epochs", "training.steps")
    if budget.minutes is None or any(name in given for name in limits):
        return {}
    return {"training.minutes": max(0.02, round(budget.minutes * (budget.workers or 1) / ROUND, 3))}


class _Search:
    """One session of a search."""

    def __init__(
        self, study: Study, budget: Budget, watcher: Watcher, crew: Crew, signals: Signals, command: str
    ) -> None:
        self.study, self.budget, self.watcher, self.crew, self.signals = study, budget, watcher, crew, signals
        self.command, self.clock = command, Clock(study.out)

    def run(self) -> Outcome:
        """The trials, then the finals."""
        trials = Trials(self.study, self.budget.wanted, self._late(SHARE), self.watcher.row)
        if not self._done(trials):
            trials.left()
            return self._stopped(trials, [])
        finals = Finals(self.study, trials.best(self.budget.finalists), self.budget.seeds, self._late(1.0),
                        self.watcher.row)  # fmt: skip
        self.watcher.finals(finals.entries)
        if not self._done(finals):
            finals.left()
            return self._stopped(trials, [])
        return self._concluded(trials, finals.results())

    def _done(self, jobs: Jobs) -> bool:
        files = {name: self.study.part(name) for name in PARTS}
        done = finish(self.crew, jobs, files, self.command or "antiphon tune", self._poll)
        self.clock.write(now=True)
        return done

    def _poll(self) -> bool:
        self.clock.write()
        return bool(self.signals.number)

    def _late(self, share: float) -> Callable[[], bool]:
        minutes = self.budget.minutes
        return lambda: minutes is not None and self.clock.seconds >= 60 * minutes * share

    def _stopped(self, trials: Trials, finals: list[Final]) -> Outcome:
        return Outcome(self.study.out, self.study.spec.metric, list(trials.rows.values()), finals, [], None, "", None,
                       None, "", self.clock.seconds, self.signals.number)  # fmt: skip

    def _concluded(self, trials: Trials, finals: list[Final]) -> Outcome:
        """The winner by validation, and how it does on pairs that chose nothing."""
        recipe, *others = finals
        sign = -1 if self.study.spec.higher else 1
        winner = min(finals, key=lambda each: sign * each.mean)
        compared = winner if winner is not recipe else min(others, key=lambda each: sign * each.mean, default=None)
        settings = {**self.study.spec.recipe, **winner.changes}
        bundle = self._keep(winner, settings, sign)
        outcome = Outcome(
            self.study.out, self.study.spec.metric, list(trials.rows.values()), finals, list(weights(trials)),
            gain(self.study, finals, compared) if compared else None, winner.name, settings, bundle,
            self._again(), self.clock.seconds,
        )  # fmt: skip
        folders.write_file(self.study.out / "result.json", outcome.to_bytes())
        return outcome

    def _keep(self, winner: Final, settings: Mapping[str, Any], sign: int) -> Path:
        """The winner's settings as `best.toml`, and the best of its models as a bundle."""
        run = min(zip(winner.valid, winner.runs, strict=True), key=lambda each: sign * each[0])[1]
        whole = {**self.study.spec.given, **self.study.spec.asked, **settings}
        folders.write_file(self.study.out / "best.toml", toml(whole).encode())
        aside = self.study.out / f"best.tmp-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(run / "best", aside, ignore=shutil.ignore_patterns("training"))
        folders.verify(aside)
        shutil.rmtree(self.study.out / "best", ignore_errors=True)
        os.replace(aside, self.study.out / "best")
        return self.study.out / "best"

    def _again(self) -> str:
        """What trains the winner's settings anew."""
        words = ["antiphon", "train", self.study.spec.data, "--config", str(self.study.out / "best.toml")]
        valid = ["--valid", self.study.spec.valid] if self.study.spec.valid else []
        return shlex.join([*words, *valid, "--out", "again"])


def toml(settings: Mapping[str, Any]) -> str:
    """Settings by dotted names as TOML that `--config` reads."""
    whole = override(Config(), dict(settings))  # together: some need one another
    values = {key: get(whole, key) for key in settings}
    return "".join(f"{key} = {_spelled(value)}\n" for key, value in sorted(values.items()) if value is not None)


def _spelled(value: Any) -> str:
    """TOML has numbers, words and lists as JSON has them."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def weights(trials: Trials) -> Iterator[Weight]:
    """What matters, the most first, each in words."""
    found = [t for t in trials.begun() if t.state.name in ("COMPLETE", "PRUNED")]
    best = [trial.params for trial in ranked(found, trials.study.spec.higher)[: max(3, len(found) // 4)]]
    ranges = {each.key: each for each in trials.study.spec.ranges}
    for key, share in importance(trials):
        values = [params[key] for params in best if key in params]
        yield Weight(key, share, _said(ranges[key], values, trials.study.spec.recipe[key]))


def _said(each: Range, values: list[Any], own: Any) -> str:
    """What the best trials have in common."""
    if isinstance(each, Among):
        counts = {value: values.count(value) for value in each.values if value in values}
        most = max(counts, key=lambda value: counts[value])
        return f"{most} in {counts[most]} of the best {len(values)}; the recipe has {own}"
    middle = sorted(values)[len(values) // 2]
    spread = f"from {min(values):.3g} to {max(values):.3g}, {middle:.3g} in the middle"
    return f"the best {len(values)} go {spread}; the recipe has {own:.3g}"


__all__ = ["RECIPE", "SPEC", "Budget", "Outcome", "Watcher", "tune"]
