"""Made-up parallel text: words that translate one by one, in sentences of which each is another one."""

from __future__ import annotations

import random
from pathlib import Path

SYLLABLES = ["ba", "do", "ke", "li", "mu", "na", "po", "ri", "sa", "tu", "ve", "zo"]


def sentences(count: int, seed: int = 1) -> tuple[list[str], list[str]]:
    """Sources, and their targets in another language: other words, of which two change places."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=3)) for _ in range(400)]
    others = ["".join(draw.choices(["sch", "ein", "ung", "haf", "lich", "brö", "kei"], k=3)) for _ in words]
    sources, targets = [], []
    for _ in range(count):
        chosen = [int(400 * draw.random() ** 2) for _ in range(draw.randrange(5, 13))]
        sources.append(" ".join(words[number] for number in chosen).capitalize() + ".")
        turned = [chosen[1], chosen[0], *chosen[2:]]
        targets.append(" ".join(others[number] for number in turned).capitalize() + ".")
    return sources, targets


def write_pairs(path: Path, sources: list[str], targets: list[str]) -> Path:
    """A file of pairs with a tab between."""
    pairs = zip(sources, targets, strict=True)
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8", newline="\n")
    return path
