"""What is in a file of weights, found out without making any of them."""

from __future__ import annotations

import math

from antiphon.core.errors import BundleError
from antiphon.inference.strict_json import load_json


def header(content: bytes, where: object) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Names, types and shapes in a safetensors file, whose parts must fill it exactly; else a `BundleError`."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise BundleError("is cut off or not a safetensors file", where=where)
    table = load_json(content[8 : 8 + size], where=where)
    if not isinstance(table, dict):
        raise BundleError("has no table of tensors", where=where)
    table.pop("__metadata__", None)
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    spans = []
    for name, item in table.items():
        try:
            shape, (begin, end) = tuple(item["shape"]), item["data_offsets"]
            good = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
            good = good and item["dtype"] == "F32" and end - begin == 4 * math.prod(shape)
        except (KeyError, TypeError, ValueError):
            good = False
        if not good:
            raise BundleError("describes a tensor in a way that cannot be", where=where, got=repr(name[:60]))
        spans.append((begin, end))
        found[name] = item["dtype"], shape
    edges = [0, *(end for _, end in sorted(spans))]
    if [begin for begin, _ in sorted(spans)] != edges[:-1] or edges[-1] != len(content) - 8 - size:
        raise BundleError("has tensors that overlap, leave gaps or are cut off", where=where)
    return found
