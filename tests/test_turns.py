"""Dialogues: how turns become one source, what stays when it is too long, and what other parts see of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from antiphon.core.batch import EOS, PAD, UNK
from antiphon.core.config import Config, Data
from antiphon.core.errors import DataError
from antiphon.core.keys import override, read
from antiphon.data import augment, turns
from antiphon.data.corpus import Pair, group_references, open_pairs, split
from antiphon.data.modalities import TooLong
from antiphon.data.report import Report
from antiphon.data.turns import Turn
from antiphon.inference.task import Task
from antiphon.training.start import _augmented

TALK = {"turns": ["hi", "hello", "how are you", "fine"]}
NAMED = {"turns": [{"speaker": name, "text": text} for name, text in zip("abab", TALK["turns"], strict=True)]}
PAIRS = [Pair("hi <turn> hello <turn> how are you", "fine"), Pair("hello", "hi")]


def config(**data: Any) -> Config:
    sides = {"source": {"tokenizer": "word"}, "target": {"tokenizer": "word"}}
    head = data.pop("head", "vocabulary")
    return read({"task": "dialogue", "data": {**sides, **data}, "model": {"head": head, "attention": "additive"}})


def task(pairs: list[Pair] = PAIRS, **data: Any) -> Task:
    return Task.learn(pairs, config(**data))


# Turns and sources


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ([Turn("hi")], "hi"),
        ([Turn("hi"), Turn("how are you")], "hi <turn> how are you"),
        ([Turn("hi", "ann"), Turn("hello", "bob")], "<turn:ann> hi <turn:bob> hello <turn:ann>"),
    ],
)
def test_join_and_split_are_inverse(said: list[Turn], source: str) -> None:
    answerer = said[0].speaker
    assert turns.join(said, answerer) == source
    found = [(begin, words) for begin, words in turns.split(source) if words]
    assert [words for _, words in found] == [turn.text for turn in said]
    assert [begin for begin, _ in found][1:] == [turns.mark(turn.speaker) for turn in said][1:]


def test_survey_counts_turns_with_words_only() -> None:
    pairs = [Pair("<turn:b> x <turn:a> y <turn:b>", "z"), Pair("x", "y")]
    assert turns.survey(pairs) == (["<turn:a>", "<turn:b>"], 2)
    assert turns.survey([Pair("a < turn > b", "c")]) == ([], 0)


# What a file may hold


def test_each_turn_but_the_first_is_an_answer() -> None:
    pairs = list(open_pairs([TALK], Data()))
    assert [(pair.source, pair.target) for pair in pairs] == [
        ("hi", "hello"), ("hi <turn> hello", "how are you"), ("hi <turn> hello <turn> how are you", "fine"),
    ]  # fmt: skip
    named = list(open_pairs([NAMED], Data()))
    assert named[1].source == "<turn:a> hi <turn:b> hello <turn:a>"
    assert [pair.source.count("<turn") for pair in open_pairs([NAMED], Data(history=1))] == [2, 2, 2]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"turns": ["alone"]}, "fewer than two turns"),
        ({"turns": ["a", " "]}, "turn is empty"),
        ({"turns": ["a", "b <turn> c"]}, "holds what parts turns"),
        ({"turns": ["a", {"text": "b", "speaker": "x>y"}]}, "holds what parts turns"),
        ({"turns": ["a", {"text": "b", "speaker": "x"}]}, "speakers of some turns only"),
        ({"turns": ["a", 3.5j]}, "turn must be text"),
        ({"turns": ["a", {"said": "b"}]}, "turn is empty"),
    ],
)
def test_dialogues_that_are_none_are_refused(bad: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        list(open_pairs([TALK, bad], Data()))


def test_a_dialogue_is_held_out_whole_and_its_name_parts_no_references() -> None:
    talks = [{"turns": [f"{word} {n}" for word in ("one", "two", "three", "four")]} for n in range(40)]
    train, valid = split(open_pairs(talks, Data()), 0.25, seed=1)
    of = [{pair.context["dialogue"] for pair in part} for part in (train, valid)]
    assert len(of[0]) == 30
    assert len(of[1]) == 10
    assert not of[0] & of[1]
    twice = group_references(open_pairs([{"turns": ["hi", "yes"]}, {"turns": ["hi", "no"]}], Data()))
    assert [pair.references for pair in twice] == [("yes", "no")]


# Ids


@pytest.mark.parametrize("tokenizer", ["word", "whitespace", "char", "byte", "bpe", "unigram"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_mark_is_one_token_whatever_the_tokenizer(tokenizer: str, shared: bool) -> None:
    pairs = list(open_pairs([NAMED], Data()))
    side = {"tokenizer": tokenizer, "vocabulary": 300 if tokenizer == "byte" else 30}
    learned = task(pairs, shared=shared, source=side, target=side)
    source = learned.read(pairs[-1])
    assert [token[6:-1] for token in source.tokens if turns.is_mark(token)] == ["a", "b", "a", "b"]
    assert UNK not in source.ids
    assert learned.turns == 3
    plain = "".join(learned.source.vocabulary.tokens[4:]).replace("<turn:a>", "").replace("<turn:b>", "")
    assert tokenizer == "byte" or "turn" not in plain


def test_only_dialogues_have_marks() -> None:
    other = Task.learn(PAIRS, override(config(), {"task": "translation"}))
    assert other.turns == 0
    assert "<turn>" not in other.source.vocabulary.index
    single = task([Pair("hi", "hello")])
    assert single.turns == 0
    assert single.files()["task.json"] == replace(single, turns=0).files()["task.json"]
    assert b"turns" not in single.files()["task.json"]


def test_the_oldest_turns_go_first_and_are_counted() -> None:
    learned, report = task(source={"tokenizer": "word", "max_length": 7}), Report()
    source = learned.read("hi <turn> hello hello <turn> how are you", report=report)
    assert source.tokens == ["<turn>", "how", "are", "you"]
    assert report.counts == {"oldest turn left out for max_length=7": 2}
    assert learned.read("hi <turn> hi <turn> hello <turn> how").tokens == [
        "<turn>",
        "hi",
        "<turn>",
        "hello",
        "<turn>",
        "how",
    ]


def test_the_newest_turn_stays_with_who_is_to_answer() -> None:
    pairs = list(open_pairs([NAMED], Data()))
    learned, report = task(pairs, source={"tokenizer": "word", "max_length": 5}), Report()
    source = learned.read("<turn:a> hello <turn:b> how are you you <turn:a>", report=report)
    assert source.tokens == ["<turn:b>", "how", "are", "<turn:a>"]
    assert set(report.counts) == {"oldest turn left out for max_length=5", "source cut to max_length=5"}
    strict = replace(learned, source=replace(learned.source, too_long="error"))
    with pytest.raises(TooLong):
        strict.read("<turn:a> hi <turn:b> how are you")


def test_marks_are_not_copied() -> None:
    source = task(head="copy").read("hi <turn> zoe <turn> fine")
    assert [number == PAD for number in source.context["copy"]] == [False, True, False, True, False, False]
    assert source.context["copy"][-1] == EOS
    assert source.extra == ["zoe"]


def test_files_and_growth_keep_the_turns() -> None:
    learned = task()
    again = Task.load(learned.files(), config())
    assert again.turns == 3
    assert again.read(PAIRS[0]) == learned.read(PAIRS[0])
    grown = learned.extended([Pair("<turn:zoe> a <turn:max> b", "c")])
    assert grown.turns == 3
    assert {"<turn:zoe>", "<turn:max>"} <= set(grown.source.vocabulary.tokens[len(learned.source.vocabulary) :])


# Augmentation


def test_only_the_newest_turn_is_changed() -> None:
    pairs = [Pair("<turn:a> one two three <turn:b> four five six seven <turn:a>", "x")] * 20
    data = override(config(), {"data.augment.drop": 0.5, "data.augment.swap": 0.5, "data.augment.share": 1.0}).data
    learned = task(pairs)
    changed = augment.learn(turns.Spoken(pairs), data, learned.source.tokenizer, learned.target.tokenizer)
    assert changed is not None
    found = {turns.on_newest(changed)(pair, seed).source for seed, pair in enumerate(pairs)}
    assert len(found) > 5
    for source in found:
        said = turns.split(source)
        assert said[0] == ("<turn:a>", "one two three")
        assert [begin for begin, _ in said] == ["<turn:a>", "<turn:b>", "<turn:a>"]
        assert set(said[1][1].split()) <= {"four", "five", "six", "seven"}
    assert turns.on_newest(changed)(Pair("<turn>", "x"), 1).source == "<turn>"
    in_training = _augmented(replace(config(), data=data), learned, open_pairs(pairs, data)).augment
    assert in_training is not None
    assert {in_training(pair, seed).source for seed, pair in enumerate(pairs)} == found
    plain = {changed(pair, seed).source for seed, pair in enumerate(pairs)}
    assert any(len(turns.split(source)) != 3 for source in plain), "a mark is a word like any other to a plain change"
