"""Whether the best settings are really better: finalists and the recipe are trained anew with other seeds, and then
judged by pairs that chose nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antiphon import metrics
from antiphon.data.batching import mix
from antiphon.inference.forced import LIKELIHOODS
from antiphon.inference.strict_json import load_json
from antiphon.metrics.base import Pooled, Stats, digits_of
from antiphon.metrics.significance import resample
from antiphon.tuning.crew import Job, Jobs, never_begun
from antiphon.tuning.search import Row, Tell, changed, tidy
from antiphon.tuning.study import Study
from antiphon.tuning.worker import JUDGED

RECIPE = "recipe"
ROUNDS = 1000

T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
        2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip
"""97.5 % points of Student's t for 1 to 30 degrees of freedom."""


@dataclass(frozen=True)
class Final:
    """The trainings of one setting with fresh seeds: `runs` and what validation and the judging pairs say of each."""

    name: str
    changes: Mapping[str, Any]
    runs: tuple[Path, ...]
    valid: tuple[float, ...]
    judged: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of what validation says, by which the winner is chosen."""
        return sum(self.valid) / len(self.valid)


@dataclass(frozen=True)
class Gain:
    """How much better settings are than the recipe on the judging pairs: a difference of means over seeds, its 95 %
    interval, and the seeds behind it."""

    metric: str
    higher: bool
    recipe: float
    found: float
    interval: tuple[float, float]
    seeds: int

    @property
    def difference(self) -> float:
        """Found minus recipe."""
        return self.found - self.recipe

    @property
    def better(self) -> bool:
        """Whether all of the interval is on the good side of 0."""
        return self.interval[0] > 0 if self.higher else self.interval[1] < 0

    @property
    def worse(self) -> bool:
        """Whether all of the interval is on the bad side of 0."""
        return self.interval[1] < 0 if self.higher else self.interval[0] > 0

    def __str__(self) -> str:
        digits, (low, high) = digits_of(self.metric), self.interval
        values = f"{self.metric} {self.recipe:.{digits}f} -> {self.found:.{digits}f}"
        return f"{values}: {self.difference:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


class Finals(Jobs):
    """Trainings of the recipe and of each finalist with fresh seeds, one seed after the other."""

    def __init__(
        self, study: Study, finalists: Sequence[Row], seeds: int, late: Callable[[], bool], tell: Tell
    ) -> None:
        self.study, self.late, self.tell = study, late, tell
        self.entries = [Row(RECIPE, "left", {}), *finalists]
        self.plan = [(entry, seed) for seed in range(1, seeds + 1) for entry in self.entries]
        self.rows: dict[str, Row] = {}
        self.values: dict[str, float] = {}

    def next(self) -> Job | None:
        """The next that is not yet judged; where time is out, what makes up whole seeds is still done."""
        while self.plan:
            entry, seed = self.plan[0]
            if entry.name == RECIPE and seed > 1 and self.late():
                return None
            self.plan.pop(0)
            name, run = f"{entry.name} seed {seed}", self.run(entry, seed)
            if not (run / JUDGED).exists():
                self._show(Row(name, "running", entry.changes))
                return Job(name, run, self._settings(entry, seed), judge=True)
            self._done(Row(name, "done", entry.changes), run)
        return None

    def _done(self, row: Row, run: Path) -> None:
        found = judged(run)
        self.values[row.name] = found["valid"]
        tidy(run, True)
        self._show(changed(row, state="done", best=found["valid"], seconds=found["seconds"]))

    def run(self, entry: Row, seed: int) -> Path:
        """The run of a finalist with the n-th fresh seed."""
        name = entry.name if entry.name == RECIPE else f"{int(entry.name):04d}"
        return self.study.out / "finals" / f"{name}-seed{seed}"

    def _settings(self, entry: Row, seed: int) -> dict[str, Any]:
        chosen = {**self.study.spec.recipe, **entry.changes}
        return {**self.study.spec.given, **chosen, "training.seed": self.study.spec.seed + seed}

    def heard(self, job: Job, message: Mapping[str, Any]) -> str:
        """Finalists are trained to the end."""
        row = changed(self.rows[job.name], progress=message.get("progress", 0.0))
        if message["event"] == "validated":
            row = changed(row, values={**row.values, math.floor(100 * row.progress): message["value"]})
        self._show(row)
        return "go"

    def ended(self, job: Job, message: Mapping[str, Any]) -> None:
        """Keep what validation says. A recipe that cannot be trained is an error, a finalist is out."""
        if message["event"] == "ended":
            self._done(self.rows[job.name], job.run)
        elif job.name.startswith(RECIPE):
            raise never_begun(message["text"])
        else:
            self._show(changed(self.rows[job.name], state="failed", note=message["text"]))

    def left(self) -> None:
        """Show what was stopped as it is."""
        for row in [row for row in self.rows.values() if row.state == "running"]:
            self._show(changed(row, state="left"))

    def results(self) -> list[Final]:
        """Those that have been trained with every seed that all have; the recipe first."""
        found = []
        seeds = self._seeds(self.entries[0])
        for entry in self.entries:
            mine = [seed for seed in seeds if seed in self._seeds(entry)]
            if mine == seeds and seeds:
                runs = tuple(self.run(entry, seed) for seed in seeds)
                valid = tuple(self.values[f"{entry.name} seed {seed}"] for seed in seeds)
                found.append(Final(entry.name, entry.changes, runs, valid, tuple(judged(run)["value"] for run in runs)))
        return found

    def _seeds(self, entry: Row) -> list[int]:
        return [seed for seed in range(1, 1000) if f"{entry.name} seed {seed}" in self.values]

    def _show(self, row: Row) -> None:
        self.rows[row.name] = row
        self.tell(row)


def judged(run: Path) -> dict[str, Any]:
    """What a finalist's model says of the judging pairs."""
    found: dict[str, Any] = load_json((run / JUDGED).read_bytes(), where=run / JUDGED)
    return found


