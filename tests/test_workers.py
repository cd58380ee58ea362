"""Processes that share batches: the same sums as one process, exact resume, and no way to hang or to be left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from antiphon.core.batch import Batch, pad
from antiphon.core.config import Config, Training
from antiphon.core.errors import ConfigError, TrainingError
from antiphon.core.machine import cores
from antiphon.models.seq2seq import build
from antiphon.training import trainer, workers
from antiphon.training.checkpoint import Checkpoints
from antiphon.training.learner import Learner
from antiphon.training.objectives import Likelihood
from antiphon.training.runner import Local, OutOfMemory, Split, Step, blame, choose, share
from antiphon.training.workers import Parallel, Pipe, Share, Worker, packed, unpacked
from runs import Recorder, configured, light, outcome, run

TWO: dict[str, Any] = {"training__processes": 2, "training__steps": 9, "training__validate_every": 4}


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Worker]]:
    """All workers that a test began; none may be left in the end."""
    made: list[Worker] = []
    begin = Worker.__init__

    def remember(self: Worker, *arguments: Any) -> None:
        begin(self, *arguments)
        made.append(self)

    monkeypatch.setattr(Worker, "__init__", remember)
    yield made
    assert all(worker.process.returncode is not None for worker in made)


# What is chosen, and who gets what


@pytest.mark.parametrize(("given", "tokens", "available", "expected"), [
    ({}, 2048, 2, (2, 1)), ({}, 1999, 2, (1, 2)), ({}, 4096, 1, (1, 1)), ({}, 4096, 8, (4, 2)),
    ({}, 99_999, 64, (8, 8)), ({"threads": 1}, 4096, 2, (1, 1)), ({"threads": 2}, 4096, 2, (1, 2)),
    ({"processes": 2}, 100, 2, (2, 1)), ({"processes": 3}, 100, 2, (3, 1)), ({"processes": 2}, 100, 8, (2, 4)),
    ({"processes": 1}, 9999, 2, (1, 2)), ({"processes": 2, "threads": 2}, 100, 2, (2, 2)),
])  # fmt: skip
def test_processes_and_threads(given: dict[str, int], tokens: int, available: int, expected: tuple[int, int]) -> None:
    settings = Training(**given)
    split = choose(settings, tokens, available)
    assert (split.processes, split.threads) == expected
    assert bool(split.reason) == (not given)
    assert choose(settings, tokens, available, most=1).processes == 1


def test_cores_are_limited_by_the_environment_and_the_container(tmp_path: Path) -> None:
    every, quota = cores({}, tmp_path / "none"), tmp_path / "cpu.max"
    assert every >= 1
    assert cores({"OMP_NUM_THREADS": "1"}) == 1
    assert cores({"OMP_NUM_THREADS": "10000"}, quota) == cores({"OMP_NUM_THREADS": "2,1"}, quota) == every
    for content, expected in (("max 100000\n", every), ("50000 100000\n", 1), ("9900000 100000\n", min(99, every))):
        quota.write_text(content)
        assert cores({}, quota) == expected


def ragged(rows: int, seed: int = 1) -> Batch:
    """Pairs of random lengths, sorted by target as a plan sorts them."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (rows,), generator=draw).sort().values.tolist()

    def side(extra: int) -> Any:
        return pad([torch.randint(4, 12, (length + extra,), generator=draw).tolist() for length in lengths])

    return Batch(side(1), side(0))


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_each_row_goes_to_one_process_and_loads_are_alike(rows: int, ranks: int) -> None:
    batches = [ragged(rows, 1), ragged(rows, 2)]
    parts = share(Step(batches, (1, 2), 0.5, 70), ranks)
    assert [(part.rank, part.ranks) for part in parts] == [(rank, ranks) for rank in range(ranks)]
    assert all(part.seeds == (1, 2) and part.progress == 0.5 and part.limit == 70 for part in parts)
    found = [row for part in parts for batch in part.batches for row in texts(batch)]
    assert sorted(found) == sorted(row for batch in batches for row in texts(batch))
    if rows == 40:
        loads = [sum(batch.tokens for batch in part.batches) for part in parts]
        assert max(loads) < 1.15 * min(loads)


def texts(batch: Batch) -> list[list[int]]:
    """The rows of a batch without padding."""
    sides = zip(batch.source.values, batch.source.lengths_B, batch.target.values, batch.target.lengths_B, strict=True)
    return [[*source[:s].tolist(), *target[:t].tolist()] for source, s, target, t in sides]


def test_a_step_survives_its_message() -> None:
    plain = ragged(3)
    batch = Batch(plain.source, plain.target, {"copy": plain.source})
    step = Step([batch, batch], (1, 1 << 40), 1 / 3, None, 1, 2)
    found = unpacked(*packed(step))
    assert replace(found, batches=[]) == replace(step, batches=[])
    for one, other in zip(found.batches, step.batches, strict=True):
        assert texts(one) == texts(other)
        assert torch.equal(one.context["copy"].values, other.context["copy"].values)


