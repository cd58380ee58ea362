"""Confidence is fitted, kept, shown and tested; below the threshold there is no answer, in whatever batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from antiphon import Seq2Seq
from antiphon.core.config import Decoding
from antiphon.core.errors import BundleError, ConfigError, DataError
from antiphon.data.corpus import Pair
from antiphon.inference import bundle
from antiphon.inference.answer import nothing
from antiphon.inference.calibration import calibrate
from antiphon.inference.confidence import (
    FEATURES,
    FILE,
    Calibration,
    calibration_error,
    features,
    fit,
    judge,
    probability,
    quality,
    trust,
    unsure,
)  # fmt: skip
from antiphon.inference.evaluate import evaluate
from antiphon.inference.predictor import Predictor
from antiphon.inference.recordings import Pieces
from antiphon.training.start import fit as fit_run
from commands import Call, calling  # noqa: F401
from runs import SMALL, light, words


@pytest.fixture(scope="module", name="run")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model of reversed words that is right about half of the time; nobody may change it."""
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        folder = tmp_path_factory.mktemp("run") / "run"
        kinds = {"model.encoder.kind": "gru", "model.decoder.kind": "gru", "model.attention": "dot"}
        more = {"model.width": 32, "data.batch_tokens": 600, "training.steps": 250, "training.validate_every": 250}
        fit_run(words(1000), out=folder, assignments={**SMALL, **kinds, **more})
        yield folder


def unseen(count: int, seed: int) -> list[Pair]:
    return [Pair(*pair) for pair in words(count, seed=seed)]


