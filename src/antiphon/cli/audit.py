"""`antiphon audit`: what is wrong with pairs, before anything is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from antiphon.cli.settings import assignments, from_file

if TYPE_CHECKING:
    from antiphon.diagnosis.cleaning import Cleaned


def audit(
    data: str,
    /,
    *settings: str,
    valid: Annotated[str | None, Parameter(help="pairs that training is to be judged by")] = None,
    test: Annotated[str | None, Parameter(help="pairs that the model is to be scored on")] = None,
    task: Annotated[str | None, Parameter(help="what the pairs are for, as `antiphon tasks` lists it")] = None,
    config: Annotated[Path | None, Parameter(help="a TOML file of settings; key=value comes after it")] = None,
    fix: Annotated[
        str | None, Parameter(help="write a cleaned copy there, and a list of what went where to FIX.removed.tsv")
    ] = None,
    keep: Annotated[str, Parameter(help="kinds of findings that --fix leaves alone, with commas between")] = "",
    all_: Annotated[bool, Parameter(name="--all", help="show notes as fully as what is grave")] = False,
    json: Annotated[bool, Parameter(help="write everything as JSON")] = False,
) -> int:
    """Look for all that is wrong with pairs, before anything is trained: misaligned, damaged, repeated, leaked lines.

    Says go, go with care, or stop (exit code 1), and for each finding what it rests on, what it costs and the cure.

    Parameters
    ----------
    data
        A table of pairs (TSV, CSV, JSONL, Parquet; .gz and .xz too), or two parallel files: source.txt,target.txt.
    settings
        How to read and cut them, as key=value: data.columns=2,1 and so on.
    """
    given = {**(from_file(config) if config else {}), **({"task": task} if task else {}), **assignments(settings)}
    from antiphon.cli.models import writable
    from antiphon.core.config import Config
    from antiphon.core.errors import ConfigError
    from antiphon.core.keys import override
    from antiphon.diagnosis.cleaning import clean
    from antiphon.diagnosis.data import audit as look
    from antiphon.inference import tasks
    from antiphon.inference.strict_json import dump_json

    wanted = override(Config(), given)
    tasks.get(wanted.task)
    if keep and fix is None:
        raise ConfigError("--keep is for --fix", where="audit", got=keep, do="leave it out, or add --fix OUT")
    for name in fix.split(",") if fix else ():
        writable(Path(name))
    found = look(data, wanted, valid=valid, test=test)
    kept = [kind.strip() for kind in keep.split(",") if kind.strip()]
    cleaned = clean(found, fix, kept) if fix is not None else None
    if json:
        print(dump_json({**found.to_dict(), **({"fixed": _about(cleaned)} if cleaned else {})}).decode())
    else:
        from antiphon.cli.console import Console
        from antiphon.cli.findings import report

        console = Console(highlight=False)
        console.print(report(found, full=all_))
        if cleaned is not None:
            console.print(_told(cleaned), soft_wrap=True, markup=False)
    return int(found.verdict == "stop")


def _about(cleaned: Cleaned) -> dict[str, object]:
    return {"files": [str(path) for path in cleaned.files], "list": str(cleaned.removed), "kept": cleaned.kept,
            "left out": cleaned.dropped, "changed": cleaned.changed}  # fmt: skip


def _told(cleaned: Cleaned) -> str:
    names = " and ".join(map(str, cleaned.files))
    what = f"{cleaned.kept:,} lines kept, {cleaned.changed:,} of them changed, {cleaned.dropped:,} left out"
    return f"\n{names}: {what}; each is in {cleaned.removed}"
