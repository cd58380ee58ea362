"""Context of targets that are numbers: what is learned of its columns, what is refused, and forecasts that use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon import load
from antiphon.core.errors import BundleError, DataError
from antiphon.data.columns import Pair
from antiphon.data.covariates import MOST_WORDS, Covariates
from antiphon.data.report import Report
from antiphon.inference.predictor import Predictor
from antiphon.serving.worker import practice, tags
from antiphon.training.start import fit, resume
from commands import Call, calling, refused  # noqa: F401
from runs import Recorder, light, outcome

COLUMNS = ["open", "shop"]


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def pair(opened: Any, shop: str = "north", target: str = "") -> Pair:
    return Pair("1.5 2", target, (), {"open": opened, "shop": shop})


KNOWN = Covariates.learn([pair("0 1"), pair("[2, 1]", "new south"), pair("1 1 3", "south")], COLUMNS)


def test_numbers_are_scaled_and_words_are_told_apart() -> None:
    opened, shop = KNOWN.columns
    assert shop.words == ("south", "new", "north")
    assert opened.scale is not None
    np.testing.assert_allclose(
        [opened.scale.mean_F, opened.scale.deviation_F], [[9 / 7], [np.std([0, 1, 2, 1, 1, 1, 3])]]
    )
    read = KNOWN.read(pair("0 1 2"))
    assert read.shape == (3, 4)
    np.testing.assert_allclose(opened.scale.back(read[:, :1])[:, 0], [0, 1, 2], atol=1e-6)
    assert read[:, 1:].tolist() == [[0, 0, 1]] * 3
    assert KNOWN.read(pair("0 1 2"), 2).tolist() == read[:2].tolist()
    assert KNOWN.read(pair("2")).shape == KNOWN.read(pair("2"), 5).shape == (1, 4)  # which stands for all steps
    assert KNOWN.read(pair("1", "south new"))[0, 1:].tolist() == [1, 1, 0]


def test_an_unknown_word_is_counted() -> None:
    report = Report()
    assert KNOWN.read(pair("1", "east"), report=report)[0, 1:].tolist() == [0, 0, 0]
    [line] = report.lines()
    assert "word of the context column shop that training did not have" in line


@pytest.mark.parametrize(
    ("given", "steps", "told"),
    [
        (Pair("1", "", (), {"open": "1"}), None, "the context column shop is missing"),
        (pair("1 2"), 3, "the context column open ends before the target does"),
        (pair("1,2 3,4"), None, "2 features a step, in training 1"),
        (pair("closed"), None, "is no number"),
        (pair("[1, null]"), None, "is no list of numbers"),
        (pair("[1"), None, "is no list of numbers"),
    ],
)
def test_what_is_not_as_in_training_is_refused(given: Pair, steps: int | None, told: str) -> None:
    with pytest.raises(DataError) as error:
        KNOWN.read(given, steps)
    assert told in str(error.value)
    assert error.value.do
    assert error.value.where


def test_what_cannot_be_learned_is_refused() -> None:
    for pairs, told in (
        ([pair("1"), Pair("1", "2")], "the context column open is missing"),
        ([pair("1"), pair("1,2")], "2 features a step, before 1"),
        ([pair("1", "")], "data.context: a context column is empty in all pairs"),
    ):
        with pytest.raises(DataError, match=told):
            Covariates.learn(pairs, COLUMNS)
    many = Covariates.learn([pair("1", " ".join(f"shop{n}" for n in range(MOST_WORDS + 5)))], COLUMNS)
    assert many.size == 1 + MOST_WORDS


def test_files_say_the_same_and_others_are_refused() -> None:
    [(name, content)] = KNOWN.files("target").items()
    again = Covariates.load({name: content}, "target", 4)
    assert again is not None
    assert again.files("target") == {name: content}
    assert Covariates.load({}, "target", 0) is None
    for files, size in (({}, 4), ({name: content}, 3)):
        with pytest.raises(BundleError, match=r"is not a description|does not fit"):
            Covariates.load(files, "target", size)
    assert again.read(pair("0 1 2")).tolist() == KNOWN.read(pair("0 1 2")).tolist()
    opened, shop = json.loads(content)
    for wrong in ("", "{}", "[1]", [{}], [{**opened, "mean": []}], [{**opened, "deviation": [0]}],
                  [{"name": "a"}], [{**shop, "words": []}], [{**shop, "words": [1]}], [{**shop, "name": 1}],
                  ):  # fmt: skip
        with pytest.raises(BundleError, match="is not a description of"):
            Covariates.load({name: (wrong if isinstance(wrong, str) else json.dumps(wrong)).encode()}, "target", 4)


# Forecasts


def sales(count: int, seed: int = 1) -> list[dict[str, str]]:
    """What two shops sell: where one sells more the other sells less, on days that nothing but the context tells."""
    draw, rows = np.random.default_rng(seed), []
    for _ in range(count):
        shop, fair = str(draw.choice(["north", "south"])), draw.random(14) < 0.4
        sold = 10 + fair * (3 if shop == "north" else -3) + draw.normal(0, 0.1, 14)
        numbers = [f"{value:.2f}" for value in sold]
        rows.append({"source": " ".join(numbers[:10]), "target": " ".join(numbers[10:]), "shop": shop,
                     "fair": " ".join(str(int(day)) for day in fair[10:])})  # fmt: skip
    return rows


SETTINGS = {
    "data.context": ["fair", "shop"], "training.steps": 120, "training.validate_every": 60, "training.threads": 1,
    "training.rate": 0.02, "model.width": 16, "training.metric": "loss",
}  # fmt: skip


@pytest.fixture(scope="module", name="run")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is told of fairs; nobody may change it."""
    run = tmp_path_factory.mktemp("sales") / "run"
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        fit(sales(150), out=run, task="forecasting", assignments=SETTINGS)
    return run