def noise(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Features of made-up answers, and whether they are right: a chance that follows from the first feature."""
    draw = np.random.default_rng(1)
    rows = np.array([features(draw.uniform(-2, 0, draw.integers(2, 9)).tolist(), True) for _ in range(count)])
    chance = 1 / (1 + np.exp(-(4 * rows[:, 0] + 4)))
    return rows, (draw.random(count) < chance).astype(float)


def test_features_are_what_they_are_called() -> None:
    assert features([-1.0, -3.0], True) == [-2.0, -3.0, -4.0, pytest.approx(np.log(2)), 1.0]
    assert features([], False) == [0.0, 0.0, 0.0, 0.0, 0.0]
    assert probability([-1.0, -3.0]) == pytest.approx(np.exp(-2))
    assert len(FEATURES) == len(features([-1.0], True))


def test_the_fit_finds_the_chance_and_says_how_wrong_it_is() -> None:
    rows, right = noise(4000)
    made = fit("exact", rows, right, np.exp(rows[:, 0]))
    wanted = 1 / (1 + np.exp(-(4 * rows[:, 0] + 4)))
    assert np.abs(made.of(rows) - wanted).mean() < 0.03
    assert made.error < 0.03 < 0.1 < made.raw_error
    assert made == fit("exact", rows, right, np.exp(rows[:, 0]))
    assert made([-0.5, -1.5], True) == pytest.approx(float(made.of(np.array([features([-0.5, -1.5], True)]))[0]))


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_answers_that_are_all_alike_give_no_certainty(right: float) -> None:
    rows, _ = noise(50)
    sure = fit("exact", rows, np.full(50, right), np.exp(rows[:, 0])).of(rows)
    assert np.abs(sure - right).max() < 0.1
    assert 0 < sure.min() <= sure.max() < 1


def test_too_few_answers_are_refused() -> None:
    rows, right = noise(19)
    with pytest.raises(DataError, match=r"too few answers .*got 19.*give 20"):
        fit("exact", rows, right, right)


def test_calibration_error_and_the_table_by_hand() -> None:
    sure, right = np.array([0.9, 0.9, 0.2, 0.2]), np.array([1.0, 1.0, 1.0, 0.0])
    assert calibration_error(sure, right, bins=2) == pytest.approx((0.2 + 0.6) / 4)
    found = trust("exact", sure, right, sure)
    assert [(row.answered, row.quality) for row in found.table] == [(1.0, 0.75), (0.75, 1.0), (0.5, 1.0), (0.25, 1.0)]
    assert found.table[0].threshold == 0.2
    assert "100%" in "\n".join(found.lines())


def test_quality_is_a_share_of_the_best() -> None:
    assert quality(judge("exact"), ["a", "b"], [["a"], ["a", "c"]]).tolist() == [1.0, 0.0]
    assert quality(judge("error"), ["a", "b"], [["a"], ["a"]]).tolist() == [1.0, 0.0]
    assert 0 < quality(judge("chrf"), ["abcd"], [["abce"]])[0] < 1
    assert judge("loss").name == "exact"
    with pytest.raises(ConfigError, match="single sentences"):
        judge("distinct1")


def test_confidence_is_better_calibrated_than_probability_on_new_pairs(run: Path) -> None:
    loaded = bundle.load(run)
    made = calibrate(loaded, unseen(400, 11), "exact", processes=1).calibration
    found = evaluate(Predictor(replace(loaded, confidence=made), processes=1), unseen(400, 12), ["exact"], bootstrap=0)
    assert found.confidence is not None
    assert 0.1 < found.scores["exact"].value / 100 < 0.9
    assert found.confidence.error < 0.5 * found.confidence.raw_error
    assert found.confidence.table[-1].quality > found.confidence.table[0].quality + 0.1
    assert json.loads(found.to_json())["confidence"]["metric"] == "exact"
    assert any("calibration error" in line for line in found.lines())


def test_expected_scores_are_calibrated_too(run: Path) -> None:
    loaded = bundle.load(run)
    made = calibrate(loaded, unseen(300, 11), "chrf", processes=1).calibration
    found = evaluate(Predictor(replace(loaded, confidence=made), processes=1), unseen(300, 12), ["chrf"], bootstrap=0)
    assert found.confidence is not None
    assert found.confidence.error < min(0.1, found.confidence.raw_error)


def test_it_is_kept_in_the_bundle_with_all_that_was_there(run: Path, tmp_path: Path) -> None:
    made = calibrate(bundle.load(run), unseen(60, 11), "exact", processes=1).calibration
    for name in ("copy", "copy.zip"):
        bundle.add_confidence(run, made, out=tmp_path / name)
        assert bundle.load(tmp_path / name).confidence == made
    assert (tmp_path / "copy" / "README.md").read_bytes() == (run / "best" / "README.md").read_bytes()
    (tmp_path / "copy" / "README.md").write_text("by hand")
    assert bundle.add_confidence(tmp_path / "copy", replace(made, pairs=7)) == tmp_path / "copy"
    assert (tmp_path / "copy" / "README.md").read_text() == "by hand"
    assert bundle.load(tmp_path / "copy").confidence == replace(made, pairs=7)
    assert (tmp_path / "copy" / "training").exists() == (run / "best" / "training").exists()
    assert bundle.load(run).confidence is None


@pytest.mark.parametrize("change", [
    {"weights": [1.0]}, {"bias": "1"}, {"scales": [0.0] * 5}, {"features": ["mean"]}, {"extra": 1}, {"bias": 1e300},
    {"metric": 3}, {"weights": [None] * 5},
])  # fmt: skip
def test_a_file_that_is_wrong_is_refused(change: dict[str, object]) -> None:
    rows, right = noise(50)
    made = fit("exact", rows, right, right)
    assert Calibration.read(made.to_bytes()) == made
    values = json.loads(made.to_bytes()) | change
    with pytest.raises(BundleError, match=FILE):
        Calibration.read(json.dumps(values).encode())


def test_answers_below_the_threshold_are_empty_whatever_the_batch(run: Path) -> None:
    loaded = bundle.load(run)
    made = calibrate(loaded, unseen(100, 11), "exact", processes=1).calibration
    predictor = Predictor(replace(loaded, confidence=made), processes=1)
    inputs = [pair.source for pair in unseen(60, 12)]
    plain = [mine[0] for mine in predictor.predict(inputs)]
    known = sorted({round(answer.confidence or 0.0, 6) for answer in plain})
    least = (known[30] + known[31]) / 2
    below = sum((answer.confidence or 0.0) < least for answer in plain)
    outcomes = []
    for size in (1, 7, 64):
        found = [
            mine[0] for mine in predictor.predict(inputs, settings=Decoding(beam=1, abstain=least), batch_size=size)
        ]
        outcomes.append([(answer.text, answer.abstained) for answer in found])
        assert predictor.report.counts[f"not answered: confidence is below {least:g}"] == below
    assert outcomes[0] == outcomes[1] == outcomes[2]
    for (text, abstained), answer in zip(outcomes[0], plain, strict=True):
        assert (text, abstained) == (("", True) if (answer.confidence or 0.0) < least else (answer.text, False))
    [[empty]] = predictor.predict([" "], settings=Decoding(beam=1, abstain=0.9))
    assert (empty.text, empty.abstained, empty.confidence) == ("", False, None)


def test_a_decision_that_float_error_could_turn_is_made_alone(run: Path) -> None:
    loaded = bundle.load(run)
    made = calibrate(loaded, unseen(100, 11), "exact", processes=1).calibration
    predictor, source = Predictor(replace(loaded, confidence=made), processes=1), unseen(1, 12)[0].source
    [[alone]] = predictor.predict([source])
    assert alone.confidence is not None
    others = [pair.source for pair in unseen(30, 13)]
    for nudge, abstained in ((0.0, False), (1e-12, True)):
        settings = Decoding(beam=1, abstain=alone.confidence + nudge)
        [found, *_] = predictor.predict([source, *others], settings=settings)
        assert (found[0].confidence, found[0].abstained) == (alone.confidence, abstained)


def test_without_calibration_there_is_nothing_to_go_by(run: Path) -> None:
    loaded = bundle.load(run)
    [[answer]] = Predictor(loaded).predict(["abc"])
    assert answer.confidence is None
    with pytest.raises(ConfigError, match="antiphon calibrate"):
        list(Predictor(loaded).predict(["abc"], settings=Decoding(abstain=0.5)))
    made = calibrate(loaded, unseen(30, 11), processes=1).calibration
    with pytest.raises(ConfigError, match="an ensemble has no confidence"):
        list(Predictor([replace(loaded, confidence=made)] * 2).predict(["abc"], settings=Decoding(abstain=0.5)))
    assert "the adapter law has no confidence; leave it out" in str(unsure("--confidence", 1, "law"))


def test_the_commands(run: Path, tmp_path: Path, call: Call) -> None:
    lines = "\n".join(f"{pair.source}\t{pair.target}" for pair in unseen(60, 11))
    (tmp_path / "valid.tsv").write_text(lines + "\n")

    model = tmp_path / "model"
    code, _, error = call("predict", run, "--confidence", text="abc\n")
    assert (code, "antiphon calibrate" in error) == (2, True)
    code, out, error = call("calibrate", run, tmp_path / "valid.tsv", "--metric", "exact", "--out", model)
    assert code == 0, error
    assert "confidence is the chance that an answer is right, fitted to 58 answers" in out
    for lost in (tmp_path / "notes", tmp_path / "notes.zip", run.parent):
        if not lost.exists():
            lost.write_text("mine")
        code, _, error = call("calibrate", run, tmp_path / "valid.tsv", "--out", lost)
        assert (code, "something that is no model is there already" in error) == (2, True)
    assert run.exists()
    assert (tmp_path / "notes").read_text() == (tmp_path / "notes.zip").read_text() == "mine"
    code, _, error = call("calibrate", f"{run},{model}", tmp_path / "valid.tsv")
    assert (code, "an ensemble has no confidence" in error) == (2, True)
    answer, sure = call("predict", model, "--confidence", text="abc\n")[1].rstrip("\n").split("\t")
    assert answer
    assert 0 < float(sure) < 1
    _, out, error = call("predict", model, "--abstain", "0.9999", text="abc\n")
    assert (out, "1 x not answered: confidence is below 0.9999" in error) == ("\n", True)
    record = json.loads(call("predict", model, "--jsonl", "--abstain", "0.9999", text="abc\n")[1])
    assert record["answers"][0]["text"] is None
    assert record["answers"][0]["confidence"] == pytest.approx(float(sure), abs=1e-3)
    assert "in exact, from 58 answers" in call("info", model)[1]


def test_the_estimator(run: Path, tmp_path: Path) -> None:
    model = Seq2Seq.load(run).calibrate([(pair.source, pair.target) for pair in unseen(30, 11)])
    model.save(tmp_path / "model.zip")
    [[answer]] = Seq2Seq.load(tmp_path / "model.zip").predictor.predict(["abc"])
    assert answer.confidence is not None


def test_a_recording_of_several_pieces_is_abstained_from_as_a_whole() -> None:
    said, withheld = replace(nothing(""), text="first half"), replace(nothing(""), text="", abstained=True)
    found = Pieces.__new__(Pieces)._joined([said, withheld], [0.0, 1.0])
    assert (found.text, found.abstained) == ("", True)
    assert Pieces.__new__(Pieces)._joined([said, said], [0.0, 1.0]).text == "first half first half"
