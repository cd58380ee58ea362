"""`antiphon predict`: lines in, answers out, in order and in constant memory."""

from __future__ import annotations

import csv
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from antiphon.cli.models import AdapterName, Backward, Knowledge

if TYPE_CHECKING:
    import numpy as np

    from antiphon.core.config import Data, Decoding
    from antiphon.core.numbers import Forecast
    from antiphon.data.corpus import Pair
    from antiphon.inference.predictor import Answer, Predictor
    from antiphon.inference.task import Task

DIGITS = 6
"""Decimals of scores in JSON lines."""

SHOWN = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Quantiles of numbers in JSON lines."""


def predict(
    model: str,
    file: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
    /,
    *words: str,
    backward: Backward = None,
    knowledge: Knowledge = None,
    adapter: AdapterName = None,
    confidence: Annotated[bool, Parameter(help="write confidence after each answer, with a tab between")] = False,
    abstain: Annotated[
        float | None, Parameter(help="give an empty answer where confidence is below this, as decoding.abstain")
    ] = None,
    jsonl: Annotated[
        bool, Parameter(help="write all answers with scores and alignments, a JSON object a line")
    ] = False,
    out: Annotated[
        Path | None, Parameter(help="write to this file; interrupted in whatever way, the same command goes on there")
    ] = None,
) -> int:
    """Answer lines of text, recordings or films with a trained model, one answer a line, in the same order.

    A line feed within an answer is written as a space; --jsonl keeps it, and gives all of `n_best`.

    A model that was trained with context columns wants them after the source, with tabs between; one that reads facts,
    these as the last column, as subject | relation | object && ..., or --knowledge.

    Parameters
    ----------
    model
        A bundle or a run; several with commas between them answer together, as an ensemble.
    file
        A text file; - or nothing is standard input. Where sources are recordings, films or arrays: one of these, or
        a table whose first column names them.
    words
        How to search, as key=value: beam=5, n_best=3, sample=true, length_penalty=0.6 and so on. Further files.
    """
    from antiphon.cli.models import COLUMNS, predictor, reading, tell

    files = [word for word in (file, *words) if "=" not in word or Path(word).exists()]
    settings = tuple(word for word in (file, *words) if word not in files)
    guesser = predictor(model, backward, knowledge, adapter)
    chosen = _chosen(guesser, settings if abstain is None else (*settings, f"abstain={abstain}"), confidence, jsonl)
    live = (files or ["-"]) == ["-"] and sys.stdin.isatty()
    facts = "no" if guesser.task.knowledge == "none" else "maybe" if knowledge else "yes"
    behind = (*guesser.task.context, *(("facts",) if facts != "no" else ()))
    read = reading(guesser.config, settings, COLUMNS).data
    table = any(word.partition("=")[0] in COLUMNS for word in settings)
    lines = _typed() if live else _asked(guesser.task, files or ["-"], read, behind, table=table)
    answered = partial(_answered, guesser, chosen, lines, facts, 1 if live else None, jsonl, confidence)
    code = 0
    if out is None:
        for line in answered(0):
            print(line, flush=live)
    else:
        about = {"settings": asdict(chosen), "jsonl": jsonl, "confidence": confidence, "columns": list(read.columns)}
        code = _to_file(out, files, answered, {**about, **_models(guesser, backward, knowledge, adapter)})
    tell(guesser.report)
    return code


def _chosen(guesser: Predictor, settings: tuple[str, ...], confidence: bool, jsonl: bool) -> Decoding:
    """How to search; a `ConfigError` where that is more than is known or can be written."""
    from antiphon.cli.models import COLUMNS, idle, searching
    from antiphon.core.errors import ConfigError

    chosen = searching(guesser.config, settings, COLUMNS)
    idle(chosen, settings, backward=guesser.backward is not None)
    if confidence and guesser.calibration is None:
        from antiphon.inference.confidence import unsure

        raise unsure("--confidence", len(guesser.bundles), guesser.adapter)
    if chosen.n_best > 1 and not jsonl:
        raise ConfigError("n_best needs --jsonl", where="predict", got=chosen.n_best, do="add --jsonl")
    return chosen


def _answered(
    guesser: Predictor, chosen: Decoding, lines: Iterator[str | Pair], facts: str, window: int | None, jsonl: bool,
    confidence: bool, first: int,
) -> Iterator[str]:  # fmt: skip
    """The answers from an input on, a line each; `window` inputs at a time, or as many as suit."""
    sources: deque[str] = deque()
    kind = str(guesser.task.target.side.tokenizer)
    rest = islice(lines, first, None)
    inputs = (_input(line, number, guesser.task.context, facts)
              for number, line in enumerate(_noting(rest, sources), first + 1))  # fmt: skip
    for answers in guesser.predict(inputs, settings=chosen, window=window, details=jsonl, first=first):
        source = sources.popleft()
        yield record(source, answers, kind) if jsonl else _line(answers[0], confidence)


def _models(
    guesser: Predictor, backward: str | None, knowledge: str | None, adapter: str | None
) -> dict[str, object]:  # fmt: skip
    """What answers depend on besides inputs and settings, by its content."""
    from antiphon.inference.strict_json import dump_json

    bundles = [*guesser.bundles, *([guesser.backward] if guesser.backward else [])]
    hashes = [sha256(dump_json(bundle.manifest["files"])).hexdigest() for bundle in bundles]
    facts = sha256(Path(knowledge).read_bytes()).hexdigest() if knowledge else ""
    return {"models": hashes, "knowledge": facts, "adapter": adapter or "", "backward": backward is not None}


def _to_file(
    out: Path, files: Sequence[str], answered: Callable[[int], Iterator[str]], about: dict[str, object]
) -> int:
    """Answers in a file, those that are there kept; gives the exit code."""
    from antiphon.cli.answering import answering, stopped
    from antiphon.cli.console import Console
    from antiphon.core.errors import ConfigError
    from antiphon.core.stopping import Stopped, interruptible
    from antiphon.inference.bulk import bulk, digest

    if not files or "-" in files:
        do = "name a file of text, or leave out --out"
        raise ConfigError("what comes from a pipe cannot be gone on with", where="--out", do=do)
    if out.suffix in (".gz", ".xz", ".bz2", ".zst"):
        do = f"take {out.with_suffix('')}, and pack it afterwards"
        raise ConfigError("answers are written as they are, and not packed", where="--out", got=out, do=do)
    known, many = digest(files)
    console = Console(stderr=True, highlight=False)
    try:
        with answering(console) as progress, interruptible():
            done, before = bulk(answered, out, {**about, "inputs": known}, lambda number: progress(number, many))
    except Stopped as error:
        return stopped(console, error)
    kept = f", {before:,} of them from before" if before else ""
    console.print(f"{done:,} answers in {out}{kept}", soft_wrap=True)
    return 0


def _line(answer: Answer, confidence: bool) -> str:
    """The answer's text, and confidence in it where that is asked for: nothing for an input that was not read."""
    text = answer.text.replace("\n", " ")
    if not confidence:
        return text
    return f"{text}\t" + ("" if answer.confidence is None else f"{answer.confidence:.3f}")


