"""What commands share: models as people name them, the data to score them on, and the settings of a search."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from antiphon.cli.settings import assignments
from antiphon.core.config import Config, Decoding
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override

if TYPE_CHECKING:
    from antiphon.data.corpus import Pair
    from antiphon.data.report import Report
    from antiphon.inference.bundle import Bundle
    from antiphon.inference.predictor import Predictor

Backward = Annotated[
    str | None, Parameter(help="a model from targets to sources: ranks the candidates against dull answers")
]
"""What `--backward` means."""
Knowledge = Annotated[
    str | None, Parameter(help="a file of facts (JSON, TSV, Turtle): each input gets those of what it mentions")
]
"""What `--knowledge` means."""

AdapterName = Annotated[
    str | None, Parameter(help="the adapter of the model to answer by; without it, the model alone")
]
"""What `--adapter` means."""


def predictor(
    names: str, backward: str | None = None, knowledge: str | None = None, adapter: str | None = None
) -> Predictor:
    """The model that a path names, or the ensemble of several with commas between; with a backward model's path, one
    that ranks its candidates by that as well; with a file of `knowledge` for one that reads facts; by one of its
    adapters, where one is named."""
    from antiphon.inference.bundle import load
    from antiphon.inference.predictor import Predictor

    if adapter == "":
        raise ConfigError("the adapter has no name", where="--adapter", do="name it: --adapter NAME")
    bundles = [load(Path(path)) for path in model_paths(names)]
    again = load(Path(backward)) if backward else None
    found = Predictor(bundles, backward=again, knowledge=knowledge, adapter=adapter)
    tell(found.facts)
    return found


def reads_facts(*names: str) -> list[bool]:
    """Which of these models read facts. Raises `ConfigError` where none does: there would be no use for a file."""
    from antiphon.inference.bundle import load

    found = [load(Path(model_paths(name)[0])).task.knowledge != "none" for name in names]
    if not any(found):
        raise ConfigError("no model here reads facts", where="--knowledge", got=", ".join(names), do="leave it out")
    return found


def model_paths(names: str) -> list[str]:
    """The model that a path names, or several with commas between."""
    found = [names] if Path(names).exists() else words_of(names)
    if not found:
        from antiphon.core.errors import ConfigError

        raise ConfigError("no model is named", got=repr(names), do="give a bundle or a run")
    return found


COLUMNS = ("data.columns",)
READING = (*COLUMNS, "data.empty", "data.damaged")
"""Settings of a command that are of the pairs it reads, and not of its search."""


def searching(model: Config, words: Iterable[str], aside: Sequence[str] = READING) -> Decoding:
    """A model's own decoding settings with those of the command line put in; `decoding.` may be left out. Those named
    `aside` are for reading."""
    return override(model, assignments(_of_search(words, aside), "decoding")).decoding


def _of_search(words: Iterable[str], aside: Sequence[str] = READING) -> list[str]:
    return [word for word in words if word.partition("=")[0] not in aside]


def reading(model: Config, words: Iterable[str], names: Sequence[str] = READING) -> Config:
    """A model's own settings with those of the command line that say how pairs are read."""
    return override(model, assignments([word for word in words if word.partition("=")[0] in names]))


def scored_pairs(
    data: str, model: Config, *others: Config, more: Sequence[str] = (), words: Iterable[str] = ()
) -> list[Pair]:
    """The pairs of a file read as the model's training data was, but for what the `words` of a command say of that;
    references of one source together.

    They have the columns of context that any of the models reads, and `more`. Raises `DataError` where one lacks one.
    """
    from antiphon.core.errors import DataError
    from antiphon.data.corpus import group_references, open_pairs

    model = reading(model, words)
    wanted = dict.fromkeys([*model.data.context, *(name for each in others for name in each.data.context), *more])
    corpus = open_pairs(data, replace(model.data, context=tuple(wanted)) if model.data.columns else model.data)
    pairs = group_references(corpus)
    for number, pair in enumerate(pairs, 1):
        if lacking := next((name for name in wanted if name not in pair.context), ""):
            known = ", ".join(name for name in pair.context if name.isprintable())
            do = f"known: {known}" if known else "name the columns in the first line"
            raise DataError(f"pair {number:,} has no column {lacking}", where=data, got=pair.source[:60], do=do)
    tell(corpus.report)
    return pairs


def idle(chosen: Decoding, words: Iterable[str], *, backward: bool = False, first: bool = False) -> None:
    """Say which of the settings that were typed do nothing, on standard error; `first` where only the first answer
    counts."""
    from antiphon.inference.hypothesis import pool

    typed = {key.removeprefix("decoding.") for key in assignments(_of_search(words), "decoding")}
    drawn = sorted(typed & {"temperature", "top_k", "top_p", "samples"}) if not chosen.sample else []
    apart = sorted(typed & {"diversity"}) if chosen.groups == 1 else []
    again = sorted(typed & {"backward_weight", "length_reward"}) if not backward else []
    for names, need in ((drawn, "sample=true"), (apart, "groups=2 or more"), (again, "--backward")):
        if names:
            print(f"note: {', '.join(names)} without {need}: it changes nothing", file=sys.stderr)
    if "risk" in typed and chosen.risk and pool(chosen) == 1:
        print("note: risk with one candidate changes nothing: give a beam or samples", file=sys.stderr)
    if first and "n_best" in typed and not chosen.sample and not chosen.risk:
        print("note: n_best changes nothing: the first answer alone is judged", file=sys.stderr)


def writable(final: Path) -> None:
    """Make the folder of a file that is to be written after long work. Raises `ConfigError` where it cannot be."""
    from antiphon.core.errors import ConfigError

    probe = final.parent / f"{final.name}.tmp-{os.getpid()}"
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        what = f"cannot be written: {(error.strerror or str(error)).lower()}"
        raise ConfigError(what, where=final, do="choose another place") from None


def metric_names(words: str | None) -> list[str] | None:
    """The metrics asked for; None, which means those of the task, where none were."""
    names = None if words is None else words_of(words)
    if names == []:
        from antiphon.core.errors import ConfigError

        raise ConfigError("no metric is named", where="--metrics", got=repr(words), do="name some, or leave it out")
    return names


def words_of(text: str) -> list[str]:
    """What stands between commas; blanks are nothing."""
    return [word.strip() for word in text.split(",") if word.strip()]


def with_facts(pairs: list[Pair], bundle: Bundle, knowledge: str | None) -> list[Pair]:
    """The pairs with what the model looks up beside them: in the file that is given, or that of its training.

    Raises `ConfigError` for a file where the model reads no facts.
    """
    from antiphon.core.errors import ConfigError
    from antiphon.data.facts import Finder
    from antiphon.data.report import Report

    if bundle.task.knowledge == "none":
        if knowledge:
            raise ConfigError("the model reads no facts", where="--knowledge", got=knowledge, do="leave it out")
        return pairs
    if not (file := knowledge or bundle.config.data.knowledge):
        return pairs
    find = Finder.open(replace(bundle.config.data, knowledge=file), report := Report())
    found = list(map(find.written, pairs))
    tell(report)
    return found


def tell(report: Report) -> None:
    """What was odd in the data, on standard error."""
    for line in report.lines():
        print(f"note: {line}", file=sys.stderr)
