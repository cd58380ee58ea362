"""Learning from answers: sequence-level distillation, back-translation and self-training, each as one call."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from antiphon.core.config import Config, Data
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.core.stopping import interruptible
from antiphon.data.corpus import Corpus, Pair, group_references, open_pairs, read_lines, split
from antiphon.data.knowledge import FACTS
from antiphon.data.knowledge import fingerprint as digest_of
from antiphon.data.modalities import Text
from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor
from antiphon.inference.synthesis import Made, Making, synthesize
from antiphon.training.distillation import fingerprint, taught
from antiphon.training.finetuning import Start
from antiphon.training.given import nothing_to_mix, settings
from antiphon.training.identity import claim, clear
from antiphon.training.observers import Audience, Result
from antiphon.training.sources import HELD_OUT
from antiphon.training.start import fit

Level = Literal["sequence", "word", "both"]
"""What is learned of a teacher: its answers, its distributions, or its distributions over its answers."""

Side = Literal["source", "target"]
"""What an answer becomes of a new pair."""

Way = Literal["beam", "sample", "noise"]
"""The best answer, a drawn one, or the best one with noise on the new pair's source."""

NOISE, TAG = 0.1, "synthetic"
"""The rate of `noise` (Edunov et al. 2018), and the tag before back-translated sources (Caswell et al. 2019)."""


def silent(done: int, of: int) -> None:
    """Tells nothing."""


Progress = Callable[[int, int], None]
"""Is called with how many inputs have been answered, and of how many."""


def distill(
    teachers: Sequence[str | os.PathLike[str]], data: Any, *, out: str | os.PathLike[str], level: Level = "sequence",
    nearest: str = "", valid: Any = None, assignments: Mapping[str, Any] | None = None,
    observers: Sequence[Any] = (), command: str = "", progress: Progress = silent,
) -> Result:  # fmt: skip
    """Train a student, light where nothing else is set, on what teachers make of pairs (Kim and Rush 2016).

    The teachers, one or an ensemble, answer the sources with their own search; the answers go to `OUT.answers.jsonl`,
    and an interrupted making goes on there. With `nearest`, a metric, the answer of the beam that is nearest to the
    reference is taken. The student is judged by held-out pairs as they are, whose sources the teachers do not answer.
    Data, settings, observers and errors are as in `fit`.
    """
    objective = "likelihood" if level == "sequence" else "distillation"
    out, given = Path(out), taught({"training.objective": objective, **(assignments or {})}, teachers)
    if level != "sequence" and given["training.objective"] != "distillation":
        do = "leave it out, or take --level sequence"
        raise ConfigError(
            f"--level {level} learns from distributions", got=f"training.objective={given['training.objective']}", do=do
        )
    if nearest and level == "word":
        raise ConfigError("the nearest answer is asked for, but no answers are learned from", do="leave out one")
    wanted = settings(given, None)
    nothing_to_mix(wanted)
    if level == "word":
        return fit(data, out=out, valid=valid, assignments=given, observers=observers, command=command)
    _free(out)
    with interruptible():
        corpus = open_pairs(data, wanted.data)
        kept, held_out = _split(corpus, wanted) if valid is None else (corpus, open_pairs(valid, wanted.data))
        pairs, judged = group_references(kept), group_references(held_out)
        known = {"data": corpus.fingerprint(), "asked": _digest(pair.source for pair in pairs)}
        making = Making(nearest=nearest, seed=wanted.training.seed)
        made = _made(wanted.training.teachers, pairs, beside(out), making, known, {}, len(pairs), progress,
                     wanted.data.knowledge)  # fmt: skip
    _tell(observers, [*corpus.report.lines(), *made.lines()])
    return fit(open_pairs(made.path, Data()), out=out, valid=judged, assignments=given, observers=observers,
               command=command)  # fmt: skip


