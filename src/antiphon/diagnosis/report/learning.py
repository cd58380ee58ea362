"""Sections on the run itself: how it learned, and what the probes saw inside."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from antiphon.diagnosis.report import drawing
from antiphon.diagnosis.report.drawing import Line
from antiphon.diagnosis.report.reading import Run, finite, number
from antiphon.diagnosis.report.writing import section

LOOKS = 48
"""Looks at layers that are drawn."""


def curves(runs: Sequence[Run]) -> str:
    """Losses of training and validation, scores, rate and gradient norm."""
    alone = len(runs) == 1
    losses = [line for place, run in enumerate(runs) for line in _losses(run, min(place, 3), alone)]
    pictures = [drawing.chart(losses, name="loss", unit="nats a token; of training, pale, with dropout and smoothing")]
    metrics = dict.fromkeys(name for run in runs for event in run.validations for name in (event.get("scores") or {}))
    for metric in [name for name in metrics if name not in ("loss", "perplexity")]:
        lines = [_scores(run, metric, min(place, 3), alone) for place, run in enumerate(runs)]
        pictures.append(drawing.chart(lines, name=metric.replace("_", " "), unit="on validation pairs"))
    for what, log in (("rate", False), ("gradient_norm", True)):
        lines = [Line("" if alone else run.name, run.curve(what), min(place, 3)) for place, run in enumerate(runs)]
        pictures.append(drawing.chart(lines, name=what.replace("_", " "), log=log))
    return section("learning", "How it learned", drawing.joined(pictures))


def _losses(run: Run, place: int, alone: bool) -> list[Line]:
    shown = run.losses()
    trained = Line("training" if alone else "", run.curve("loss"), 2 if alone else place, faint=True)
    return [trained, Line("validation" if alone else run.name, shown, place, dots=True)]


def _scores(run: Run, metric: str, place: int, alone: bool) -> Line:
    found = run.scored(metric)
    band = [(step, low, high) for step, _, low, high in found if low is not None and high is not None]
    points = [(step, value) for step, value, _, _ in found]
    return Line("" if alone else run.name, points, place, dots=True, band=band if len(band) == len(points) else ())


SERIES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("loss", "on the same few pairs, without dropout",
     (("train", "training"), ("valid", "validation"), ("shuffled", "sources shuffled"))),
    ("answers", "tokens right: by itself, and with the right beginning",
     (("forced_accuracy", "beginning given"), ("free_accuracy", "by itself"))),
    ("answers", "what answers are like",
     (("repetition", "repeat"), ("distinct", "distinct"), ("copied", "copied"), ("common", "commonest"),
      ("unended", "no end"))),
    ("answers", "length of answers by that of references", (("length_ratio", "ratio"),)),
    ("attention", "attention",
     (("entropy", "spread"), ("coverage", "coverage"), ("diagonality", "in order"), ("end", "on the end"))),
)  # fmt: skip
"""Kind of probe, title, and the fields that are drawn together with their names."""


def inside(runs: Sequence[Run]) -> str:
    """What the probes saw: a view of the layers, and how answers and attention came to be."""
    parts = []
    for run in (run for run in runs if run.probes):
        pictures = [_layers(run, "gradient", "gradients by layer", "norm"), _updates(run), _dead(run)]
        for kind, title, names in SERIES:
            lines = [Line(name, run.probed(kind, key), place) for place, (key, name) in enumerate(names[:4])]
            pictures.append(drawing.chart(lines, name=title))
        pictures += [_buckets(run, "by_length", "loss by length of the target", "tokens"),
                     _buckets(run, "by_position", "loss by position in the target", "position")]  # fmt: skip
        parts += [f"<h3>{escape(run.name)}</h3>"] if len(runs) > 1 else []
        parts.append(drawing.joined(pictures))
    about = "Seen by the probes while it trained; they change nothing."
    return section("inside", "Inside", *parts, about=about)


def _layers(run: Run, what: str, title: str, unit: str) -> str:
    """A number of all layers over the steps."""
    events = [event for event in run.probes.get("layers", ()) if isinstance(event.get("layers"), list)]
    events = events[:: max(1, -(-len(events) // LOOKS))]
    tables = [{str(layer.get("name")): layer for layer in event["layers"] if isinstance(layer, dict)}
              for event in events]  # fmt: skip
    names = list(dict.fromkeys(name for table in tables for name in table))
    values = np.array([[_value(table.get(name), what) for table in tables] for name in names])
    if not names:
        return ""
    return drawing.layers(names, [float(event["step"]) for event in events], values, name=title, unit=unit)


def _value(layer: dict[str, Any] | None, what: str) -> float:
    """A number of a layer; `step` is its update by its weights."""
    if layer is None:
        return np.nan
    if what == "step":
        update, weight = number(layer.get("update")), number(layer.get("weight"))
        return update / weight if update is not None and weight else np.nan
    found = number(layer.get(what))
    return np.nan if found is None else found


def _updates(run: Run) -> str:
    return _layers(run, "step", "updates by layer", "as a share of the weights; about 0.001 is usual")


def _dead(run: Run) -> str:
    """The largest shares of dead units and of saturated values in any layer, over the steps."""
    lines = []
    for place, (key, name) in enumerate((("dead", "dead units"), ("saturated", "saturated"))):
        points = []
        for event in run.probes.get("layers", ()):
            found = [number(each.get(key)) for each in event.get("activations") or () if isinstance(each, dict)]
            shares = [share for share in found if share is not None]
            points += [(event["step"], max(shares))] if shares else []
        lines.append(Line(name, finite(points), place))
    return drawing.chart(lines, name="activations", unit="share, in the worst layer")


def _buckets(run: Run, key: str, title: str, over: str) -> str:
    """The last look at a loss by length or by position."""
    for event in reversed(run.probes.get("loss", [])):
        rows = event.get(key)
        if isinstance(rows, list) and rows:
            points = finite((row[1], row[2]) for row in rows if isinstance(row, list) and len(row) >= 3)
            return drawing.chart([Line("", points, 0, dots=True)], name=title, over=over)
    return ""
