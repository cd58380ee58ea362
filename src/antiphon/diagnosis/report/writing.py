"""Pieces of HTML that sections share: sections, tables, pairs, and what differs from a reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from html import escape

from antiphon.metrics.base import Score, digits_of


def section(key: str, title: str, *parts: str, about: str = "") -> str:
    """A section with its heading, a sentence about it, and its parts; nothing where there are none."""
    kept = [part for part in parts if part]
    if not kept:
        return ""
    told = f'<p class="note">{escape(about)}</p>' if about else ""
    return f'<section><h2 id="{key}">{escape(title)}</h2>{told}{"".join(kept)}</section>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table of cells that are HTML already; `right` are the columns that end together."""
    at_right = set(right)
    kinds = [' class="r"' if number in at_right else "" for number in range(len(heads))]
    first = "".join(f"<th{kind}>{escape(head)}</th>" for head, kind in zip(heads, kinds, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>'


def scored(score: Score) -> str:
    """A value with its interval."""
    digits = digits_of(score.name)
    low_high = "" if score.interval is None else " <small>[{0:.{2}f}, {1:.{2}f}]</small>".format(
        *score.interval, digits)  # fmt: skip
    return f"{score.value:.{digits}f}{low_high}"


def pair(rows: Iterable[tuple[str, str]]) -> str:
    """What is said and answered, a line each; the texts are HTML already."""
    body = "".join(f'<dt>{escape(name)}</dt><dd dir="auto">{text}</dd>' for name, text in rows)
    return f'<div class="pair"><dl>{body}</dl></div>'


def differing(answer: str, reference: str) -> str:
    """The answer, with what the reference has not in the same order marked."""
    spaced = " " in reference.strip() or " " in answer.strip()
    got, want = (answer.split(), reference.split()) if spaced else (list(answer), list(reference))
    blocks = SequenceMatcher(None, got, want, autojunk=False).get_matching_blocks()
    right = {place for block in blocks for place in range(block.a, block.a + block.size)}
    parts: list[str] = []
    gap, run = " " if spaced else "", list[str]()
    for place, token in enumerate([*got, ""]):
        if place < len(got) and place not in right:
            run.append(token)
            continue
        if run:
            parts.append(f"<mark>{escape(gap.join(run))}</mark>")
            run = []
        if place < len(got):
            parts.append(escape(token))
    return gap.join(parts) or "<small>(nothing)</small>"


def key(names: Sequence[str]) -> str:
    """Which colour is which run; nothing where there is one."""
    if len(names) < 2:
        return ""
    told = "".join(f'<span class="key"><i class="k{min(place, 3)}"></i>{escape(name)}</span>'
                   for place, name in enumerate(names))  # fmt: skip
    return f'<p class="note">{told}</p>'
