"""Text that went wrong on its way: mixed-up encodings, lost characters, entities of HTML, what cannot be seen."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

_HIGH = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0xC0))
"""How bytes 0x80 to 0xBF look to those who take UTF-8 for Windows-1252 (or Latin-1, where that has no sign)."""

_LEADS = {0xC2: 1, 0xC3: 1, 0xC4: 1, 0xC5: 1, 0xCE: 1, 0xCF: 1, 0xD0: 1, 0xD1: 1, **dict.fromkeys(range(0xE0, 0xF0), 2),
          0xF0: 3}  # fmt: skip
_TWICE = re.compile("|".join(f"{chr(lead)}[{re.escape(_HIGH)}]{{{count}}}" for lead, count in _LEADS.items()))
_ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]{1,8}|#\d{2,6}|#[xX][0-9a-fA-F]{2,5});")
_BLIND = re.compile("[\u0001-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b\u2028-\u202e\u2060-\u2069\ufeff]")

SUSPECT = re.compile("[\ufffd\u0001-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b\u2028-\u202e\u2060-\u2069"
                     f"\ufeff&]|[\u00c2-\u00f0][{re.escape(_HIGH)}]")  # fmt: skip
"""What every damaged text has, and few others."""

_BYTES = {sign: 0x80 + place for place, sign in enumerate(_HIGH)}


def without_double_encoding(text: str) -> str:
    """UTF-8 that was read as Windows-1252 as it was meant: `MÃ¤dchen` is `Mädchen`."""
    return _TWICE.sub(_decoded, text)


def _decoded(match: re.Match[str]) -> str:
    raw = bytes(_BYTES.get(sign, ord(sign) & 0xFF) for sign in match.group())
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return match.group()


def without_entities(text: str) -> str:
    """Entities of HTML as the characters that they name: `R&amp;B` is `R&B`."""
    return html.unescape(text) if _ENTITY.search(text) else text


def without_blind(text: str) -> str:
    """No control characters, soft hyphens or signs without width; what breaks a line is a space."""
    return _BLIND.sub(lambda match: " " if match.group() in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029" else "", text)


def is_lost(text: str) -> bool:
    """Whether a character was lost, and a sign put in its place."""
    return "\ufffd" in text


REPAIRS: dict[str, Callable[[str], str]] = {
    "double-encoded": without_double_encoding,
    "entities": without_entities,
    "blind": without_blind,
}
"""What mends a kind of damage, in this order."""


def repaired(text: str, kinds: frozenset[str]) -> str:
    """The text without these kinds of damage."""
    for kind, mend in REPAIRS.items():
        text = mend(text) if kind in kinds else text
    return text
