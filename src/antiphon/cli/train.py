"""`antiphon train`: from a file of pairs to a model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from antiphon.cli.settings import assignments, from_file
from antiphon.core import config as configuration

if TYPE_CHECKING:
    from antiphon.training.observers import Result


def train(
    data: str,
    /,
    *settings: str,
    out: Annotated[Path, Parameter(help="new folder for the run: checkpoints, log and the best model")],
    valid: Annotated[
        str | None, Parameter(help="pairs to judge by; without it a share of the data is held out")
    ] = None,
    task: Annotated[
        str | None, Parameter(help="what the pairs are for: transduction, translation, dialogue ...")
    ] = None,
    from_: Annotated[
        str | None, Parameter(name="--from", help="a trained model (bundle or run) to go on from with this data")
    ] = None,
    mix: Annotated[
        str | None, Parameter(help="other pairs, old or made, a sample of which goes into every epoch (see data.mix)")
    ] = None,
    teacher: Annotated[
        tuple[str, ...], Parameter(help="a model whose expectations are learned; several are an ensemble")
    ] = (),
    config: Annotated[Path | None, Parameter(help="a TOML file of settings; key=value comes after it")] = None,
    show: Annotated[bool, Parameter(help="only show the settings that would be used, and why")] = False,
) -> int:
    """Train a model on a file of pairs; whatever is not set is proposed from the data, with the reason.

    Parameters
    ----------
    data
        A table of pairs (TSV, CSV, JSONL, Parquet; .gz and .xz too), or two parallel files: source.txt,target.txt.
    settings
        Anything else as key=value, such as model.encoder.kind=gru or training.minutes=10. `antiphon info` lists all.
    """
    given = {**(from_file(config) if config else {}), **({"task": task} if task else {}), **assignments(settings)}
    configuration.override(configuration.Config(), given)
    console = Console()
    if show:
        _show(console, data, valid, given, from_, mix, teacher)
        return 0
    from antiphon.cli.display import watching
    from antiphon.training.start import fit

    with watching(console, given) as observer:
        command = shlex.join(["antiphon", *sys.argv[1:]])
        result = fit(
            data, out=out, valid=valid, assignments=given, observers=[observer], command=command, start=from_, mix=mix,
            teachers=teacher,
        )  # fmt: skip
    return concluded(console, result)


def _show(
    console: Console, data: str, valid: str | None, given: dict[str, Any], start: str | None, mix: str | None,
    teachers: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """The recipe for this data; nothing is trained or written."""
    from antiphon.cli.display import recipe
    from antiphon.training import recipes
    from antiphon.training.distillation import taught
    from antiphon.training.finetuning import Start
    from antiphon.training.start import Sources
    from antiphon.training.start import settings as wished

    wanted = wished(taught(given, teachers), Start.open(start) if start is not None else None)
    sources = Sources.keep(Path(), data, valid, None, wanted.data, mix)
    pairs, _ = sources.open(wanted)
    _, choices = recipes.propose(wanted, sources.looked_at(wanted, pairs), trained=start is not None)
    console.print(recipe(choices, given))


def concluded(console: Console, result: Result) -> int:
    """What to do with the model, and the exit code of the run."""
    if result.bundle is not None and not result.interrupted:
        console.print(
            f"the model is in {result.out}; try: antiphon predict {result.out}", highlight=False, soft_wrap=True
        )
    return result.exit_code