def forecasts(run: Path, rows: list[dict[str, str]], **more: Any) -> np.ndarray:
    pairs = [Pair(row["source"], "", (), {"fair": row["fair"], "shop": row["shop"]}) for row in rows]
    return np.stack([found[0].forecast.values_TF for found in Predictor(load(run)).predict(pairs, **more)])  # type: ignore[union-attr]


def test_a_forecast_knows_what_is_known_ahead(run: Path) -> None:
    rows = sales(30, seed=2)
    said = forecasts(run, rows)[:, :, 0]
    came = np.array([[float(number) for number in row["target"].split()] for row in rows])
    assert np.abs(said - came).mean() < 0.5
    assert np.allclose(forecasts(run, rows, batch_size=1)[:, :, 0], said, atol=1e-4)
    other = {"north": "south", "south": "north"}
    swapped = forecasts(run, [{**row, "shop": other[row["shop"]]} for row in rows])[:, :, 0]
    assert np.abs(swapped - said).mean() > 0.5


def test_an_answer_is_as_long_as_what_is_known(run: Path) -> None:
    row = {**sales(1)[0], "fair": "1 0"}
    assert forecasts(run, [row]).shape == (1, 2, 1)
    assert forecasts(run, [{**row, "fair": "1"}]).shape == (1, 4, 1)
    assert forecasts(run, [{**row, "fair": "1 0 0 0 0 0"}]).shape == (1, 4, 1)


def test_a_stopped_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    data = tmp_path / "sales.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in sales(60)), encoding="utf-8")
    settings = {**SETTINGS, "training.steps": 12, "training.validate_every": 5}
    for name, stop in (("whole", None), ("stopped", [Recorder(7)])):
        fit(data, out=tmp_path / name, task="forecasting", assignments=settings, observers=stop or [])
    resume(tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_the_commands_ask_for_it(run: Path, tmp_path: Path, call: Call) -> None:
    row = sales(1, seed=3)[0]
    code, out, err = call("predict", run, text="\t".join((row["source"], row["fair"], row["shop"])) + "\n")
    assert code == 0, err
    assert len(out.split()) == 4
    assert "source<tab>fair<tab>shop" in refused(call, "predict", run, text=row["source"] + "\n")
    test = tmp_path / "test.tsv"
    test.write_text(
        "source\ttarget\tshop\tfair\n"
        + "".join(
            "\t".join(each[name] for name in ("source", "target", "shop", "fair")) + "\n" for each in sales(5, seed=4)
        )
    )
    code, out, err = call("evaluate", run, test, "--metrics", "mae", "--json")
    assert code == 0, err
    assert json.loads(out)["scores"]["mae"]["value"] < 0.5
    short = tmp_path / "short.tsv"
    short.write_text("source\ttarget\tshop\tfair\n1.5 2\t3 4 5 6\tnorth\t1 0\n")
    line = refused(call, "evaluate", run, short, "--metrics", "mae")
    assert "the context column fair ends before the target does" in line


def test_a_server_has_something_to_practise_with_and_tells_what_it_wants(run: Path) -> None:
    task = load(run).task
    assert {name: sorted(values) for name, values in tags(task).items()} == {"fair": [], "shop": ["north", "south"]}
    example = practice(task)
    assert example is not None
    assert len(next(Predictor(load(run)).predict([example]))[0].text.split()) == 4
