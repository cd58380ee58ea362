"""What an audit found: symptom, evidence, how sure, what it costs, the cure; and the verdict over all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from antiphon.diagnosis.reading import Texts

Level = Literal["note", "care", "stop"]
Sure = Literal["certain", "very likely", "likely", "possible"]
Rows = Sequence[int] | np.ndarray
Remedy = Literal["", "drop", "repair", "move"]

VERDICTS: dict[Level, str] = {"note": "go", "care": "go with care", "stop": "stop"}

LISTED, SHORT = 1000, 160
"""Line numbers that JSON lists of a finding, and characters of an example."""


@dataclass(frozen=True)
class Example:
    """A pair that shows what is meant."""

    line: int
    source: str
    target: str
    about: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    `figures` and `lines` (of `file`, from 1) are its evidence, `examples` three of them. `remedy` is what `--fix` does
    with the pairs `rows`: it leaves them out, repairs their text, or moves their targets by `offset` lines.
    """

    kind: str
    level: Level
    symptom: str
    file: str
    sure: Sure
    cost: str
    cure: str
    figures: Mapping[str, float | int | str] = field(default_factory=dict)
    lines: tuple[int, ...] = ()
    examples: tuple[Example, ...] = ()
    remedy: Remedy = ""
    rows: tuple[int, ...] = ()
    offset: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `lines_in_all` says how many lines there are where not all are listed."""
        return {
            "kind": self.kind, "level": self.level, "symptom": self.symptom, "sure": self.sure, "file": self.file,
            "figures": dict(self.figures), "lines": list(self.lines[:LISTED]), "lines_in_all": len(self.lines),
            "examples": [vars(example) for example in self.examples], "cost": self.cost, "cure": self.cure,
            "fix": self.remedy,
        }  # fmt: skip


@dataclass(frozen=True)
class Audit:
    """All findings, the gravest first, with the counts and the profile of the data."""

    data: Texts
    counts: Mapping[str, Any]
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def verdict(self) -> Level:
        """The gravest level of all findings."""
        return self.findings[0].level if self.findings else "note"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "data": self.data.name, "verdict": VERDICTS[self.verdict], "counts": dict(self.counts),
            "findings": [finding.to_dict() for finding in self.findings], "cpu_seconds": round(self.seconds, 2),
        }  # fmt: skip


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The gravest first, else as they came."""
    return tuple(sorted(findings, key=lambda finding: ("stop", "care", "note").index(finding.level)))


def graded(share: float, care: float, stop: float | None = None) -> Level:
    """How grave a share of the lines is."""
    return "stop" if stop is not None and share >= stop else "care" if share >= care else "note"


def shown(texts: Texts, rows: Rows, about: Mapping[int, str] | None = None) -> tuple[Example, ...]:
    """The first, the middle and the last of some pairs, long texts shortened."""
    chosen = sorted({0, len(rows) // 2, len(rows) - 1}) if len(rows) else []
    return tuple(example(texts, int(rows[place]), (about or {}).get(int(rows[place]), "")) for place in chosen)


def example(texts: Texts, row: int, about: str = "") -> Example:
    """One pair."""
    pair = texts.pairs[row]
    return Example(texts.line(row), shorter(pair.source), shorter(pair.target), about)


def shorter(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"


def places(texts: Texts, rows: Iterable[int]) -> tuple[int, ...]:
    """The lines of some pairs, each once, in order."""
    return tuple(sorted({texts.line(row) for row in rows}))


def some(count: int, one: str, many: str) -> str:
    """The count with the words that go with it: `1 pair has`, `2 pairs have`."""
    return f"{count:,} {one if count == 1 else many}"
