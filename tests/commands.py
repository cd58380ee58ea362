"""Commands as somebody types them, run in this process, for tests of the command line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from antiphon.__main__ import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="call")
def calling(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in this process; gives exit code, output and errors."""

    def run(*words: str | Path, text: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(
            sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8", "surrogateescape")), encoding="utf-8")
        )
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        output = capsys.readouterr()
        return int(end.value.code or 0), output.out, output.err

    return run


def refused(call: Call, *words: str | Path, text: str = "") -> str:
    """The one line of a mistake."""
    code, out, err = call(*words, text=text)
    assert code == 2, (out, err)
    assert "Traceback" not in out + err
    [line] = err.splitlines()
    assert line.startswith("error: ")
    return line
