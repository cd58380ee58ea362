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
        ({"model.encoder.kind": "gruu"}, r"model.encoder.kind: .*'gru'.*got 'gruu'"),
        ({"model.width": "wide"}, r"model.width: .*integer.*got 'wide'"),
        ({"model.width": "30"}, "model.width must be a multiple of model.heads .got 30 and 4."),
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
        ({"decoding.beam": "5", "decoding.groups": "2"}, "decoding.beam must be a multiple of decoding.groups"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(assignments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(Config(), assignments)


@pytest.mark.parametrize("values", [{"modle": {}}, {"model": 3}, {"model": {"encoder": {"kindd": "gru"}}}, [1]])
def test_a_wrong_file_is_refused(values: object) -> None:
    with pytest.raises(ConfigError):
        read(values, where="config.json")  # type: ignore[arg-type]


def test_every_setting_is_documented() -> None:
    assert all(item.metadata["doc"] for item in leaves().values())
    assert {key.count(".") for key in leaves()} <= {0, 1, 2}
    assert get(Config(), "model.encoder.bidirectional") is True


def test_an_error_says_where_what_got_and_do() -> None:
    error = AntiphonError("target is empty", where="train.tsv:7", got="''", do="remove the line")
    assert str(error) == "train.tsv:7: target is empty (got ''); remove the line"
