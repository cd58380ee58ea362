"""Whoever searches, the answers are the same: the fastest engine, PyTorch by name where that one cannot, and without
PyTorch where it need not be there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antiphon import Seq2Seq
from antiphon.core.config import Config
from antiphon.core.errors import AntiphonError, BundleError, ConfigError
from antiphon.core.exact import Inexact, exactly
from antiphon.core.keys import read, to_dict
from antiphon.export.writing import Plan, export
from antiphon.inference.answer import Answer
from antiphon.inference.bundle import load, save
from antiphon.inference.calibration import calibrate
from antiphon.inference.predictor import Predictor
from commands import calling, refused  # noqa: F401
from exports import INPUTS, answers, made, pairs

pytest.importorskip("ctranslate2")

FEW = INPUTS[:6]


@pytest.fixture(scope="module", name="folder")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model (`plain`), and the same for CTranslate2 with PyTorch's weights (`kept`) and without (`bare`)."""
    folder, bundle = tmp_path_factory.mktemp("engines"), made()
    save(folder / "plain", model=bundle.model, task=bundle.task, config=bundle.config, card={"data": "words.tsv"})
    export(load(folder / "plain"), folder / "bare", pairs(), Plan(quantize="none"))
    export(load(folder / "plain"), folder / "kept", pairs(), Plan(quantize="none", keep=True))
    (folder / "pairs.tsv").write_text("".join(f"{pair.source}\t{pair.target}\n" for pair in pairs()), encoding="utf-8")
    return folder


def python(code: str, *words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, words)]
    settings = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, input=text, text=True, capture_output=True, env=settings, timeout=120)


