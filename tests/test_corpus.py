"""Pairs come out the same from every format, and nothing odd in them goes uncounted."""

from __future__ import annotations

import datetime
import gzip
import json
import lzma
import os
import random
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.config import Data
from antiphon.core.errors import AntiphonError, DataError
from antiphon.data import corpus, formats
from antiphon.data.alignment import shifted
from antiphon.data.corpus import Pair, Texts, group_references, named_files, open_pairs, overlap, read_lines, split

PAIRS = [
    ("ein Hund", "a dog"),
    ("zwei\u2028Katzen\x85", "two cats"),
    ('drei "Wölfe", 狼', "three wölves, 3"),
    ("a", "b"),
]
EXPECTED = [Pair(source, target) for source, target in PAIRS]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def tsv(pairs: list[tuple[str, str]] = PAIRS) -> str:
    return "".join(f"{source}\t{target}\n" for source, target in pairs)


def jsonl(pairs: list[tuple[str, str]] = PAIRS) -> str:
    return "".join(json.dumps({"source": source, "target": target}) + "\n" for source, target in pairs)


def csv_text() -> str:
    def quote(field: str) -> str:
        return '"' + field.replace('"', '""') + '"'

    return "source,target\n" + "".join(f"{quote(source)},{quote(target)}\n" for source, target in PAIRS)


def parquet(path: Path) -> Path:
    pandas.DataFrame(PAIRS, columns=["source", "target"]).to_parquet(path)
    return path


def parallel(folder: Path) -> tuple[Path, Path]:
    sides = zip(*PAIRS, strict=True)
    source, target = (
        write(folder / name, "\n".join(side) + "\n") for name, side in zip(("a.de", "a.en"), sides, strict=True)
    )
    return source, target


def test_every_file_format_gives_the_same_pairs(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.tsv", tsv()),
        write(tmp_path / "a.txt", tsv()),
        write(tmp_path / "headed.tsv", "Source\tTarget\n" + tsv()),
        write(tmp_path / "no-last-line-end.tsv", tsv().removesuffix("\n")),
        write(tmp_path / "a.csv", csv_text()),
        write(tmp_path / "a.jsonl", jsonl()),
        parquet(tmp_path / "a.parquet"),
    ]
    for file in files:
        assert list(open_pairs(file, Data())) == EXPECTED, file
        assert list(open_pairs(str(file), Data())) == EXPECTED, file
    source, target = parallel(tmp_path)
    assert list(open_pairs((source, target), Data())) == EXPECTED
    assert list(open_pairs(f"{source},{target}", Data())) == EXPECTED
    assert list(open_pairs(source, Data(), parallel=target)) == EXPECTED


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_compression_is_seen_by_content(tmp_path: Path, suffix: str, compress: object) -> None:
    assert callable(compress)
    for name, text in (("a.tsv", tsv()), ("a.csv", csv_text()), ("a.jsonl", jsonl())):
        for file in (tmp_path / (name + suffix), tmp_path / f"hidden-{name}"):
            file.write_bytes(compress(text.encode()))
            assert list(open_pairs(file, Data())) == EXPECTED


def test_iterables_and_tables() -> None:
    dicts = [{"source": source, "target": target} for source, target in PAIRS]
    lists = [list(pair) for pair in PAIRS]
    for data in (PAIRS, dicts, EXPECTED, tuple(PAIRS), lists, iter(PAIRS), np.array(lists)):
        corpus = open_pairs(data, Data())
        assert list(corpus) == EXPECTED
        assert list(corpus) == EXPECTED, "a corpus can be gone through again"
    frame = pandas.DataFrame(dicts)
    assert list(open_pairs(frame, Data())) == EXPECTED
    arrow = pytest.importorskip("pyarrow")
    assert list(open_pairs(arrow.Table.from_pylist(dicts), Data())) == EXPECTED


def test_a_table_that_gives_its_rows_by_iter_rows() -> None:
    class Table:
        columns = ("source", "target", "n")

        def iter_rows(self) -> object:
            return iter([("a", "b", 1), ("c", "d", None)])

    assert [pair.context for pair in open_pairs(Table(), Data())] == [{"n": "1"}, {"n": ""}]


def test_a_csv_file_without_known_names_says_so(tmp_path: Path) -> None:
    corpus = open_pairs(write(tmp_path / "a.csv", "mr,ref\nx,y\n"), Data())
    assert len(list(corpus)) == 2
    assert corpus.report.lines() == [
        f"1 x first line taken as a pair; if it holds names, pass data.columns ({tmp_path / 'a.csv'}:1)"
    ]
    numbered = open_pairs(tmp_path / "a.csv", Data(columns=("2", "1")))
    assert len(list(numbered)) == 2
    assert "name them in data.columns" in numbered.report.lines()[0]


