"""Each pair is in exactly one batch an epoch, batches depend on seed and epoch alone, and loading loses nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.batch import Batch, pad
from antiphon.core.config import Side
from antiphon.core.errors import DataError
from antiphon.data import batching
from antiphon.data.batching import Example, Loader, Store, collate, mix, padding, plan, prepare
from antiphon.data.columns import Pair
from antiphon.data.modalities import Text, TooLong
from antiphon.data.report import Report

lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=80)


def same(left: Batch, right: Batch) -> bool:
    pairs = [(left.source, right.source), (left.target, right.target)]
    pairs += [(left.context[name], right.context[name]) for name in left.context | right.context]
    return all(torch.equal(a.values, b.values) and torch.equal(a.lengths_B, b.lengths_B) for a, b in pairs)


def examples(count: int = 200, *, copy: bool = False) -> list[Example]:
    draw = np.random.default_rng(1)
    made = []
    for _ in range(count):
        source, target = (draw.integers(4, 99, draw.integers(1, 20)).tolist() for _ in range(2))
        made.append(Example(source, target, {"copy": [number + 1 for number in source]} if copy else {}))
    return made


def store_of(made: list[Example], folder: Path | None = None, **options: Any) -> Store:
    waiting = iter(made)
    pairs = [Pair(f"source {number}", f"target {number}", (), {"n": str(number)}) for number in range(len(made))]
    return prepare(pairs, lambda pair: next(waiting), folder, **options)


@given(lengths, st.integers(1, 300), st.integers(0, 99), st.integers(0, 9))
def test_a_plan_has_each_pair_once_within_the_budget(
    pairs: list[tuple[int, int]], budget: int, seed: int, epoch: int
) -> None:
    source, target = np.array(pairs).T
    batches = plan(source, target, budget, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(pairs)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * (source[rows].max() + target[rows].max()) <= budget
    again = plan(source, target, budget, seed, epoch)
    assert all(np.array_equal(left, right) for left, right in zip(batches, again, strict=True))


def test_a_plan_changes_with_seed_and_epoch_and_wastes_little() -> None:
    draw = np.random.default_rng(1)
    target = draw.integers(2, 40, 20_000)
    source = np.maximum(1, target + draw.integers(-5, 6, 20_000))
    plans = [plan(source, target, 4096, seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    first = [tuple(batches[0].tolist()) for batches in plans]
    assert len(set(first)) == 3
    assert all(padding(source, target, batches) < 0.05 for batches in plans)
    chosen = {frozenset(rows.tolist()) for rows in plans[0]} & {frozenset(rows.tolist()) for rows in plans[1]}
    assert len(chosen) < len(plans[0]) / 2, "other epochs put other pairs together"
    widths = [int(target[rows].max()) for rows in plans[0]]
    assert widths != sorted(widths), "batches come in no order of length"


def test_a_batch_is_filled_to_the_last_token() -> None:
    assert sorted(len(rows) for rows in plan(np.full(10, 2), np.full(10, 3), 20, 1, 0)) == [2, 4, 4]
    assert sorted(len(rows) for rows in plan(np.full(10, 2), np.full(10, 3), 24, 1, 0)) == [2, 4, 4]
    assert [len(rows) for rows in plan(np.full(3, 2), np.full(3, 3), 1, 1, 0)] == [1, 1, 1]


def test_a_million_pairs_are_planned_in_two_seconds() -> None:
    draw = np.random.default_rng(1)
    source, target = draw.integers(2, 60, 1_000_000), draw.integers(2, 60, 1_000_000)
    begun = time.process_time()
    plan(source, target, 4096, 1, 0)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("copy", [False, True])
def test_store_collate_and_pad_agree(tmp_path: Path, copy: bool) -> None:
    made = examples(copy=copy)
    rows = np.array([3, 0, 150, 7])
    expected = collate([made[row] for row in rows])
    assert torch.equal(expected.source.values, pad([made[row].source for row in rows]).values)
    assert torch.equal(expected.target.values, pad([made[row].target for row in rows]).values)
    assert set(expected.context) == ({"copy"} if copy else set())
    for store in (
        store_of(made),
        store_of(made, ids_below=200),
        store_of(made, tmp_path / "small"),
        store_of(made, tmp_path / "mapped", spill=100),
        store_of(made, tmp_path / "mapped2", spill=100, ids_below=200),
    ):
        assert len(store) == len(made)
        assert [store[number] for number in range(len(made))] == made
        assert same(store.batch(rows), expected)
        assert store.source_lengths.tolist() == [len(example.source) for example in made]
        assert store.target_lengths.tolist() == [len(example.target) for example in made]


def test_only_large_stores_go_to_files(tmp_path: Path) -> None:
    small, large = store_of(examples(), tmp_path / "small"), store_of(examples(), tmp_path / "large", spill=100)
    assert not (tmp_path / "small").exists()
    assert not isinstance(small.source.flat, np.memmap)
    assert isinstance(large.source.flat, np.memmap)
    assert (tmp_path / "large" / "source.ids").stat().st_size == 4 * large.source.flat.size
    assert store_of(examples(), ids_below=100).source.flat.dtype == np.uint16


def test_prepare_counts_what_it_leaves_out() -> None:
    text, report = Text.learn(["ab"], Side("char", max_length=3), name="source", too_long="skip"), Report()
    pairs = [Pair("a", "b"), Pair("abab", "b"), Pair("ab", "b")]
    store = prepare(pairs, lambda pair: Example(text.ids(pair.source), [4, 3]), report=report)
    assert len(store) == 2
    assert report.lines() == ["1 x skipped: source is longer than max_length=3 ('abab')"]
    with pytest.raises(DataError, match="no pair is left"):
        prepare(pairs[1:2], lambda pair: Example(text.ids(pair.source), [4, 3]))
    strict = Text(text.tokenizer, text.vocabulary, text.side, "source", "error")
    with pytest.raises(TooLong):
        prepare(pairs, lambda pair: Example(strict.ids(pair.source), [4, 3]))


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    (tmp_path / "source.ids").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"source\.ids: cannot write the encoded data: No space left.*free some space"):
        store_of(examples(2000), tmp_path, spill=10_000)


def numbered(store: Store, batches: list[np.ndarray], **options: Any) -> list[tuple[int, Batch]]:
    return list(Loader(store, batches, **options))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_loading_is_the_same_for_any_worker_count(workers: int) -> None:
    store = store_of(examples(copy=True), keep_text=True)
    batches = plan(store.source_lengths, store.target_lengths, 200, 1, 0)
    loaded = numbered(store, batches, workers=workers)
    assert [number for number, _ in loaded] == list(range(len(batches)))
    assert all(same(batch, store.batch(batches[number])) for number, batch in loaded)
    later = numbered(store, batches, workers=workers, start=5)
    assert [number for number, _ in later] == list(range(5, len(batches)))
    assert all(same(batch, loaded[number][1]) for number, batch in later)
    assert numbered(store, batches, workers=workers, start=len(batches)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_does_not_touch_the_random_state_of_training(workers: int) -> None:
    store = store_of(examples())
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    numbered(store, [np.arange(5)] * 4, workers=workers)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_sampled_cuts_follow_from_the_seed_and_the_pair(workers: int) -> None:
    def encode(pair: Pair, seed: int) -> Example:
        return Example([seed % 1000 + 4, int(pair.context["n"]) + 4], [4, 3])

    store = store_of(examples(), keep_text=True)
    batches = [np.array([3, 1]), np.array([8])]
    loaded = numbered(store, batches, workers=workers, encode=encode, seed=7)
    assert loaded[0][1].source.values.tolist() == [[mix(7, 3) % 1000 + 4, 7], [mix(7, 1) % 1000 + 4, 5]]
    other = numbered(store, batches, encode=encode, seed=8)
    assert not same(loaded[0][1], other[0][1])
    with pytest.raises(DataError, match="kept no texts"):
        store_of(examples()).pair(0)
    assert store.pair(3) == Pair("source 3", "target 3", (), {"n": "3"})


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(st.characters(exclude_categories=["Cs"])))
def test_kept_texts_come_back(source: str, context: str) -> None:
    pair = Pair(source, "y", (), {"c": context})
    assert prepare([pair], lambda pair: Example([3], [3]), keep_text=True).pair(0) == pair


def test_mix_spreads_neighbours() -> None:
    seeds = [mix(1, epoch, number) for epoch in range(30) for number in range(30)]
    assert max(Counter(seeds).values()) == 1
    assert mix(1, 2) == mix(1, 2) != mix(2, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_while_loading_is_raised_where_batches_are_used(workers: int) -> None:
    def encode(pair: Pair, seed: int) -> Example:
        raise DataError("cannot encode", where=pair.source)

    loader = Loader(store_of(examples(), keep_text=True), [np.array([0])], workers=workers, encode=encode)
    with pytest.raises(DataError, match="cannot encode"):
        next(iter(loader))


def test_a_killed_worker_is_a_clear_error() -> None:
    def encode(pair: Pair, seed: int) -> Example:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    loader = Loader(store_of(examples(), keep_text=True), [np.array([0])] * 3, workers=1, encode=encode)
    with pytest.raises(DataError, match=r"a loading process died or hangs: .*pid.*workers=0"):
        list(loader)


def test_a_hanging_worker_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(pair: Pair, seed: int) -> Example:
        time.sleep(20)
        raise AssertionError

    monkeypatch.setattr(batching, "HANG", 0.5)
    loader = Loader(store_of(examples(), keep_text=True), [np.array([0])] * 3, workers=1, encode=encode)
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"died or hangs.*timed out"):
        list(loader)
    assert time.monotonic() - begun < 15


def test_leaving_early_ends_the_thread() -> None:
    store = store_of(examples())
    before = threading.active_count()
    batches = iter(Loader(store, [np.arange(5)] * 1000))
    assert next(batches)[0] == 0
    assert threading.active_count() == before + 1
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_long_source_is_not_padded_with_many() -> None:
    sources, targets = np.array([4000, *[12] * 500]), np.full(501, 10)
    batches = plan(sources, targets, 4096, seed=1, epoch=0)
    assert sorted(len(batch) for batch in batches if 0 in batch) == [1]
    assert padding(sources, targets, batches) < 0.01


def test_batches_are_made_ahead() -> None:
    store = store_of(examples(), keep_text=True)
    made: list[int] = []

    def encode(pair: Pair, seed: int) -> Example:
        made.append(int(pair.context["n"]))
        return Example([3], [3])

    batches = iter(Loader(store, [np.array([number]) for number in range(100)], encode=encode, ahead=4))
    next(batches)
    deadline = time.monotonic() + 10
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 5 <= len(made) <= 6, "four wait, and one more is in hand"
