"""`antiphon evaluate`: how good a model is on pairs, in numbers that can be repeated."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

from cyclopts import Parameter

from antiphon.cli.models import AdapterName, Backward, Knowledge

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
    from antiphon.cli.models import metric_names, predictor, scored_pairs, searching
    from antiphon.inference.evaluate import evaluate as score

    guesser = predictor(model, backward, knowledge, adapter)
    chosen = searching(guesser.config, settings)
    columns = metric_names(by)
    pairs = scored_pairs(data, guesser.config)
    found = score(guesser, pairs, metric_names(metrics), decoding=chosen, columns=columns)
    about = {"model": model, "command": shlex.join(["antiphon", *sys.argv[1:]])}
    if backward is not None:
        about["backward"] = backward
    if knowledge is not None:
        about["knowledge"] = knowledge
    if adapter is not None:
        about["adapter"] = adapter
    print(found.to_json(about) if json else "\n".join(found.lines()))
