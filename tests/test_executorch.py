"""A program for phones answers as the network that it was made of, at every size, and what has none is refused."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import exports
from antiphon.core.errors import AntiphonError, BundleError, ConfigError
from antiphon.export import executorch
from antiphon.export.writing import Plan, export, export_program
from antiphon.inference.bundle import Bundle
from antiphon.inference.predictor import Predictor

INSTALLED = importlib.util.find_spec("executorch") is not None
needed = pytest.mark.skipif(not INSTALLED, reason="the extra mobile is not installed")
NETWORKS: dict[str, dict[str, Any]] = {
    "transformer": {"model__positions": "rotary", "model__norm_kind": "rms"},
    "ssru": {"model__decoder__kind": "ssru", "model__head": "copy"},
    "ctc": {"model__ctc": True},
    "conv": {"model__encoder__kind": "conv", "model__decoder__kind": "conv", "model__attention": "additive"},
}


def network(name: str) -> Bundle:
    """A model that reads without a loop."""
    return exports.made("transformer", **NETWORKS[name])


@needed
@pytest.mark.slow  # a minute each, most of it the exporter's
@pytest.mark.parametrize("name", NETWORKS)
def test_the_program_answers_as_pytorch(name: str) -> None:
    bundle = network(name)
    engine = executorch.ExecuTorch(executorch.convert(bundle), bundle, "none")
    predictor = Predictor(bundle, processes=1)
    predictor.engine = engine
    for settings in ({"beam": 1}, {"beam": 4, "n_best": 3}, {"beam": 8, "no_repeat": 2, "min_length": 9}):
        how = replace(bundle.config.decoding, **settings)
        right, found = exports.answers(bundle, **settings), list(predictor.predict(exports.INPUTS, settings=how))
        assert [[one.tokens for one in each] for each in found] == [[one.tokens for one in each] for each in right]
        scores = [[one.score for one in each] for each in found]
        assert scores == [pytest.approx([one.score for one in each], abs=1e-4) for each in right]


@needed
@pytest.mark.slow
def test_an_export_is_a_program_and_its_description_and_is_small_in_int8(tmp_path: Path) -> None:
    bundle = network("ssru")
    found, size = export_program(bundle, tmp_path / "app", exports.pairs(), Plan("executorch", "int8"))
    told = json.loads((tmp_path / "app/model.json").read_text())
    assert {path.name for path in (tmp_path / "app").iterdir()} >= {"model.pte", "model.json"}
    assert size == sum((tmp_path / "app" / name).stat().st_size for name in ("model.pte", "model.json"))
    assert told["inputs"]["encode"] == ["source", "lengths"]
    assert told["inputs"]["step"][:5] == ["tokens", "parents", "living", "ranks", "mask"]
    assert told["outputs"]["step"][:4] == ["values", "ids", "weights", "log_probs"]
    assert told["limits"]["beam"] == 8
    assert told["limits"]["answer"] == 1 + bundle.task.limit(told["limits"]["source"])
    assert told["graphs"]["candidates"] <= executorch.CANDIDATES
    assert found.rows[1].engine == "ExecuTorch int8"
    assert 0 < found.rows[1].off[0] < 0.1, "int8 rounds, a little"


@needed
@pytest.mark.slow
def test_the_program_of_the_guide_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = network("transformer")
    export_program(bundle, tmp_path / "app", exports.pairs(), Plan("executorch", "none"))
    guide = (Path(__file__).parents[1] / "docs/export.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", guide, re.S) if "load_program" in block)
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    exec(code, known)
    for text, (answer,) in zip(exports.INPUTS, exports.answers(bundle, beam=1), strict=True):
        said = known["greedy"](bundle.task.read(text).ids)[: len(answer.tokens)]
        assert [bundle.task.words.vocabulary.tokens[token] for token in said] == list(answer.tokens)


@pytest.mark.parametrize(
    ("bundle", "named"),
    [
        (lambda: exports.made("lstm"), "model.encoder.kind=lstm, model.decoder.kind=lstm"),
        (lambda: exports.made("transformer", decoding__beam=9), "decoding.beam=9"),
        (lambda: exports.made("transformer", decoding__groups=2), "decoding.groups"),
    ],
)
def test_what_has_no_program_is_refused_by_name(bundle: Any, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        executorch.refuse(bundle())
    assert named in str(caught.value)


def test_without_the_package_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    with pytest.raises(AntiphonError, match=r"antiphon\[mobile\]"):
        executorch.convert(network("transformer"))


def test_other_files_are_not_lost(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/one.txt").write_text("mine")
    with pytest.raises(BundleError, match="not an export for phones"):
        executorch.room(tmp_path / "notes")
    (tmp_path / "app").mkdir()
    for name in ("model.pte", "model.json"):
        (tmp_path / "app" / name).touch()
    assert executorch.room(tmp_path / "app") == tmp_path / "app"
    (tmp_path / "app/LICENSE").write_text("mine")
    with pytest.raises(BundleError, match=r"not an export for phones .*\(got LICENSE\)"):
        executorch.room(tmp_path / "app")
    with pytest.raises(BundleError, match="no archive"):
        executorch.room(tmp_path / "app.zip")


def test_what_a_program_cannot_have_beside_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shortlist"):
        export_program(network("transformer"), tmp_path / "app", exports.pairs(), Plan("executorch", "none", keep=True))


@pytest.mark.parametrize("to", ["executorch", "browser"])
def test_what_is_no_bundle_is_not_written_as_one(to: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no bundle"):
        export(network("transformer"), tmp_path / "app", exports.pairs(), Plan(to, "none"))
    assert not (tmp_path / "app").exists()


def test_columns_that_nobody_needs_are_dropped() -> None:
    """Else the caches would outgrow the memory that is planned for them."""
    walk = executorch.Walk.__new__(executorch.Walk)
    places = torch.full((2, 60), -1)
    places[0, [3, 50]], places[1, [3, 59]] = 1, 1
    cache = torch.arange(60.0).view(1, 1, 60, 1)
    walk.state = {"places": places, "0.shared.keys": cache, "memory.keys": cache}
    walk._drop()
    assert walk.state["0.shared.keys"].flatten().tolist() == [3, 50, 59]
    assert walk.state["places"].tolist() == [[1, 1, -1], [1, -1, 1]]
    assert walk.state["memory.keys"].shape[2] == 60
