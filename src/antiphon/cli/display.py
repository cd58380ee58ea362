"""What a person sees while a model trains: a live panel on a terminal, sparse plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from antiphon.cli.drawing import sparkline, squeeze
from antiphon.training.observers import Answer, Note, Observer, Result, Started, StepEvent, ValidationEvent

if TYPE_CHECKING:
    from antiphon.inference.tasks import Choice

PLAIN_SECONDS = 20.0
"""A plain line of progress at most this often."""


@contextmanager
def watching(
    console: Console, given: Mapping[str, Any] | None = None, *, command: bool = True
) -> Iterator[Observer]:  # fmt: skip
    """The display that suits the console; the terminal is left in order whatever happens.

    `given` are the settings that somebody chose; the recipe shows them beside those it proposes. Raises
    `BrokenPipeError` at the end of a `command` whose lines nobody reads.
    """
    if not console.is_terminal or console.is_jupyter:
        lines = Lines(console, given or {})
        yield lines
        if command and lines.unread:
            raise BrokenPipeError
        return
    panel = Panel(console, given or {})
    try:
        yield panel
    finally:
        with suppress(OSError):
            panel.live.stop()


class Lines(Observer):
    """Plain lines for logs, pipes and notebooks: one at each validation, and a few between. Where nobody reads them any
    more, training stops with a checkpoint."""

    def __init__(self, console: Console, given: Mapping[str, Any]) -> None:
        self.console, self.given, self.last, self.metric = console, given, 0.0, ""
        self.unread = False

    def proposed(self, choices: Iterable[Choice]) -> Answer:
        """The recipe, before anything else."""
        return self._say(recipe(choices, self.given))

    def started(self, event: Started) -> Answer:
        """What begins."""
        self.metric, self.last = event.metric, time.monotonic()
        return self._say(heading(event))

    def step(self, event: StepEvent) -> Answer:
        """Every now and then, how it goes."""
        if time.monotonic() - self.last < PLAIN_SECONDS:
            return None
        self.last = time.monotonic()
        left = f", {clock(event.eta_seconds)} left" if event.eta_seconds is not None else ""
        speed = f"{event.tokens_per_second:,.0f} tokens/s"
        return self._say(f"epoch {event.epoch + 1}, step {event.step}: loss {event.loss:.3f}, {speed}{left}")

    def validated(self, event: ValidationEvent) -> Answer:
        """What the validation found."""
        best = " (best)" if event.best else ""
        return self._say(f"step {event.step}: validation {measures(event, self.metric)}{best}")

    def noted(self, event: Note) -> Answer:
        """All notes but choices, which the recipe shows."""
        return self._say(event.text) if event.kind != "choice" else None

    def finished(self, event: Result) -> None:
        """How it ended."""
        self._say(ending(event))

    def _say(self, what: RenderableType) -> Answer:
        try:
            self.console.print(what, soft_wrap=isinstance(what, str), highlight=False, markup=False)
        except BrokenPipeError:
            self.unread = True
            return "stop"
        except OSError:  # a full disk has no room for what is said, and perhaps for what is learned
            pass
        return None


class Panel(Observer):
    """A live panel: where it is, how fast, how long still, the loss as a curve, the score, and growing samples. A
    terminal that is closed meanwhile is no error."""

    def __init__(self, console: Console, given: Mapping[str, Any]) -> None:
        self.console, self.given = console, given
        self.begun: Started | None = None
        self.now: StepEvent | None = None
        self.losses = Trace()
        self.validations: list[ValidationEvent] = []
        self.clock, self.farewell = time.monotonic(), ""
        self.live = Live(console=console, get_renderable=self.render, refresh_per_second=4)

    def proposed(self, choices: Iterable[Choice]) -> None:
        """The recipe, before anything else."""
        self._print(recipe(choices, self.given))
        self._print()

    def started(self, event: Started) -> None:
        """What begins; from here on the panel lives."""
        self.begun, self.clock = event, time.monotonic()
        self._print(heading(event), style="dim", highlight=False)
        self._print()
        with suppress(OSError):
            self.live.start()

    def step(self, event: StepEvent) -> None:
        """Remember for the next picture."""
        self.now = event
        self.losses.add(event.loss)

    def validated(self, event: ValidationEvent) -> None:
        """Remember for the next picture."""
        self.validations.append(event)

    def noted(self, event: Note) -> None:
        """All notes but choices, which the recipe shows; why it stopped comes last."""
        if event.kind == "stop":
            self.farewell = event.text
        elif event.kind != "choice":
            self._print(Text(event.text, style="yellow" if event.kind in ("audit", "skip", "rollback") else "dim"))

    def finished(self, event: Result) -> None:
        """How it ended, below the last picture."""
        with suppress(OSError):
            self.live.stop()
        self._print()
        self._print(ending(event), highlight=False)
        if self.farewell:
            self._print(self.farewell, highlight=False, soft_wrap=True, style="bold")

    def _print(self, *what: RenderableType, **options: Any) -> None:
        with suppress(OSError):
            self.console.print(*what, **options)

    def render(self) -> RenderableType:
        """The panel as it stands."""
        if self.now is None:
            return Text("the first batch …", style="dim")
        parts: list[RenderableType] = [self._progress(self.now), self._loss(self.now), *facts(self.now)]
        parts += self._scores()
        if self.validations:
            parts += [Text(), *samples(self.validations, self.console.width, self.console.height - 8)]
        return Group(*parts)

    def _progress(self, now: StepEvent) -> Text:
        gone = time.monotonic() - self.clock
        line = Text.assemble(("epoch ", "dim"), str(now.epoch + 1), self._of(), ("   step ", "dim"), f"{now.step:,}")
        line.append("   ").append(f"{now.tokens_per_second:,.0f}").append(" tokens/s", "dim")
        if now.eta_seconds is not None:
            line.append("   ").append_text(meter(gone, gone + now.eta_seconds))
            line.append(f" {clock(now.eta_seconds)}", "bold").append(" left", "dim")
        return line

    def _of(self) -> str:
        epochs = self.begun.epochs if self.begun else None
        return f"/{epochs}" if epochs else ""

    def _loss(self, now: StepEvent) -> Text:
        recent = self.losses.values[-20:] or [now.loss]
        line = Text.assemble(("loss        ", "dim"), f"{sum(recent) / len(recent):<8.3f}")
        return line.append(sparkline(self.losses.values), "cyan")

    def _scores(self) -> Iterable[Text]:
        if not self.validations:
            return [Text("validation  comes soon", style="dim")]
        metric = self.begun.metric if self.begun else ""
        best = next((event for event in reversed(self.validations) if event.best), None)
        line = Text.assemble(("validation  ", "dim"), measures(self.validations[-1], metric))
        if best is self.validations[-1]:
            line.append("  ★ best", "bold green")
        elif best is not None:
            line.append(f"  ★ best {measures(best, metric)} at step {best.step:,}", "green")
        return [line]


def facts(now: StepEvent) -> Iterable[Text]:
    """What the objective says of a step, on one line where it says something."""
    line = Text("objective  ", style="dim")
    for name, value in now.facts.items():
        line.append(f" {name.replace('_', ' ')} ").append(f"{value:.3f}", "default")
    return [line] if now.facts else []


class Trace:
    """A whole history in at most `limit` values: when it is full, neighbours are averaged."""

    def __init__(self, limit: int = 2000) -> None:
        self.values: list[float] = []
        self.limit, self.stride = limit, 1
        self._open: list[float] = []

    def add(self, value: float) -> None:
        """One more value."""
        self._open.append(value)
        if len(self._open) == self.stride:
            self.values.append(sum(self._open) / self.stride)
            self._open.clear()
        if len(self.values) == self.limit:
            self.values = squeeze(self.values, self.limit // 2)
            self.stride *= 2


def samples(validations: list[ValidationEvent], width: int, height: int) -> list[RenderableType]:
    """The same few pairs at the first, the middle and the last validation, or the first and the last where it is tight.

    As many as fit into `height` lines, one a line where `width` allows.
    """
    last, half = len(validations) - 1, len(validations) // 2
    for places in ({0, half, last}, {0, last}):
        events = [validations[place] for place in sorted(places)]
        titles = [f"step {event.step:,}" for event in events]
        rows = _rows(events, max(2, height - 1))
        longest = max((len(text) for row in rows for text in (row[1], *row[2])), default=0)
        if 14 + (longest + 3) * (len(events) + 1) <= width:
            return [_columns(rows, titles)]
    return [line for row in rows[: max(2, height // 4)] for line in _stacked(row, titles, width)]


def _rows(events: list[ValidationEvent], count: int) -> list[tuple[str, str, list[str]]]:
    """Source, wanted target, and the answer at each event."""
    return [
        (source, wanted, [dict(_answers(event)).get(source, "") for event in events])
        for source, wanted, _ in events[-1].samples[:count]
    ]


def _answers(event: ValidationEvent) -> Iterable[tuple[str, str]]:
    return ((source, answer) for source, _, answer in event.samples)


def _columns(rows: list[tuple[str, str, list[str]]], titles: list[str]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for title in ("source", "wanted", *titles):
        table.add_column(title, no_wrap=True)
    for source, wanted, answers in rows:
        table.add_row(Text(source, "bold"), Text(wanted), *(marked(answer, wanted) for answer in answers))
    return table


def _stacked(row: tuple[str, str, list[str]], titles: list[str], width: int) -> Iterable[Text]:
    source, wanted, answers = row
    lines = [("source", Text(source, "bold")), ("wanted", Text(wanted))]
    lines += [(title, marked(answer, wanted)) for title, answer in zip(titles, answers, strict=True)]
    for label, text in lines:
        line = Text(f"{label:<12}", "dim").append_text(text)
        line.truncate(width, overflow="ellipsis")
        yield line


def marked(answer: str, wanted: str) -> Text:
    """The answer with each token green where the wanted text has it in the same order, else red; ✓ if all is right."""
    spaced = " " in wanted
    got, want = (answer.split(" "), wanted.split(" ")) if spaced else (list(answer), list(wanted))
    right = agreeing(got, want)
    text = Text()
    for index, token in enumerate(got):
        text.append(token, "green" if index in right else "red").append(" " if spaced else "")
    if answer == wanted:
        text.append("✓" if spaced else " ✓", "bold green")
    return text


def agreeing(got: Sequence[str], want: Sequence[str]) -> set[int]:
    """The places of `got` that `want` has in the same order."""
    from difflib import SequenceMatcher

    blocks = SequenceMatcher(None, got, want, autojunk=False).get_matching_blocks()
    return {place for block in blocks for place in range(block.a, block.a + block.size)}


def recipe(choices: Iterable[Choice], given: Mapping[str, Any]) -> Table:
    """Setting, value and reason: those that were given, and those that were proposed."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("setting", style="cyan", no_wrap=True)
    table.add_column("value", style="bold")
    table.add_column("reason", style="dim")
    for key, value in given.items():
        shown = ",".join(value) if isinstance(value, tuple) else str(value)
        table.add_row(Text(key), Text(shown, overflow="fold"), "given")
    for choice in choices:
        table.add_row(Text(choice.key), Text(str(choice.value), overflow="fold"), Text(choice.reason))
    return table


