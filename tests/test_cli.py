"""The program: fast to start, one line for every mistake, and an honest exit code."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import antiphon
from antiphon.cli import COMMANDS

LIGHT = "import sys; before = 'torch' in sys.modules or 'numpy' in sys.modules; {}; assert 'torch' not in sys.modules"


def antiphon_command(*words: str | Path, text: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "antiphon", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(command, input=text, capture_output=True, text=True, cwd=cwd, env=environment)


def refused(*words: str | Path, text: str = "") -> str:
    """The one line of a mistake."""
    done = antiphon_command(*words, text=text)
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stdout + done.stderr
    return lines[0]


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_import_is_light() -> None:
    subprocess.run([sys.executable, "-c", LIGHT.format("import antiphon; dir(antiphon)")], check=True)
    subprocess.run([sys.executable, "-c", LIGHT.format("import antiphon.__main__, antiphon.cli")], check=True)


def test_public_names_are_there() -> None:
    for name in antiphon.__all__:
        assert getattr(antiphon, name) is not None
    with pytest.raises(AttributeError):
        _ = antiphon.nothing


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
def test_help_is_fast_and_without_torch(words: list[str]) -> None:
    code = f"""
import sys
from antiphon.__main__ import main
try:
    main({words!r})
except SystemExit as end:
    assert not end.code
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    times = []
    for _ in range(3):
        before = cpu_seconds()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        times.append(cpu_seconds() - before)
    assert min(times) < 0.3


def test_help_lists_every_command() -> None:
    text = antiphon_command("--help").stdout
    assert all(f" {name} " in text for name in COMMANDS)
    for name in COMMANDS:
        assert antiphon_command(name, "--help").returncode == 0, name


def test_mistakes_on_the_command_line_are_one_line() -> None:
    assert 'Did you mean "train"' in refused("trian")
    assert "--out" in refused("train", "pairs.tsv")
    assert "did you mean model.width?" in refused("train", "pairs.tsv", "--out", "x", "model.widht=3")
    assert "key=value" in refused("train", "pairs.tsv", "--out", "x", "model.width")


def test_info_lists_settings() -> None:
    text = antiphon_command("info").stdout
    assert "model.encoder.kind" in text
    assert "transformer" in text