def learn_from_text(
    data: Any, *, by: str | os.PathLike[str], text: Any, side: Side, out: str | os.PathLike[str],
    way: Way | None = None, valid: Any = None, assignments: Mapping[str, Any] | None = None,
    observers: Sequence[Any] = (), command: str = "", start: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Result:  # fmt: skip
    """Train on pairs, and on pairs that a model makes of text that has no other side.

    With `side="source"` the text is targets, and `by` a model from targets to sources: back-translation (Sennrich et
    al. 2016), with fresh weights behind a tag, unless `data.mix_tag` says otherwise. With `side="target"` it is
    sources: self-training, by default with noise on them (He et al. 2020). What is made goes to `OUT.answers.jsonl`,
    and `data.mix` of each epoch's pairs come from there. `text` is a file of lines, or strings; the rest is as in
    `fit`.
    """
    given = dict(assignments or {})
    data = list(data) if isinstance(data, Iterator) else data
    fixed = start is not None or override(Config(), given).training.teachers  # then there is no such tag
    if side == "source" and not fixed:
        given.setdefault("data.mix_tag", TAG)
    config = settings(taught(given), Start.open(start) if start is not None else None)
    if "," in str(by) and not Path(by).exists():
        do = f"make pairs with `antiphon synthesize {by} TEXT --out PAIRS`, which takes several, and give --mix PAIRS"
        raise ConfigError("one model makes the other side of a text", got=by, do=do)
    _free(Path(out))
    read = side == "source" or isinstance(load(Path(by)).task.source, Text)
    usual: Way = "noise" if side == "target" and read else "beam"
    if way == "noise" and not read:
        raise ConfigError("noise is for sources of text", where=by, got="noise", do="take beam or sample")
    _bare(config, data)
    with interruptible():
        made = from_text([by], text, beside(Path(out)), side, way or usual, seed=config.training.seed,
                         progress=progress, knowledge=config.data.knowledge)  # fmt: skip
    _tell(observers, made.lines())
    return fit(data, out=out, valid=valid, assignments=given, observers=observers, command=command, start=start,
               mix=open_pairs(made.path, Data()))  # fmt: skip


def _bare(config: Config, data: Any) -> None:
    """Refuse pairs with columns that those made of plain text cannot have."""
    first = next(iter(open_pairs(data, config.data)), None)
    reads = config.model.knowledge.kind != "none" and not config.data.knowledge
    facts = [FACTS] if reads and first is not None and FACTS in first.context else []
    for column in (*config.data.context, *facts):
        do = f"make them with `antiphon synthesize MODEL TEXT --column {column}=VALUE --out NEW`, and give --mix NEW"
        do = do if column != FACTS else "give data.knowledge=FILE, or set model.knowledge.kind=none"
        what = f"the pairs have a column {column}, and what is made of plain text has none"
        raise ConfigError(what, where="--text", do=do)


def from_text(
    by: Sequence[str | os.PathLike[str]], text: Any, out: Path, side: Side, way: Way, *,
    decoding: Mapping[str, Any] | None = None, seed: int = 1, progress: Progress = silent, knowledge: str = "",
    columns: Mapping[str, str] | None = None,
) -> Made:  # fmt: skip
    """Pairs whose one side is a text, a line each, and whose other side is a model's answer to it, as JSONL.

    `knowledge` is a file of facts, for models that read some; `columns` are what every text has as context, and the
    pairs have too.
    """
    lines = (lambda: read_lines(text)) if isinstance(text, str | os.PathLike) else list(text).__iter__
    count = sum(1 for _ in lines())
    if not count:
        where = text if isinstance(text, str | os.PathLike) else "text"
        raise DataError("there is no line in it", where=where, do="check that this is the right file")
    changes = {"decoding.sample": way == "sample", "decoding.seed": seed, **(decoding or {})}
    making = Making(side, NOISE if way == "noise" else 0.0, seed=seed)
    inputs = (Pair(line, "", (), dict(columns or {})) for line in lines())
    known = {"asked": _digest(lines()), **({"columns": dict(columns)} if columns else {})}
    paths = [str(path) for path in by]
    for name in (read := load(Path(paths[0])).task.context):
        if name not in (columns or {}):
            do = f"give antiphon synthesize --column {name}=VALUE" + (", and the others" if len(read) > 1 else "")
            raise ConfigError(f"the model reads a column {name}, and plain text has none", where=paths[0], do=do)
    return _made(paths, inputs, out, making, known, changes, count, progress, knowledge)


def beside(run: Path) -> Path:
    """Where answers for a run go: it is not there yet."""
    return run.with_name(f"{run.name}.answers.jsonl")


def _made(
    paths: Sequence[str], inputs: Iterable[Pair], out: Path, making: Making, known: Mapping[str, Any],
    changes: Mapping[str, Any], count: int, progress: Progress, knowledge: str,
) -> Made:  # fmt: skip
    models = [load(Path(path)) for path in paths]
    looked_up = knowledge if models[0].task.knowledge != "none" else ""
    predictor = Predictor(models, knowledge=looked_up or None)
    decoding = override(predictor.config, dict(changes)).decoding
    known = {**known, "models": fingerprint(paths), **({"knowledge": digest_of(looked_up)} if looked_up else {})}
    return synthesize(predictor, inputs, out, making, settings=decoding, known=known,
                      told=lambda done: progress(done, count))  # fmt: skip


def _split(corpus: Corpus, config: Config) -> tuple[Corpus, Corpus]:
    """The training and the held-out part, as `fit` would make them."""
    return split(corpus, config.data.valid, most=HELD_OUT)


def _free(run: Path) -> None:
    """Refuse a run folder that cannot be had now, and not after hours of answering."""
    claim(run)
    clear(run)


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps(text).encode())
    return digest.hexdigest()


def _tell(observers: Sequence[Any], lines: Iterable[str]) -> None:
    for line in lines:
        Audience(list(observers)).note("data", line)
