"""Bundles: they come back as they were, or not at all; and whatever a file holds, loading it runs nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from antiphon.core.errors import BundleError
from antiphon.inference import files as files_module
from antiphon.inference.bundle import Bundle, bundle_files, facts, load, read, save, tensors
from antiphon.inference.files import (
    CARD,
    current,
    verify,
    write_file,
    write_folder,
    write_zip,
)
from antiphon.inference.predictor import Predictor
from test_predictor import make, said, texts

CARD_FACTS = {"data": "toy", "data_hash": "ab" * 32, "scores": {"bleu": {"value": 12.5, "interval": (11, 14)}},
              "command": "antiphon train", "licence": "CC0"}  # fmt: skip


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make("transformer", context=["to"])


@pytest.fixture(scope="module")
def good(bundle: Bundle) -> dict[str, bytes]:
    return bundle_files(model=bundle.model, task=bundle.task, config=bundle.config, card=CARD_FACTS)


@pytest.fixture
def folder(good: dict[str, bytes], tmp_path: Path) -> Path:
    write_folder(tmp_path / "model", good, facts=facts(CARD_FACTS))
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["model", "model.zip"])
def test_a_bundle_takes_the_place_of_a_bundle_alone(bundle: Bundle, name: str, tmp_path: Path) -> None:
    def write(path: Path) -> None:
        save(path, model=bundle.model, task=bundle.task, config=bundle.config, card=CARD_FACTS)

    write(tmp_path / name)
    write(tmp_path / name)
    run = tmp_path / "run"
    write(run / "best")
    for taken in (run, run / "notes", run / "notes.zip"):
        if not taken.exists():
            taken.write_text("mine")
        with pytest.raises(BundleError, match="something that is no model is there already"):
            write(taken)
    assert (run / "best").is_dir()
    assert (run / "notes").read_text() == (run / "notes.zip").read_text() == "mine"


# ---- coming back ----


@pytest.mark.parametrize("name", ["model", "model.zip"])
@pytest.mark.parametrize("head", ["vocabulary", "copy"])
def test_round_trip(name: str, head: str, tmp_path: Path) -> None:
    before = make(head=head)
    save(tmp_path / name, model=before.model, task=before.task, config=before.config, card=CARD_FACTS)
    after = load(tmp_path / name)
    assert after.config == before.config
    assert after.manifest["card"]["licence"] == "CC0"
    assert after.task.files() == before.task.files()
    for key, tensor in tensors(before.model).items():
        assert torch.equal(tensor, tensors(after.model)[key])
    inputs = texts(5)
    assert said(list(Predictor(after).predict(inputs))) == said(list(Predictor(before).predict(inputs)))


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    sides = {side: {"tokenizer": "whitespace"} for side in ("source", "target")}
    before = make(shared=True, **sides)
    assert len({t.data_ptr() for t in tensors(before.model).values()}) == len(tensors(before.model))
    save(tmp_path / "m", model=before.model, task=before.task, config=before.config, card={})
    after = load(tmp_path / "m").model
    names = [dict(model.named_parameters(remove_duplicate=False)) for model in (before.model, after)]
    groups = [{name: parameter.data_ptr() for name, parameter in each.items()} for each in names]
    pairs = [(a, b) for a in groups[0] for b in groups[0]]
    assert all((groups[0][a] == groups[0][b]) == (groups[1][a] == groups[1][b]) for a, b in pairs)


def test_card_states_data_scores_command_and_licence(folder: Path) -> None:
    text = (folder / CARD).read_text()
    for word in ("ab" * 32, "12.5", "11 to 14", "antiphon train", "CC0", '"encoder"'):
        assert word in text
    (folder / CARD).write_text("edited by its owner")
    assert load(folder).manifest["card"]["data"] == "toy"


def test_equal_models_give_equal_bytes(good: dict[str, bytes], tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_zip(tmp_path / name, good)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_checkpoint_is_a_bundle_with_training_inside(good: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "step"
    write_folder(path, {**good, "training/state.json": b"{}\n", "training/optimizer.safetensors": b"12345"})
    assert read(path, training=True)[1]["training/state.json"] == b"{}\n"
    assert "training/state.json" not in read(path)[1]
    (path / "training/state.json").write_bytes(b"{x\n")
    load(path)
    with pytest.raises(BundleError, match=r"training/state\.json"):
        verify(path, training=True)
    for name in ("state.json", "optimizer.safetensors"):
        (path / "training" / name).unlink()
    (path / "training").rmdir()
    load(path)
    with pytest.raises(BundleError, match="missing"):
        verify(path, training=True)


def test_a_run_means_its_best_model(good: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(BundleError):
        load(tmp_path / "run")
    (tmp_path / "run/config.json").write_text("{}")
    with pytest.raises(BundleError, match="no best model yet"):
        load(tmp_path / "run")
    write_folder(tmp_path / "run/best", good)
    assert load(tmp_path / "run").path == tmp_path / "run/best"
    (tmp_path / "run/best").rename(tmp_path / "run/best.old-77")
    assert load(tmp_path / "run").path == tmp_path / "run/best.old-77"


def test_weights_that_are_not_numbers_are_never_written(tmp_path: Path) -> None:
    broken = make()
    with torch.no_grad():
        broken.model.head.bias[0] = float("nan")
    with pytest.raises(BundleError, match="not finite"):
        save(tmp_path / "m", model=broken.model, task=broken.task, config=broken.config, card={})
    assert list(tmp_path.iterdir()) == []


# ---- whole or not at all ----


def _fail_at(number: int, action: Callable[[], None]) -> Callable[[], int]:
    """Makes the number-th call that touches the disk do `action`; gives a function that counts the calls."""
    calls = 0

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                action()
            return real(*args, **kwargs)

        return wrapped

    class Os:
        def __getattr__(self, name: str) -> Any:
            real = getattr(os, name)
            return wrap(real) if name in ("fsync", "rename", "replace", "open") else real

    files_module.os = Os()  # type: ignore[assignment]
    files_module.open = wrap(open)  # type: ignore[attr-defined]
    return lambda: calls


@pytest.mark.parametrize("dies", [True, False])
def test_a_crash_between_any_two_calls_leaves_the_old_or_the_new(dies: bool, tmp_path: Path) -> None:
    old, new = ({"config.json": text, "training/state.json": text} for text in (b"old", b"new"))

    def error() -> None:
        raise OSError(28, "No space left on device")

    outcomes = set()
    for number in range(1, 60):
        final = tmp_path / f"{dies}-{number}" / "model"
        write_folder(final, old)
        child = os.fork()
        if child == 0:
            try:
                count = _fail_at(number, (lambda: os._exit(1)) if dies else error)
                write_folder(final, new)
                os._exit(0 if count() < number else 2)
            except OSError:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        content = read(current(final), training=True)[1]
        assert content in (old, new)
        outcomes.add(content["config.json"])
        if not dies:
            assert {path.name.partition("-")[0] for path in final.parent.iterdir()} <= {"model", "model.old"}
        write_folder(final, new)
        assert read(final, training=True)[1] == new
        if status == 0:
            break
    else:
        pytest.fail("never got through")
    assert b"old" in outcomes
    assert number > 10


@pytest.mark.parametrize("kind", ["folder", "file", "zip"])
def test_what_takes_the_place_of_the_old_is_on_disk_before_and_so_is_its_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut loses what was not synced: contents, then the folders that name them, then the name of the whole, and
    only after that what was there before."""
    final, done = tmp_path / "place/model", list[tuple[str, str]]()
    files = {"config.json": b"{}", "training/a.safetensors": b"a", "README.md": b"card"}
    known = {"folder": write_folder, "zip": write_zip, "file": lambda path, files: write_file(path, b"{}")}
    write = known[kind]

    def noting(name: str, path: Callable[..., str]) -> None:
        module = shutil if name == "rmtree" else os
        plain = getattr(module, name)

        def noted(*given: Any, **options: Any) -> Any:
            done.append((name, path(*given)))
            return plain(*given, **options)

        monkeypatch.setattr(module, name, noted)

    write(final, files)
    noting("fsync", lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}"))
    for name in ("rename", "replace", "rmtree"):
        noting(name, lambda *paths: str(paths[-1]))
    write(final, files)
    [named] = [at for at, (what, path) in enumerate(done) if what in ("rename", "replace") and path == str(final)]
    synced = {path.partition(f".tmp-{os.getpid()}")[2] for what, path in done[:named] if what == "fsync"}
    wanted = {"", "/training", "/manifest.json", *(f"/{name}" for name in files)} if kind == "folder" else {""}
    assert synced >= wanted
    [settled] = [at for at, event in enumerate(done) if event == ("fsync", str(final.parent)) and at > named]
    removed = [at for at, (what, path) in enumerate(done) if what == "rmtree" and ".old-" in path and at > named]
    assert bool(removed) == (kind == "folder")
    assert all(at > settled for at in removed)


def test_single_files_are_replaced_whole(tmp_path: Path) -> None:
    write_file(tmp_path / "a.json", b"1")
    write_file(tmp_path / "a.json", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"2"


def test_names_outside_the_list_are_not_written(tmp_path: Path) -> None:
    for name in ("../x", "x", "training/../../x", "model.pt", "source..x", "config.json\n", "training/a.pkl"):
        with pytest.raises(BundleError, match="name"):
            write_folder(tmp_path / "m", {name: b""})
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_one_line(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        save(tmp_path / "file/model", model=bundle.model, task=bundle.task, config=bundle.config, card={})
