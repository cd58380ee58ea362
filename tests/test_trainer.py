"""The loop: budgets, patience, faults, signals and observers. Rows 8, 9 and 10 of the reliability plan."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from antiphon.core.batch import Batch, Loss
from antiphon.core.errors import ConfigError, DataError, TrainingError, UntrainableError
from antiphon.inference import bundle
from antiphon.inference.hypothesis import NoNumbers
from antiphon.inference.predictor import Predictor
from antiphon.training import runner, trainer
from antiphon.training.checkpoint import Checkpoints
from antiphon.training.learner import Learner
from antiphon.training.objectives import Likelihood
from antiphon.training.observers import Observer, StepEvent, read_log
from antiphon.training.start import fit, resume
from antiphon.training.validation import Validator
from runs import Recorder, configured, light, outcome, prepared, run, words


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


# Budgets and stopping


def test_it_learns_and_the_best_model_answers(tmp_path: Path) -> None:
    watcher = Recorder()
    config = configured(training__epochs=30, training__rate=0.01, model__width=32, training__patience=0)
    pairs = [(word, word) for word, _ in words(40)]
    task, store, _ = prepared(config, pairs)
    valid = prepared(config, [*pairs[8:], *pairs[:8]])[2]
    result = trainer.train(config, task, store, valid, tmp_path, observers=[watcher])
    assert result.reason == "epochs"
    assert result.epoch == 30
    losses = [event.loss for event in watcher.steps]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert result.best == min(event.loss for event in watcher.validations)
    answers = [found[0].text for found in Predictor(bundle.load(tmp_path)).predict([word for word, _ in pairs[:8]])]
    best = next(event for event in watcher.validations if event.step == result.best_step)
    assert answers == [answer for _, _, answer in best.samples]


def test_steps_are_counted_from_all_sessions(tmp_path: Path) -> None:
    watcher = Recorder()
    config = configured(training__steps=5)
    assert run(config, tmp_path, observers=[Recorder(2)]).step == 2
    assert run(config, tmp_path, resume=True, observers=[watcher]).reason == "steps"
    assert [event.step for event in watcher.steps] == [3, 4, 5]
    assert [event.epoch_steps for event in watcher.steps] == [3, 3, 3]


def test_minutes_end_a_run_in_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    result = run(configured(training__minutes=0.03, training__patience=0, training__schedule="cosine"), tmp_path)
    assert result.reason == "minutes"
    assert time.monotonic() - begun < 10
    assert result.bundle is not None
    rates = [event["rate"] for event in read_log(tmp_path / "log.jsonl") if event["event"] == "step"]
    assert rates[-1] < 0.2 * max(rates)


def test_patience_counts_validations_without_a_best(tmp_path: Path) -> None:
    config = configured(training__patience=2, training__rate=1e-12, training__validate_every=2)
    result = run(config, tmp_path)
    assert result.reason == "patience"
    assert result.step == result.best_step + 2 * 2


def test_a_plateau_lowers_the_rate(tmp_path: Path) -> None:
    watcher, more = Recorder(), {"training__patience": 5, "training__steps": 20, "training__validate_every": 2}
    run(configured(training__schedule="plateau", training__rate=1e-12, training__warmup=0, **more), tmp_path,
        observers=[watcher])  # fmt: skip
    rates = [event.rate for event in watcher.steps]
    assert rates[0] == 1e-12
    assert rates[-1] == 0.5e-12 or rates[-1] == 0.25e-12


def test_validation_by_answers_and_ties(tmp_path: Path) -> None:
    watcher = Recorder()
    config = configured(training__metric="exact", training__steps=8, training__validate_every=2)
    result = run(config, tmp_path, observers=[watcher])
    assert result.metric == "exact"
    assert all(event.scores["exact"].interval is not None for event in watcher.validations)
    best = max(watcher.validations, key=lambda event: (event.scores["exact"].value, -event.loss))
    assert result.best_step == best.step


def test_an_observer_without_all_methods_will_do(tmp_path: Path) -> None:
    class Bare:
        def step(self, event: Any) -> str:
            return "stop"

    assert run(configured(training__steps=5), tmp_path, observers=[Bare(), Observer()]).step == 1


def test_a_run_that_would_never_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never end"):
        run(configured(training__patience=0), tmp_path)


def test_unknown_metrics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean bleu"):
        run(configured(training__metric="blue", training__steps=2), tmp_path)


def test_averages_are_what_is_served(tmp_path: Path) -> None:
    config = configured(training__ema=0.5, training__steps=4, training__validate_every=4)
    run(config, tmp_path)
    newest = Checkpoints(tmp_path).newest().files
    served = (tmp_path / "best" / "model.safetensors").read_bytes()
    assert newest["model.safetensors"] != served


def test_the_average_of_the_last_weights_is_judged(tmp_path: Path) -> None:
    watcher = Recorder()
    config = configured(training__average=3, training__steps=12, training__validate_every=2)
    run(config, tmp_path, observers=[watcher])
    assert [note.text for note in watcher.notes if note.kind == "average"]


# Faults


class Poisoned(Likelihood):
    """Gives a loss, or a gradient, that is not a number in the steps that are asked for."""

    steps: tuple[int, ...] = ()
    gradient_only = False
    seen = 0

    def __call__(self, models: Any, batch: Batch, progress: float) -> dict[str, Loss]:
        loss = super().__call__(models, batch, progress)["model"]
        now = Poisoned.now()
        if now not in self.steps:
            return {"model": loss}
        if self.gradient_only:
            bias = models["model"].head.bias
            return {"model": Loss(loss.total + (bias - bias.detach()).abs().sqrt().sum(), loss.count)}
        return {"model": Loss(loss.total * math.nan, loss.count)}

    @staticmethod
    def now() -> int:
        return Poisoned.seen


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets which steps are poisoned."""
    real = trainer.Trainer._accumulate

    def accumulate(self: Any, *turn: Any) -> Any:
        Poisoned.seen = self.state.step
        return real(self, *turn)

    def make(*steps: int, gradient_only: bool = False) -> None:
        monkeypatch.setattr(Poisoned, "steps", steps)
        monkeypatch.setattr(Poisoned, "gradient_only", gradient_only)
        monkeypatch.setattr(trainer, "make_objective", lambda config, task: Poisoned(config.training))
        monkeypatch.setattr(trainer.Trainer, "_accumulate", accumulate)

    return make


