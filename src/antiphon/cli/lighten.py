"""`antiphon lighten`: small fast versions of a model, measured, and a chart to pick one from."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from antiphon.cli.console import Console
from antiphon.cli.models import Knowledge
from antiphon.cli.settings import assignments
from antiphon.cli.train import Valid

if TYPE_CHECKING:
    from antiphon.export.lighten import Candidate, Lightened


def lighten(
    model: str,
    /,
    *settings: str,
    data: Annotated[str, Parameter(help="pairs to teach students with; best those that the model was trained on")],
    out: Annotated[Path, Parameter(help="new folder for all versions; the same command goes on there")] = Path("light"),
    valid: Valid = None,
    metric: Annotated[str, Parameter(help="what to score by; without it, what training was judged by")] = "",
    knowledge: Knowledge = None,
    json: Annotated[bool, Parameter(help="write the result as JSON")] = False,
) -> int:
    """Make small fast versions of a model, measure each, and show size, speed and score to pick from.

    Students with a deep encoder and a decoder of one layer, a Transformer and an SSRU, learn what the model answers;
    they lose the tokens that nobody uses, and are written as int8, where it can be with a shortlist. Each is a bundle.

    Parameters
    ----------
    model
        A bundle or a run.
    settings
        Of the students, as key=value, such as model.encoder.layers=4 or training.minutes=10.
    """
    given = assignments(settings)
    from antiphon.cli.answering import stopped
    from antiphon.core.stopping import Stopped
    from antiphon.export.lighten import lighten as make

    console = Console(stderr=json, highlight=False)
    command = shlex.join(["antiphon", *sys.argv[1:]])
    try:
        found = make(model, data, out, valid=valid, assignments=given, metric=metric, command=command,
                     knowledge=knowledge or "",
                     watch=_watching(console, given), told=lambda each: console.print(line(each)))  # fmt: skip
    except Stopped as error:
        return stopped(console, error)
    if found.interrupted:
        console.print("stopped; the same command goes on where it was")
        return 128 + found.interrupted
    charts = drawn(found)
    if json:
        print((out / "result.json").read_text(encoding="utf-8"), end="")
    else:
        _show(console, found, charts)
    return 0


def _watching(console: Console, given: dict[str, Any]) -> Any:
    """What looks at the making of each student."""
    from antiphon.cli.answering import answering
    from antiphon.cli.display import watching

    @contextmanager
    def watch(name: str) -> Iterator[tuple[Sequence[Any], Any]]:
        console.print(f"a student, {name}:")
        with answering(console) as progress, watching(console, given) as observer:
            yield [observer], progress

    return watch


def line(each: Candidate) -> str:
    """A candidate that has just been measured."""
    return f"{each.name}: {each.size / 1e6:.2f} MB, {each.milliseconds:.2f} ms a sentence, {each.score}"


def _show(console: Console, found: Lightened, charts: Sequence[Path]) -> None:
    """The table, the notes, and what to do with it."""
    from rich.table import Table
    from rich.text import Text

    first = found.candidates[0]
    wide = console.width >= 130
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("", "MB", "CPU ms", "faster", f"{first.score.name}, 95 % interval", *(["what it is"] * wide)):
        table.add_column(title, justify="left" if title in ("", "what it is") else "right", no_wrap=True)
    for each in found.candidates:
        fast = f"{first.milliseconds / max(1e-9, each.milliseconds):.1f}"
        table.add_row(Text(each.name, "bold"), f"{each.size / 1e6:.2f}", f"{each.milliseconds:.2f}", fast,
                      str(each.score).partition(" ")[2], *([Text(each.what, "dim")] * wide))  # fmt: skip
    console.print()
    console.print(table)
    for each in found.candidates if not wide else ():
        console.print(Text.assemble((each.name, "bold"), "  ", (each.what, "dim")), soft_wrap=True)
    console.print(f"on {found.pairs:,} pairs; CPU milliseconds are for a sentence, on one thread")
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True)
    where = f"; the chart is in {' and '.join(map(str, charts))}" if charts else ""
    console.print(f"pick one: antiphon predict {found.out}/NAME{where}", soft_wrap=True)
    if not charts:
        console.print("for a chart of them type: pip install 'antiphon[plots]', and this command again", soft_wrap=True)


def drawn(found: Lightened) -> list[Path]:
    """Size, speed and score in one picture, as a page and as SVG; nothing where nothing is installed that draws."""
    from antiphon.cli.quality import check
    from antiphon.core.errors import AntiphonError

    try:
        check()
    except AntiphonError:
        return []
    chart, paths = _chart(found), [found.out / "chart.html", found.out / "chart.svg"]
    paths[0].write_text(chart.to_html(inline=True), encoding="utf-8")
    chart.save(str(paths[1]))
    return paths


def _chart(found: Lightened) -> Any:
    import altair as alt

    from antiphon.cli.quality import title

    data = alt.Data(values=[_row(each) for each in found.candidates])
    name = title(found.candidates[0].score.name)
    across = alt.X("milliseconds:Q", title="CPU milliseconds a sentence, one thread",
                   scale=alt.Scale(type="log", padding=70))  # fmt: skip
    better = found.candidates[0].score.higher_is_better
    scale = alt.Scale(zero=False, padding=36, reverse=not better)
    up = alt.Y("score:Q", title=name if better else f"{name}, less is better", scale=scale)
    kinds = ["the model", "Transformer student", "SSRU student"]
    color = alt.Color("who:N", title=None, scale=alt.Scale(domain=kinds, range=["#1d4e89", "#c2410c", "#2f855a"]),
                      legend=alt.Legend(orient="top", labelFontSize=13, symbolType="circle"))  # fmt: skip
    size = alt.Size("megabytes:Q", title="MB", scale=alt.Scale(rangeMin=60, rangeMax=1400), legend=None)
    base = alt.Chart(data)
    chart = alt.layer(
        base.mark_rule(opacity=0.35).encode(x=across, y=alt.Y("low:Q"), y2="high:Q", color=color),
        base.mark_circle(opacity=0.85, stroke="white").encode(x=across, y=up, size=size, color=color,
            tooltip=["name:N", "what:N", "megabytes:Q", "milliseconds:Q", "score:Q"]),
        *(base.transform_filter(which).mark_text(dx=14, dy=down, align="left", fontSize=11).encode(
            x=across, y=up, text="label:N") for which, down in (("!datum.below", -18), ("datum.below", 18))),
    ).properties(width=720, height=400, title=alt.Title(
        "Light models", anchor="start", fontSize=18, subtitleFontSize=12, subtitleColor="#666", offset=12,
        subtitle=[f"{found.pairs:,} pairs; further left is faster, further up is better, a small circle is a small "
                  "file; bars are 95 % intervals"],
    ))  # fmt: skip
    return chart.configure_view(stroke=None).configure_axis(gridColor="#eee", domainColor="#bbb", tickColor="#bbb")


def _row(each: Candidate) -> dict[str, Any]:
    kind = each.name.partition("-")[0]
    who = {"model": "the model", "transformer": "Transformer student", "ssru": "SSRU student"}[kind]
    low, high = each.score.interval or (each.score.value,) * 2
    megabytes = round(each.size / 1e6, 2)
    return {"name": each.name, "what": each.what, "who": who, "megabytes": megabytes, "low": low, "high": high,
            "milliseconds": round(each.milliseconds, 3), "score": round(each.score.value, 2),
            "below": each.name.endswith("shortlist") or kind == each.name,
            "label": f"{each.name}, {megabytes:g} MB"}  # fmt: skip
