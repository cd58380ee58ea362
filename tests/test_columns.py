"""Which columns are read, by name and by number, and what is said where one is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.core.config import Data
from antiphon.core.errors import DataError
from antiphon.data.corpus import Pair, open_pairs


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_what_is_not_there_by_its_name_is_told_by_it(tmp_path: Path) -> None:
    titled = write(tmp_path / "a.csv", "mr,ref,tone\nx,y,z\n")
    with pytest.raises(DataError, match="no column tone; the first line has it: choose all columns by name"):
        list(open_pairs(titled, Data(columns=("1", "2"), context=("tone",))))
    made = write(tmp_path / "a.jsonl", '{"source": "x", "target": "y"}\n')
    with pytest.raises(DataError, match="has no ref"):
        list(open_pairs(made, Data(columns=("ref", "mr"))))


def test_a_target_called_facts_is_no_input(tmp_path: Path) -> None:
    [pair] = open_pairs(write(tmp_path / "a.tsv", "text\ttriples\nx\ta | b | c\n"), Data(columns=("text", "triples")))
    assert (pair.target, dict(pair.context)) == ("a | b | c", {})


def test_columns_by_name_and_by_number(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "id,mr,ref,domain\n1,x,y,d\n2,u,v,e\n")
    expected = [Pair("x", "y", (), {"domain": "d"}), Pair("u", "v", (), {"domain": "e"})]
    assert list(open_pairs(table, Data(columns=("mr", "ref", "domain")))) == expected
    assert list(open_pairs(table, Data(columns=("mr", "ref"), context=("domain",)))) == expected
    plain = write(tmp_path / "a.tsv", "1\tx\ty\td\n")
    assert list(open_pairs(plain, Data(columns=("2", "3", "4")))) == [Pair("x", "y", (), {"4": "d"})]
    lines = write(tmp_path / "a.jsonl", '{"mr": "x", "ref": "y", "domain": "d", "seen": true}\n')
    assert list(open_pairs(lines, Data(columns=("mr", "ref", "domain")))) == expected[:1]
    with pytest.raises(DataError, match="did you mean domain"):
        list(open_pairs(table, Data(columns=("mr", "ref", "domian"))))