# The same sums as one process


def learner(config: Config) -> Learner:
    """A fresh model of twelve tokens a side, and what trains it."""
    return Learner(build(config.model, 12, 12), config.training)


def test_two_processes_find_what_one_finds() -> None:
    config = configured("transformer", training__processes=2, model__dropout=0.0, training__optimizer="sgd")
    alone, shared = learner(config), learner(config)
    local, parallel = Local(config.training), Parallel(config.training, Split(2))
    objective = Likelihood(config.training)
    try:
        parallel.begin(config, shared.model, shared.flat, "fp32")
        for number in range(10):
            batches = [ragged(13, number), ragged(1 + number % 3, number)]  # the second is at times too small to share
            losses = []
            for runner, each in ((local, alone), (parallel, shared)):
                each.flat.zero()
                step = Step(batches, (1, number), limit=100 if number % 2 else None)
                losses.append(runner.accumulate(objective, {"model": each.model}, step)["model"])
            if not number:
                torch.testing.assert_close(alone.flat.gradient, shared.flat.gradient, rtol=1e-5, atol=1e-6)
            assert losses[0].count == losses[1].count == sum(batch.count for batch in batches)
            assert float(losses[0].total) == pytest.approx(float(losses[1].total), rel=1e-5)
            for each in (alone, shared):
                each.ready(losses[0].count)
                each.update(0.1)
        torch.testing.assert_close(alone.flat.weights, shared.flat.weights, rtol=1e-4, atol=1e-5)
        assert parallel.seconds() > local.seconds()
        assert blame(parallel, objective, {"model": shared.model}, step) == "the gradient's norm"  # nothing is wrong
        next(shared.model.decoder.parameters()).data.view(-1)[0] = torch.nan
        assert blame(parallel, objective, {"model": shared.model}, step).startswith("model.decoder.")
        beyond = Batch(ragged(2).source, pad([[5, 5], [99, 99]]))  # no such token, in the worker's half
        with pytest.raises(RuntimeError, match=r"in a worker process of training:\n(.*\n)*IndexError"):
            parallel.accumulate(objective, {"model": shared.model}, Step([beyond], (1, 1)))
    finally:
        parallel.close()
        parallel.close()


def test_dropout_differs_between_the_halves_and_between_steps() -> None:
    config = configured()
    seen = []

    class Draw(Likelihood):
        def __call__(self, *arguments: Any) -> Any:
            seen.append(float(torch.rand(())))
            return super().__call__(*arguments)

    model, step = learner(config).model, Step([ragged(8), ragged(9)], (1, 1))
    for part in [*share(step, 2), *share(replace(step, seeds=(1, 2)), 2)]:
        Local(config.training).accumulate(Draw(config.training), {"model": model}, part)
    assert len(set(seen)) == 8


def test_frozen_weights_reach_the_workers(tmp_path: Path) -> None:
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("".join(f"{letter} {' '.join([str(0.1 * row)] * 16)}\n" for row, letter in enumerate("abcde")))
    frozen = {"data__source__vectors": str(vectors), "data__source__freeze": True, "model__dropout": 0.0}
    one, two = Recorder(), Recorder()
    run(configured(**{**TWO, **frozen, "training__processes": 1}), tmp_path / "one", observers=[one])
    run(configured(**{**TWO, **frozen}), tmp_path / "two", observers=[two])
    assert [event.loss for event in two.steps] == pytest.approx([event.loss for event in one.steps], rel=1e-4)


# Faults


def test_a_share_too_large_for_memory_is_told_and_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, told = Worker.answer, []

    def full(self: Worker, patience: float) -> Any:
        found = answer(self, patience)
        told.append(found)
        return OutOfMemory(60, 6) if len(told) == 2 else found

    monkeypatch.setattr(Worker, "answer", full)
    watcher = Recorder()
    assert run(configured(**TWO), tmp_path, observers=[watcher]).reason == "steps"
    assert len(told) == 10
    assert [note.kind for note in watcher.notes if note.kind == "split"] == ["split"]
    assert Checkpoints(tmp_path).newest().state.limit == 30


def test_a_worker_says_what_did_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise MemoryError

    config = configured()
    place = {"rank": 1, "processes": 2, "threads": 1, "matmul": "highest", "precision": "fp32", "sizes": (12, 12)}
    with workers.nameless() as memory:
        memory.truncate(2 * learner(config).flat.weights.nbytes)
        worker = Share(memory.fileno(), {"config": workers.to_dict(config), **place}, {})
        monkeypatch.setattr(Local, "_one", never)
        assert worker(Step([ragged(3)], (1, 1)))["memory"][1] == 3


