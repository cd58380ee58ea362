"""Transformers by CTranslate2: the same tokens as by PyTorch, or a clear refusal."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antiphon.core.batch import EOS
from antiphon.core.config import Decoding
from antiphon.core.errors import BundleError, ConfigError
from antiphon.data.corpus import Pair
from antiphon.export.checking import check
from antiphon.export.ctranslate2 import convert
from antiphon.export.lighten import exports
from antiphon.export.shortlist import shortlist
from antiphon.export.writing import Plan, export
from antiphon.inference.bundle import Bundle, engines_of, load, save
from antiphon.inference.ctranslate2_model import MODEL, check_model
from antiphon.inference.on_ctranslate2 import has_avx512, open_files
from antiphon.inference.predictor import Predictor
from antiphon.inference.task import Task
from commands import Call, calling  # noqa: F401
from exports import INPUTS, answers, made, pairs
from runs import words

pytest.importorskip("ctranslate2")


def converted(bundle: Bundle, **how: Any) -> Bundle:
    """The same model with CTranslate2 to answer for it."""
    settings = replace(bundle.config.decoding, refill=True)
    return replace(bundle, config=replace(bundle.config, decoding=settings), engines=engines_of(convert(bundle, **how)))


VARIANTS = [
    {"positions": positions, "norm": norm, "norm_kind": kind, "activation": activation, "tie": tie}
    for positions, norm, kind, activation, tie in (
        ("sinusoidal", "pre", "layer", "relu", "target"),
        ("learned", "post", "layer", "gelu", "none"),
        ("none", "pre", "rms", "swiglu", "target"),
        ("rotary", "pre", "layer", "tanh", "none"),
        ("rotary", "post", "rms", "swiglu", "target"),
        ("t5", "pre", "rms", "gelu", "none"),
        ("t5", "post", "layer", "swiglu", "target"),
        ("sinusoidal", "post", "rms", "relu", "none"),
    )
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(variant.values()))
def test_every_variant_answers_as_in_pytorch(variant: dict[str, str]) -> None:
    settings = {f"model__{name}": value for name, value in variant.items()}
    bundle = made(**settings, model__encoder__layers=2, model__decoder__layers=2)
    exported = converted(bundle, quantize="none")
    for chosen in ({"beam": 1}, {"beam": 4, "n_best": 4}, {"beam": 3, "length_penalty": 0.0, "max_length": 3}):
        right = answers(bundle, **chosen, refill=True)
        found = answers(exported, **chosen)
        for ours, theirs in zip(right, found, strict=True):
            assert [each.tokens for each in ours] == [each.tokens for each in theirs]
            assert [each.finished for each in ours] == [each.finished for each in theirs]
            for one, other in zip(ours, theirs, strict=True):
                assert one.score == pytest.approx(other.score, abs=1e-4)
                assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
                assert one.weights.shape == other.weights.shape
                assert np.allclose(one.weights, other.weights, atol=1e-4)


def test_it_says_the_same_without_details_and_with_prefixes() -> None:
    bundle = made()
    exported = Predictor(converted(bundle, quantize="none"), processes=1)
    full, short = (list(exported.predict(INPUTS, details=details)) for details in (True, False))
    for [one], [other] in zip(full, short, strict=True):
        assert (one.text, other.probabilities, other.weights.size) == (other.text, [], 0)
        assert one.probability == pytest.approx(other.probability, rel=1e-4)
    settings, prefixes = Decoding(beam=1), ["ba"] * len(INPUTS)
    begun = [list(Predictor(each, processes=1).predict(INPUTS, settings=settings, prefixes=prefixes)) for each in
             (bundle, converted(bundle, quantize="none"))]  # fmt: skip
    assert {answer[0].text[:2] for answer in begun[1]} == {"ba"}
    for [one], [other] in zip(*begun, strict=True):
        assert (one.tokens, one.score) == (other.tokens, pytest.approx(other.score, abs=1e-4))


def test_the_batch_changes_nothing() -> None:
    exported = converted(made(), quantize="int8")
    together = answers(exported)
    for text, [best] in list(zip(INPUTS, together, strict=True))[:10]:
        [[alone]] = answers(exported, [text])
        assert (alone.tokens, alone.score) == (best.tokens, pytest.approx(best.score, abs=1e-4))


def test_without_a_length_penalty_as_many_end_as_the_beam_is_wide() -> None:
    """CTranslate2 by itself would then go on until the best of the beam has ended too, which is another search: this
    model was looked for to show it."""
    bundle = made(seed=38, data__target__tokenizer="char", sharp=2.0)
    with torch.no_grad():
        bundle.model.get_parameter("head.bias")[EOS] -= 1.0
    chosen = {"beam": 2, "n_best": 2, "length_penalty": 0.0, "max_length": 12}
    right, found = answers(bundle, **chosen, refill=True), answers(converted(bundle, quantize="none"), **chosen)
    assert [[each.tokens for each in mine] for mine in right] == [[one.tokens for one in mine] for mine in found]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kind": "gru"}, "model.encoder.kind=gru, model.decoder.kind=gru, model.attention=dot"),
        ({"model__positions": "alibi"}, "model.positions=alibi"),
        ({"model__activation": "leaky_relu"}, "model.activation=leaky_relu"),
        ({"model__residual": False}, "model.residual=false"),
        ({"model__norm": "none"}, "model.norm=none"),
        ({"model__feedforward": 0}, "model.feedforward=0"),
        ({"model__encoder__window": 2}, "model.encoder.window=2"),
        ({"model__attention": "additive"}, "model.attention=additive"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_does_not_have_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match="CTranslate2 has no such network") as error:
        convert(made(**settings))
    assert named in str(error.value)


def test_integers_are_near_and_smaller() -> None:
    bundle = made(model__width=64, model__feedforward=64, sharp=1.0)
    exact, small = converted(bundle, quantize="none"), converted(bundle, quantize="int8")
    assert len(small.engines["ctranslate2"][MODEL]) < 0.7 * len(exact.engines["ctranslate2"][MODEL])
    found = check(bundle, Predictor(small, processes=1), 1, pairs(), exact=False)
    assert [row.engine for row in found.rows] == ["PyTorch", "CTranslate2 int8"]
    assert 0 < found.rows[1].off[0] < 0.05
    before = {name: tensor.clone() for name, tensor in bundle.model.state_dict().items()}
    convert(bundle, quantize="int8")
    assert all((bundle.model.state_dict()[name] == tensor).all() for name, tensor in before.items())


def test_an_export_that_answers_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, other = made(), made(seed=2)
    monkeypatch.setattr("antiphon.export.ctranslate2.convert", lambda _, quantize: convert(other, quantize=quantize))
    for quantize in ("none", "int8"):
        with pytest.raises(ConfigError, match="does not answer as PyTorch does"):
            export(bundle, tmp_path / "out", pairs(), Plan(quantize=quantize))
    assert not (tmp_path / "out").exists()


def test_a_shortlist_holds_what_goes_with_each_token() -> None:
    bundle = made(data__target__tokenizer="char")
    text = shortlist(map(bundle.task.encode, pairs()), bundle.task.source.size, bundle.task.target.size)
    rows = dict(line.split("\t") for line in text.splitlines())
    source, target = bundle.task.source.vocabulary.index, bundle.task.words.vocabulary.index
    assert set(rows[""].split()) <= {str(number) for number in range(len(bundle.task.words.vocabulary))}
    assert "3" in rows[""].split()
    # words are answered by themselves reversed, so a letter goes with itself
    assert all(
        str(target[letter]) in rows[str(number)].split() for letter, number in source.items() if letter in "abcde"
    )
    files = {**converted(bundle).engines["ctranslate2"], "vmap.txt": text.encode()}
    engine = open_files(files, converted(bundle), 1)
    assert engine.name == "CTranslate2 int8 with a shortlist"


def test_an_export_that_answers_much_worse_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a shortlist of other pairs."""
    monkeypatch.setattr("antiphon.export.shortlist.EACH", 1)
    monkeypatch.setattr("antiphon.export.shortlist.ALWAYS", 0)
    model = made()
    right = [
        Pair(source, mine[0].text) for source, mine in zip(INPUTS, answers(model, INPUTS, refill=True), strict=True)
    ]
    wrong = [Pair(one.source, right[0].target[:1]) for one in right]
    with pytest.raises(ConfigError, match=r"answers worse than PyTorch does \(got .*% of the answers"):
        export(model, tmp_path / "fast", right, Plan("ctranslate2", "none", candidates=wrong))
    assert not (tmp_path / "fast").exists()


