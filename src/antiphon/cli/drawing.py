"""Small pictures for a terminal and one for a browser: sparklines, curves, alignments and the learning-curve page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Braille: the bit of the dot in each of four rows and two columns of one character."""


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The values as one line of bars; more values than `width` are averaged in groups."""
    values = squeeze([value for value in values if math.isfinite(value)], width)
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def squeeze(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values, each the mean of its neighbours."""
    if len(values) <= width:
        return list(values)
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def curve(points: Sequence[tuple[float, float]], width: int = 60, height: int = 8) -> list[str]:
    """A curve through points (x rising) in braille dots, `height` lines with the value of each line at its left."""
    grid = [[0] * width for _ in range(height)]
    top, bottom = max(y for _, y in points), min(y for _, y in points)
    first, last = points[0][0], points[-1][0]
    for column in range(2 * width):
        x = first + (last - first) * column / (2 * width - 1)
        share = (_at(points, x) - bottom) / (top - bottom) if top > bottom else 0.0
        row = round((1 - share) * (4 * height - 1))
        grid[row // 4][column // 2] |= DOTS[row % 4][column % 2]
    labels = [top - (top - bottom) * row / max(1, height - 1) for row in range(height)]
    return [
        f"{label:8.4g} ┤" + "".join(chr(0x2800 + cell) for cell in cells)
        for label, cells in zip(labels, grid, strict=True)
    ]


def _at(points: Sequence[tuple[float, float]], x: float) -> float:
    """The height of the polyline at x."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1 and x1 > x0:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def monotone(weights: Any) -> list[int]:
    """The source position of each target token: the best path through attention weights [T, S] that never goes back.

    Dynamic programming over log weights; attention of good models is nearly monotone where the two sides are.
    """
    import numpy as np

    scores = np.log(np.asarray(weights, dtype=np.float64) + 1e-6)
    best, back = scores[0], []
    for row in scores[1:]:
        reach = np.maximum.accumulate(best)
        back.append(np.maximum.accumulate(np.where(best == reach, np.arange(len(best)), 0)))
        best = reach + row
    path = [int(best.argmax())]
    for origins in reversed(back):
        path.append(int(origins[path[-1]]))
    return path[::-1]


def alignment(source: Sequence[str], target: Sequence[str], places: Sequence[int], styles: Sequence[str]) -> list[Text]:
    """Two lines: source tokens, and below each the target tokens that were said at its place, in their styles."""
    below: list[list[int]] = [[] for _ in source]
    for index, place in enumerate(places):
        below[min(place, len(source) - 1)].append(index)
    above_line, below_line = Text(), Text()
    for token, indices in zip(source, below, strict=True):
        width = max(len(token), len(" ".join(target[index] for index in indices))) + 1
        above_line.append(token.ljust(width), style="bold")
        cell = Text()
        for index in indices:
            cell.append(target[index], style=styles[index]).append(" ")
        cell.pad_right(width - len(cell))
        below_line.append(cell if indices else Text("·".ljust(width), style="dim"))
    return [above_line, below_line]


def page(path: Path, title: str, losses: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]]) -> None:
    """Write the learning curve as one self-contained HTML file: loss by step, and the validation score below it.

    `losses` has rows step, loss, of (training or validation); `scores` rows step, score, metric.
    """
    import altair as alt

    step = alt.X("step:Q", title="step")
    series = alt.Color("of:N", title=None, scale=alt.Scale(range=["#9db4c0", "#c2410c"]))
    above = alt.Chart(alt.Data(values=list(losses))).mark_line(clip=True)
    above = above.encode(step, alt.Y("loss:Q", title="loss, nats a token", scale=alt.Scale(zero=False)), series)
    below = alt.Chart(alt.Data(values=list(scores))).mark_line(point=True, color="#1d4e89")
    score = alt.Y("score:Q", title=scores[0]["metric"] if scores else "score", scale=alt.Scale(zero=False))
    below = below.encode(step, score, tooltip=["step:Q", "score:Q"])
    both = alt.vconcat(above.properties(width=720, height=260), below.properties(width=720, height=200))
    both = both.properties(title=title).configure_view(stroke=None).configure_axis(gridColor="#eee")
    path.write_text(both.to_html(inline=True), encoding="utf-8")
