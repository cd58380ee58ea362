"""`antiphon sweep`: how good and how varied the answers of models are, from cautious to bold, in one plot."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from antiphon.cli.models import Backward, Knowledge

if TYPE_CHECKING:
    from antiphon.core.config import Decoding
    from antiphon.data.corpus import Pair
    from antiphon.inference.sweep import Point

SUFFIXES = (".html", ".png", ".svg")


def sweep(
    *words: str,
    out: Annotated[Path, Parameter(help="the plot: .html (self-contained), .png or .svg; .json goes beside it")] = Path(
        "sweep.html"
    ),
    temperatures: Annotated[str, Parameter(help="with commas between")] = "0.5,0.6,0.7,0.8,0.9,1,1.1,1.2",
    quality: Annotated[str, Parameter(help="the metric against the references")] = "bleu:2",
    backward: Backward = None,
    knowledge: Knowledge = None,
) -> None:
    """Draw quality against variety of models over a range of temperatures, with 95 % intervals; beam and MMI beside.

    Parameters
    ----------
    words
        Models (bundles or runs), then a file of pairs, or source.txt,target.txt; then how to search, as key=value.
    """
    from antiphon.cli import quality as drawing
    from antiphon.cli.models import writable
    from antiphon.core.errors import ConfigError

    settings, paths = [word for word in words if _setting(word)], [word for word in words if not _setting(word)]
    if len(paths) < 2:
        do = "give one model or more, then a file of pairs"
        raise ConfigError("there must be a model and data", where="sweep", got=" ".join(paths) or "nothing", do=do)
    if out.suffix not in SUFFIXES:
        raise ConfigError("a plot is .html, .png or .svg", where="--out", got=out)
    drawing.check()
    numbers = out.with_suffix(".json")
    if (numbers.exists() and not out.exists()) or numbers.resolve() == Path(paths[-1]).resolve():
        do = "choose another name for the plot, or remove it"
        raise ConfigError("the numbers go beside the plot, and this is there already", where=numbers, do=do)
    writable(out)
    data, points = paths[-1], list[Any]()
    for point in _points(paths[:-1], data, settings, _numbers(temperatures), quality, backward, knowledge):
        print(line(point), flush=True)
        points.append(point)
    about = {"command": shlex.join(["antiphon", *sys.argv[1:]]), "data": Path(data).name, "quality": quality}
    write(out, points, about)
    print(f"the plot is in {out}, its numbers in {numbers}")


def _setting(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _numbers(words: str) -> list[float]:
    from antiphon.core.errors import ConfigError

    try:
        return [float(word) for word in words.split(",") if word.strip()]
    except ValueError:
        do = "write numbers with commas between, such as 0.5,0.8,1"
        raise ConfigError("not a list of temperatures", where="--temperatures", got=words, do=do) from None


def _points(
    models: list[str],
    data: str,
    settings: list[str],
    temperatures: list[float],
    quality: str,
    backward: str | None,
    knowledge: str | None,
) -> Iterable[Point]:
    from antiphon.cli.models import predictor, reads_facts, scored_pairs, searching
    from antiphon.inference import hypothesis
    from antiphon.inference import sweep as sweeping
    from antiphon.inference.confidence import unsure

    sweeping.check(temperatures, quality)
    # All of them first: a sweep takes long, and a mistake ends it.
    facts = [knowledge if reads else None for reads in reads_facts(*models)] if knowledge else [None] * len(models)
    opened = [predictor(model, knowledge=each) for model, each in zip(models, facts, strict=True)]
    ranking = [predictor(model, backward, each) if backward else None
               for model, each in zip(models, facts, strict=True)]  # fmt: skip
    searches: list[Decoding] = [searching(plain.config, settings) for plain in opened]
    for plain, chosen in zip(opened, searches, strict=True):
        hypothesis.check(chosen)
        if chosen.abstain and plain.calibration is None:
            raise unsure("decoding.abstain", len(plain.bundles), plain.adapter)
    pairs: list[Pair] = scored_pairs(data, *(each.config for each in opened), words=settings)
    yield sweeping.people(pairs)
    for name, plain, ranked, chosen in zip(_names(models), opened, ranking, searches, strict=True):
        yield from sweeping.sweep(name, plain, pairs, chosen, temperatures=temperatures, quality=quality, ranked=ranked)


def _names(models: list[str]) -> list[str]:
    """The last parts of the paths, or the whole paths where those are not different."""
    short = [Path(model).name or model for model in models]
    return short if len(set(short)) == len(short) else models


def line(point: Point) -> str:
    """A point for a terminal."""
    return "  ".join([f"{point.model:<20} {point.how:<8}", *map(str, point.scores.values())])


def write(out: Path, points: list[Point], about: dict[str, Any]) -> None:
    """The plot, and all numbers as JSON."""
    from dataclasses import asdict

    from antiphon.cli.quality import plot

    out.parent.mkdir(parents=True, exist_ok=True)
    values = [asdict(point) for point in points]
    whole = json.dumps({**about, "points": values}, ensure_ascii=False, indent=1)
    out.with_suffix(".json").write_text(whole, encoding="utf-8")
    plot(out, values, about)
