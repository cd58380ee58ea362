"""Checkpoints survive crashes, full disks and damage. Rows 2, 4 and 5 of the reliability plan."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.errors import BundleError, TrainingError
from antiphon.inference import bundle
from antiphon.training.checkpoint import Checkpoints, State, insist, room
from runs import Recorder, configured, light, listing, outcome, run


class Crash(BaseException):
    """The process dies here: nothing that follows in it is run, as far as files go."""


class Disk:
    """Counts calls that touch the disk; the `fail_at`-th fails, by an error or by death (all later ones die too)."""

    def __init__(self, fail_at: int, error: OSError | None) -> None:
        self.fail_at, self.error, self.calls, self.dead = fail_at, error, 0, False

    def wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **named: Any) -> Any:
            if self.dead:
                raise Crash
            self.calls += 1
            if self.calls == self.fail_at:
                self.dead = self.error is None
                raise self.error or Crash
            return original(*arguments, **named)

        return guarded


@contextmanager
def failing(disk: Disk) -> Iterator[None]:
    """All ways by which a checkpoint touches the disk go through `disk`, and what is written does so half-way."""
    middle, plain = disk.wrap(lambda: None), disk.wrap(builtins.open)

    class Torn(io.BufferedWriter):
        def write(self, content: Any) -> int:
            half = super().write(content[: len(content) // 2])
            self.flush()
            middle()
            return half + super().write(content[len(content) // 2 :])

    def opened(path: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        file = plain(path, mode, *more, **options)
        return Torn(file.detach()) if mode == "wb" else file

    with pytest.MonkeyPatch.context() as patch:
        for name in ("open", "write", "fsync", "rename", "replace", "unlink", "rmdir", "mkdir"):
            patch.setattr(os, name, disk.wrap(getattr(os, name)))
        patch.setattr(builtins, "open", opened)
        yield


def write(checkpoints: Checkpoints, step: int) -> None:
    contents = {"config.json": b"{}\n", "model.safetensors": bytes([step]) * 50}
    checkpoints.save(State(step=step, anchor=step), contents, {})


@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "Input/output error")], ids=["death", "error"])
@pytest.mark.parametrize("same", [False, True], ids=["next step", "same step"])
def test_a_crash_between_any_two_calls_leaves_a_good_checkpoint(
    error: OSError | None, same: bool, tmp_path: Path
) -> None:
    """Old or new, never none, for every call that a save makes; and the next save works."""
    new = 3 if same else 4
    for fail_at in range(1, 500):
        folder = tmp_path / str(fail_at)
        checkpoints, disk = Checkpoints(folder), Disk(fail_at, error)
        for step in (1, 2, 3):
            write(checkpoints, step)
        failed = False
        with failing(disk):
            try:
                write(checkpoints, new)
            except (Crash, OSError, BundleError):
                failed = True
        found = checkpoints.newest().state.step
        assert found in ((2, 3) if same else (3, 4))
        checkpoints.sweep()
        assert checkpoints.newest().state.step >= found  # what is whole beside its place is found again
        write(checkpoints, 5)
        assert checkpoints.newest().state.step == 5
        if disk.calls < fail_at:
            assert not failed
            assert fail_at > 20
            return
    pytest.fail("a save makes no end of calls")


def test_two_generations_and_their_anchors_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    contents = {"config.json": b"{}\n"}
    for step, anchor in ((0, 0), (4, 4), (6, 4), (7, 4), (8, 8), (9, 8)):
        checkpoints.save(State(step=step, anchor=anchor), contents, {})
        kept = [int(path.name[5:]) for path in checkpoints.all()]
        assert kept[0] == step
        assert anchor in kept
    assert kept == [9, 8]


def test_what_a_crash_has_left_whole_of_a_step_is_found_again(tmp_path: Path) -> None:
    """A step that is written twice is for a moment nowhere but beside its place."""
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    write(checkpoints, 2)
    for kind in ("old", "tmp"):
        checkpoints.path(2).rename(checkpoints.folder / f"step-00000002.{kind}-77")
        shutil.copytree(checkpoints.path(1), checkpoints.folder / f"step-00000003.{kind}-77")
        (checkpoints.folder / f"step-00000003.{kind}-77" / "config.json").write_text("half")
        checkpoints.sweep()
        assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-00000001", "step-00000002"]
    assert checkpoints.newest().state.step == 2


def test_a_damaged_checkpoint_is_no_generation(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 9):
        write(checkpoints, step)
    (checkpoints.path(9) / "config.json").write_text("damaged")
    for step in (3, 4):
        write(checkpoints, step)
    assert [path.name for path in checkpoints.all()] == ["step-00000004", "step-00000003"]


def test_states_of_before_are_read(tmp_path: Path) -> None:
    values = json.loads(State(step=3).to_bytes())
    del values["validation_seconds"]
    assert State.read(json.dumps(values).encode(), "state.json") == State(step=3)
    with pytest.raises(BundleError, match="not the state of a training of this version"):
        State.read(json.dumps({**values, "more": 1}).encode(), "state.json")


def test_old_checkpoints_go_only_after_the_new_one_was_read_back(tmp_path: Path, monkeypatch: Any) -> None:
    checkpoints, original = Checkpoints(tmp_path), bundle.write_folder
    for step in (1, 2):
        write(checkpoints, step)

    def damaging(final: Path, *arguments: Any, **named: Any) -> None:
        original(final, *arguments, **named)
        (final / "model.safetensors").write_bytes(b"the disk lies")

    monkeypatch.setattr("antiphon.training.checkpoint.folders.write_folder", damaging)
    with pytest.raises(OSError, match="reads back damaged"):
        write(checkpoints, 3)
    assert [int(path.name[5:]) for path in checkpoints.all()] == [2, 1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped, with two good checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        run(configured(training__steps=9, training__validate_every=4), folder, observers=[Recorder(8)])
    return folder


def mutate(path: Path, draw: random.Random) -> str:
    """One random damage to a checkpoint; says what."""
    file = draw.choice(sorted(p for p in path.rglob("*") if p.is_file() and p.name != "README.md"))
    content = file.read_bytes()
    kind = draw.choice(["flip", "cut", "gone", "grow", "swap", "zeros", "empty"])
    place = draw.randrange(max(1, len(content)))
    match kind:
        case "flip":
            file.write_bytes(
                content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
            )
        case "cut":
            file.write_bytes(content[:place])
        case "gone":
            file.unlink()
        case "grow":
            file.write_bytes(content + b"\0" * draw.randint(1, 9))
        case "swap":
            other = draw.choice(sorted(p for p in path.rglob("*") if p.is_file() and p != file))
            file.write_bytes(b"x" + other.read_bytes())
        case "zeros":
            file.write_bytes(content[:place] + b"\1" * (len(content) - place))
        case "empty":
            file.write_bytes(b"")
    return f"{kind} {file.name} at {place}"


def test_damage_is_always_seen_and_the_older_generation_taken(trained: Path, tmp_path: Path) -> None:
    """A thousand mutants of the newest checkpoint: none is loaded, none makes a traceback."""
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    checkpoints, draw = Checkpoints(tmp_path), random.Random(7)
    newest, older = checkpoints.all()[:2]
    shutil.copytree(newest, tmp_path / "good")
    for _ in range(1000):
        damage = mutate(newest, draw)
        found = checkpoints.newest()
        assert found.path == older, damage
        assert len(found.problems) == 1, damage
        assert newest.name in found.problems[0], damage
        shutil.rmtree(newest)
        shutil.copytree(tmp_path / "good", newest)
    assert checkpoints.newest().path == newest


def test_resume_says_that_it_fell_back_and_ends_the_same(trained: Path, tmp_path: Path, monkeypatch: Any) -> None:
    light(monkeypatch)
    config = configured(training__steps=9, training__validate_every=4)
    for name in ("whole", "damaged"):
        shutil.copytree(trained, tmp_path / name)
    newest = Checkpoints(tmp_path / "damaged").all()[0]
    (newest / "model.safetensors").write_bytes(b"gone")
    watcher = Recorder()
    run(config, tmp_path / "damaged", resume=True, observers=[watcher])
    run(config, tmp_path / "whole", resume=True)
    assert outcome(tmp_path / "damaged") == outcome(tmp_path / "whole")
    told = [note.text for note in watcher.notes if note.kind == "resume"]
    assert len(told) == 1
    assert "model.safetensors" in told[0]
    assert "going on from the checkpoint before it" in told[0]


def test_no_whole_checkpoint_is_one_clear_error(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    for path in Checkpoints(tmp_path).all():
        (path / "manifest.json").unlink()
    with pytest.raises(BundleError, match="no checkpoint is whole"):
        Checkpoints(tmp_path).newest()


def test_best_is_a_bundle_that_answers(trained: Path) -> None:
    loaded = bundle.load(trained)
    assert loaded.path == trained / "best"
    assert json.loads((trained / "best" / "training" / "state.json").read_text())["best"] is not None
    assert "SHA-256 of the data" in (trained / "best" / "README.md").read_text()


def full(path: Path) -> Callable[..., None]:
    """`write_folder` on a disk that is full while a file `full` lies in the run."""
    original = bundle.write_folder

    def written(final: Path, *arguments: Any, **named: Any) -> None:
        if (path / "full").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        original(final, *arguments, **named)

    return written


def test_a_full_disk_does_not_end_training(tmp_path: Path, monkeypatch: Any) -> None:
    light(monkeypatch)
    monkeypatch.setattr("antiphon.training.checkpoint.WAITS", (0.0, 0.0))
    monkeypatch.setattr("antiphon.training.checkpoint.folders.write_folder", full(tmp_path / "part"))
    monkeypatch.setattr("antiphon.training.keeping.bundle.write_folder", full(tmp_path / "part"))
    config = configured(training__steps=12, training__validate_every=4)

    class Filler(Recorder):
        def step(self, event: Any) -> Any:
            if event.step == 6:
                (tmp_path / "part" / "full").touch()
                self.before = listing(tmp_path / "part" / "checkpoints")
            if event.step == 10:
                assert listing(tmp_path / "part" / "checkpoints") == self.before
                (tmp_path / "part" / "full").unlink()
            return super().step(event)

    watcher = Filler()
    result = run(config, tmp_path / "part", observers=[watcher])
    run(config, tmp_path / "whole")
    assert result.reason == "steps"
    assert any("could not be written" in note.text and note.step == 8 for note in watcher.notes)
    assert outcome(tmp_path / "part") == outcome(tmp_path / "whole")


def test_only_a_failed_last_save_is_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    light(monkeypatch)
    monkeypatch.setattr("antiphon.training.checkpoint.WAITS", ())
    monkeypatch.setattr("antiphon.training.checkpoint.folders.write_folder", full(tmp_path))
    monkeypatch.setattr("antiphon.training.keeping.bundle.write_folder", full(tmp_path))

    class Filler(Recorder):
        def step(self, event: Any) -> Any:
            if event.step == 3:
                (tmp_path / "full").touch()
            return None

    config = configured(training__steps=5, training__validate_every=2)
    with pytest.raises(TrainingError, match="the last checkpoint could not be written"):
        run(config, tmp_path, observers=[Filler()])
    (tmp_path / "full").unlink()
    assert Checkpoints(tmp_path).newest().state.step == 2
    assert run(config, tmp_path, resume=True).step == 5


def test_without_any_checkpoint_none_is_promised(tmp_path: Path, monkeypatch: Any) -> None:
    light(monkeypatch)
    monkeypatch.setattr("antiphon.training.checkpoint.WAITS", ())
    monkeypatch.setattr("antiphon.training.checkpoint.folders.write_folder", full(tmp_path))
    monkeypatch.setattr("antiphon.training.keeping.bundle.write_folder", full(tmp_path))
    (tmp_path / "full").touch()
    with pytest.raises(TrainingError, match="make room, then train again"):
        run(configured(training__steps=3, training__validate_every=2), tmp_path / "run")


def test_writing_is_tried_again() -> None:
    tries = []

    def write() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    assert insist(write) is None
    assert len(tries) == 3


def test_too_little_room_is_told(tmp_path: Path) -> None:
    assert room(tmp_path, 1) == ""
    assert "MB free" in room(tmp_path, 1 << 60)