def _asked(
    task: Task, files: Sequence[str], settings: Data, behind: Sequence[str], *, table: bool
) -> Iterator[str | Pair]:  # fmt: skip
    """The inputs of files: recordings and the like by name, else texts."""
    from antiphon.core.config import HELD
    from antiphon.data.signals import Signal

    if isinstance(task.source, Signal) and task.source.kind not in HELD:
        return _named(files, behind, settings)
    return _lines(files, settings, behind, table=table)


def _lines(files: Sequence[str], settings: Data, behind: Sequence[str], *, table: bool) -> Iterator[str | Pair]:
    """The lines of one file of text, or the sources of a table with their context, which it is if its first line names
    them or somebody says so."""
    from antiphon.core.errors import ConfigError
    from antiphon.data.corpus import TABLES, kind_of_table, open_pairs, read_lines

    if len(files) > 1:
        raise ConfigError("takes one file of text", where="predict", got=" ".join(files), do="put them together")
    if table and files[0] == "-":
        raise ConfigError("data.columns is for tables", where="predict", got="lines of text", do="give a file")
    kind = kind_of_table(Path(files[0]))
    mark = {".csv": ",", ".tsv": "\t"}.get(kind, "")
    given = settings.columns if table or kind in TABLES else None
    columns = _titles(files[0], settings, mark) if mark and not table else given
    if columns is not None:
        strict = replace(settings, columns=columns, empty="error", damaged="error")  # an answer for each row
        return iter(open_pairs(files[0], strict, need_target=False))
    if mark and not behind and mark in next(read_lines(files[0]), ""):
        text = f"{files[0]} is read as lines of text; where a column is meant, choose it with data.columns"
        print(f"note: {text}", file=sys.stderr)
    return read_lines(sys.stdin if files[0] == "-" else files[0])


def _titles(file: str, settings: Data, mark: str) -> tuple[str, ...] | None:
    """How the first line of a file names the column of its sources: as in training (`data.columns`), or as usual (no
    columns); None where it does not, and marks between belong to the text."""
    from antiphon.data.columns import SOURCES
    from antiphon.data.corpus import read_lines

    try:
        first = [cell.strip() for cell in next(csv.reader([next(read_lines(file), "")], delimiter=mark), [])]
    except csv.Error:  # a line too long for names, or with a return in it
        return None
    if settings.columns and settings.columns[0] in first:
        return settings.columns
    return () if any(cell.lower() in SOURCES for cell in first) else None


