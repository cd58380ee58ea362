"""Arrays as pairs hold them: files, members of archives, tables, and numbers in a line of text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

from antiphon.core.errors import DataError
from antiphon.data.arrays import INLINE, is_numbers, located, path_of, read_array, shown, written

FRAMES = np.arange(12, dtype=np.float32).reshape(4, 3)


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=5), elements=some.floats(-10, 10, width=32)))
def test_an_array_in_a_line_comes_back(array: np.ndarray) -> None:
    line = written(array)
    assert "\n" not in line
    assert "\t" not in line
    np.testing.assert_array_equal(read_array(line), array)


@pytest.mark.parametrize("values", [[1, 2.5], [[1, 2], [3, 4]], ((1,), (2,)), FRAMES])
def test_lists_and_arrays_of_numbers_are_numbers(values: object) -> None:
    assert is_numbers(values)
    np.testing.assert_array_equal(read_array(written(values)), np.asarray(values, np.float32))


@pytest.mark.parametrize("values", [[], ["a"], [True], "1 2", 3, None, [["a", 1]]])
def test_what_is_no_array_is_none(values: object) -> None:
    assert not is_numbers(values)


@pytest.mark.parametrize("values", [[[1, 2], [3]], [1, "a"], [[1, 2], 3]])
def test_rows_of_several_lengths_and_words_are_refused(values: object) -> None:
    with pytest.raises(DataError, match=r"one length|no array of numbers"):
        written(values)


def test_files_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FRAMES)
    np.savez(tmp_path / "one.npz", only=FRAMES)
    np.savez_compressed(tmp_path / "two.npz", first=FRAMES, second=2 * FRAMES)
    pandas.DataFrame(FRAMES, columns=list("xyz")).to_parquet(tmp_path / "a.parquet")
    for name in ("a.npy", "one.npz", "two.npz#first", "a.parquet"):
        np.testing.assert_array_equal(read_array(str(tmp_path / name)), FRAMES)
    np.testing.assert_array_equal(read_array(str(tmp_path / "two.npz#second")), 2 * FRAMES)


def test_an_archive_of_several_wants_a_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", first=FRAMES, second=FRAMES)
    with pytest.raises(DataError, match=r"has several arrays; write two\.npz#NAME, such as two\.npz#first"):
        read_array(str(tmp_path / "two.npz"))
    with pytest.raises(DataError, match="has no array 'third'"):
        read_array(str(tmp_path / "two.npz#third"))


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", FRAMES)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-4])
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    (tmp_path / "not.npz").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "text.txt").write_text("hello")
    for name in ("cut.npy", "words.npy", "objects.npy", "not.npz", "text.txt", "missing.npy"):
        with pytest.raises(DataError) as caught:
            read_array(str(tmp_path / name))
        assert name in str(caught.value)
    for line in (INLINE + "AAAA", INLINE + "%%%"):
        with pytest.raises(DataError, match="is no array"):
            read_array(line)


def test_paths_are_counted_from_the_folder_of_their_table(tmp_path: Path) -> None:
    assert located("b/a.npz#x", tmp_path) == f"{tmp_path}/b/a.npz#x"
    assert located("/a.wav", tmp_path) == "/a.wav"
    assert located("./b//a.wav", tmp_path) == f"{tmp_path}/b/a.wav"
    assert located("./a.npz#x", tmp_path) == f"{tmp_path}/a.npz#x"
    assert [located(blank, tmp_path) for blank in ("", "  ")] == ["", "  "]
    line = written(FRAMES)
    assert located(line, tmp_path) == line
    assert path_of("a.npz#x") == Path("a.npz")
    assert path_of("take#2.wav") == Path("take#2.wav")
    assert shown(line) == "(an array)"
