"""Vocabularies that grow, old pairs among the new, and settings that contradict the model to start from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from antiphon.__main__ import main
from antiphon.core.batch import UNK
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.data.batching import epoch_plan
from antiphon.data.corpus import Pair, open_pairs
from antiphon.data.store import Field, Store, join
from antiphon.inference import bundle
from antiphon.inference.task import Task
from antiphon.models.seq2seq import build
from antiphon.training.finetuning import Start
from antiphon.training.start import fit, resume
from antiphon.training.validation import Validator
from runs import Recorder, configured, light, outcome, words
from starts import (
    QUICK,
    SHORT,
    STILL,
    copies,
    raw,
    shared_start,  # noqa: F401
    weights,
)
from test_speech import RATE, tone


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


# A vocabulary that grows


@pytest.mark.parametrize(
    "wiring",
    [
        {"model__tie": "none", "model__head": "copy"},
        {"model__tie": "target"},
        {"model__tie": "all", "data__shared": True},
    ],
    ids=["none", "target", "all"],
)
def test_old_ids_and_rows_stay_when_a_vocabulary_is_extended(wiring: dict[str, Any], tmp_path: Path) -> None:
    old = raw(tmp_path / "old", configured(**wiring))
    seen = Recorder()
    fit(copies("abXYZ"), out=tmp_path / "run", assignments={**STILL, "data.extend": True}, start=old, observers=[seen])
    before, after = bundle.load(old), bundle.load(tmp_path / "run")
    fresh = build(after.config.model, after.model.source_size, after.model.target_size, seed=1)
    for name in ("source", "target"):
        had, has = getattr(before.task, name).vocabulary.tokens, getattr(after.task, name).vocabulary.tokens
        assert has[: len(had)] == had
        assert set(has[len(had) :]) == set("XYZ")
    for name, tensor in bundle.tensors(before.model).items():
        new, first = bundle.tensors(after.model)[name], bundle.tensors(fresh)[name]
        assert torch.allclose(new[: len(tensor)], tensor, rtol=0, atol=1e-20), name
        assert torch.allclose(new[len(tensor) :], first[len(tensor) :], rtol=0, atol=1e-20), name
    assert after.model.source.embedding.weight[-1].norm() > 0
    assert any("3 tokens added" in note.text for note in seen.notes)
    assert after.config.data.source.vocabulary == 100


def test_sizes_and_counts_limit_what_is_added(tmp_path: Path) -> None:
    old = raw(tmp_path / "old", configured(data__source__vocabulary=9, data__target__vocabulary=9))
    pairs = [*copies("abXYZ"), ("Q", "Q")]
    more = {"data.extend": True, "data.source.vocabulary": 11, "data.target.min_count": 2}
    fit(pairs, out=tmp_path / "run", assignments={**STILL, **more}, start=old)
    task, config = (new := bundle.load(tmp_path / "run")).task, new.config
    assert len(task.source.vocabulary) == 11
    assert set(task.target.vocabulary.tokens[9:]) == set("XYZ")
    assert (config.data.source.vocabulary, config.data.target.vocabulary) == (11, 12)
    with pytest.raises(ConfigError, match=r"data\.source\.vocabulary is below the 11 tokens"):
        fit(pairs, out=tmp_path / "less", assignments={"data.extend": True, "data.source.vocabulary": 10},
            start=tmp_path / "run")  # fmt: skip


def test_subwords_are_cut_as_before(tmp_path: Path) -> None:
    config = configured(data__source__tokenizer="bpe", data__source__vocabulary=30)
    old = raw(tmp_path / "old", config, [(f"{a} {b}", b) for a, b in words(80)])
    seen = Recorder()
    pairs = [(f"{a} ☃ {b}", b) for a, b in copies()]
    fit(pairs, out=tmp_path / "run", assignments={**STILL, "data.extend": True}, start=old, observers=[seen])
    before, after = bundle.load(old).task.source, bundle.load(tmp_path / "run").task.source
    assert after.cut("abcde ☃ x") == before.cut("abcde ☃ x")
    assert UNK in before.vocabulary.ids(before.cut("a ☃"))
    assert UNK not in after.vocabulary.ids(after.cut("a ☃"))
    assert any("the subword pieces stay as they are" in note.text for note in seen.notes)


def test_a_new_domain_gets_a_tag(tmp_path: Path) -> None:
    rows = [{"source": a, "target": b, "domain": "old"} for a, b in words(40)]
    config = configured(data__context=("domain",))
    task = Task.learn(open_pairs(rows, config.data), config)
    model = build(config.model, len(task.source.vocabulary), len(task.target.vocabulary))
    bundle.save(tmp_path / "old", model=model, task=task, config=config, card={})
    new = [{**row, "domain": "new"} for row in rows]
    fit(new, out=tmp_path / "run", assignments={**STILL, "data.extend": True}, start=tmp_path / "old")
    assert "<domain:new>" in bundle.load(tmp_path / "run").task.source.vocabulary.index


# Old pairs among the new


def numbered(new: int, old: int) -> Store:
    """A store whose n-th source is n ids of the value n + 4."""

    def field(numbers: range) -> Field:
        rows = [[number + 4] * (number % 5 + 1) for number in numbers]
        lengths = [0, *(len(row) for row in rows)]
        return Field(np.array([value for row in rows for value in row]), np.cumsum(lengths))

    first, second = ((field(numbers), field(numbers)) for numbers in (range(new), range(new, new + old)))
    return join(Store(*first), Store(*second))


@pytest.mark.parametrize(("share", "old"), [(0.5, 30), (0.25, 10), (0.0, 0), (0.9, 50)])
def test_an_epoch_has_all_new_pairs_and_another_sample_of_old_ones(share: float, old: int) -> None:
    store = numbered(30, 50)
    epochs = [np.concatenate(epoch_plan(store, 40, 1, epoch, share)) for epoch in (0, 1, 0)]
    for rows in epochs:
        assert sorted(rows[rows < 30]) == list(range(30))
        assert len(set(rows[rows >= 30])) == sum(rows >= 30) == old
    assert np.array_equal(epochs[0], epochs[2])
    if 0 < old < 50:
        assert set(epochs[0]) != set(epochs[1])


def test_joined_fields_pad_as_one() -> None:
    store = numbered(5, 7)
    for rows in (np.array([3, 11, 0, 5]), np.array([1, 0]), np.array([6, 11])):
        batch = store.batch(rows)
        for place, row in enumerate(rows):
            length = int(batch.source.lengths_B[place])
            assert batch.source.values[place].tolist() == [row + 4] * length + [0] * (
                batch.source.values.shape[1] - length
            )
            assert store[int(row)].source == [row + 4] * length
            assert length == store.source_lengths[row]


def test_mixing_forgets_less_and_resumes_exactly(start: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "training.steps": 60, "training.validate_every": 20, "training.patience": 0, "data.mix": 0.5}

    def loss(path: Path) -> float:
        old = bundle.load(path)
        pairs = [Pair(*pair) for pair in words(60)]
        return Validator(override(old.config, {"training.metric": "loss"}), old.task, pairs)(old.model, int).loss

    seen = Recorder()
    fit(copies(), out=tmp_path / "alone", assignments=settings, start=start)
    fit(copies(), out=tmp_path / "mixed", assignments=settings, start=start, mix=words(40), observers=[seen])
    assert loss(tmp_path / "mixed") < 0.9 * loss(tmp_path / "alone")
    assert any("mixed-in data: 40 of 40 pairs" in note.text for note in seen.notes)
    assert "mixed in: mix.jsonl" in (tmp_path / "mixed" / "best" / "README.md").read_text()
    fit(copies(), out=tmp_path / "parts", assignments=settings, start=start, mix=words(40), observers=[Recorder(9)])
    resume(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "mixed")


def test_a_changed_old_file_is_refused_at_a_resume(start: Path, tmp_path: Path) -> None:
    file = tmp_path / "old.tsv"
    file.write_text("".join(f"{a}\t{b}\n" for a, b in words(40)))
    fit(copies(), out=tmp_path / "run", assignments=SHORT, start=start, mix=file, observers=[Recorder(3)])
    file.write_text("".join(f"{a}\t{b}\n" for a, b in words(41)))
    with pytest.raises(DataError, match="the mixed-in data has changed"):
        resume(tmp_path / "run")


# What is read as before


def test_facts_and_turns_are_as_many_as_the_start_read_unless_said_otherwise(tmp_path: Path) -> None:
    old = Start.open(raw(tmp_path / "old", configured(data__facts=7, data__history=2)))
    assert (old.settings({}).data.facts, old.settings({}).data.history) == (7, 2)
    assert old.settings({"data.facts": 9}).data.facts == 9


def test_recordings_become_the_frames_that_the_start_hears(tmp_path: Path) -> None:
    pairs = []
    for place in range(8):
        path = tmp_path / f"{place}.wav"
        soundfile.write(path, tone(0.3, 200 + 50 * place), RATE)
        pairs.append(Pair(str(path), "ab"[place % 2]))
    heard = {"data.frames.mels": 20, "data.frames.step": 20.0, "data.frames.normalize": "each", "model.width": 16}
    given = {**QUICK, "training.steps": 2, "training.validate_every": 2}
    fit(pairs, valid=pairs, out=tmp_path / "old", task="speech", assignments={**given, **heard})
    fit(pairs, valid=pairs, out=tmp_path / "new", start=tmp_path / "old", assignments=given)
    old, new = (bundle.load(tmp_path / name).config.data.frames for name in ("old", "new"))
    assert new == old
    assert (new.mels, new.step, new.normalize, new.rate) == (20, 20.0, "each", RATE)


# What contradicts


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.width", "64"), ("model.encoder.kind", "lstm"), ("model.tie", "none"), ("model.positions", "rotary"),
        ("data.source.tokenizer", "word"), ("data.target.lowercase", "true"), ("data.shared", "true"),
        ("data.context", "domain"), ("data.source.vocabulary", "5000"), ("task", "translation"),
    ],
)  # fmt: skip
def test_a_setting_that_contradicts_the_start_is_named(key: str, value: str, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^.*general: {key} is .* in the model to start from \(got "):
        fit(copies(), out=tmp_path / "run", assignments={key: value}, start=start)
    assert not (tmp_path / "run").exists()


def test_what_agrees_or_is_free_may_be_said(start: Path) -> None:
    given = {"model.width": "16", "model.encoder.kind": "gru", "data.source.tokenizer": "char", "model.tie": "auto",
             "model.dropout": "0.3", "data.empty": "skip", "decoding.beam": "3", "training.rate": "0.001"}  # fmt: skip
    config = Start.open(start).settings(given)
    assert (config.model.tie, config.model.dropout, config.decoding.beam) == ("target", 0.3, 3)
    assert (config.data.empty, config.training.rate, config.training.steps) == ("skip", 0.001, None)


@pytest.mark.parametrize("given", [{"data.extend": True}, {"training.l2_start": 0.1}])
def test_some_settings_need_a_start(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a model to start from"):
        fit(copies(), out=tmp_path / "run", assignments=given)


def test_frozen_vectors_do_not_grow(tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text("a " + " ".join(["0.5"] * 16) + "\n")
    frozen = configured(data__source__vectors=str(tmp_path / "vectors.txt"), data__source__freeze=True)
    old = raw(tmp_path / "old", frozen)
    (tmp_path / "vectors.txt").unlink()
    with pytest.raises(ConfigError, match=r"set data\.source\.freeze=false"):
        fit(copies(), out=tmp_path / "run", assignments={**STILL, "data.extend": True}, start=old)
    fit(copies(), out=tmp_path / "run", assignments={**SHORT}, start=old)
    name = "source.embedding.weight"
    assert torch.equal(weights(tmp_path / "run")[name], weights(old)[name])


def damaged(start: Path, folder: Path) -> Path:
    shutil.copytree(start / "best", folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    return folder


def test_a_bad_start_is_one_line(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in copies()))

    def refused(path: Path, *more: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["train", str(tmp_path / "new.tsv"), "--from", str(path), "--out", str(tmp_path / "run"), *more])
        assert end.value.code == 2
        assert not (tmp_path / "run").exists()
        [line] = capsys.readouterr().err.splitlines()
        return line

    assert "nowhere: there is no model here" in refused(tmp_path / "nowhere")
    assert "neither a bundle folder nor a zip" in refused(tmp_path / "new.tsv")
    assert "model.safetensors: the file is damaged" in refused(damaged(start, tmp_path / "bad"))
    assert "task is transduction in the model to start from" in refused(start, "--task", "translation")
