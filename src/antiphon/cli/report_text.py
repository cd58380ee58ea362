"""How a report looks on a terminal: the same as on the page, in fewer words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from antiphon.cli.display import marked
from antiphon.cli.drawing import curve
from antiphon.diagnosis.report.judging import Judged, Judgement
from antiphon.diagnosis.report.page import lead, prescribed, shown
from antiphon.diagnosis.report.reading import Points, Run, settings, thinned
from antiphon.diagnosis.report.scores import main_metric
from antiphon.inference.breakdown import Bucket
from antiphon.metrics.base import digits_of

SHOWN, LINES, SMOOTH = 3, 7, 40
"""Worst answers, lines of a curve, and points of a loss that jumps from batch to batch."""


def report(runs: Sequence[Run], found: Judgement, findings: Sequence[Mapping[str, Any] | None]) -> RenderableType:
    """The whole report."""
    parts: list[RenderableType] = []
    for run, judged, finding in zip(runs, found.judged, findings, strict=True):
        parts += [Text(run.name, "bold"), Text(_plain(lead(run, judged)), overflow="fold"), Text()]
        parts += [*_curves(run), *_doctor(finding), *_scores(judged, found), *_weak(judged), *_worst(judged)]
    for run, tests in zip(runs[1:], found.tests, strict=False):
        if tests:
            parts += [_head(f"{run.name} against {runs[0].name}"), *(Padding(Text(str(each)), (0, 0, 0, 2))
                      for each in tests), Text()]  # fmt: skip
    if len(runs) > 1:
        parts += list(_settings(runs))
    parts += [_head("how to repeat it"), *(Padding(Text(str(run.facts.get("command", "")), overflow="fold"),
              (0, 0, 0, 2)) for run in runs)]  # fmt: skip
    return Group(*parts)


class _Words(HTMLParser):
    """Collects what is between tags."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def _plain(html: str) -> str:
    """The words of a piece of HTML."""
    reader = _Words()
    reader.feed(html)
    return "".join(reader.words)


def _head(title: str) -> Text:
    return Text(title, "dim")


def _curves(run: Run) -> Iterator[RenderableType]:
    """The loss, and what was judged by."""
    trained = thinned(run.curve("loss"), SMOOTH)
    drawn: list[tuple[str, Points]] = [("training loss", trained), ("validation loss", run.losses())]
    if run.metric != "loss":
        drawn.append((f"validation {run.metric}", [(step, value) for step, value, _, _ in run.scored(run.metric)]))
    for name, points in drawn:
        if len(points) > 2:
            yield _head(f"{name}, step {points[0][0]:,.0f} to {points[-1][0]:,.0f}")
            yield Text("\n".join(curve(points, height=LINES)), "cyan", no_wrap=True)
            yield Text()


def _scores(judged: Judged, found: Judgement) -> Iterator[RenderableType]:
    if judged.evaluation is None:
        yield from (Text(judged.why, "yellow"), Text())
        return
    yield _head(f"scores on {found.about}")
    table = Table.grid(padding=(0, 3, 0, 0))
    for score in judged.evaluation.scores.values():
        digits = digits_of(score.name)
        interval = "" if score.interval is None else "[{0:.{2}f}, {1:.{2}f}]".format(*score.interval, digits)
        table.add_row(Text(f"  {score.name}"), Text(f"{score.value:.{digits}f}", "bold"), Text(interval, "dim"))
    yield table
    yield Text()


def _weak(judged: Judged) -> Iterator[RenderableType]:
    if judged.evaluation is None:
        return
    metric = main_metric(judged)
    yield from _bars("by length of the source", judged.evaluation.by_length, metric)
    yield from _bars(f"words, by how often {judged.evaluation.counted} have them", judged.evaluation.by_frequency, "f1")


def _bars(title: str, buckets: Sequence[Bucket], metric: str | None) -> Iterator[RenderableType]:
    have = [bucket for bucket in buckets if metric in bucket.scores]
    if metric is None or not have:
        return
    yield _head(f"{metric} {title}")
    table, top = Table.grid(padding=(0, 2, 0, 0)), max(bucket.scores[metric] for bucket in have) or 1.0
    for bucket in have:
        length = round(24 * max(0.0, bucket.scores[metric]) / top)
        table.add_row(Text(f"  {bucket.label}"), Text(f"{bucket.count:,}", "dim", justify="right"),
                      Text(f"{bucket.scores[metric]:.{digits_of(metric)}f}", justify="right"),
                      Text("━" * length, "cyan"))  # fmt: skip
    yield table
    yield Text()


def _worst(judged: Judged) -> Iterator[RenderableType]:
    if judged.evaluation is None or not judged.evaluation.worst:
        return
    yield _head("the worst answers")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for each in judged.evaluation.worst[:SHOWN]:
        table.add_row("  source", Text(each.source, "bold"))
        table.add_row("  reference", Text(" | ".join(each.references)))
        table.add_row("  answer", marked(each.answer, each.references[0]))
        table.add_row("", "")
    yield table


def _doctor(found: Mapping[str, Any] | None) -> Iterator[RenderableType]:
    """What the doctor says: a line a finding, and its cure."""
    if found is None:
        return
    yield _head("what the doctor says")
    for finding in found.get("findings") or ():
        yield Text(f"  {finding.get('cause')} ({float(finding.get('confidence') or 0):.0%} sure)", "bold")
        for line in (finding.get("symptom"), prescribed(finding) or finding.get("action")):
            yield from [Padding(Text(str(line), overflow="fold"), (0, 0, 0, 4))] if line else []
    if verdict := found.get("verdict"):
        yield Text(f"  {verdict}", "green" if found.get("healthy") else "yellow")
    yield Text()


def _settings(runs: Sequence[Run]) -> Iterator[RenderableType]:
    """The settings in which runs differ."""
    rows = [(name, values) for name, values, _, _ in settings(runs) if any(value != values[0] for value in values)]
    if not rows:
        return
    yield _head("settings that differ")
    table = Table.grid(padding=(0, 3, 0, 0))
    for name, values in rows:
        table.add_row(Text(f"  {name}", "cyan"), *(Text(shown(value)) for value in values))
    yield table
    yield Text()
