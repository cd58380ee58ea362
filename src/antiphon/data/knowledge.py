"""Facts (subject, relation, object): how they are written, read from a knowledge base, and found by a text."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from antiphon.core.errors import DataError, require
from antiphon.data.formats import LONGEST, fault, line_rows, open_bytes
from antiphon.data.report import Report

FACTS = "facts"
"""Where a pair's context has its facts."""
COLUMNS = (FACTS, "triples")
"""Names of the column of facts."""
PART, NEXT = " | ", " && "
"""What stands between the parts of a fact, and between facts, where they are written as text."""

HEADERS = (("subject", "relation", "object"), ("subject", "predicate", "object"))
"""First lines that name the parts of facts, and are none."""
_DO = f"write subject{PART}relation{PART}object, with{NEXT}between facts, or a JSON list of lists of three texts"
_UNITS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_ASIDE = re.compile(r"^(.+?)\s*(?:\([^()]*\)|（[^（）]*）)$")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Fact(NamedTuple):
    """One triple, as it was written."""

    subject: str
    relation: str
    object: str


# How facts are written


def parse(value: Any) -> list[Fact]:
    """Facts as a column holds them: text with `NEXT` between facts and `PART` within, or a (JSON) list of facts.

    Raises `DataError` for what is none.
    """
    if isinstance(value, str):
        if not value.strip():
            return []
        listed = _listed(value)
        value = value.split(NEXT) if listed is None else listed
    if not isinstance(value, list | tuple):
        raise DataError("facts are neither text nor a list", got=repr(value)[:80], do=_DO)
    return [_fact(item, number) for number, item in enumerate(value, start=1)]


def _listed(text: str) -> list[Any] | None:
    """A JSON list, where the text is one."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _fact(item: Any, number: int) -> Fact:
    parts = item.split(PART) if isinstance(item, str) else item
    if isinstance(parts, dict):
        parts = [parts.get(name) for name in Fact._fields]
    good = isinstance(parts, list | tuple) and len(parts) == 3
    good = good and all(isinstance(part, str | int | float) and not isinstance(part, bool) for part in parts)
    texts = [str(part).strip() for part in parts] if good else []
    if not good or not all(texts):
        raise DataError(f"fact {number} is not subject{PART}relation{PART}object", got=repr(item)[:80], do=_DO)
    if problem := next(filter(None, map(fault, texts)), ""):
        raise DataError(f"fact {number} {problem}", got=repr(item)[:80], do="repair it")
    return Fact(*texts)


def dump(facts: Iterable[Fact]) -> str:
    """Facts as the text of a column, which `parse` reads."""
    return json.dumps([list(fact) for fact in facts], ensure_ascii=False)


def topics(facts: Iterable[Fact]) -> str:
    """What facts are about: their subjects, the source of a pair that has none of its own."""
    return " ; ".join(dict.fromkeys(label(fact.subject) for fact in facts))


# How they read


def label(name: str) -> str:
    """An entity as text: `Aarhus_Airport` and `"Aarhus Airport"` are Aarhus Airport."""
    text = name[1:-1] if len(name) > 2 and name[0] == name[-1] == '"' else name
    return " ".join(text.replace("_", " ").split()) or name


def relation_label(name: str) -> str:
    """A relation as text: `leaderName` is leader Name."""
    return _HUMP.sub(" ", label(name))


@lru_cache(1 << 16)
def key(text: str) -> str:
    """A text by its words alone, without case, accents and punctuation, each with a space before it and after the last;
    characters of scripts without spaces are words. Two texts of one key are the same name."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    words = _UNITS.findall("".join(letter for letter in plain if not unicodedata.combining(letter)))
    return f" {' '.join(words)} " if words else ""


def names(entity: str) -> list[str]:
    """The keys that an entity goes by: of its whole label, and of it without what stands in brackets at its end."""
    text = label(entity)
    short = _ASIDE.match(text)
    return [found for found in dict.fromkeys([key(text), key(short.group(1)) if short else ""]) if found]


def mentions(text: str, entity: str) -> bool:
    """Whether a text says an entity by one of its names."""
    said = key(text)
    return any(name in said for name in names(entity))


def entities(facts: Iterable[Fact]) -> list[str]:
    """Subjects and objects, each once, in order."""
    return list(dict.fromkeys(name for fact in facts for name in (fact.subject, fact.object)))


# The knowledge base


@dataclass(frozen=True)
class Base:
    """All facts of a file. `where` has the facts that an entity is subject or object of, by the keys of its names, and
    `longest` is the most words of such a key."""

    facts: tuple[Fact, ...]
    where: Mapping[str, Sequence[int]] = field(repr=False)
    longest: int

    @staticmethod
    def of(facts: Iterable[Fact]) -> Base:
        """A base of these facts, each once."""
        kept = tuple(dict.fromkeys(facts))
        where: dict[str, list[int]] = {}
        for number, fact in enumerate(kept):
            for name in dict.fromkeys([*names(fact.subject), *names(fact.object)]):
                where.setdefault(name, []).append(number)
        return Base(kept, where, max((name.count(" ") - 1 for name in where), default=0))

    def about(self, text: str) -> list[Fact]:
        """Facts whose subject or object the text mentions, longer names first tried.

        Those come first whose relation and other entity share most words with the text, then as in the file.
        """
        words = key(text).split()
        found: dict[int, None] = {}
        place = 0
        while place < len(words):
            ends = range(min(len(words), place + self.longest), place, -1)
            end = next((end for end in ends if f" {' '.join(words[place:end])} " in self.where), None)
            if end is not None:
                found.update(dict.fromkeys(self.where[f" {' '.join(words[place:end])} "]))
            place = end or place + 1
        said = set(words)
        order = sorted(found, key=lambda number: (-self._shared(self.facts[number], said), number))
        return [self.facts[number] for number in order]

    @staticmethod
    def _shared(fact: Fact, said: set[str]) -> int:
        words = {
            word for part in (fact.subject, relation_label(fact.relation), fact.object) for word in key(part).split()
        }
        return len(words & said)


