"""The loop: step, validate, save, until a budget, patience or a signal ends it; and exactly on from there."""

from __future__ import annotations

import math
import shlex
import shutil
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from antiphon.core.batch import Batch, Loss
from antiphon.core.config import Config
from antiphon.core.errors import TrainingError, UntrainableError
from antiphon.data.batching import Loader, epoch_plan, mix
from antiphon.data.corpus import Pair
from antiphon.data.store import Store
from antiphon.inference.hypothesis import NoNumbers
from antiphon.inference.task import Task
from antiphon.training import runner as running
from antiphon.training.adapting import Base, make_learner
from antiphon.training.budget import Budget
from antiphon.training.checkpoint import Checkpoints, Found, State, insist, room
from antiphon.training.identity import begin, ended, fingerprint, fingerprint_pairs, resumable
from antiphon.training.initial import make_model
from antiphon.training.keeping import Keeper
from antiphon.training.learner import Learner, Players
from antiphon.training.objectives import SEQUENCE_LEVEL, Turn
from antiphon.training.observers import (
    Audience,
    Log,
    Note,
    Result,
    Started,
    StepEvent,
    Stop,
    ValidationEvent,
    per_token,
)
from antiphon.training.optimizers import rate_at
from antiphon.training.probes.watch import Probes
from antiphon.training.reinforcement import make_objective
from antiphon.training.runner import Arithmetic, Interrupted, Local, OutOfMemory, Signals, Step, arithmetic
from antiphon.training.validation import Outcome, Validator
from antiphon.training.workers import launch

BAD_IN_A_ROW, ROLLBACKS = 3, 3
"""Non-finite steps in a row that roll back, and roll-backs that end the run."""

SAVE_SECONDS = 300.0
"""A checkpoint at least this often, besides the one at each validation."""

FRESH = "from fresh weights has no good answers to learn from: train by likelihood, then go on --from that"


def train(
    config: Config, task: Task, store: Store, valid: Sequence[Pair], out: Path, *, observers: Sequence[Any] = (),
    resume: bool = False, facts: Mapping[str, Any] | None = None, save_seconds: float = SAVE_SECONDS, workers: int = 0,
    notes: Sequence[Note] = (), stop: Stop | None = None, runner: Local | None = None,
    start: Mapping[str, torch.Tensor] | None = None, base: Base | None = None,
) -> Result:  # fmt: skip
    """Train a model on a store of examples, judged by held-out pairs, in the run folder `out`.

    `config` must be complete. `notes` were told before, and only join the log and the result; with `stop` an observer
    has ended the run already. `facts` (hashes, paths) are kept in `data.json`; with `resume` they must be as they were,
    and so must the settings. The run goes on from the newest checkpoint that verifies; a finished one is left
    untouched. Killed at any moment and resumed, it ends with the same bits as uninterrupted, on the same machine with
    the same versions - but for `training.minutes`, where the clock decides the learning rate and the end. `runner` is
    that of `workers.launch`, `start` weights to begin with, `base` the bundle that an adapter goes into.

    Raises `ConfigError`, `DataError`, `TrainingError` or `BundleError`. A signal is no error: see `Result.interrupted`.
    """
    running.check(config.training)
    out = Path(out)
    known = {**(facts or {}), "store": fingerprint(store), "valid": fingerprint_pairs(valid)}
    found = resumable(config, out, known) if resume else None
    if found is not None and found.state.done:
        return ended(out, found.state, config)
    if not resume:
        begin(config, out, known)
    audience = Audience([log := Log(out / "log.jsonl"), *observers])
    if resume:
        log.cut(found.state.log if found else 0)
    audience.notes.extend(notes)
    audience.stop = stop
    for note in notes:
        log.noted(note)
    runner = runner or launch(config, found.state if found else None)
    with Signals() as signals, closing(log), closing(runner):
        try:
            trainer = Trainer(config, task, store, valid, out, audience, log, signals, runner)
            trainer.save_seconds, trainer.workers, trainer.facts = save_seconds, workers, known
            return trainer.run(found, start, base)
        except BaseException:
            if not Checkpoints(out).all():
                shutil.rmtree(out, ignore_errors=True)  # there is nothing to go on from
            raise


