"""Cuts text of any script into words, for metrics that compare words."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_ENDED = re.compile(r"\n|(?<=[.!?…])\s+|(?<=[.!?…][^\w\s])\s+|(?<=[。！？])")

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # ideographic iteration mark, closing mark and zero
    (0x3041, 0x30FF),  # kana
    (0x31F0, 0x31FF),  # small kana
    (0x3400, 0x4DBF),  # ideographs
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width kana
    (0x20000, 0x3FFFF),
)


def words(text: str) -> list[str]:
    """Runs of letters, digits and their marks, in lower case; punctuation is left out.

    A letter of a script that is written without spaces is a word of its own. On ASCII text this is what
    rouge-score's default tokenizer gives.
    """
    return _cut(text.lower(), keep_symbols=False)


def units(text: str) -> list[str]:
    """Whatever white space separates, case and punctuation kept; letters of unspaced scripts stand alone."""
    return _cut(text, keep_symbols=True)


def sentences(text: str) -> list[str]:
    """Lines, and in them what ends with a full stop, an exclamation or a question mark; so does an abbreviation."""
    return [each for each in _ENDED.split(text) if each.strip()]


def _cut(text: str, keep_symbols: bool) -> list[str]:
    if text.isascii() and keep_symbols:
        return text.split()
    found: list[str] = []
    open_kind = ""
    for letter in text:
        kind = _kind(letter)
        if kind == "space" or (kind == "symbol" and not keep_symbols):
            open_kind = ""
        elif (kind == "mark" and open_kind) or (kind != "alone" and open_kind == "word"):
            found[-1] += letter
        else:
            found.append(letter)
            open_kind = "alone" if kind == "alone" else "word"
    return found


@lru_cache(maxsize=65536)
def _kind(letter: str) -> str:
    if letter.isspace():
        return "space"
    if unicodedata.category(letter).startswith("M") or letter in _JOINERS:
        return "mark"
    if not letter.isalnum():
        return "symbol"
    return "alone" if any(low <= ord(letter) <= high for low, high in _UNSPACED) else "letter"


_JOINERS = "\u200c\u200d"
