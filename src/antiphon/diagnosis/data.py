"""The data doctor: everything that can be said of pairs before anything is trained on them, in seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from antiphon.core.config import Config
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.data.signals import kinds_of
from antiphon.diagnosis import lines, pairs, vocabulary
from antiphon.diagnosis.belonging import belonging
from antiphon.diagnosis.characters import Characters, Profile
from antiphon.diagnosis.findings import Audit, Finding, ranked
from antiphon.diagnosis.reading import Texts, read
from antiphon.diagnosis.vocabulary import Cutter
from antiphon.diagnosis.words import cut

SNIFFED = 20
"""Pairs that say whether they are texts."""


def audit(data: str, config: Config | None = None, *, valid: str | None = None, test: str | None = None) -> Audit:
    """Look at the pairs of a file (or of two parallel ones), and at what they are to be judged by.

    Raises `DataError` where a file cannot be read or holds no pair at all; whatever else is wrong is a finding.
    """
    config, begun = config or Config(), time.process_time()
    texts = read(data, config.data)
    others = {name: read(file, config.data) for name, file in (("valid", valid), ("test", test)) if file is not None}
    for each in (texts, *others.values()):
        if not each.pairs:
            reasons = "; ".join(f"{len(found):,} lines: {reason}" for reason, found in each.odd.items())
            do = "check the format and data.columns"
            raise DataError("there is no pair in it", where=each.name, got=reasons, do=do)
    kinds = kinds_of([(pair.source, pair.target) for pair in texts.pairs[:SNIFFED]], config.data)
    if kinds != ("text", "text"):
        raise ConfigError("an audit is for texts", where=texts.name, got=" and ".join(kinds), do="say if they are: "
                          "data.source.kind=text data.target.kind=text")  # fmt: skip
    config = override(config, {"data.source.kind": "text", "data.target.kind": "text"})
    counts: dict[str, Any] = {"train": _counts(texts), **{name: _counts(other) for name, other in others.items()}}
    findings = ranked(_findings(texts, others, config, counts))
    return Audit(texts, counts, findings, time.process_time() - begun)


def _findings(texts: Texts, others: Mapping[str, Texts], config: Config, counts: dict[str, Any]) -> Iterator[Finding]:
    """Every check in turn; what they measure goes into `counts`."""
    characters = {name: Characters.of(texts.side(name)) for name in ("source", "target")}
    words = {name: cut(texts.side(name)) for name in ("source", "target")}
    written = pairs.profiles(texts, characters)
    counts["train"] |= {"scripts": _scripts(characters), "profile": _written(written)}
    yield from lines.unpaired(texts)
    yield from belonging(texts, words["source"], words["target"])
    yield from lines.damaged(texts)
    yield from lines.strange(texts, characters["source"], characters["target"])
    for name, other in others.items():
        yield from lines.unpaired(other)
        yield from pairs.shared(texts, other, name, words["source"])
        theirs = pairs.profiles(other, {side: Characters.of(other.side(side)) for side in characters})
        yield from pairs.written_otherwise(written, theirs, name, other.name)
    yield from pairs.repeated(texts, words["source"])
    yield from pairs.many_targets(texts)
    yield from lines.copied(texts)
    yield from lines.odd_lengths(texts)
    yield from lines.numbers(texts, characters["source"], characters["target"])
    yield from _cut(texts, others, config, counts)


def _cut(texts: Texts, others: Mapping[str, Texts], config: Config, counts: dict[str, Any]) -> Iterator[Finding]:
    """What the proposed tokenizer makes of all parts."""
    try:
        cutter = Cutter(texts, config)
    except ConfigError as error:
        yield vocabulary.impossible(texts, error)
        return
    measured = {name: cutter.measure(each) for name, each in (("train", texts), *others.items())}
    counts["tokenizer"] = {"settings": cutter.settings(), **measured}
    files = {"train": texts.name, **{name: each.name for name, each in others.items()}}
    yield from vocabulary.unknown(measured, files, copied=cutter.task.copy)
    yield from vocabulary.too_long(texts, cutter)


def _counts(texts: Texts) -> dict[str, Any]:
    """Pairs, distinct texts, and lengths in characters with their ratio."""
    lengths = [np.fromiter(map(len, side), np.int64, len(texts)) for side in (texts.sources, texts.targets)]
    found: dict[str, Any] = {
        "file": texts.name, "lines": max(texts.counts, default=len(texts)), "pairs": len(texts),
        "distinct sources": len(set(texts.sources)), "distinct targets": len(set(texts.targets)),
    }  # fmt: skip
    for name, each in (("source characters", lengths[0]), ("target characters", lengths[1])):
        found[name] = _spread(each) if len(each) else {}
    if len(texts):
        found["target characters for one of the source"] = _spread(lengths[1] / np.maximum(1, lengths[0]))
    return found | ({"changed while reading": texts.changed} if texts.changed else {})


def _spread(values: np.ndarray) -> dict[str, float]:
    """Mean, and what one in twenty, one in two and nineteen in twenty are below; the largest."""
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    names = {"mean": values.mean(), "5 %": low, "median": middle, "95 %": high, "most": values.max()}
    return {name: round(float(value), 2) for name, value in names.items()}


def _scripts(characters: Mapping[str, Characters]) -> dict[str, dict[str, float]]:
    return {name: {script.title() if script != "CJK" else script: round(share, 4)
                   for script, share in found.main_scripts().items() if share >= 0.0005}
            for name, found in characters.items()}  # fmt: skip


def _written(profiles: Mapping[str, Profile]) -> dict[str, dict[str, float]]:
    return {name: {what.replace("_", " "): round(share, 4) for what, share in vars(found).items()}
            for name, found in profiles.items()}  # fmt: skip
