"""What the proposed tokenizer makes of the data: how much of a test it knows, and which lines it will cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from antiphon.core.config import Config
from antiphon.core.errors import ConfigError
from antiphon.data.columns import Pair
from antiphon.data.facts import Finder
from antiphon.data.knowledge import FACTS
from antiphon.data.report import Report
from antiphon.diagnosis.findings import Example, Finding, graded, places, shorter, some
from antiphon.diagnosis.reading import Texts

SAMPLE, MEASURED = 10_000, 2000
"""Pairs that the tokenizer is learned from, and texts of each part that are cut with it."""


class Cutter:
    """The settings that training would propose for these pairs, and tokenizers learned from a sample of them."""

    def __init__(self, texts: Texts, config: Config) -> None:
        from antiphon.inference.task import Task
        from antiphon.training.recipes import propose
        from antiphon.training.statistics import Statistics

        sample = texts.pairs[:: -(-len(texts) // SAMPLE)]
        find = Finder.open(config.data, Report())
        self.find = find if find.base is not None or any(FACTS in pair.context for pair in sample) else None
        statistics = replace(Statistics.of(sample, self.find, config.data), pairs=len(texts))
        self.config, _ = propose(config, statistics)
        self.task = Task.learn(sample, self.config, self.find)

    def measure(self, texts: Texts) -> dict[str, Any]:
        """Tokens a text, and the share of unknown ones, of each side on a sample."""
        found = {}
        for name in ("source", "target"):
            side, sample = getattr(self.task, name), texts.pairs[:: -(-len(texts) // MEASURED)]
            tokens = [token for pair in sample for text in self._read(pair, name) for token in side.cut(text)]
            unknown = sum(token not in side.vocabulary.index for token in tokens)
            found[name] = {"tokens a text": round(len(tokens) / max(1, len(sample)), 1),
                           "unknown": round(unknown / max(1, len(tokens)), 5)}  # fmt: skip
        return found

    def _read(self, pair: Pair, name: str) -> list[str]:
        """The texts of one side, those of the facts too."""
        if name == "target":
            return [pair.target]
        facts = self.find is not None and (self.find.base is not None or FACTS in pair.context)
        return [pair.source, *(self.find.texts(pair) if self.find is not None and facts else ())]

    def settings(self) -> dict[str, Any]:
        """Tokenizer, vocabulary and longest text of each side, as proposed."""
        return {name: {"tokenizer": getattr(self.config.data, name).tokenizer,
                       "vocabulary": len(getattr(self.task, name).vocabulary),
                       "max_length": getattr(self.config.data, name).max_length} for name in ("source",
                       "target")}  # fmt: skip


def too_long(texts: Texts, cutter: Cutter) -> Iterator[Finding]:
    """Texts of more tokens than the proposed longest; a text has no more tokens than characters, or bytes."""
    for name in ("source", "target"):
        side, all_texts = getattr(cutter.task, name), texts.side(name)
        limit = getattr(cutter.config.data, name).max_length or 0
        if not limit:
            continue
        size = 4 if side.tokenizer.kind == "byte" else 1
        lengths = {row: len(side.cut(text)) for row, text in enumerate(all_texts) if size * len(text) >= limit}
        rows = [row for row, length in lengths.items() if length >= limit]
        if rows:
            longest = sorted(rows, key=lengths.__getitem__, reverse=True)[:3]
            share, most = len(rows) / len(texts), lengths[longest[0]]
            yield Finding(
                f"long {name}s", graded(share, 0.01),
                f"{some(len(rows), f'{name} has', f'{name}s have')} more than {limit} tokens, up to {most:,}",
                texts.name,
                "certain", "they are cut: what comes after is never " + ("read" if name == "source" else "learned"),
                f"data.{name}.max_length={_room(most)} keeps all; data.too_long=skip leaves them out",
                {"texts": len(rows), "share": round(share, 4), "longest": most, "limit": limit},
                places(texts, rows),
                tuple(Example(texts.line(row), shorter(texts.sources[row]), shorter(texts.targets[row]),
                              f"{lengths[row]:,} tokens") for row in longest),
            )  # fmt: skip


def _room(tokens: int) -> int:
    """The next multiple of 64 with room for the end mark."""
    return -(-(tokens + 1) // 64) * 64


def unknown(measured: Mapping[str, Mapping[str, Any]], files: Mapping[str, str], *, copied: bool) -> Iterator[Finding]:
    """Parts with many tokens that the vocabulary lacks; those of sources are no loss where they can be copied."""
    for part, sides in measured.items():
        for name, figures in sides.items():
            if (share := figures["unknown"]) > 0.005 and not (copied and name == "source"):
                yield Finding(
                    f"unknown {name} tokens", "note" if copied else graded(share, 0.02),
                    f"{share:.1%} of the {name} tokens of {part} are not in the vocabulary", files[part], "certain",
                    "they are read as one and the same sign" if name == "source" else
                    "they can be copied, or never answered" if copied else "they can never be answered",
                    f"data.{name}.tokenizer=bpe knows all that is made of known characters; or copy: model.head=copy",
                    {"share": share},
                )  # fmt: skip


def impossible(texts: Texts, error: ConfigError) -> Finding:
    """The proposed settings do not go with these texts."""
    return Finding("tokenizer", "care", f"no tokenizer can be learned with the proposed settings: {error.what}",
                   texts.name, "certain", "training stops before its first step", error.do or error.got)  # fmt: skip
