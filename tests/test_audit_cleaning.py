"""`--fix` does what the findings say, in the format of the data, says what it did, and leaves the data alone."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from antiphon.core.config import Config, Data
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.data.corpus import open_pairs
from antiphon.diagnosis.cleaning import clean
from antiphon.diagnosis.data import audit
from corpora import sentences, write_pairs

SOURCES, TARGETS = sentences(600)
BAD = {
    10: ("same text here", "same text here"),
    20: ("R&amp;B tunes here", "lauter gute Lieder"),
    30: ("lost \ufffd sign", "ein Wort"),
}


def rows() -> list[tuple[str, str]]:
    pairs = list(zip(SOURCES[:60], TARGETS[:60], strict=True))
    for row, pair in BAD.items():
        pairs[row] = pair
    return pairs


def write(path: Path) -> Path:
    pairs = rows()
    if path.name.endswith(".parquet"):
        pandas.DataFrame(pairs, columns=["source", "target"]).to_parquet(path)
    elif ".jsonl" in path.name:
        path.write_text(
            "".join(json.dumps({"id": n, "source": a, "target": [b]}) + "\n" for n, (a, b) in enumerate(pairs))
        )
    elif path.suffix == ".csv":
        path.write_text("source,target\n" + "".join(f'"{a}","{b}"\n' for a, b in pairs), encoding="utf-8")
    else:
        text = "".join(f"{a}\t{b}\n" for a, b in pairs).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.csv", "a.jsonl", "a.parquet"])
def test_every_format_comes_back_in_kind(tmp_path: Path, name: str) -> None:
    data = write(tmp_path / name)
    before = hashlib.sha256(data.read_bytes()).hexdigest()
    done = clean(audit(str(data)), str(tmp_path / f"clean-{name}"))
    wanted = [
        ("R&B tunes here", pair[1]) if row == 20 else pair for row, pair in enumerate(rows()) if row not in (10, 30)
    ]
    assert [(pair.source, pair.target) for pair in open_pairs(done.files[0], Data())] == wanted
    assert (done.kept, done.dropped, done.changed) == (58, 2, 1)
    assert hashlib.sha256(data.read_bytes()).hexdigest() == before
    lines = [line.split("\t") for line in done.removed.read_text(encoding="utf-8").splitlines()]
    first = 12 if name.endswith(".csv") else 11
    assert lines[0] == ["reason", "line", "source", "target"]
    assert lines[1:] == [
        ["copied", str(first), *BAD[10]], ["changed: entities", str(first + 10), *BAD[20]],
        ["encoding: lost", str(first + 20), *BAD[30]],
    ]  # fmt: skip


def test_a_shift_is_mended(tmp_path: Path) -> None:
    sides = tmp_path / "a.en", tmp_path / "a.de"
    for path, texts in zip(sides, (SOURCES, TARGETS[:250] + TARGETS[251:]), strict=True):
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    done = clean(audit(",".join(map(str, sides))), str(tmp_path / "clean"))
    assert [path.name for path in done.files] == ["clean.en", "clean.de"]
    assert done.removed.name == "clean.removed.tsv"
    right = dict(zip(SOURCES, TARGETS, strict=True))
    pairs = [(pair.source, pair.target) for pair in open_pairs(done.files, Data())]
    assert len(pairs) >= 595
    assert [pair for pair in pairs if right[pair[0]] != pair[1]] == []
    listed = done.removed.read_text(encoding="utf-8")
    assert "no line beside it\t600" in listed
    assert listed.count("changed: misaligned") >= 340


def test_lines_that_are_no_pair_and_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"source\ttarget\n" + b"x\t\n\nb\xff\tc\n" + "".join(f"{a}\t{b}\n" for a, b in rows()).encode())
    done = clean(audit(str(path)), str(tmp_path / "b.tsv"))
    assert (tmp_path / "b.tsv").read_text(encoding="utf-8").startswith("source\ttarget\n" + SOURCES[0])
    assert done.dropped == 5
    reasons = [line.split("\t")[0] for line in done.removed.read_text(encoding="utf-8").splitlines()]
    assert reasons[1:4] == ["target is empty", "blank line skipped", "is not valid UTF-8"]


def test_some_of_several_targets(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    values: list[dict[str, Any]] = [{"source": a, "target": [b, "noch ein \ufffd"]} for a, b in rows()[:5]]
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    done = clean(audit(str(path)), str(tmp_path / "b.jsonl"))
    assert (done.kept, done.dropped, done.changed) == (5, 0, 5)
    assert json.loads(done.files[0].read_text().splitlines()[0]) == {"source": SOURCES[0], "target": [TARGETS[0]]}


def test_other_columns_and_what_is_to_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("".join(f"{number}\t{b}\t{a}\n" for number, (a, b) in enumerate(rows())), encoding="utf-8")
    result = audit(str(path), override(Config(), {"data.columns": "3,2"}))
    done = clean(result, str(tmp_path / "b.tsv"), keep=["copied", "encoding: entities"])
    assert done.kept == 59
    assert (tmp_path / "b.tsv").read_text(encoding="utf-8").splitlines()[10] == "10\tsame text here\tsame text here"
    with pytest.raises(ConfigError, match=r"no finding copies.*known: .*copied"):
        clean(result, str(tmp_path / "c.tsv"), keep=["copies"])


def test_leaks_are_taken_out_of_training(tmp_path: Path) -> None:
    train, test = (write_pairs(tmp_path / name, SOURCES[a:b], TARGETS[a:b]) for name, a, b in
                   (("train.tsv", 0, 500), ("test.tsv", 480, 600)))  # fmt: skip
    clean(audit(str(train), test=str(test)), str(tmp_path / "clean.tsv"))
    left = {pair.source for pair in open_pairs(tmp_path / "clean.tsv", Data())}
    assert left == set(SOURCES[:480])


def test_nothing_is_written_over(tmp_path: Path) -> None:
    data = write(tmp_path / "a.tsv")
    result = audit(str(data))
    with pytest.raises(DataError, match="is there already"):
        clean(result, str(data))
    with pytest.raises(ConfigError, match="format of the data"):
        clean(result, str(tmp_path / "b.csv"))
    (tmp_path / "c.tsv.removed.tsv").write_text("")
    with pytest.raises(DataError, match="is there already"):
        clean(result, str(tmp_path / "c.tsv"))
    assert not (tmp_path / "c.tsv").exists()


def test_a_target_among_several_is_moved_back_to_where_it_was(tmp_path: Path) -> None:
    sources, targets = sentences(800)
    values = [{"source": source, "references": [target]} for source, target in
              zip(sources, targets[:300] + targets[301:] + targets[300:301], strict=True)]  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    done = clean(audit(str(path)), str(tmp_path / "b.jsonl"))
    assert done.changed > 400
    rows = [json.loads(line) for line in done.files[0].read_text().splitlines()]
    assert all(set(row) == {"source", "references"} for row in rows)
    right = dict(zip(sources, targets, strict=True))
    assert sum(row["references"] == [right[row["source"]]] for row in rows) > 0.99 * len(rows)


def test_a_target_beside_references_goes_alone(tmp_path: Path) -> None:
    values = [{"source": a, "target": b, "references": [f"{b} ja"], "turns_of": [b]} for a, b in
              zip(SOURCES[:40], TARGETS[:40], strict=True)]  # fmt: skip
    values[5]["target"] = SOURCES[5]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    done = clean(audit(str(path)), str(tmp_path / "b.jsonl"))
    rows = [json.loads(line) for line in done.files[0].read_text().splitlines()]
    assert rows[5] == {"source": SOURCES[5], "references": values[5]["references"], "turns_of": values[5]["turns_of"]}
    assert rows[6] == values[6]


def test_what_is_wrong_with_a_target_goes_with_it(tmp_path: Path) -> None:
    """One line short from line 251 on, and damaged targets behind it."""
    targets = list(TARGETS)
    targets[400] = "M\u00c3\u00a4dchen spielen"
    targets[450] = "ein verlorenes \ufffd Zeichen"
    sources = list(SOURCES)
    sources[500] = targets[499] = "the same words on both sides"
    path = tmp_path / "a.tsv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in zip(SOURCES[:599], targets[:250] + targets[251:], strict=True)))
    done = clean(audit(str(path)), str(tmp_path / "b.tsv"))
    kept = {pair.source: pair.target for pair in open_pairs(done.files[0], Data())}
    assert kept[SOURCES[400]] == "M\u00e4dchen spielen"
    assert SOURCES[450] not in kept
    assert kept[SOURCES[449]] == TARGETS[449]
    assert kept[SOURCES[451]] == TARGETS[451]


def test_the_last_target_of_a_shift_is_beyond_the_other_file(tmp_path: Path) -> None:
    sides = tmp_path / "a.en", tmp_path / "a.de"
    for path, texts in zip(sides, (SOURCES[:250] + SOURCES[251:], TARGETS), strict=True):
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    done = clean(audit(",".join(map(str, sides))), str(tmp_path / "clean"))
    pairs = {pair.source: pair.target for pair in open_pairs(done.files, Data())}
    assert pairs[SOURCES[599]] == TARGETS[599]
    assert "no line beside it" not in done.removed.read_text(encoding="utf-8")


def test_a_copy_needs_a_name(tmp_path: Path) -> None:
    for name in ("", "."):
        with pytest.raises(ConfigError, match="this is no name of a file"):
            clean(audit(str(write(tmp_path / "a.tsv"))), name)