class Trainer:
    """One run. `run` may be called once."""

    def __init__(
        self, config: Config, task: Task, store: Store, valid: Sequence[Pair], out: Path, audience: Audience, log: Log,
        signals: Signals, runner: Local,
    ) -> None:  # fmt: skip
        self.config, self.settings, self.task, self.store, self.out = config, config.training, task, store, out
        self.audience, self.log, self.signals, self.runner = audience, log, signals, runner
        self.objective, self.adapter = make_objective(config, task), config.model.adapter.name
        self.validator, self.valid_pairs = Validator(config, task, valid, self.objective.metrics), len(valid)
        self.state = State()
        self.save_seconds, self.workers = SAVE_SECONDS, 0
        self.facts: Mapping[str, Any] = {}
        self.budget = Budget(self.settings)
        self.probes, self.rows = Probes(config, task, store, valid, audience.tell), list[np.ndarray]()
        watchers = self.objective.watcher, self.probes if self.settings.probes else None
        audience.observers.extend(filter(None, watchers))

    def run(self, found: Found | None, start: Mapping[str, torch.Tensor] | None, base: Base | None) -> Result:
        """Train to the end or to a signal."""
        threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        try:
            with torch.random.fork_rng(devices=[]), running.within_memory(self.out):
                self._prepare(found, start, base)
                return self._finish(self._loop())
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)

    # The beginning

    def _prepare(self, found: Found | None, start: Mapping[str, torch.Tensor] | None, base: Base | None) -> None:
        self.saved = time.monotonic()
        Checkpoints(self.out).sweep()
        self._set_machine(found.state if found else None)
        self.model, lines = make_model(self.config, self.task, fresh=found is None, start=start)
        self.learner = make_learner(self.config, self.model.to(self.runner.device), start, base, found)
        self.players = Players(self.learner, self.objective.opponents(self.model))
        self.keeper = Keeper(self.out, self.config, self.task, self.learner, len(self.store), self.facts)
        if found is not None:
            self.players.restore(found.files)
            self.state = found.state
        elif start is None and self.settings.objective in SEQUENCE_LEVEL:
            self.audience.note("start", f"training.objective={self.settings.objective} {FRESH}")
        self.objective.begin(self.model, found.files if found else None)
        self.probes.begin(self.model, self.learner, found.files if found else None)
        self.runner.begin(self.config, self.model, self.learner.flat, self.state.precision)
        self.budget.start(self.state.seconds, self.state.validation_seconds)
        self._announce(found)
        for line in lines:
            self.audience.note("data", line)
        if found is None:
            self._save()

    def _set_machine(self, before: State | None) -> None:
        """Processes, threads, matrix products: as before, since other sums round otherwise; or the best there are."""
        self.state.processes, self.state.threads = self.runner.split.processes, self.runner.split.threads
        torch.set_num_threads(self.state.threads)
        if before is not None:
            self.arithmetic = Arithmetic(before.matmul, before.precision)
        else:
            self.arithmetic = arithmetic(self.settings, self.runner.device)
        self.state.matmul, self.state.precision = self.arithmetic.matmul, self.arithmetic.precision
        torch.set_float32_matmul_precision(self.state.matmul)

    def _announce(self, found: Found | None) -> None:
        settings, parameters = self.settings, sum(p.numel() for p in self.model.parameters())
        self.budget.epoch_steps = math.ceil(len(self._plan()) / settings.accumulate)
        self.audience.tell("started", Started(
            self.out, parameters, len(self.store), self.valid_pairs, self.budget.epoch_steps, settings.steps,
            settings.epochs, settings.minutes, self.validator.metric, self.state.step if found else None,
            self.state.seconds, self.state.processes, self.state.threads, str(self.runner.device),
        ))  # fmt: skip
        for choice in (self.runner.split, self.arithmetic):
            if choice.reason:
                self.audience.note("choice", str(choice), self.state.step)
        for problem in found.problems if found else ():
            text = f"{problem}; going on from the checkpoint before it, step {self.state.step}"
            self.audience.note("resume", text, self.state.step)
        if warning := room(self.out, 4 * 12 * self.players.size):
            self.audience.note("save", warning, self.state.step)

    # The loop

    def _loop(self) -> str:
        groups = self._groups()
        try:
            while True:
                if self.budget.due(self.state):
                    self._validate()
                if reason := self._reason():
                    return reason
                self._step(groups)
                if time.monotonic() - self.saved >= self.save_seconds:
                    self._save()
        except Interrupted:
            return "signal"
        finally:
            groups.close()

    def _plan(self) -> list[np.ndarray]:
        tokens, data = self.config.data.batch_tokens or 4096, self.config.data
        return epoch_plan(self.store, tokens, self.settings.seed, self.state.epoch, data.mix, data.temperature)

    def _groups(self) -> Generator[list[Batch]]:
        """The batches of each optimizer step, epoch after epoch, from the state's place on."""
        many = self.settings.accumulate
        encode = self.task.sampled if self.store.texts is not None else None
        while True:
            batches = self._plan()
            self.budget.epoch_steps = math.ceil(len(batches) / many)
            seed = mix(self.settings.seed, self.state.epoch)
            loader = iter(Loader(self.store, batches, self.state.group * many, self.workers, encode, seed))
            with closing(loader):  # type: ignore[type-var]
                while group := list(islice(loader, many)):
                    self.rows = [batches[number] for number, _ in group]
                    yield [batch for _, batch in group]

    def _reason(self) -> str:
        """Why to end now; empty to go on."""
        if self.signals.number:
            return "signal"
        return self.audience.stop.reason if self.audience.stop else self.budget.used_up(self.state)

    # One step

    def _step(self, groups: Iterator[list[Batch]]) -> None:
        state, wall, cpu = self.state, time.perf_counter(), self.runner.seconds()
        batches = next(groups)
        shares, epoch, place = (self.budget.progress(state), self.budget.hurry()), state.epoch, state.group
        state.step += 1
        self._advance()
        where = f"step {state.step} (epoch {epoch}, batch {place * self.settings.accumulate})"
        loss, norm, good, rate = Loss(torch.tensor(math.inf), 1), math.inf, True, self._rate(self.learner, *shares)
        last = bool(self.budget.used_up(state))
        with self.probes.watching(state.step, self.runner, batches, self.rows, self.budget.due(state), last):
            for number, turn in enumerate(self.objective.turns()):
                losses, norms, good = self._turn(turn, number, batches, shares, where)
                loss, norm = losses.get("model", loss), norms.get("model", norm)
                if not good:
                    break
        state.in_a_row = 0 if good else state.in_a_row
        seconds, tokens = time.perf_counter() - wall, sum(batch.tokens for batch in batches)
        self.audience.tell("step", StepEvent(
            state.step, epoch, self.budget.epoch_steps, per_token(float(loss.total), loss.count), tokens,
            tokens / seconds, self.runner.seconds() - cpu, rate, norm, self.budget.eta(state), state.skipped,
            self.objective.facts(loss) if loss.sums else {},
        ))  # fmt: skip

    def _turn(
        self, turn: Turn, number: int, batches: list[Batch], shares: tuple[float, float], where: str
    ) -> tuple[dict[str, Loss], dict[str, float], bool]:
        """One update of each player that has a loss, unless something is not finite: then none, and False."""
        losses, step = self._accumulate(turn, number, batches, shares[0])
        learners = {name: self.players.learners[name] for name in losses}
        norms = {name: learner.ready(losses[name].count) for name, learner in learners.items()}
        nats = [per_token(float(loss.total), loss.count) for loss in losses.values()]
        good = all(map(math.isfinite, [*norms.values(), *nats]))
        if good:
            for learner in learners.values():
                learner.update(self._rate(learner, *shares))
        else:
            self._skip(turn, step, where)
        return losses, norms, good

    def _rate(self, learner: Learner, progress: float, hurry: float) -> float:
        return rate_at(learner.settings, self.state.step, progress, hurry) * self.state.pace(learner.settings.schedule)

    def _advance(self) -> None:
        self.state.group += 1
        if self.state.group == self.budget.epoch_steps:
            self.state.epoch, self.state.group = self.state.epoch + 1, 0

    def _accumulate(
        self, turn: Turn, number: int, batches: list[Batch], progress: float
    ) -> tuple[dict[str, Loss], Step]:
        """The summed gradients of the batches, in smaller pieces from where memory does not suffice."""
        state = self.state
        seeds = (self.settings.seed, state.step, *([number] if number else []))
        while True:
            step = Step(batches, seeds, progress, state.limit)
            self.players.zero()
            try:
                return self.runner.accumulate(turn, self.players.models, step), step
            except OutOfMemory as error:
                if error.rows == 1 or state.halvings >= running.HALVINGS:
                    raise running.no_room(error) from None
                state.halvings, state.limit = state.halvings + 1, error.size // 2
                text = f"a batch of {error} did not fit in memory: such batches go through in halves from now on"
                self.audience.note("split", text, state.step)

    def _skip(self, turn: Turn, step: Step, place: str) -> None:
        state = self.state
        state.skipped, state.in_a_row = state.skipped + 1, state.in_a_row + 1
        self.players.zero()
        module = running.blame(self.runner, turn, self.players.models, step)
        text = f"{place} skipped: not finite, first in {module}"
        self.audience.note("skip", text, state.step)
        if state.in_a_row >= BAD_IN_A_ROW:
            self._roll_back(text)

    def _roll_back(self, why: str) -> None:
        """Back to the weights of the last validated checkpoint, at half the rate; the data goes on."""
        state = self.state
        if state.rollbacks >= ROLLBACKS:
            do = "lower training.rate, set training.clip, or take training.precision=fp32"
            raise UntrainableError(f"training keeps failing after {ROLLBACKS} roll-backs: {why}", where=self.out, do=do)
        found = self.keeper.rescue(state)
        self.players.restore(found.files)
        state.rollbacks, state.scale, state.in_a_row = state.rollbacks + 1, state.scale / 2, 0
        text = f"rolled back to the weights of step {found.state.step}, and halved the learning rate"
        self.audience.note("rollback", text, state.step)

    # Validation

    def _validate(self) -> None:
        state, begun = self.state, time.monotonic()
        while True:
            if not self.players.finite():
                self._roll_back(f"a weight is not finite after step {state.step}")
            with self.learner.lent(self.learner.judged()):
                try:
                    outcome = self.validator(self.model, self.signals.poll)
                    best = self._judge(outcome)
                    break
                except NoNumbers as error:
                    astray = f"{error.what} after step {state.step}"
            self._roll_back(astray)
        self.model.train()
        self.learner.validated()
        state.judged(self.settings, best=best)
        state.validated = state.anchor = state.step
        self.audience.tell("validated", ValidationEvent(
            state.step, state.epoch, outcome.loss, outcome.scores, outcome.samples, best
        ))  # fmt: skip
        state.validation_seconds = self.budget.validation_seconds = time.monotonic() - begun
        self._save()

    def _judge(self, outcome: Outcome) -> bool:
        """Keep the model's present weights if they are the best so far; the loss decides between equals."""
        state, value = self.state, outcome.scores[self.validator.metric].value
        if not state.beaten(value, outcome.loss, higher=self.validator.higher_is_better):
            return False
        state.best, state.best_loss, state.best_step = value, outcome.loss, state.step
        state.scores = {name: score.value for name, score in outcome.scores.items() if math.isfinite(score.value)}
        self.keeper.best(state, self.budget.elapsed(), outcome.scores)
        return True

    # Saving

    def _save(self) -> OSError | None:
        """Write a checkpoint, the new best model first. A disk that fails is told and tried again, not fatal."""
        if not self.players.finite():
            self._roll_back(f"a weight is not finite after step {self.state.step}")
        self.state.seconds, self.state.log = self.budget.elapsed(), self.log.size()
        failed = insist(self._write)
        self.saved = time.monotonic()
        if failed is not None:
            text = f"the checkpoint of step {self.state.step} could not be written ({failed}); training goes on"
            self.audience.note("save", text, self.state.step)
        return failed

    def _write(self) -> None:
        self.keeper.write_best(self.state)
        self.keeper.write(self.state, self.players.files() | self.objective.files() | self.probes.files())

    # The end

    def _finish(self, reason: str) -> Result:
        if reason not in ("signal", "observer"):
            reason = self._last_looks(reason)
        state = self.state
        state.done = "" if reason in ("signal", "observer") else reason
        if failed := self._save():
            kept = self.keeper.checkpoints.all()
            again = f"antiphon resume {shlex.quote(str(self.out))}" if kept else "train again: there is none before it"
            raise TrainingError(f"the last checkpoint could not be written: {failed}", where=self.out,
                                do=f"make room, then {again}")  # fmt: skip
        if reason == "signal":
            text = f"stopped at step {state.step}; to go on: antiphon resume {shlex.quote(str(self.out))}"
            self.audience.note("stop", text, state.step)
        if self.audience.stop is not None and self.audience.stop.text and reason == self.audience.stop.reason:
            self.audience.note("stop", self.audience.stop.text, state.step)
        result = Result(
            self.out, reason, state.step, state.epoch, self.validator.metric, state.best, state.best_step, state.scores,
            self.out / "best" if state.best is not None else None, state.seconds, state.skipped,
            self.signals.number if reason == "signal" else 0, tuple(self.audience.notes), self.adapter,
        )  # fmt: skip
        self.audience.tell("finished", result)
        return result

    def _last_looks(self, reason: str) -> str:
        """Validate what was not yet, and the average of the last weights."""
        try:
            if self.state.validated != self.state.step and self.state.step:
                self._validate()
            if len(self.learner.last.kept) > 1:
                with self.learner.lent(self.learner.last.mean()):
                    outcome = self.validator(self.model, self.signals.poll)
                    best = self._judge(outcome)
                kept = len(self.learner.last.kept)
                text = f"the average of the last {kept} weights is {'' if best else 'not '}better than the best so far"
                self.audience.note("average", text, self.state.step)
        except Interrupted:
            return "signal"
        return reason
