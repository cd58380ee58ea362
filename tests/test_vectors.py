"""Word vectors are read as they were written, and their coverage is told."""

from __future__ import annotations

import gzip
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from antiphon.core.errors import DataError
from antiphon.data.vectors import read_vectors
from antiphon.data.vocabulary import Vocabulary

VOCABULARY = Vocabulary.build(Counter(["cat", "dog", "New York", "bird"]))
GLOVE = "cat 1 2 3\nfish 9 9 9\nNew York -1 0.5 1e-2\ndog 4 5 6\ncat 7 7 7\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


@pytest.mark.parametrize("header", ["", "5 3\n"])
def test_formats(tmp_path: Path, header: str) -> None:
    content = (header + GLOVE).encode()
    for name, data in (("a.vec", content), ("a.vec.gz", gzip.compress(content)), ("a.xz", lzma.compress(content))):
        (tmp_path / name).write_bytes(data)
        matrix, covered, line = read_vectors(tmp_path / name, VOCABULARY, 3)
        assert matrix.shape == (8, 3)
        assert matrix.dtype == np.float32
        rows = {token: matrix[VOCABULARY.index[token]].tolist() for token in ("cat", "dog", "New York", "bird")}
        assert rows["cat"] == [1, 2, 3]
        assert rows["dog"] == [4, 5, 6]
        assert rows["New York"] == pytest.approx([-1, 0.5, 0.01])
        assert rows["bird"] == [0, 0, 0]
        assert [VOCABULARY.tokens[row] for row in np.flatnonzero(covered)] == ["New York", "cat", "dog"]
        assert line == f"{tmp_path / name} covers 3 of 4 tokens (75.0%)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5 4\ncat 1 2 3 4\n", r"a.vec:1: the vector has 4 numbers, 3 are needed; set model.width=4"),
        ("cat 1 2\n", "a.vec:1: the vector has 2 numbers"),
        ("dog 1 2 3\nfish 1 2\n", "a.vec:2: the vector has 2 numbers"),
        ("cat 1 2 3 4 5 6\n", "a.vec:1: the vector has 6 numbers"),
        ("dog 1 2 3\ncat 1 x 3\n", "a.vec:2: not a number"),
        ("dog 1 2 3\ncat 1 nan 3\n", "a.vec:2: a vector holds a value that is not finite"),
        ("dog 1 2 3\ncat 1 1e99 3\n", "a.vec:2: a vector holds a value that is not finite"),
        ("<html><body>\n", "a.vec:1: the vector has 0 numbers"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_vectors(write(tmp_path / "a.vec", text), VOCABULARY, 3)


def test_bad_bytes_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.vec").write_bytes(b"dog 1 2 3\nc\xff 1 2 3\n")
    with pytest.raises(DataError, match=r"a\.vec:2: is not valid UTF-8"):
        read_vectors(tmp_path / "a.vec", VOCABULARY, 3)
    with pytest.raises(DataError, match="no such file; did you mean"):
        read_vectors(tmp_path / "b.vec", VOCABULARY, 3)
