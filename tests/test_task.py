"""Pairs to ids and back: tags, copying, shared vocabularies, lengths, files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from antiphon.core.batch import EOS, PAD, UNK
from antiphon.core.config import Config
from antiphon.core.errors import BundleError, ConfigError, DataError
from antiphon.core.keys import read
from antiphon.data.corpus import Pair
from antiphon.data.report import Report
from antiphon.inference.lengths import LengthModel
from antiphon.inference.task import Task

PAIRS = [Pair("red car", "rotes Auto"), Pair("blue car", "blaues Auto"), Pair("my red dog", "mein roter Hund")]


def config(**data: Any) -> Config:
    sides = {"source": {"tokenizer": "word"}, "target": {"tokenizer": "word"}}
    head = data.pop("head", "vocabulary")
    return read({"data": {**sides, **data}, "model": {"head": head, "attention": "additive"}})


def test_encode_and_answer() -> None:
    task = Task.learn(PAIRS, config())
    for pair in PAIRS:
        example = task.encode(pair)
        assert example.source[-1] == example.target[-1] == EOS
        assert not example.context
        assert task.answer(example.target) == pair.target
    batch = task.batch(PAIRS)
    assert batch.source.lengths_B.tolist() == [3, 3, 4]
    assert batch.target.values[0].tolist()[:3] == task.encode(PAIRS[0]).target
    assert not batch.context


def test_context_becomes_one_tag_token_each() -> None:
    pairs = [replace(pair, context={"to": "de", "tone": tone}) for pair, tone in zip(PAIRS, "abb", strict=True)]
    task = Task.learn(pairs, config(context=["tone", "to"]))
    source = task.read(pairs[1])
    assert source.tokens == ["<tone:b>", "<to:de>", "blue", "car"]
    assert UNK not in source.ids
    assert task.read(replace(pairs[1], context={"to": "fr", "tone": "b"})).ids[1] == UNK
    with pytest.raises(DataError, match="context column tone is missing"):
        task.read("blue car")


def test_copying_maps_unknown_words_to_places_and_back() -> None:
    pairs = [Pair("call Bob", "ruf Bob"), Pair("call Ann", "ruf Ann")]
    task = Task.learn(pairs, config(head="copy", target={"tokenizer": "word", "min_count": 2}, context=[]))
    size = len(task.target.vocabulary)
    example = task.encode(Pair("Zoe call Eve Zoe", "ruf Zoe Eve Max"))
    assert example.context["copy"] == [size, size + 1, size + 2, size, EOS]
    assert example.target[1:] == [size, size + 2, UNK, EOS]
    extra = task.read("Zoe call Eve Zoe").extra
    assert task.answer(example.target, extra) == "ruf Zoe Eve <unk>"
    batch = task.batch([Pair("Zoe", "Zoe"), Pair("call Bob", "ruf Bob")])
    assert batch.context["copy"].values.shape == batch.source.values.shape


def test_tags_cannot_be_copied() -> None:
    pairs = [replace(pair, context={"to": "de"}) for pair in PAIRS]
    task = Task.learn(pairs, config(head="copy", context=["to"]))
    source = task.read(pairs[0])
    assert source.context["copy"][0] == PAD
    assert len(source.context["copy"]) == len(source.ids)
    assert "<to:de>" not in source.extra


def test_shared_vocabulary() -> None:
    task = Task.learn(PAIRS, config(shared=True))
    assert task.source.vocabulary == task.target.vocabulary
    assert {"car", "Auto"} <= set(task.source.vocabulary.tokens)
    assert [name for name in task.files() if name.startswith(("source", "target"))] == []
    with pytest.raises(ConfigError, match="one lowercase for both"):
        Task.learn(PAIRS, config(shared=True, source={"tokenizer": "word", "lowercase": True}))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["word", "bpe", "char"])
def test_files_round_trip(shared: bool, kind: str) -> None:
    sides = {side: {"tokenizer": kind, "vocabulary": 60} for side in ("source", "target")}
    settings = config(shared=shared, context=["to"], **sides)
    pairs = [replace(pair, context={"to": "de"}) for pair in PAIRS]
    task = Task.learn(pairs, settings)
    again = Task.load(task.files(), settings)
    assert again.files() == task.files()
    assert [again.encode(pair) for pair in pairs] == [task.encode(pair) for pair in pairs]
    assert (again.length, again.context, again.shared) == (task.length, task.context, task.shared)


def test_damaged_files_are_bundle_errors() -> None:
    settings = config()
    files = Task.learn(PAIRS, settings).files()
    for name in files:
        for content in (b"", b"[]", b"{}", b"\xff", b'{"a": NaN}', b"[" * 100_000, files[name][:-9]):
            with pytest.raises(BundleError):
                Task.load({**files, name: content}, settings)
        with pytest.raises(BundleError):
            Task.load({other: files[other] for other in files if other != name}, settings)


def test_length_model_covers_every_pair_with_little_slack() -> None:
    draw = np.random.default_rng(0)
    sources = draw.integers(1, 60, 3000)
    targets = np.round(sources * draw.uniform(0.5, 1.4, 3000) + draw.integers(0, 4, 3000)).astype(int) + 1
    model = LengthModel.learn(sources, targets)
    limits = np.array([model.limit(n) for n in sources])
    assert (limits > targets).all()
    assert limits.mean() < 2.5 * targets.mean()
    assert model.limit(600) > 10 * model.limit(30)


@pytest.mark.parametrize(
    ("sources", "targets"), [([5], [3]), ([5, 5], [3, 9]), ([1, 9], [9, 1]), ([1, 2, 3], [4, 4, 4]), ([1, 50], [2, 70])]
)
def test_length_model_of_odd_data(sources: list[int], targets: list[int]) -> None:
    model = LengthModel.learn(np.array(sources), np.array(targets))
    assert model.slope >= 0
    assert all(model.limit(n) >= t for n, t in zip(sources, targets, strict=True))


def test_cut_sources_are_counted_or_refused() -> None:
    task = Task.learn(PAIRS, config(source={"tokenizer": "word", "max_length": 3}))
    report = Report()
    assert len(task.read("a b c d e", report=report).ids) == 3
    assert list(report.counts.values()) == [1]
    strict = Task.learn(PAIRS[:2], config(source={"tokenizer": "word", "max_length": 3}, too_long="error"))
    with pytest.raises(DataError, match="longer than max_length=3"):
        strict.read("a b c d e")


def test_sampling_follows_the_seed() -> None:
    sides = {"source": {"tokenizer": "bpe", "vocabulary": 60, "sampling": 0.5}}
    task = Task.learn(PAIRS * 3, config(**sides))
    cuts = {tuple(task.encode(PAIRS[2], seed=seed).source) for seed in range(30)}
    assert len(cuts) > 3
    assert task.encode(PAIRS[2], seed=4) == task.encode(PAIRS[2], seed=4)
    assert len({tuple(task.encode(PAIRS[2]).source) for _ in range(5)}) == 1