def _named(files: Sequence[str], behind: Sequence[str], settings: Data) -> Iterator[str | Pair]:
    """Recordings, films and arrays by name, those of tables among them, each with the columns that go `behind` it.

    In a table of lines whose first line names no column of sources, they come first and the others as they go.
    """
    from antiphon.data.arrays import located
    from antiphon.data.columns import SOURCES
    from antiphon.data.corpus import TABLES, kind_of_table, open_pairs, read_lines
    from antiphon.data.signals import kind_of

    strict = replace(settings, empty="error", damaged="error")  # an answer for each row
    for file in files:
        if kind_of(file) != "text":
            yield file
            continue
        if kind_of_table(Path(file)) in TABLES:
            yield from open_pairs(file, strict, need_target=False)
            continue
        folder, names = Path() if file == "-" else Path(file).parent, list[str]()
        for number, line in enumerate(read_lines(sys.stdin if file == "-" else file)):
            cells = line.split("\t")
            if not number and any(cell.lower() in SOURCES for cell in cells):
                names = ["source" if cell.lower() in SOURCES else cell for cell in cells]
                continue
            if names:
                known = dict(zip(names, cells, strict=False))
                cells = [known.get("source", ""), *(known[name] for name in behind if name in known)]
            yield "\t".join((located(cells[0], folder), *(cells[1:] if behind else ())))


def _typed() -> Iterator[str]:
    """Lines as a person types them."""
    return (line.rstrip("\n") for line in sys.stdin)


def _noting(lines: Iterable[str | Pair], sources: deque[str]) -> Iterator[str | Pair]:
    """The same inputs, each remembered until its answer comes."""
    from antiphon.data.arrays import shown

    for line in lines:
        sources.append(line if isinstance(line, str) else shown(line.source))
        yield line


def _input(line: str | Pair, number: int, context: tuple[str, ...], facts: str = "no") -> str | Pair:
    """An input as the model wants it: with its context columns and facts, where it was trained with some."""
    if not isinstance(line, str) or not line.strip() or (not context and facts == "no"):
        return line
    from antiphon.core.errors import DataError
    from antiphon.data.corpus import Pair

    source, *values = line.split("\t")
    if facts == "yes" or (facts == "maybe" and len(values) > len(context)):
        context = (*context, "facts")
    if len(values) != len(context):
        wanted = "<tab>".join(("source", *context))
        do = f"write {wanted}" + (", or give --knowledge FILE" if facts == "yes" else "")
        what = "a line must have the context the model was trained with"
        raise DataError(what, where=f"input {number}", got=line, do=do)
    return Pair(source, "", (), dict(zip(context, values, strict=True)))


def record(source: str, answers: list[Answer], tokenizer: str = "") -> str:
    """One JSON line: the source and all its answers with scores, probabilities and alignments, and times of words."""
    from antiphon.inference.recordings import words

    if answers[0].forecast is not None:
        return json.dumps({"source": source, "answers": [_numbers(answer, answer.forecast) for answer in answers]})
    rows = [
        {
            "text": None if answer.abstained else answer.text,
            "score": round(answer.score, DIGITS),
            "probability": round(answer.probability, DIGITS),
            "confidence": None if answer.confidence is None else round(answer.confidence, DIGITS),
            "tokens": answer.tokens,
            "probabilities": [round(value, DIGITS) for value in answer.probabilities],
            "alignment": answer.alignment,
            "finished": answer.finished,
            "reason": answer.reason,
            **_ranked(answer),
            **({"words": [word._asdict() for word in said]} if (said := words(answer, tokenizer)) else {}),
        }
        for answer in answers
    ]
    return json.dumps(
        {"source": source, "source_tokens": answers[0].source_tokens, "answers": rows}, ensure_ascii=False
    )


def _numbers(answer: Answer, forecast: Forecast | None) -> dict[str, Any]:
    """An answer of numbers: each step's features, some quantiles of these, and the paths that were drawn."""
    row = {"text": answer.text, "finished": answer.finished, "reason": answer.reason, "alignment": answer.alignment}
    if forecast is None:
        return row
    from antiphon.core.numbers import LEVELS

    row["values"] = _rounded(forecast.values_TF)
    if forecast.quantiles_TFQ is not None:
        row["quantiles"] = {str(level): _rounded(forecast.quantiles_TFQ[..., LEVELS.index(level)]) for level in SHOWN}
    if len(forecast.paths):
        row["paths"] = [_rounded(path) for path in forecast.paths]
    return row


def _rounded(values: np.ndarray) -> list[list[float]]:
    """With the seven digits that they are good for."""
    return [[float(f"{value:.7g}") for value in row] for row in values.tolist()]


def _ranked(answer: Answer) -> dict[str, float]:
    """What decided besides the score, where something did."""
    values = {"utility": answer.utility, "backward": answer.backward}
    return {name: round(value, DIGITS) for name, value in values.items() if value is not None}
