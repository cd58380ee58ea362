"""Raw rows to pairs: which field is the source, which the target, and what makes a row unusable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.core.config import HELD, SIGNALS, Data
from antiphon.core.errors import DataError, nearest
from antiphon.data.arrays import INLINE, as_line, is_numbers, located, path_of, written
from antiphon.data.formats import Row, fault
from antiphon.data.knowledge import COLUMNS, FACTS, parse, topics
from antiphon.data.report import Report
from antiphon.data.turns import Turn, has_mark, join

SOURCES = ("source", "src", "input")
TARGETS = ("target", "tgt", "output")
REFERENCES = ("references", "refs")
"""Column names that are known without `data.columns`."""

TURNS, DIALOGUE = "turns", "dialogue"
"""The column that holds a whole dialogue, and the one that says which dialogue a pair is of: these stay together."""

MOST_DAMAGED = 0.1
"""With `data.damaged=skip`: the share of damaged rows beyond which the data is refused after all."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One example as read: `references` are all accepted targets, `context` further columns by name."""

    source: str
    target: str
    references: tuple[str, ...] = ()
    context: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.target not in self.references and self.target:
            object.__setattr__(self, "references", (self.target, *self.references))


class Odd(Exception):
    """A row that is not a pair; `empty` tells a missing side from damage. Details stand in brackets at the end."""

    def __init__(self, what: str, *, empty: bool = False) -> None:
        super().__init__(what)
        self.what, self.empty = what, empty


Reader = Callable[[Any], list[Pair]]


def pairs_of(
    rows: Iterable[Row], name: str, settings: Data, report: Report, *, need_target: bool, titled: str = "maybe",
    most_damaged: float = MOST_DAMAGED,
) -> Iterator[Pair]:  # fmt: skip
    """The rows as pairs; odd ones are refused or counted as `settings` says, all of them beyond a share of damage.

    `titled` says if the first list row may hold column names: "maybe", "likely" (its absence is reported), or "never".
    """
    read: Reader | None = None
    number, damaged, signals = 0, 0, settings.source.kind in SIGNALS and settings.source.kind not in HELD
    folder = Path(name).parent if os.path.isfile(name) else Path()
    for row in rows:
        number += 1
        try:
            if row.problem:
                raise Odd(row.problem)
            if read is None and isinstance(row.values, list) and titled != "never":
                read, header = _table(row.values, f"{name}:{row.number}", settings, need_target)
                if header:
                    continue
                if titled == "likely":
                    do = "name them in data.columns" if settings.columns else "pass data.columns"
                    report.add(f"first line taken as a pair; if it holds names, {do}", f"{name}:1")
            if read is None:
                read = _items(settings, need_target)
            found = read(row.values)
            found = [_there(pair, folder) for pair in found] if signals else found
            yield from (_counted(pair, settings) for pair in found)
        except Odd as odd:
            damaged += not odd.empty
            _refuse(odd, f"{name}:{row.number}", settings, report, need_target)
    if damaged > most_damaged * number:
        what = f"{damaged:,} of {number:,} rows are damaged, more than {most_damaged:.0%}"
        raise DataError(what, where=name, do="check the format and data.columns")


def _there(pair: Pair, folder: Path) -> Pair:
    """The pair with the path of its source made absolute; `Odd` where no file is there."""
    source = located(pair.source, folder)
    if not source.startswith(INLINE) and not os.path.isfile(path_of(source)):
        raise Odd(f"there is no file {path_of(source)}")
    return replace(pair, source=source)


def _counted(pair: Pair, settings: Data) -> Pair:
    """The pair with its numbers, on the sides that have some, as lines; `Odd` where these are none."""
    if "numbers" not in (settings.source.kind, settings.target.kind):
        return pair
    try:
        side = "source"
        source = as_line(pair.source) if settings.source.kind == "numbers" else pair.source
        if settings.target.kind != "numbers" or not pair.target:
            return replace(pair, source=source)
        side = "target"
        references = tuple(map(as_line, pair.references))
        return replace(pair, source=source, target=as_line(pair.target), references=references)
    except DataError as error:
        details = "; ".join(filter(None, [f"got {error.got}" if error.got else "", error.do]))
        raise Odd(f"{side}: {error.what}" + (f" ({details})" if details else "")) from None


