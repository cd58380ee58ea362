"""Words that the model has never seen get from the raw source into the raw answer, as they were written."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from antiphon import Seq2Seq
from antiphon.__main__ import main
from antiphon.core.config import Config, Decoding
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override
from antiphon.data.corpus import Pair, open_pairs
from antiphon.inference import bundle
from antiphon.inference.evaluate import evaluate
from antiphon.inference.predictor import Predictor
from antiphon.inference.task import Task
from antiphon.models.copying import mixture_cross_entropy, mixture_cross_entropy_plainly
from antiphon.models.seq2seq import build
from antiphon.training.recipes import propose
from antiphon.training.start import fit
from antiphon.training.statistics import Statistics
from runs import SMALL, configured, light

DECODERS = ("rnn", "lstm", "gru", "conv", "transformer", "ssru")


def inputs(rows: int, dtype: torch.dtype, size: int = 11) -> tuple[list[Tensor], Tensor]:
    """Hidden states, weights, bias, gates and copied chances, and labels of which some can only be copied."""
    torch.manual_seed(1)
    parts = [torch.randn(shape, dtype=dtype) for shape in ((rows, 6), (size, 6), (size,))]
    parts += [torch.rand(rows, dtype=dtype), torch.rand(rows, dtype=dtype)]
    labels = torch.randint(0, size + 3, (rows,))
    return [part.requires_grad_() for part in parts], labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, 70, 200])
def test_the_chunked_loss_is_the_plain_one(rows: int, smoothing: float) -> None:
    results = []
    for loss in (mixture_cross_entropy, mixture_cross_entropy_plainly):
        parts, labels = inputs(rows, torch.float32)
        total = loss(*parts, labels, smoothing=smoothing)
        results.append([total.detach(), *torch.autograd.grad(3 * total, parts)])
    for chunked, plain in zip(*results, strict=True):
        torch.testing.assert_close(chunked, plain, atol=1e-5 * max(1.0, float(plain.abs().max())), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_of_the_loss_is_right(smoothing: float) -> None:
    parts, labels = inputs(5, torch.float64)
    assert torch.autograd.gradcheck(lambda *each: mixture_cross_entropy(*each, labels, smoothing=smoothing), parts)


def test_what_is_impossible_costs_much_and_pulls_nothing() -> None:
    parts, _ = inputs(2, torch.float32)
    with torch.no_grad():
        parts[4].zero_()
    total = mixture_cross_entropy(*parts, torch.tensor([12, 12]))
    assert 90 < total.item() < 100
    assert all(gradient.eq(0).all() for gradient in torch.autograd.grad(total, parts))


def test_a_loss_of_bf16_is_near() -> None:
    parts, labels = inputs(70, torch.float32)
    low = [part.detach().bfloat16() if place < 3 else part.detach() for place, part in enumerate(parts)]
    exact = mixture_cross_entropy(*[part.float() for part in low], labels, smoothing=0.1)
    assert mixture_cross_entropy(*low, labels, smoothing=0.1) == pytest.approx(float(exact), rel=0.01)


KNOWN = [("the cat sat", "the cat sat"), ("a dog ran away", "a dog ran away"), ("the dog sat", "a cat ran")] * 8
STRANGE = {"word": "Zorb, quux-Flim", "whitespace": "Zorb, quux-Flim", "char": "ŻQ ЖQ"}
STRANGE |= dict.fromkeys(("bpe", "unigram"), "你好 Жжж")


@pytest.mark.parametrize("tokenizer", STRANGE)
@pytest.mark.parametrize("decoder", DECODERS)
def test_all_that_is_copied_is_written_as_it_was(decoder: str, tokenizer: str) -> None:
    """A model that does nothing but copy: by its gate, and on a source of which it knows nothing."""
    sides = {f"data__{side}__tokenizer": tokenizer for side in ("source", "target")}
    sizes = {f"data__{side}__vocabulary": 60 for side in ("source", "target")}
    config = configured(decoder, model__head="copy", **sides, **sizes)
    task = Task.learn(open_pairs(KNOWN, config.data), config)
    network = build(config.model, len(task.source.vocabulary), len(task.target.vocabulary), seed=3).eval()
    with torch.no_grad():
        network.head.get_parameter("gate.bias").fill_(-30.0)
    predictor = Predictor(bundle.Bundle(network, task, config, {}, Path()), processes=1)
    source = STRANGE[tokenizer]
    pieces = task.read(source).tokens
    for settings in (Decoding(beam=1, min_length=3, max_length=6), Decoding(beam=4, min_length=3, max_length=6)):
        [[answer]] = predictor.predict([source], settings=settings)
        assert set(answer.tokens) <= set(pieces)
        assert len(answer.tokens) >= 3
        assert answer.text == task.target.tokenizer.decode(answer.tokens)
        assert set(answer.text.replace(" ", "")) <= set(source)
    assert task.answer(task.encode(Pair(source, source)).target, task.read(source).extra) == source


@pytest.mark.parametrize(("source_lower", "target_lower", "written"), [
    (False, False, "Ünter McZorb, (OK)"), (True, False, "Ünter McZorb, (OK)"), (False, True, "ünter mczorb, (ok)"),
    (True, True, "ünter mczorb, (ok)"),
])  # fmt: skip
@pytest.mark.parametrize("tokenizer", ["word", "char", "bpe"])
def test_capitals_are_copied_unless_answers_have_none(
    tokenizer: str, source_lower: bool, target_lower: bool, written: str
) -> None:
    sides = {f"data__{side}__tokenizer": tokenizer for side in ("source", "target")}
    config = configured(model__head="copy", data__source__lowercase=source_lower, data__target__lowercase=target_lower,
                        **sides)  # fmt: skip
    task = Task.learn(open_pairs(KNOWN, config.data), config)
    source = task.read("Ünter McZorb, (OK)")
    assert task.answer(source.context["copy"], source.extra) == written


def test_letters_whose_small_form_is_longer_do_no_harm() -> None:
    config = configured(model__head="copy", data__source__lowercase=True)
    task = Task.learn(open_pairs(KNOWN, config.data), config)
    source = task.read("İstanbul ΑΣ Q")
    assert task.answer(source.context["copy"], source.extra) == "İstanbul ΑΣ Q"


@pytest.mark.parametrize(("source", "target", "good"), [
    ("word", "char", False), ("bpe", "word", False), ("char", "bpe", False), ("char", "whitespace", True),
    ("whitespace", "word", True), ("unigram", "bpe", True),
])  # fmt: skip
def test_sides_whose_tokens_join_differently_cannot_copy(source: str, target: str, good: bool) -> None:
    config = configured(model__head="copy", data__source__tokenizer=source, data__target__tokenizer=target)
    if good:
        assert Task.learn(open_pairs(KNOWN, config.data), config).copy
        return
    with pytest.raises(ConfigError, match=rf"same kind of tokens on both sides.*got {source} and {target}"):
        Task.learn(open_pairs(KNOWN, config.data), config)


def test_the_recipe_leaves_spelling_alone() -> None:
    pairs = [Pair(word, " ".join(word.upper())) for word in ("abba", "abide", "beacon", "cadet", "bead") * 40]
    config, _ = propose(override(Config(), {"model.head": "copy"}), Statistics.of(pairs))
    assert (config.data.source.tokenizer, config.data.target.tokenizer) == ("char", "whitespace")


@pytest.mark.parametrize("mine", [{}, {"data.target.tokenizer": "word"}])
def test_the_recipe_cuts_both_sides_alike(mine: dict[str, str]) -> None:
    pairs = [Pair(f"word{n} of line {n}", chr(0x4E00 + n) + "是好") for n in range(500)]
    config, _ = propose(override(Config(task="translation"), {"model.head": "copy", **mine}), Statistics.of(pairs))
    assert config.data.source.tokenizer == config.data.target.tokenizer
    assert config.data.shared == (config.data.source.tokenizer == "bpe")


def greetings(count: int, seed: int) -> list[tuple[str, str]]:
    """Names made of syllables, in a sentence that asks to greet them."""
    draw = random.Random(seed)
    syllables = ("Ba", "ko", "Lu", "mi", "Ra", "tu", "Zi", "fe")
    names = ["".join(draw.choices(syllables, k=3)) for _ in range(count)]
    return [(f"Please, say hello to {name} today", f"Hello, {name}!") for name in names]


@pytest.fixture(scope="module", name="run")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that learned to greet people of any name."""
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        folder = tmp_path_factory.mktemp("run") / "run"
        settings: dict[str, Any] = {
            **SMALL, "model.encoder.kind": "gru", "model.decoder.kind": "gru", "model.attention": "dot",
            "model.head": "copy", "data.source.tokenizer": "word", "data.target.tokenizer": "word", "model.width": 32,
            "data.source.min_count": 20, "data.target.min_count": 20, "data.batch_tokens": 400, "training.steps": 150,
            "training.validate_every": 150, "training.coverage": 0.5, "data.source.lowercase": True,
        }  # fmt: skip
        fit(greetings(400, 1), valid=greetings(20, 2), out=folder, assignments=settings)
        yield folder


def test_unseen_names_are_greeted_by_every_door(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [("Please, say hello to Quuxford today", "Hello, Quuxford!"),
             ("Please, say hello to McGyver today", "Hello, McGyver!")]  # fmt: skip
    sources, targets = (list(side) for side in zip(*pairs, strict=True))
    model = Seq2Seq.load(run)
    assert not {"Quuxford", "McGyver"} & set(model.predictor.task.target.vocabulary.tokens)
    assert model.predict(sources) == targets
    model.save(tmp_path / "model.zip")
    assert Seq2Seq.load(tmp_path / "model.zip").predict(sources) == targets
    assert [mine[0].text for mine in model.predictor.predict(sources, settings=Decoding(beam=4))] == targets
    found = evaluate(model.predictor, [Pair(*pair) for pair in pairs], ["exact"], bootstrap=0)
    assert found.scores["exact"].value == 100.0
    assert found.scores["loss"].value < 0.7
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(sources) + "\n"))
    with pytest.raises(SystemExit):
        main(["predict", str(run)])
    assert capsys.readouterr().out.splitlines() == targets