def test_further_columns_are_context(tmp_path: Path) -> None:
    inflection = write(tmp_path / "a.tsv", "go\twent\tV;PST\nbe\tam\tV;1;SG\n")
    assert [pair.context for pair in open_pairs(inflection, Data())] == [{"3": "V;PST"}, {"3": "V;1;SG"}]
    lines = write(tmp_path / "a.jsonl", '{"source": "x", "target": "y", "n": 3, "list": ["ä"], "none": null}\n')
    assert next(iter(open_pairs(lines, Data()))).context == {"n": "3", "list": '["ä"]', "none": ""}
    assert next(iter(open_pairs([("x", "y", {"n": 3})], Data()))).context == {"n": "3"}


def test_numbered_columns_of_a_table_with_names(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "source,target,domain\na,b,c\n")
    assert list(open_pairs(table, Data(columns=("2", "1")))) == [Pair("b", "a")]
    for name in ("domain", "3"):
        [pair] = open_pairs(table, Data(columns=("2", "1"), context=(name,)))
        assert pair.context == {name: "c"}


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    twice = pandas.DataFrame([["a", "b", "c"]], columns=["source", "target", "target"])
    for data in (twice, write(tmp_path / "a.csv", "source,target,target\na,b,c\n")):
        with pytest.raises(DataError, match=r"two columns have the same name .got target"):
            list(open_pairs(data, Data()))


def test_a_dialogue_stays_together_whatever_its_columns_are_called(tmp_path: Path) -> None:
    rows = "".join(f"q{talk} {turn},a{turn},{talk}\n" for talk in range(20) for turn in range(5))
    corpus = open_pairs(write(tmp_path / "a.csv", "q,a,dialogue\n" + rows), Data(columns=("q", "a")))
    train, valid = ({pair.context["dialogue"] for pair in part} for part in split(corpus, 0.2, 1))
    assert not train & valid
    nameless = [(f"source {number}", "x", {"dialogue": ""}) for number in range(9)]
    assert len(list(split(open_pairs(nameless, Data()), 0.3, 1)[1])) == 3


def test_columns_in_another_order_are_the_same_columns() -> None:
    pairs = [Pair("a", "b", (), {"x": "1", "y": "2"}), Pair("a", "c", (), {"y": "2", "x": "1"})]
    assert [pair.references for pair in group_references(pairs)] == [("b", "c")]


def test_cells_of_tables_are_as_they_would_be_in_a_file() -> None:
    frame = pandas.DataFrame({"source": ["a"], "target": [np.array(["b", "c"], dtype=object)], "n": np.array([3])})
    assert [(pair.target, pair.context["n"]) for pair in open_pairs(frame, Data())] == [("b", "3"), ("c", "3")]
    when = {"source": "a", "target": "b", "day": datetime.date(2020, 1, 2), "n": np.int64(3)}
    assert next(iter(open_pairs([when], Data()))).context == {"day": "2020-01-02", "n": "3"}
    with pytest.raises(DataError, match="target is empty"):
        list(open_pairs([("a", np.float32("nan"))], Data()))


def test_a_source_may_be_empty_where_there_are_facts(tmp_path: Path) -> None:
    told = write(tmp_path / "a.csv", "source,facts,target\n,Aarhus | leader | Jacob,x\n")
    assert next(iter(open_pairs(told, Data()))).source == "Aarhus"
    bare = write(tmp_path / "b.csv", "source,target\nhello,\n")
    assert [pair.source for pair in open_pairs(bare, Data(), need_target=False)] == ["hello"]


def test_a_text_is_no_path_however_long_it_is() -> None:
    with pytest.raises(DataError):
        list(open_pairs("a source, another one " * 200, Data()))


def test_several_references() -> None:
    data = [{"source": "x", "target": ["a", "b", "a"]}, {"source": "y", "target": "c", "references": ["d"]}]
    pairs = list(open_pairs(data, Data()))
    assert [(pair.source, pair.target) for pair in pairs] == [("x", "a"), ("x", "b"), ("y", "c"), ("y", "d")]
    grouped = group_references(pairs)
    assert [(pair.source, pair.target, pair.references) for pair in grouped] == [
        ("x", "a", ("a", "b")),
        ("y", "c", ("c", "d")),
    ]
    apart = [Pair("x", "a", (), {"d": "1"}), Pair("x", "b", (), {"d": "2"}), Pair("x", "c", (), {"d": "1"})]
    assert [pair.references for pair in group_references(apart)] == [("a", "c"), ("b",)]


