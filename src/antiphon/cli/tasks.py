"""`antiphon tasks`: what pairs can be for, and what each task brings."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from antiphon.cli.console import Console
from antiphon.inference.tasks import PRESETS, Preset


def tasks() -> None:
    """List the tasks: what they are for, what evaluate scores by, and the settings they bring."""
    table = Table.grid(padding=(0, 2, 1, 0), collapse_padding=False)
    for preset in PRESETS.values():
        about = Text(preset.purpose)
        about.append(f"\nevaluated by {', '.join(preset.metrics)}", "dim")
        about.append("".join(f"\n{line}" for line in brings(preset)), "dim")
        table.add_row(Text(preset.name, "cyan"), about)
    console = Console()
    console.print(table)
    console.print("Type: antiphon train DATA --out RUN --task NAME; what a task leaves open follows from the data.")


def brings(preset: Preset) -> Iterator[str]:
    """What a task proposes where nothing else is set, a line each."""
    if preset.turns:
        yield "the turns before as history"
    if preset.spelled:
        yield "short strings are cut into characters"
    if preset.longest_source:
        yield f"sources of up to {preset.longest_source} tokens"
    if preset.copy:
        yield "model.head=copy"
    if preset.no_repeat:
        yield f"decoding.no_repeat={preset.no_repeat}"
    for choice in preset.choices:
        yield f"{choice.key}={choice.value}"


def table() -> str:
    """The same for the documentation."""
    lines = ["| task | for | evaluated by | brings |", "|---|---|---|---|"]
    for preset in PRESETS.values():
        metrics = ", ".join(f"`{name}`" for name in preset.metrics)
        settings = (f"`{line}`" if "=" in line else line for line in brings(preset))
        lines.append(f"| `{preset.name}` | {preset.purpose} | {metrics} | {', '.join(settings)} |")
    return "\n".join(lines)
