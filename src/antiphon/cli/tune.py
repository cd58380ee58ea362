"""`antiphon tune`: searches for settings that beat the recipe's, and says whether it found any."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from antiphon.cli.console import Console
from antiphon.cli.settings import assignments, from_file
from antiphon.cli.train import Valid


def tune(
    data: str,
    /,
    *settings: str,
    out: Annotated[Path, Parameter(help="folder for the study; the same command with the same folder goes on")],
    trials: Annotated[int | None, Parameter(help="trainings with other settings, 30 where nothing is said")] = None,
    minutes: Annotated[float | None, Parameter(help="minutes in all, the finals included")] = None,
    workers: Annotated[int | None, Parameter(help="trainings at a time; one a core where not given")] = None,
    cluster: Annotated[
        str, Parameter(help="a Ray cluster that trains: HOST:PORT of its head, auto, or local; all share --out")
    ] = "",
    seeds: Annotated[int, Parameter(help="fresh seeds that finalists and the recipe are trained with")] = 3,
    finalists: Annotated[int, Parameter(help="how many of the best are compared with the recipe")] = 2,
    valid: Valid = None,
    test: Annotated[
        str | None, Parameter(help="pairs that only finalists are judged by; without it, others are held out")
    ] = None,
    task: Annotated[str | None, Parameter(help="what the pairs are for, as `antiphon tasks` lists it")] = None,
    config: Annotated[Path | None, Parameter(help="a TOML file of settings; key=value comes after it")] = None,
    quiet: Annotated[bool, Parameter(help="say nothing but the conclusion")] = False,
    json: Annotated[bool, Parameter(help="say nothing, and write the whole result as JSON")] = False,
) -> int:
    """Search for settings that beat the recipe's, and judge the best of them by pairs that chose nothing.

    The recipe is the first trial. Killed at any moment, the same command goes on, trainings from their checkpoints.

    Parameters
    ----------
    data
        The pairs, as for train.
    settings
        Settings that are not searched, as key=value, such as training.epochs=10.
    """
    given = {**(from_file(config) if config else {}), **({"task": task} if task else {}), **assignments(settings)}
    from antiphon.cli.answering import stopped
    from antiphon.cli.searching import conclusion, watching
    from antiphon.core.config import Config
    from antiphon.core.keys import override
    from antiphon.core.stopping import Stopped
    from antiphon.tuning.tune import Budget
    from antiphon.tuning.tune import tune as search

    override(Config(), given)
    budget, console = Budget(trials, minutes, workers, finalists, seeds), Console(highlight=False)
    command = shlex.join(["antiphon", *sys.argv[1:]])
    try:
        with watching(console, silent=quiet or json) as watcher:
            found = search(data, out, valid=valid, test=test, assignments=given, budget=budget, watcher=watcher,
                           command=command, cluster=cluster)  # fmt: skip
    except Stopped as error:
        return stopped(console, error)
    if json:
        print(found.to_bytes().decode(), end="")
    else:
        console.print(conclusion(found))
        if found.best is not None:
            console.print(Text.assemble(("to train it again: ", "dim"), found.command), soft_wrap=True)
    return 128 + found.interrupted if found.interrupted else 0
