"""Words that may stand for each other: from WordNet, a file of synonym groups, or neighbours among word vectors."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from antiphon.core.errors import ConfigError, DataError
from antiphon.data.formats import Row, line_rows
from antiphon.data.report import Report
from antiphon.data.vectors import read_vectors
from antiphon.data.vocabulary import Vocabulary

SETTING = "data.augment.synonyms"
WORDNET = "/usr/share/wordnet"
"""Where Debian's package wordnet-base puts its files; the variable WNSEARCHDIR names another folder."""

PARTS = {"noun": "1", "verb": "2", "adj": "3", "adv": "4"}
"""WordNet's parts of speech, with the digit that each has in a sense key (satellite adjectives have a 5)."""

MOST_NEIGHBOURS, CLOSE = 5, 0.6
"""How many words beside each other in a file of vectors count as synonyms, and from which cosine on."""

MOST_WORDS, MOST_TEXTS, LONGEST_GROUP = 10_000, 1_000_000, 1000
"""Vectors: how many of the most frequent words get neighbours, counted in how many texts; words in one group."""

_CILIN = re.compile(r"^[A-Z][a-z]\d\d[A-Z]\d\d([=#@])\s*")
_WORD = re.compile(r"([^\W\d_]+(?:['’-][^\W\d_]+)*)")
Table = Mapping[str, Iterable[str]]
Cut = Callable[[str], list[str]]
"""Text to pieces that give the text again end to end; some of them are words."""


@dataclass(frozen=True)
class Synonyms:
    """What may stand for a word (lower case), and how a text falls into words and the rest."""

    table: Mapping[str, tuple[str, ...]]
    cut: Cut

    def of(self, word: str) -> list[str]:
        """What may stand for the word, in capitals where it is."""
        found = self.table.get(word.lower(), ())
        if len(word) > 1 and word.isupper():
            return [other.upper() for other in found]
        return [other[0].upper() + other[1:] for other in found] if word[:1].isupper() else list(found)


def learn(name: str, texts: Iterable[str], cut: Cut | None) -> Synonyms:
    """The synonyms that a setting names, those that the texts have: another word would be an unknown one.

    `name` is `wordnet`, a folder of WordNet's files, a file with one group of synonyms a line, or a file of word
    vectors. `cut` parts the texts into words, and is `words_of` where they have spaces; None is for scripts without
    spaces, where the file's own words are looked for, the longest first. Raises `ConfigError` for a missing file and
    `DataError` for a damaged one.
    """
    path = _path(name)
    width = None if path.is_dir() else vector_width(path)
    if width is not None:
        if cut is None:
            do = "take data.source.tokenizer=chinese, or a file of synonyms"
            raise ConfigError("neighbours among vectors need words, the source has no spaces", where=SETTING, do=do)
        return Synonyms(neighbours(path, width, texts, cut), cut)
    table = wordnet(path) if path.is_dir() else read_groups(path)
    cut = cut or Longest.of(table)
    return Synonyms(_known(table, texts, cut), cut)


def words_of(text: str) -> list[str]:
    """Words, and what is between them, of a text with spaces."""
    return _WORD.split(text)


@dataclass(frozen=True)
class Longest:
    """Cuts a text without spaces at the words of a list, from the left, the longest that fits; others stay single."""

    words: frozenset[str]
    longest: int

    @classmethod
    def of(cls, words: Iterable[str]) -> Longest:
        """From the words to cut at."""
        kept = frozenset(words)
        return cls(kept, max(map(len, kept), default=1))

    def __call__(self, text: str) -> list[str]:
        pieces, place = list[str](), 0
        while place < len(text):
            sizes = range(min(self.longest, len(text) - place), 1, -1)
            size = next((size for size in sizes if text[place : place + size] in self.words), 1)
            pieces.append(text[place : place + size])
            place += size
        return pieces


