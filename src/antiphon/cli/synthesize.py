"""`antiphon synthesize`: from lines of text to pairs whose other side a model has made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from antiphon.cli.console import Console
from antiphon.cli.models import Knowledge
from antiphon.cli.settings import assignments
from antiphon.core.errors import ConfigError

Ways = Literal["beam", "sample", "noise"]
"""What `--way` may say."""


def synthesize(
    model: str,
    text: str,
    /,
    *settings: str,
    out: Annotated[Path, Parameter(help="the JSONL file of pairs; an unfinished one is gone on with")],
    as_: Annotated[
        Literal["source", "target"], Parameter(name="--as", help="what answers become of a pair", show_default=True)
    ] = "target",
    way: Annotated[
        Ways, Parameter(help="the best answer, a drawn one, or the best with noise on the source", show_default=True)
    ] = "beam",
    column: Annotated[
        list[str] | None, Parameter(help="NAME=VALUE, a column that all texts have, such as lang=de; may come twice")
    ] = None,
    knowledge: Knowledge = None,
) -> int:
    """Make pairs of text: a model answers each line, and its answer becomes the target, or the source, of a pair.

    `antiphon train PAIRS --mix OUT` learns from them; they have the columns that are given with `--column`. Answers
    that are empty or have no end are left out and counted.

    Parameters
    ----------
    model
        A bundle or a run; several with commas between them answer together, as an ensemble.
    text
        A file with a text a line.
    settings
        How to search, as key=value: beam=5, top_k=10, seed=2 and so on.
    """
    from antiphon.cli.answering import answering, stopped
    from antiphon.cli.models import model_paths
    from antiphon.core.stopping import Stopped, interruptible
    from antiphon.training.sources import NAMED
    from antiphon.training.synthetic import from_text

    if out.suffix not in (".jsonl", ".ndjson", ".json"):
        raise ConfigError("pairs are written as JSONL", where="--out", got=out, do="end it in .jsonl")
    console = Console(stderr=True)
    chosen = assignments(settings, "decoding")
    columns = dict[str, str]()
    for word in column or []:
        name, _, value = word.partition("=")
        if not name or not value or name in NAMED or name in columns:
            do = "write NAME=VALUE once for each name, such as lang=de"
            raise ConfigError("is no column of context", where="--column", got=word, do=do)
        columns[name] = value
    try:
        with answering(console) as progress, interruptible():
            made = from_text(model_paths(model), text, out, as_, way, decoding=chosen, progress=progress,
                             knowledge=knowledge or "",
                             columns=columns)  # fmt: skip
    except Stopped as error:
        return stopped(console, error)
    for line in made.lines():
        console.print(line, highlight=False, soft_wrap=True)
    return 0
