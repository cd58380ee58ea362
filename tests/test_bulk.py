"""Answers to many lines in a file: whole and in order whatever interrupts it, refused where it would be mixed up."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest

from antiphon.core.errors import DataError
from antiphon.inference.bulk import bulk, digest
from commands import Call, calling, refused  # noqa: F401
from runs import light, words
from starts import trained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        yield trained(tmp_path_factory.mktemp("bulk") / "reversing")


@pytest.fixture(scope="module")
def lines(model: Path) -> Path:
    """Many inputs, blank ones and doubles among them, without a line feed at the end."""
    path = model.parent / "lines.txt"
    inputs = [word for word, _ in words(2200, seed=4)]
    inputs[7] = inputs[2100] = ""
    path.write_text("\n".join(inputs), encoding="utf-8")
    return path


def test_killed_no_line_is_lost_or_doubled(call: Call, model: Path, lines: Path, tmp_path: Path) -> None:
    expected = call("predict", model, lines)[1]
    out, partial = tmp_path / "answers.txt", tmp_path / "answers.txt.partial"
    command = [sys.executable, "-m", "antiphon", "predict", str(model), str(lines), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not partial.exists() or partial.stat().st_size < 1000:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = partial.read_bytes()
    assert expected.encode().startswith(found)
    assert 0 < found.count(b"\n") < 2200
    with partial.open("ab") as file:
        file.write(b"torn")
    assert "are there already (got settings)" in refused(call, "predict", model, lines, "--out", out, "beam=3")
    code, told, error = call("predict", model, lines, "--out", out)
    assert (code, told) == (0, "")
    assert out.read_text(encoding="utf-8") == expected
    summary = f"2,200 answers in {out}, {found.count(chr(10).encode()):,} of them from before"
    assert "".join(summary.split()) in "".join(error.split())  # wherever the line of a terminal ends
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.txt"]
    assert "is there already" in refused(call, "predict", model, lines, "--out", out)


def test_it_goes_on_after_every_line(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    out, done = tmp_path / "deep/out", list[int]()

    def answers(first: int) -> Iterator[str]:
        done.append(first)
        for number in range(first, 7):
            if number == first + 2:
                raise Enough
            yield f"line {number}"

    for _ in range(3):
        with pytest.raises(Enough):
            bulk(answers, out, {"model": "a"})
    with pytest.raises(DataError, match=r"are there already \(got model\)"):
        bulk(answers, out, {"model": "b"})
    assert bulk(answers, out, {"model": "a"}) == (7, 6)
    assert done == [0, 2, 4, 6]
    assert out.read_text() == "".join(f"line {number}\n" for number in range(7))


def test_one_process_writes(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def answers(first: int) -> Iterator[str]:
        yield "one"
        with pytest.raises(DataError, match="another process is writing"):
            bulk(lambda first: iter(()), out, {})
        yield "two"

    assert bulk(answers, out, {}) == (2, 0)


def test_a_million_lines_take_no_memory(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_text("x\n" * 999_999 + "x")
    assert digest([str(source)])[1] == 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bulk(lambda first: ("answer" for _ in range(first, 100_000)), tmp_path / "out", {})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_what_cannot_be_gone_on_with_is_refused(call: Call, model: Path, tmp_path: Path) -> None:
    assert "what comes from a pipe" in refused(call, "predict", model, "--out", tmp_path / "out", text="a\n")
    assert "nowhere" in refused(call, "predict", model, tmp_path / "nowhere", "--out", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_damaged_line_is_told_before_anything_is_answered(
    call: Call, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.txt").write_bytes(b"ab\n" * 3 + b"x\0y\n")
    assert "bad.txt:4: holds a NUL" in refused(call, "predict", model, tmp_path / "bad.txt", "--out", tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()
    (tmp_path / "good.txt.gz").write_bytes(gzip.compress(b"ab\n" * 600))
    assert digest([str(tmp_path / "good.txt.gz")])[1] == 600
    pandas.DataFrame({"source": ["a"] * 7}).to_parquet(tmp_path / "seven.parquet")
    assert digest([str(tmp_path / "seven.parquet")])[1] == 7
    monkeypatch.chdir(tmp_path)
    assert "this is no name of a file" in refused(call, "predict", model, tmp_path / "good.txt.gz", "--out", ".")
