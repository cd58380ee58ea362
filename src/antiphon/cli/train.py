"""`antiphon train`: from a file of pairs to a model."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from antiphon.cli.console import Console
from antiphon.cli.settings import assignments, from_file
from antiphon.core.errors import ConfigError

if TYPE_CHECKING:
    from antiphon.training.observers import Result
    from antiphon.training.synthetic import Progress

Valid = Annotated[str | None, Parameter(help="pairs to judge by; without it a share of the data is held out")]
"""What `--valid` takes."""


def train(
    data: str,
    /,
    *settings: str,
    out: Annotated[Path, Parameter(help="new folder for the run: checkpoints, log and the best model")],
    valid: Valid = None,
    task: Annotated[
        str | None, Parameter(help="what the pairs are for, as `antiphon tasks` lists it; transduction where not given")
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
    back_translate: Annotated[
        str | None, Parameter(help="a model from targets to sources that makes pairs of --text, to be mixed in")
    ] = None,
    self_train: Annotated[
        str | None, Parameter(help="a model from sources to targets that makes pairs of --text, to be mixed in")
    ] = None,
    text: Annotated[
        str | None, Parameter(help="text without its other side, a line each; see --back-translate")
    ] = None,
    way: Annotated[
        Literal["beam", "sample", "noise"] | None, Parameter(help="the best answers, drawn ones, or noisy sources")
    ] = None,
    adapter: Annotated[
        str | None, Parameter(help="with --from: train an adapter of this name, and leave the model as it is")
    ] = None,
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
    if adapter == "":
        raise ConfigError("the adapter has no name", where="--adapter", do="name it: --adapter NAME")
    named = {key: value for key, value in (("task", task), ("model.adapter.name", adapter)) if value}
    given = {**(from_file(config) if config else {}), **named, **assignments(settings)}
    from antiphon.core.config import Config
    from antiphon.core.keys import override

    override(Config(), given)
    console, made = Console(), _made(back_translate, self_train, text, way, mix)
    if show:
        _show(console, data, valid, given, from_, mix, teacher)
        return 0
    from antiphon.training.distillation import taught

    given = taught(given, teacher)
    learn = partial(_learn, data, mix, made, out=out, valid=valid, assignments=given, start=from_)
    return learned(console, given, learn)


def _learn(data: str, mix: str | None, made: dict[str, Any] | None, *, progress: Progress, **common: Any) -> Result:
    """Train on the pairs alone, or also on those that a model makes of text."""
    from antiphon.training.start import fit
    from antiphon.training.synthetic import learn_from_text

    if made is None:
        return fit(data, mix=mix, **common)
    return learn_from_text(data, **made, progress=progress, **common)


def learned(console: Console, given: Mapping[str, Any], learn: Callable[..., Result]) -> int:
    """Train, and show how far it is; gives the exit code. `learn` takes `observers`, `command` and `progress`."""
    from antiphon.cli.answering import answering, stopped
    from antiphon.cli.bedside import Bedside
    from antiphon.cli.checkup import Checkup
    from antiphon.cli.display import watching
    from antiphon.core.stopping import Stopped

    try:
        with answering(console) as progress, watching(console, given) as observer:
            observers = [observer, Checkup(observer), Bedside(observer)]
            result = learn(progress=progress, observers=observers, command=shlex.join(["antiphon", *sys.argv[1:]]))
    except Stopped as error:
        return stopped(console, error)
    return concluded(console, result)


def _made(
    back: str | None, forth: str | None, text: str | None, way: str | None, mix: str | None
) -> dict[str, Any] | None:  # fmt: skip
    """Which model makes which side of pairs of which text, and in what way; None where no text was given."""
    by = [name for name in (back, forth) if name is not None]
    if not by and text is None and way is None:
        return None
    if len(by) != 1 or text is None:
        do = "give --text with one of --back-translate and --self-train"
        raise ConfigError("text alone needs one model that makes its other side", where="train", do=do)
    if mix is not None:
        raise ConfigError(
            "--mix and --text cannot go together", where="train", do="use antiphon synthesize, then --mix"
        )
    return {"by": by[0], "side": "source" if forth is None else "target", "text": text, "way": way}


def _show(
    console: Console, data: str, valid: str | None, given: dict[str, Any], start: str | None, mix: str | None,
    teachers: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """The recipe for this data; nothing is trained or written."""
    from antiphon.cli.display import recipe
    from antiphon.training import recipes
    from antiphon.training.distillation import taught
    from antiphon.training.finetuning import Start
    from antiphon.training.given import settings as wished
    from antiphon.training.observers import Audience
    from antiphon.training.sources import Sources
    from antiphon.training.start import finder

    wanted = wished(taught(given, teachers), Start.open(start) if start is not None else None)
    sources = Sources.keep(Path(), data, valid, None, wanted.data, mix)
    wanted = sources.kind(wanted)
    pairs, _ = sources.open(wanted)
    _, choices = recipes.propose(
        wanted, sources.looked_at(wanted, pairs, finder(wanted, Audience([]))), trained=start is not None
    )
    console.print(recipe(choices, given))


def concluded(console: Console, result: Result) -> int:
    """What to do with the model, and the exit code of the run."""
    if result.bundle is not None and not result.interrupted:
        how = f" --adapter {result.adapter}" if result.adapter else ""
        text = f"the model is in {result.out}; try: antiphon predict {shlex.quote(str(result.out))}{how}"
        console.print(text, highlight=False, soft_wrap=True)
    return result.exit_code