@pytest.mark.parametrize("gradient_only", [False, True])
@pytest.mark.parametrize("bad", [1, 4])
def test_a_poisoned_batch_is_as_if_it_had_not_been(bad: int, gradient_only: bool, tmp_path: Path, poison: Any,
                                                   monkeypatch: Any) -> None:  # fmt: skip
    config = configured(training__steps=7, model__dropout=0.0, training__warmup=0)
    poison(bad, gradient_only=gradient_only)
    watcher = Recorder()
    result = run(config, tmp_path / "poisoned", observers=[watcher])
    assert result.skipped == 1
    (note,) = [note for note in watcher.notes if note.kind == "skip"]
    assert f"step {bad} (epoch {(bad - 1) // 3}, batch {(bad - 1) % 3})" in note.text
    assert ("the gradient of model.head.bias" if gradient_only else "the loss") in note.text
    poison()
    update = Learner.update
    count = iter(range(1, 100))
    monkeypatch.setattr(Learner, "update", lambda self, rate: next(count) != bad and update(self, rate))
    run(config, tmp_path / "without")
    found, expected = outcome(tmp_path / "poisoned"), outcome(tmp_path / "without")
    for name in ("model.safetensors", "training/optimizer.safetensors", "best"):
        assert found[name] == expected[name]


