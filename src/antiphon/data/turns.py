"""Dialogues as sources: turns one after the other, parted by a mark that may name who speaks.

`How are you? <turn> Fine. <turn> Good!` is three turns, `<turn:ann> Hello! <turn:bob> Hi. <turn:ann>` two with speakers
and the one who is to answer. A mark is one token, whatever the tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from random import Random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from antiphon.data.augment import Augmenter, Change
    from antiphon.data.columns import Pair
    from antiphon.data.modalities import Text
    from antiphon.data.report import Report

_MARK = re.compile(r"\s*(<turn(?::[^<>\r\n\t]+)?>)\s*")


class Turn(NamedTuple):
    """What somebody said; `speaker` is empty where nobody is named."""

    text: str
    speaker: str = ""


def mark(speaker: str = "") -> str:
    """What begins a turn."""
    return f"<turn:{speaker}>" if speaker else "<turn>"


def is_mark(token: str) -> bool:
    """Whether a text is a mark and nothing else."""
    return bool(_MARK.fullmatch(token))


def has_mark(text: str) -> bool:
    """Whether a text would be read as more than one turn."""
    return bool(_MARK.search(text))


def join(turns: Sequence[Turn], answerer: str = "") -> str:
    """The turns as one source, oldest first; where there are speakers, `answerer` is the one who is to answer."""
    said = [f"{mark(turn.speaker)} {turn.text}" for turn in turns]
    if turns and not turns[0].speaker:
        said[0] = turns[0].text
    return " ".join([*said, mark(answerer)] if answerer else said)


def split(source: str) -> list[tuple[str, str]]:
    """Mark and words of each turn, oldest first; either may be empty, not both."""
    first, *rest = _MARK.split(source)
    turns = [("", first), *zip(rest[::2], rest[1::2], strict=True)]
    return [turn for turn in turns if any(turn)]


def survey(pairs: Iterable[Pair]) -> tuple[list[str], int]:
    """The marks that sources have, in order, and the most turns of one; none and 0 where no source has a mark."""
    marks, most = set[str](), 0
    for pair in pairs:
        if has_mark(pair.source):
            turns = split(pair.source)
            marks.update(begin for begin, _ in turns if begin)
            most = max(most, sum(bool(words) for _, words in turns))
    return sorted(marks), most


def fit(side: Text, source: str, *, seed: int | None, report: Report | None, tags: Sequence[str]) -> list[str]:
    """A dialogue as tokens after the tags: where it is too long, and may be cut, its oldest turns are left out and
    counted. The newest stays; if it is too long alone its end is cut, as that of any source."""
    turns = split(source)
    closing = [turns.pop()[0]] if len(turns) > 1 and not turns[-1][1] else []
    said = [[*([begin] if begin else []), *side.cut(words, seed=seed)] for begin, words in turns]
    limit, left_out = side.side.max_length, 0
    if limit is not None and side.too_long == "truncate":
        room = limit - 1 - len(tags) - len(closing)
        while left_out < len(said) - 1 and sum(map(len, said[left_out:])) > room:
            left_out += 1
    if left_out and report is not None:
        report.add(f"oldest turn left out for max_length={limit}", example=source, times=left_out)
    # Who is to answer goes before the turns while the end is cut, and after them again.
    before = [*tags, *closing]
    fitted = side.fit(list(chain(*said[left_out:])), report=report, tags=before, example=source)
    return [*fitted[: len(tags)], *fitted[len(before) :], *closing]


def spelled(side: Text, tokens: Sequence[str], source: str) -> list[str]:
    """What `fit` gave, without tags, with the capital letters of the dialogue (`Text.spelled`), marks as they are."""
    found, said = list[str](), list[list[str]]()
    for token in tokens:
        if is_mark(token) or not said:
            said.append([])
        said[-1].append(token)
    for part, (_, words) in zip(said, split(source)[-len(said) :] if said else [], strict=True):
        marks = part[:1] if is_mark(part[0]) else []
        found += [*marks, *side.spelled(part[len(marks) :], words)]
    return found


@dataclass(frozen=True)
class Spoken:
    """The pairs without marks in their sources: what tokenizers and augmentation learn from."""

    pairs: Iterable[Pair]

    def __iter__(self) -> Iterator[Pair]:
        for pair in self.pairs:
            yield replace(pair, source=" ".join(words for _, words in split(pair.source) if words))


@dataclass(frozen=True)
class Newest:
    """A change of the newest turn alone: what was said before it stays."""

    change: Change

    def __call__(self, pair: Pair, draw: Random) -> Pair:
        turns = split(pair.source)
        place = max((number for number, (_, words) in enumerate(turns) if words), default=None)
        if place is None:
            return pair
        changed = self.change(replace(pair, source=turns[place][1]), draw)
        turns[place] = turns[place][0], changed.source
        return replace(changed, source=" ".join(chain(*turns)).strip())


def on_newest(augmenter: Augmenter) -> Augmenter:
    """The augmentation for dialogues."""
    return replace(augmenter, changes={name: Newest(change) for name, change in augmenter.changes.items()})
