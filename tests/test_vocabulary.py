"""Vocabularies keep the frequent tokens, and text can never become a special id."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.batch import UNK
from antiphon.core.errors import BundleError
from antiphon.data.vocabulary import SPECIAL, Vocabulary, copy_ids, extended_ids

COUNTS = Counter({"a": 5, "b": 3, "c": 3, "d": 1})


def test_build_orders_by_count_then_by_name() -> None:
    assert Vocabulary.build(COUNTS).tokens == (*SPECIAL, "a", "b", "c", "d")
    assert Vocabulary.build(COUNTS, min_count=3).tokens == (*SPECIAL, "a", "b", "c")
    assert Vocabulary.build(COUNTS, size=6).tokens == (*SPECIAL, "a", "b")
    assert Vocabulary.build(COUNTS, size=6, always=["<x:1>", "c"]).tokens == (*SPECIAL, "<x:1>", "c")
    assert len(Vocabulary.build(Counter(), size=2)) == 4


def test_ids_and_back() -> None:
    vocabulary = Vocabulary.build(COUNTS, size=6)
    assert vocabulary.ids(["b", "zzz", "a"]) == [5, UNK, 4]
    assert vocabulary.tokens_of([5, 1, 4]) == ["b", "<unk>", "a"]
    assert vocabulary.coverage(COUNTS) == 8 / 12
    assert vocabulary.coverage(Counter()) == 0


def test_text_that_spells_a_special_token_is_only_text() -> None:
    vocabulary = Vocabulary.build(Counter(["</s>", "<pad>", "a"]))
    assert vocabulary.ids(SPECIAL) == [
        vocabulary.tokens.index("<pad>", 4),
        UNK,
        UNK,
        vocabulary.tokens.index("</s>", 4),
    ]
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(1, 9)))
def test_json_round_trip(counts: dict[str, int]) -> None:
    vocabulary = Vocabulary.build(counts)
    again = Vocabulary.from_json(vocabulary.to_json().encode())
    assert again == vocabulary
    assert again.tokens_of(again.ids(counts)) == list(counts)


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", "[]", "[1]", '["a"]', '["<pad>", "<unk>", "<s>", "</s>", 3]', "[" * 100_000,
     json.dumps([*SPECIAL, "a", "a"]), "\ufffd"],
)  # fmt: skip
def test_bad_files(text: str) -> None:
    with pytest.raises(BundleError, match=r"vocabulary\.json"):
        Vocabulary.from_json(text)


def test_copy_ids_number_unknown_tokens_by_pair() -> None:
    target = Vocabulary.build(Counter("ab"))
    ids, extra = copy_ids(["x", "a", "y", "x", "b"], target)
    assert (ids, extra) == ([6, 4, 7, 6, 5], ["x", "y"])
    assert extended_ids(["y", "a", "z", "x"], target, extra) == [7, 4, UNK, 6]