def fingerprint(name: str) -> str:
    """The SHA-256 of the file or of WordNet's files, since what a run sees depends on them."""
    path, digest = _path(name), hashlib.sha256()
    for file in sorted(path.glob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _path(name: str) -> Path:
    path = Path(os.environ.get("WNSEARCHDIR") or WORDNET) if name == "wordnet" else Path(name)
    if not path.exists():
        do = "install WordNet (on Debian: apt install wordnet-base), or" if name == "wordnet" else "check the path, or"
        raise ConfigError("there is no such file or folder", where=SETTING, got=path,
                          do=f"{do} name a file with one group of synonyms a line")  # fmt: skip
    return path


def _known(table: Table, texts: Iterable[str], cut: Cut) -> dict[str, tuple[str, ...]]:
    """The part of a table whose words, each part of them, the texts have."""
    wanted = {part for word, others in table.items() for each in (word, *others) for part in (each, *each.split())}
    seen = {piece for text in texts for piece in cut(text.lower()) if piece in wanted}

    def known(word: str) -> bool:
        return word in seen or (" " in word and all(part in seen for part in word.split()))

    found = {word: tuple(filter(known, others)) for word, others in table.items() if word in seen}
    return {word: others for word, others in found.items() if others}


# A file of groups


def read_groups(path: Path) -> dict[str, list[str]]:
    """Each word with the others of its groups, lower case.

    A line is a group; tabs part its words, else commas or semicolons, else spaces. A part of speech before the first
    tab is left out, as is the code of a line of Cilin, the Chinese thesaurus, whose lines of merely related words (`#`)
    and of single ones (`@`) are passed over. So are words of one character: articles, pronouns, and in a text without
    spaces mostly a part of a longer word.
    """
    table = defaultdict[str, dict[str, None]](dict)
    for row in _rows(path):
        words = list(dict.fromkeys(_group(row.values)))
        if len(words) > LONGEST_GROUP:
            do = "give one group of synonyms a line"
            raise DataError("is no group of synonyms", where=f"{path}:{row.number}", got=f"{len(words)} words", do=do)
        for word in words if len(words) > 1 else ():
            table[word].update(dict.fromkeys(other for other in words if other != word))
    if not table:
        do = "give one group of synonyms a line, parted by tabs, commas or spaces"
        raise ConfigError("there is no group of synonyms in the file", where=SETTING, got=path, do=do)
    return {word: list(others) for word, others in table.items()}


def _group(line: str) -> Iterator[str]:
    mark = _CILIN.match(line)
    if line.startswith("#") or (mark and mark[1] != "="):
        return
    line = line[mark.end() :] if mark else line
    parts = line.split("\t") if "\t" in line else re.split("[,;，；、]", line)
    if "\t" in line and parts[0] in PARTS:
        parts = parts[1:]
    for part in parts if len(parts) > 1 else line.split():
        if len(word := " ".join(part.lower().split())) > 1:
            yield word


def _rows(path: Path) -> Iterator[Row]:
    for row in line_rows(path, Report()):
        if row.problem:
            raise DataError(row.problem, where=f"{path}:{row.number}", do="repair or remove the line")
        yield row


# WordNet (Miller 1995)


@dataclass
class _Senses:
    """How often each meaning of a word was found where meanings were tagged; meanings are (part, offset)."""

    counts: dict[tuple[str, int], int] = field(default_factory=dict)

    def main(self, word: str) -> tuple[str, int] | None:
        """The meaning of at least half of all uses, or the only one there is; but none of a noun in "-ing", nor
        of a word in "-ing", "-ed" or "-s" that no text was found to use: it is rather a form of another word."""
        meaning = max(self.counts, key=self.counts.__getitem__)
        total = sum(self.counts.values())
        if meaning[0] == "noun" and word.endswith("ing"):
            return None
        sole = len(self.counts) == 1 and not word.endswith(("ing", "ed", "s"))
        return meaning if sole or (total and 2 * self.counts[meaning] >= total) else None


def wordnet(folder: Path) -> dict[str, list[str]]:
    """Each word of three letters or more with the other words, not phrases, of its main meaning.

    A word whose uses (in `cntlist.rev`) fall to many meanings is left out: which of them is meant cannot be seen.
    """
    senses, words = defaultdict[str, _Senses](_Senses), dict[tuple[str, int], list[str]]()
    try:
        tagged = _tagged(folder / "cntlist.rev")
        for part in PARTS:
            for word, offsets in _index(folder / f"index.{part}"):
                for number, offset in enumerate(offsets, start=1):
                    senses[word].counts[part, offset] = tagged.get((word, part, number), 0)
            for offset, members in _synsets(folder / f"data.{part}"):
                words[part, offset] = members
    except OSError as error:
        do = "name a folder with all of WordNet's files: index.noun, data.noun and so on, and cntlist.rev"
        raise ConfigError(
            f"a file of WordNet cannot be read: {error.strerror}", where=SETTING, got=error.filename, do=do
        ) from None
    except (ValueError, IndexError, KeyError):
        raise ConfigError("these are not WordNet's files", where=SETTING, got=folder, do="take those of 3.0") from None
    found = dict[str, list[str]]()
    for word, uses in senses.items():
        # The index knows no capitals, but "he" is not helium: only a word that the meaning spells in lower case counts.
        if (meaning := uses.main(word)) and len(word) > 2 and word in words[meaning]:
            found[word] = [other for other in words[meaning] if other != word and other.islower() and " " not in other]
    return {word: others for word, others in found.items() if others}


def _tagged(path: Path) -> dict[tuple[str, str, int], int]:
    """How often the n-th meaning of a word as a part of speech was found in tagged texts."""
    parts = {digit: part for part, digit in PARTS.items()} | {"5": "adj"}
    counts = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, number, count = line.split()
        word, _, rest = key.partition("%")
        counts[word.replace("_", " "), parts[rest[0]], int(number)] = int(count)
    return counts


def _index(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Words, with the offsets of their meanings, the most frequent first."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            parts = line.split()
            yield parts[0].replace("_", " "), [int(offset) for offset in parts[-int(parts[2]) :]]


def _synsets(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Meanings by offset, with their words; adjectives lose the mark of where they stand."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            parts = line.partition("|")[0].split()
            words = parts[4 : 4 + 2 * int(parts[3], 16) : 2]
            yield int(parts[0]), [word.partition("(")[0].replace("_", " ") for word in words]


# Word vectors


def vector_width(path: Path) -> int | None:
    """The width of the vectors in a file, or None where it is no file of vectors."""
    rows = [row.values.rstrip().split(" ") for row in islice(_rows(path), 2)]
    if len(rows) == 2 and len(rows[0]) == 2 and all(part.isdecimal() for part in rows[0]):
        rows = rows[1:]
    width = len(rows[0]) - 1 if rows else 0
    try:
        [float(part) for part in rows[0][1:]]
    except (ValueError, IndexError):
        return None
    return width if width > 1 else None


def neighbours(path: Path, width: int, texts: Iterable[str], cut: Cut) -> dict[str, tuple[str, ...]]:
    """The nearest words of each frequent word of the texts, by the cosine of their vectors."""
    counts = Counter(
        piece for text in islice(texts, MOST_TEXTS) for piece in cut(text.lower()) if _WORD.fullmatch(piece)
    )
    vocabulary = Vocabulary.build(counts, MOST_WORDS)
    try:
        vectors = read_vectors(path, vocabulary, width)
    except DataError as error:
        raise DataError(error.what, where=error.where, do="repair or remove the line") from None
    rows = np.flatnonzero(vectors.covered & (np.abs(vectors.matrix).sum(axis=1) > 0))
    matrix = vectors.matrix[rows]
    matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    words, found = [vocabulary.tokens[row] for row in rows], dict[str, tuple[str, ...]]()
    for start in range(0, len(words), 1024):
        cosines = matrix[start : start + 1024] @ matrix.T
        for number, line in enumerate(cosines, start=start):
            line[number] = -1
            order = np.argsort(-line, kind="stable")[:MOST_NEIGHBOURS]
            if near := tuple(words[other] for other in order if line[other] >= CLOSE):
                found[words[number]] = near
    return found
