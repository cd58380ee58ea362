"""Where pairs come from: what they are is decided once for all of them, and files are known by any name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from antiphon.core.config import Config, Data
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override
from antiphon.training.sources import Sources
from antiphon.training.start import fit
from runs import SMALL, words

SAID = [("hello", "hallo"), ("play song.mp3", "spiele song.mp3"), ("open data.npy", "öffne data.npy"), ("bye", "ade")]


def test_a_text_that_ends_like_a_name_stays_a_text(tmp_path: Path) -> None:
    found = Sources.keep(tmp_path, SAID, [SAID[1]], None, Data(), mix=[SAID[2]])
    config = found.kind(Config())
    assert (config.data.source.kind, config.data.target.kind) == ("text", "text")
    for name, pairs in (("train", SAID), ("valid", SAID[1:2]), ("mix", SAID[2:3])):
        assert [(pair.source, pair.target) for pair in found.corpus(name, config.data)] == pairs


def test_names_of_recordings_in_memory_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").touch()
    found = Sources.keep(tmp_path / "run", [("a.wav", "one"), ("a.wav", "two")], None, None, Data())
    data = override(Config(), {"data.source.kind": "speech"}).data
    assert {pair.source for pair in found.corpus("train", data)} == {str(tmp_path / "a.wav")}


def test_a_source_and_a_target_file_have_no_columns(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("x\ny\n")
    with pytest.raises(ConfigError, match=r"data\.columns: a source and a target file have no columns to choose"):
        Sources.keep(tmp_path, f"{tmp_path / 'a'},{tmp_path / 'b'}", None, None, Data(columns=("2", "1")))


def test_a_file_of_any_name_is_learned_from(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"tr\xff.tsv")
    path.write_text("".join(f"{source}\t{target}\n" for source, target in words(60)), encoding="utf-8")
    fit(str(path), out=tmp_path / "run", assignments=SMALL | {"training.steps": 2}, command=f"antiphon train {path}")
    assert r"tr\udcff.tsv" in (tmp_path / "run/best/README.md").read_text(encoding="utf-8")
