"""`antiphon export`: a trained model for an engine that answers faster, checked against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from antiphon.cli.models import AdapterName


def export(
    model: str,
    out: Path,
    /,
    *,
    data: Annotated[str, Parameter(help="pairs to check and measure on, such as those held out; the first 500 count")],
    to: Annotated[Literal["ctranslate2", "onnx"], Parameter(help="the engine")] = "ctranslate2",
    quantize: Annotated[
        Literal["int8", "none"], Parameter(help="round the weights to a byte each, or leave them")
    ] = "int8",
    shortlist: Annotated[
        str | None,
        Parameter(help="training pairs, to learn from which words may answer which: faster, and nearly the same"),
    ] = None,
    keep: Annotated[bool, Parameter(help="keep PyTorch's weights beside, for what the engine cannot do")] = False,
    adapter: AdapterName = None,
) -> None:
    """Write a model for an engine that answers faster than PyTorch, and show what that changes.

    The result is a bundle: predict, evaluate, serve and Seq2Seq take it like any other, and it answers without PyTorch.

    Parameters
    ----------
    model
        A bundle or a run.
    out
        Where to write it: a folder, or one file where the name ends in .zip.
    """
    from rich.console import Console
    from rich.table import Table

    from antiphon.cli.models import scored_pairs
    from antiphon.export.writing import Plan
    from antiphon.export.writing import export as written
    from antiphon.inference.bundle import load, room

    room(out)
    bundle = load(Path(model))
    bundle = bundle.adapted(adapter) if adapter else bundle
    candidates = None
    if shortlist is not None:
        from antiphon.data.corpus import open_pairs

        candidates = open_pairs(shortlist, bundle.config.data)
    found = written(bundle, out, scored_pairs(data, bundle.config), Plan(to, quantize, keep, candidates))
    head, *rows = found.cells()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for place, title in enumerate(head):
        table.add_column(title, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"on {found.pairs:,} pairs of {data}; written to {out}", highlight=False)
