"""`antiphon distill`: from one slow model or several to a fast one."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from antiphon.cli.settings import assignments


def distill(
    teacher: str,
    data: str,
    /,
    *settings: str,
    out: Annotated[Path, Parameter(help="new folder for the student's run; answers go to OUT.answers.jsonl")],
    level: Annotated[
        Literal["sequence", "word", "both"], Parameter(help="learn answers, distributions, or both", show_default=True)
    ] = "sequence",
    nearest: Annotated[
        str, Parameter(help="a metric such as bleu: of the beam, take the answer nearest to the reference")
    ] = "",
    valid: Annotated[
        str | None, Parameter(help="pairs to judge by; without it a share of the data is held out")
    ] = None,
) -> int:
    """Train a light student on what a teacher answers, or on what it expects word by word (Kim and Rush 2016).

    The student has a decoder of one layer, searches greedily, and shares the teacher's vocabularies, where nothing else
    is set. It is judged by real pairs that the teacher did not answer. Interrupted, the same command goes on.

    Parameters
    ----------
    teacher
        A bundle or a run; several with commas between them teach together, as an ensemble.
    data
        The pairs, as for train; best those that the teacher was trained on.
    settings
        Anything else as key=value, such as model.decoder.kind=gru or training.minutes=10. `antiphon info` lists all.
    """
    from antiphon.cli.answering import answering, stopped
    from antiphon.cli.display import watching
    from antiphon.cli.models import model_paths
    from antiphon.cli.train import concluded
    from antiphon.training.start import Stopped
    from antiphon.training.synthetic import distill as teach

    console, given = Console(), assignments(settings)
    try:
        with answering(console) as progress, watching(console, given) as observer:
            result = teach(
                model_paths(teacher), data, out=out, level=level, nearest=nearest, valid=valid, assignments=given,
                observers=[observer], command=shlex.join(["antiphon", *sys.argv[1:]]), progress=progress,
            )  # fmt: skip
    except Stopped as error:
        return stopped(console, error)
    return concluded(console, result)
