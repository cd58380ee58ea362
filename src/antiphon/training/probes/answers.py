"""What a model answers by itself: how far it strays, repeats, copies, or says the same to everybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from antiphon.core.batch import EOS
from antiphon.core.config import Decoding
from antiphon.data.batching import collate
from antiphon.data.corpus import Pair
from antiphon.data.modalities import Text
from antiphon.data.store import Example
from antiphon.inference.hypothesis import Hypothesis
from antiphon.inference.search import search
from antiphon.inference.task import Task
from antiphon.models.seq2seq import Seq2Seq
from antiphon.training.probes.samples import Sample

ANSWERED, LONGEST = 32, 100
"""The most pairs that are answered, and the longest target of these."""

GREEDY = Decoding(beam=1)
"""No constraint that would hide a fault of the model."""


def answerable(sample: Sample) -> Sample:
    """Those pairs whose targets are short enough that answers need no more than a moment."""
    rows = [row for row, example in enumerate(sample.examples) if len(example.target) <= LONGEST][:ANSWERED]
    return Sample([sample.examples[row] for row in rows], [sample.pairs[row] for row in rows])


def limit(example: Example) -> int:
    """The most tokens of an answer: one and a half times the reference, and ten."""
    return len(example.target) * 3 // 2 + 10


def facts(model: Seq2Seq, task: Task, sample: Sample, forced: float) -> dict[str, Any]:
    """The facts of an `answers` probe; `forced` is the token accuracy of the same pairs by teacher forcing."""
    batch = collate(sample.examples).to(next(model.parameters()).device)
    limits = [limit(example) for example in sample.examples]
    training = model.training
    found = [best[0] for best in
             search([model], batch.source, GREEDY, max_lengths=limits, context=batch.context)]  # fmt: skip
    model.train(training)
    references = [list(example.target) for example in sample.examples]
    return {
        "forced_accuracy": forced, "free_accuracy": matched(found, references),
        "length_ratio": sum(len(each.tokens) for each in found) / max(1, sum(len(each) - 1 for each in references)),
        "repetition": sum(repeats(each.tokens) for each in found) / len(found),
        "empty": sum(not each.tokens for each in found) / len(found),
        "unended": sum(not each.finished for each in found) / len(found),
        **spoken(task, sample.pairs, found),
    }  # fmt: skip


def matched(found: Sequence[Hypothesis], references: Sequence[list[int]]) -> float:
    """The share of reference tokens, end marks among them, that stand at the same place of the answer."""
    right = total = 0
    for answer, reference in zip(found, references, strict=True):
        said = [*answer.tokens, *([EOS] if answer.finished else [])]
        right += sum(a == b for a, b in zip(said, reference, strict=False))
        total += len(reference)
    return right / max(1, total)


def repeats(tokens: Sequence[int]) -> bool:
    """Whether four tokens come again, or one stands three times in a row."""
    fours = [tuple(tokens[at : at + 4]) for at in range(len(tokens) - 3)]
    return len(set(fours)) < len(fours) or any(
        tokens[at] == tokens[at + 1] == tokens[at + 2] for at in range(len(tokens) - 2)
    )


def spoken(task: Task, pairs: Sequence[Pair], found: Sequence[Hypothesis]) -> dict[str, Any]:
    """What is seen of the answers as texts."""
    texts = [task.answer(each.tokens, task.read(pair).extra) for each, pair in zip(found, pairs, strict=True)]
    text, times = Counter(texts).most_common(1)[0]
    answers: dict[str, Any] = {
        "distinct": len(set(texts)) / len({pair.source for pair in pairs}),
        "common": times / len(texts), "common_text": text[:200],
    }  # fmt: skip
    if not isinstance(task.source, Text):
        return answers
    words = [(set(parts(pair.source)), set(parts(pair.target)), set(parts(text)))
             for pair, text in zip(pairs, texts, strict=True)]  # fmt: skip
    total = max(1, sum(len(source) for source, _, _ in words))
    return {
        **answers, "copied": sum(len((source & answer) - right) for source, right, answer in words) / total,
        "copied_reference": sum(len(source & right) for source, right, _ in words) / total,
    }  # fmt: skip


def parts(text: str) -> list[str]:
    """Words, or the characters of a text without spaces."""
    return text.split() if " " in text.strip() else list(text.strip())
