"""Numbers as text, what is taken for them, their scale, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.core.config import Config, Data, Frames, Side
from antiphon.core.errors import BundleError, ConfigError, DataError
from antiphon.core.keys import override
from antiphon.core.numbers import Forecast, held, is_plain, parse, spell
from antiphon.data.arrays import as_line, read_numbers, written
from antiphon.data.corpus import open_pairs
from antiphon.data.modalities import TooLong
from antiphon.data.numbers import Numbers, Scale, Season
from antiphon.data.report import Report
from antiphon.data.signals import kinds_of
from antiphon.inference.task import Task
from forecasts import settings

BOTH = Data(source=Side(kind="numbers"), target=Side(kind="numbers"), frames=Frames(normalize="each"))


def test_numbers_are_read_and_written() -> None:
    np.testing.assert_array_equal(parse("1.5 -2 3e2"), [[1.5], [-2], [300]])
    np.testing.assert_array_equal(parse(" 1,2.5  3,4 "), [[1, 2.5], [3, 4]])
    for text in ("1.5 -2 300", "1,2.5 3,4", "0.1234567 1e-08"):
        assert spell(parse(text)) == text
    assert as_line(written(np.ones((2, 3)))) == "1,1,1 1,1,1"
    assert read_numbers(written(np.ones((4, 2, 2)))).shape == (4, 4)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("1.5 two", r"step 2 is no number \(got 'two'\)"),
        ("nan 1", "step 1 is no number"),
        ("1 inf", "step 2 is no number"),
        ("1e40", "step 1 is no number"),
        ("1_000", "step 1 is no number"),
        ("1, 2", "step 2 has another number of features"),
        ("1,2 3", r"\(1, not 2\)"),
        (" ", "no number in it"),
        (written(np.array([1, np.nan])), "step 2 is no number"),
        (written(np.zeros((0, 2))), "no number in it"),
    ],
)
def test_what_is_no_number_is_refused(text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        read_numbers(text)


@pytest.mark.parametrize(
    ("name", "lines", "match"),
    [
        ("a.tsv", ["1.5 2.5\t3.5", "1.5 2.5\tabc"], r"a\.tsv:2: target: step 1 is no number \(got 'abc'"),
        ("a.tsv", ["1.5 2.5\t3.5", "1.5 nan\t3.5"], r"a\.tsv:2: source: step 2 is no number"),
        ("a.tsv", ["1.5 2.5\t3.5,1 2"], r"a\.tsv:1: target: step 2 has another number of features"),
        ("a.tsv", ["1.5 2.5\t3.5", "1.5 2.5\t"], r"a\.tsv:2: target is empty"),
        ("a.jsonl", ['{"source": [1.5, 2], "target": [[1, 2], [3]]}'], r"a\.jsonl:1: target rows of numbers"),
        ("a.jsonl", ['{"source": [1.5, 2], "target": [1, "x"]}'], r"a\.jsonl:1: target is no array of numbers"),
    ],
)
def test_bad_lines_are_named(name: str, lines: list[str], match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=match):
        list(open_pairs(tmp_path / name, BOTH))


def test_odd_features_of_one_pair_are_refused_in_learning() -> None:
    with pytest.raises(DataError, match="target has 1 features a step, 1,2 has 2"):
        Numbers.learn(["1,2", "1"], BOTH, ends=False)


def test_lists_and_arrays_are_one_target() -> None:
    rows: list[Any] = [([1.5, 2], [3.0, 4.0]), {"source": np.array([1.0, 2]), "target": np.array([[1.0, 2], [3, 4]])}]
    pairs = list(open_pairs(rows, BOTH))
    assert [(pair.source, pair.target) for pair in pairs] == [("1.5 2", "3 4"), ("1 2", "1,2 3,4")]


@pytest.mark.parametrize(
    ("pairs", "kinds"),
    [
        ([("1.5 2.0", "3.5"), ("-1.0 2.5e3", "0.5 0.25")], ("numbers", "numbers")),
        ([("1.0,2.0 2.0,3.0", "3.0,4.0")], ("numbers", "numbers")),
        ([("1 2 3", "3 2 1")], ("text", "text")),
        ([("1.5 2", "3.5")], ("text", "text")),
        ([("1.5 2.0", "3.5"), ("1.5 2.0", "three")], ("text", "text")),
        ([("3.11", "3.12")], ("text", "text")),
        ([("version 1.5", "1.5")], ("text", "text")),
        ([("1.5 2.0", "a word")], ("text", "text")),
        ([(written([1, 2]), written([3]))], ("numbers", "numbers")),
        ([("go left", written([3]))], ("text", "numbers")),
        ([(written([1, 2]), "a word")], ("frames", "text")),
        ([("take.wav", "1.5 2.0")], ("speech", "text")),
    ],
)
def test_what_pairs_look_like(pairs: list[tuple[str, str]], kinds: tuple[str, str]) -> None:
    assert kinds_of(pairs, Data()) == kinds


def test_what_is_set_is_kept() -> None:
    digits, floats = [("1 2 3", "4 5")], [("1.5 2.5", "3.5")]
    assert kinds_of(digits, Data(target=Side(kind="numbers"))) == ("numbers", "numbers")
    assert kinds_of([("go", "4 5")], Data(target=Side(kind="numbers"))) == ("text", "numbers")
    assert kinds_of(floats, Data(target=Side(kind="text"))) == ("text", "text")
    assert kinds_of(floats, Data(source=Side(kind="text"))) == ("text", "text")
    assert kinds_of(floats, Data(source=Side(kind="numbers"))) == ("numbers", "numbers")


def test_a_scale_goes_there_and_back() -> None:
    scale = Scale.of(np.array([10.0, 0, 5]), np.array([2.0, 0, 0]), np.array([1.0, 3, 4]))
    np.testing.assert_allclose(scale.deviation_F, [2, 3, 5e-4])
    values = np.array([[12.0, 3, 5], [8, -3, 5]])
    np.testing.assert_allclose(scale.to(values), [[1, 1, 0], [-1, -1, 0]])
    np.testing.assert_allclose(scale.back(scale.to(values)), values)


def learned(pairs: list[tuple[str, str]], **more: Any) -> Task:
    return Task.learn(list(open_pairs(pairs, (config := settings(**more)).data)), config)


def test_a_target_has_the_scale_of_its_source() -> None:
    task = learned([("1,100 3,100", "4"), ("10,7 10,9", "11")])
    pair = next(iter(open_pairs([("1,100 3,100", "4 0")], BOTH)))
    example = task.encode(pair)
    np.testing.assert_allclose(example.target, [[2], [-2]])
    np.testing.assert_allclose(example.source, [[-1, 0], [1, 0]])


def test_or_that_of_training() -> None:
    pairs = [("1 3", "4"), ("10 10", "8")]
    task = learned(pairs, data__frames__normalize="all")
    np.testing.assert_allclose(task.encode(next(iter(open_pairs(pairs, BOTH)))).target, [[-1]])
    raw = learned(pairs, data__frames__normalize="none").encode(next(iter(open_pairs(pairs, BOTH))))
    np.testing.assert_allclose(raw.target, [[4]])
    np.testing.assert_allclose(raw.source, [[1], [3]])


def test_or_that_of_its_source_from_its_last_step_on() -> None:
    task = learned([("1,100 3,100", "4")], data__frames__normalize="last")
    example = task.encode(next(iter(open_pairs([("1,100 3,100", "4 0")], BOTH))))
    np.testing.assert_allclose(example.target, [[1], [-3]])
    np.testing.assert_allclose(example.source, [[-2, 0], [0, 0]])
    with pytest.raises(ConfigError, match=r"normalize=last is for sources of numbers"):
        override(Config(), {"data.source.kind": "speech", "data.frames.normalize": "last"})


def series(season: int, length: int) -> np.ndarray:
    """A trend and a season of two features."""
    place, shape = np.arange(length), np.random.default_rng(1).normal(size=(season, 2))
    return 100 + 3 * shape[place % season] + 0.7 * place[:, None]


@pytest.mark.parametrize(("season", "length"), [(1, 9), (4, 16), (4, 19), (12, 13)])
def test_trend_and_season_are_what_a_series_is_read_beyond(season: int, length: int) -> None:
    values = series(season, length + 2 * season + 1)
    found, read = Season.of(values[:length], season)
    np.testing.assert_allclose(found.expected(2 * season + 1), values[length:])
    np.testing.assert_allclose(read * found.deviation_F, 0, atol=1e-5)
    noisy = values + np.random.default_rng(2).normal(size=values.shape)
    found, read = Season.of(noisy[:length], season)
    np.testing.assert_allclose(read[-1], 0)
    np.testing.assert_allclose(found.back(found.to(noisy[length:])), noisy[length:], rtol=1e-5)
    drawn = np.stack([found.to(noisy[length:])] * 5, axis=1)
    np.testing.assert_allclose(found.back(drawn)[:, 3], noisy[length:], rtol=1e-5)
    np.testing.assert_allclose(found.first(1).back(found.to(noisy[length:])[:, :1]), noisy[length:, :1], rtol=1e-5)


def test_a_season_needs_more_than_one_of_it() -> None:
    more = {"data__frames__normalize": "season", "data__frames__season": 3}
    with pytest.raises(DataError, match="a series has to be longer than a season of 3 steps"):
        learned([("1 2 3", "4")], **more)
    task = learned([("1 2 6 4", "5")], **more)
    example = task.encode(next(iter(open_pairs([("1 2 6 4", "5 9")], BOTH))))
    np.testing.assert_allclose(task.read("1 2 6 4").scale.back(example.target), [[5], [9]], rtol=1e-6)
    np.testing.assert_allclose(example.target, 0, atol=1e-6)
    with pytest.raises(ConfigError, match=r"normalize=season is for sources of numbers"):
        override(Config(), {"data.source.kind": "frames", "data.frames.normalize": "season"})


def test_small_numbers_are_brought_to_scale_too() -> None:
    task = learned([("1e-6 3e-6", "2e-6")])
    np.testing.assert_allclose(
        task.encode(next(iter(open_pairs([("1e-6 3e-6", "4e-6")], BOTH)))).target, [[2]], rtol=1e-4
    )


def test_so_are_numbers_whose_squares_are_beyond_single_precision() -> None:
    task = learned([("1 3", "2")])
    example = task.encode(next(iter(open_pairs([("1e20 3e20", "4e20")], BOTH))))
    np.testing.assert_allclose(example.source, [[-1], [1]], rtol=1e-4)
    np.testing.assert_allclose(example.target, [[2]], rtol=1e-4)


def test_the_scale_of_a_source_needs_its_features() -> None:
    with pytest.raises(ConfigError, match="whose first features are those of the target"):
        learned([("1 3", "4,5")])


def test_the_newest_steps_of_a_long_source_are_read_and_targets_are_cut() -> None:
    config = settings(data__source__max_length=2, data__target__max_length=1, data__frames__normalize="none")
    pairs = list(open_pairs([("1 2 3 4", "5 6")], config.data))
    example = Task.learn(pairs, config).encode(pairs[0], report=(report := Report()))
    np.testing.assert_array_equal(example.source, [[3], [4]])
    np.testing.assert_array_equal(example.target, [[5]])
    assert len(report.counts) == 2
    strict = replace(config.data, too_long="skip", source=Side(kind="numbers"))
    side = Numbers.learn(["1"], strict, ends=False)
    with pytest.raises(TooLong) as caught:
        side.read("1 2")
    assert caught.value.skip


def test_the_horizon_is_that_of_training_unless_the_model_says_the_end() -> None:
    assert learned([("1 2", "3 4 5"), ("1 2", "3")]).limit(7) == 3
    ending = learned([("1 2", "3 4 5"), ("1 2", "3")], model__ends=True)
    assert ending.limit(2) > 3


def test_files_bring_it_back_and_others_are_refused() -> None:
    task = learned([("1 3", "4 5"), ("10 11", "8 9")], data__frames__normalize="all")
    files = task.files()
    again = Task.load(files, settings(data__frames__normalize="all"))
    pair = next(iter(open_pairs([("1 3", "4 0")], BOTH)))
    np.testing.assert_array_equal(again.encode(pair).target, task.encode(pair).target)
    assert again.limit(9) == 2
    about = json.loads(files["target.numbers.json"])
    for odd in ({**about, "mean": [1, 2]}, {**about, "deviation": [0]}, {**about, "horizon": -1},
                {**about, "features": "1"}, {**about, "mean": [float("inf")]}, [], {}):  # fmt: skip
        with pytest.raises(BundleError):
            Numbers.load({"target.numbers.json": json.dumps(odd).encode()}, "target", BOTH)
    with pytest.raises(BundleError, match="no such file"):
        Numbers.load({}, "target", BOTH)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.head", "copy"), ("model.tie", "target"), ("data.shared", True), ("data.target.tokenizer", "char"),
        ("decoding.n_best", 2), ("decoding.beam", 5), ("decoding.groups", 2), ("decoding.risk", "mae"),
        ("decoding.no_repeat", 3), ("decoding.abstain", 0.5), ("decoding.top_p", 0.9), ("training.r_drop", 1.0),
        ("training.objective", "minimum-risk"), ("training.label_smoothing", 0.1), ("training.coverage", 1.0),
        ("data.augment.typos", 0.1), ("data.augment.reverse", "target"), ("data.knowledge", "facts.json"),
        ("training.teachers", ("run",)), ("data.extend", True), ("model.adapter.name", "mine"),
    ],
)  # fmt: skip
def test_settings_of_text_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{key.split('=')[0]}.* is for targets of text, and these are numbers"):
        override(Config(), {"data.target.kind": "numbers", key: value})


def test_and_settings_of_numbers_for_text() -> None:
    for key, value in (("model.head", "gaussian"), ("model.ends", True)):
        with pytest.raises(ConfigError, match=r"is for targets of numbers, and these are text"):
            override(Config(), {"data.target.kind": "text", key: value})
    with pytest.raises(ConfigError, match=r"data\.target\.kind must be text or numbers"):
        override(Config(), {"data.target.kind": "frames"})


def test_what_is_short_stays_where_it_ended() -> None:
    np.testing.assert_array_equal(held(np.array([[1], [2]]), 4), [[1], [2], [2], [2]])
    np.testing.assert_array_equal(held(np.array([[1], [2]]), 1), [[1]])
    assert Forecast.of("1 2").values_TF.shape == (2, 1)
    assert is_plain("1.5") and not is_plain("1.5", 2)  # noqa: PT018
