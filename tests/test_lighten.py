"""Light models: fewer tokens with the same answers, students and exports that are measured, and nothing made twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from antiphon.core.errors import ConfigError
from antiphon.data.corpus import Pair
from antiphon.export.lighten import ITSELF, Lightened, lighten
from antiphon.export.pruning import pruned
from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor
from commands import Call, calling, refused  # noqa: F401
from exports import made
from runs import light, listing, words
from starts import trained

pytest.importorskip("ctranslate2")
pytest.importorskip("onnxruntime")

STUDENTS = {"model.encoder.layers": 1, "model.width": 16, "training.threads": 1, "training.processes": 1,
            "training.steps": 6, "training.validate_every": 3}  # fmt: skip
NAMES = [ITSELF, "model-int8", "model-int8-shortlist", "transformer-int8", "transformer-int8-shortlist", "ssru-int8"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        kinds = {"model__encoder__kind": "transformer", "model__decoder__kind": "transformer"}
        yield trained(tmp_path_factory.mktemp("light") / "teacher", **kinds, model__attention="multihead",
                      training__metric="cer")  # fmt: skip


@pytest.fixture(scope="module")
def data(teacher: Path) -> Path:
    path = teacher.parent / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in words(80)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(teacher: Path, data: Path) -> Iterator[Lightened]:
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        yield lighten(str(teacher), str(data), teacher.parent / "out", assignments=STUDENTS)


# Fewer tokens


@pytest.mark.parametrize(("kind", "tie"), [("transformer", "target"), ("ssru", "none"), ("gru", "all")])
def test_without_unused_tokens_the_network_is_the_same(kind: str, tie: str) -> None:
    shared = {"data__shared": True} if tie == "all" else {}
    bundle = made(kind, model__tie=tie, data__source__tokenizer="word", data__target__tokenizer="word", **shared)
    pairs = [Pair(*pair) for pair in words(40)][:10]
    smaller = pruned(bundle, pairs)
    for side in ("source", "target"):
        old, new = getattr(bundle.task, side).vocabulary, getattr(smaller.task, side).vocabulary
        assert len(new) < len(old)
        assert {token for pair in pairs for token in (getattr(pair, side),)} <= set(new.tokens)
    steps = [each.model(each.task.batch(pairs))[0].hidden_BTD for each in (bundle, smaller)]
    torch.testing.assert_close(*steps)
    old, new = bundle.task.target.vocabulary, smaller.task.target.vocabulary
    rows = [old.tokens.index(token) for token in new.tokens]
    torch.testing.assert_close(bundle.model.words.weight[rows], smaller.model.words.weight)
    torch.testing.assert_close(bundle.model.words.bias[rows], smaller.model.words.bias)


def test_special_tokens_tags_and_letters_stay() -> None:
    bundle = made("transformer")
    assert pruned(bundle, []).task.source.vocabulary == bundle.task.source.vocabulary
    words_ = made("transformer", data__source__tokenizer="word")
    assert pruned(words_, []).task.source.vocabulary.tokens[:4] == words_.task.source.vocabulary.tokens[:4]


# All of it


def test_every_candidate_is_a_model_that_was_measured(found: Lightened) -> None:
    assert [each.name for each in found.candidates] == NAMES
    for each in found.candidates:
        bundle = load(each.path)
        answers = [best[0].text for best in Predictor(bundle, processes=1).predict(["abc", "dab"])]
        assert len(answers) == 2
        assert each.milliseconds > 0
        assert each.score.name == "cer"
        assert each.score.interval is not None
    itself, student = found.candidates[0], load(found.candidates[3].path)
    assert itself.size == sum(path.stat().st_size for path in (itself.path / "best").glob("*") if path.is_file())
    assert student.config.model.decoder.layers == 1
    assert load(found.candidates[-1].path).config.model.decoder.kind == "ssru"
    assert json.loads((found.out / "result.json").read_bytes())["candidates"][0]["name"] == ITSELF


def test_what_is_there_is_not_made_again(
    found: Lightened, teacher: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    light(monkeypatch)
    before = listing(found.out)
    assert lighten(str(teacher), str(data), found.out, assignments=STUDENTS).candidates == found.candidates
    assert {name: each for name, each in listing(found.out).items() if name != "result.json"} == {
        name: each for name, each in before.items() if name != "result.json"
    }
    with pytest.raises(ConfigError, match=r"made of something else: settings.model.width: 16 -> 8"):
        lighten(str(teacher), str(data), found.out, assignments={**STUDENTS, "model.width": 8})


def test_a_part_that_is_missing_is_made(found: Lightened, call: Call, teacher: Path, data: Path) -> None:
    (found.out / "measured/ssru-int8.json").unlink()
    settings = [f"{key}={value}" for key, value in STUDENTS.items()]
    code, told, error = call("lighten", teacher, "--data", data, "--out", found.out, *settings)
    assert (code, error) == (0, "")
    for name in NAMES:
        assert f"{name}: " in told
    pytest.importorskip("vl_convert")
    assert b"https://cdn" not in (found.out / "chart.html").read_bytes()
    chart = (found.out / "chart.svg").read_text(encoding="utf-8")
    assert all(f">{name}, " in chart for name in NAMES)


def test_mistakes_are_named(call: Call, teacher: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "light"
    assert "there is no model here" in refused(call, "lighten", tmp_path / "no", "--data", data, "--out", out)
    assert "nowhere.tsv" in refused(call, "lighten", teacher, "--data", tmp_path / "nowhere.tsv", "--out", out)
    assert "unknown metric blue" in refused(call, "lighten", teacher, "--data", data, "--out", out, "--metric", "blue")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thing").touch()
    error = refused(call, "lighten", teacher, "--data", data, "--out", tmp_path / "full")
    assert "the folder has something else in it" in error
