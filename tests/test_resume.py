"""Exact resume: wherever a run stops, it ends with the same bits. Rows 6, 7, 13 and 17 of the reliability plan."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.config import Config
from antiphon.core.errors import ConfigError, DataError, TrainingError
from antiphon.core.stopping import ending
from antiphon.training import identity, runner, twin
from antiphon.training.observers import Log, Note, read_log
from antiphon.training.sources import Sources
from antiphon.training.start import fit, read_run, resume
from antiphon.training.trainer import train
from runs import Recorder, configured, light, listing, outcome, prepared, run, words

Whole = Callable[[str, Config], dict[str, Any]]
COMMON: dict[str, Any] = {"training__steps": 14, "training__validate_every": 4}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "warm-up": {"training__warmup": 10, "training__schedule": "inverse_sqrt"},
    "cosine": {"training__schedule": "cosine"},
    "plateau": {"training__schedule": "plateau", "training__rate": 1e-9, "training__patience": 3},
    "accumulation": {"training__accumulate": 2},
    "averages": {"training__ema": 0.9, "training__average": 3},
    "answers": {"training__metric": "cer"},
    "penalties": {"training__l1": 1e-4, "training__l2": 1e-3, "training__optimizer": "sgd"},
    "r-drop": {"training__r_drop": 1.0, "training__optimizer": "adafactor"},
    "sampling": {"training__scheduled_sampling": 0.5, "training__optimizer": "rmsprop", "model__dropout_word": 0.1},
    "bf16": {"training__precision": "bf16"},
    "compiled": {"training__compile": True},
    "patience": {"training__patience": 1, "training__rate": 1e-9},
}


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)
    monkeypatch.setattr(twin, "BACKEND", "eager")
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # pytest would have it write a book


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Config], dict[str, Any]]:
    """What the uninterrupted run of a case comes to; made once."""
    known: dict[str, dict[str, Any]] = {}

    def make(case: str, config: Config) -> dict[str, Any]:
        if case not in known:
            folder = tmp_path_factory.mktemp("whole")
            run(config, folder)
            known[case] = outcome(folder)
        return known[case]

    return make


@pytest.mark.parametrize("stop", [3, 8], ids=["mid-epoch", "validated"])
@pytest.mark.parametrize("case", CASES)
def test_a_stopped_run_ends_with_the_same_bits(case: str, stop: int, tmp_path: Path, whole: Whole) -> None:
    config = configured("transformer" if case in ("bf16", "r-drop", "compiled") else "gru", **{**COMMON, **CASES[case]})
    expected = whole(case, config)
    first = run(config, tmp_path, observers=[Recorder(stop)])
    second = run(config, tmp_path, resume=True)
    if first.reason == "observer":
        assert first.step == stop
    assert outcome(tmp_path) == expected
    assert second.reason in ("steps", "patience", "finished")


def test_another_number_of_workers_changes_nothing(tmp_path: Path, whole: Whole) -> None:
    config = configured(**COMMON)
    run(config, tmp_path, observers=[Recorder(5)])
    run(config, tmp_path, resume=True, workers=1)
    assert outcome(tmp_path) == whole("plain", config)


def test_subword_sampling_resumes_exactly(tmp_path: Path) -> None:
    pairs = words(60)
    settings = {key.replace("__", "."): value for key, value in COMMON.items()}
    small = {"model.width": 16, "model.heads": 2, "training.threads": 1, "training.metric": "loss"}
    cut = {"data.source.tokenizer": "bpe", "data.source.vocabulary": 30, "data.source.sampling": 0.3}
    assignments = {**settings, **small, **cut, "data.batch_tokens": 200}
    fit(pairs, out=tmp_path / "whole", assignments=assignments)
    fit(pairs, out=tmp_path / "parts", assignments=assignments, observers=[Recorder(6)])
    resume(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_the_seed_decides_everything(tmp_path: Path, whole: Whole) -> None:
    expected = whole("plain", configured(**COMMON))
    run(configured(**COMMON), tmp_path / "same")
    run(configured(**COMMON, training__seed=2), tmp_path / "other")
    assert outcome(tmp_path / "same") == expected
    assert outcome(tmp_path / "other")["model.safetensors"] != expected["model.safetensors"]


def test_the_log_has_each_step_once_after_a_resume(tmp_path: Path) -> None:
    config = configured(**COMMON)
    run(config, tmp_path, observers=[Recorder(6)])
    with (tmp_path / "log.jsonl").open("ab") as log:
        log.write(b'{"event": "step", "step": 7, "torn')
    run(config, tmp_path, resume=True)
    events = outcome(tmp_path)["events"]
    assert [event[0] for event in events if len(event) == 6] == list(range(1, 15))


def test_a_finished_run_is_left_untouched(tmp_path: Path) -> None:
    fit(words(60), out=tmp_path / "run", assignments=tiny())
    before = listing(tmp_path / "run")
    result = resume(tmp_path / "run")
    assert result.reason == "finished"
    assert result.best is not None
    assert listing(tmp_path / "run") == before


def test_training_into_a_used_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="not empty"):
        fit(words(60), out=tmp_path, assignments=tiny())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_whose_run_never_began_can_be_used_again(tmp_path: Path) -> None:
    (tmp_path / ".preparing").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("half a li")
    assert fit(words(60), out=tmp_path, assignments=tiny()).reason == "steps"
    assert not (tmp_path / ".preparing").exists()


def test_a_failed_beginning_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\tb\nc\t\n")
    with pytest.raises(DataError, match="empty"):
        fit(tmp_path / "train.tsv", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_failed_beginning_in_a_linked_folder_leaves_it_empty(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\tb\nc\t\n")
    (tmp_path / "far").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "far")
    with pytest.raises(DataError, match="empty"):
        fit(tmp_path / "train.tsv", out=tmp_path / "run")
    assert list((tmp_path / "far").iterdir()) == []
    (tmp_path / "far/.preparing").touch()  # somebody was killed
    assert fit(words(60), out=tmp_path / "run", assignments=tiny()).reason == "steps"
    assert (tmp_path / "far/best").exists()


def test_a_run_that_another_machine_prepares_is_left_alone(tmp_path: Path) -> None:
    """Its process cannot be looked up here; the file that it holds can."""
    identity.claim(tmp_path / "run")
    (tmp_path / "run/.preparing").write_text("1 1 another machine")
    with identity.alone(tmp_path / "run"), pytest.raises(TrainingError, match="another process is training"):
        identity.claim(tmp_path / "run")
    assert (tmp_path / "run/.preparing").exists()


def test_resuming_with_other_settings_names_them(tmp_path: Path) -> None:
    run(configured(**COMMON), tmp_path, observers=[Recorder(3)])
    with pytest.raises(ConfigError, match=r"training\.rate: 0\.01 -> 0\.02"):
        run(configured(**COMMON, training__rate=0.02), tmp_path, resume=True)


def test_settings_that_were_changed_in_the_run_are_named(tmp_path: Path) -> None:
    fit(words(60), out=tmp_path / "run", assignments=tiny(), observers=[Recorder(3)])
    file = tmp_path / "run/config.json"
    settings = json.loads(file.read_bytes())
    rate = settings["training"]["rate"]
    settings["training"]["rate"] = 2 * rate
    file.write_text(json.dumps(settings))
    before = listing(tmp_path / "run")
    with pytest.raises(ConfigError, match=rf"training\.rate: {rate} -> {2 * rate}"):
        resume(tmp_path / "run")
    assert listing(tmp_path / "run") == before


def test_the_seed_does_not_decide_what_is_held_out(tmp_path: Path) -> None:
    """But of runs of before, which it did; they are judged by what they held out."""
    held, facts = {}, {}
    for seed in (1, 2):
        out = tmp_path / str(seed)
        fit(words(60), out=out, assignments=tiny() | {"training.seed": seed}, observers=[Recorder(2)])
        config, facts[seed] = read_run(out)
        held[seed] = [pair.source for pair in Sources.recall(out, facts[seed]).open(config)[1]]
    assert held[1] == held[2]
    del facts[2]["held_out_alike"]
    before = [pair.source for pair in Sources.recall(out, facts[2]).open(config)[1]]
    assert before != held[2]
    (out / "data.json").write_text(json.dumps(facts[2]))
    with pytest.raises(DataError, match="training data has changed"):  # it was split in the other way
        resume(out)


def test_a_run_that_lost_the_names_of_its_files_says_so(tmp_path: Path) -> None:
    fit(words(60), out=tmp_path / "run", assignments=tiny(), observers=[Recorder(3)])
    file = tmp_path / "run/data.json"
    facts = json.loads(file.read_bytes())
    file.write_text(json.dumps({**facts, "files": {**facts["files"], "train": []}}))
    with pytest.raises(DataError, match="does not know its data"):
        resume(tmp_path / "run")


def test_data_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text("".join(f"{source}\t{target}\n" for source, target in words(60)))

    class Writer(Recorder):
        def opened(self, event: Any) -> None:
            file.write_text("x\ty\n" * 60)

    with pytest.raises(DataError, match="training data has changed since this run began"):
        fit(file, out=tmp_path / "run", assignments=tiny(), observers=[Writer()])
    assert not (tmp_path / "run").exists()


def test_what_somebody_put_beside_the_checkpoints_stays(tmp_path: Path) -> None:
    fit(words(60), out=tmp_path / "run", assignments=tiny(), observers=[Recorder(3)])
    kept = [tmp_path / "run/checkpoints" / name for name in ("step-9", "step-good", "step-²")]
    for folder in kept:
        shutil.copytree(next((tmp_path / "run/checkpoints").glob("step-0*")), folder)
    assert resume(tmp_path / "run").reason == "steps"
    assert all(folder.exists() for folder in kept)


def test_resuming_with_one_byte_of_data_changed_is_refused(tmp_path: Path) -> None:
    lines = [f"{source}\t{target}" for source, target in words(60)]
    file = tmp_path / "train.tsv"
    file.write_text("\n".join(lines) + "\n")
    fit(file, out=tmp_path / "run", assignments=tiny(), observers=[Recorder(3)])
    before = listing(tmp_path / "run")
    changed = ("b" if lines[30][0] == "a" else "a") + lines[30][1:]
    file.write_text("\n".join([*lines[:30], changed, *lines[31:]]) + "\n")
    with pytest.raises(DataError, match="training data has changed"):
        resume(tmp_path / "run")
    assert listing(tmp_path / "run") == before


def test_other_encoded_data_is_refused(tmp_path: Path) -> None:
    config = configured(**COMMON)
    run(config, tmp_path, observers=[Recorder(3)])
    task, store, valid = prepared(config, words(seed=2))
    with pytest.raises(DataError, match="data has changed"):
        train(config, task, store, valid, tmp_path, resume=True)


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there is no run here"):
        resume(tmp_path)


def tiny() -> dict[str, object]:
    """Settings of a very short run."""
    kinds = {"model.encoder.kind": "gru", "model.decoder.kind": "gru", "model.encoder.layers": 1}
    return {**kinds, "model.width": 16, "training.steps": 6, "training.threads": 1, "training.metric": "loss"}


def killed(*arguments: str) -> dict[str, Any]:
    """What bench/kill.py found."""
    script = Path(__file__).parent.parent / "bench" / "kill.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, env=environment, check=False)
    assert done.stdout, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_killed_runs_of_every_decoder_family_end_with_the_same_bits() -> None:
    """Row 1: at least twenty kills tied to what saves do."""
    found = killed("--kills", "4", "--steps", "14")
    assert found["identical"], found
    assert sum(family["kills"] for family in found["families"]) >= 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_hundred_kills(precision: str) -> None:
    found = killed("--kills", "34", "--precision", precision, "--seed", "2")
    assert found["identical"], found
    assert sum(family["kills"] for family in found["families"]) >= 200


def test_a_line_of_the_log_that_a_full_disk_cut_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, room = Log(tmp_path / "log.jsonl"), [10_000]

    class Small(FileIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data)[: room[0]])

    monkeypatch.setattr("antiphon.training.observers.open", lambda path, *_, **__: Small(path, "ab"), raising=False)
    for number, room[0] in enumerate((10_000, 20, 10_000)):
        log.noted(Note("data", f"line {number}", number))
    log.close()
    assert [event["text"] for event in read_log(tmp_path / "log.jsonl")] == ["line 0", "line 2"]


def test_a_closed_terminal_ends_nothing_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert signal.SIGHUP in ending()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with runner.Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert not signals.number
    finally:
        signal.signal(signal.SIGHUP, before)
