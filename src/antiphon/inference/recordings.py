"""Recordings longer than any in training: cut where they are quiet, answered piece by piece, and when each word was
said."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from antiphon.data import speech
from antiphon.data.arrays import written
from antiphon.data.corpus import Pair
from antiphon.data.report import Report
from antiphon.data.signals import RATE, Signal
from antiphon.inference.confidence import probability
from antiphon.inference.jobs import PIECE
from antiphon.inference.task import Task

if TYPE_CHECKING:
    from antiphon.inference.predictor import Answer, Watcher


_TIME = re.compile(r"\d+\.\d\ds")

CUT = "recording longer than any in training, cut into pieces where it is quiet"


class Pieces:
    """Cuts recordings on their way in, and puts their answers together on the way out."""

    def __init__(self, signal: Signal, longest: float) -> None:
        self.signal, self.longest = signal, longest
        self.starts: deque[list[float]] = deque()
        """Of each recording that is on its way: the seconds at which its pieces begin."""
        self.numbers: deque[int] = deque()
        """Of each piece that is on its way the number by which it is known."""

    @staticmethod
    def wanted(task: Task) -> Pieces | None:
        """What cuts recordings into pieces as long as training had at most; None where sources are no recordings."""
        signal, frames = task.source, task.length.longest
        if not isinstance(signal, Signal) or signal.kind != "speech" or signal.seconds is None or not frames:
            return None
        return Pieces(signal, min(frames, signal.side.max_length or frames) * signal.seconds)

    def numbered(self) -> Iterator[int]:
        """The number of each piece, once it was given."""
        while self.numbers:
            yield self.numbers.popleft()

    def cut(self, inputs: Iterable[str | Pair], report: Callable[[], Report], first: int = 0) -> Iterator[str | Pair]:
        """The recordings, long ones in pieces; what is odd about these is counted once, for the whole."""
        for number, item in enumerate(inputs, first):
            value, rate = item if isinstance(item, str) else item.source, self.signal.settings.rate or RATE
            if not value.strip() or speech.heading(value, rate).seconds <= self.longest:
                self.starts.append([0.0])
                self.numbers.append(number)
                yield item
                continue
            recording = speech.record(value, rate, report())
            speech.count_rate(recording, rate, value, report())
            if not recording.samples.any():
                report().add(speech.SILENT, example=value)
            samples = speech.at_rate(recording, rate)
            found = speech.pieces(speech.Recording(samples, rate), self.longest - 2 * self.signal.settings.step / 1000)
            self.starts.append([piece.start / rate for piece in found])
            self.numbers += [number + PIECE * place for place in range(len(found))]
            for piece in found:
                part = speech.Piece(written(samples[piece]))
                yield part if isinstance(item, str) else replace(item, source=part)

    def join(self, answers: Iterator[list[Answer]], report: Callable[[], Report]) -> Iterator[list[Answer]]:
        """The answers to whole recordings: those of pieces one after another, the best of each, and counted."""
        for first in answers:
            starts = self.starts.popleft()
            rest = [next(answers)[0] for _ in starts[1:]]
            if rest:
                report().add(CUT)
            yield [self._joined([first[0], *rest], starts)] if rest else first

    def _joined(self, parts: Sequence[Answer], starts: Sequence[float]) -> Answer:
        widths = [len(part.source_tokens) for part in parts]
        weights = np.zeros((sum(len(part.tokens) for part in parts), sum(widths)), np.float32)
        alignment, row, column = list[int](), 0, 0
        for part, width in zip(parts, widths, strict=True):
            if part.weights.shape[1]:  # an exported model may not tell
                weights[row : row + len(part.weights), column : column + width] = part.weights[:, :width]
            alignment += [column + place for place in part.alignment]
            row, column = row + len(part.tokens), column + width
        log_probs = [value for part in parts for value in part.log_probs]
        sure = [part.confidence for part in parts if part.confidence is not None]
        return replace(
            parts[0],
            text="" if any(part.abstained for part in parts) else " ".join(part.text for part in parts if part.text),
            score=sum(part.score for part in parts),
            tokens=[token for part in parts for token in part.tokens],
            probabilities=[value for part in parts for value in part.probabilities],
            alignment=alignment,
            weights=weights,
            source_tokens=[
                f"{start + float(token[:-1]):.2f}s"
                for part, start in zip(parts, starts, strict=True)
                for token in part.source_tokens
            ],
            log_probs=log_probs,
            probability=probability(log_probs),
            confidence=min(sure, default=None),
            abstained=any(part.abstained for part in parts),
            finished=all(part.finished for part in parts),
            repeated=any(part.repeated for part in parts),
            reason="; ".join(dict.fromkeys([CUT, *filter(None, (part.reason for part in parts))])),
        )


@dataclass(frozen=True)
class Whole:
    """Stands between a watcher of recordings and their pieces: what it gives up is given up in all its pieces. It is
    shown no text, which would be that of a piece."""

    watcher: Watcher

    def look(self, going: Collection[int], text: Callable[[int], str | None]) -> list[int]:
        """After each step."""
        given_up = self.watcher.look(sorted({piece % PIECE for piece in going}), lambda number: None)
        return [piece for piece in going if piece % PIECE in given_up]

    def tell(self, number: int, answers: list[Answer]) -> None:
        """An answer to a piece, which is none to its recording."""


class Word(NamedTuple):
    """A word of an answer, and the seconds in the recording where the model looked for it."""

    text: str
    start: float
    end: float


def words(answer: Answer, tokenizer: str) -> list[Word]:
    """The words of an answer with their times; none where the source has no times or the model no attention.

    A word begins where a CTC head hears the first of its tokens, or where this one looked most, but not before the word
    that precedes it.
    """
    times = [float(token[:-1]) for token in answer.source_tokens if _TIME.fullmatch(token)]
    if len(times) < len(answer.source_tokens) or not answer.alignment or len(times) < 2:
        return []
    step, found, before = times[1] - times[0], list[Word](), 0.0
    for part in _by_words(answer.tokens, tokenizer):
        looked = [times[place] for place in answer.alignment[part]]
        start = max(before, min(looked))
        text = "".join(answer.tokens[part]).replace("▁", "").strip()
        found.append(Word(text, round(start, 2), round(max(start, *looked) + step, 2)))
        before = start
    return [word for word in found if word.text]


def _by_words(tokens: Sequence[str], tokenizer: str) -> Iterator[slice]:
    """The tokens of each word."""
    begun = 0
    for place, token in enumerate(tokens):
        apart = token.startswith("▁") or token.isspace() or tokenizer not in ("bpe", "unigram", "char")
        if apart and place > begun:
            yield slice(begun, place)
            begun = place
    if begun < len(tokens):
        yield slice(begun, len(tokens))
