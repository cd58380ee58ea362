"""`antiphon report`: what a run learned, how good it is and where it errs, on a page or in the terminal."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from antiphon.core.errors import AntiphonError, ConfigError

if TYPE_CHECKING:
    from antiphon.diagnosis.report import Run


def report(
    run: Path,
    /,
    *others: Path,
    out: Annotated[Path | None, Parameter(help="write the report to this file, .html, which needs no network")] = None,
    data: Annotated[
        str | None, Parameter(help="pairs to answer, or source.txt,target.txt; default: the run's validation pairs")
    ] = None,
    pairs: Annotated[int, Parameter(help="the most pairs to answer, spread evenly; 0 answers none")] = 1000,
    text: Annotated[bool, Parameter(help="print it here also where it is written")] = False,
) -> None:
    """Report a run: scores with intervals, curves, where it errs, examples, attention, what the doctor says, settings.

    Several runs are shown beside each other on the same pairs, with tests of each against the first. Without --out the
    report is printed.

    Parameters
    ----------
    run
        The folder that `antiphon train` made.
    others
        Further ones.
    """
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError("the report is written as HTML", where="--out", got=out.name, do="name it .html")
    if pairs < 0:
        raise ConfigError("there cannot be fewer than no pairs", where="--pairs", got=pairs, do="give 0 or more")
    from antiphon.cli.models import writable
    from antiphon.diagnosis.report import judge, open_run, page
    from antiphon.inference.files import write_file

    if out is not None:
        writable(out)
    runs = [open_run(path) for path in (run, *others)]
    found = judge(runs, data, pairs)
    findings = [examined(each) for each in runs]
    if out is not None:
        write_file(out, page(runs, found, findings, shlex.join(["antiphon", *sys.argv[1:]])).encode())
        print(f"{out}: {out.stat().st_size / 1000:,.0f} kB")
    if out is None or text:
        from antiphon.cli.console import Console
        from antiphon.cli.report_text import report as told

        Console(highlight=False).print(told(runs, found, findings))


def examined(run: Run) -> Mapping[str, Any] | None:
    """What the doctor says of a run; None where there is no doctor, or the run gives it nothing to look at."""
    try:
        doctor = importlib.import_module("antiphon.diagnosis.doctor")
    except ModuleNotFoundError:
        return None
    try:
        return doctor.examine(run.path).to_dict()
    except AntiphonError:
        return None
