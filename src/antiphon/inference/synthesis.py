"""Answers that become training pairs: for distillation by sequences, back-translation and self-training.

What is made is written down answer by answer, so that an interrupted making goes on where it was, and ends as the
same bytes as an uninterrupted one.
"""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError, DataError
from antiphon.data.augment import Drop, Mask, Swap
from antiphon.data.columns import Pair
from antiphon.data.formats import fault
from antiphon.data.tokenizers import Char, Tokenizer, Whitespace
from antiphon.inference.files import write_file
from antiphon.inference.hypothesis import BEAM
from antiphon.inference.predictor import Answer, Predictor
from antiphon.inference.strict_json import dump_json
from antiphon.metrics import Metric, Pooled, of_text

WINDOW = 512
"""Inputs whose answers are written down together: as many may be lost."""

Told = Callable[[int], None]
"""Is called with the number of inputs that have been answered so far."""


@dataclass(frozen=True)
class Making:
    """What becomes of an answer.

    It becomes the `side` of a new pair whose other side is the input. `noise` is the rate at which words of the new
    pair's source are left out, masked and exchanged with the next (Edunov et al. 2018; He et al. 2020). With
    `nearest`, a metric of single sentences, not the best answer is taken but that of the beam which is nearest to the
    input's references (the sequence-level interpolation of Kim and Rush 2016).
    """

    side: Literal["source", "target"] = "target"
    noise: float = 0.0
    nearest: str = ""
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.noise < 1:
            raise ConfigError("noise must be at least 0 and below 1", got=self.noise)
        if self.nearest:
            sentence_metric(self.nearest)

    def settings(self, decoding: Decoding) -> Decoding:
        """The search with as many answers as this needs."""
        return replace(decoding, n_best=(decoding.beam or BEAM) if self.nearest else 1)

    def __call__(self, number: int, given: Pair, answers: Sequence[Answer]) -> dict[str, str]:
        """The new pair, as a row of JSONL; or why there is none, as `skipped`."""
        best = self._best(given, answers)
        if not best.text.strip():
            return {"skipped": "empty answer" if best.finished else best.reason or "empty answer"}
        if not best.finished:
            return {"skipped": "answer without an end"}
        if problem := fault(best.text):
            return {"skipped": f"answer {problem}"}
        source, target = (given.source, best.text) if self.side == "target" else (best.text, given.source)
        if self.noise:
            source = noised(source, self.noise, Random(f"noise {self.seed} {number}"))
        return {**given.context, "source": source, "target": target}

    def _best(self, given: Pair, answers: Sequence[Answer]) -> Answer:
        whole = [answer for answer in answers if answer.finished]
        if not self.nearest or not whole:
            return answers[0]
        metric = sentence_metric(self.nearest)
        sign = 1 if metric.higher_is_better else -1
        return max(whole, key=lambda answer: sign * metric.sentence(metric.stats(answer.text, given.references)))


def sentence_metric(name: str) -> Metric:
    """The metric of that name; `ConfigError` where it cannot score one sentence, or is unknown."""
    metric = of_text(name)
    if isinstance(metric, Pooled):
        do = "choose one that compares two texts, such as bleu or chrf"
        raise ConfigError("the nearest answer needs a metric of single sentences", got=name, do=do)
    return metric


def noised(text: str, rate: float, draw: Random) -> str:
    """A text some of whose words (characters, where it has no spaces) are missing, masked and exchanged."""
    units: Tokenizer = Whitespace() if len(text.split()) > 1 else Char()
    words = units.encode(text)
    for change in (Drop(rate), Mask(rate), Swap(rate)):
        words = change(words, draw)
    return units.decode(words)


@dataclass(frozen=True)
class Made:
    """A finished file: pairs in it, inputs that had been answered before, and how many were skipped, by reason."""

    path: Path
    pairs: int
    before: int
    skipped: dict[str, int]

    def lines(self) -> list[str]:
        """What to tell of it."""
        lines = [f"{self.pairs:,} pairs made, in {self.path}"]
        if self.before:
            lines.append(f"{self.before:,} inputs had been answered before")
        return lines + [f"{count:,} x skipped: {reason}" for reason, count in self.skipped.items()]


