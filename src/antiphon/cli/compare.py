"""`antiphon compare`: whether two models really differ on the same pairs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from antiphon.cli.evaluate import MetricNames
from antiphon.cli.models import Knowledge
from antiphon.core.errors import ConfigError

if TYPE_CHECKING:
    from antiphon.data.corpus import Pair
    from antiphon.inference.evaluate import Evaluation
    from antiphon.inference.forgetting import Side
    from antiphon.inference.predictor import Predictor


def compare(
    a: str,
    b: str,
    data: str,
    /,
    *settings: str,
    metrics: MetricNames = None,
    adapter: Annotated[str | None, Parameter(help="the adapter by which the second model answers")] = None,
    old: Annotated[
        str | None, Parameter(help="pairs that A was made for: shows what B has gained on DATA and forgotten of these")
    ] = None,
    knowledge: Knowledge = None,
    json: Annotated[bool, Parameter(help="with --old: write everything as JSON")] = False,
) -> None:
    """Score two models on the same pairs, and test each difference (paired bootstrap, approximate randomization).

    Parameters
    ----------
    a
        A bundle or a run.
    b
        Another; or the same, with an adapter.
    data
        A file of pairs, or source.txt,target.txt. Lines with the same source are references of one another.
    settings
        How to search, as key=value: beam=5 and so on.
    """
    from antiphon.cli.models import idle, metric_names, predictor, reads_facts, scored_pairs, searching

    if json and old is None:
        raise ConfigError("there is JSON of gain and forgetting alone", where="--json", do="give --old PAIRS as well")
    first, second = reads_facts(a, b) if knowledge else (False, False)
    models = (
        predictor(a, knowledge=knowledge if first else None),
        predictor(b, knowledge=knowledge if second else None, adapter=adapter),
    )
    names = a, f"{b} --adapter {adapter}" if adapter else b
    idle(searching(models[0].config, settings), settings, first=True)
    wanted = metric_names(metrics)
    read = partial(scored_pairs, words=settings)
    pairs, former = (read(each, *(model.config for model in models)) if each else [] for each in (data, old))
    found = _evaluated(models, pairs, wanted, settings)
    if old is None:
        _difference(names, data, found)
        return
    from antiphon.inference.forgetting import Side, to_json

    new, before = Side(data, *found), Side(old, *_evaluated(models, former, wanted, settings))
    if json:
        print(to_json({"models": names, "command": shlex.join(["antiphon", *sys.argv[1:]])}, new, before))
    else:
        _forgetting(names, new, before)


def _evaluated(
    models: tuple[Predictor, Predictor], pairs: list[Pair], metrics: list[str] | None, settings: Sequence[str]
) -> tuple[Evaluation, Evaluation]:
    """Both models on one set of pairs."""
    from antiphon.cli.models import searching
    from antiphon.inference.evaluate import evaluate

    first, second = (evaluate(each, pairs, metrics, decoding=searching(each.config, settings)) for each in models)
    return first, second


def _difference(names: tuple[str, str], data: str, found: tuple[Evaluation, Evaluation]) -> None:
    from antiphon.inference.evaluate import compare as test

    first, second = found
    print(f"{' -> '.join(names)} on {len(first.answers):,} pairs of {data}, sha256 {first.data[:12]}")
    _notes(names, found)
    for comparison in test(first, second):
        print(f"{comparison}  ({comparison.signature})")


def _forgetting(names: tuple[str, str], new: Side, old: Side) -> None:
    from rich.table import Table

    from antiphon.cli.console import Console
    from antiphon.inference.forgetting import rows

    for what, side in (("new", new), ("old", old)):
        print(f"{what}: {len(side.before.answers):,} pairs of {side.name}, sha256 {side.before.data[:12]}")
        _notes(names, (side.before, side.after))
    print()
    table = Table.grid(padding=(0, 3, 0, 0))
    for row in rows(names, new, old):
        table.add_row(*row)
    Console(highlight=False).print(table)


def _notes(names: tuple[str, str], found: tuple[Evaluation, Evaluation]) -> None:
    """What was odd, by model."""
    for name, each in zip(names, found, strict=True):
        for note in each.notes:
            print(f"{name}: {note}")