def _refuse(odd: Odd, place: str, settings: Data, report: Report, need_target: bool) -> None:
    option = "empty" if odd.empty else "damaged"
    if getattr(settings, option) == "error":
        instead = f", or pass data.{option}=skip" if need_target else ""  # what is asked wants an answer a row
        raise DataError(odd.what, where=place, do=f"repair or remove the line{instead}")
    report.add(f"skipped: {odd.what.partition(' (')[0]}", place)


def _items(settings: Data, need_target: bool) -> Reader:
    """Reads what an iterable may give: pairs, dicts, lists of two or three, and sources alone where they do."""
    named = _named(settings, need_target)

    def read(values: Any) -> list[Pair]:
        if isinstance(values, Pair):
            return _expand(values.source, listed(values.references or values.target), values.context, need_target)
        if isinstance(values, dict):
            return named(values)
        if isinstance(values, list) and len(values) in (2, 3):
            context = values[2] if len(values) == 3 else {}
            if isinstance(context, dict):
                return _expand(values[0], listed(values[1]), context, need_target)
        if isinstance(values, str) and not need_target:
            return _expand(values, [], {}, False)
        raise Odd(f"is not a pair (got {values!r:.80})")

    return read


def _named(settings: Data, need_target: bool) -> Reader:
    """Reads dicts by `data.columns`, or by the known names."""
    columns = settings.columns
    sources, targets = (columns[:1], columns[1:2]) if columns else (SOURCES, TARGETS)
    references = () if columns else REFERENCES

    def read(values: dict[str, Any]) -> list[Pair]:
        source, target = _first(values, sources), _first(values, targets)
        if source is None and TURNS in values:
            return _dialogue(values, settings)
        more, facts = _first(values, references), _first(values, COLUMNS)
        source = facts if source is None else source
        if source is None:
            raise Odd(
                f"has no {columns[0] if columns else 'source'} (columns: {_names(values)}; name them with data.columns)"
            )
        if target is None and more is None and need_target:
            wanted = columns[1] if len(columns) > 1 else "target"
            raise Odd(f"has no {wanted} (columns: {_names(values)}; name them with data.columns)")
        accepted = [value for name in (target, more) if name is not None for value in listed(values[name])]
        taken = {source, target, more}
        asked = (*columns[2:], *settings.context)
        names = asked if columns else tuple(name for name in values if name not in taken)
        names += tuple(name for name in (settings.balance, DIALOGUE) if columns and name in values)
        for name in asked:
            if name not in values:
                raise Odd(f"has no column {name}")
        context = {name: values[name] for name in (*names, *([facts] if source == facts and facts else []))}
        return _expand(values[source], accepted, context, need_target)

    return read


def _dialogue(values: dict[str, Any], settings: Data) -> list[Pair]:
    """A pair for each turn but the first: the turns before it, at most `data.history`, and what was said then."""
    turns = [_turn(value) for value in listed(values[TURNS])]
    if len(turns) < 2:
        raise Odd("has fewer than two turns", empty=not turns)
    if len({bool(turn.speaker) for turn in turns}) > 1:
        raise Odd("names the speakers of some turns only")
    for name in settings.context:
        if name not in values:
            raise Odd(f"has no column {name}")
    known = {str(name): _context(value, str(name)) for name, value in values.items() if name != TURNS}
    known.setdefault(DIALOGUE, hashlib.blake2b(json.dumps(turns).encode(), digest_size=8).hexdigest())
    before = [turns[max(0, place - settings.history) : place] for place in range(1, len(turns))]
    answers = zip(before, turns[1:], strict=True)
    return [Pair(join(said, answer.speaker), answer.text, (), dict(known)) for said, answer in answers]