def synthesize(
    predictor: Predictor, inputs: Iterable[Pair], out: Path, making: Making, *, settings: Decoding,
    known: dict[str, Any], told: Told = lambda done: None,
) -> Made:  # fmt: skip
    """Write a JSONL file of pairs, one for each input whose answer is good for one; others are counted.

    Answers go to `OUT.partial` as they come. `OUT.about.json` says what they depend on (`known` of models and inputs,
    the search, the making): where all is as it was, what is there already is kept. Raises `DataError` for a file that
    was made otherwise.
    """
    settings = making.settings(settings)
    facts = json.loads(dump_json({**known, "decoding": asdict(settings), "making": asdict(making)}))
    partial, about = out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.about.json")
    try:
        before = _before(out, partial, about, facts)
        if "made" in before and out.exists():
            made = before["made"]
            return Made(out, made["pairs"], made["pairs"] + sum(made["skipped"].values()), made["skipped"])
        write_file(about, dump_json({"of": facts}))
        try:
            first = _answer(predictor, inputs, partial, making, settings, told)
        except BaseException:
            if not partial.stat().st_size:  # nothing to go on with, which would stand in the way of another try
                partial.unlink()
                about.unlink()
            raise
        pairs, skipped = _finish(partial, out)
        write_file(about, dump_json({"of": facts, "made": {"pairs": pairs, "skipped": skipped}}))
        partial.unlink()
    except OSError as error:
        raise DataError(f"cannot write the pairs: {error.strerror}", where=out, do="choose another place") from None
    return Made(out, pairs, first, skipped)


def _before(out: Path, partial: Path, about: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What is known of files that are there already; they must be of the same making."""
    if not out.exists() and not partial.exists():
        return {}
    try:
        before = json.loads(about.read_bytes())
    except (OSError, ValueError):
        before = {}
    if not isinstance(before, dict) or "of" not in before:
        where = out if out.exists() else partial
        raise DataError("is there already, and no model has made it", where=where, do="choose another name")
    if before["of"] != facts:
        what = "is there already, and was made from other models, texts or settings"
        raise DataError(what, where=out if out.exists() else partial, do="remove it, or choose another name")
    return before


def _answer(
    predictor: Predictor, inputs: Iterable[Pair], partial: Path, making: Making, settings: Decoding, told: Told
) -> int:
    """Append a line for each input that has none; gives how many had one. A line that was cut off is made again."""
    with partial.open("a+b") as file:
        file.seek(0)
        first, end = 0, 0
        for line in file:
            if line.endswith(b"\n"):
                first, end = first + 1, end + len(line)
        file.truncate(end)
        for line in _lines(predictor, islice(inputs, first, None), making, settings, first, told):
            file.write(line)
            file.flush()
        os.fsync(file.fileno())
    return first


def _lines(
    predictor: Predictor, inputs: Iterator[Pair], making: Making, settings: Decoding, first: int, told: Told
) -> Iterator[bytes]:
    """The new pairs, or why there is none, as lines."""
    waiting = deque[Pair]()

    def noting() -> Iterator[Pair]:
        for pair in inputs:
            waiting.append(pair)
            yield pair

    found = predictor.predict(noting(), settings=settings, window=WINDOW, first=first)
    for number, answers in enumerate(found, first):
        yield json.dumps(making(number, waiting.popleft(), answers), ensure_ascii=False).encode() + b"\n"
        if not waiting:  # all that was read has been answered: more comes after a while, if at all
            told(number + 1)


def _finish(partial: Path, out: Path) -> tuple[int, dict[str, int]]:
    """The pairs alone, in a file that is there whole or not at all; their number, and that of inputs without one."""
    temporary = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    pairs, skipped = 0, Counter[str]()
    with partial.open("rb") as file, temporary.open("wb") as result:
        for line in file:
            row = json.loads(line)
            if "source" in row:
                result.write(line)
                pairs += 1
            else:
                skipped[row["skipped"]] += 1
        result.flush()
        os.fsync(result.fileno())
    if not pairs:
        temporary.unlink()
        got = ", ".join(f"{count} x {reason}" for reason, count in skipped.items()) or "no text"
        do = "remove it, and train the model for longer or give other texts"
        raise DataError("no answer is good for a pair", where=partial, got=got, do=do)
    os.replace(temporary, out)
    return pairs, dict(skipped)
