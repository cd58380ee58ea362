"""Damaged data gives a clear error with its place, or a counted report, and never a traceback or a hang."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.core.config import Data
from antiphon.core.errors import AntiphonError, DataError
from antiphon.data import formats
from antiphon.data.corpus import Corpus, open_pairs

STRICT, LENIENT = Data(), Data(empty="skip", damaged="skip")
GOOD = b"".join(b"source %d\ttarget %d\n" % (number, number) for number in range(20))
GOOD_JSON = b"".join(b'{"source": "s%d", "target": "t%d"}\n' % (number, number) for number in range(20))


def lenient(content: bytes, path: Path) -> Corpus:
    path.write_bytes(content)
    corpus = open_pairs(path, LENIENT)
    list(corpus)
    return corpus


# name, content, what the error says, what the lenient report counts (None: refused all the same)
GOLDEN: list[tuple[str, bytes, str, str | None]] = [
    ("utf8.tsv", GOOD + b"caf\xe9\tx\n", r"utf8.tsv:21: is not valid UTF-8 \(byte 4 is 0xe9\)", "is not valid UTF-8"),
    ("utf8.csv", b"source,target\n" + b"a,b\n" * 20 + b"\xff,x\n", r"csv:22: is not valid UTF-8", "is not valid UTF-8"),
    ("utf8.jsonl", GOOD_JSON + b'{"source": "\xc3"}\n', r"jsonl:21: is not valid UTF-8", "is not valid UTF-8"),
    ("utf16.tsv", "a\tb\n".encode("utf-16"), "UTF-16.*iconv -f utf-16", None),
    ("nul.tsv", GOOD + b"a\0b\tx\n", r"nul.tsv:21: holds a NUL character \(at column 2\)", "holds a NUL character"),
    ("nul.csv", GOOD.replace(b"\t", b",") + b"a\0b,x\n", r"nul.csv:21: .*NUL", "holds a NUL character"),
    ("nul.jsonl", GOOD_JSON + b'{"source": "a\\u0000", "target": "b"}\n', "source holds a NUL", "source holds a NUL"),
    ("surrogate.jsonl", GOOD_JSON + b'{"source": "a\\ud800", "target": "b"}\n', r"source holds a lone .*ud800",
     "source holds a lone surrogate"),
    ("surrogate-key.jsonl", GOOD_JSON + b'{"source": "a", "target": "b", "\\udfff": 1}\n', r"column \\udfff holds",
     "column"),
    ("one-column.tsv", b"only this\nand this\n", r"tsv:1: has 1 column\(s\), column 2 is needed.*a tab", None),
    ("one-missing.tsv", GOOD + b"no tab\n", r"tsv:21: .*than the first line \(1, not 2\)", "has another number"),
    ("one-more.tsv", GOOD + b"a\tb\tc\n", r"tsv:21: .*than the first line \(3, not 2\)", "has another number"),
    ("one-more.csv", b"source,target\n" + b"a,b\n" * 20 + b"a,b,c\n", r"csv:22: .*\(3, not 2\)", "has another number"),
    ("empty.tsv", b"", "empty.tsv: there is no pair in it", None),
    ("empty.csv", b"", "there is no pair in it", None),
    ("empty.jsonl", b"", "there is no pair in it", None),
    ("empty.parquet", b"", "is not a readable Parquet file", None),
    ("empty.tsv.gz", b"", "there is no pair in it", None),
    ("blank.tsv", b"\n\n\r\n", "there is no pair in it", None),
    ("header.tsv", b"source\ttarget\n", "there is no pair in it", None),
    ("no-target.tsv", GOOD + b"a\t\n", "tsv:21: target is empty; .*data.empty=skip", "target is empty"),
    ("no-source.tsv", GOOD + b"\tb\n", "tsv:21: source is empty", "source is empty"),
    ("blank-target.tsv", GOOD + "a\t \u3000\n".encode(), "tsv:21: target is empty", "target is empty"),
    ("null-target.jsonl", GOOD_JSON + b'{"source": "a", "target": null}\n', "jsonl:21: target is empty", "target is"),
    ("no-references.jsonl", GOOD_JSON + b'{"source": "a", "target": []}\n', "target is empty", "target is empty"),
    ("no-key.jsonl", GOOD_JSON + b'{"src": "a", "out": "b"}\n', r":21: has no target \(columns: src,", "has no tar"),
    ("number.jsonl", GOOD_JSON + b'{"source": {"a": 1}, "target": "b"}\n', "source must be text", "source must be"),
    ("truth.jsonl", GOOD_JSON + b'{"source": true, "target": "b"}\n', "source must be text", "source must be text"),
    ("array.jsonl", GOOD_JSON + b"[1, 2]\n", r"is not one JSON object \(it is a list\)", "is not one JSON object"),
    ("cut.jsonl", GOOD_JSON + b'{"source": "a', r"jsonl:21: is not one JSON object \(Unterm", "is not one JSON object"),
    ("two.jsonl", GOOD_JSON + b"{}{}\n", "is not one JSON object", "is not one JSON object"),
    ("deep.jsonl", GOOD_JSON + b"[" * 100_000 + b"\n", r"is not usable JSON \(Rec", "is not usable JSON"),
    ("digits.jsonl", GOOD_JSON + b'{"source": ' + b"9" * 5000 + b"}\n", "is not usable JSON", "is not usable JSON"),
    ("quote.csv", GOOD.replace(b"\t", b",") * 20 + b'"open,x\n' * 3, "csv:401: is not CSV .*to line 40", "is not CSV"),
    ("quote-all.csv", b'a,b\n"open,x\n' + GOOD.replace(b"\t", b",") * 20, "csv:2: is not CSV .*line 402", None),
    ("cut.tsv.gz", gzip.compress(random.Random(1).randbytes(99).hex().encode())[:-20], "data is damaged", None),
    ("cut.tsv.xz", lzma.compress(GOOD)[:-20], "cut.tsv.xz:.*compressed data is damaged", None),
    ("flipped.tsv.gz", gzip.compress(GOOD)[:-6] + b"\0\0\0\0\0\0", "compressed data is damaged", None),
    ("plain.tsv.gz", GOOD, "ends in .gz but is not compressed that way", None),
    ("plain.parquet", GOOD, "is not a readable Parquet file", None),
    ("all-bad.tsv", GOOD + b"\xff\n" * 20, "not valid UTF-8", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message", "reason"), GOLDEN, ids=[case[0] for case in GOLDEN])
def test_golden(tmp_path: Path, name: str, content: bytes, message: str, reason: str | None) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(open_pairs(path, STRICT))
    assert_for_people(caught.value)
    if reason is None:
        with pytest.raises(DataError):
            lenient(content, path)
    else:
        counts = lenient(content, path).report.counts
        assert sum(count for key, count in counts.items() if key.startswith(f"skipped: {reason}")) >= 1


def assert_for_people(error: AntiphonError) -> None:
    """One printable line of bounded length."""
    assert "\n" not in str(error)
    assert len(str(error).encode()) < 2000


def test_too_many_damaged_lines_are_refused_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    with pytest.raises(DataError, match="20 of 40 rows are damaged, more than 10%"):
        lenient(GOOD + b"\xff\n" * 20, path)
    assert lenient(GOOD + b"\xff\n" * 2, path).report.counts == {"skipped: is not valid UTF-8": 2}


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_bytes(GOOD)
    cases = {
        tmp_path / "pair.tsv": "there is no such file; did you mean .*pairs.tsv",
        tmp_path / "no" / "pairs.tsv": "there is no such file; check the path",
        tmp_path: "this is a folder",
        tmp_path / ("x" * 300): "cannot be read",
        tmp_path / "nul\0": "cannot be read",
    }
    for path, message in cases.items():
        for call in (lambda corpus: list(corpus), lambda corpus: corpus.fingerprint()):
            with pytest.raises(DataError, match=message):
                call(open_pairs(path, STRICT))


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is a pipe or a device"):
        list(open_pairs(tmp_path / "pipe", STRICT))


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser may read anything
        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"a.tsv: no permission to read this file; try: chmod u\+r"):
        list(open_pairs(path, STRICT))


def refuse(*_: Any, **__: Any) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(("left", "right"), [(3, 2), (2, 3), (0, 2), (500, 1)])
def test_line_counts_of_parallel_files_must_agree(tmp_path: Path, left: int, right: int) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("x\n" * left)
    target.write_text("x\n" * right)
    with pytest.raises(DataError, match=f"a has {left} lines but .*b has {right}"):
        list(open_pairs((source, target), STRICT))
    with pytest.raises(DataError, match=f"a has {left} lines but .*b has {right}"):
        list(open_pairs((source, target), LENIENT))


def test_parallel_files_lose_both_sides_of_a_bad_line(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"".join(b"s%d\n" % number for number in range(30)))
    target.write_bytes(b"".join(b"\xff\n" if number == 7 else b"" if number < 0 else b"t%d\n" % number
                                for number in range(29)) + b"\n")  # fmt: skip
    corpus = open_pairs((source, target), LENIENT)
    assert all(pair.source[1:] == pair.target[1:] for pair in corpus)
    assert corpus.report.counts == {"skipped: target is not valid UTF-8": 1, "skipped: target is empty": 1}
    with pytest.raises(DataError, match=r"a,.*b:8: target is not valid UTF-8"):
        list(open_pairs((source, target), STRICT))


def test_a_line_of_a_megabyte_is_read_and_an_endless_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"x" * 1_000_000 + b"\ty\n")
    assert len(next(iter(open_pairs(path, STRICT))).source) == 1_000_000
    quoted = tmp_path / "a.csv"
    quoted.write_bytes(b'"' + b"x\n" * 500_000 + b'",y\n')
    assert len(next(iter(open_pairs(quoted, STRICT))).source) == 1_000_000
    monkeypatch.setattr(formats, "LONGEST", 1000)
    for file in (path, quoted):
        with pytest.raises(DataError, match=r"longer than 1,000 bytes|larger than field limit"):
            list(open_pairs(file, STRICT))


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tsv.gz"
    path.write_bytes(gzip.compress(bytes(200_000_000), compresslevel=1))
    with pytest.raises(DataError, match="longer than 67,108,864 bytes"):
        list(open_pairs(path, LENIENT))


def test_unusual_line_ends_inside_text_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    text = "a\u2028b\x85c\x0bd\x1ce\rf"
    path.write_bytes(f"{text}\t{text}\r\n".encode())
    pair = next(iter(open_pairs(path, STRICT)))
    assert (pair.source, pair.target) == (text, text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (5, "neither a file, a table nor an iterable.*int"),
        ([], "there is no pair"),
        ([1, 2, 3], "pairs:1: is not a pair"),
        ([("a", "b"), ("a",)], "pairs:2: is not a pair"),
        ([("a", "b", "c")], "pairs:1: is not a pair"),
        ([("a", "")], "pairs:1: target is empty"),
        ([("a", None)], "pairs:1: target is empty"),
        ([("a", float("nan"))], "pairs:1: target is empty"),
        ([("a\ud800", "b")], "pairs:1: source holds a lone surrogate"),
        ([("a", b"b")], "pairs:1: target must be text"),
        (["ab", "cd", "ef"], "pairs:1: is not a pair"),
        ([{"a": "b"}], "pairs:1: has no source"),
        ("a,b,c", "parallel files are two"),
    ],
)
def test_bad_iterables(data: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(open_pairs(data, STRICT))
    assert_for_people(caught.value)


def test_bad_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(GOOD)
    for columns, message in ((("1",), "must name a source and a target"), (("1", "9"), "column 9 is needed")):
        with pytest.raises(DataError, match=message):
            list(open_pairs(path, Data(columns=columns)))
    with pytest.raises(DataError, match="there is no column domain"):
        list(open_pairs(path, Data(context=("domain",))))
    with pytest.raises(DataError, match="columns are counted from 1"):
        list(open_pairs(path, Data(columns=("0", "1"))))


def json_content(pairs: int = 4) -> bytes:
    rows = [{"source": f"s{number}", "target": ["t", "ü"], "refs": ["x"], "tag": number} for number in range(pairs)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


SEEDS: dict[str, bytes] = {
    ".tsv": "source\ttarget\ttag\neins\tone\tx\nzwei\tzw\u00f6\ty\n\n".encode(),
    ".csv": b'source,target\n"a ""b""\nc",d\r\nx,y\n',
    ".jsonl": json_content(),
}
HOSTILE = [b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b", b"\x1c"]
HOSTILE += [b"\r", b"\n", b"\r\n", b"\t", b",", b'"', b"\\", b"{", b"}", b"[" * 2000, b"\\ud800", b"\\u0000", b" "]
HOSTILE += [b"null", b"NaN", b"1e999", b"true", b":", b"-", b"9" * 5000, b"", b"\x1f\x8b", b"\xfd7zXZ\x00", b"PAR1"]

mutations = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 12), st.sampled_from(HOSTILE) | st.binary(max_size=6)), max_size=5
)


def mutate(content: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Each change cuts some bytes out at a place and puts others in."""
    for place, removed, added in changes:
        place %= len(content) + 1
        content = content[:place] + added + content[place + removed :]
    return content


