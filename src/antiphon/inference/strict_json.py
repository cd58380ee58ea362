"""JSON as bundles hold it: one form when it is written, and nothing that could harm or mean two things when read."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from antiphon.core.errors import BundleError

JSON_LIMIT, JSON_DEPTH = 64 << 20, 32
"""The most bytes and levels; a real bundle is far below both."""


def dump_json(value: Any) -> bytes:
    """JSON as bundles hold it: sorted, indented, ASCII, no NaN."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def load_json(content: bytes, *, where: object) -> Any:
    """Strict JSON: bounded size and depth, no duplicate keys, no NaN or infinity, valid UTF-8."""
    if len(content) > JSON_LIMIT or _depth(content) > JSON_DEPTH:
        raise BundleError("the JSON is too large or too deep", where=where)
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"not valid JSON: {error}", where=where) from None


def _depth(content: bytes) -> int:
    """An upper bound of the nesting, quotes ignored: cheap, and enough to keep the parser's stack small."""
    opened = deepest = 0
    for mark in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', content, re.DOTALL):
        if mark[0] in (b"[", b"{"):
            opened += 1
            deepest = max(deepest, opened)
        elif mark[0] in (b"]", b"}"):
            opened -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
