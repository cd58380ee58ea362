"""What is wrong with single lines: no pair, damaged text, copies, other scripts and languages, odd lengths, numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from antiphon.data.columns import MOST_DAMAGED
from antiphon.diagnosis import damage
from antiphon.diagnosis.characters import Characters, Languages
from antiphon.diagnosis.findings import Example, Finding, Level, Sure, example, graded, places, shown, some
from antiphon.diagnosis.reading import Texts

LETTERS = 25
"""Characters of a text from which its language can be told."""

_DIGITS = re.compile(r"\d+(?:[.,\u00a0\u202f ]\d{3})*(?!\d)|\d+")
_NO_DIGIT = re.compile(r"\D")


def unpaired(texts: Texts) -> Iterator[Finding]:
    """Lines that gave no pair, and files that do not have the same number of lines."""
    if len(set(texts.counts)) > 1:
        yield _uneven(texts)
    total = max(1, texts.counts[0] if texts.counts else len(texts))
    broken = sum(len(lines) for reason, lines in texts.odd.items() if "empty" not in reason and "blank" not in reason)
    for reason, lines in texts.odd.items():
        share, blank = len(lines) / total, reason.startswith("blank")
        empty = "empty" in reason
        level: Level = "note" if blank else graded(share if empty else broken / total, 0.0, MOST_DAMAGED)
        yield Finding(
            "blank line" if blank else "empty" if empty else "damaged", level,
            f"{some(len(lines), 'line holds', 'lines hold')} no pair: {reason.removesuffix(' skipped')}", texts.name,
            "certain",
            "none: they are left out" if blank else "training stops at the first of them",
            "none needed" if blank else
            f"data.{'empty' if empty else 'damaged'}=skip leaves them out and counts them; --fix does so for good",
            {"lines": len(lines), "share": round(share, 4)}, tuple(lines),
            tuple(Example(line, "", "", reason) for line in lines[:3]), remedy="drop",
        )  # fmt: skip


def _uneven(texts: Texts) -> Finding:
    counts = " and ".join(f"{count:,}" for count in texts.counts)
    return Finding(
        "line counts", "stop", f"the files have {counts} lines, and need the same number", texts.name, "certain",
        "from the missing line on every source has the target of another one; training refuses the files",
        "see the misaligned stretch, if one was found; --fix moves the targets and leaves out what is over",
        {"source lines": texts.counts[0], "target lines": texts.counts[1]}, remedy="drop",
    )  # fmt: skip


def damaged(texts: Texts) -> Iterator[Finding]:
    """Texts of a wrong encoding, with lost characters, entities of HTML, or characters that cannot be seen."""
    found: dict[str, list[int]] = {kind: [] for kind in (*damage.REPAIRS, "lost")}
    for row, (source, target) in enumerate(zip(texts.sources, texts.targets, strict=True)):
        if damage.SUSPECT.search(source) or damage.SUSPECT.search(target):
            for kind in kinds_of_damage(source, target):
                found[kind].append(row)
    said = {
        "double-encoded": ("text was read in a wrong encoding (MÃ¤dchen for Mädchen)", "words become others, and rare"),
        "entities": ("text has entities of HTML on one side (&amp; for &)", "signs are learned as words"),
        "blind": ("text has characters that cannot be seen (controls, soft hyphens, no width)",
                  "words that look alike differ"),
        "lost": ("text has lost characters (\ufffd)", "what stood there is gone, and answers will have such signs"),
    }  # fmt: skip
    for kind, rows in found.items():
        if rows:
            share = len(rows) / len(texts)
            drop = kind == "lost"
            yield Finding(
                f"encoding: {kind}", graded(share, 0.005, 0.1 if kind in ("double-encoded", "lost") else None),
                f"{some(len(rows), 'pair', 'pairs')}: {said[kind][0]}", texts.name,
                "certain" if drop else "very likely",
                said[kind][1], "--fix leaves these pairs out" if drop else "--fix writes them as they were meant",
                {"pairs": len(rows), "share": round(share, 4)}, places(texts, rows), shown(texts, rows),
                "drop" if drop else "repair", tuple(rows),
            )  # fmt: skip


def kinds_of_damage(source: str, target: str) -> Iterator[str]:
    """What is wrong with the texts of a pair; entities on both sides are what they are about."""
    for kind, mend in damage.REPAIRS.items():
        sides = mend(source) != source, mend(target) != target
        if any(sides) and not (kind == "entities" and all(sides)):
            yield kind
    if damage.is_lost(source) or damage.is_lost(target):
        yield "lost"


def copied(texts: Texts) -> Iterator[Finding]:
    """Targets that are their source; where most are, copying is the task."""
    rows = [row for row, pair in enumerate(texts.pairs) if pair.source.strip() == pair.target.strip()]
    long = [row for row in rows if len(texts.sources[row]) >= 4]
    share = len(rows) / len(texts)
    if long and share <= 0.5:
        yield Finding(
            "copied", graded(share, 0.01),
            some(len(rows), "target is a copy of its source", "targets are copies of their source"), texts.name,
            "certain",
            "the model learns to leave such texts as they are; even a few per cent of untranslated lines do harm",
            "--fix leaves them out; keep them if a copy is the right answer",
            {"pairs": len(rows), "share": round(share, 4)}, places(texts, rows), shown(texts, long), "drop",
            tuple(rows),
        )  # fmt: skip


def strange(texts: Texts, source: Characters, target: Characters) -> Iterator[Finding]:
    """Texts in another script or language than the rest of their side, and pairs that are the wrong way round."""
    others = [set(side.in_other_scripts().tolist()) for side in (source, target)]
    languages = Languages.of(source, target)
    like = [set[int](), set[int]()]
    if languages.apart(LETTERS):
        same = {row for row, pair in enumerate(texts.pairs) if pair.source == pair.target}
        found = languages.like_targets(LETTERS), languages.like_sources(LETTERS)
        like = [set(rows.tolist()) - same for rows in found]
    turned = (others[0] | like[0]) & (others[1] | like[1])
    yield from _strange(texts, "turned round", sorted(turned), "source and target the wrong way round",
                        "they teach the other direction")  # fmt: skip
    for name, script, language in zip(("source", "target"), others, like, strict=True):
        other = "target" if name == "source" else "source"
        yield from _strange(texts, f"{name} script", sorted(script - turned),
                            f"a {name} in another script than the rest",
                            "their words are hardly ever learned")  # fmt: skip
        yield from _strange(texts, f"{name} language", sorted(language - script - turned),
                            f"a {name} that is written like the {other}s",
                            "the model learns to answer in the wrong language now and then")  # fmt: skip


def _strange(texts: Texts, kind: str, rows: list[int], what: str, cost: str) -> Iterator[Finding]:
    if rows:
        share = len(rows) / len(texts)
        sure: Sure = "likely" if kind.endswith("language") else "very likely"
        yield Finding(
            kind, graded(share, 0.005, 0.25), f"{some(len(rows), 'pair has', 'pairs have')} {what}", texts.name, sure,
            cost,
            "--fix leaves them out", {"pairs": len(rows), "share": round(share, 4)}, places(texts, rows),
            shown(texts, rows), "drop", tuple(rows),
        )  # fmt: skip


def odd_lengths(texts: Texts) -> Iterator[Finding]:
    """Pairs whose one side is far too long for the other."""
    if len(texts) < 100:
        return
    left, right = (np.log1p(np.fromiter(map(len, side), float, len(texts))) for side in (texts.sources, texts.targets))
    slope = float(np.cov(left, right)[0, 1] / max(1e-9, left.var()))
    rest = right - right.mean() - slope * (left - left.mean())
    spread = max(0.15, float(1.4826 * np.median(np.abs(rest - np.median(rest)))))
    rows = np.flatnonzero(np.abs(rest - np.median(rest)) > max(6 * spread, np.log(4)))
    if len(rows):
        rows = rows[np.argsort(-np.abs(rest[rows]), kind="stable")]
        share = len(rows) / len(texts)
        yield Finding(
            "lengths", graded(share, 0.01),
            f"{some(len(rows), 'pair has', 'pairs have')} lengths that do not go together", texts.name,
            "likely", "most are cut, joined or wrong pairs; a model learns from them to say too little or too much",
            "look at them; --fix leaves them out", {"pairs": len(rows), "share": round(share, 4)},
            places(texts, rows), _measured(texts, rows[:3]), "drop", tuple(rows.tolist()),
        )  # fmt: skip


def _measured(texts: Texts, rows: np.ndarray) -> tuple[Example, ...]:
    sizes = {int(row): f"{len(texts.sources[row])} to {len(texts.targets[row])} characters" for row in rows}
    return tuple(example(texts, row, about) for row, about in sizes.items())


def numbers(texts: Texts, source: Characters, target: Characters) -> Iterator[Finding]:
    """Targets with numbers that their sources have not, where nearly all others have."""
    digits = [side.each(side.table(lambda character: character.isdecimal())) > 0 for side in (source, target)]
    both = np.flatnonzero(digits[0] & digits[1])
    wrong = [row for row in both.tolist() if _numbers(texts.targets[row]) - _numbers(texts.sources[row])]
    share = len(wrong) / max(1, len(both))
    if len(both) >= 50 and wrong and share <= 0.15:
        about = {row: f"{_list(texts.sources[row])} and {_list(texts.targets[row])}" for row in wrong}
        yield Finding(
            "numbers", graded(len(wrong) / len(texts), 0.01), f"{some(len(wrong), 'target has', 'targets have')} "
            "numbers that are not in the source", texts.name, "likely", "the model learns to make up numbers",
            "look at them and mend what is wrong; --fix leaves them as they are: it cannot know which is right",
            {"pairs": len(wrong), "of those with numbers on both sides": len(both), "share": round(share, 4)},
            places(texts, wrong), shown(texts, wrong, about),
        )  # fmt: skip


def _numbers(text: str) -> Counter[str]:
    """How often each number stands in a text, without what parts its thousands."""
    return Counter(_NO_DIGIT.sub("", number).lstrip("0") or "0" for number in _DIGITS.findall(text))


def _list(text: str) -> str:
    return ", ".join(list(_numbers(text).elements())[:6])