def _turn(value: Any) -> Turn:
    """A text, or an object with `text` and `speaker`."""
    said = value if isinstance(value, dict) else {"text": value}
    turn = Turn(_text(said.get("text"), "turn"), _context(said.get("speaker"), "speaker"))
    if has_mark(turn.text) or any(letter in turn.speaker for letter in "<>\r\n\t"):
        raise Odd(f"a turn holds what parts turns (got {turn.speaker or turn.text!r:.80})")
    return turn


def _names(values: Iterable[object]) -> str:
    """Column names, with what cannot be printed spelled out."""
    return ", ".join(map(str, values)).encode("utf-8", "backslashreplace").decode()[:200]


def _first(values: dict[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in values), None)


def listed(value: Any) -> list[Any]:
    """Several values in a list; a list of numbers is one."""
    if value is None:
        return []
    if is_numbers(value):
        return [value]
    return list(value) if isinstance(value, list | tuple) else [value]


def _table(first: list[str], place: str, settings: Data, need_target: bool) -> tuple[Reader, bool]:
    """How to read rows of fields, and if the first of them holds column names."""
    names = [name.strip() for name in first]
    known, beside = _known(names, need_target), tuple[str, ...]()
    if settings.columns and not all(name.isdecimal() for name in settings.columns):
        untold = not need_target and len(settings.columns) > 1 and settings.columns[1] not in names
        asked = settings.columns[:1] if untold else settings.columns
        header, chosen = True, [_place(name, names, place) for name in asked]
        beside = settings.columns[2:] if untold else ()
    elif settings.columns:
        header, chosen = bool(known), [int(name) - 1 for name in settings.columns]
    else:
        header, chosen = bool(known), known or [0, *([1] if need_target or len(first) > 1 else [])]
    titles = names if header else [str(number) for number in range(1, len(first) + 1)]
    rest = [place for place in range(len(first)) if place not in chosen] if not settings.columns else []
    rest += [place for place in chosen[:1] if header and titles[place].lower() in COLUMNS]
    _check_places(chosen, len(first), place, need_target)
    context = {titles[spot]: spot for spot in (*chosen[2:], *rest)}
    context |= {name: _place(name, titles, place, names) for name in (*beside, *settings.context)}
    context |= {name: titles.index(name) for name in (settings.balance, DIALOGUE) if name in titles}  # where there
    if twice := [titles[spot] for spot in (*chosen, *context.values()) if titles.count(titles[spot]) > 1]:
        raise DataError("two columns have the same name", where=place, got=twice[0], do="rename one")
    return _by_place(chosen[0], chosen[1] if len(chosen) > 1 else None, context, len(first), need_target), header


def _known(names: list[str], need_target: bool) -> list[int]:
    """The places of source and target where a line names them; of the source alone where no target is needed."""
    lower = [name.lower() for name in names]
    source = next((lower.index(name) for name in (*SOURCES, *COLUMNS) if name in lower), None)
    target = next((lower.index(name) for name in TARGETS if name in lower), None)
    if source is None or (target is None and need_target):
        return []
    return [source] if target is None else [source, target]


def _place(name: str, names: list[str], place: str, first: Collection[str] = ()) -> int:
    """Where a column is; `first` is the first line where columns go by numbers."""
    if name not in names and name.isdecimal() and 0 < int(name) <= len(names):
        return int(name) - 1
    if name not in names:
        do = "the first line has it: choose all columns by name" if name in first else nearest(name, names)
        raise DataError(f"there is no column {name}", where=place, do=do)
    return names.index(name)


