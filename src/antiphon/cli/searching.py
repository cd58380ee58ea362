"""What a person sees of a search: a live table on a terminal, a line for each trial everywhere else, and the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from antiphon.cli.display import clock, meter
from antiphon.cli.drawing import sparkline
from antiphon.metrics.base import digits_of
from antiphon.tuning.finals import RECIPE
from antiphon.tuning.search import Row
from antiphon.tuning.study import Spec, Study
from antiphon.tuning.tune import Budget, Outcome, Watcher

SIGNS = {"running": ("●", "cyan"), "done": ("✓", "green"), "pruned": ("✂", "dim"), "failed": ("✗", "red"),
         "left": ("⏸", "yellow")}  # fmt: skip
SAID = {"done": "done", "pruned": "ended early", "failed": "failed", "left": "stopped", "running": "begins"}


@contextmanager
def watching(console: Console, *, silent: bool = False) -> Iterator[Watcher]:
    """The display that suits the console; the terminal is left in order whatever happens."""
    if silent:
        yield Watcher()
        return
    if not console.is_terminal or console.is_jupyter:
        lines = Lines(console)
        yield Watcher(lines.opened, lines.row, lines.finals)
        return
    board = Board(console)
    try:
        yield Watcher(board.opened, board.row, board.finals)
    finally:
        board.live.stop()


class Lines:
    """Plain lines for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.spec: Spec | None = None
        self.states: dict[str, str] = {}

    def opened(self, study: Study, budget: Budget) -> None:
        """What is searched."""
        self.spec = study.spec
        self.console.print(heading(study, budget))

    def finals(self, rows: Sequence[Row]) -> None:
        """What is to be compared."""
        self._say(f"finals: {', '.join(_title(row.name) for row in rows)}")

    def row(self, row: Row) -> None:
        """A trial that has ended, or has been stopped."""
        assert self.spec is not None
        if self.states.get(row.name) != row.state and row.state != "running":
            score = "" if row.best is None else f" {self.spec.metric} {_score(row.best, self.spec.metric)},"
            about = f"; {row.note}" if row.note else ""
            about += f" (bracket {row.bracket} %)" if row.bracket else ""
            self._say(f"{_title(row.name)} {SAID[row.state]}:{score} {said(row.changes)}{about}")
        self.states[row.name] = row.state

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)


class Board:
    """A live table: what runs now, the best so far, and how far the search is."""

    def __init__(self, console: Console) -> None:
        self.console, self.rows, self.begun = console, dict[str, Row](), time.monotonic()
        self.spec: Spec | None = None
        self.budget = Budget()
        self.entries: Sequence[Row] = ()
        self.live = Live(console=console, get_renderable=self.render, refresh_per_second=4)

    def opened(self, study: Study, budget: Budget) -> None:
        """What is searched; from here on the table lives."""
        self.spec, self.budget = study.spec, budget
        self.console.print(heading(study, budget))
        self.console.print()
        self.live.start()

    def row(self, row: Row) -> None:
        """Remember for the next picture."""
        self.rows[row.name] = row

    def finals(self, rows: Sequence[Row]) -> None:
        """What is to be compared."""
        self.entries = rows

    def render(self) -> RenderableType:
        """The table as it stands."""
        if self.spec is None or not self.rows:
            return Text("the first training …", style="dim")
        mine = [row for row in self.rows.values() if (" seed " in row.name) == bool(self.entries)]
        return Group(self._progress(), Text(), table(self._shown(mine), self.spec))

    def _progress(self) -> Text:
        spec, trials = self.spec, [row for row in self.rows.values() if " seed " not in row.name]
        assert spec is not None
        over = [row for row in trials if row.state in ("done", "pruned", "failed")]
        wanted = self.budget.trials or (None if self.budget.minutes else self.budget.wanted)
        line = Text.assemble(("trials ", "dim"), f"{len(over)}{f' of {wanted}' if wanted else ''}  ")
        line.append_text(meter(len(over), wanted) if wanted else self._clock())
        line.append(f"  {sum(row.state == 'pruned' for row in trials)} ended early", "dim")
        if self.entries:
            finals = [row for row in self.rows.values() if " seed " in row.name and row.state == "done"]
            many = self.budget.seeds * len(self.entries)
            line.append("   finals ", "dim").append(f"{len(finals)} of {many}  ").append_text(meter(len(finals), many))
        return line.append(f"   {clock(time.monotonic() - self.begun)}", "bold")

    def _clock(self) -> Text:
        return meter(time.monotonic() - self.begun, 60 * (self.budget.minutes or 1))

    def _shown(self, rows: list[Row]) -> list[Row]:
        """What runs, then the best, as many as the screen has room for."""
        spec, room = self.spec, max(4, self.console.height - 8)
        assert spec is not None
        running = [row for row in rows if row.state == "running"]
        return [*running, *ordered((row for row in rows if row.state != "running"), spec)][:room]


