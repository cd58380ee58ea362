"""What the demo shows at its end: scores beside published ones, pronunciations letter by letter, and the curve."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from antiphon.cli.display import agreeing
from antiphon.cli.drawing import alignment, curve, monotone, page

if TYPE_CHECKING:
    from antiphon.data.corpus import Pair
    from antiphon.inference.predictor import Answer
    from antiphon.metrics import Score

SHOWN, LONGEST = 20, 11
"""Sample pronunciations, and the most letters of one."""

PUBLISHED = (("joint n-gram model as WFST (published)", "33.9"), ("Transformer, 3 x 256 (published)", "30.2"))
"""Word error rates on this dictionary; the split is another one."""


def score_table(words: int, error: Score, phones: Score) -> Table:
    """Word and phone error rates with 95 % intervals, and published ones."""
    table = Table(title=f"{words:,} words the model has never seen", title_justify="left", box=None)
    for title in ("", "WER, %", "PER, %"):
        table.add_column(title)
    table.add_row(Text("this model", "bold"), _interval(error), _interval(phones))
    for name, value in PUBLISHED:
        table.add_row(Text(name, "dim"), Text(value, "dim"))
    return table


def _interval(score: Score) -> Text:
    low, high = score.interval or (score.value, score.value)
    return Text.assemble((f"{score.value:.1f}", "bold green"), (f"  {low:4.1f} … {high:4.1f}", "dim"))


def chosen(pairs: Sequence[Pair]) -> list[Pair]:
    """A sample that is the same every time: short enough to draw, in the order of a hash."""
    short = [pair for pair in pairs if 4 <= len(pair.source) <= LONGEST and "'" not in pair.source]
    picked = sorted(short, key=lambda pair: hashlib.sha256(f"shown {pair.source}".encode()).digest())[:SHOWN]
    return sorted(picked, key=lambda pair: pair.source)


def pronunciations(pairs: Sequence[Pair], answers: Sequence[Answer], width: int) -> Table:
    """Each word above its phones, wrong ones in red with the dictionary's beside them, in as many columns as fit."""
    cells = [_pronunciation(pair, answer) for pair, answer in zip(pairs, answers, strict=True)]
    columns = max(1, width // 44)
    rows = -(-len(cells) // columns)
    table = Table.grid(padding=(0, 4, 1, 0))
    for row in range(rows):
        table.add_row(*cells[row::rows])
    return table


def _pronunciation(pair: Pair, answer: Answer) -> Group:
    references = [reference.split() for reference in pair.references or (pair.target,)]
    right = max((agreeing(answer.tokens, reference) for reference in references), key=len)
    styles = ["green" if index in right else "bold red" for index in range(len(answer.tokens))]
    places = monotone(answer.weights[:, :-1]) if answer.tokens else []
    lines = alignment(list(pair.source), answer.tokens, places, styles)
    if answer.tokens in references:
        lines[0].append("✓", "bold green")
    else:
        lines.append(Text("dictionary: " + " or ".join(" ".join(reference) for reference in references), "dim"))
    return Group(*lines)


def curves(console: Console, events: Iterable[dict[str, Any]], path: Path) -> None:
    """The learning curve: validation error as a picture in the terminal, everything as a page for the browser."""
    events = list(events)
    steps = [event for event in events if event["event"] == "step"]
    validations = [event for event in events if event["event"] == "validation"]
    points = [(event["step"], event["scores"]["error"]["value"]) for event in validations]
    if len(points) > 1:
        console.print("Word error on validation words, %, by step", style="bold")
        console.print("\n".join(curve(points)), style="cyan", highlight=False)
        console.print(f"{'':10}{points[0][0]:<10,}{points[-1][0]:>50,}", style="dim", highlight=False)
    try:
        page(path, "Learning to pronounce English", _losses(steps, validations), _scores(points))
        console.print(f"\nThe learning curve as a page: {path}", highlight=False)
    except ImportError:
        console.print("\nFor the learning curve as a page: pip install 'antiphon[plots]'", markup=False)


def _losses(steps: list[dict[str, Any]], validations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """About 200 points of the training loss, each a mean, and every validation loss."""
    size = max(1, len(steps) // 200)
    groups = [steps[start : start + size] for start in range(0, len(steps), size)]
    rows = [
        {"step": group[-1]["step"], "loss": sum(event["loss"] for event in group) / len(group), "of": "training"}
        for group in groups
    ]
    return rows + [{"step": event["step"], "loss": event["loss"], "of": "validation"} for event in validations]


def _scores(points: list[tuple[int, float]]) -> list[dict[str, Any]]:
    return [{"step": step, "score": value, "metric": "word error, %"} for step, value in points]


def next_commands(run: Path, paths: dict[str, Path], full: bool) -> list[tuple[str, str]]:
    """Three commands that work as they are printed, and what each does."""
    program = _program()
    other = f"{program} train {paths['train']} --valid {paths['valid']} --out my-run model.encoder.kind=gru"
    return [
        (f"echo onomatopoeia | {program} predict {run}", "pronounce any word (add --jsonl for scores and alignments)"),
        (
            f"{program} evaluate {run} {paths['test']} --metrics error,per",
            "where it is strong and weak, and its worst answers",
        ),
        (other, "the same words, another network") if full else (f"{program} demo --full", "train longer and better"),
    ]


def _program() -> str:
    """How to call this program from here: by name where the shell finds it, else by its path."""
    here = Path(sys.argv[0])
    if shutil.which("antiphon") or here.name != "antiphon":
        return "antiphon"
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else str(here)


def print_commands(console: Console, commands: Iterable[tuple[str, str]]) -> None:
    """Commands with what they do; never broken into lines, so that they can be copied."""
    console.print("\nTry next", style="bold")
    for command, meaning in commands:
        console.print(meaning, style="dim", highlight=False)
        console.print(f"  {command}", style="cyan", highlight=False, markup=False, soft_wrap=True)
