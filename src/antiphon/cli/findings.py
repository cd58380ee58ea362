"""How an audit looks on a terminal: what the data is, each finding with its evidence and its cure, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from antiphon.diagnosis.findings import VERDICTS, Audit, Example, Finding, Level, some

STYLES: dict[Level, str] = {"stop": "bold red", "care": "yellow", "note": "dim"}
SIGNS: dict[Level, str] = {"stop": "✗", "care": "!", "note": "·"}
ENDINGS: dict[Level, str] = {
    "stop": "stop: mend this first", "care": VERDICTS["care"], "note": VERDICTS["note"],
}  # fmt: skip
LINES = 6
"""Line numbers that are shown."""


def report(audit: Audit, *, full: bool = False) -> RenderableType:
    """The whole report; notes on a line each, unless it is to be `full`."""
    parts: list[RenderableType] = [*_data(audit), Text()]
    for finding in audit.findings:
        if full or finding.level != "note":
            parts += [_finding(finding), Text()]
    notes = [finding for finding in audit.findings if finding.level == "note" and not full]
    if notes:
        parts += [_notes(notes), Text()]
    return Group(*parts, _verdict(audit))


def _data(audit: Audit) -> Iterator[RenderableType]:
    """What there is: pairs, lengths, scripts, tokens."""
    train = audit.counts["train"]
    size = f"   {train['pairs']:,} pairs", (f" in {train['lines']:,} lines", "dim")
    yield Text.assemble((audit.data.name, "bold"), *size)
    yield Text()
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    for side in ("source", "target"):
        table.add_row(side, Text(_side(train, side), overflow="fold"))
    if "tokenizer" in audit.counts:
        table.add_row("tokens", Text(_tokens(audit.counts["tokenizer"])))
    for name in ("valid", "test"):
        if name in audit.counts:
            part = audit.counts[name]
            table.add_row(name, Text(f"{part['pairs']:,} pairs{_unknown(audit.counts, name)}"))
    yield Padding(table, (0, 0, 0, 2))


def _side(counts: dict[str, Any], side: str) -> str:
    lengths, scripts = counts[f"{side} characters"], counts["scripts"][side]
    usual = f"{lengths['median']:,.0f} characters ({lengths['5 %']:,.0f} to {lengths['95 %']:,.0f})"
    shares = ((name, share) for name, share in scripts.items() if share >= 0.005)
    written = ", ".join(name if share > 0.995 else f"{name} {share:.0%}" for name, share in shares)
    return f"{usual}, {written or 'no letters'}, {counts[f'distinct {side}s']:,} different"


def _tokens(found: dict[str, Any]) -> str:
    sides = [f"{side} {found['settings'][side]['tokenizer']} of {found['settings'][side]['vocabulary']:,}, "
             f"{found['train'][side]['tokens a text']:g} a text" for side in ("source", "target")]  # fmt: skip
    return "; ".join(sides)


def _unknown(counts: Mapping[str, Any], name: str) -> str:
    if "tokenizer" not in counts:
        return ""
    shares = (counts["tokenizer"][name][side]["unknown"] for side in ("source", "target"))
    return ", unknown tokens " + " and ".join(f"{share:.2%}" for share in shares)


def _finding(finding: Finding) -> RenderableType:
    """Symptom, evidence, cost and cure, with examples."""
    style = STYLES[finding.level]
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, width=4, style="dim")
    table.add_column()
    table.add_row(Text(SIGNS[finding.level], style), Text(finding.symptom, style))
    table.add_row("", Text(f"{finding.sure}{_where(finding)}", "dim"))
    table.add_row("cost", Text(finding.cost))
    table.add_row("cure", Text(finding.cure))
    if finding.examples:
        table.add_row("", _examples(finding.examples))
    return table


def _where(finding: Finding) -> str:
    if not finding.lines:
        return f"; {finding.file}"
    first = ", ".join(f"{line:,}" for line in finding.lines[:LINES])
    more = f" and {len(finding.lines) - LINES:,} more" if len(finding.lines) > LINES else ""
    return f"; {finding.file}:{first}{more}"


def _examples(examples: Sequence[Example]) -> RenderableType:
    """Each example on a line, and below it what there is to say of it."""
    width = max(len(f"{example.line:,}") for example in examples)
    parts: list[RenderableType] = []
    for example in examples:
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(justify="right", style="cyan", no_wrap=True, width=width)
        for _ in range(2):
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_row(f"{example.line:,}", Text(_plain(example.source)), Text(_plain(example.target)))
        parts += [table] if example.source or example.target else []
        if example.about:
            about = Text(_plain(example.about), "dim", no_wrap=True, overflow="ellipsis")
            parts.append(Padding(about, (0, 0, 0, width + 2)))
    return Group(*parts)


def _plain(text: str) -> str:
    """What cannot be shown, spelled out."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _notes(notes: Iterable[Finding]) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, width=4)
    table.add_column()
    for finding in notes:
        line = f":{finding.lines[0]:,}" if finding.lines else ""
        about = Text(finding.symptom).append(f"  {finding.file.rpartition('/')[2]}{line}", "dim")
        table.add_row(Text(SIGNS["note"], "dim"), about)
    return table


def _verdict(audit: Audit) -> Text:
    style = {"stop": "bold red", "care": "bold yellow", "note": "bold green"}[audit.verdict]
    grave = sum(finding.level != "note" for finding in audit.findings)
    counts = f"{some(grave, 'finding', 'findings')}, {some(len(audit.findings) - grave, 'note', 'notes')}"
    about = f"   {counts}, {audit.seconds:.1f} CPU seconds; --all shows all of it"
    return Text.assemble((ENDINGS[audit.verdict], style), (about, "dim"))
