"""A cleaned copy of the data, and a list of what went where; the files themselves are never touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antiphon.core.errors import ConfigError, DataError
from antiphon.data.columns import REFERENCES, TARGETS, TURNS, Pair, listed
from antiphon.data.corpus import kind_of_table
from antiphon.data.report import Report
from antiphon.diagnosis.damage import is_lost, repaired
from antiphon.diagnosis.findings import Audit
from antiphon.diagnosis.reading import Texts, raw_rows
from antiphon.diagnosis.writing import write_rows

LOST = "encoding: lost"
OF_PAIRS = ("lengths", "copied", "noise", "unrelated", "turned round", "duplicate pairs")
OF_TARGETS = ("target script", "target language")
"""Kinds of findings about how both sides go together, and about the target alone."""


@dataclass
class Plan:
    """What becomes of the pairs: those to leave out with the reason, kinds of damage to repair, targets from elsewhere
    with the reason."""

    drops: dict[int, str] = field(default_factory=dict)
    repairs: dict[int, frozenset[str]] = field(default_factory=dict)
    moves: dict[int, tuple[str, str]] = field(default_factory=dict)
    origin: dict[int, int] = field(default_factory=dict)
    """Of a moved target: the row that it was in."""
    rest: dict[int, int] = field(default_factory=dict)
    """Of lines of one file alone whose target was moved: the row that has it now."""

    @staticmethod
    def of(audit: Audit, keep: Collection[str] = ()) -> Plan:
        """All remedies, but for the kinds of findings to `keep`; the first reason counts."""
        plan = Plan()
        for finding in audit.findings:
            if finding.kind in keep:
                continue
            if finding.remedy == "move":
                plan.move(audit.data, finding.rows, finding.offset)
            elif finding.remedy == "repair":
                kind = finding.kind.removeprefix("encoding: ")
                for row in finding.rows:
                    plan.repairs[row] = plan.repairs.get(row, frozenset()) | {kind}
            elif finding.remedy == "drop":
                for row in finding.rows:
                    plan.drops.setdefault(row, finding.kind)
        plan._settle(audit.data)
        return plan

    def _settle(self, texts: Texts) -> None:
        """What was found of a target goes where the target goes; what was found of a pair went with the pair."""
        drops, repairs = dict(self.drops), dict(self.repairs)
        for row in self.moves:
            other = self.origin.get(row, -1)  # -1: a line of one file alone
            own, theirs = drops.get(row, ""), drops.get(other, "")
            if own in OF_PAIRS or own in OF_TARGETS or (own == LOST and not is_lost(texts.pairs[row].source)):
                self.drops.pop(row)
            if theirs in OF_TARGETS or (theirs == LOST and is_lost(texts.targets[other])):
                self.drops[row] = theirs
            if kinds := repairs.get(row, frozenset()) | repairs.get(other, frozenset()):
                self.repairs[row] = kinds

    def move(self, texts: Texts, rows: Collection[int], offset: int) -> None:
        """Targets from so many lines further; where a pair that stays as it is has one of these, which of the two is
        right is not known, and both are left out."""
        row_of = {int(line): row for row, line in enumerate(texts.lines)}
        moving, beyond = set(rows), {line: target for line, _, target in texts.rest if target.strip()}
        for row in rows:
            line = texts.line(row) + offset
            other = row_of.get(line)
            if other is None and line in beyond:
                self.moves[row] = (beyond[line], f"misaligned: target of line {line}")
                self.rest[line] = row
            elif other is None:
                self.drops[row] = f"misaligned: its target would stand in line {line}, where there is none"
            elif other not in moving:
                self.drops[row] = f"misaligned: its target may be that of line {line}"
                self.drops[other] = f"misaligned: its target may be that for line {texts.line(row)}"
            else:
                self.moves[row] = (texts.targets[other], f"misaligned: target of line {line}")
                self.origin[row] = other


@dataclass(frozen=True)
class Cleaned:
    """Where the cleaned copy and the list are, and how many lines were kept, left out and changed."""

    files: tuple[Path, ...]
    removed: Path
    kept: int
    dropped: int
    changed: int


def clean(audit: Audit, out: str, keep: Collection[str] = ()) -> Cleaned:
    """Write what is left of the data after all remedies to `out`, in the format it came in, and `out.removed.tsv`.

    Of two parallel files, `out` is two names with a comma between, or one that gets their suffixes. Raises
    `ConfigError` for kinds of findings that there are not, and `DataError` where a file is there already.
    """
    texts = audit.data
    known = sorted({finding.kind for finding in audit.findings})
    if strange := [kind for kind in keep if kind not in known]:
        raise ConfigError(f"there is no finding {strange[0]}", where="--keep", do=f"known: {', '.join(known)}")
    files, removed = _names(texts, out)
    work = _Work(texts, Plan.of(audit, keep))
    write_rows(files, work.rows(), texts.files)
    entries = sorted(work.list, key=lambda entry: int(entry[1]))
    lines = ["reason\tline\tsource\ttarget", *map("\t".join, entries)]
    removed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Cleaned(files, removed, work.kept, work.dropped, work.changed)


def _names(texts: Texts, out: str) -> tuple[tuple[Path, ...], Path]:
    names = [name.strip() for name in out.split(",")] if len(texts.files) == 2 else [out]
    first = Path(names[0])
    if not first.name:
        raise ConfigError("this is no name of a file", where="--fix", got=repr(out), do="name the clean copy")
    if len(texts.files) == 2 and len(names) == 1:
        suffixes = ["".join(path.suffixes) for path in texts.files]
        if suffixes[0] == suffixes[1]:
            raise ConfigError("the two files end alike", where="--fix", got=out, do="give two names: --fix a,b")
        names = [out + suffix for suffix in suffixes]
    files = tuple(map(Path, names))
    removed = first.with_name(first.name + ".removed.tsv")
    if len(files) != len(texts.files):
        raise ConfigError(f"there are {len(texts.files)} files to clean", where="--fix", got=out)
    for path, original in zip(files, texts.files, strict=True):
        kinds = kind_of_table(path), kind_of_table(original)
        if kinds[0] != kinds[1] and {".csv", ".jsonl", ".ndjson", ".json", ".parquet"} & set(kinds):
            raise ConfigError("the copy has the format of the data", where=f"--fix {path}", do=f"end it in {kinds[1]}")
    for path in (*files, removed):
        if path.exists():
            raise DataError("is there already", where=path, do="choose another name, or remove it first")
    return files, removed


class _Work:
    """Goes through the raw rows once more, does what the plan says, and notes it."""

    def __init__(self, texts: Texts, plan: Plan) -> None:
        self.texts, self.plan = texts, plan
        self.of_line: dict[int, list[int]] = {}
        for row, line in enumerate(texts.lines.tolist()):
            self.of_line.setdefault(line, []).append(row)
        self.odd = {line: reason for reason, lines in texts.odd.items() for line in lines}
        self.list: list[tuple[str, str, str, str]] = []
        self.kept = self.dropped = self.changed = 0

    def rows(self) -> Iterator[Any]:
        """The rows to write: the first line too, where it holds names."""
        place = _target_place(self.texts)
        for row in raw_rows(self.texts.files, Report()):
            if row.number in self.odd:
                self._note(self.odd[row.number], row.number, *_raw(row.values))
                self.dropped += 1
            elif row.number not in self.of_line:
                yield row.values
            elif (values := self._mended(row.values, row.number, place)) is not None:
                self.kept += 1
                yield values
        for line in (line for line, reason in self.odd.items() if reason.startswith("blank")):
            self._note(self.odd[line], line, "", "")
            self.dropped += 1
        for line, source, target in self.texts.rest:
            if line in self.plan.rest and self.plan.rest[line] not in self.plan.drops:
                continue
            self._note("no line beside it", line, source, target)
            self.dropped += 1

    def _mended(self, values: Any, line: int, place: Any) -> Any:
        """The row as it is to be written; None where nothing is left of it."""
        rows = self.of_line[line]
        gone = [row for row in rows if row in self.plan.drops]
        whole = isinstance(values, dict) and TURNS in values
        for row in gone if not whole or len(gone) == len(rows) else ():
            self._note(self.plan.drops[row], line, *_texts(self.texts.pairs[row]))
        if len(gone) == len(rows):
            self.dropped += 1
            return None
        if gone and not whole:
            values = _without(values, {self.texts.pairs[row].target for row in gone})
        before = values
        for row in rows:
            values = self._changed(values, row, line, place)
        self.changed += values != before or bool(gone and not whole)
        return values

    def _changed(self, values: Any, row: int, line: int, place: Any) -> Any:
        pair = self.texts.pairs[row]
        if row in self.plan.moves:
            target, reason = self.plan.moves[row]
            self._note(f"changed: {reason}", line, *_texts(pair))
            values = _set(values, place, target)
        if kinds := self.plan.repairs.get(row):
            self._note(f"changed: {', '.join(sorted(kinds))}", line, *_texts(pair))
            values = _each(values, kinds)
        return values

    def _note(self, reason: str, line: int, source: str, target: str) -> None:
        self.list.append((reason, str(line), " ".join(source.split()), " ".join(target.split())))


def _texts(pair: Pair) -> tuple[str, str]:
    return pair.source, pair.target


def _raw(values: Any) -> tuple[str, str]:
    """What a row that is no pair holds, as two texts."""
    parts = list(values.values()) if isinstance(values, dict) else values if isinstance(values, list) else [values]
    shown = [str(part).encode("utf-8", "backslashreplace").decode() for part in parts]
    return (shown[0] if shown else ""), " ".join(shown[1:])


def _target_place(texts: Texts) -> Any:
    """The column (number or name) that targets stand in."""
    found: Counter[Any] = Counter()
    targets = {line: texts.targets[row] for row, line in enumerate(texts.lines[:1000].tolist())}
    for row in raw_rows(texts.files, Report()):
        if row.number > max(targets, default=0):
            break
        if row.number in targets:
            items = row.values.items() if isinstance(row.values, Mapping) else enumerate(row.values)
            found.update(key for key, value in items if targets[row.number] in listed(value))
    return found.most_common(1)[0][0] if found else 1


def _set(values: Any, place: Any, target: str) -> Any:
    if isinstance(values, dict):
        return {**values, place: [target] if isinstance(values.get(place), list) else target}
    return [target if number == place else value for number, value in enumerate(values)]


def _each(values: Any, kinds: frozenset[str]) -> Any:
    """All texts of a row repaired."""
    if isinstance(values, str):
        return repaired(values, kinds)
    if isinstance(values, dict):
        return {key: _each(value, kinds) for key, value in values.items()}
    return [_each(value, kinds) for value in values] if isinstance(values, list) else values


def _without(values: Any, targets: set[str]) -> Any:
    """The row without some of its several targets, which a table of lists cannot have."""
    if not isinstance(values, dict):
        return values
    said = [key for key in values if key.lower() in (*TARGETS, *REFERENCES)]
    left = {key: [each for each in values[key] if each not in targets] for key in said if isinstance(values[key], list)}
    gone = [key for key in said if isinstance(values[key], str) and values[key] in targets]
    return {key: value for key, value in {**values, **left}.items() if key not in gone}