def test_likely_words_come_first_in_a_shortlist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.export.shortlist.EACH", 2)
    monkeypatch.setattr("antiphon.export.shortlist.ALWAYS", 0)
    letters = "abcdefgh"
    draw = random.Random(1)
    lines = [(text, text.upper()) for text in (" ".join(draw.choices(letters, k=4)) for _ in range(200))]
    bundle = made(data__source__tokenizer="whitespace", data__target__tokenizer="whitespace")
    task = Task.learn([Pair(*line) for line in lines], bundle.config)
    text = shortlist((task.encode(Pair(*line)) for line in lines), task.source.size, task.target.size)
    rows = dict(line.split("\t") for line in text.splitlines())
    for letter in letters:
        found = rows[str(task.source.vocabulary.index[letter])].split()
        assert str(task.words.vocabulary.index[letter.upper()]) in found


def test_damaged_models_are_refused_before_they_are_loaded() -> None:
    bundle = made()
    files = converted(bundle).engines["ctranslate2"]
    assert check_model(files, bundle.config, bundle.task) == "int8"
    content, draw, said = files[MODEL], random.Random(1), []
    for number in range(300):
        at = draw.randrange(content.index(b"decoder/layer_0") + 2000 if number % 2 else len(content))
        changed = bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :] if number % 5 else b""
        try:
            check_model({**files, MODEL: content[:at] + changed}, bundle.config, bundle.task)
        except BundleError as error:
            said.append(str(error))
    assert max(map(len, said)) < 500
    assert len(said) > 100  # the others changed a number of a weight, which the sha256 of a bundle shows
    for wrong in (
        made(model__width=32),
        made(model__heads=4),
        made(model__norm="post"),
        made(model__activation="gelu"),
    ):
        with pytest.raises(BundleError, match="does not fit the configuration"):
            check_model(files, wrong.config, bundle.task)
    with pytest.raises(BundleError, match="a file that no model"):
        check_model({**files, "run.txt": b""}, bundle.config, bundle.task)
    with pytest.raises(BundleError, match="is missing"):
        check_model({}, bundle.config, bundle.task)