def test_an_exported_model_answers_without_pytorch(folder: Path, tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None  # importing it is an error
from antiphon.__main__ import _run
code = _run(["predict", sys.argv[1], *sys.argv[2:]])
late = ("torch.", "sacrebleu", "multiprocessing", "ctranslate2.specs", *(() if sys.argv[2:] else ("pydantic",)))
assert "--out" in sys.argv or not {name for name in sys.modules if name.startswith(late)}
sys.exit(code)
"""
    right = [each[0].text for each in answers(load(folder / "plain"), FEW, refill=True)]
    for more in ([], ["beam=1"], ["--jsonl", "n_best=2"]):
        done = python(code, folder / "bare", *more, text="".join(f"{line}\n" for line in FEW))
        assert done.returncode == 0, done.stderr
        if not more:
            assert done.stdout.splitlines() == right
    assert [json.loads(line)["answers"][0]["text"] for line in done.stdout.splitlines()] == right
    (tmp_path / "texts").write_text("".join(f"{line}\n" for line in FEW))
    done = python(code, folder / "bare", tmp_path / "texts", "--out", tmp_path / "answers")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "answers").read_text().splitlines() == right
    refused_by = python(code, folder / "plain", text="abc\n")
    assert refused_by.returncode != 0  # the canary: a model without an engine does need PyTorch


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"sample": True}, "decoding.sample"),
        ({"beam": 4, "groups": 2}, "decoding.groups"),
        ({"coverage_penalty": 0.3}, "decoding.coverage_penalty"),
        ({"no_repeat": 2}, "decoding.no_repeat"),
        ({"min_length": 3}, "decoding.min_length"),
        ({"beam": 3, "refill": False}, "a beam with decoding.refill=false"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_an_engine_cannot_do_pytorch_does_by_name(folder: Path, settings: dict[str, Any], named: str) -> None:
    predictor = Predictor(load(folder / "kept"), processes=1)
    chosen = replace(predictor.config.decoding, **settings)
    found = [each[0].tokens for each in predictor.predict(FEW, settings=chosen)]
    right = answers(load(folder / "plain"), FEW, **{"refill": True, **settings})
    assert found == [each[0].tokens for each in right]
    assert f"{len(FEW)} x answered by PyTorch, since CTranslate2 fp32 cannot do {named}" in predictor.report.lines()[0]
    reason = f"answered by PyTorch, since CTranslate2 fp32 cannot do {named}"
    assert all(each[0].reason.startswith(reason) for each in predictor.predict(FEW, settings=chosen))
    with pytest.raises(ConfigError, match="leave it out, or export the model again with --keep") as error:
        list(Predictor(load(folder / "bare"), processes=1).predict(FEW, settings=chosen))
    assert f"CTranslate2 fp32 cannot do {named}, and PyTorch's weights are not here" in str(error.value)


def test_an_exported_model_is_watched_between_a_few_inputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that nobody waits for any more are left out; the others are told as soon as they are done, and the same."""
    monkeypatch.setattr("antiphon.inference.engines.LOOK", 60)
    predictor = Predictor(load(folder / "bare"), processes=1)
    right, chosen = [each[0].tokens for each in predictor.predict(FEW)], predictor.config.decoding
    looks, told, left_out = list[list[int]](), dict[int, list[int]](), list[int]()

    class Watching:
        def look(self, going: Any, text: Any) -> list[int]:
            looks.append(list(going))
            assert all(text(number) is None for number in going)
            if len(looks) == 2:
                left_out.append(looks[-1][-1])
            return left_out if len(looks) == 2 else []

        def tell(self, number: int, answers: list[Answer]) -> None:
            told[number] = answers[0].tokens

    found = [each[0] for each in predictor.predict(FEW, settings=chosen, watcher=Watching())]
    assert len(looks) > 1
    assert sorted(looks[0]) == list(range(len(FEW)))
    [gone] = left_out
    assert not found[gone].finished
    assert all(each.tokens == right[number] for number, each in enumerate(found) if number != gone)
    assert 0 < len(told) < len(FEW) - 1  # those that were done before the last
    assert told == {number: right[number] for number in told}


def test_a_server_of_exported_models_needs_no_pytorch() -> None:
    code = """
import sys
sys.modules["torch"] = None  # importing it is an error
import antiphon.cli.serve, antiphon.serving.app, antiphon.serving.server, antiphon.serving.nursery
import antiphon.serving.worker
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_words_go_to_pytorch_one_by_one(folder: Path) -> None:
    both = [Predictor(load(folder / name), processes=1) for name in ("kept", "plain")]
    chosen = replace(both[0].config.decoding, beam=4)
    words = [["a"] if place % 2 else [] for place in range(len(FEW))]
    prefixes = ["b" if place == 4 else "" for place in range(len(FEW))]
    one, other = (list(each.predict(FEW, settings=chosen, required=words, prefixes=prefixes)) for each in both)
    assert [each[0].tokens for each in one] == [each[0].tokens for each in other]
    reasons = both[0].report.counts
    assert reasons["answered by PyTorch, since CTranslate2 fp32 cannot do required words"] == 3
    assert reasons["answered by PyTorch, since CTranslate2 fp32 cannot do a prefix with a beam"] == 1
    banned = list(both[0].predict(FEW, settings=chosen, banned=["a"]))
    assert not any("a" in each[0].text.split() for each in banned)


def test_a_source_beyond_the_table_is_named(tmp_path: Path) -> None:
    bundle = made(model__positions="learned", model__max_positions=24, data__source__max_length=None)
    export(bundle, tmp_path / "out", pairs(), Plan(quantize="none"))
    predictor = Predictor(load(tmp_path / "out"), processes=1)
    with pytest.raises(ConfigError, match="a source of 31 tokens"):
        list(predictor.predict(["a" * 30]))
    with pytest.raises(ConfigError, match="an answer of 5,000 tokens"):
        list(predictor.predict(["a"], settings=replace(predictor.config.decoding, max_length=5000)))


def test_a_model_without_weights_says_so(folder: Path) -> None:
    bare = load(folder / "bare")
    assert not bare.complete
    with pytest.raises(BundleError, match="exported without PyTorch's weights; take the model"):
        _ = bare.model
    with pytest.raises(BundleError, match="exported without"):
        Predictor([bare, bare])
    assert sum(parameter.numel() for parameter in load(folder / "kept").model.parameters()) > 1000


def test_a_missing_engine_is_explained_or_pytorch_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.inference.on_ctranslate2.present", lambda: False)
    with pytest.raises(AntiphonError, match=r"needs the package ctranslate2; type: pip install 'antiphon\[fast\]'"):
        Predictor(load(folder / "bare"))
    assert Predictor(load(folder / "kept")).engine.name == "PyTorch"
    with pytest.raises(AntiphonError, match=r"pip install 'antiphon\[fast\]'"):
        export(load(folder / "plain"), folder / "other", pairs())


def test_the_estimator_and_evaluate_take_it(folder: Path, call: Any) -> None:
    model = Seq2Seq.load(folder / "bare")
    right = [each[0].text for each in answers(load(folder / "plain"), FEW, refill=True)]
    assert model.predict(FEW) == right
    with pytest.raises(ConfigError, match="an exported model is complete as it is"):
        model.save(folder / "again")
    code, out, err = call("evaluate", folder / "bare", folder / "pairs.tsv", "--metrics", "exact,cer")
    assert (code, err) == (0, "")
    assert "loss and perplexity are left out" in out
    code, out, _ = call("info", folder / "bare")
    assert "CTranslate2 fp32" in out
    assert "parameters" not in out


def test_confidence_holds_for_it(folder: Path) -> None:
    plain = load(folder / "plain")
    found = calibrate(
        plain, [*pairs(), *pairs()], "cer", decoding=replace(plain.config.decoding, refill=True)
    ).calibration
    sure = replace(load(folder / "bare"), confidence=found)
    both = [Predictor(each, processes=1) for each in (replace(plain, confidence=found), sure)]
    settings = sure.config.decoding
    told = [
        [each[0].confidence for each in predictor.predict(FEW, settings=settings, details=False)] for predictor in both
    ]
    assert told[0] == pytest.approx(told[1], abs=1e-4)


def test_the_command_shows_what_changed_and_the_card_keeps_it(
    folder: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    data = folder / "pairs.tsv"
    code, out, err = call("export", folder / "plain", folder / "int8.zip", "--data", data, "--shortlist", data)
    assert (code, err) == (0, "")
    lines = " ".join(out.split())
    assert "answers per CPU second" in lines
    assert "CTranslate2 int8 with a shortlist" in lines
    assert "on 40 pairs of" in lines
    bundle = load(folder / "int8.zip")
    rows = bundle.manifest["card"]["export"]["rows"]
    assert [row["engine"] for row in rows] == ["PyTorch", "CTranslate2 int8 with a shortlist"]
    card = (folder / "kept" / "README.md").read_text(encoding="utf-8")
    assert "## Export" in card
    assert "| CTranslate2 fp32 |" in card
    assert "words.tsv" in card
    line = refused(call, "export", folder / "plain", folder / "pairs.tsv", "--data", folder / "pairs.tsv")
    assert "something that is no model is there already" in line


def test_settings_are_read_alike_with_and_without_pydantic() -> None:
    values = to_dict(Config())
    assert exactly(Config, values) == Config() == read(values)
    values["model"] |= {"width": 8, "dropout": 0, "norm": "pre", "residual": True}
    values["data"]["context"] = ["to", "from"]
    found = exactly(Config, values)
    assert found == read(values)
    assert (found.model.dropout, type(found.model.dropout), found.data.context) == (0.0, float, ("to", "from"))
    for part, name, wrong in (
        ("model", "width", 8.5), ("model", "norm", "post-ish"), ("model", "dropout", "0"), ("decoding", "refill", 1),
        ("data", "context", [1]), ("data", "knowledge", None),
    ):  # fmt: skip
        broken = json.loads(json.dumps(values))
        broken[part][name] = wrong
        with pytest.raises(Inexact):
            exactly(Config, broken)
