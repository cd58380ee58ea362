"""Recipes fill every open setting, keep what is set, give reasons, and suit the data they see."""

from __future__ import annotations

import dataclasses
import math

import pytest

from antiphon.core.config import Config
from antiphon.core.errors import ConfigError
from antiphon.core.keys import get, leaves, override
from antiphon.data.corpus import Pair
from antiphon.data.facts import Finder
from antiphon.data.signals import Overview
from antiphon.inference.task import Task
from antiphon.inference.tasks import PRESETS
from antiphon.models.seq2seq import build
from antiphon.training.recipes import Plan, propose
from antiphon.training.statistics import SideStatistics, Statistics

OPEN_BY_CHOICE = {
    "model.dropout_embedding", "training.epochs", "training.steps", "training.minutes",
    "training.processes", "training.threads", "decoding.max_length", "data.source.vocabulary",
    "data.target.vocabulary", "model.encoder.window", "data.source.kind", "data.target.kind", "data.target.spaces",
}  # fmt: skip
OF_SIGNALS = {
    "data.frames.rate", "data.frames.mels", "data.frames.normalize", "data.augment.speed", "model.frontend.kind",
    "data.frames.per_second", "data.frames.size", "model.frontend.reduce", "model.frontend.time_masks",
    "model.frontend.feature_masks", "model.ctc", "training.ctc", "decoding.ctc", "model.ends",
}  # fmt: skip
PHONES = [Pair(word, " ".join(word.upper())) for word in ("abba", "abide", "beacon", "cadet", "bead") * 400]
TEXT = [Pair(f"word{n} of line {n} and thing{n}", f"Wort{n} in Zeile {n} und Ding{n}") for n in range(3000)]
CHINESE = [Pair(f"word{n} of line {n}", chr(0x4E00 + n) + "是好" + chr(0x5E00 + n)) for n in range(3000)]


@pytest.mark.parametrize("task", PRESETS)
@pytest.mark.parametrize("pairs", [PHONES, TEXT, CHINESE], ids=["phones", "text", "chinese"])
def test_nothing_is_left_open_and_the_model_builds(task: str, pairs: list[Pair]) -> None:
    config, choices = propose(Config(task=task), Statistics.of(pairs))
    assert {key for key in leaves() if get(config, key) is None} <= OPEN_BY_CHOICE | OF_SIGNALS
    assert all(choice.reason for choice in choices)
    assert {choice.key: get(config, choice.key) for choice in choices} == {c.key: c.value for c in choices}
    build(config.model, 50, 50)


@pytest.mark.parametrize(("given", "key", "value"), [
    ({"model.heads": 3}, "model.width", 129),
    ({"decoding.groups": 3}, "decoding.beam", 6),
    ({"task": "classification", "decoding.groups": 2}, "decoding.beam", 2),
    ({"model.encoder.window": 4}, "model.encoder.kind", "transformer"),
    ({"model.encoder.global_tokens": 2}, "model.encoder.window", 128),
    ({"model.ctc": True}, "training.ctc", 0.3),
])  # fmt: skip
def test_what_is_proposed_goes_with_what_is_set(given: dict[str, object], key: str, value: object) -> None:
    config, choices = propose(override(Config(), given), Statistics.of(PHONES))
    assert get(config, key) == value
    assert key in [choice.key for choice in choices]


def test_one_text_that_is_far_too_long_changes_nothing() -> None:
    """It will be cut, whatever its length."""
    usual, _ = propose(Config(), Statistics.of(TEXT))
    longest, _ = propose(Config(), Statistics.of([*TEXT, Pair("word " * 400_000, "Wort " * 400_000)]))
    for key in ("model.encoder.kind", "model.width", "training.epochs", "data.source.max_length"):
        assert get(longest, key) == get(usual, key), key
    symbols = [Pair(" ".join("abcdefgh" * 10), "x")] * 300 + [Pair(" ".join("ab" * 15_000), "y")]
    read = propose(Config(task="classification"), Statistics.of(symbols))[0].data.source
    assert (read.tokenizer, read.max_length) == ("whitespace", 800)
    tail = [Pair("a b", "b a")] * 960 + [Pair(" ".join("ab" * 75), "x")] * 40
    assert propose(Config(task="classification"), Statistics.of(tail))[0].data.source.max_length == 300