def gain(study: Study, finals: Sequence[Final], found: Final) -> Gain:
    """The difference of one to the first, the recipe, on the judging pairs, with an interval for both kinds of chance:
    seeds, and which pairs there are.

    The variance of means over seeds, which all finals are taken to have alike, and that over pairs (bootstrap) add up;
    degrees of freedom by Welch and Satterthwaite. With one seed the interval knows the pairs alone.
    """
    recipe, count = finals[0], len(finals[0].runs)
    first, second = ([judged(run) for run in each.runs] for each in (recipe, found))
    draws = _resampled(study.spec.metric, first, second, mix(study.spec.seed, count))
    of_pairs, freedom = float(np.var(draws, ddof=1)), max(1, study.spec.counts["judge"] - 1)
    spread = float(np.mean([np.var(each.judged, ddof=1) for each in finals])) if count > 1 else 0.0
    of_seeds = 2 * spread / count
    half = _student(of_pairs, freedom, of_seeds, max(1, len(finals) * (count - 1))) * math.sqrt(of_pairs + of_seeds)
    before, after = (sum(each.judged) / count for each in (recipe, found))
    interval = after - before - half, after - before + half
    return Gain(study.spec.metric, study.spec.higher, before, after, interval, count)


def _student(one: float, freedom: int, other: float, others: int) -> float:
    """The 97.5 % point of t for a sum of two variances with their degrees of freedom."""
    spread = one**2 / freedom + other**2 / others
    many = int((one + other) ** 2 / spread) if spread else 31
    return T_95[max(1, many) - 1] if many <= len(T_95) else 1.96


def _resampled(name: str, first: list[dict[str, Any]], second: list[dict[str, Any]], seed: int) -> np.ndarray:
    """Differences of the means over seeds, on pairs drawn with replacement."""
    likelihoods = {each.name: each for each in LIKELIHOODS}
    metric = likelihoods.get(name) or metrics.get(name)
    if isinstance(metric, Pooled):
        return _redrawn(metric, first, second, seed)
    tables: list[Stats] = [np.array(each["rows"]) for each in (*first, *second)]
    width, many = tables[0].shape[1], len(first)
    sums = resample(np.hstack(tables), ROUNDS, seed)
    scores = np.array([[metric.score(row[at * width : (at + 1) * width]) for at in range(2 * many)] for row in sums])
    return scores[:, many:].mean(axis=1) - scores[:, :many].mean(axis=1)


def _redrawn(metric: Pooled, first: list[dict[str, Any]], second: list[dict[str, Any]], seed: int) -> np.ndarray:
    """The same for a metric that sees all answers at once."""
    draw, count = np.random.default_rng(seed), len(first[0]["answers"])
    found = []
    for _ in range(ROUNDS // 10):
        rows = draw.integers(count, size=count)
        means = [np.mean([metric.whole([each["answers"][row] for row in rows]) for each in part])
                 for part in (first, second)]  # fmt: skip
        found.append(means[1] - means[0])
    return np.array(found)