def test_sources_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "one\ntwo\n")
    for data in (file, ["one", "two"], [{"source": "one"}, {"source": "two"}]):
        assert [pair.source for pair in open_pairs(data, Data(), need_target=False)] == ["one", "two"]
    assert list(open_pairs(PAIRS, Data(), need_target=False)) == EXPECTED


def test_the_report_counts_and_says_where(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_bytes(b"\xef\xbb\xbfa\tb\r\n\nc\td\r\na\tb\n")
    corpus = open_pairs(file, Data())
    assert [(pair.source, pair.target) for pair in corpus] == [("a", "b"), ("c", "d"), ("a", "b")]
    assert corpus.report.counts == {
        "byte order mark removed": 1,
        "carriage return removed at the end of a line": 2,
        "blank line skipped": 1,
        "duplicate pair kept": 1,
    }
    assert corpus.report.places["blank line skipped"] == [f"{file}:2"]
    assert corpus.report.places["duplicate pair kept"] == [f"{file}: pair 3"]
    list(corpus)
    assert corpus.report.counts["blank line skipped"] == 1, "each pass starts a new report"


@pytest.mark.parametrize(("most", "reads"), [(10_000, 2), (20, 4)], ids=["small", "large"])
def test_a_small_corpus_is_read_once(most: int, reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "pairs.tsv", list[Path]()
    path.write_text("hello\thallo\n\tleer\nhello\thallo\nworld\twelt\n", encoding="utf-8")
    monkeypatch.setattr(corpus, "KEPT", most)
    monkeypatch.setattr(formats, "open_bytes", lambda path, real=formats.open_bytes: opened.append(path) or real(path))
    pairs = open_pairs(path, Data(empty="skip"))
    assert list(islice(pairs, 1)) != list(pairs)  # a pass that was not finished is no corpus
    told = pairs.report.lines()
    assert list(pairs.view("all but the world", lambda pair: pair.source != "world")) == list(pairs)[:2]
    assert pairs.report.lines() == told
    assert len(told) == 2
    assert len(opened) == reads
    pairs.forget()
    assert len(list(pairs)) == 3
    assert len(opened) == reads + 1


def test_fingerprint_changes_with_one_byte(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", tsv())
    corpus = open_pairs(file, Data())
    before = corpus.fingerprint()
    assert before == corpus.fingerprint()
    write(file, tsv().replace("dog", "dig"))
    assert corpus.fingerprint() != before
    assert open_pairs(PAIRS, Data()).fingerprint() != open_pairs(PAIRS[:-1], Data()).fingerprint()
    assert open_pairs(PAIRS, Data()).fingerprint() == open_pairs(iter(PAIRS), Data()).fingerprint()


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), min_size=1), st.integers(0, 9))
def test_split_is_a_partition_by_source(data: list[tuple[str, str]], seed: int) -> None:
    corpus = open_pairs(data, Data())
    if len({source for source, _ in data}) < 2:
        with pytest.raises(DataError, match="two different sources"):
            split(corpus, 0.2, seed)
        return
    train, valid = split(corpus, 0.2, seed)
    key = [(pair.source, pair.target) for part in (train, valid) for pair in part]
    assert sorted(key) == sorted(data)
    assert overlap(train, valid).sources == 0
    assert list(train)
    assert list(valid)


def test_split_share_and_seed() -> None:
    corpus = open_pairs([(f"source {number % 500}", f"target {number}") for number in range(1000)], Data())
    held = {seed: frozenset(pair.source for pair in split(corpus, 0.1, seed)[1]) for seed in (1, 2)}
    assert len(held[1]) == len(held[2]) == 50
    assert held[1] != held[2]
    assert held[1] == frozenset(pair.source for pair in split(corpus, 0.1, 1)[1])
    assert len({pair.source for pair in split(corpus, 0.1, 1, most=7)[1]}) == 7


def test_overlap_counts_sources_and_pairs() -> None:
    train = [Pair("a", "1"), Pair("b", "2"), Pair("a", "1")]
    valid = [Pair("a", "1"), Pair("b", "3"), Pair("c", "4")]
    shared = overlap(train, valid)
    assert (shared.sources, shared.pairs, shared.of_sources, shared.of_pairs) == (2, 1, 3, 3)
    assert shared.lines() == ["2 of 3 validation sources and 1 of 3 pairs are in the training data too"]
    assert overlap(train, [Pair("z", "1")]).lines() == []