@pytest.mark.parametrize(("given", "every"), [
    ({"training.steps": 400}, 10), ({"training.epochs": 120}, 3), ({"training.steps": 3}, 1),
])  # fmt: skip
def test_few_pairs_are_not_validated_after_each_step(given: dict[str, int], every: int) -> None:
    few = propose(override(Config(), given), Statistics.of(PHONES[:40]))[0]
    assert few.training.validate_every == every
    assert few.training.warmup == max(1, (given.get("training.steps") or 120) // 20)


def test_minutes_are_epochs_by_what_a_token_costs() -> None:
    one, ten = (
        propose(override(Config(), {"training.minutes": n}), Statistics.of(PHONES))[0].training for n in (1, 10)
    )
    assert (one.warmup or 0) * 5 < (ten.warmup or 0) <= 1000
    assert (one.validate_every or 0) > 1


def test_the_name_of_a_class_is_one_token_where_it_is_a_label() -> None:
    pairs = Statistics.of([Pair("good", "yes"), Pair("bad", "no")])
    spelled = override(Config(task="classification"), {"data.target.tokenizer": "char"})
    assert propose(spelled, pairs)[0].decoding.max_length is None
    assert propose(Config(task="classification"), pairs)[0].decoding.max_length == 1


def test_a_shared_vocabulary_has_the_size_that_is_given() -> None:
    given = {"data.shared": True, "data.source.vocabulary": 100, "data.source.tokenizer": "bpe",
             "data.target.tokenizer": "bpe"}  # fmt: skip
    assert propose(override(Config(), given), Statistics.of(TEXT))[0].data.target.vocabulary == 100


def test_what_is_set_stays_and_is_not_claimed() -> None:
    mine = {"model.width": 64, "model.decoder.kind": "ssru", "training.rate": 0.01, "data.source.tokenizer": "byte"}
    config, choices = propose(override(Config(), mine), Statistics.of(PHONES))
    assert {key: get(config, key) for key in mine} == mine
    assert not set(mine) & {choice.key for choice in choices}


def test_a_budget_that_is_set_is_the_only_one() -> None:
    for budget in ("training.steps", "training.minutes"):
        config, _ = propose(override(Config(), {budget: 7}), Statistics.of(PHONES))
        assert config.training.epochs is None


def test_words_are_spelled_and_closed_sets_are_whole() -> None:
    config, _ = propose(Config(), Statistics.of(PHONES))
    assert (config.data.source.tokenizer, config.data.target.tokenizer) == ("char", "whitespace")
    assert config.data.shared is False
    assert config.training.metric == "error"


def test_text_in_one_script_shares_subwords() -> None:
    config, _ = propose(Config(task="translation"), Statistics.of(TEXT))
    assert (config.data.source.tokenizer, config.data.target.tokenizer) == ("bpe", "bpe")
    assert (config.data.shared, config.model.tie, config.training.metric) == (True, "all", "chrf")


def test_short_texts_get_an_lstm_until_there_are_many_and_long_ones_a_transformer() -> None:
    few = Statistics.of(TEXT)
    many = dataclasses.replace(few, pairs=500_000)
    longer = Statistics.of([Pair(pair.source * 9, pair.target * 9) for pair in TEXT])
    for statistics, family in ((few, "lstm"), (many, "transformer"), (longer, "transformer")):
        model = propose(Config(task="translation"), statistics)[0].model
        assert (model.encoder.kind, model.decoder.kind) == (family, family)


def test_self_attention_is_warmed_up_for_longer() -> None:
    kinds = {"model.encoder.kind": "transformer", "training.steps": 4000}
    warm = [propose(override(Config(task="translation"), more), Statistics.of(TEXT))[0].training.warmup
            for more in ({"training.steps": 4000}, kinds, kinds | {"training.steps": 1000},
                         kinds | {"training.steps": 16_000})]  # fmt: skip
    assert warm == [200, 500, 200, 800]


def test_where_characters_are_many_and_texts_few_each_is_a_token() -> None:
    config, _ = propose(Config(task="translation"), Statistics.of(CHINESE))
    assert (config.data.source.tokenizer, config.data.target.tokenizer) == ("bpe", "char")
    assert (config.data.target.max_length, config.training.metric) == (400, "chrf")
    many = dataclasses.replace(Statistics.of(CHINESE), pairs=1_000_000)
    assert propose(Config(task="translation"), many)[0].data.target.tokenizer == "bpe"


def test_text_in_two_scripts_does_not() -> None:
    config, _ = propose(Config(task="translation"), Statistics.of(CHINESE))
    assert (config.data.shared, config.model.tie) == (False, "target")
    assert Statistics.of(CHINESE).target.chinese == 1.0


def test_one_side_with_words_of_the_other_is_still_another_script() -> None:
    mixed = [Pair(pair.target + " word of thing", pair.source) for pair in CHINESE]
    assert propose(Config(task="translation"), Statistics.of(mixed))[0].data.shared is False


def test_a_shared_vocabulary_has_one_size() -> None:
    lopsided = [Pair(pair.source * 9, pair.target) for pair in TEXT]
    config, _ = propose(Config(task="translation"), Statistics.of(lopsided))
    assert config.data.shared
    assert config.data.source.vocabulary == config.data.target.vocabulary


@pytest.mark.parametrize("mine", [{"data.source.lowercase": True}, {"data.source.vocabulary": 500}])
def test_sides_that_are_set_apart_are_not_shared(mine: dict[str, object]) -> None:
    config, _ = propose(override(Config(task="translation"), mine), Statistics.of(TEXT))
    assert config.data.shared is False


def test_accumulated_batches_make_fewer_steps_between_validations() -> None:
    plain, _ = propose(Config(), Statistics.of(PHONES))
    eight, _ = propose(override(Config(), {"training.accumulate": 8}), Statistics.of(PHONES))
    assert (eight.training.validate_every or 0) < (plain.training.validate_every or 0)


def test_large_data_is_told_in_hours_and_still_validated() -> None:
    statistics = dataclasses.replace(Statistics.of(TEXT), pairs=5_000_000)
    config, choices = propose(Config(task="translation"), statistics)
    assert config.training.epochs == 1
    assert "hours" in next(choice.reason for choice in choices if choice.key == "training.epochs")
    assert (config.training.validate_every or 0) <= 2000


def test_less_data_gets_smaller_batches_and_more_dropout() -> None:
    small, _ = propose(Config(), Statistics.of(PHONES))
    large, _ = propose(Config(), Statistics.of(PHONES * 100))
    assert (small.data.batch_tokens or 0) < (large.data.batch_tokens or 0)
    assert (small.model.dropout or 0) > (large.model.dropout or 0)


def test_statistics_count_what_they_say() -> None:
    side = SideStatistics.of(["a b", "a b", "b c d", "你好"])
    assert (side.words, side.longest_words, side.word_kinds) == (2.0, 3, 5)
    assert side.new_words == 1.0
    assert side.chinese == pytest.approx(2 / 13)


CALLS = [Pair(f"call f{n} with {3 * n} and go", f"f{n} ( {3 * n} )") for n in range(6000)]


def test_tasks_that_copy_copy_whole_words_and_learn_it_from_made_up_names() -> None:
    for task in ("code", "summarization", "data-to-text"):
        config, choices = propose(Config(task=task), Statistics.of(CALLS * 3))
        data = config.data
        assert (data.source.tokenizer, data.target.tokenizer, config.model.head) == ("word", "word", "copy")
        assert (data.source.min_count, data.target.min_count, data.augment.names) == (3, 3, 0.3)
        assert "learned" in next(choice.reason for choice in choices if choice.key == "data.augment.names")


def test_few_pairs_keep_their_rare_words() -> None:
    config, _ = propose(Config(task="code"), Statistics.of(CALLS[:500]))
    assert (config.data.source.min_count, config.data.augment.names) == (1, 0.3)


@pytest.mark.parametrize(("task", "mine"), [("translation", {}), ("code", {"model.head": "vocabulary"})])
def test_what_copies_nothing_gets_no_made_up_names(task: str, mine: dict[str, object]) -> None:
    config, _ = propose(override(Config(task=task), mine), Statistics.of(CALLS * 3))
    assert config.data.augment.names == 0.0
    assert config.data.source.min_count == 1
    assert "word" not in (config.data.source.tokenizer, config.data.target.tokenizer)


def test_copying_in_a_script_without_spaces_takes_subwords_or_characters() -> None:
    known = Statistics.of([Pair(pair.target * 5, pair.target) for pair in CHINESE])
    for pairs, kind in ((3000, "char"), (1_000_000, "bpe")):
        config, _ = propose(Config(task="summarization"), dataclasses.replace(known, pairs=pairs))
        assert (config.data.source.tokenizer, config.data.target.tokenizer) == (kind, kind)


ARTICLES = [Pair(" ".join(f"word{(n * k) % 4999}" for k in range(600 + n % 900)), f"line {n}") for n in range(200)]


def test_long_sources_are_read_whole_by_a_window() -> None:
    config, choices = propose(Config(task="summarization"), Statistics.of(ARTICLES))
    assert (config.model.encoder.kind, config.model.encoder.window) == ("transformer", 128)
    assert (config.model.positions, config.data.source.max_length) == ("alibi", 8192)
    assert 4 * 700 <= (config.data.batch_tokens or 0) <= 4 * 2 * 700
    assert "grow with their length" in next(each.reason for each in choices if each.key == "model.encoder.window")
    build(config.model, 50, 50)


@pytest.mark.parametrize("mine", [{"model.encoder.window": 0}, {"model.positions": "learned"}])
def test_what_cannot_read_long_sources_gets_them_cut(mine: dict[str, object]) -> None:
    config, _ = propose(override(Config(task="summarization"), mine), Statistics.of(ARTICLES))
    assert config.data.source.max_length == 512
    assert not config.model.encoder.window


def test_a_few_long_sources_among_short_ones_change_nothing() -> None:
    config, _ = propose(Config(task="summarization"), Statistics.of([*TEXT, ARTICLES[0]]))
    assert (config.model.encoder.window, config.data.source.max_length) == (None, 512)


def test_recurrent_encoders_of_long_sources_need_no_window() -> None:
    mine = {"model.encoder.kind": "gru", "model.decoder.kind": "gru"}
    config, _ = propose(override(Config(task="summarization"), mine), Statistics.of(ARTICLES))
    assert (config.model.encoder.window, config.data.source.max_length) == (None, 8192)


def test_a_conformer_is_planned_like_a_transformer() -> None:
    kinds = {"model.decoder.kind": "lstm"}
    known, plain = Statistics.of(ARTICLES), Config(task="summarization")
    plans = [
        Plan(override(plain, {**kinds, "model.encoder.kind": kind}), known) for kind in ("conformer", "transformer")
    ]
    for plan in plans:
        for step in (plan.task, plan.tokenizers, plan.network, plan.regularization, plan.batches, plan.schedule):
            step()
    ours, theirs = (plan.config for plan in plans)
    assert ours.model.encoder.window == 128
    assert ours.training.rate == theirs.training.rate
    assert dataclasses.replace(ours.model, encoder=theirs.model.encoder) == theirs.model
    assert plans[0].seconds_per_token() > 1.1 * plans[1].seconds_per_token()


def test_no_pairs_are_no_crash() -> None:
    assert Statistics.of([]).pairs == 0


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown task translate; did you mean translation\?"):
        propose(Config(task="translate"), Statistics.of(PHONES))


def test_spaces_are_counted_where_they_say_something() -> None:
    found = Statistics.of(PHONES)
    for task, how in (("translation", "single"), ("dialogue", "single"), ("code", "keep"), ("data-to-text", "keep")):
        assert propose(Config(task=task), found)[0].data.source.spaces == how


def test_a_class_is_one_token() -> None:
    pairs = [Pair(f"this is a question of number {n}", ["not sure", "yes"][n % 2]) for n in range(3000)]
    config, _ = propose(Config(task="classification"), Statistics.of(pairs))
    assert (config.data.target.tokenizer, config.decoding.max_length, config.decoding.beam) == ("label", 1, 1)
    assert (config.training.metric, config.training.label_smoothing) == ("accuracy", 0.0)


def test_labels_are_not_smoothed_where_answers_are_drawn() -> None:
    for objective, share in (("likelihood", 0.1), ("self-critical", 0.0), ("adversarial", 0.0), ("unlikelihood", 0.1)):
        config = override(Config(), {"training.objective": objective}, where="test")
        assert propose(config, Statistics.of(PHONES))[0].training.label_smoothing == share


SPOKEN = Statistics(900, SideStatistics.of([]), SideStatistics.of(["yes no", "stop the car"] * 40), 0.0,
                    signal=Overview(300.0, 3.0, 0, 44_100, short=1.5))  # fmt: skip
SENSED = Statistics(
    900, SideStatistics.of([]), SideStatistics.of(["walk", "run"] * 40), 0.0, signal=Overview(40.0, features=6)
)


@pytest.mark.parametrize(
    ("kind", "task", "found"), [("speech", "speech", SPOKEN), ("frames", "classification", SENSED)]
)
def test_nothing_is_left_open_where_sources_are_no_text(kind: str, task: str, found: Statistics) -> None:
    given = {"task": task, "data.source.kind": kind}
    config, choices = propose(override(Config(), given), found)
    of_text = {key for key in leaves() if key.startswith("data.source.")} | {"data.target.kind", "model.ends"}
    of_text |= {"data.frames.size", "data.frames.per_second"}
    of_speech = {"data.frames.rate", "data.frames.mels"} if kind == "frames" else set()
    left = {key for key in leaves() if get(config, key) is None}
    assert left <= (OPEN_BY_CHOICE | of_text | of_speech) - {"data.source.max_length"}
    assert all(choice.reason for choice in choices)
    build(config.model, 6, 50)
    heard = kind == "speech"
    assert (config.model.ctc, bool(config.training.ctc), bool(config.data.augment.speed)) == (heard, heard, heard)
    assert config.data.frames.rate == (16_000 if heard else None)
    alone = propose(override(Config(), {**given, "training.ctc": 0}), found)[0]
    assert (alone.model.ctc, alone.decoding.ctc) == (False, 0)


def test_brief_recordings_are_not_normalized_by_themselves() -> None:
    assert SPOKEN.signal is not None
    for short, how in ((2.0, "each"), (0.4, "all")):
        found = dataclasses.replace(SPOKEN, signal=dataclasses.replace(SPOKEN.signal, short=short))
        config, _ = propose(override(Config(), {"task": "speech", "data.source.kind": "speech"}), found)
        assert config.data.frames.normalize == how


def test_steps_are_counted_in_what_is_left_of_the_frames() -> None:
    config, _ = propose(override(Config(), {"task": "speech", "data.source.kind": "speech"}), SPOKEN)
    rows = config.data.batch_tokens / 310
    assert config.training.validate_every == pytest.approx(math.ceil(config.training.epochs / 40) * 900 / rows, rel=0.2)


@pytest.mark.parametrize(
    ("kind", "task", "found"), [("speech", "speech", SPOKEN), ("frames", "classification", SENSED)]
)
def test_going_on_with_recordings_is_planned_as_recordings_are(kind: str, task: str, found: Statistics) -> None:
    """Else a CTC head would not be trained and still be asked, and frames would count as no tokens."""
    first, _ = propose(override(Config(), {"task": task, "data.source.kind": kind}), found)
    opened = dataclasses.replace(first, training=Config().training)
    config, _ = propose(override(opened, {"data.batch_tokens": None}), found, trained=True)
    assert config.training.ctc == first.training.ctc
    assert config.data.batch_tokens == first.data.batch_tokens
    assert config.training.rate == first.training.rate / 2
    assert config.training.validate_every <= first.training.validate_every
    assert config.training.epochs <= 60
    assert config.model == first.model


def test_subwords_have_room_for_every_character_and_are_not_those_of_repeated_facts() -> None:
    letters = [Pair(f"word{n} of line {n}", "".join(chr(0x4E00 + (7 * n + k) % 2000) for k in range(6)) * 2)
               for n in range(400)]  # fmt: skip
    subwords = override(Config(task="translation"), {"data.target.tokenizer": "bpe"})
    assert propose(subwords, Statistics.of(letters))[0].data.target.vocabulary == 4000
    tales = ("".join(chr(97 + (n * n + 5 * n * k + k * k) % 26) for k in range(30)) for n in range(8))
    facts = " && ".join(f"thing {n} | is | {tale}" for n, tale in enumerate(tales))
    told = [Pair(pair.source, pair.target, (), {"facts": facts}) for pair in TEXT]
    config, _ = propose(Config(task="translation"), Statistics.of(told, Finder()))
    assert (
        config.data.source.vocabulary
        == propose(Config(task="translation"), Statistics.of(TEXT))[0].data.source.vocabulary
    )
    chosen = override(config, {"model.knowledge.kind": "linear", "data.source.vocabulary": 1000})
    tokens = Task.learn(told, chosen).source.vocabulary.index
    assert max(map(len, tokens)) < 12, sorted(tokens, key=len)[-5:]
