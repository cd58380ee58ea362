"""The sweep: points from cautious to bold, scores of the same inputs, and the plot as a user opens it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon import metrics
from antiphon.core.config import Data, Decoding
from antiphon.data.corpus import Pair, group_references, open_pairs
from antiphon.inference import bundle
from antiphon.inference.evaluate import evaluate
from antiphon.inference.predictor import Predictor
from antiphon.inference.sweep import people, sweep
from commands import Call, calling, refused  # noqa: F401
from runs import light, words
from starts import trained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        yield trained(tmp_path_factory.mktemp("sweep") / "reversing")


@pytest.fixture(scope="module")
def backward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        yield trained(tmp_path_factory.mktemp("sweep") / "back", model__encoder__kind="lstm")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "test.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in words(40, seed=9)), encoding="utf-8")
    return path


def pairs(data: Path, predictor: Predictor) -> list[Pair]:
    return group_references(open_pairs(str(data), predictor.config.data))


def test_bolder_answers_are_more_varied_and_perplexity_is_that_of_the_temperature(model: Path, data: Path) -> None:
    predictor = Predictor(bundle.load(model))
    mine = pairs(data, predictor)
    settings = predictor.config.decoding
    points = list(sweep("it", predictor, mine, settings, temperatures=(3.0, 0.2, 1.0), quality="chrf"))
    assert [point.how for point in points] == ["T 0.2", "T 1", "T 3", "greedy"]
    assert [point.temperature for point in points] == [0.2, 1.0, 3.0, None]
    cold, usual, hot, greedy = (point.scores for point in points)
    assert cold["chrf"].value > hot["chrf"].value
    assert cold["self_bleu"].value >= 0
    assert "perplexity" not in greedy
    same = evaluate(predictor, mine, ["chrf"])
    assert usual["perplexity"].value == pytest.approx(same.scores["perplexity"].value, rel=1e-5)
    assert greedy["chrf"] == same.scores["chrf"]
    assert hot["perplexity"].value > usual["perplexity"].value
    assert all(score.interval for score in usual.values())
    assert points[2].answers == next(iter(sweep("it", predictor, mine, settings, temperatures=(3.0,)))).answers


def test_perplexity_at_a_high_temperature_is_the_size_of_the_vocabulary(model: Path, data: Path) -> None:
    predictor = Predictor(bundle.load(model))
    point = next(iter(sweep("it", predictor, pairs(data, predictor), predictor.config.decoding, temperatures=(99.0,))))
    size = len(predictor.task.target.vocabulary)
    assert point.scores["perplexity"].value == pytest.approx(size, rel=0.3)
    assert not math.isclose(point.scores["perplexity"].value, size, rel_tol=1e-9)


def test_people_are_as_varied_as_the_references(model: Path, data: Path) -> None:
    mine = pairs(data, Predictor(bundle.load(model)))
    found = people(mine)
    assert found.answers == [pair.target for pair in mine]
    assert set(found.scores) == {"distinct1", "distinct2", "self_bleu"}


def test_bleu_of_pairs_counts_no_longer_runs() -> None:
    two, four = metrics.get("bleu:2"), metrics.get("bleu")
    reference, answer = [["a b c d e f"]], ["a b x c d e"]
    value = metrics.corpus(two, answer, reference)
    assert value.value == pytest.approx(100 * math.sqrt(5 / 6 * 3 / 5))
    assert value.value > metrics.corpus(four, answer, reference).value
    assert "|n:2|" in value.signature
    assert not four.signature.startswith("n:")


@pytest.mark.parametrize("suffix", ["html", "png", "svg"])
def test_the_command_draws_what_it_says(
    suffix: str,
    call: Call,
    model: Path,
    backward: Path,
    data: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("vl_convert")
    out = tmp_path / "new" / f"plot.{suffix}"
    options = ["--out", out, "--temperatures", "0.5,1", "--backward", backward]
    code, told, _ = call("sweep", model, backward, data, *options, "beam=3")
    assert code == 0
    assert [line.split()[:2] for line in told.splitlines()[:4]] == [
        ["people", "people"], ["reversing", "T"], ["reversing", "T"], ["reversing", "beam"],
    ]  # fmt: skip
    found = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert [point["how"] for point in found["points"]] == ["people", *["T 0.5", "T 1", "beam 3", "MMI"] * 2]
    assert len({len(point["answers"]) for point in found["points"]}) == 1
    content = out.read_bytes()
    assert content.startswith({"html": b"<!DOCTYPE html>", "png": b"\x89PNG", "svg": b"<svg"}[suffix])
    if suffix == "html":
        assert b"https://cdn" not in content
    if suffix == "svg":
        assert all(name in content.decode() for name in ("BLEU-2", "distinct-2", "reversing", "MMI", "people"))


MISTAKES: list[tuple[list[Any], str]] = [
    ([], "there must be a model and data (got nothing)"),
    (["MODEL"], "there must be a model and data"),
    (["MODEL", "DATA", "--out", "plot.pdf"], "a plot is .html, .png or .svg"),
    (["MODEL", "DATA", "--temperatures", "1,warm"], "not a list of temperatures"),
    (["MODEL", "DATA", "--temperatures", "0"], "a temperature must be above 0"),
    (["MODEL", "DATA", "--temperatures", ""], "there is no temperature to draw at"),
    (["MODEL", "nowhere", "DATA"], "there is no model here"),
    (["MODEL", "DATA", "--quality", "distinct1"], "quality needs a metric with references"),
    (["MODEL", "DATA", "beem=2"], "unknown setting beem; did you mean beam?"),
    (["MODEL", "DATA", "abstain=0.5"], "this model has no confidence yet"),
    (["nowhere", "DATA"], "there is no model here"),
]


@pytest.mark.parametrize(("words_", "message"), MISTAKES)
def test_mistakes_are_named(words_: list[Any], message: str, call: Call, model: Path, data: Path) -> None:
    real = {"MODEL": model, "DATA": data}
    assert message in refused(call, "sweep", *[real.get(word, word) for word in words_])


def test_what_cannot_be_sampled_with_is_left_out_where_it_is_drawn(model: Path, data: Path) -> None:
    pairs = group_references(open_pairs(data, Data()))
    points = sweep("m", Predictor(bundle.load(model)), pairs, Decoding(beam=4, groups=2), temperatures=[1.0])
    assert [point.how for point in points] == ["T 1", "beam 4"]


def test_what_is_missing_is_said_before_anything_is_drawn(
    call: Call, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told, _ = call("sweep", model, "nowhere", data)
    assert (code, told) == (2, "")
    monkeypatch.setitem(sys.modules, "altair", None)
    code, told, error = call("sweep", model, data, "--out", tmp_path / "plot.html")
    assert (code, told) == (2, "")
    assert "pip install 'antiphon[plots]'" in error
