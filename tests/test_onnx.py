"""ONNX graphs answer as the network that they were made of, whatever the search is asked for, and load nothing else."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import exports
from antiphon.core.batch import EOS, Batch, pad
from antiphon.core.config import Decoding, Encoder, Model
from antiphon.core.errors import BundleError, ConfigError
from antiphon.inference.bundle import Bundle, Stored, engines_of, load, write
from antiphon.inference.ctc import heard
from antiphon.inference.engines import open_engine
from antiphon.inference.hypothesis import Constraint
from antiphon.inference.on_onnxruntime import OnnxRuntime, open_files
from antiphon.inference.onnx_files import check
from antiphon.inference.predictor import Predictor
from antiphon.inference.search import search
from antiphon.models.seq2seq import Seq2Seq, build
from conformance import SIZE, combinations, label, made, model, variants
from test_predictor import make, texts

if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
    pytest.skip("the extra onnx is not installed", allow_module_level=True)

from antiphon.export.onnx import convert
from antiphon.export.writing import Plan, export

PAIRS = [
    model("lstm", "lstm", "additive"),
    model("transformer", "transformer", positions="rotary"),
    model("gru", "gru", "coverage", "copy"),
    model("conv", "ssru", "none"),
    replace(model("conformer", "conv", "general", norm_kind="rms"), ctc=True),
    model("transformer", "lstm", encoder_extra=Encoder(kind="transformer", layers=2, window=2, global_tokens=1)),
]
KINDS = {
    "beam": Decoding(beam=3, n_best=3),
    "greedy": Decoding(beam=1),
    "penalties": Decoding(beam=4, n_best=2, length_penalty=0.7, coverage_penalty=0.3),
    "rules": Decoding(beam=3, min_length=3, no_repeat=2),
    "thorough": Decoding(beam=3, n_best=2, thorough=True),
    "once": Decoding(beam=1, no_repeat=1, min_length=12),
}
LIMITS = [6, 9, 14]
MOST = tuple((token,) for token in range(4, 17))
RULES = [Constraint((5, 6), (), ((7,),)), Constraint((8,)), Constraint((), (), (*MOST, (18, 19)))]


def graphs(network: Seq2Seq, quantize: str = "none") -> OnnxRuntime:
    """The engine of a network without a bundle around it."""
    return opened(convert(SimpleNamespace(model=network), quantize=quantize), network.target_size)


def opened(files: dict[str, bytes], size: int) -> OnnxRuntime:
    bundle = SimpleNamespace(task=SimpleNamespace(target=SimpleNamespace(size=size)))
    return open_files({name.removeprefix("onnx/"): content for name, content in files.items()}, bundle, 1)


def asked(batch: Batch, limits: Sequence[int] = LIMITS, rules: Sequence[Constraint] = ()) -> list[Any]:
    """The sources of a batch, one by one."""
    found = []
    for row, limit in enumerate(limits):
        values = batch.source.values[row, : int(batch.source.lengths_B[row])]
        context = {name: each.values[row, : int(each.lengths_B[row])].tolist() for name, each in batch.context.items()}
        source = SimpleNamespace(ids=values.tolist() if values.dim() == 1 else values.numpy(), context=context)
        found.append(
            SimpleNamespace(source=source, constraint=rules[row] if rules else Constraint(), limit=limit, number=row)
        )
    return found


def check_same(network: Seq2Seq, batch: Batch) -> None:
    """Every kind of search finds what that of PyTorch finds: tokens, scores, weights and where they are heard."""
    engine = graphs(network)
    for name, settings in [*KINDS.items(), ("constraints", KINDS["beam"])]:
        rules = RULES if name == "constraints" else [Constraint()] * len(LIMITS)
        right = search([network], batch.source, settings, max_lengths=LIMITS, context=batch.context, constraints=rules)
        right = heard(network, batch, right)
        found = engine.search(asked(batch, rules=rules), settings, batch_size=2, details=True)
        for ours, theirs in zip(found, right, strict=True):
            assert [each.tokens for each in ours] == [each.tokens for each in theirs], name
            assert [each.finished for each in ours] == [each.finished for each in theirs], name
            assert [list(each.heard) for each in ours] == [list(each.heard) for each in theirs], name
            for one, other in zip(ours, theirs, strict=True):
                assert one.score == pytest.approx(other.score, abs=1e-4), name
                np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-4)
                np.testing.assert_allclose(one.weights, other.weights, atol=1e-4)


@pytest.mark.parametrize("config", PAIRS, ids=label)
def test_the_light_search_finds_what_the_search_finds(config: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.inference.on_onnxruntime.ROOM", 5)  # so that caches lose columns
    check_same(*made(config))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("config", [*variants(), *combinations()], ids=label)
def test_every_architecture_answers_alike(config: Model) -> None:
    check_same(*made(config))


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_what_else_is_in_a_batch_changes_nothing(quantize: str) -> None:
    """Not even where numbers are rounded: each row is by itself."""
    network = build(replace(model("gru", "transformer"), width=64), SIZE, SIZE, seed=3).eval()
    draw = np.random.default_rng(1)
    sources = [[*draw.integers(4, SIZE, draw.integers(1, 12)).tolist(), EOS] for _ in range(24)]
    inputs = asked(Batch(pad(sources), pad(sources)), [20] * len(sources))
    engine, settings = graphs(network, quantize), Decoding(beam=3)
    together = engine.search(inputs, settings, batch_size=24, details=True)
    alone = [found for each in inputs for found in engine.search([each], settings, batch_size=1, details=True)]
    assert [[h.tokens for h in mine] for mine in together] == [[h.tokens for h in mine] for mine in alone]
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours[0].log_probs, theirs[0].log_probs, atol=1e-4)


def test_a_sentence_with_a_tie_is_searched_again_alone() -> None:
    network, batch = made(model("lstm", "gru"))
    with torch.no_grad():  # two tokens that nothing tells apart
        network.head.weight[9] = network.head.weight[8]
        network.head.bias[8:10] = 9.0
    found = graphs(network).search(asked(batch), Decoding(beam=3), batch_size=3, details=True)
    assert all(mine[0].repeated for mine in found)


def test_integers_are_small_and_near() -> None:
    config = replace(model("lstm", "lstm", "additive", tie="all"), width=64)
    network = build(config, 3000, 3000, seed=3).eval()
    whole, rounded = (convert(SimpleNamespace(model=network), quantize=kind) for kind in ("none", "int8"))
    numbers = sum(parameter.numel() for parameter in network.parameters())
    size, small = (sum(map(len, files.values())) for files in (whole, rounded))
    assert 4 * numbers < size < 4 * numbers + 200_000, "a weight is stored twice"
    assert small < 1.1 * numbers + 200_000
    batch = Batch(pad([[5, 6, 2000, EOS], [8, EOS]]), pad([[EOS]] * 2))
    settings = Decoding(beam=2, min_length=9)
    given = [opened(files, 3000).search(asked(batch, [9, 9]), settings, batch_size=2, details=True)
             for files in (whole, rounded)]  # fmt: skip
    for exact, near in zip(*given, strict=True):
        assert near[0].score == pytest.approx(exact[0].score, abs=0.02)
        assert near[0].score != exact[0].score


def test_the_best_of_a_large_vocabulary_are_the_best() -> None:
    from antiphon.export.graphs import best

    log_probs = torch.randn(7, 32 * 70, generator=torch.Generator().manual_seed(2))
    values, ids = best(log_probs, 9)
    assert torch.equal(values, log_probs.topk(9, 1).values)
    assert torch.equal(log_probs.gather(1, ids), values)


def exported(bundle: Bundle, quantize: str = "none") -> Bundle:
    """The same model with graphs in the place of its network."""
    nothing = Stored(None, bundle.config, (bundle.task.source.size, bundle.task.target.size), bundle.path)
    return replace(bundle, network=nothing, engines=engines_of(convert(bundle, quantize=quantize)))


@pytest.mark.parametrize(("kind", "head"), [("lstm", "vocabulary"), ("gru", "copy")])
def test_a_predictor_answers_alike(kind: str, head: str) -> None:
    bundle = make(kind, head=head)
    plain, light = Predictor(bundle, processes=1), Predictor(exported(bundle), processes=1)
    assert light.engine.name == "onnxruntime"
    given = [*texts(20), "", "ba zz du"]
    for right, found in zip(plain.predict(given), light.predict(given, batch_size=3), strict=True):
        assert (found[0].text, found[0].alignment, found[0].reason) == (
            right[0].text, right[0].alignment, right[0].reason
        )  # fmt: skip
        assert found[0].probability == pytest.approx(right[0].probability, abs=1e-4)


@pytest.mark.parametrize("setting", ["sample", "groups", "refill", "ctc"])
def test_what_it_cannot_do_is_said_by_name(setting: str) -> None:
    settings = replace(Decoding(beam=4), **{setting: {"groups": 2, "ctc": 0.3}.get(setting, True)})
    light = Predictor(exported(make("gru")), processes=1)
    with pytest.raises(ConfigError, match=f"decoding.{setting}"):
        list(light.predict(["ba"], settings=settings))
    with pytest.raises(ConfigError, match="required words"):
        list(light.predict(["ba"], required=[["du"]]))


ANSWER = """
import sys
from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor
found = Predictor(load(sys.argv[1]), processes=1).predict(sys.argv[2:])
print([answers[0].text for answers in found])
assert "torch" not in sys.modules, "PyTorch was imported"
"""


def test_a_bundle_answers_without_pytorch(tmp_path: Path) -> None:
    """A folder of graphs is a bundle like any other, and a process that answers from it never imports torch."""
    from antiphon.inference.bundle import WEIGHTS_FILE, bundle_files, facts

    bundle, given = make("gru"), texts(5)
    files = bundle_files(model=bundle.model, task=bundle.task, config=bundle.config, card={})
    del files[WEIGHTS_FILE]
    write(tmp_path / "light", {**files, **convert(bundle, quantize="int8")}, facts({}))
    told = subprocess.run(
        [sys.executable, "-c", ANSWER, str(tmp_path / "light"), *given], capture_output=True, text=True, check=True
    )
    right = Predictor(load(tmp_path / "light"), processes=1)
    assert right.engine.name == "onnxruntime int8"
    assert told.stdout.strip() == str([answers[0].text for answers in right.predict(given)])


def test_an_export_is_checked_and_written(tmp_path: Path) -> None:
    bundle = exports.made("lstm")
    found = export(bundle, tmp_path / "light.zip", exports.pairs(), Plan(to="onnx", quantize="none"))
    assert [row.engine for row in found.rows] == ["PyTorch", "onnxruntime"]
    assert found.rows[1].same == 1
    assert found.rows[1].off[1] < 1e-4
    light = load(tmp_path / "light.zip")
    assert not light.complete
    assert [mine[0].text for mine in exports.answers(light)] == [mine[0].text for mine in exports.answers(bundle)]
    with pytest.raises(ConfigError, match="shortlist"):
        export(bundle, tmp_path / "more", exports.pairs(), Plan(to="onnx", candidates=exports.pairs()))


def test_answers_that_are_numbers_are_refused() -> None:
    from forecasts import network

    with pytest.raises(ConfigError, match="numbers"):
        convert(SimpleNamespace(model=network("gru", "gaussian")))


def test_files_of_another_model_are_refused() -> None:
    bundle = make("gru")
    files = dict(exported(bundle).engines["onnx"])
    about = json.loads(files["about.json"])

    def refused(what: str, **changed: bytes | None) -> None:
        other = {**files, **{name.replace("_", "."): content for name, content in changed.items()}}
        other = {name: content for name, content in other.items() if content is not None}
        with pytest.raises(BundleError, match=what):
            open_engine(exported_as(bundle, other), 1)

    refused("other files", shared_onnx=None)
    refused("other files", more_onnx=b"")
    refused("another model", about_json=json.dumps({**about, "vocabulary": 7}).encode())
    refused("does not describe", about_json=b"[]")
    refused("does not describe", about_json=json.dumps({**about, "vocabulary": True}).encode())
    refused("another version", about_json=json.dumps({**about, "format": 2}).encode())
    refused("no graph", step_onnx=files["step.onnx"][:-100])
    refused("none of a model", step_onnx=files["encoder.onnx"])
    refused("no graph", encoder_onnx=b"\xff" * 100)


def exported_as(bundle: Bundle, files: dict[str, bytes]) -> Bundle:
    nothing = Stored(None, bundle.config, (bundle.task.source.size, bundle.task.target.size), bundle.path)
    return replace(bundle, network=nothing, engines={"onnx": files})


def test_a_damaged_graph_is_refused_whatever_the_damage() -> None:
    draw = np.random.default_rng(5)
    content = exported(make("gru")).engines["onnx"]["step.onnx"]
    check(content, "step")
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[int(draw.integers(2000))] = int(draw.integers(256))
        try:
            check(bytes(damaged[: int(draw.integers(1, len(content)))]), "step")
        except BundleError:
            refused += 1
    assert refused > 250


def test_a_graph_names_no_other_file_and_no_operator_of_its_own() -> None:
    """Weights that lie elsewhere would be read from whatever file is named; what is unknown is not handed over."""
    import onnx

    bundle = make("gru")
    files = dict(exported(bundle).engines["onnx"])

    def changed(change: Any) -> dict[str, bytes]:
        graph = onnx.load_from_string(files["step.onnx"])
        change(graph)
        return {**files, "step.onnx": graph.SerializeToString()}

    def elsewhere(graph: Any) -> None:
        weight = graph.graph.initializer[0]
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="/etc/passwd")
        weight.ClearField("raw_data")

    def operator(graph: Any) -> None:
        graph.graph.node[0].op_type = "ReadFile"

    def inner(graph: Any) -> None:
        graph.graph.node[0].attribute.append(onnx.helper.make_attribute("body", graph.graph))

    def function(graph: Any) -> None:
        graph.functions.add(name="own", domain="antiphon")

    for change in (elsewhere, operator, inner, function):
        with pytest.raises(BundleError, match=r"than a graph may have|no graph of ours"):
            open_engine(exported_as(bundle, changed(change)), 1)
