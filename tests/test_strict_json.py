"""JSON that means one thing, and cannot harm who reads it."""

from __future__ import annotations

import pytest

from antiphon.core.errors import BundleError
from antiphon.inference.strict_json import JSON_LIMIT, dump_json, load_json


def test_what_is_large_deep_or_means_two_things_is_refused() -> None:
    for text in (
        b'{"a": 1, "a": 2}',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"\xef\xbb\xbf{}",
        b"[1,]",
        b"[" * 40 + b"]" * 40,
        b" " * (JSON_LIMIT + 1),
    ):
        with pytest.raises(BundleError):
            load_json(text, where="x")
    assert load_json(b'{"[[[[": [1, "\\"[", 2.5, null]}', where="x") == {"[[[[": [1, '"[', 2.5, None]}


def test_there_is_one_form() -> None:
    assert dump_json({"b": "ü", "a": [1]}) == b'{\n "a": [\n  1\n ],\n "b": "\\u00fc"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json(float("nan"))
