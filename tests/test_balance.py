"""Epochs balanced between groups: as many pairs as there are, drawn as the temperature says, and resumed exactly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from antiphon.core.config import Data
from antiphon.core.errors import ConfigError, DataError
from antiphon.data.balance import MOST, Groups, allotted, balanced, table
from antiphon.data.batching import epoch_plan
from antiphon.data.corpus import Pair, open_pairs
from antiphon.data.store import Example, Store, join, prepare
from antiphon.training.start import fit, resume
from runs import SMALL, Recorder, light, outcome, words

COUNTS = np.array([800, 150, 50])


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


@pytest.mark.parametrize("temperature", [0.5, 1, 2, 5, 100])
def test_groups_are_drawn_by_the_power_of_their_size(temperature: float) -> None:
    found = allotted(COUNTS, temperature)
    weights = COUNTS ** (1 / temperature)
    assert found.sum() == COUNTS.sum()
    assert np.abs(found - COUNTS.sum() * weights / weights.sum()).max() < 1


def test_one_is_the_data_as_it_is_and_much_is_even() -> None:
    assert allotted(COUNTS, 1).tolist() == COUNTS.tolist()
    assert np.ptp(allotted(COUNTS, 1e9)) <= 1


def test_a_group_is_sampled_without_or_repeated_with_as_little_repetition_as_can_be() -> None:
    groups = np.random.default_rng(1).permutation(np.repeat(np.arange(3), COUNTS))
    rows = balanced(groups, 5, np.random.default_rng(2))
    times = np.bincount(rows, minlength=len(groups))
    for number, wanted in enumerate(allotted(COUNTS, 5)):
        mine = times[groups == number]
        assert mine.sum() == wanted
        assert mine.max() - mine.min() <= 1


def stored(pairs: int, balance: str = "to") -> Store:
    draw = np.random.default_rng(1)
    lines = [Pair("x" * int(draw.integers(1, 9)), "y", (), {"to": "abc"[min(2, n % 10 // 8 + n % 10 // 9)]})
             for n in range(pairs)]  # fmt: skip
    return prepare(lines, lambda pair: Example([5] * len(pair.source), [6, 7]), balance=balance)


def test_a_plan_depends_on_its_arguments_alone_and_changes_with_the_epoch() -> None:
    store = stored(500)
    plans = [np.concatenate(epoch_plan(store, 60, 1, epoch, 0.5, 4.0)) for epoch in (0, 1, 0)]
    assert np.array_equal(plans[0], plans[2])
    assert not np.array_equal(np.sort(plans[0]), np.sort(plans[1]))
    assert store.groups is not None
    found = Counter(store.groups[plans[0]].tolist())
    assert [found[number] for number in range(3)] == allotted(np.bincount(store.groups), 4.0).tolist()
    for batch in epoch_plan(store, 60, 1, 0, 0.5, 4.0):
        assert len(batch) * (store.source_lengths[batch].max() + 2) <= 60


def test_a_temperature_of_one_is_the_plan_without_groups() -> None:
    plans = [epoch_plan(stored(300, balance), 60, 1, 3, 0.5, 1.0) for balance in ("to", "")]
    assert all(np.array_equal(*batches) for batches in zip(*plans, strict=True))


def test_old_pairs_are_mixed_in_beside_the_groups() -> None:
    both = join(stored(100), stored(50, ""))
    rows = np.concatenate(epoch_plan(both, 60, 1, 0, 0.25, 5.0))
    assert sum(rows < 100) == 100
    assert sum(rows >= 100) == 33


def test_a_column_that_is_missing_or_has_too_many_values_is_named() -> None:
    with pytest.raises(DataError, match="the column to is missing"):
        Groups("to").add(Pair("a", "b"))
    groups = Groups("to")
    for number in range(MOST):
        groups.add(Pair("a", "b", (), {"to": str(number)}))
    with pytest.raises(DataError, match=f"more than {MOST:,} values"):
        groups.add(Pair("a", "b", (), {"to": "another"}))


def test_a_table_says_what_an_epoch_has() -> None:
    lines = list(table(Data(balance="to"), ("big", "middle", "small"), np.repeat(np.arange(3), COUNTS)))
    assert lines[0].split() == ["to", "big", "800", "pairs,", "80.0%;", "in", "an", "epoch", "437,", "43.7%"]
    assert len(list(table(Data(balance="to"), tuple(map(str, range(30))), np.arange(30)))) == 21


def test_a_balanced_run_tells_its_groups_and_resumes_exactly(tmp_path: Path) -> None:
    rows = [{"source": a, "target": b, "to": "few" if n % 8 == 0 else "many"} for n, (a, b) in enumerate(words(60))]
    settings = {**SMALL, "model.encoder.kind": "gru", "model.decoder.kind": "gru", "model.attention": "dot",
                "data.balance": "to", "data.context": "to", "training.steps": 12,
                "training.validate_every": 4}  # fmt: skip
    seen = Recorder()
    fit(rows, out=tmp_path / "whole", assignments=settings, observers=[seen])
    assert any("data: to many" in note.text and "in an epoch" in note.text for note in seen.notes)
    fit(rows, out=tmp_path / "parts", assignments=settings, observers=[Recorder(6)])
    resume(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    with pytest.raises(ConfigError, match=r"data\.temperature must be above 0"):
        fit(rows, out=tmp_path / "no", assignments={**settings, "data.temperature": 0})


def test_a_column_that_is_balanced_need_not_be_named_among_the_columns(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("word\tpron\tlang\na\tA\tx\nb\tB\ty\n")
    (tmp_path / "a.jsonl").write_text('{"word": "a", "pron": "A", "lang": "x", "other": "1"}\n')
    data = Data(columns=("word", "pron"), balance="lang")
    for name in ("a.tsv", "a.jsonl"):
        assert next(iter(open_pairs(tmp_path / name, data))).context == {"lang": "x"}
    (tmp_path / "b.tsv").write_text("word\tpron\na\tA\n")  # to evaluate on, nothing is balanced
    assert next(iter(open_pairs(tmp_path / "b.tsv", data))).context == {}
