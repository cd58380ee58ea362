"""Answers that become pairs: what is made of them, exactly so after an interruption, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError, DataError
from antiphon.data.augment import MASK
from antiphon.data.corpus import Pair
from antiphon.inference import bundle, synthesis
from antiphon.inference.predictor import Answer, Predictor
from antiphon.inference.synthesis import Making, noised, synthesize
from runs import configured, light, words
from starts import raw

INPUTS = [Pair(source, target) for source, target in words(40)]
DRAWN = Decoding(sample=True, max_length=6, seed=3)


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)
    monkeypatch.setattr(synthesis, "WINDOW", 8)


@pytest.fixture(scope="module", name="model")
def shared_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw(tmp_path_factory.mktemp("model") / "raw", configured())


def answer(text: str, **more: Any) -> Answer:
    return replace(Answer(text, 0.0, [], [], [], np.zeros((0, 1), np.float32), [], 0.0), **more)


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# What becomes of an answer


def test_an_answer_becomes_the_side_that_is_asked_for() -> None:
    given = Pair("a b", "", (), {"domain": "x"})
    assert Making()(0, given, [answer("c")]) == {"domain": "x", "source": "a b", "target": "c"}
    assert Making("source")(0, given, [answer("c")]) == {"domain": "x", "source": "c", "target": "a b"}


def test_the_answer_nearest_to_the_reference_is_taken() -> None:
    beam = [answer("x x x"), answer("a b d"), answer("a b c", finished=False), answer("a b x")]
    given = Pair("s", "a b c")
    assert Making(nearest="cer")(0, given, beam)["target"] == "a b d"
    assert Making(nearest="chrf")(0, given, beam)["target"] == "a b d"
    assert Making()(0, given, beam)["target"] == "x x x"
    assert Making(nearest="cer").settings(Decoding(beam=7)).n_best == 7
    assert Making().settings(Decoding(beam=7, n_best=3)).n_best == 1


@pytest.mark.parametrize(("given", "why"), [
    (answer("", reason="empty input"), "empty input"), (answer(" "), "empty answer"),
    (answer("a", finished=False), "answer without an end"), (answer("a\0"), "answer contains a NUL"),
])  # fmt: skip
def test_what_is_no_good_is_skipped_and_says_why(given: Answer, why: str) -> None:
    assert list(Making()(0, Pair("s", ""), [given])) == ["skipped"]
    assert why.split()[0] in Making()(0, Pair("s", ""), [given])["skipped"]


def test_noise_is_on_the_source_and_follows_from_the_seed() -> None:
    text = " ".join(f"w{number}" for number in range(2000))
    found = noised(text, 0.1, Random(1)).split()
    kept = [word for word in found if word != MASK]
    assert set(kept) < set(text.split())
    assert 1700 < len(found) < 1900
    assert 100 < found.count(MASK) < 260
    assert kept != sorted(kept, key=lambda word: int(word[1:]))
    making = Making("source", noise=0.5, seed=4)
    twice = [making(7, Pair("the target", ""), [answer(text)]) for _ in range(2)]
    assert twice[0] == twice[1] != making(8, Pair("the target", ""), [answer(text)])
    assert twice[0]["target"] == "the target"
    assert noised("word", 0.9, Random(1)).strip()


# The file


class Torn(Exception):
    pass


@pytest.mark.parametrize("making", [Making(), Making("source", noise=0.3)], ids=["target", "noisy source"])
def test_an_interrupted_making_ends_as_the_same_bytes(making: Making, model: Path, tmp_path: Path) -> None:
    def make(name: str, inputs: Iterable[Pair] = INPUTS, told: Any = lambda done: None) -> synthesis.Made:
        return synthesize(Predictor(bundle.load(model)), inputs, tmp_path / name, making, settings=DRAWN,
                          known={"data": "d"}, told=told)  # fmt: skip

    def stop(done: int) -> None:
        if done == 16:
            raise Torn

    whole = make("whole.jsonl")
    with pytest.raises(Torn):
        make("parts.jsonl", told=stop)
    partial = tmp_path / "parts.jsonl.partial"
    written = partial.read_bytes().splitlines(keepends=True)
    assert len(written) == 16
    partial.write_bytes(b"".join(written[:13]) + b'{"source": "torn in the mid')
    done: list[int] = []
    parts = make("parts.jsonl", told=done.append)
    assert done == [21, 29, 37, 40]
    assert (parts.before, whole.before) == (13, 0)
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert (parts.pairs, parts.skipped) == (whole.pairs, whole.skipped)
    assert whole.pairs + sum(whole.skipped.values()) == len(INPUTS)
    assert not (tmp_path / "parts.jsonl.partial").exists()
    again = make("parts.jsonl", told=stop)
    assert again.before == len(INPUTS)
    assert (again.pairs, again.skipped) == (whole.pairs, whole.skipped)


def test_files_of_another_making_are_refused(model: Path, tmp_path: Path) -> None:
    def make(settings: Decoding = DRAWN, making: Making | None = None, data: str = "d") -> None:
        synthesize(Predictor(bundle.load(model)), INPUTS, tmp_path / "made.jsonl", making or Making(),
                   settings=settings, known={"data": data})  # fmt: skip

    make()
    before = (tmp_path / "made.jsonl").read_bytes()
    for other in ({"settings": replace(DRAWN, seed=4)}, {"making": Making("source")}, {"data": "e"}):
        with pytest.raises(DataError, match=r"made.jsonl: is there already, and was made from other"):
            make(**other)
    (tmp_path / "made.jsonl.about.json").unlink()
    with pytest.raises(DataError, match="is there already"):
        make()
    assert (tmp_path / "made.jsonl").read_bytes() == before


def test_no_good_answer_at_all_is_an_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no answer is good for a pair \(got 2 x empty input\)"):
        synthesize(Predictor(bundle.load(model)), [Pair(" ", ""), Pair("", "")], tmp_path / "made.jsonl", Making(),
                   settings=DRAWN, known={})  # fmt: skip
    assert not (tmp_path / "made.jsonl").exists()


@pytest.mark.parametrize("given", [{"noise": 1.0}, {"noise": -0.1}, {"nearest": "distinct1"}, {"nearest": "blue"}])
def test_what_cannot_be_is_said(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Making(**given)


def test_sampling_numbers_inputs_from_the_first_on(model: Path) -> None:
    predictor = Predictor(bundle.load(model))
    whole = [best[0].text for best in predictor.predict(INPUTS, settings=DRAWN)]
    tail = [best[0].text for best in predictor.predict(INPUTS[13:], settings=DRAWN, first=13)]
    assert tail == whole[13:]


def test_what_no_model_made_is_left_alone(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.jsonl"
    out.write_text("mine")
    predictor = Predictor([bundle.load(model)])
    with pytest.raises(DataError, match="no model has made it; choose another name"):
        synthesize(predictor, INPUTS, out, Making(), settings=DRAWN, known={})
    assert [path.name for path in tmp_path.iterdir()] == ["made.jsonl"]
    assert out.read_text() == "mine"


def test_a_making_that_fails_at_once_leaves_nothing_in_the_way(model: Path, tmp_path: Path) -> None:
    def broken() -> Iterable[Pair]:
        raise DataError("cannot be read")
        yield

    predictor = Predictor([bundle.load(model)])
    with pytest.raises(DataError, match="cannot be read"):
        synthesize(predictor, broken(), tmp_path / "made.jsonl", Making(), settings=DRAWN, known={})
    assert not list(tmp_path.iterdir())