def heading(event: Started) -> str:
    """One line on what begins."""
    begin = "training" if event.resumed is None else f"going on from step {event.resumed:,} with"
    threads = f"{event.threads} thread{'s' if event.threads != 1 else ''}"
    sizes = f"{event.parameters:,} parameters on {event.pairs:,} pairs, {event.valid_pairs:,} held out"
    processes = f"{event.processes} processes of " if event.processes > 1 else ""
    return f"{begin} {sizes}; {event.device}, {processes}{threads}"


def ending(event: Result) -> str:
    """One line on how it ended."""
    best = "" if event.best is None else f"; best {event.metric} {event.best:.4g} at step {event.best_step:,}"
    return (
        f"ended after {event.step:,} steps and {clock(event.seconds)} ({REASONS.get(event.reason, event.reason)}){best}"
    )


REASONS = {
    "steps": "all steps done",
    "epochs": "all epochs done",
    "minutes": "time is up",
    "patience": "no better for a while",
    "collapse": "adversarial learning collapsed",
    "observer": "asked to stop",
    "signal": "interrupted",
    "finished": "there was nothing left to do",
}


def measures(event: ValidationEvent, metric: str) -> str:
    """The loss and what is judged by; where that is the loss, how many tokens were right given the right beginning."""
    name = metric if metric in event.scores and metric != "loss" else "forced_accuracy"
    value = f"   {name.replace('forced_', 'token ')} {event.scores[name].value:.2f}" if name in event.scores else ""
    return f"loss {event.loss:.3f}{value}"


def meter(done: float, whole: float, width: int = 16) -> Text:
    """A bar of progress."""
    filled = round(width * min(1.0, done / whole)) if whole > 0 else width
    return Text("━" * filled, "green").append("━" * (width - filled), "bright_black")


def clock(seconds: float) -> str:
    """Seconds as 4:05 or 1:04:05."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