def ordered(rows: Iterable[Row], spec: Spec) -> list[Row]:
    """The best first; those that were ended early after those that were trained to the end."""
    sign = -1 if spec.higher else 1
    return sorted(rows, key=lambda row: (row.state != "done", row.best is None, sign * (row.best or 0.0)))


def table(rows: Sequence[Row], spec: Spec) -> Table:
    """Trials: state, score, how it came to it, and what is not as the recipe has it."""
    found = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    found.add_column("", no_wrap=True)
    found.add_column("trial", justify="right", no_wrap=True)
    found.add_column(spec.metric, justify="right", no_wrap=True)
    found.add_column("bracket", justify="right", no_wrap=True)
    found.add_column("as it went", no_wrap=True, width=16)
    found.add_column("what is not as in the recipe", overflow="ellipsis", no_wrap=True, ratio=1)
    for row in rows:
        sign, style = SIGNS[row.state]
        how = meter(row.progress, 1.0) if row.state == "running" else Text(sparkline(list(row.values.values()), 16))
        score = "" if row.best is None else _score(row.best, spec.metric)
        name = row.name if " seed " in row.name else RECIPE if row.name == "0" else row.name
        faint = "dim" if row.state in ("pruned", "failed") else ""
        first = Text(f"{row.bracket} %" if row.bracket else "", "dim")
        found.add_row(Text(sign, style), Text(name, faint), Text(score, faint or "bold"), first, how,
                      Text(row.note or said(row.changes), faint))  # fmt: skip
    return found


def heading(study: Study, budget: Budget) -> RenderableType:
    """What is searched: the pairs, the measure, and each setting with its range."""
    spec = study.spec
    counts = f"{spec.counts['train']:,} pairs, {spec.counts['valid']:,} to compare trainings, "
    counts += f"{spec.counts['judge']:,} to judge finalists ({spec.judged})"
    want = "higher" if spec.higher else "lower"
    first = Text.assemble((spec.data, "bold"), f"   {counts}; {spec.metric}, {want} is better")
    found = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title, style in (("setting", "cyan"), ("recipe", "bold"), ("searched", "dim")):
        found.add_column(title, style=style)
    for each in spec.ranges:
        found.add_row(Text(each.key), Text(_short(spec.recipe[each.key])), Text(str(each)))
    notes = [Text(note, "dim") for note in spec.notes]
    return Group(first, *notes, Text(), found)


def conclusion(found: Outcome) -> RenderableType:
    """What came of it: the finals, what matters, and the verdict."""
    if found.best is None:
        return Text(f"{found.out}: {found.verdict}")
    parts: list[RenderableType] = [Text(), _finals(found)]
    if found.weights:
        parts += [Text(), _weights(found)]
    parts += [Text(), _verdict(found), Text(f"the model is in {found.bundle}; its settings in {found.out}/best.toml")]
    return Group(*parts)


def _finals(found: Outcome) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title, side in (("finals", "left"), ("validation", "right"), (f"judged {found.metric}", "right"),
                        ("each seed", "left"), ("what is not as in the recipe", "left")):  # fmt: skip
        table.add_column(title, justify=side)  # type: ignore[arg-type]
    for each in found.finals:
        mean = sum(each.judged) / len(each.judged)
        own = ", ".join(_score(value, found.metric) for value in each.judged)
        style = "bold green" if each.name == found.winner else ""
        table.add_row(Text(_title(each.name), style), _score(each.mean, found.metric),
                      Text(_score(mean, found.metric), style), Text(own, "dim"), said(each.changes))  # fmt: skip
    return table


def _weights(found: Outcome) -> Table:
    """Each setting as a bar, its share, and what the best trials have in common."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("what matters", "share", "", "in the best trials"):
        table.add_column(title)
    for each in found.weights:
        table.add_row(Text(each.key, "cyan"), f"{each.share:.0%}", meter(each.share, 1.0, 12), Text(each.text, "dim"))
    return table


def _verdict(found: Outcome) -> Text:
    best = [row for row in found.finals if row.name != RECIPE]
    if found.gain is None or not best:
        return Text(found.verdict, "bold")
    style = "bold green" if found.gain.better else "bold yellow"
    who = _title(found.winner) if found.winner != RECIPE else "the best finalist"
    return Text.assemble((f"{who} {found.verdict}", style))


def said(changes: Mapping[str, Any]) -> str:
    """Settings in a few words, without the part that they are of."""
    return (
        ", ".join(f"{key.partition('.')[2]} {_short(value)}" for key, value in changes.items()) or "as the recipe says"
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _score(value: float, metric: str) -> str:
    return f"{value:.{digits_of(metric)}f}"


def _title(name: str) -> str:
    return "recipe" if name in ("0", RECIPE) else name if name.startswith(RECIPE) else f"trial {name}"
