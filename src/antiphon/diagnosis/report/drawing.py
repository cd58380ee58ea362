"""Small pictures as SVG text: curves, intervals, grids of shades. Colours come from the page's style, by class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 420, 230
LEFT, TOP, BOTTOM = 44, 12, 34
"""Around what is drawn: room for values, for nothing, and for steps."""
NAME, LETTER = 18, 6.2
"""Most letters of a name at the right of what is drawn, and the width of one."""
TICKS = 4


@dataclass(frozen=True)
class Line:
    """A curve with its name. `place` is its colour, 0 the accent; `band` has the low and high value of each point."""

    name: str
    points: Sequence[tuple[float, float]]
    place: int = 0
    faint: bool = False
    dots: bool = False
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Axis:
    """A span of values laid out between two places; `log` by their logarithms."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value."""
        low, high, here = (math.log10(each) if self.log else each for each in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (0.5 if high == low else (here - low) / (high - low))

    def ticks(self) -> list[float]:
        """Round values to write beside it."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            step = max(1, -(-len(powers) // (TICKS + 1)))
            found = [10.0**power for power in powers[::step]]
            if len(found) < 3:
                low = math.floor(math.log10(self.low))
                every = (10.0**power * each for power in range(low, low + 4) for each in (1, 2, 5))
                found = [value for value in every if self.low <= value <= self.high]
            return found or [self.low, self.high]
        size = round_step((self.high - self.low) / TICKS)
        first = math.ceil(self.low / size - 1e-9)
        return [size * number for number in range(first, math.floor(self.high / size + 1e-9) + 1)]


def round_step(size: float) -> float:
    """The round number, 1, 2 or 5 and zeros, that is nearest above."""
    if size <= 0 or not math.isfinite(size):
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(size))
    return next(power * each for each in (1, 2, 5, 10) if power * each >= size * (1 - 1e-9))


def chart(lines: Sequence[Line], *, name: str, over: str = "step", log: bool = False, unit: str = "") -> str:
    """Curves over one axis, each named at its end; nothing where none has two points.

    With `log` the values are laid out by their logarithms, and those that have none are left out.
    """
    kept = [Line(each.name, [point for point in each.points if not log or point[1] > 0], each.place, each.faint,
                 each.dots, each.band) for each in lines]  # fmt: skip
    kept = [line for line in kept if len(line.points) > 1]
    if not kept:
        return ""
    xs = [x for line in kept for x, _ in line.points]
    ys = [y for line in kept for _, y in line.points]
    ys += [value for line in kept for band in line.band for value in band[1:]]
    named = max(len(fit(line.name, NAME)) for line in kept)
    across = Axis(min(xs), max(xs), LEFT, WIDTH - 12 - LETTER * named)
    up = Axis(*_roomy(min(ys), max(ys), log), HEIGHT - BOTTOM, TOP, log)
    body = [*_grid(across, up, over), *(part for line in kept for part in _curve(line, across, up))]
    body += _names(kept, across, up)
    caption = f"<figcaption>{escape(name)}{f' <small>{escape(unit)}</small>' if unit else ''}</figcaption>"
    picture = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}">{"".join(body)}</svg>'
    return f"<figure>{caption}{picture}</figure>"


def _roomy(low: float, high: float, log: bool) -> tuple[float, float]:
    """A little room above and below, and some where all values are equal."""
    if log:
        return (low / 1.25, high * 1.25) if high <= low * 1.5 else (low, high)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
    return low - room if low < 0 or low > room else 0.0, high + room


def _grid(across: Axis, up: Axis, over: str) -> Iterator[str]:
    for value, told in written(up.ticks()):
        y = up.at(value)
        yield f'<line class="g" x1="{LEFT}" x2="{across.end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{told}</text>'
    for value, told in written(across.ticks()):
        yield f'<text x="{across.at(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{told}</text>'
    yield f'<text x="{across.end:.1f}" y="{HEIGHT - 3}" text-anchor="end" class="q">{escape(over)}</text>'


def _curve(line: Line, across: Axis, up: Axis) -> Iterator[str]:
    kind = f"c{line.place}{' f' if line.faint else ''}"
    if line.band:
        above = [f"{across.at(x):.1f},{up.at(high):.1f}" for x, _, high in line.band]
        below = [f"{across.at(x):.1f},{up.at(low):.1f}" for x, low, _ in reversed(line.band)]
        yield f'<polygon class="b {kind}" points="{" ".join([*above, *below])}"/>'
    path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in line.points)
    yield f'<polyline class="l {kind}" points="{path}"/>'
    if line.dots and len(line.points) <= 40:
        for x, y in line.points:
            about = f"<title>{escape(line.name)} {short(y)} at {short(x)}</title>"
            yield f'<circle class="d {kind}" cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="2.6">{about}</circle>'


def _names(lines: Sequence[Line], across: Axis, up: Axis) -> Iterator[str]:
    """The names at the ends of the curves, kept apart."""
    wanted = sorted((up.at(line.points[-1][1]), number) for number, line in enumerate(lines) if line.name)
    places, last = dict[int, float](), -math.inf
    for y, number in wanted:
        places[number] = last = max(y, last + 13)
    over = max(0.0, last - (HEIGHT - BOTTOM))
    for number, y in places.items():
        line = lines[number]
        yield (f'<text class="n c{line.place}{" f" if line.faint else ""}" x="{across.end + 6:.1f}" '
               f'y="{y - over + 4:.1f}">{escape(fit(line.name, NAME))}</text>')  # fmt: skip


def intervals(rows: Sequence[tuple[str, float, float | None, float | None, int]], *, zero: bool = False) -> str:
    """Values with their intervals, one below the other: name, value, low, high, colour; with `zero` a line there."""
    values = [value for _, *three, _ in rows for value in three if value is not None]
    if not values:
        return ""
    low, high = min([*values, *([0.0] if zero else [])]), max([*values, *([0.0] if zero else [])])
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    across, line = Axis(low - room, high + room, 128, WIDTH - 12), 26
    height = line * len(rows) + 24
    parts = [f'<text x="{across.at(tick):.1f}" y="{height - 4}" text-anchor="middle">{told}</text>'
             f'<line class="g" x1="{across.at(tick):.1f}" x2="{across.at(tick):.1f}" y1="4" y2="{height - 18}"/>'
             for tick, told in written(across.ticks())]  # fmt: skip
    if zero:
        parts.append(f'<line class="z" x1="{across.at(0):.1f}" x2="{across.at(0):.1f}" y1="4" y2="{height - 18}"/>')
    for number, (name, value, below, above, place) in enumerate(rows):
        y = line * number + 18
        parts.append(f'<text x="120" y="{y + 4}" text-anchor="end" class="n">{escape(fit(name, 20))}</text>')
        if below is not None and above is not None:
            parts.append(f'<line class="w c{place}" x1="{across.at(below):.1f}" x2="{across.at(above):.1f}" '
                         f'y1="{y}" y2="{y}"/>')  # fmt: skip
        parts.append(f'<circle class="d c{place}" cx="{across.at(value):.1f}" cy="{y}" r="4"/>')
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'


CELL = 17


def attention(source: Sequence[str], answer: Sequence[str], weights_TS: np.ndarray) -> str:
    """Where each token of an answer (down) looked in its source (across): the darker, the more."""
    names = [*source, "∎"][: weights_TS.shape[1]]
    left = 8 + 6.6 * max(len(fit(token, 14)) for token in answer)
    top = 10 + 4.9 * max(len(fit(token, 14)) for token in names)
    width, height = left + CELL * len(names) + 34, top + CELL * len(answer) + 4
    parts = []
    for column, token in enumerate(names):
        x = left + CELL * (column + 0.5) + 3
        parts.append(f'<text class="n" transform="translate({x:.1f},{top - 5:.1f}) rotate(-52)">'
                     f"{escape(fit(token, 14))}</text>")  # fmt: skip
    for row, token in enumerate(answer):
        y = top + CELL * row
        parts.append(f'<text class="n" x="{left - 6:.1f}" y="{y + CELL - 5:.1f}" text-anchor="end">'
                     f"{escape(fit(token, 14))}</text>")  # fmt: skip
    parts += _cells(weights_TS[: len(answer), : len(names)], left, top, CELL, CELL)
    parts.append(f'<rect class="o" x="{left:.1f}" y="{top:.1f}" width="{CELL * len(names)}" '
                 f'height="{CELL * len(answer)}"/>')  # fmt: skip
    return (f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" role="img" '
            f'aria-label="attention">{"".join(parts)}</svg>')  # fmt: skip


def _cells(shades: np.ndarray, left: float, top: float, width: float, height: float) -> Iterator[str]:
    """A grid of squares, of values from 0 to 1; what is nearly 0 is not drawn."""
    for row, column in zip(*np.nonzero(shades >= 0.03), strict=True):
        shade = min(1.0, float(shades[row, column]))
        yield (f'<rect class="s" x="{left + width * column + 0.5:.1f}" y="{top + height * row + 0.5:.1f}" '
               f'width="{width - 1:.1f}" height="{height - 1:.1f}" fill-opacity="{shade:.2f}"/>')  # fmt: skip


def layers(names: Sequence[str], steps: Sequence[float], values: np.ndarray, *, name: str, unit: str) -> str:
    """Values above 0 of layers (down) over looks at them (across), shaded by their logarithms; others stay empty.

    `values` is `[layers, looks]`. The darkest is the largest.
    """
    good = np.isfinite(values) & (values > 0)
    if not good.any() or len(steps) < 2:
        return ""
    logs = np.log10(np.where(good, values, 1.0))
    low, high = logs[good].min(), logs[good].max()
    shades = np.where(good, 0.08 + 0.92 * (logs - low) / max(high - low, 1e-9), 0.0)
    left, line, top = 128, 15, 6
    wide = (WIDTH - left - 8) / len(steps)
    height = top + line * len(names) + 34
    parts = [f'<text class="n" x="{left - 6}" y="{top + line * row + 11}" text-anchor="end">'
             f"{escape(fit(each, 21))}</text>"
             for row, each in enumerate(names)]  # fmt: skip
    parts += _cells(shades, left, top, wide, line)
    for column in sorted({0, len(steps) // 2, len(steps) - 1}):
        x, anchor = left + wide * (column + 0.5), "end" if column == len(steps) - 1 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{top + line * len(names) + 14}" text-anchor="{anchor}">'
                     f"{short(steps[column])}</text>")  # fmt: skip
    told = f"{short(10**low)} (palest) to {short(10**high)} (darkest)"
    parts.append(f'<text class="q" x="{WIDTH - 8}" y="{height - 5}" text-anchor="end">step · {told}</text>')
    caption = f"<figcaption>{escape(name)} <small>{escape(unit)}</small></figcaption>"
    return (f'<figure>{caption}<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(name)}">'
            f"{''.join(parts)}</svg></figure>")  # fmt: skip


def bar(share: float) -> str:
    """A bar for a cell of a table: a share of its width."""
    return f'<span class="bar"><i style="width:{100 * min(1.0, max(0.0, share)):.1f}%"></i></span>'


def short(value: float) -> str:
    """A number in few characters: 1,200, 12k, 0.5, 2e-05."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def written(values: Sequence[float]) -> list[tuple[float, str]]:
    """Values with texts that tell them apart."""
    told = [short(value) for value in values]
    digits = 3
    while len(set(told)) < len(values) and digits < 9:
        digits += 1
        told = [f"{value:.{digits}g}" for value in values]
    return list(zip(values, told, strict=True))


def fit(text: str, most: int) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"


def joined(parts: Iterable[str]) -> str:
    """Pictures side by side, as many as there is room for; nothing where there are none."""
    kept = [part for part in parts if part]
    return f'<div class="side">{"".join(kept)}</div>' if kept else ""
