"""The search itself: Optuna proposes settings by what the trials before them were worth, and ends poor trials early."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.core.errors import require
from antiphon.data.batching import mix
from antiphon.inference import files as folders
from antiphon.inference.strict_json import dump_json, load_json
from antiphon.training.spaces import Among, Between, Range
from antiphon.tuning.brackets import BRACKET, bracket, ends, turn
from antiphon.tuning.crew import Job, Jobs, never_begun
from antiphon.tuning.study import Study

if TYPE_CHECKING:
    import optuna

JOURNAL = "trials.log"
POOR = "ended at"
"""What Optuna's journal calls the percent of a training at which a trial was found not worth going on with."""

RANDOM = 8
"""Trials at random before the search follows what it learned (Bergstra et al. 2011)."""


@dataclass(frozen=True)
class Row:
    """A trial, or a finalist with another seed, as it stands. `values` are what validations found by percent of the
    training; `state` is running, done, pruned, failed or left (to be gone on with). `bracket` is the percent after
    which a trial is first compared with others; finalists have none."""

    name: str
    state: str
    changes: Mapping[str, Any]
    values: Mapping[int, float] = field(default_factory=dict)
    best: float | None = None
    progress: float = 0.0
    seconds: float = 0.0
    note: str = ""
    bracket: int = 0


Tell = Callable[[Row], None]


