"""`antiphon export`: a trained model for an engine that answers faster, checked against PyTorch."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from antiphon.cli.models import AdapterName, Knowledge
from antiphon.core.errors import ConfigError

if TYPE_CHECKING:
    from antiphon.export.checking import Checked


def export(
    model: str,
    out: Path,
    /,
    *settings: str,
    data: Annotated[str, Parameter(help="pairs to check and measure on, such as those held out; the first 500 count")],
    to: Annotated[
        Literal["ctranslate2", "onnx", "browser", "executorch"],
        Parameter(help="the engine; browser writes a page that answers, executorch a program for phones"),
    ] = "ctranslate2",
    quantize: Annotated[
        Literal["int8", "none"] | None,
        Parameter(help="round the weights to a byte each, or leave them; int8 unless told, and none in a browser"),
    ] = None,
    shortlist: Annotated[
        str | None,
        Parameter(help="training pairs, to learn from which words may answer which: faster, and nearly the same"),
    ] = None,
    keep: Annotated[bool, Parameter(help="keep PyTorch's weights beside, for what the engine cannot do")] = False,
    adapter: AdapterName = None,
    knowledge: Knowledge = None,
    runtime: Annotated[
        Path | None, Parameter(help="to browser: the folder of the npm package, else node_modules/onnxruntime-web")
    ] = None,
) -> None:
    """Write a model for an engine that answers faster than PyTorch, and show what that changes.

    The result is a bundle: predict, evaluate, serve and Seq2Seq take it like any other, and it answers without PyTorch.
    With --to browser it is a folder of files for any web server: a page in which the model itself answers. With --to
    executorch it is a folder with a program for phones, and all that an app must know of it.

    Parameters
    ----------
    model
        A bundle or a run.
    out
        Where to write it: a folder, or one file where the name ends in .zip.
    settings
        How the export is to search, as key=value: beam=1 and so on; without, as the model does.
    """
    from antiphon.cli.models import scored_pairs, searching, with_facts
    from antiphon.export import browser, executorch
    from antiphon.export.writing import Plan, export_page, export_program
    from antiphon.export.writing import export as written
    from antiphon.inference.bundle import load, room

    {"browser": browser.room, "executorch": executorch.room}.get(to, room)(out)
    if runtime is not None and to != "browser":
        raise ConfigError("--runtime is for --to browser", where="export", do="leave it out")
    own = out.resolve() in (Path(model).resolve(), Path(model, "best").resolve())
    if own or (out.name == "best" and (out.parent / "checkpoints").exists()):
        do = "choose another name"
        raise ConfigError("an export would take the place of the model that it is made of", where=out, do=do)
    bundle = load(Path(model))
    if adapter:
        bundle = bundle.adapted(adapter)
    elif bundle.adapters:
        names = ", ".join(bundle.adapters)
        print(f"note: adapters stay behind ({names}); export each with --adapter NAME", file=sys.stderr)
    bundle = replace(bundle, config=replace(bundle.config, decoding=searching(bundle.config, settings)))
    candidates = None
    if shortlist is not None:
        from antiphon.data.corpus import open_pairs

        candidates = open_pairs(shortlist, bundle.config.data)
    usual: Literal["int8", "none"] = "none" if to == "browser" else "int8"
    plan = Plan(to, quantize or usual, keep, candidates, runtime or browser.RUNTIME)
    pairs = with_facts(scored_pairs(data, bundle.config, words=settings), bundle, knowledge)
    if to == "executorch":
        found, size = export_program(bundle, out, pairs, plan)
        _show(found, data, out)
        what = f"{executorch.PROGRAM} for ExecuTorch, {executorch.MODEL} for the app around it"
        print(f"{size / 1e6:,.1f} MB in all: {what}")
        return
    if to != "browser":
        _show(written(bundle, out, pairs, plan), data, out)
        return
    found, size = export_page(bundle, out, pairs, plan)
    _show(found, data, out)
    print(f"{size / 1e6:,.1f} MB in all; to see it, type: python -m http.server --directory {shlex.quote(str(out))}")


def _show(found: Checked, data: str, out: Path) -> None:
    """What was measured, on what, and where the result is."""
    from rich.table import Table

    from antiphon.cli.console import Console

    head, *rows = found.cells()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for place, title in enumerate(head):
        table.add_column(title, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"on {found.pairs:,} pairs of {data}; written to {out}", highlight=False, soft_wrap=True)