def _check_places(chosen: list[int], count: int, place: str, need_target: bool) -> None:
    if need_target and len(chosen) < 2:
        raise DataError("data.columns must name a source and a target", where=place, got=len(chosen))
    if need_target and chosen[0] == chosen[1]:
        what, do = "data.columns names one column twice", "pass data.columns=1,2"
        raise DataError(what, where=place, got=chosen[0] + 1, do=do)
    if min(chosen) < 0:
        raise DataError("columns are counted from 1", where=place, do="pass data.columns=1,2")
    if count < max(chosen) + 1:
        do = "a pair is two fields with a tab (or comma) between; choose others with data.columns=1,2"
        raise DataError(f"has {count} column(s), column {max(chosen) + 1} is needed", where=place, do=do)


def _by_place(source: int, target: int | None, context: dict[str, int], count: int, need_target: bool) -> Reader:
    def read(values: list[str]) -> list[Pair]:
        if len(values) != count:
            raise Odd(f"has another number of columns than the first line ({len(values)}, not {count})")
        if target is not None and need_target and not context:
            return [Pair(_text(values[source], "source"), _text(values[target], "target"))]
        extra = {name: values[spot] for name, spot in context.items()}
        return _expand(values[source], [] if target is None else [values[target]], extra, need_target)

    return read


def _expand(source: Any, targets: list[Any], context: dict[str, Any], need_target: bool) -> list[Pair]:
    """One pair for each accepted target, each knowing all of them; where none is needed one pair."""
    known = {str(name): _context(value, str(name)) for name, value in context.items()} if context else {}
    if facts := next((name for name in known if name.lower() in COLUMNS), ""):
        source = _with_facts(known, facts, source, context[facts])
    text = _text(" ; ".join(source) if _texts(source) else _inline(source, "source"), "source")
    accepted = [_inline(value, "target") for value in targets]
    if not need_target and not any(accepted):
        return [Pair(text, "", (), known)]
    if not accepted:
        raise Odd("target is empty", empty=True)
    if len(accepted) == 1:
        return [Pair(text, _text(accepted[0], "target"), (), known)]
    references = tuple(dict.fromkeys(_text(target, "target") for target in accepted))
    return [Pair(text, target, references, known) for target in (references if need_target else references[:1])]


def _with_facts(known: dict[str, str], name: str, source: Any, given: Any) -> Any:
    """The source, which is what the facts are about where it is the facts themselves; puts these in their place."""
    try:
        facts = parse(given if given is not None else "")
    except DataError as error:
        raise Odd(f"{error.what} (got {error.got}; {error.do})") from None
    known[FACTS] = known.pop(name)
    same = source is given or (isinstance(source, str | list) and isinstance(given, str | list) and source == given)
    blank = source is None or (isinstance(source, str) and not source.strip())
    return topics(facts) if same or blank else source


def _inline(value: Any, side: str) -> Any:
    """An array of numbers as a line of text; anything else as it is."""
    try:
        return written(value) if is_numbers(value) else value
    except DataError as error:
        raise Odd(f"{side} {error.what} (got {error.got})") from None


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value)


def _text(value: Any, side: str) -> str:
    if type(value) is not str:
        if value is None or (isinstance(value, float | np.floating) and value != value):
            raise Odd(f"{side} is empty", empty=True)
        if not isinstance(value, str | int | float | np.number) or isinstance(value, bool):
            raise Odd(f"{side} must be text (got {value!r:.80})")
        value = str(value)
    if not value or value.isspace():
        raise Odd(f"{side} is empty", empty=True)
    problem = fault(value)
    if problem:
        raise Odd(f"{side} {problem}")
    return value


def _context(value: Any, name: str) -> str:
    if value is None:
        return ""
    value = value.item() if isinstance(value, np.generic) else value
    spelled = isinstance(value, dict | list | tuple | bool | int | float)
    text = json.dumps(value, ensure_ascii=False, default=str) if spelled else str(value)
    problem = fault(text) or fault(name)
    if problem:
        raise Odd(f"column {_names([name])} {problem}")
    return text