def test_where_data_comes_from() -> None:
    assert named_files("a.tsv") == [Path("a.tsv")]
    assert named_files("a.en, b.de") == named_files(["a.en", "b.de"]) == named_files(Path("a.en"), "b.de")
    assert named_files(Path("a.en"), "b.de") == [Path("a.en"), Path("b.de")]
    assert named_files([("a", "b")]) is None
    assert named_files([("a", "b"), ("c", "d")]) is None


def test_texts_can_be_gone_through_again_and_again() -> None:
    targets = Texts(open_pairs(PAIRS, Data()), ["target"])
    assert list(targets) == list(targets) == [target for _, target in PAIRS]
    both = Texts(open_pairs(PAIRS, Data()), ["source", "target"])
    assert list(both) == [text for pair in PAIRS for text in pair]


def test_read_lines_keeps_every_line(tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_bytes("\ufeffeins\r\n\nzw\u2028ei\x0b\x1c\nlast".encode())
    assert list(read_lines(file)) == ["eins", "", "zw\u2028ei\x0b\x1c", "last"]
    with file.open("rb") as stream:
        assert list(read_lines(stream)) == ["eins", "", "zw\u2028ei\x0b\x1c", "last"]
    with file.open(encoding="utf-8") as stream:
        assert len(list(read_lines(stream))) == 4
    file.write_bytes(b"good\nb\xffd\n")
    with pytest.raises(DataError, match=r"in.txt:2: is not valid UTF-8 \(byte 2 is 0xff\)"):
        list(read_lines(file))


def test_importing_the_corpus_does_not_import_torch() -> None:
    import subprocess

    code = "import sys, antiphon.data.corpus; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def real(name: str) -> Path:
    folder = os.environ.get("ANTIPHON_DATA")
    if not folder:
        pytest.skip("set ANTIPHON_DATA to the folder of real data")
    return Path(folder) / name


def lengths(source: Path, target: Path) -> tuple[np.ndarray, np.ndarray]:
    pairs = list(open_pairs((source, target), Data()))
    return np.array([len(pair.source) for pair in pairs]), np.array([len(pair.target) for pair in pairs])


def test_a_shift_is_noticed_and_a_clean_corpus_is_not() -> None:
    draw = np.random.default_rng(1)
    source = draw.integers(10, 120, 4000)
    target = (source * draw.normal(1.1, 0.15, 4000)).astype(int) + 1
    assert shifted(source, target) is None
    assert shifted(np.sort(source), target[np.argsort(source, kind="stable")]) is None
    assert shifted(np.full(4000, 7), np.full(4000, 9)) is None
    found = shifted(source, np.delete(np.append(target, 50), 2000))
    assert found is not None
    assert abs(found - 2000) < 300


def test_shifts_in_multi30k() -> None:
    """RELIABILITY row 12: at least 95 % of the shifts at a random line are noticed."""
    source, target = lengths(real("multi30k/train.en"), real("multi30k/train.de"))
    assert shifted(source, target) is None
    draw = random.Random(1)
    places = [draw.randrange(len(source) - 1) for _ in range(100)]
    noticed = sum(shifted(source, np.delete(np.append(target, 50), place)) is not None for place in places)
    assert noticed >= 95


@pytest.mark.parametrize(
    "name",
    ["cmudict_g2p/train.tsv", "scan/simple.train.tsv", "tatoeba_cmn_eng/train.tsv", "e2e_nlg/train.tsv",
     "sigmorphon2018_inflection/finnish-train-high", "django_code/train.tsv", "samsum/train.tsv"],
)  # fmt: skip
def test_clean_corpora_give_no_false_alarm(name: str) -> None:
    pairs = list(open_pairs(real(name), Data(empty="skip", damaged="skip")))
    source, target = (np.array([len(getattr(pair, side)) for pair in pairs]) for side in ("source", "target"))
    assert shifted(source, target) is None


def test_a_shifted_pair_of_files_is_reported(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    words = [" ".join(["word"] * number) for number in draw.integers(2, 20, 3000)]
    source = write(tmp_path / "a", "\n".join(words) + "\n")
    target = write(tmp_path / "b", "\n".join([*words[:1000], *words[1001:], "word"]) + "\n")
    corpus = open_pairs((source, target), Data())
    list(corpus)
    assert any(line.startswith("1 x WARNING: the files look shifted") for line in corpus.report.lines())


def test_errors_of_this_layer_are_for_users() -> None:
    assert issubclass(DataError, AntiphonError)
