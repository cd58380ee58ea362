"""How the findings of a doctor look on a terminal: the likeliest cause with its picture, its evidence and its cure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from antiphon.cli.drawing import curve, sparkline
from antiphon.diagnosis.doctor.findings import HIGH, SAID, Evidence, Examination, Finding, Plot

if TYPE_CHECKING:
    from antiphon.diagnosis.doctor.curing import Best
    from antiphon.diagnosis.doctor.trying import Trial

WIDE, TALL = 48, 6


def report(found: Examination, *, full: bool = False) -> RenderableType:
    """The whole report: a verdict, each likely finding in full, others on a line each, and what was looked at."""
    likely = [finding for finding in found.findings if full or finding.confidence >= SAID]
    others = [finding for finding in found.findings if finding not in likely]
    parts: list[RenderableType] = [_verdict(found), Text()]
    if not found.named:
        parts += [Padding(_line("training loss", found.losses), (0, 0, 1, 2))]
    for number, finding in enumerate(likely):
        parts += [_finding(finding, first=number == 0), Text()]
    if others:
        parts += [_others(others), Text()]
    return Group(*parts, Text(f"looked at: {'; '.join(found.looked_at)}   {found.seconds:.1f} CPU seconds", "dim"))


def _verdict(found: Examination) -> Text:
    if not found.named:
        state = ("healthy", "bold green") if found.healthy else ("not healthy", "bold yellow")
        return Text.assemble((found.run, "bold"), "   ", state, f"   {found.verdict}")
    first = found.findings[0]
    style = "bold red" if first.confidence >= HIGH else "bold yellow"
    return Text.assemble((found.run, "bold"), "   ", (first.cause, style), (f"   {_how_sure(first)}", "dim"))


def _how_sure(finding: Finding) -> str:
    sure = finding.confidence
    word = (
        "nearly certain" if sure >= 0.9 else "very likely" if sure >= HIGH else "likely" if sure >= SAID else "possible"
    )
    return f"{word}, {sure:.0%}"


def _finding(finding: Finding, *, first: bool) -> RenderableType:
    style = "bold red" if finding.confidence >= HIGH else "bold yellow" if finding.confidence >= SAID else "bold"
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, width=8, style="dim")
    table.add_column()
    table.add_row(_bar(finding.confidence), Text.assemble((finding.cause, style), (f"   {_how_sure(finding)}", "dim")))
    table.add_row("symptom", Text(finding.symptom))
    if finding.plot and len(finding.plot.points) > 1:
        table.add_row(
            "", Padding(_picture(finding.plot) if first else _line(finding.plot.name, finding.plot), (1, 0, 1, 0))
        )
    for number, evidence in enumerate(finding.evidence):
        table.add_row("" if number else "evidence", _evidence(evidence))
    table.add_row("rivals", Text(finding.told_apart))
    table.add_row("cure", _cure(finding))
    if finding.expect:
        table.add_row("expect", Text(finding.expect, "green"))
    return table


def _bar(share: float, width: int = 7) -> Text:
    filled = round(width * share)
    return Text("━" * filled, "red" if share >= HIGH else "yellow").append("━" * (width - filled), "bright_black")


def _evidence(evidence: Evidence) -> Text:
    step = "" if evidence.step is None else f"step {evidence.step:,}"
    where = ", ".join(part for part in (step, evidence.where) if part)
    return Text(evidence.text).append(f"   {where}" if where else "", "dim")


def _cure(finding: Finding) -> Text:
    if not finding.cure and not finding.action:
        return Text("none by settings: those that would help are as proposed already", "dim")
    text = Text(" ".join(f"{key}={shown(value)}" for key, value in finding.cure.items()), "bold cyan")
    return text.append("\n" if finding.cure and finding.action else "").append(finding.action, "default")


def shown(value: Any) -> str:
    """A value as it is typed."""
    return "auto" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"


def _picture(plot: Plot) -> RenderableType:
    """A curve with its heights, and its name below."""
    lines = curve(plot.points, WIDE, TALL)
    first, last = (f"{plot.points[place][0]:,.0f}" for place in (0, -1))
    below = f"{'':10}{first}{f'{last} {plot.over}s':>{max(1, WIDE - len(first))}}"
    return Group(Text(plot.name, "dim"), *(Text(line, "cyan") for line in lines), Text(below, "dim"))


def _line(name: str, plot: Plot) -> Text:
    values = [value for _, value in plot.points]
    if not values:
        return Text()
    return Text.assemble(
        (f"{name}  ", "dim"), (f"{values[0]:.3g} ", ""), (sparkline(values), "cyan"), f" {values[-1]:.3g}"
    )


def _others(findings: Iterable[Finding]) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, width=8)
    table.add_column()
    for finding in findings:
        table.add_row(
            _bar(finding.confidence), Text.assemble((f"{finding.cause}  ", "default"), (finding.symptom, "dim"))
        )
    return Group(Text("less likely, --all shows why", "dim"), table)


def trial(made: Trial) -> Text:
    """An experiment and what came of it, on a line."""
    return Text.assemble(("tried  ", "dim"), (made.name, "bold"), (f"  {made.text}", "default"))


def outcome(before: Best, after: Best, out: Path) -> RenderableType:
    """Before and after the cure."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for title in ("", "before", "after the cure"):
        table.add_column(title, justify="left" if not title else "right")
    for name, old, new in _rows(before, after):
        table.add_row(name, *(Text("none" if each is None else f"{each:.4g}", style)
                              for each, style in ((old, "default"), (new, "bold green"))))  # fmt: skip
    return Group(Text(), table, Text(f"the cured run is in {out}", "dim"))


def _rows(before: Best, after: Best) -> Iterator[tuple[str, float | None, float | None]]:
    if before.metric != "loss" and before.metric == after.metric:
        yield before.metric, before.value, after.value
    yield "held-out loss", before.loss, after.loss
