"""The quality-diversity plot: models as lines along temperature, searches as marks, people as a dashed line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

COLORS = ("#1d4e89", "#c2410c", "#2f855a", "#7c3aed", "#b7791f", "#0e7490", "#be185d", "#4a5568")
"""Told apart on white also in print and by people who see no red or green."""

TITLES = {
    "distinct1": "distinct-1, %", "distinct2": "distinct-2, %", "self_bleu": "self-BLEU", "bleu:2": "BLEU-2",
    "perplexity": "perplexity of the references",
}  # fmt: skip
SHAPES = {"drawn": "circle", "beam": "square", "greedy": "triangle-up", "MMI": "diamond"}
SIZE = {"width": 430, "height": 360}


def check() -> None:
    """Raises `AntiphonError` where what draws is not installed: to be known before the sweep, and not after."""
    from antiphon.core.errors import require

    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError:
        raise require("plots", "altair") from None


def plot(out: Path, points: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write the plot of a sweep's points as one file, .html (nothing is fetched), .png or .svg."""
    import altair as alt

    rows, quality = list(flat(points, about["quality"])), title(about["quality"])
    models = list(dict.fromkeys(row["model"] for row in rows))
    color = alt.Color("model:N", title=None, sort=models, scale=alt.Scale(domain=models, range=list(COLORS)),
                      legend=alt.Legend(orient="top", labelFontSize=13, symbolType="circle",
                                        symbolOpacity=1))  # fmt: skip
    people: Mapping[str, Any] = next((point["scores"] for point in points if point["how"] == "people"), {})
    panels = [
        _panel(alt, rows, color, "distinct2", "quality", quality, people),
        _panel(alt, rows, color, "distinct2", "perplexity", title("perplexity"), people, reverse=True),
    ]
    chart = alt.hconcat(*panels, spacing=36).properties(title=alt.Title(
        "Quality against variety", anchor="start", fontSize=18, subtitleFontSize=12, subtitleColor="#666", offset=12,
        subtitle=[f"{about['data']}; a line is one model from cautious to bold, the numbers on it are temperatures; "
                  "bars are 95 % intervals", "further up and to the right is better; right of the dashed line "
                  "answers are more varied than people's"],
    ))  # fmt: skip
    chart = chart.configure_view(stroke=None).configure_axis(
        gridColor="#eee", domainColor="#bbb", tickColor="#bbb", labelFontSize=11, titleFontSize=12, titlePadding=8
    )
    if out.suffix == ".html":
        out.write_text(chart.to_html(inline=True), encoding="utf-8")
    else:
        chart.save(str(out), **({"scale_factor": 2} if out.suffix == ".png" else {}))


def flat(points: Sequence[Mapping[str, Any]], quality: str) -> Iterator[dict[str, Any]]:
    """A row for each point of a model, with each score and its interval; the lowest, the highest and no change of
    temperature have labels."""
    drawn = [point["temperature"] for point in points if point["temperature"] is not None]
    named = {min(drawn, default=None), 1.0, max(drawn, default=None)}
    for point in points:
        if point["how"] == "people":
            continue
        row = {"model": point["model"], "how": point["how"], "temperature": point["temperature"]}
        row["label"] = f"{point['temperature']:g}" if point["temperature"] in named else ""
        row["kind"] = "drawn" if point["temperature"] is not None else point["how"].split()[0]
        for name, score in point["scores"].items():
            key, (low, high) = "quality" if name == quality else name, score["interval"] or (score["value"],) * 2
            row |= {key: score["value"], f"{key}_low": low, f"{key}_high": high}
        yield row


def title(name: str) -> str:
    """What an axis is called."""
    return TITLES.get(name, name)


def _panel(
    alt: Any, rows: Sequence[Mapping[str, Any]], color: Any, x: str, y: str, y_title: str, people: Mapping[str, Any],
    *, reverse: bool = False,
) -> Any:  # fmt: skip
    """One view: bars, lines, marks, and temperatures beside them."""
    mine = [row for row in rows if y in row]
    data = alt.Data(values=mine)
    across = alt.X(f"{x}:Q", title=title(x), scale=alt.Scale(zero=False, nice=False, padding=24))
    up = alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(zero=False, nice=False, reverse=reverse, padding=16))
    base = alt.Chart(data).encode(color=color)
    drawn = base.transform_filter("datum.kind == 'drawn'")
    tooltip = ["model:N", "how:N", *(alt.Tooltip(f"{name}:Q", format=".2f") for name in _numbers(mine))]
    kinds = [kind for kind in SHAPES if any(row["kind"] == kind for row in mine)]
    grey = alt.Legend(title=None, orient="top", labelFontSize=13, symbolFillColor="#666", symbolStrokeColor="#666")
    scale = alt.Scale(domain=kinds, range=[SHAPES[kind] for kind in kinds])
    shape = alt.Shape("kind:N", sort=kinds, scale=scale, legend=grey)
    layers = [
        base.mark_rule(opacity=0.28, strokeWidth=1.2).encode(x=across, y=alt.Y(f"{y}_low:Q"), y2=f"{y}_high:Q"),
        base.mark_rule(opacity=0.28, strokeWidth=1.2).encode(x=alt.X(f"{x}_low:Q"), x2=f"{x}_high:Q", y=up),
        drawn.mark_line(strokeWidth=2, opacity=0.8).encode(x=across, y=up, order="temperature:Q"),
        base.mark_point(filled=True, size=70, opacity=1, stroke="white", strokeWidth=0.8)
        .encode(x=across, y=up, shape=shape, tooltip=tooltip),
        base.mark_text(dx=7, dy=-8, align="left", fontSize=10).encode(x=across, y=up, text="label:N"),
    ]  # fmt: skip
    if x in people:
        rule = alt.Chart(alt.Data(values=[{x: people[x]["value"], "label": "people"}]))
        layers.append(rule.mark_rule(strokeDash=[5, 4], color="#888").encode(x=across))
        layers.append(rule.mark_text(align="left", dx=5, color="#888", fontSize=11).encode(
            x=across, y=alt.value(10), text="label:N"))  # fmt: skip
    return alt.layer(*layers).properties(**SIZE)


def _numbers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = {name for row in rows for name, value in row.items() if isinstance(value, float)}
    return sorted(name for name in found if not name.endswith(("_low", "_high")) and name != "temperature")