def read(path: Path | str, report: Report) -> Base:
    """A knowledge base from JSON, JSONL, TSV or Turtle, by the file's suffix; TSV where that says nothing.

    JSON is a list of facts, or a table from anything to lists of facts. Odd lines are refused with their place;
    repeated facts are counted in `report`.
    """
    path = Path(path)
    inner = path.with_suffix("") if path.suffix.lower() in (".gz", ".xz") else path
    read_facts = _READERS.get(inner.suffix.lower(), _tsv)
    facts = list(read_facts(path, report))
    if not facts:
        raise DataError("there is no fact in it", where=path, do="check that this is the right file")
    base = Base.of(facts)
    if again := len(facts) - len(base.facts):
        report.add("repeated fact left out", path, times=again)
    if nameless := sum(not names(name) for name in entities(base.facts)):
        report.add("entity without a letter or digit, which no text can mention", path, times=nameless)
    return base


def fingerprint(path: Path | str) -> str:
    """The SHA-256 of the file."""
    open_bytes(Path(path)).close()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _placed(item: Any, number: int, place: str) -> Fact:
    try:
        return _fact(item, number)
    except DataError as error:
        raise DataError(
            "is no fact of subject, relation and object", where=place, got=error.got, do="repair it"
        ) from None


def _tsv(path: Path, report: Report) -> Iterator[Fact]:
    for row in line_rows(path, report):
        place = f"{path}:{row.number}"
        if row.problem:
            raise DataError(row.problem, where=place, do="repair or remove the line")
        if not row.values.strip():
            report.add("blank line skipped", place)
            continue
        parts = row.values.split("\t")
        if row.number > 1 or tuple(map(str.lower, parts)) not in HEADERS:
            yield _placed(parts, row.number, place)


def _jsonl(path: Path, report: Report) -> Iterator[Fact]:
    for row in line_rows(path, report):
        place = f"{path}:{row.number}"
        if row.problem:
            raise DataError(row.problem, where=place, do="repair or remove the line")
        if row.values.strip():
            yield _placed(_loaded(row.values, place), row.number, place)
        else:
            report.add("blank line skipped", place)


def _json(path: Path, report: Report) -> Iterator[Fact]:
    with open_bytes(path) as stream:
        content = stream.read(LONGEST + 1)
    if len(content) > LONGEST:
        do = "write one fact a line and call the file .jsonl or .tsv"
        raise DataError(f"is larger than {LONGEST:,} bytes", where=path, do=do)
    value = _loaded(content, str(path))
    if isinstance(value, dict):
        value = [item for items in value.values() for item in (items if isinstance(items, list) else [items])]
    if not isinstance(value, list):
        raise DataError("is neither a list of facts nor a table of such lists", where=path, got=type(value).__name__)
    for number, item in enumerate(value, start=1):
        yield _placed(item, number, f"{path}, fact {number}")


def _loaded(content: str | bytes, place: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON ({error})", where=place, do="repair it") from None


def _turtle(path: Path, report: Report) -> Iterator[Fact]:
    """RDF: names by `rdfs:label` where there is one, else by the end of their address."""
    try:
        import rdflib
        import rdflib.compare
    except ImportError:
        raise require("knowledge", "rdflib") from None
    graph: Any = rdflib.Graph()
    kind = "nt" if ".nt" in path.suffixes else "turtle"
    try:
        with open_bytes(path) as stream:
            graph.parse(stream, format=kind)
    except DataError:
        raise
    except Exception as error:  # rdflib has no common base of its errors
        reason = " ".join(str(error).split()).partition(" at ^ in: ")[0].replace(" of <>", "")[:200]
        raise DataError(f"is not readable {kind}: {reason}", where=path, do="repair it") from None
    if any(isinstance(part, rdflib.BNode) for triple in graph for part in triple):  # else they are named at random
        graph = rdflib.compare.to_canonical_graph(graph)
    labels = sorted(
        graph.subject_objects(rdflib.RDFS.label), key=lambda pair: (pair[1].language in (None, "en"), *pair)
    )
    called = {subject: str(text) for subject, text in labels}
    for subject, relation, thing in sorted(graph):
        if relation == rdflib.RDFS.label:
            continue
        parts = [called.get(part) or _local(str(part)) for part in (subject, relation, thing)]
        parts[2] = str(thing) if isinstance(thing, rdflib.Literal) else parts[2]
        yield _placed(parts, 1, f"{path}, {' '.join(part.n3() for part in (subject, relation, thing))[:120]}")


def _local(address: str) -> str:
    """The end of an address: `http://dbpedia.org/resource/Aarhus` is Aarhus."""
    return unquote(re.split(r"[/#]", address.rstrip("/#"))[-1]) or address


_READERS: dict[str, Callable[[Path, Report], Iterator[Fact]]] = {
    ".json": _json, ".jsonl": _jsonl, ".ndjson": _jsonl, ".ttl": _turtle, ".nt": _turtle,
}  # fmt: skip
