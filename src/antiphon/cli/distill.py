"""`antiphon distill`: from one slow model or several to a fast one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from antiphon.cli.console import Console
from antiphon.cli.settings import assignments
from antiphon.cli.train import Valid, learned


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
    valid: Valid = None,
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
    from antiphon.cli.models import model_paths
    from antiphon.training.synthetic import distill as teach

    given = assignments(settings)
    learn = partial(
        teach, model_paths(teacher), data, out=out, level=level, nearest=nearest, valid=valid, assignments=given
    )
    return learned(Console(), given, learn)
