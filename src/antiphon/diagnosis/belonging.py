"""Whether targets belong to their sources: stretches that are shifted, and single pairs no better than chance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from antiphon.diagnosis import stretches
from antiphon.diagnosis.findings import Finding, example, graded, places, shown
from antiphon.diagnosis.lexical import MOST, Association, Content
from antiphon.diagnosis.reading import Texts
from antiphon.diagnosis.stretches import WINDOW, Stretch
from antiphon.diagnosis.words import Words

LEAST, APART, WORDS = 1000, 3.0, 4
"""Pairs that noise can be told from, how far good pairs must then be from chance in its standard deviations, and words
of a side that suffice."""


def belonging(texts: Texts, source: Words, target: Words) -> Iterator[Finding]:
    """What a small model of words that go together, learned from these pairs, says of them."""
    if len(texts) < stretches.LEAST:
        return
    sides = Content.of(source), Content.of(target)
    model = Association.learn(*sides, range(-WINDOW, WINDOW + 1))
    found = stretches.find(texts.sources, texts.targets, *sides, model)
    for stretch in found:
        yield _misaligned(texts, stretch) if stretch.offset is not None else _unrelated(texts, stretch)
    if not found:
        yield from _noise(texts, source, target, sides, model)


def _misaligned(texts: Texts, stretch: Stretch) -> Finding:
    first, last = texts.line(stretch.start), texts.line(stretch.stop - 1)
    offset = stretch.offset or 0
    side, way = ("targets", "earlier") if offset < 0 else ("sources", "later")
    many = f"{abs(offset)} line{'s' if abs(offset) > 1 else ''}"
    middle = (stretch.start + stretch.stop) // 2
    rows = (stretch.start, middle, stretch.stop - 1)
    about = {row: f"its target: {texts.targets[row + offset][:120]}" for row in rows if 0 <= row + offset < len(texts)}
    size = len(stretch) / len(texts)
    return Finding(
        "misaligned", graded(size, 0.0, 0.002 if len(stretch) >= 50 else None),
        f"lines {first:,} to {last:,} are misaligned: the target of each stands {many} {way}", texts.name,
        "certain" if stretch.evidence > 20 else "very likely",
        f"{size:.0%} of the pairs teach what is wrong; {many} of {side} may be missing before line {first:,}",
        "mend the files there; --fix moves the targets to their sources",
        {"first line": first, "last line": last, "offset": offset, "share": round(size, 4),
         "evidence in standard errors": round(stretch.evidence, 1)},
        tuple(dict.fromkeys((first, last))), shown(texts, range(stretch.start, stretch.stop), about), "move",
        tuple(range(stretch.start, stretch.stop)), offset,
    )  # fmt: skip


def _unrelated(texts: Texts, stretch: Stretch) -> Finding:
    first, last = texts.line(stretch.start), texts.line(stretch.stop - 1)
    size, rows = len(stretch) / len(texts), range(stretch.start, stretch.stop)
    return Finding(
        "unrelated", graded(size, 0.0, 0.02 if len(stretch) >= 100 else None),
        f"lines {first:,} to {last:,}: targets do not belong to their sources, nor to any line near", texts.name,
        "likely", f"{size:.0%} of the pairs teach what is wrong", "look at them; --fix leaves them out",
        {"first line": first, "last line": last, "share": round(size, 4),
         "evidence in standard errors": round(stretch.evidence, 1)},
        tuple(dict.fromkeys((first, last))), shown(texts, rows), "drop", tuple(rows),
    )  # fmt: skip


def _noise(
    texts: Texts, source: Words, target: Words, sides: tuple[Content, Content], model: Association
) -> Iterator[Finding]:
    """Pairs that go together no better than a source and another pair's target, where nearly all others do.

    Wrong pairs are spread as chance is: half of them below its median, a tenth below its tenth. The smallest of these
    estimates counts, since of right pairs fewer and fewer are so low.
    """
    own = model.scores(*sides, 0)
    chance = np.concatenate([model.scores(*sides, offset)[WINDOW:-WINDOW] for offset in (-WINDOW, WINDOW)])
    enough = np.minimum((sides[0].table > 0).sum(1), (sides[1].table > 0).sum(1)) >= WORDS
    # Of a long text only a few words are looked at, which may be other ones than the target is about.
    enough &= np.maximum(source.lengths, target.lengths) <= 4 * MOST
    if enough.sum() < LEAST:
        return
    apart = float((np.quantile(own[enough], 0.75) - np.median(chance)) / max(1e-6, float(chance.std())))
    if apart < APART:
        return
    share = min(float((own[enough] < np.quantile(chance, part)).mean() / part) for part in (0.1, 0.25, 0.5))
    rows = np.flatnonzero(enough & (own < np.median(chance)))
    if share > 0.0005 and len(rows):
        rows = rows[np.argsort(own[rows], kind="stable")]
        yield Finding(
            "noise", graded(share, 0.01), f"about {share:.1%} of the targets may not belong to their sources; "
            f"{len(rows):,} pairs go together no better than chance", texts.name, "likely",
            "wrong pairs teach to say what is not in the source", "look at them; --fix leaves them out",
            {"pairs": len(rows), "noise": round(share, 4), "usual score": round(float(np.median(own)), 2),
             "score of chance": round(float(np.median(chance)), 2), "told apart": round(apart, 1)},
            places(texts, rows), tuple(example(texts, int(row), f"score {own[row]:.2f}") for row in rows[:3]), "drop",
            tuple(rows.tolist()),
        )  # fmt: skip
