"""Inputs to answers: order, memory, odd inputs, constraints in words, ensembles, and no trace of the batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from antiphon.core.config import Config, Decoding
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override, read
from antiphon.data.corpus import Pair
from antiphon.inference.bundle import Bundle
from antiphon.inference.constraints import Constraint
from antiphon.inference.jobs import Job, batched
from antiphon.inference.predictor import Answer, Predictor
from antiphon.inference.task import Source, Task
from antiphon.models.seq2seq import build

WORDS = ["ba", "du", "ki", "lo", "me", "ra", "so", "tu"]


def texts(count: int, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(1, 12))) for _ in range(count)]


def make(
    kind: str = "gru", decoder: str | None = None, *, seed: int = 1, head: str = "vocabulary", **data: object
) -> Bundle:
    """A model with fresh weights, sharpened so that it has opinions."""
    sides = {"source": {"tokenizer": "char"}, "target": {"tokenizer": "whitespace"}}
    model = {
        "encoder": {"kind": kind, "layers": 1}, "decoder": {"kind": decoder or kind, "layers": 2}, "width": 16,
        "feedforward": 32, "attention": "additive", "positions": "sinusoidal", "norm": "pre", "residual": True,
        "tie": "none", "dropout": 0.3, "head": head, "heads": 2, "activation": "relu",
    }  # fmt: skip
    config: Config = read({"data": {**sides, **data}, "model": model, "decoding": {"beam": 3}})
    pairs = [Pair(text, " ".join(reversed(text.split())), context={"to": "x"}) for text in texts(50, 9)]
    task = Task.learn(pairs, config)
    network = build(config.model, len(task.source.vocabulary), len(task.target.vocabulary), seed=seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.mul_(6 if name == "head.weight" else 2)
    return Bundle(network, task, config, {}, Path(f"model-{seed}"))


def said(answers: list[list[Answer]]) -> list[list[list[str]]]:
    return [[answer.tokens for answer in mine] for mine in answers]


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        ("rnn", "rnn"),
        ("lstm", "lstm"),
        ("gru", "gru"),
        ("conv", "conv"),
        ("transformer", "transformer"),
        ("gru", "ssru"),
    ],
)
@pytest.mark.parametrize("beam", [1, 5])
def test_the_batch_changes_nothing(encoder: str, decoder: str, beam: int) -> None:
    predictor, inputs, settings = (
        Predictor(make(encoder, decoder)),
        texts(24),
        Decoding(beam=beam, min_length=4, no_repeat=2),
    )
    expected = said(list(predictor.predict(inputs, settings=settings, batch_size=1)))
    assert len({tuple(mine[0]) for mine in expected}) > 1
    assert said(list(predictor.predict(inputs, settings=settings, batch_size=7, window=14))) == expected
    order = np.random.default_rng(1).permutation(24)
    shuffled = said(list(predictor.predict([inputs[n] for n in order], settings=settings, batch_size=64)))
    assert shuffled == [expected[n] for n in order]


def test_streaming_is_lazy_and_in_order() -> None:
    predictor, taken = Predictor(make()), []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            taken.append(number)
            yield " ".join(WORDS[: number % 5 + 1])

    found = predictor.predict(endless(), batch_size=4, window=10, settings=Decoding(beam=1, max_length=4))
    first = [next(found)[0] for _ in range(25)]
    assert len(taken) <= 30
    expected = predictor.predict([" ".join(WORDS[: n % 5 + 1]) for n in range(25)],
                                 settings=Decoding(beam=1, max_length=4))  # fmt: skip
    assert [answer.tokens for answer in first] == [mine[0].tokens for mine in expected]


def test_empty_inputs_have_the_empty_answer_and_are_counted() -> None:
    predictor = Predictor(make())
    found = list(predictor.predict(["ba du", "", " \t ", "\u3000", "ki"]))
    assert [mine[0].reason == "empty input" for mine in found] == [False, True, True, True, False]
    assert [mine[0].text for mine in found[1:4]] == ["", "", ""]
    assert next(n for reason, n in predictor.report.counts.items() if "empty" in reason) == 3
    assert list(predictor.predict([])) == []
    assert predictor.report.counts == {}


def test_long_inputs_are_cut_skipped_or_refused_never_in_silence() -> None:
    side = {"tokenizer": "char", "max_length": 6}
    cut = Predictor(make(source=side))
    [[answer]] = cut.predict(["ba du ki lo"])
    assert "max_length=6" in answer.reason
    assert len(answer.source_tokens) == 5
    assert any("cut to max_length" in line for line in cut.report.lines())
    skip = Predictor(make(source=side, too_long="skip"))
    found = list(skip.predict(["ba", "ba du ki lo"]))
    assert found[1][0].text == ""
    assert "longer than" in found[1][0].reason
    assert any("not answered" in line for line in skip.report.lines())
    with pytest.raises(DataError, match="longer than"):
        list(Predictor(make(source=side, too_long="error")).predict(["ba du ki lo"]))


def test_answers_without_an_end_are_said() -> None:
    predictor = Predictor(make())
    with torch.no_grad():
        predictor.models[0].head.bias[3] = -100
    [[answer]] = predictor.predict(["ba du"])
    assert not answer.finished
    assert "no end mark" in answer.reason
    assert any("without an end" in line for line in predictor.report.lines())


def test_sources_longer_than_any_in_training_are_answered_and_counted() -> None:
    made = make()
    length = replace(made.task.length, longest=4)
    predictor = Predictor(replace(made, task=replace(made.task, length=length)))
    short, long = list("duk"), list("dukiramelo")
    [[one], [other]] = predictor.predict(["".join(short), "".join(long)], settings=Decoding(beam=1, max_length=3))
    one, other = (replace(each, reason=each.reason.split("; ")[0]) for each in (one, other))
    assert "training" not in one.reason
    assert other.reason == "longer than any source in training"
    assert predictor.report.counts["longer than any source in training"] == 1
    assert other.source_tokens == long
    again = Task.load(predictor.task.files(), made.config)
    assert again.length.longest == 4


def test_a_batch_is_small_where_sources_and_answers_are_long() -> None:
    task = make().task
    source = Source(["a"] * 3999, [5] * 4000, None, [])
    jobs = [Job(number, source, Constraint()) for number in range(10)]
    assert [len(batch) for batch in batched(jobs, 128, lambda length: 60)] == [4, 4, 2]
    assert [len(batch) for batch in batched(jobs, 128, lambda length: 2 * length)] == [1] * 10
    assert len(list(batched([replace(job, source=task.read("x")) for job in jobs], 128, task.limit))) == 1


def test_answer_fields_fit_together() -> None:
    for mine in Predictor(make()).predict(texts(10), settings=Decoding(beam=4, n_best=4)):
        assert len(mine) == 4
        for answer in mine:
            assert answer.text.split() == answer.tokens
            assert len(answer.probabilities) == len(answer.alignment) == len(answer.tokens)
            assert answer.weights.shape == (len(answer.tokens), len(answer.source_tokens) + 1)
            np.testing.assert_allclose(answer.weights.sum(1), 1, atol=1e-5)
            assert all(0 < value <= 1 for value in (*answer.probabilities, answer.probability))


def test_prefixes_required_and_banned_in_words() -> None:
    predictor, inputs = Predictor(make()), texts(12)
    free = [mine[0].tokens for mine in predictor.predict(inputs)]
    found = [mine[0].tokens for mine in predictor.predict(
        inputs, prefixes=["so"] * 6 + [""] * 6, required=[["tu me", "ki"]] * 12, banned=["ba", "lo lo"])]  # fmt: skip
    assert found != free
    for number, tokens in enumerate(found):
        text = " ".join(tokens)
        assert number >= 6 or tokens[0] == "so"
        assert "tu me" in text
        assert "ki" in tokens
        assert "ba" not in tokens
        assert "lo lo" not in text
    with pytest.raises(ConfigError, match="cannot write this"):
        list(predictor.predict(["ba"], required=[["unheard"]]))
    with pytest.raises(DataError, match="fewer prefixes"):
        list(predictor.predict(["ba", "du"], prefixes=["so"]))


def test_a_banned_word_is_banned_however_it_is_spelled() -> None:
    """Subwords: the ban holds for the text, not for one way of cutting it."""
    bundle = make(target={"tokenizer": "bpe", "vocabulary": 30})
    predictor, inputs = Predictor(bundle), texts(30)
    free = [mine[0].text for mine in predictor.predict(inputs)]
    words = {word for text in free for word in text.split()}
    assert words
    word = max(words, key=lambda word: sum(word in text.split() for text in free))
    found = [mine[0].text for mine in predictor.predict(inputs, banned=[word])]
    assert any(word in text.split() for text in free)
    assert not any(word in text.split() for text in found)


def test_words_are_lists() -> None:
    predictor = Predictor(make(seed=1))
    for given in ({"required": ["ab"]}, {"banned": "ab"}):
        with pytest.raises(ConfigError, match=r"words are a list .*got 'ab'"):
            list(predictor.predict(["abc"], **given))


def test_ensembles() -> None:
    inputs = texts(10)
    first, second = make(seed=1), make(seed=2)
    alone = said(list(Predictor(first).predict(inputs)))
    assert said(list(Predictor([first, first]).predict(inputs))) == alone
    assert said(list(Predictor([first, second]).predict(inputs))) != alone
    other = make(target={"tokenizer": "char"})
    with pytest.raises(ConfigError, match="same vocabularies"):
        Predictor([first, other])
    loud = replace(second, config=override(second.config, {"data.source.lowercase": True}))
    with pytest.raises(ConfigError, match=r"need to read alike .*data.source.lowercase=False and True"):
        Predictor([first, loud])
    coarse = replace(second, config=override(second.config, {"model.frontend.reduce": 2}))
    with pytest.raises(ConfigError, match=r"need to read alike .*model.frontend.reduce=None and 2"):
        Predictor([first, coarse])
    with pytest.raises(ConfigError, match="no model"):
        Predictor([])


def test_the_fewest_tokens_are_more_than_answers_of_training_had() -> None:
    for [answer] in Predictor(make(seed=1)).predict(texts(5), settings=Decoding(min_length=60)):
        assert len(answer.tokens) >= 60


def test_context_and_copying() -> None:
    predictor = Predictor(make(head="copy", context=["to"], target={"tokenizer": "whitespace", "min_count": 1000}))
    inputs = [Pair(text, "", context={"to": "x"}) for text in ["qq ww", "ba", "zz"]]
    with torch.no_grad():
        gate = predictor.models[0].head.gate  # type: ignore[union-attr]
        gate.weight.zero_()
        gate.bias.fill_(-30)  # type: ignore[union-attr]
    for item, mine in zip(inputs, predictor.predict(inputs, settings=Decoding(beam=2, n_best=2)), strict=True):
        for answer in mine:
            assert set(answer.text.replace(" ", "")) <= set(item.source)
    with pytest.raises(DataError, match="context column"):
        list(predictor.predict(["ba"]))


def test_samples_do_not_depend_on_the_batch() -> None:
    predictor, inputs = Predictor(make()), texts(20)
    settings = Decoding(sample=True, n_best=3, top_p=0.9, seed=7)
    expected = said(list(predictor.predict(inputs, settings=settings, batch_size=1)))
    assert said(list(predictor.predict(inputs, settings=settings, batch_size=20))) == expected
    assert said(list(predictor.predict(inputs, settings=replace(settings, seed=8)))) != expected