def optuna_() -> Any:
    """Optuna; the error says how to install it."""
    try:
        import optuna
    except ImportError:
        raise require("tune", "optuna") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Trials(Jobs):
    """The trials of a study, `wanted` in all; `late` says when no more may begin, and ends those that run.

    Each depends on the seed, its number and the trials before it alone: one worker finds the same, killed or not.
    """

    def __init__(self, study: Study, wanted: int, late: Callable[[], bool], tell: Tell) -> None:
        self.study, self.wanted, self.late, self.tell = study, wanted, late, tell
        self.optuna, self.journal = optuna_(), _journal(study)
        if not self.journal.trials:
            self.journal.enqueue_trial(dict(study.spec.recipe))
        self.trials: dict[str, optuna.Trial] = {}
        self.rows = {str(trial.number): self._row(trial) for trial in self.begun()}
        for trial in self.begun():
            if trial.state.is_finished():
                tidy(study.trial(trial.number), trial.state.name == "COMPLETE")
        self.open = [trial.number for trial in self.begun() if not trial.state.is_finished()]
        for row in self.rows.values():
            tell(row)

    def begun(self) -> list[optuna.trial.FrozenTrial]:
        """All trials but one that only waits to be."""
        waiting = self.optuna.trial.TrialState.WAITING
        return [trial for trial in self.journal.get_trials(deepcopy=False) if trial.state != waiting]

    def next(self) -> Job | None:
        """A trial that was begun before, or a new one."""
        if self.open:
            number = self.open.pop(0)
        elif (number := len(self.begun())) >= self.wanted or (number and self.late()):
            return None
        return self._job(number)

    def _job(self, number: int) -> Job:
        trial = self._trial(number)
        for each in self.study.spec.ranges:
            _suggest(trial, each)
        if BRACKET not in trial.user_attrs:
            trial.set_user_attr(BRACKET, turn(number))
        self.trials[str(number)] = trial
        about = {**self._before(number), "bracket": trial.user_attrs[BRACKET]}
        self._show(str(number), Row(str(number), "running", self._changes(trial.params), **about))
        return Job(str(number), self.study.trial(number), {**self.study.spec.given, **self._plain(trial.params)})

    def _trial(self, number: int) -> optuna.Trial:
        """A new trial, or one that was begun before: what it lacks is proposed as it would have been."""
        optuna = self.optuna
        self.journal.sampler = optuna.samplers.TPESampler(
            n_startup_trials=RANDOM, multivariate=True, constant_liar=True, seed=mix(self.study.spec.seed, number)
        )
        known = [trial for trial in self.begun() if trial.number == number]
        return optuna.Trial(self.journal, known[0]._trial_id) if known else self.journal.ask()

    def heard(self, job: Job, message: Mapping[str, Any]) -> str:
        """Keep what a validation found; a trial that is not worth going on with is ended, but never the recipe."""
        row, trial = self.rows[job.name], self.trials[job.name]
        progress = message.get("progress", row.progress)
        if message["event"] != "validated":
            self._show(job.name, changed(row, progress=progress))
            return ""
        percent, value = math.floor(100 * progress + 1e-6), message["value"]
        if math.isfinite(value):
            best = value if row.best is None else (max if self.study.spec.higher else min)(row.best, value)
            row = changed(row, progress=progress, best=best, values={**row.values, percent: best})
            if percent not in _reported(self.journal, trial) and POOR not in trial.user_attrs:
                trial.report(best, percent)
        self._show(job.name, row)
        return "prune" if job.name != "0" and (self.late() or self._poor(trial.number, percent)) else "go"

    def _poor(self, number: int, percent: int) -> bool:
        """Whether others of its bracket make a trial not worth going on with. It is written down first: a trial that is
        killed before it has ended is not let go on."""
        trials = self.begun()
        mine = next(trial for trial in trials if trial.number == number)
        poor = POOR in mine.user_attrs or ends(trials, mine, percent, higher=self.study.spec.higher)
        if poor and POOR not in mine.user_attrs:
            self.trials[str(number)].set_user_attr(POOR, percent)
        return poor

    def ended(self, job: Job, message: Mapping[str, Any]) -> None:
        """Write down how a trial ended. What no training can come of counts as poor, what broke
        off as none."""
        states, row, trial = self.optuna.trial.TrialState, self.rows[job.name], self.trials.pop(job.name)
        failed = message["event"] == "failed"
        if failed and job.name == "0":
            raise never_begun(message["text"])
        best = None if failed else message["best"]
        state = "done" if best is not None and message["reason"] != "pruned" else "pruned"
        state = "failed" if failed and not message["untrainable"] else state
        trial.set_user_attr("seconds", round(message.get("seconds", 0.0), 2))
        trial.set_user_attr("note", message.get("text", ""))
        if state == "done":
            self.journal.tell(trial.number, best)
        else:
            self.journal.tell(trial.number, state=states.FAIL if state == "failed" else states.PRUNED)
        tidy(job.run, state == "done")
        about = {"note": message.get("text", ""), "seconds": message.get("seconds", 0.0)}
        self._show(job.name, changed(row, state=state, best=best if best is not None else row.best, **about))

    def best(self, many: int) -> list[Row]:
        """The best trials that were trained to their end, the recipe left out, best first."""
        done = [row for row in self.rows.values() if row.state == "done" and row.name != "0" and row.best is not None]
        sign = -1 if self.study.spec.higher else 1
        return sorted(done, key=lambda row: (sign * (row.best or 0.0), int(row.name)))[:many]

    def left(self) -> None:
        """Show what was stopped as it is."""
        for name in self.trials:
            self._show(name, changed(self.rows[name], state="left"))

    def _show(self, name: str, row: Row) -> None:
        self.rows[name] = row
        self.tell(row)

    def _row(self, trial: optuna.trial.FrozenTrial) -> Row:
        states = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
        best = trial.value if trial.state.name == "COMPLETE" else self._before(trial.number).get("best")
        about = {"seconds": trial.user_attrs.get("seconds", 0.0), "note": trial.user_attrs.get("note", ""),
                 "bracket": bracket(trial)}  # fmt: skip
        return Row(str(trial.number), states.get(trial.state.name, "left"), self._changes(trial.params),
                   dict(trial.intermediate_values), best, **about)  # fmt: skip

    def _before(self, number: int) -> dict[str, Any]:
        """What validations of a trial found in an earlier session."""
        for trial in self.begun():
            if trial.number == number and (values := dict(trial.intermediate_values)):
                last = max(values)
                return {"values": values, "best": values[last], "progress": last / 100}
        return {}

    def _plain(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Steps add up to 0.30000000000000004, which is 0.3."""
        stepped = {each.key for each in self.study.spec.ranges if isinstance(each, Between) and each.step}
        return {key: round(value, 9) if key in stepped else value for key, value in params.items()}

    def _changes(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a trial that are not the recipe's."""
        recipe = self.study.spec.recipe
        return {key: value for key, value in self._plain(params).items() if value != recipe.get(key)}


def _journal(study: Study) -> Any:
    """Optuna's study in its journal, a file that only grows."""
    optuna, path = optuna_(), (study.out / JOURNAL).absolute()
    mend(path)
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    pruner = optuna.pruners.NopPruner()  # see brackets.py
    direction = "maximize" if study.spec.higher else "minimize"
    return optuna.create_study(storage=optuna.storages.JournalStorage(backend), pruner=pruner, direction=direction,
                               study_name="antiphon", load_if_exists=True)  # fmt: skip


def mend(journal: Path) -> None:
    """Take away what a kill in the middle of a write has left: the beginning of a line, and Optuna's own lock. Only
    who holds the study may do so."""
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink()
    if journal.exists():
        content = journal.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(journal, content.rfind(b"\n") + 1)


def _suggest(trial: optuna.Trial, each: Range) -> None:
    if isinstance(each, Among):
        trial.suggest_categorical(each.key, each.values)
    elif float(each.step).is_integer() and each.step:
        trial.suggest_int(each.key, int(each.low), int(each.high), step=int(each.step))
    else:
        trial.suggest_float(each.key, each.low, each.high, step=each.step or None, log=each.log)


def _reported(journal: optuna.Study, trial: optuna.Trial) -> Mapping[int, float]:
    """What the journal has of a trial: one that goes on may find the same twice."""
    return journal.get_trials(deepcopy=False)[trial.number].intermediate_values


def changed(row: Row, **values: Any) -> Row:
    """The row with other values."""
    return Row(**{**vars(row), **values})


def tidy(run: Path, keep: bool) -> None:
    """Leave of an ended run what is worth keeping: its log, and the model where it may be the best."""
    for name in ("checkpoints", "data", *(() if keep else ("best",))):
        shutil.rmtree(run / name, ignore_errors=True)


class Clock:
    """Seconds spent over all sessions, on disk in `clock.json`; written at most every few seconds."""

    def __init__(self, out: Path, every: float = 5.0) -> None:
        self.path, self.every = out / "clock.json", every
        self.before = float(load_json(self.path.read_bytes(), where=self.path)["seconds"]) \
            if self.path.exists() else 0.0  # fmt: skip
        self.begun = self.written = time.monotonic()

    @property
    def seconds(self) -> float:
        """So far."""
        return self.before + time.monotonic() - self.begun

    def write(self, *, now: bool = False) -> None:
        """Keep it."""
        if now or time.monotonic() - self.written >= self.every:
            self.written = time.monotonic()
            folders.write_file(self.path, dump_json({"seconds": round(self.seconds, 1)}))


def importance(trials: Trials) -> Iterator[tuple[str, float]]:
    """Settings with their share in what makes a trial one of the best, by PED-ANOVA (Watanabe et al. 2023).

    Trials count by their rank: those trained to the end by their values, before those that were ended early, later
    ones first. Nothing where there are too few.
    """
    optuna = trials.optuna
    found = [trial for trial in trials.begun() if trial.state.name in ("COMPLETE", "PRUNED")]
    if len(found) < RANDOM:
        return
    ranks = ranked(found, trials.study.spec.higher)
    plain = optuna.create_study(direction="minimize")
    plain.add_trials([
        optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=float(place))
        for place, trial in enumerate(ranks)
    ])  # fmt: skip
    quantile = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    yield from optuna.importance.get_param_importances(plain, evaluator=quantile).items()


def ranked(trials: list[Any], higher: bool) -> list[Any]:
    """Trials, the best first."""
    sign = -1 if higher else 1

    def place(trial: Any) -> tuple[float, ...]:
        if trial.state.name == "COMPLETE":
            return 0, 0, sign * trial.value, trial.number
        last = max(trial.intermediate_values, default=0)
        value = trial.intermediate_values.get(last, math.inf * sign)
        return 1, -last, sign * value, trial.number

    return sorted(trials, key=place)
