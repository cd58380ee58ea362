"""The part of an audit that costs nothing beside a training's start: damage, copies and a shift, from a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice, pairwise

import numpy as np

from antiphon.data.alignment import shifted
from antiphon.data.columns import Pair
from antiphon.diagnosis import damage
from antiphon.diagnosis.lines import kinds_of_damage

MOST, LOOKED, LINES = 100_000, 5_000, 2
"""Pairs whose lengths are looked at, those whose texts are, and lines that are said at most."""

GRAVE = 0.01
"""The share of pairs from which on damage and copies are worth a line."""

_SAID = {
    "double-encoded": "have text in a wrong encoding (MÃ¤dchen for Mädchen)",
    "entities": "have entities of HTML on one side (&amp; for &)",
    "blind": "have characters that cannot be seen",
    "lost": "have lost characters (\ufffd)",
}


def quick(pairs: Iterable[Pair]) -> list[str]:
    """What somebody should know before training begins: at most two lines, none where nothing matters."""
    known = list(islice(pairs, MOST))
    if not known:
        return []
    some = known[:: -(-len(known) // LOOKED)]
    found: Counter[str] = Counter()
    for pair in some:
        if damage.SUSPECT.search(pair.source) or damage.SUSPECT.search(pair.target):
            found.update(kinds_of_damage(pair.source, pair.target))
    lines = [f"about {count / len(some):.1%} of the pairs {_SAID[kind]}" for kind, count in found.items()
             if count >= GRAVE * len(some)]  # fmt: skip
    copied = sum(pair.source == pair.target for pair in some) / len(some)
    if GRAVE <= copied <= 0.5:
        lines.append(f"about {copied:.1%} of the targets are copies of their source")
    lengths = (np.fromiter((len(getattr(pair, side)) for pair in known), np.int64) for side in ("source", "target"))
    if (start := shifted(*lengths)) is not None and not _told_again(known):
        lines.insert(0, f"from about pair {start:,} on, targets look as if they belong to other sources")
    return lines[:LINES]


def _told_again(pairs: list[Pair]) -> bool:
    """Whether sources hold what the pair before answered, as the turns of a talk do: their lengths go together too."""
    again = sum(bool(before.target) and before.target in pair.source for before, pair in pairwise(pairs))
    return again > 0.3 * len(pairs)