def survive(path: Path, config: Data) -> None:
    """Reads the file: pairs that are all sound, or an error for people, and soon."""
    begun = time.monotonic()
    corpus = open_pairs(path, config)
    try:
        for pair in corpus:
            assert pair.source.strip()
            assert all(text.strip() for text in pair.references)
            assert "\0" not in pair.source + pair.target + "".join(pair.context.values())
            "".join([pair.source, *pair.references, *pair.context, *pair.context.values()]).encode()
    except DataError as error:
        assert_for_people(error)
    for line in corpus.report.lines():
        line.encode()
    assert time.monotonic() - begun < 5


KEYS = ["source", "target", "x"]

fuzzed = settings(max_examples=1200, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@fuzzed
@given(suffix=st.sampled_from(sorted(SEEDS)), changes=mutations, strict=st.booleans())
def test_fuzzed_files(tmp_path: Path, suffix: str, changes: list[tuple[int, int, bytes]], strict: bool) -> None:
    path = tmp_path / f"fuzzed{suffix}"
    path.write_bytes(mutate(SEEDS[suffix], changes))
    survive(path, STRICT if strict else LENIENT)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(fuzzed, max_examples=10_000)
@given(suffix=st.sampled_from(sorted(SEEDS)), changes=mutations, strict=st.booleans())
def test_ten_thousand_fuzzed_files(
    tmp_path: Path, suffix: str, changes: list[tuple[int, int, bytes]], strict: bool
) -> None:
    path = tmp_path / f"fuzzed{suffix}"
    path.write_bytes(mutate(SEEDS[suffix], changes))
    survive(path, STRICT if strict else LENIENT)


@settings(fuzzed, max_examples=600)
@given(left=mutations, right=mutations, strict=st.booleans())
def test_fuzzed_parallel_files(
    tmp_path: Path, left: list[tuple[int, int, bytes]], right: list[tuple[int, int, bytes]], strict: bool
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(mutate(b"a\nb\nc\n", left))
    target.write_bytes(mutate(b"x\ny\nz\n", right))
    for path in (source, (source, target)):
        survive(path, STRICT if strict else LENIENT)  # type: ignore[arg-type]


def parquet_bytes(folder: Path) -> bytes:
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame([("a", "b"), ("c", "d")], columns=["source", "target"]).to_parquet(folder / "seed.parquet")
    return (folder / "seed.parquet").read_bytes()


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress), (".parquet", None)])
def test_fuzzed_packed_files(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes] | None) -> None:
    content = parquet_bytes(tmp_path) if pack is None else pack(SEEDS[".tsv"])
    path = tmp_path / (f"a{suffix}" if pack is None else f"a.tsv{suffix}")
    draw = random.Random(1)
    for _ in range(300):
        place = draw.randrange(len(content))
        damaged = content[:place] + draw.randbytes(1) + content[place + 1 :]
        path.write_bytes(damaged if draw.random() < 0.7 else content[:place])
        survive(path, LENIENT)


@settings(fuzzed, max_examples=600)
@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(st.characters(), max_size=3) | st.binary(max_size=2),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["source", "target", "x"]), inner)
            ),
            max_leaves=6,
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_fuzzed_iterables(data: list[Any], strict: bool) -> None:
    if len(data) == 2 and all(isinstance(item, str) for item in data):
        return  # two texts are two paths
    survive(data, STRICT if strict else LENIENT)  # type: ignore[arg-type]