def test_a_worker_hears_no_signals_and_a_hanging_one_is_given_up(begun: list[Worker], monkeypatch: Any) -> None:
    monkeypatch.setattr(workers, "DYING", 0.1)
    parallel = Parallel(Training(), Split(2))
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            begun[0].process.send_signal(number)
        time.sleep(0.2)
        assert begun[0].process.poll() is None
        begun[0].process.send_signal(signal.SIGSTOP)
        with pytest.raises(TrainingError, match="does not answer"):
            begun[0].answer(0.1)
    finally:
        parallel.close()


def test_what_went_wrong_at_the_beginning_is_told(begun: list[Worker]) -> None:
    parallel = Parallel(Training(), Split(2))
    try:
        begun[0].tell({"threads": "many"}, {})
        begun[0].process.wait(timeout=60)
        begun[0].tell({}, {})
        with pytest.raises(RuntimeError, match=r"in a worker process of training:\n(.*\n)*.*Error"):
            begun[0].answer(1)
    finally:
        parallel.close()


def test_what_a_worker_refuses_is_refused_as_in_one_process(begun: list[Worker]) -> None:
    config = configured("transformer", training__processes=2, model__positions="learned", model__max_positions=3)
    shared, parallel = learner(config), Parallel(config.training, Split(2))
    try:
        parallel.begin(config, shared.model, shared.flat, "fp32")
        begun[0].tell(*packed(Step([Batch(pad([[5] * 4]), pad([[5, 5]]))], (1, 1))))
        with pytest.raises(ConfigError, match="learned positions end at 3"):
            begun[0].answer(60)
    finally:
        parallel.close()


def test_a_worker_ends_with_its_main_process(begun: list[Worker]) -> None:
    parallel = Parallel(Training(), Split(2))
    begun[0].pipe.connection.close()
    assert begun[0].process.wait(timeout=60) == 0
    parallel.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, Any]]:
    """What an uninterrupted run of two processes comes to; made once."""

    @cache
    def make() -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("whole")
        run(configured(**TWO), folder)
        return outcome(folder)

    return make


def test_a_dead_worker_is_a_clear_error_and_no_loss(
    tmp_path: Path, begun: list[Worker], whole: Callable[[], Any]
) -> None:
    class Kill(Recorder):
        def step(self, event: Any) -> Any:
            if event.step == 6:
                os.kill(begun[0].process.pid, signal.SIGKILL)
            return super().step(event)

    with pytest.raises(TrainingError, match=r"a worker process of training died \(SIGKILL\).*antiphon resume"):
        run(configured(**TWO), tmp_path, observers=[Kill()])
    assert Checkpoints(tmp_path).newest().state.step == 4
    run(configured(**TWO), tmp_path, resume=True)
    assert outcome(tmp_path) == whole()


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from pytest import MonkeyPatch
from antiphon.training.observers import Observer
from antiphon.training.workers import Worker
from runs import configured, light, run
from test_workers import TWO
light(MonkeyPatch())
begin = Worker.__init__
def told(self, *arguments):
    begin(self, *arguments)
    print(self.process.pid, flush=True)
Worker.__init__ = told
class Tell(Observer):
    def step(self, event):
        print("step", flush=True)
        sys.stdin.readline()
out = Path(sys.argv[1])
result = run(configured(**TWO), out, resume=out.exists(), observers=[Tell()], save_seconds=0.0)
sys.exit(result.exit_code)
"""


def stopped(out: Path, number: int, steps: int) -> tuple[int, int]:
    """The exit code of a run and the number of its worker, when all of its group got a signal after so many steps."""
    command = [sys.executable, "-c", SCRIPT, str(out), str(Path(__file__).parent)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True, bufsize=1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    for _ in range(steps):
        assert process.stdout.readline() == "step\n"
        process.stdin.write("\n")
    (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
    process.communicate("\n" * 20)
    return process.returncode, worker


def gone(number: int) -> bool:
    """Whether a process ends soon."""
    for _ in range(600):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_stopped_and_killed_it_ends_with_the_same_bits(tmp_path: Path, whole: Callable[[], Any]) -> None:
    out = tmp_path / "run"
    code, worker = stopped(out, signal.SIGINT, 3)
    assert code == 128 + signal.SIGINT
    assert gone(worker)
    code, worker = stopped(out, signal.SIGKILL, 2)
    assert code == -signal.SIGKILL
    assert gone(worker)
    assert run(configured(**TWO), out, resume=True).reason == "steps"
    assert outcome(out) == whole()


def test_a_pipe_whose_other_end_has_gone(begun: list[Worker]) -> None:
    ours, theirs = os.pipe()
    os.close(theirs)
    with pytest.raises(EOFError):
        Pipe(ours).hear()


def test_one_process_where_that_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert type(workers.launch(configured())) is Local
    assert trainer.launch is workers.launch
