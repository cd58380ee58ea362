"""Adapters: the base stays as it is to the last bit, training and answering agree, and nothing malformed is let in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors.torch import load as load_tensors

from antiphon import Seq2Seq
from antiphon.__main__ import main
from antiphon.core.batch import pad
from antiphon.core.errors import BundleError, ConfigError
from antiphon.core.keys import override
from antiphon.data.corpus import Pair, group_references
from antiphon.diagnosis.report.judging import judge
from antiphon.diagnosis.report.reading import open_run
from antiphon.inference import bundle
from antiphon.inference.files import CARD, write_folder
from antiphon.inference.predictor import Predictor
from antiphon.inference.strict_json import dump_json
from antiphon.models.adapters import Factors, adaptable, added, fresh, slopes
from antiphon.models.seq2seq import build
from antiphon.training.adapting import AdapterLearner, Base
from antiphon.training.finetuning import Start
from antiphon.training.learner import OPTIMIZER
from antiphon.training.start import fit, resume
from antiphon.training.validation import Validator
from runs import Recorder, configured, light, outcome, words
from starts import FAMILIES, QUICK, SHORT, copies, raw, shared_start, weights  # noqa: F401

NAMED = {"model.adapter.name": "copy", "model.adapter.rank": 4}
ASKED = [word for word, _ in words(12, seed=9)]


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def said(path: Path, adapter: str | None = None) -> list[tuple[str, float, list[float]]]:
    found = Predictor(bundle.load(path), adapter=adapter).predict(ASKED)
    return [(best[0].text, best[0].score, best[0].probabilities) for best in found]


def base_files(path: Path) -> dict[str, bytes]:
    files = bundle.read(bundle.locate(path))[1]
    return {name: content for name, content in files.items() if not name.startswith("adapters/")}


# The mathematics


def test_added_to_the_weights_is_added_to_the_outputs() -> None:
    draw = torch.Generator().manual_seed(1)
    x, weight, up, down = (torch.randn(shape, generator=draw) for shape in ((9, 16), (24, 16), (24, 4), (4, 16)))
    merged = F.linear(x, added(weight, Factors(up, down), 0.7))
    apart = F.linear(x, weight) + 0.7 * F.linear(F.linear(x, down), up)
    assert torch.allclose(merged, apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6,)])
def test_gradients_of_the_factors_are_those_of_autograd(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, dtype=torch.float64)
    draw = fresh({"w": weight}, 2, 1)["w"]
    up, down = torch.randn(draw.up.shape).double().requires_grad_(), draw.down.double().requires_grad_()
    whole = (weight + 0.5 * (up @ down).view(shape)).requires_grad_()
    whole.retain_grad()
    whole.sin().sum().backward()
    assert whole.grad is not None
    for found, part in zip(slopes(whole.grad, Factors(up, down), 0.5), (up, down), strict=True):
        assert part.grad is not None
        assert torch.allclose(found, part.grad)


def test_fresh_factors_add_nothing_and_a_rank_is_no_more_than_that_of_the_matrix() -> None:
    model = build(configured("transformer", model__attention="additive").model, 12, 12)
    matrices = {name: model.get_parameter(name) for name in adaptable(model, embeddings=True)}
    for name, factors in fresh(matrices, 8, 1).items():
        assert torch.equal(added(matrices[name], factors, 2.0), matrices[name])
        assert factors.up.shape[1] == min(8, matrices[name].shape[0], matrices[name][0].numel())
    assert any(name.startswith("target.") for name in matrices)
    assert not any(name.startswith(("source.", "target.")) for name in adaptable(model, embeddings=False))


# Training


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_learns_beside_a_base_that_stays(kind: str, tmp_path: Path) -> None:
    old, run = raw(tmp_path / "old", configured(kind)), tmp_path / "run"
    fit(copies(), out=run, assignments={**SHORT, **NAMED}, start=old)
    assert base_files(run) == base_files(old)
    assert said(run) == said(old)
    new, before = bundle.load(run), bundle.tensors(bundle.load(old).model)
    after = bundle.tensors(new.adapted("copy").model)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == set(new.adapters["copy"].factors) == set(adaptable(new.model, embeddings=True))
    assert loss(run, "copy") < loss(run)


def loss(path: Path, adapter: str | None = None) -> float:
    found = bundle.load(path).adapted(adapter) if adapter else bundle.load(path)
    config = override(found.config, {"training.metric": "loss"})
    return Validator(config, found.task, group_references([Pair(*pair) for pair in copies()]))(found.model, int).loss


def test_it_learns_the_new_and_the_bundle_has_what_validation_saw(start: Path, tmp_path: Path) -> None:
    seen = Recorder()
    given = {**QUICK, **NAMED, "training.steps": 120, "training.validate_every": 20, "training.patience": 0,
             "training.ema": 0.8}  # fmt: skip
    result = fit(copies(), valid=copies(), out=tmp_path / "run", assignments=given, start=start, observers=[seen])
    assert loss(tmp_path / "run", "copy") == min(event.loss for event in seen.validations)
    assert loss(tmp_path / "run", "copy") < 0.75 * loss(start)
    assert loss(tmp_path / "run") == loss(start)
    assert result.adapter == "copy"
    assert any("weights learn, rank 4" in note.text for note in seen.notes)


@pytest.mark.parametrize(
    "more",
    [{"training.ema": 0.9, "training.average": 2}, {"model.adapter.embeddings": False}, {"training.precision": "bf16"},
     {"training.optimizer": "adafactor", "training.l2": 0.01}],
    ids=["averages", "no embeddings", "bf16", "adafactor"],
)  # fmt: skip
def test_a_resumed_adapter_is_the_same_to_the_bit(more: dict[str, Any], start: Path, tmp_path: Path) -> None:
    given = {**SHORT, **NAMED, **more}
    fit(copies(), out=tmp_path / "whole", assignments=given, start=start)
    fit(copies(), out=tmp_path / "parts", assignments=given, start=start, observers=[Recorder(6)])
    resume(tmp_path / "parts")
    assert resume(tmp_path / "parts").adapter == "copy"
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    assert base_files(tmp_path / "parts") == base_files(start)
    files = [(tmp_path / run / "best/adapters/copy.safetensors").read_bytes() for run in ("whole", "parts")]
    assert files[0] == files[1]


def test_two_processes_find_what_one_finds(start: Path, tmp_path: Path) -> None:
    found = []
    for processes in (1, 2):
        given = {**SHORT, **NAMED, "training.processes": processes, "model.dropout": 0.0}
        fit(copies(), out=tmp_path / str(processes), assignments=given, start=start)
        found.append(load_tensors((tmp_path / str(processes) / "best/adapters/copy.safetensors").read_bytes()))
    for name, tensor in found[0].items():
        assert torch.allclose(found[1][name], tensor, rtol=1e-3, atol=1e-4), name


def test_the_frozen_base_costs_the_optimizer_nothing(start: Path) -> None:
    base = Base.of(bundle.load(start))
    config = override(base.config, NAMED)
    model = build(config.model, 20, 20)
    names = set(adaptable(model, embeddings=False))
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in names)
    learner = AdapterLearner(model, config, base)
    model.loss(_batch()).total.backward()
    learner.ready(1)
    learner.update(0.1)
    state = load_tensors(learner.files()[OPTIMIZER])
    size = sum(part.numel() for factors in learner.factors.values() for part in factors)
    assert size <= learner.own.weights.numel() < sum(model.get_parameter(name).numel() for name in names)
    assert max(tensor.numel() for tensor in state.values()) == learner.own.weights.numel()


def _batch() -> Any:
    from antiphon.core.batch import Batch

    return Batch(pad([[5, 6, 3], [7, 3]]), pad([[6, 5, 3], [8, 3]]))


# Several in one bundle


@pytest.fixture(scope="module", name="two")
def _two(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        folder = tmp_path_factory.mktemp("two")
        fit(copies(), out=folder / "one", assignments={**SHORT, **NAMED}, start=start)
        more = {**SHORT, "model.adapter.name": "more", "model.adapter.rank": 2, "decoding.max_length": 3}
        fit(words(50), out=folder / "two", assignments=more, start=folder / "one")
        return folder


def test_a_second_adapter_leaves_the_first_as_it_was(two: Path, start: Path) -> None:
    new = bundle.load(two / "two")
    assert sorted(new.adapters) == ["copy", "more"]
    assert said(two / "two") == said(start)
    assert said(two / "two", "copy") == said(two / "one", "copy")
    assert said(two / "two", "more") != said(two / "two", "copy")
    assert max(len(text) for text, _, _ in said(two / "two", "more")) <= 3
    card = (bundle.locate(two / "two") / CARD).read_text()
    assert "| copy | 4 |" in card
    assert "| more | 2 |" in card


def test_saved_and_zipped_they_are_the_same(two: Path, tmp_path: Path) -> None:
    model = Seq2Seq.load(two / "two", adapter="copy")
    model.save(tmp_path / "model.zip")
    same = Seq2Seq.load(tmp_path / "model.zip", adapter="copy")
    assert same.predict(ASKED) == model.predict(ASKED) == [text for text, _, _ in said(two / "one", "copy")]
    assert Seq2Seq.load(tmp_path / "model.zip").predict(ASKED) == [text for text, _, _ in said(two / "one")]


def test_with_it_inside_it_is_a_model_of_its_own(two: Path, tmp_path: Path) -> None:
    inside = bundle.load(two / "two").adapted("copy")
    bundle.save(tmp_path / "own", model=inside.model, task=inside.task, config=inside.config, card={})
    assert said(tmp_path / "own") == said(two / "two", "copy")
    assert not bundle.load(tmp_path / "own").adapters
    assert Start.open(tmp_path / "own").settings({}).model.adapter.name == ""


def test_weights_that_change_leave_adapters_behind_and_say_so(two: Path, tmp_path: Path) -> None:
    seen = Recorder()
    fit(copies(), out=tmp_path / "run", assignments=SHORT, start=two / "two", observers=[seen])
    assert not bundle.load(tmp_path / "run").adapters
    assert any("stay behind: copy, more" in note.text for note in seen.notes)


def test_the_estimator_trains_one(start: Path) -> None:
    model = Seq2Seq(adapter="copy", settings={**SHORT}, verbose=False).fit(copies(), start=start)
    assert model.bundle_ is not None
    assert list(model.bundle_.adapters) == ["copy"]
    assert model.predict(ASKED) == [best[0].text for best in Predictor(model.bundle_, adapter="copy").predict(ASKED)]


# What is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model.adapter.name": "copy"}, "there is an adapter copy already"),
        ({"model.adapter.name": "../x"}, "an adapter cannot have this name"),
        ({"model.adapter.name": "new", "data.extend": True}, "data.extend changes weights"),
        ({"model.adapter.name": "new", "training.l2_start": 0.1}, "training.l2_start changes weights"),
        ({"model.adapter.rank": 3}, "name one with --adapter"),
        ({"model.adapter.name": "new", "model.adapter.rank": 0}, "model.adapter.rank must be at least 1"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], message: str, two: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(copies(), out=tmp_path / "run", assignments=given, start=two / "one")
    assert not (tmp_path / "run").exists()


def test_an_adapter_needs_a_start_and_an_unknown_one_is_named(two: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.adapter\.name needs a model to start from"):
        fit(copies(), out=tmp_path / "run", assignments=NAMED)
    with pytest.raises(ConfigError, match=r"has no adapter cpy.*copy"):
        Predictor(bundle.load(two / "two"), adapter="cpy")


TABLE, ABOUT = "adapters/copy.safetensors", "adapters/copy.json"


def _tensors(files: dict[str, bytes], change: Callable[[dict[str, Any]], Any]) -> None:
    values = load_tensors(files[TABLE])
    change(values)
    files[TABLE] = safetensors.torch.save(values)


def _about(files: dict[str, bytes], change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(files[ABOUT])
    change(values)
    files[ABOUT] = dump_json(values)


FIRST = "encoder.layers.0.mix.ahead.kernel.weight_hh_l0"
BROKEN: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "no factors": (lambda files: files.pop(TABLE), "the file is missing"),
    "no description": (lambda files: files.pop(ABOUT), "the file is missing"),
    "not a number": (lambda files: _tensors(files, lambda all: all[f"{FIRST}.up"].fill_(float("nan"))), "not finite"),
    "another shape": (lambda files: _tensors(files, lambda all: all.update({f"{FIRST}.up": torch.zeros(3, 4)})), "fit"),
    "half a pair": (lambda files: _tensors(files, lambda all: all.pop(f"{FIRST}.up")), "does not fit"),
    "unknown matrix": (lambda files: _tensors(files, lambda all: all.update({"x.up": torch.zeros(3, 4)})),
                       "does not have"),
    "another type": (lambda files: _tensors(files, lambda all: all.update({f"{FIRST}.up": torch.zeros(1).half()})),
                     "cannot be"),
    "cut off": (lambda files: files.update({TABLE: files[TABLE][:-3]}), "cut off"),
    "another rank": (lambda files: _about(files, lambda all: all["config"]["model"]["adapter"].update(rank=3)), "fit"),
    "another name": (lambda files: _about(files, lambda all: all["config"]["model"]["adapter"].update(name="x")),
                     "name"),
    "another network": (lambda files: _about(files, lambda all: all["config"]["model"].update(width=32)), "network"),
    "no lengths": (lambda files: _about(files, lambda all: all.update(length={"slope": 1})), "lengths"),
    "more": (lambda files: _about(files, lambda all: all.update(code="import os")), "is not the description"),
    "a list": (lambda files: files.update({ABOUT: b"[]"}), "is not the description"),
    "too many": (lambda files: files.update({f"adapters/a{n}.json": b"{}" for n in range(41)}), "at most 40"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_malformed_adapter_is_refused(what: str, two: Path, tmp_path: Path) -> None:
    files = bundle.read(bundle.locate(two / "one"))[1]
    act, message = BROKEN[what]
    act(files)
    write_folder(tmp_path / "bad", files)
    with pytest.raises(BundleError, match=message):
        bundle.load(tmp_path / "bad")


@pytest.mark.parametrize("name", ["adapters/x.pkl", "adapters/../x.json", "adapters/X.json", "adapters/.json"])
def test_other_names_are_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="name"):
        write_folder(tmp_path / "m", {name: b""})


def test_a_linked_folder_is_refused(two: Path, tmp_path: Path) -> None:
    files = bundle.read(bundle.locate(two / "one"))[1]
    write_folder(tmp_path / "m", files)
    (tmp_path / "m/adapters").rename(tmp_path / "elsewhere")
    (tmp_path / "m/adapters").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="not a folder but a link"):
        bundle.load(tmp_path / "m")


# The command line


def test_commands(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in copies()))
    (tmp_path / "asked.txt").write_text("".join(f"{word}\n" for word in ASKED))
    settings = [f"{key}={value}" for key, value in SHORT.items()]

    def told(*command: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(command)
        assert end.value.code == 0
        return capsys.readouterr().out

    run = str(tmp_path / "run")
    out = told("train", str(tmp_path / "new.tsv"), "--from", str(start), "--adapter", "copy", "--out", run, *settings)
    assert f"antiphon predict {run} --adapter copy" in out
    said_by = told("predict", run, str(tmp_path / "asked.txt"), "--adapter", "copy").splitlines()
    assert said_by == [text for text, _, _ in said(tmp_path / "run", "copy")]
    assert told("predict", run, str(tmp_path / "asked.txt")).splitlines() == [text for text, _, _ in said(start)]
    told_of = " ".join(told("info", run).split())
    size = bundle.load(tmp_path / "run").adapters["copy"].size
    assert f"adapter copy rank 8, scale 2, {size:,} bytes; data new.tsv" in told_of
    assert Start.open(tmp_path / "run").bundle.adapters
    assert set(weights(tmp_path / "run")) == set(weights(start))


def test_a_report_on_an_adapter_is_of_the_adapter(start: Path, tmp_path: Path) -> None:
    run, pairs = tmp_path / "run", copies()
    fit(pairs[8:], valid=pairs[:8], out=run, assignments={**SHORT, **NAMED, "training.rate": 0.1}, start=start)
    [judged] = judge([open_run(run)]).judged
    asked = [source for source, _ in pairs[:8]]
    wanted = [[best[0].text for best in Predictor(bundle.load(run), adapter=name).predict(asked)]
              for name in ("copy", None)]  # fmt: skip
    assert judged.evaluation is not None
    assert list(judged.evaluation.answers) == wanted[0] != wanted[1]
