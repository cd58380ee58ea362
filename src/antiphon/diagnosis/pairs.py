"""What is wrong with many pairs together: repetition, many answers to one source, what tests share with training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from antiphon.diagnosis.characters import Characters, Profile
from antiphon.diagnosis.findings import Example, Finding, example, graded, places, shown, some
from antiphon.diagnosis.reading import Texts
from antiphon.diagnosis.repeats import Shingles, first_rows, near_others, near_rows
from antiphon.diagnosis.words import Words, cut

COMPARED = 2000
"""Texts of a test that are looked for as near duplicates."""


def repeated(texts: Texts, words: Words) -> Iterator[Finding]:
    """The same pair again, and sources that are nearly another."""
    first = first_rows([f"{key}\0{target}" for key, target in zip(texts.keys, texts.targets, strict=True)])
    again = np.flatnonzero(first != np.arange(len(texts)))
    if len(again):
        share = len(again) / len(texts)
        about = {int(row): f"as in line {texts.line(int(first[row])):,}" for row in again}
        yield Finding(
            "duplicate pairs", graded(share, 0.2), f"{some(len(again), 'pair is', 'pairs are')} there already",
            texts.name, "certain",
            "they count more than others, and are overestimated", "--fix leaves each pair once",
            {"pairs": len(again), "share": round(share, 4)}, places(texts, again), shown(texts, again, about), "drop",
            tuple(again.tolist()),
        )  # fmt: skip
    near = {row: before for row, before in near_rows(Shingles.of(words)).items()
            if texts.sources[row] != texts.sources[before]}  # fmt: skip
    if near:
        about = {row: f"as in line {texts.line(before):,}" for row, before in near.items()}
        rows = sorted(near)
        yield Finding(
            "near duplicates", "note",
            some(len(rows), "source is nearly that of another pair", "sources are nearly those of other pairs"),
            texts.name, "likely",
            "split at random, held-out pairs are nearly those of training: scores are too good",
            "hold out by document or source of the data: --valid FILE",
            {"sources": len(rows), "share": round(len(rows) / len(texts), 4)}, places(texts, rows),
            shown(texts, rows, about),
        )  # fmt: skip


def many_targets(texts: Texts) -> Iterator[Finding]:
    """Sources with several answers, which is an error where answers are classes, and answers that fit everything."""
    answers: dict[str, dict[str, int]] = {}
    for row, key in enumerate(texts.keys):
        answers.setdefault(key, {}).setdefault(texts.targets[row], row)
    several = {key: list(rows.values()) for key, rows in answers.items() if len(rows) > 1}
    kinds = len(set(texts.targets))
    if several:
        classes = kinds <= max(2, len(texts) // 100)
        share = len(several) / len(answers)
        most = max(map(len, several.values()))
        rows = [row for found in several.values() for row in found]
        longest = sorted(several.values(), key=len, reverse=True)[0][:3]
        yield Finding(
            "many targets", graded(share, 0.01) if classes else "note",
            f"{some(len(several), 'source has', 'sources have')} several targets, up to {most:,}", texts.name,
            "certain",
            "no model can get all of these right" if classes else "none where there are several good answers",
            "look at them, one of each is wrong" if classes else "none needed; evaluate takes them as references",
            {"sources": len(several), "share": round(share, 4), "most": most}, places(texts, rows),
            tuple(example(texts, row) for row in longest),
        )  # fmt: skip
    yield from _dull(texts, kinds)


def _dull(texts: Texts, kinds: int) -> Iterator[Finding]:
    target, times = Counter(texts.targets).most_common(1)[0]
    share = times / len(texts)
    if kinds > 0.3 * len(texts) and share > 0.005 and times > 20:
        rows = [row for row, found in enumerate(texts.targets) if found == target]
        yield Finding(
            "one answer to much", graded(share, 0.05), f"{times:,} pairs have the same target", texts.name, "certain",
            "models fall back on what fits everything",
            "decoding.risk, or ranking with --backward, against dull answers",
            {"pairs": times, "share": round(share, 4)}, places(texts, rows), shown(texts, rows),
        )  # fmt: skip


def shared(train: Texts, other: Texts, name: str, words: Words) -> Iterator[Finding]:
    """What validation or test has in common with training, exactly and nearly."""
    rows_of: dict[str, int] = {}
    for row, key in enumerate(train.keys):
        rows_of.setdefault(key, row)
    exact = [row for row, key in enumerate(other.keys) if key in rows_of]
    whole = set(zip(train.keys, train.targets, strict=True))
    pairs = sum((other.keys[row], other.targets[row]) in whole for row in exact)
    distinct = len(set(other.keys))
    if exact:
        sources = len({other.keys[row] for row in exact})
        share = sources / distinct
        found = {other.keys[row] for row in exact}
        mine = [row for row, key in enumerate(train.keys) if key in found]
        level = graded(share, 0.01, None if pairs < 0.5 * len(other) else 0.0)
        yield Finding(
            f"{name} in training", level,
            f"{sources:,} of {distinct:,} sources of {name} are in training too, and {pairs:,} of {len(other):,} pairs",
            other.name, "certain", "scores on them are too good: they measure memory",
            f"--fix leaves them out of training; or score {name} without them",
            {"sources": sources, "share": round(share, 4), "pairs": pairs, "training lines": len(mine)},
            places(other, exact), _beside(other, train, {row: rows_of[other.keys[row]] for row in exact}), "drop",
            tuple(mine),
        )  # fmt: skip
    yield from _nearly(train, other, name, words, rows_of)


def _nearly(train: Texts, other: Texts, name: str, words: Words, known: Mapping[str, int]) -> Iterator[Finding]:
    unseen = {key: row for row, key in reversed(list(enumerate(other.keys))) if key not in known}
    rows = sorted(unseen.values())
    rows = rows[:: -(-len(rows) // COMPARED) or 1]
    mine = cut([other.sources[row] for row in rows], words.index, spelled=words.spelled)
    near = {rows[place]: match for place, match in near_others(Shingles.of(mine), Shingles.of(words)).items()}
    if near:
        share = len(near) / len(rows)
        yield Finding(
            f"{name} nearly in training", graded(share, 0.2),
            f"{len(near):,} of {len(rows):,} further sources of {name} are nearly in training", other.name, "likely",
            "scores on them are too good", f"--fix leaves the like of them out of training; or score {name} without",
            {"sources": len(near), "looked at": len(rows), "share": round(share, 4)}, places(other, near),
            _beside(other, train, near), "drop", tuple(sorted(set(near.values()))),
        )  # fmt: skip


def _beside(other: Texts, train: Texts, rows: Mapping[int, int]) -> tuple[Example, ...]:
    """Examples with the line of training beside each."""
    ranked = sorted(rows)
    chosen = [ranked[place] for place in sorted({0, len(ranked) // 2, len(ranked) - 1})]
    return tuple(example(other, row, f"training line {train.line(rows[row]):,}") for row in chosen)


def written_otherwise(
    train: Mapping[str, Profile], other: Mapping[str, Profile], name: str, file: str
) -> Iterator[Finding]:
    """Capitals, marks and spaces that training has and a test has not, or the other way round."""
    for side, mine in train.items():
        for what, share in vars(mine).items():
            theirs = getattr(other[side], what)
            if abs(share - theirs) > 0.5:
                words = what.replace("_", " ")
                yield Finding(
                    "written otherwise", "care",
                    f"{side}s of {name} are written otherwise: {words} {theirs:.0%}, in training {share:.0%}", file,
                    "certain", "the model never saw such text, and scores are lower than they need be",
                    f"prepare both alike: tokenize both or none, data.{side}.lowercase=true",
                    {"training": round(share, 4), name: round(theirs, 4)},
                )  # fmt: skip


def profiles(texts: Texts, characters: Mapping[str, Characters]) -> dict[str, Profile]:
    """How both sides are written."""
    return {side: Profile.of(found, texts.side(side)) for side, found in characters.items()}
