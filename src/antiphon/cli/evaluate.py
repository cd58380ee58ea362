"""`antiphon evaluate`: how good a model is on pairs, in numbers that can be repeated."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from antiphon.cli.models import AdapterName, Backward, Knowledge

if TYPE_CHECKING:
    from antiphon.inference.robustness import Robustness

MetricNames = Annotated[str | None, Parameter(help="with commas between: bleu,chrf,exact; default: those of the task")]


def evaluate(
    model: str,
    data: str,
    /,
    *settings: str,
    metrics: MetricNames = None,
    backward: Backward = None,
    knowledge: Knowledge = None,
    adapter: AdapterName = None,
    by: Annotated[
        str | None, Parameter(help="columns with a score for each value; default: those that the model reads")
    ] = None,
    robust: Annotated[
        bool, Parameter(help="answer again under capitals, typing errors, strange signs and so on: what each costs")
    ] = False,
    json: Annotated[bool, Parameter(help="write everything as JSON")] = False,
) -> None:
    """Score a model on pairs: metrics with 95 % intervals, by length and frequency, and the worst answers.

    Parameters
    ----------
    model
        A bundle or a run; several with commas between them answer together, as an ensemble.
    data
        A file of pairs, or source.txt,target.txt. Lines with the same source are references of one another.
    settings
        How to search, as key=value: beam=5 and so on.
    """
    from antiphon.cli.models import idle, metric_names, predictor, scored_pairs, searching, words_of
    from antiphon.inference.evaluate import evaluate as score

    guesser = predictor(model, backward, knowledge, adapter)
    if robust:
        from antiphon.inference.robustness import check

        check(guesser.config, metric_names(metrics))
    chosen = searching(guesser.config, settings)
    columns = None if by is None else words_of(by)
    idle(chosen, settings, backward=guesser.backward is not None, first=True)
    pairs = scored_pairs(data, guesser.config, more=columns or (), words=settings)
    found = score(guesser, pairs, metric_names(metrics), decoding=chosen, columns=columns)
    about = {"model": model, "command": shlex.join(["antiphon", *sys.argv[1:]])}
    if backward is not None:
        about["backward"] = backward
    if knowledge is not None:
        about["knowledge"] = knowledge
    if adapter is not None:
        about["adapter"] = adapter
    if not robust:
        print(found.to_json(about) if json else "\n".join(found.lines()))
        return
    from antiphon.inference.robustness import robustness, to_json

    fallen = robustness(guesser, pairs, found, decoding=chosen)
    if json:
        print(to_json(fallen, found, about))
    else:
        print("\n".join(found.lines()))
        _robustness(fallen)


def _robustness(found: Robustness) -> None:
    """What each perturbation costs, where it hurt most, and what was left out."""
    from rich.table import Table
    from rich.text import Text

    from antiphon.cli.console import Console
    from antiphon.inference.robustness import table

    console = Console(highlight=False)
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("sources with", "changed", "metric", "before", "after", "difference"):
        grid.add_column(title, justify="left" if title in ("sources with", "metric", "difference") else "right",
                        no_wrap=True)  # fmt: skip
    for name, _, changed, *scores in table(found):
        grid.add_row(name, changed, *scores)
    console.print(Text("\nthe same sources, otherwise written:"))
    console.print(grid)
    for drop in found.drops:
        hurt = "most hurt:" if drop.example else "no answer got worse"
        console.print(Text(f"\n{drop.name}: {drop.what}; {hurt}", "bold"), soft_wrap=True)
        for key, text in drop.example.items():
            console.print(Text(f"  {key:<14}", "dim").append(text, "default"), soft_wrap=True)
    for name, why in found.left_out.items():
        console.print(Text(f"\n{name}: left out, {why}", "dim"))
