"""Text becomes ids that end in the end mark, of the stated length, and whatever is cut is counted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.batch import BOS, EOS, PAD, UNK
from antiphon.core.config import Side
from antiphon.core.errors import BundleError, ConfigError, DataError
from antiphon.data.modalities import Text, TooLong, count_tokens
from antiphon.data.report import Report
from antiphon.data.tokenizers import Char, Whitespace

LINES = ["the cat sat", "the dog sat down", "a cat and a dog", "Über die Straße"] * 5


@pytest.mark.parametrize("kind", ["word", "whitespace", "char", "byte", "bpe", "unigram", "chinese"])
def test_learn_ids_text_save_load(kind: str) -> None:
    side = Side(kind, 400)  # type: ignore[arg-type]
    text = Text.learn(LINES, side, name="source")
    for line in LINES:
        ids = text.ids(line)
        assert ids[-1] == EOS
        assert UNK not in ids
        assert text.text(ids) == line
        assert text.text([*ids, 4, 5]) == line, "nothing after the end mark is read"
        assert text.text([BOS, *ids[:-1], PAD]) == line
    again = Text.load({"other": b"", **text.files("source"), "target.tokenizer.json": b""}, "source", side)
    assert again.vocabulary == text.vocabulary
    assert (again.name, again.too_long) == ("source", "truncate")
    assert [again.ids(line) for line in LINES] == [text.ids(line) for line in LINES]
    assert all(name.startswith("source.") for name in text.files("source"))


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_bytes_round_trip_through_ids(line: str) -> None:
    text = Text.learn(["x"], Side("byte", normalize="none"))
    assert text.text(text.ids(line)) == line


def test_an_empty_text_is_the_end_mark() -> None:
    for kind in ("word", "bpe"):
        assert Text.learn(LINES, Side(kind, 400)).ids("") == [EOS]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("side", "text", "expected"),
    [
        (Side(normalize="nfc"), "e\u0301", "é"),
        (Side(normalize="nfd"), "é", "e\u0301"),
        (Side(normalize="nfkc"), "ﬁ１", "fi1"),
        (Side(normalize="nfkd"), "ﬁé", "fie\u0301"),
        (Side(normalize="none"), "e\u0301ﬁ", "e\u0301ﬁ"),
        (Side(lowercase=True), "ÀB", "àb"),
        (Side(lowercase=True), "ABC", "abc"),
        (Side(), " a  b\t", " a  b\t"),
        (Side(spaces="single"), " a  b\u3000\tc ", "a b c"),
    ],
)
def test_normalization_is_a_choice(side: Side, text: str, expected: str) -> None:
    made = Text(Char(), Text.learn(["x"], Side("char")).vocabulary, side)
    assert made.normalize(text) == expected
    assert "".join(made.cut(text)) == expected


def test_truncation_is_counted() -> None:
    text, report = Text.learn(LINES, Side("char", max_length=5), name="source"), Report()
    assert text.text(text.ids("the cat", report=report)) == "the "
    assert text.text(text.ids("thec", report=report)) == "thec"
    assert len(text.ids("the cat")) == len(text.ids("thec")) == 5
    assert report.lines() == ["1 x source cut to max_length=5 ('the cat')"]


def test_too_long_may_be_refused_or_left_out() -> None:
    for too_long in ("error", "skip"):
        text = Text.learn(LINES, Side("char", max_length=5), name="target", too_long=too_long)
        with pytest.raises(TooLong, match=r"target is longer than max_length=5 \(got 8\)") as caught:
            text.ids("the cat")
        assert caught.value.skip == (too_long == "skip")


def test_tags_come_first_and_stay_whole() -> None:
    text = Text.learn(LINES, Side("char", 6, max_length=4), tags=["<domain:news>"])
    ids = text.ids("the cat", tags=["<domain:news>"])
    assert ids[0] == text.vocabulary.index["<domain:news>"] == 4
    assert len(ids) == 4
    assert "<domain:news>" not in text.cut("<domain:news>")


def test_sampling_needs_a_seed_and_a_setting() -> None:
    lines = [f"{word}er {word}ing {word}ed" for word in ("walk", "talk", "jump")] * 3
    still, moving = (Text.learn(lines, Side("bpe", 100, sampling=rate)) for rate in (0.0, 0.5))
    assert len({tuple(still.ids(lines[0], seed=seed)) for seed in range(20)}) == 1
    assert len({tuple(moving.ids(lines[0], seed=seed)) for seed in range(20)}) > 1
    assert len({tuple(moving.ids(lines[0])) for _ in range(20)}) == 1


def test_copied_ids_are_read_from_the_source() -> None:
    text = Text.learn(LINES, Side("whitespace"))
    size = len(text.vocabulary)
    assert text.text([*text.ids("the cat")[:-1], size, EOS], ["Mia"]) == "the cat Mia"


def test_counting_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.data.modalities._MANY", 50)
    counts = count_tokens(Whitespace(), (f"often rare{number}" for number in range(1000)))
    assert len(counts) <= 60
    assert counts["often"] == 1000


def test_an_iterator_is_enough_to_learn_from() -> None:
    assert Text.learn(iter(LINES), Side("bpe", 400)).vocabulary == Text.learn(LINES, Side("bpe", 400)).vocabulary


def test_text_that_no_tokenizer_can_read_is_refused() -> None:
    for kind in ("char", "byte", "bpe"):
        made = Text.learn(LINES, Side(kind, 400), name="source")  # type: ignore[arg-type]
        with pytest.raises(DataError, match=r"'a.udfff': source holds a lone surrogate"):
            made.ids("a\udfff")
        with pytest.raises(DataError, match="source holds a NUL"):
            made.ids("a\0")


def test_sampling_that_could_do_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.source.sampling needs a bpe or unigram tokenizer \(got char\)"):
        Text.learn(LINES, Side("char", sampling=0.1), name="source")
    with pytest.raises(ConfigError, match=r"data.target.sampling must be from 0 to 1"):
        Text.learn(LINES, Side("bpe", sampling=1.5), name="target")


def test_errors() -> None:
    with pytest.raises(ConfigError, match="tokenizer is not chosen"):
        Text.learn(LINES, Side())
    files = Text.learn(LINES, Side("word")).files("source")
    with pytest.raises(BundleError, match=r"target\.tokenizer\.json"):
        Text.load(files, "target", Side("word"))
    for broken in (b"", b"[]", b"{}", b'{"kind": 1, "name": "", "too_long": ""}', b"[" * 100_000, b"\xff"):
        with pytest.raises(BundleError, match="not a tokenizer description"):
            Text.load({**files, "source.tokenizer.json": broken}, "source", Side("word"))
