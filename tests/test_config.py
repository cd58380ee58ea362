"""The configuration is read strictly, overridden by dotted names, and says what is wrong with what."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.config import Config
from antiphon.core.errors import AntiphonError, ConfigError
from antiphon.core.keys import get, leaves, override, read, to_dict


def test_defaults_survive_the_round_trip() -> None:
    assert read(to_dict(Config())) == Config()


@settings(deadline=None)  # the first of them imports pydantic
@given(st.sampled_from(["gru", "lstm", "conv"]), st.integers(1, 9), st.booleans(), st.floats(0, 0.99))
def test_overrides_survive_the_round_trip(kind: str, layers: int, residual: bool, share: float) -> None:
    assignments = {
        "model.encoder.kind": kind, "model.encoder.layers": str(layers), "model.residual": str(residual).lower(),
        "model.dropout": repr(share), "data.context": "a,b",
    }  # fmt: skip
    config = override(Config(), assignments)
    assert (config.model.encoder.kind, config.model.encoder.layers) == (kind, layers)
    assert (config.model.residual, config.model.dropout, config.data.context) == (residual, share, ("a", "b"))
    assert read(to_dict(config)) == config


def test_none_opens_a_setting_again() -> None:
    assert override(override(Config(), {"model.width": 64}), {"model.width": "none"}).model.width is None


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        ({"model.encoder.knd": "gru"}, r"unknown setting model.encoder.knd; did you mean model.encoder.kind\?"),
        ({"data.taget.tokenizer": "bpe"}, r"did you mean data.target.tokenizer\?"),
        ({"decding.temperature": "2"}, r"did you mean decoding.temperature\?"),
        ({"model.encoder.kind": "gruu"}, r"model.encoder.kind: .*'gru'.*got 'gruu'"),
        ({"model.width": "wide"}, r"model.width: .*integer.*got 'wide'"),
        ({"model.width": "30"}, "model.width must be a multiple of model.heads .got 30 and 4."),
        ({"model.width": "33", "model.attention": "general", "model.encoder.kind": "lstm", "model.decoder.kind": "lstm",
          "model.knowledge.kind": "graph"}, "model.width must be a multiple of model.heads"),
        ({"model.dropout": "1.5"}, "model.dropout must be at least 0 and below 1 .got 1.5."),
        ({"data.batch_tokens": "0"}, "data.batch_tokens must be at least 1"),
        ({"training.rate": "-1"}, "training.rate must be above 0 .got -1.0."),
        ({"training.minutes": "nan"}, "training.minutes must be above 0 .got nan."),
        ({"decoding.no_repeat": "-1"}, "decoding.no_repeat must not be negative"),
        ({"data.source.vocabulary": "2"}, "data.source.vocabulary must be at least 5"),
        ({"model.tie": "all", "data.shared": "false"}, "model.tie=all needs one vocabulary"),
        ({"model.encoder.kernel": "4"}, "model.encoder.kernel must be odd"),
        ({"model.encoder.kind": "lstm", "model.encoder.window": "8"}, "model.encoder.window needs model.encoder.kind"),
        ({"model.encoder.global_tokens": "1", "model.encoder.window": "0"}, "global_tokens needs model.encoder.window"),
        ({"model.head": "copy", "model.attention": "none"}, "model.head=copy needs attention"),
        ({"model.attention": "location", "model.knowledge.kind": "graph"}, "location needs a source in order"),
        ({"decoding.beam": "5", "decoding.groups": "2"}, "must be a multiple of decoding.groups.*decoding.beam=6"),
        ({"model.encoder.global_tokens": "1", "model.encoder.kind": "lstm"}, "global_tokens needs model.encoder.kind"),
        ({"model.width": "2", "model.heads": "2", "model.positions": "rotary"}, "two features a head.*model.width=4"),
        ({"model.width": "1", "model.heads": "1", "model.encoder.kind": "lstm"}, "bidirectional.*needs a width of 2"),
        ({"model.decoder.kernel": "10000000000"}, "model.decoder.kernel must be at most 1,000,000"),
        ({"model.encoder.layers": "1" + 30 * "0"}, "model.encoder.layers must be at most 1,000"),
        ({"data.frames.season": "-5"}, "data.frames.season must not be negative"),
        ({"data.source.sampling": "-3"}, "data.source.sampling must be from 0 to 1"),
        ({"decoding.length_reward": "nan"}, "decoding.length_reward must be a finite number"),
        ({"decoding.coverage_penalty": "0.2", "model.attention": "none"}, "coverage_penalty does nothing without att"),
        ({"data.source.freeze": "true"}, "data.source.freeze keeps word vectors.*there are none; set data.source.vec"),
        ({"data.source.kind": "text", "model.frontend.reduce": "4"}, "model.frontend.reduce is for frames"),
        ({"data.source.kind": "text", "model.frontend.time_masks": "3"}, "model.frontend.time_masks is for frames"),
        ({"data.source.kind": "frames", "data.target.kind": "numbers", "model.dropout_word": "0.1"}, "dropout_word is"),
        ({"model.ctc": "true", "training.ctc": "0", "decoding.ctc": "0.3"}, "decoding.ctc asks a CTC head that is not"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(assignments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(Config(), assignments)


def test_heads_are_counted_where_there_are_some() -> None:
    plain = {"model.encoder.kind": "lstm", "model.decoder.kind": "lstm", "model.attention": "additive"}
    assert override(Config(), {**plain, "model.width": "6"}).model.width == 6


@pytest.mark.parametrize(("values", "said"), [
    ({"modle": {}}, "unknown setting modle; did you mean model"),
    ({"model": 3}, "model must be a table .got 3"),
    ({"model": {"encoder": {"kindd": "gru"}}}, "unknown setting model.encoder.kindd"),
    ([1], "the whole must be a table"),
    ({"model": {"heads": True}}, "model.heads: .*valid integer .got True"),
    ({"model": {"heads": "4"}}, "model.heads: .*valid integer .got '4'"),
    ({"model": {"residual": "yes"}}, "model.residual: .*valid boolean .got 'yes'"),
    ({"model": {"dropout": 10**400}}, "model.dropout"),
    ({"data": {"columns": "ab"}}, "data.columns: .*got 'ab'"),
])  # fmt: skip
def test_a_wrong_file_is_refused(values: object, said: str) -> None:
    with pytest.raises(ConfigError, match=f"config.json: {said}"):
        read(values, where="config.json")  # type: ignore[arg-type]


def test_a_file_may_have_lists_and_whole_numbers() -> None:
    config = read({"data": {"columns": ["a", "b"]}, "model": {"dropout": 0}})
    assert (config.data.columns, config.model.dropout) == (("a", "b"), 0.0)


def test_every_setting_is_documented() -> None:
    assert all(item.metadata["doc"] for item in leaves().values())
    assert {key.count(".") for key in leaves()} <= {0, 1, 2}
    assert get(Config(), "model.encoder.bidirectional") is True


def test_an_error_says_where_what_got_and_do() -> None:
    error = AntiphonError("target is empty", where="train.tsv:7", got="''", do="remove the line")
    assert str(error) == "train.tsv:7: target is empty (got ''); remove the line"