def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    found = export(made(), tmp_path / "out", pairs(), Plan(quantize="none"))
    assert found.rows[1].same == 1.0
    path = tmp_path / "out" / "ctranslate2" / MODEL
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match="damaged"):
        load(tmp_path / "out")


def test_avx512_is_found_where_all_of_it_is_there(tmp_path: Path) -> None:
    about = tmp_path / "cpuinfo"
    about.write_text("flags\t: sse avx2 avx512f avx512bw avx512cd avx512dq avx512vl\n")
    assert has_avx512(about)
    about.write_text("flags\t: sse avx2 avx512f avx512cd\n")
    assert not has_avx512(about)
    assert not has_avx512(tmp_path / "nothing")


def test_words_are_answered_alike_on_either_side_of_the_zip(tmp_path: Path) -> None:
    bundle = made()
    export(bundle, tmp_path / "model.zip", pairs(), Plan(quantize="none"))
    texts = [word for word, _ in words(10, seed=8)]
    right = answers(bundle, texts, refill=True)
    assert [each[0].text for each in answers(load(tmp_path / "model.zip"), texts)] == [each[0].text for each in right]


def test_a_search_that_it_does_not_know_is_refused_and_can_be_changed(tmp_path: Path, call: Call) -> None:
    model = made(decoding__min_length=1)
    with pytest.raises(ConfigError, match=r"got decoding.min_length.*--to onnx"):
        export(model, tmp_path / "fast", pairs(), Plan("ctranslate2", "none", keep=True))
    assert not (tmp_path / "fast").exists()
    assert [plan.to for plan in exports(model)] == ["onnx"]
    save(tmp_path / "model", model=model.model, task=model.task, config=model.config, card={})
    (tmp_path / "v.tsv").write_text("".join(f"{pair.source}\t{pair.target}\n" for pair in pairs()))
    words_ = ("export", tmp_path / "model", tmp_path / "fast", "--data", tmp_path / "v.tsv", "min_length=0", "beam=2")
    assert call(*words_)[0] == 0
    decoding = load(tmp_path / "fast").config.decoding
    assert (decoding.min_length, decoding.beam) == (0, 2)