def test_the_first_broken_module_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    made: list[Any] = []
    real = trainer.make_model

    def make(*arguments: Any, **named: Any) -> Any:
        made.append(real(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(trainer, "make_model", make)

    class Damage(Recorder):
        def step(self, event: Any) -> Any:
            if event.step == 2:
                next(made[-1][0].decoder.parameters()).data.view(-1)[0] = math.nan
            return super().step(event)

    watcher = Damage()
    monkeypatch.setattr(trainer, "ROLLBACKS", 0)
    with pytest.raises(TrainingError, match="keeps failing"):
        run(configured(training__steps=9), tmp_path, observers=[watcher])
    assert "first in model.decoder." in next(note.text for note in watcher.notes if note.kind == "skip")


def test_three_bad_steps_roll_back_and_go_on(tmp_path: Path, poison: Any) -> None:
    poison(7, 8, 9)
    watcher = Recorder()
    config = configured(training__steps=12, training__validate_every=3, training__warmup=0)
    result = run(config, tmp_path, observers=[watcher])
    assert result.skipped == 3
    (note,) = [note for note in watcher.notes if note.kind == "rollback"]
    assert note.step == 9
    assert "step 6" in note.text
    rates = {event.step: event.rate for event in watcher.steps}
    assert rates[10] == rates[6] / 2
    assert result.reason == "steps"
    assert all(math.isfinite(event.loss) for event in watcher.validations)


def test_rolling_back_resumes_exactly(tmp_path: Path, poison: Any) -> None:
    poison(7, 8, 9)
    config = configured(training__steps=12, training__validate_every=3)
    run(config, tmp_path / "whole")
    for stop in (8, 9):
        folder = tmp_path / str(stop)
        run(config, folder, observers=[Recorder(stop)])
        run(config, folder, resume=True)
        assert outcome(folder) == outcome(tmp_path / "whole")


def test_a_model_that_gives_no_numbers_is_rolled_back_at_its_validation(tmp_path: Path, monkeypatch: Any) -> None:
    """Its weights are finite, and it fell between a step that was skipped and the one that would have rolled back."""
    judge, looks = Validator.__call__, list[int]()

    def astray(self: Any, *given: Any) -> Any:
        looks.append(len(looks))
        if len(looks) == 3:
            raise NoNumbers
        return judge(self, *given)

    monkeypatch.setattr(Validator, "__call__", astray)
    watcher = Recorder()
    result = run(configured(training__steps=12, training__validate_every=3), tmp_path, observers=[watcher])
    (note,) = [note for note in watcher.notes if note.kind == "rollback"]
    assert "step 6" in note.text
    assert result.reason == "steps"
    assert [event.step for event in watcher.validations] == [3, 6, 9, 12]
    assert watcher.validations[2].loss == watcher.validations[1].loss


def test_training_that_keeps_failing_ends_with_the_reason(tmp_path: Path, poison: Any) -> None:
    poison(*range(3, 100))
    with pytest.raises(TrainingError, match=r"keeps failing after 3 roll-backs: step 14 .* the loss"):
        run(configured(training__steps=50, training__validate_every=2, training__patience=0), tmp_path)
    weights = Checkpoints(tmp_path).newest().files["model.safetensors"]
    assert all(bool(tensor.isfinite().all()) for tensor in load(weights).values())


def test_weights_that_overflow_are_never_saved(tmp_path: Path, monkeypatch: Any) -> None:
    update = Learner.update

    def explode(self: Any, rate: float) -> None:
        update(self, rate)
        explode.calls += 1
        if explode.calls == 6:
            self.flat.weights.mul_(math.inf)

    explode.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(Learner, "update", explode)
    watcher = Recorder()
    result = run(configured(training__steps=9, training__validate_every=3), tmp_path, observers=[watcher])
    assert [note.kind for note in watcher.notes if note.kind == "rollback"]
    assert result.best is not None
    bundle.load(tmp_path)


def test_a_batch_too_large_for_memory_is_halved(tmp_path: Path, monkeypatch: Any) -> None:
    loss = runner.Local._one

    def small(self: Any, objective: Any, models: Any, piece: Batch, progress: float) -> Any:
        if runner.size(piece) > 40:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory")
        return loss(self, objective, models, piece, progress)

    config, watcher = configured(training__steps=6, model__dropout=0.0), Recorder()
    plain = Recorder()
    run(config, tmp_path / "whole", observers=[plain])
    monkeypatch.setattr(runner.Local, "_one", small)
    result = run(config, tmp_path / "halved", observers=[watcher])
    assert result.reason == "steps"
    assert [note.kind for note in watcher.notes] == ["split", "split"]
    for one, other in zip(plain.steps, watcher.steps, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-3)
        assert one.tokens == other.tokens


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_one_pair_too_large_for_memory_is_a_clear_error(error: Exception, tmp_path: Path, monkeypatch: Any) -> None:
    def never(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(runner.Local, "_one", never)
    with pytest.raises(TrainingError, match="not enough memory for"):
        run(configured(training__steps=6), tmp_path)


@pytest.mark.parametrize("place", ["make_model", "Validator.__call__"])
def test_no_memory_outside_a_step_is_a_clear_error(place: str, tmp_path: Path, monkeypatch: Any) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(f"antiphon.training.trainer.{place}", never)
    with pytest.raises(UntrainableError, match=r"not enough memory; lower model\.width"):
        run(configured(training__steps=6), tmp_path)


def test_other_runtime_errors_are_not_taken_for_memory() -> None:
    assert not runner.is_memory(RuntimeError("shape mismatch"))
    assert runner.is_memory(MemoryError())


def test_the_log_tells_of_a_step_at_once(tmp_path: Path) -> None:
    """So that whoever follows it sees what is going on, and a killed run has lost nothing of it."""
    seen: list[tuple[int, int]] = []

    class Reader(Observer):
        def step(self, event: StepEvent) -> None:
            logged = [each["step"] for each in read_log(tmp_path / "log.jsonl") if each["event"] == "step"]
            seen.append((event.step, logged[-1]))

    run(configured(training__steps=3), tmp_path, observers=[Reader()])
    assert seen == [(1, 1), (2, 2), (3, 3)]


# Signals


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from antiphon.training import trainer
from antiphon.training.observers import Observer
from runs import configured, run
phase, out = sys.argv[1], Path(sys.argv[2])
class Slow(Observer):
    def step(self, event):
        if phase in ("train", "twice"):
            print("ready", flush=True)
            time.sleep(0.05 if phase == "train" else 2)
real = trainer.Validator.__call__
def validate(self, model, poll):
    if phase == "validate":
        print("ready", flush=True)
        for _ in range(200):
            time.sleep(0.05)
            poll()
    return real(self, model, poll)
trainer.Validator.__call__ = validate
result = run(configured(training__steps=400, training__validate_every=3, training__patience=0), out, observers=[Slow()])
sys.exit(result.exit_code)
"""


def interrupted(phase: str, number: int, out: Path, *, again: bool = False) -> tuple[int, float]:
    """Exit code, and seconds from the signal to the end, of a run that is told to stop."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", SCRIPT, phase, str(out), here]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    for _ in range(3 if phase == "train" else 1):
        assert process.stdout.readline() == b"ready\n"
    begun = time.monotonic()
    process.send_signal(number)
    if again:
        time.sleep(0.3)
        process.send_signal(number)
    process.stdout.close()
    code = process.wait(timeout=30)
    return code, time.monotonic() - begun


@pytest.mark.parametrize(("phase", "number"), [("train", signal.SIGTERM), ("validate", signal.SIGINT)])
def test_a_signal_writes_a_checkpoint_and_says_how_to_resume(phase: str, number: int, tmp_path: Path) -> None:
    code, seconds = interrupted(phase, number, tmp_path)
    assert code == 128 + number
    assert seconds < 10
    state = Checkpoints(tmp_path).newest().state
    events = read_log(tmp_path / "log.jsonl")
    assert state.step == max(event["step"] for event in events if event["event"] == "step")
    assert state.step >= 3
    assert any(f"antiphon resume {tmp_path}" in event.get("text", "") for event in events)
    if phase == "validate":
        assert state.validated == -1


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    code, seconds = interrupted("twice", signal.SIGTERM, tmp_path, again=True)
    assert code == 143
    assert seconds < 1.3


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with runner.Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals.number == signal.SIGTERM
        with pytest.raises(runner.Interrupted):
            signals.poll()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_before_training_leaves_nothing(tmp_path: Path) -> None:
    def pairs() -> Any:
        yield from words(20)
        signal.raise_signal(signal.SIGINT)

    result = fit(pairs(), out=tmp_path / "run", assignments={"training.steps": 2})
    assert result.exit_code == 130
    assert not (tmp_path / "run").exists()


# From data to a run


TINY: dict[str, Any] = {
    "model.width": 16, "model.encoder.kind": "gru", "model.decoder.kind": "gru", "model.attention": "dot",
    "model.encoder.layers": 1, "training.threads": 1, "training.steps": 2,
}  # fmt: skip


def test_fit_tells_choices_and_the_data_report(tmp_path: Path) -> None:
    watcher = Recorder()
    pairs = [*words(60), *words(60)[:3], ("a" * 30, "b")]
    assignments = TINY | {"data.source.max_length": 10}
    result = fit(pairs, valid=words(60)[:4], out=tmp_path / "run", assignments=assignments, observers=[watcher])
    kinds = {note.kind for note in result.notes}
    assert {"choice", "data"} <= kinds
    told = "\n".join(note.text for note in watcher.notes)
    assert "duplicate pair kept" in told
    assert "cut to max_length=10" in told
    assert "validation sources" in told
    assert "model.dropout = " in told
    logged = [event for event in read_log(tmp_path / "run" / "log.jsonl") if event["event"] == "note"]
    assert len(logged) == len(result.notes)


def test_parallel_files_and_their_resume(tmp_path: Path) -> None:
    for side in (0, 1):
        (tmp_path / f"train.{side}").write_text("".join(pair[side] + "\n" for pair in words(60)))
    files = f"{tmp_path / 'train.0'},{tmp_path / 'train.1'}"
    fit(files, out=tmp_path / "run", assignments=TINY | {"training.steps": 4}, observers=[Recorder(2)])
    assert resume(tmp_path / "run").reason == "steps"


def test_context_from_memory_is_kept_for_resume(tmp_path: Path) -> None:
    pairs = [(word, back, {"form": "x" if len(word) % 2 else "y"}) for word, back in words(60)]
    settings = TINY | {"training.steps": 4, "data.context": ("form",)}
    fit(pairs, out=tmp_path / "run", assignments=settings, observers=[Recorder(2)])
    assert resume(tmp_path / "run").reason == "steps"
    assert "<form:x>" in bundle.load(tmp_path / "run").task.source.vocabulary.tokens


@pytest.mark.parametrize("size", [0.1, 30.0])
def test_word_vectors_start_and_stay(tmp_path: Path, size: float) -> None:
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("".join(f"{letter} {' '.join([str(size * row)] * 16)}\n" for row, letter in enumerate("abcde")))
    more = {"data__source__vectors": str(vectors), "data__source__freeze": True, "training__steps": 3}
    watcher = Recorder()
    run(configured(**more), tmp_path / "run", observers=[watcher, Recorder(2)])
    run(configured(**more), tmp_path / "run", resume=True)
    loaded = bundle.load(tmp_path / "run")
    rows = loaded.task.source.vocabulary.ids(list("abcde"))
    read = loaded.model.source.embedding.weight[rows].detach() * 16**0.5
    assert read[:, 0].tolist() == pytest.approx([row / 6**0.5 for row in range(5)]), "scaled alike, whatever the size"
    assert float(read.square().mean()) == pytest.approx(1.0)
    assert any("word vectors" in note.text for note in watcher.notes)


def test_pairs_that_are_too_long_to_validate_are_counted(tmp_path: Path) -> None:
    settings = TINY | {"data.source.max_length": 6, "data.too_long": "skip"}
    result = fit(words(80), valid=[("abcdefgh", "b"), ("ab", "ba")], out=tmp_path / "run", assignments=settings)
    assert any("validation data: 1 x skipped" in note.text for note in result.notes)


def test_nothing_to_validate_with_is_an_error(tmp_path: Path) -> None:
    settings = TINY | {"data.source.max_length": 6, "data.too_long": "skip"}
    with pytest.raises(DataError, match="no pair is left to validate with"):
        fit(words(80), valid=[("abcdefgh", "b")], out=tmp_path / "run", assignments=settings)


def test_validation_is_the_same_in_any_order_of_pairs() -> None:
    config = configured(training__metric="cer")
    task, _, valid = prepared(config)
    from antiphon.training.initial import make_model

    model, _ = make_model(config, task, fresh=True)
    found = [Validator(config, task, pairs)(model.eval(), lambda: None) for pairs in (valid, valid[::-1])]
    assert found[0].loss == pytest.approx(found[1].loss)
    assert found[0].scores["cer"].value == found[1].scores["cer"].value
    assert sorted(found[0].samples) == sorted(found[1].samples)
