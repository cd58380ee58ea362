"""The search for settings: what is searched, what it finds, and that a killed one goes on as if nothing had been."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from antiphon.cli.searching import table as shown
from antiphon.core.config import Config
from antiphon.core.errors import AntiphonError, ConfigError, TrainingError
from antiphon.core.keys import get, override
from antiphon.data.corpus import Pair
from antiphon.inference import bundle, tasks
from antiphon.training import recipes
from antiphon.training.observers import Started, read_log
from antiphon.training.spaces import SPACES, Among, Between, Choices, Factor, Grid, space
from antiphon.training.statistics import Statistics
from antiphon.tuning.crew import Job
from antiphon.tuning.finals import Final, Gain, gain
from antiphon.tuning.search import Trials
from antiphon.tuning.study import Spec, Study, lock
from antiphon.tuning.tune import Budget, Outcome, toml, tune
from antiphon.tuning.worker import Reporter
from commands import Call, calling, refused  # noqa: F401
from runs import words
from searches import BUDGET, FIXED, killed, program, same, study_of, table

# What is searched


@pytest.mark.parametrize("task", SPACES)
def test_every_range_has_the_recipe_in_it_and_ends_that_are_allowed(task: str) -> None:
    pairs = [Pair(f"one two {n} red blue", f"eins zwei {n} rot blau") for n in range(200)]
    if task == "forecasting":
        pytest.skip("numbers have a recipe of their own")
    config, _ = recipes.propose(override(Config(), {"task": task}), Statistics.of(pairs))
    found = space(config)
    assert {"training.rate", "model.dropout", "model.width"} <= {each.key for each in found}
    for each in found:
        own = get(config, each.key)
        if isinstance(each, Among):
            assert own in each.values
            ends = each.values
        else:
            assert each.low <= own <= each.high
            places = (own - each.low) / (each.step or 1.0)
            assert not each.step or places == pytest.approx(round(places), abs=1e-6)
            ends = each.low, each.high
        for value in ends:
            whole = isinstance(own, int) and not isinstance(own, bool)
            override(config, {each.key: int(value) if whole and not isinstance(each, Among) else value})
    assert set(SPACES) == set(tasks.PRESETS)


def test_ranges_hit_what_the_recipe_has() -> None:
    config = override(Config(), {"model.width": 192, "model.dropout": 0.12, "training.rate": 0.002, "task": "code"})
    assert Factor("model.width", 2, step=32).around(config) == Between("model.width", 96, 384, 32)
    assert Factor("training.rate", 4).around(config) == Between("training.rate", 0.0005, 0.008, log=True)
    assert Grid("model.dropout", 0.0, 0.3, 0.05).around(config) == Between("model.dropout", 0.02, 0.27, 0.05)
    assert Factor("data.batch_tokens", 2, step=256).around(config) is None
    assert Choices("training.ema", (0.9,)).around(config) == Among("training.ema", (0.9, 0.0))
    assert Choices("training.ema", (0.9,), where=("model.width", 1)).around(config) is None
    assert [each.key for each in space(config, given=["training.rate"])].count("training.rate") == 0
    odd = override(config, {"model.width": 129, "model.heads": 3})
    widths = Factor("model.width", 2, step=32).around(odd)
    assert widths == Between("model.width", 129, 225, 96)


# Whether it is better


def final(folder: Path, name: str, right: list[list[bool]], metric: str = "exact") -> Final:
    """A setting whose model of each seed answers these pairs right."""
    runs = []
    for seed, each in enumerate(right):
        run = folder / f"{name}-{seed}"
        run.mkdir()
        rows = [[float(value), 1.0] for value in each]
        (run / "judged.json").write_text(json.dumps({"value": 100 * np.mean(each), "answers": [], "rows": rows}))
        runs.append(run)
    return Final(name, {}, tuple(runs), (1.0,) * len(right), tuple(100 * float(np.mean(each)) for each in right))


def drawn(share: float, seed: int, pairs: int = 400, seeds: int = 3, spread: float = 0.0) -> list[list[bool]]:
    draw = np.random.default_rng(seed)
    return [list(draw.random(pairs) < share + spread * draw.standard_normal()) for _ in range(seeds)]


def test_a_gain_is_one_where_the_interval_says_so(tmp_path: Path) -> None:
    study = study_of(tmp_path, "exact", 400)
    recipe = final(tmp_path, "recipe", drawn(0.5, 1))
    good, same = final(tmp_path, "good", drawn(0.7, 2)), final(tmp_path, "same", drawn(0.5, 3))
    found = gain(study, [recipe, good], good)
    assert found.better
    assert found.interval[0] < found.difference < found.interval[1]
    assert found.difference == pytest.approx(20, abs=5)
    assert not gain(study, [recipe, same], same).better
    assert gain(study, [good, recipe], recipe).worse
    noisy = final(tmp_path, "noisy", drawn(0.6, 4, spread=0.15))
    wide = gain(study, [recipe, noisy], noisy).interval
    narrow = gain(study, [recipe, same], same).interval
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


@pytest.mark.slow
def test_the_interval_holds_what_is_true_in_about_95_of_100(tmp_path: Path) -> None:
    study, held = study_of(tmp_path, "exact", 200), 0
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        sides = [final(folder, name, drawn(0.5, 10 * number + at, pairs=200, spread=0.05))
                 for at, name in enumerate(("recipe", "other"))]  # fmt: skip
        low, high = gain(study, sides, sides[1]).interval
        held += low <= 0 <= high
    assert 53 <= held <= 60


def test_lower_is_better_for_errors() -> None:
    assert Gain("error", False, 9.0, 7.0, (-3.0, -1.0), 3).better
    assert Gain("error", False, 7.0, 9.0, (1.0, 3.0), 3).worse
    assert not Gain("error", False, 9.0, 8.0, (-3.0, 1.0), 3).better
    assert str(Gain("error", False, 9.0, 7.0, (-3.0, -1.0), 3)) == "error 9.00 -> 7.00: -2.00 [-3.00, -1.00]"


# A real search, and a killed one


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tune") / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in words(120)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(data: Path) -> Outcome:
    """A search that was killed twice, in its second trial and in its fourth, and gone on with."""
    pytest.importorskip("optuna")
    for run in ("trials/0001", "trials/0003"):
        killed(data, data.parent / "study", run)
    return tune(str(data), data.parent / "study", assignments=FIXED, budget=BUDGET)


def test_a_search_finds_settings_and_says_how_good_they_are(found: Outcome) -> None:
    assert [row.name for row in found.trials] == ["0", "1", "2", "3"]
    assert found.trials[0].changes == {}
    assert all(row.changes for row in found.trials[1:])
    assert all(len(str(row.changes.get("model.dropout", 0))) <= 4 for row in found.trials)
    assert len({json.dumps(row.changes, sort_keys=True) for row in found.trials}) == 4
    assert found.gain is not None
    assert found.gain.interval[0] <= found.gain.difference <= found.gain.interval[1]
    best = next(each for each in found.finals if each.name == found.winner)
    assert best.mean == min(each.mean for each in found.finals)
    assert bundle.load(found.out / "best").config.training.rate == found.best["training.rate"]  # type: ignore[index]
    assert not list(found.out.glob("*/*/checkpoints"))
    assert {len((found.out / f"data/{name}.jsonl").read_bytes().splitlines()) for name in ("valid", "judge")} <= {
        *range(10, 40)
    }


def test_killed_twice_nothing_is_done_twice(found: Outcome) -> None:
    assert [row.name for row in found.trials] == ["0", "1", "2", "3"]
    assert sorted(path.name for path in found.out.glob("trials/*")) == ["0000", "0001", "0002", "0003"]
    journal = (found.out / "trials.log").read_text()
    assert journal.count('"op_code":4') == journal.count('"datetime_complete"') == 4
    for row in found.trials:
        events = read_log(found.out / f"trials/{int(row.name):04d}/log.jsonl")
        steps = [event["step"] for event in events if event["event"] == "step"]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) == 24 or row.state == "pruned"
        assert sum(event["event"] == "end" for event in events) == 1
    assert not [row for row in found.trials if row.state in ("left", "running", "failed")]


@pytest.mark.slow
def test_killed_it_finds_the_same_as_if_it_had_not_been(found: Outcome, data: Path, tmp_path: Path) -> None:
    same(found, tune(str(data), tmp_path / "whole", assignments=FIXED, budget=BUDGET))


@pytest.mark.slow
def test_killed_again_and_again_it_finds_the_same(found: Outcome, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    for run in ("trials/0000", "trials/0001", "trials/0003", "finals/recipe-seed1"):
        killed(data, out, run)
    done = subprocess.run([*program(data, out), "--json"], check=True, capture_output=True, text=True)
    assert table(json.loads(done.stdout)) == table(json.loads(found.to_bytes()))
    same(tune(str(data), out, assignments=FIXED, budget=BUDGET), found)


@pytest.mark.slow
def test_stopped_by_a_signal_it_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    process = subprocess.Popen(program(data, out), stdout=subprocess.PIPE, text=True)
    while not list(out.glob("trials/0001/checkpoints/step-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "the same command goes on" in told


def test_what_was_found_is_trained_again_by_the_command_that_it_gives(
    found: Outcome, call: Call, tmp_path: Path
) -> None:
    words_ = found.command.split()[1:-1]
    assert words_[0] == "train"
    code, told, error = call(*words_, str(tmp_path / "again"), "training.steps=1")
    assert (code, error) == (0, ""), told
    settings = bundle.load(tmp_path / "again").config
    for key, value in (found.best or {}).items():
        assert get(settings, key) == value


def test_a_finished_search_does_nothing_twice(found: Outcome, data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in found.out.glob("trials/*/log.jsonl")}
    again = tune(str(data), found.out, assignments=FIXED, budget=BUDGET)
    assert {path: path.stat().st_mtime_ns for path in found.out.glob("trials/*/log.jsonl")} == before
    assert again.gain == found.gain


def test_every_trial_has_its_bracket(found: Outcome) -> None:
    assert [row.bracket for row in found.trials] == [20, 40, 20, 80]
    written = [json.loads(line) for line in (found.out / "trials.log").read_text().splitlines()]
    attributes = [line["user_attr"] for line in written if "user_attr" in line]
    assert [each["bracket"] for each in attributes if "bracket" in each] == [20, 40, 20, 80]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(shown(found.trials, Study(found.out, Spec.read(found.out / "study.json")).spec))
    assert [line.split()[3:5] for line in console.export_text().splitlines()[1:]] == [
        ["20", "%"], ["40", "%"], ["20", "%"], ["80", "%"]]  # fmt: skip


def test_what_was_found_poor_is_not_let_go_on_after_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    ranges = (Between("training.rate", 0.001, 0.1, log=True),)
    study = study_of(tmp_path, "loss", 10)
    study.spec = replace(study.spec, ranges=ranges, recipe={"training.rate": 0.01})

    def trials() -> Trials:
        return Trials(study, 4, lambda: False, lambda row: None)

    first, answers = trials(), []
    for at in range(3):
        job = first.next()
        assert job is not None
        answers.append(first.heard(job, {"event": "validated", "progress": 0.2, "value": 1.0 + at}))
    assert answers == ["go", "go", "prune"]
    again = trials()
    names = [job.name for job in iter(again.next, None)]
    assert names == ["0", "1", "2", "3"]
    assert again.heard(Job("2", tmp_path, {}), {"event": "validated", "progress": 0.3, "value": 0.1}) == "prune"
    assert again.heard(Job("1", tmp_path, {}), {"event": "validated", "progress": 0.3, "value": 9.0}) == "go"


def test_a_study_from_before_there_were_brackets_goes_on(found: Outcome, data: Path, tmp_path: Path) -> None:
    old = shutil.copytree(found.out, tmp_path / "old")
    lines = (old / "trials.log").read_text().splitlines(keepends=True)
    (old / "trials.log").write_text("".join(line for line in lines if "bracket" not in line and "ended at" not in line))
    again = tune(str(data), old, assignments=FIXED, budget=BUDGET)
    assert [row.bracket for row in again.trials] == [20, 20, 20, 20]
    assert again.gain == found.gain


def test_a_kill_in_the_middle_of_a_write_is_mended(found: Outcome, data: Path) -> None:
    journal = found.out / "trials.log"
    before = journal.read_bytes()
    os.symlink(journal, f"{journal}.lock")
    with open(journal, "ab") as file:
        file.write(b'{"op_code": 4, "tri')
    again = tune(str(data), found.out, assignments=FIXED, budget=BUDGET)
    assert again.gain == found.gain
    assert journal.read_bytes().startswith(before)
    assert b"tri{" not in journal.read_bytes()


def test_settings_as_toml_are_what_they_were() -> None:
    given = {"model.width": 64, "model.residual": True, "training.rate": 1e-05, "data.columns": ["a", 'b"'],
             "data.source.tokenizer": "char", "training.minutes": None}  # fmt: skip
    values = tomllib.loads(toml(given))
    assert values["data"]["columns"] == ["a", 'b"']
    assert values["training"] == {"rate": 1e-05}
    assert values["model"] == {"width": 64, "residual": True}
    together = {"data.source.freeze": True, "data.source.vectors": "v.txt", "model.width": 129, "model.heads": 3}
    assert tomllib.loads(toml(together))["model"] == {"width": 129, "heads": 3}


def test_one_search_at_a_time(found: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.tuning.study.PATIENCE", 0.1)
    with lock(found.out), pytest.raises(TrainingError, match="another search is at work here"):
        lock(found.out)
    lock(found.out).close()


def test_a_study_is_of_its_pairs_and_settings(found: Outcome, data: Path, tmp_path: Path) -> None:
    budget = BUDGET
    with pytest.raises(ConfigError, match=r"the settings differ .*model.width: 16 -> 8"):
        tune(str(data), found.out, assignments={**FIXED, "model.width": 8}, budget=budget)
    other = tmp_path / "other.tsv"
    shutil.copy(data, other)
    with open(other, "a") as file:
        file.write("new\twen\n")
    with pytest.raises(AntiphonError, match="the pairs have changed since this study began"):
        tune(str(other), found.out, assignments=FIXED, budget=budget)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thing").touch()
    with pytest.raises(TrainingError, match="the folder is not empty, and has no study"):
        tune(str(data), tmp_path / "full", assignments=FIXED, budget=budget)


def test_mistakes_are_named(call: Call, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "study"
    assert "--trials must be at least 1 (got 0)" in refused(call, "tune", data, "--out", out, "--trials", "0")
    assert "--minutes must be above 0" in refused(call, "tune", data, "--out", out, "--minutes", "0")
    assert "nowhere.tsv" in refused(call, "tune", tmp_path / "nowhere.tsv", "--out", out)
    assert "did you mean model.width?" in refused(call, "tune", data, "--out", out, "model.widht=3")
    assert not out.exists()
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'antiphon[tune]'" in refused(call, "tune", data, "--out", out)


@pytest.mark.slow
def test_a_search_of_minutes_ends_in_time_and_gives_each_training_its_share(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    settings = {key: value for key, value in FIXED.items() if key != "training.steps"}
    begun = time.monotonic()
    outcome = tune(str(data), tmp_path / "timed", assignments=settings, budget=Budget(None, 0.5, 1, 1, 1))
    assert 0.6 * 30 <= time.monotonic() - begun <= 90
    assert outcome.trials[0].state == "done"
    assert outcome.best is not None
    assert bundle.load(outcome.out / "best").config.training.minutes == pytest.approx(0.025)


def test_progress_goes_on_where_a_trial_goes_on() -> None:
    line = SimpleNamespace(tell=lambda what, **values: told.append(values), stopping=False)
    told: list[dict[str, Any]] = []
    reporter = Reporter(line)  # type: ignore[arg-type]
    reporter.started(Started(Path("run"), 1, 2, 3, 4, None, None, 10.0, "loss", 500, 360.0, 1, 1, "cpu"))
    assert reporter._progress(500) == pytest.approx(0.6, abs=0.01)
