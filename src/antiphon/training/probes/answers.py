"""What a model answers by itself: how far it strays, repeats, copies, or says the same to everybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from antiphon.core.batch import BOS, EOS, Batch
from antiphon.data.batching import collate
from antiphon.data.corpus import Pair
from antiphon.data.modalities import Text
from antiphon.data.store import Example
from antiphon.inference.search import searching
from antiphon.inference.task import Task
from antiphon.models.seq2seq import Seq2Seq
from antiphon.training.probes.samples import Sample

ANSWERED, LONGEST = 16, 100
"""The most pairs that are answered, and the longest target of these."""

Answer = list[int]
"""Tokens as they were said, the end mark among them unless the limit came first."""


def answerable(sample: Sample) -> Sample:
    """Those pairs whose targets are short enough that answers need no more than a moment."""
    rows = [row for row, example in enumerate(sample.examples) if len(example.target) <= LONGEST][:ANSWERED]
    return Sample([sample.examples[row] for row in rows], [sample.pairs[row] for row in rows])


def limit(example: Example) -> int:
    """The most tokens of an answer: a quarter more than the reference, and eight."""
    return len(example.target) * 5 // 4 + 8


def facts(model: Seq2Seq, task: Task, sample: Sample, forced: float) -> dict[str, Any]:
    """The facts of an `answers` probe; `forced` is the token accuracy of the same pairs by teacher forcing."""
    batch = collate(sample.examples).to(next(model.parameters()).device)
    limits = [limit(example) for example in sample.examples]
    found, references = greedy(model, batch, limits), [list(example.target) for example in sample.examples]
    said = [answer[:-1] if answer[-1] == EOS else answer for answer in found]
    return {
        "forced_accuracy": forced, "free_accuracy": matched(found, references),
        "length_ratio": sum(map(len, said)) / max(1, sum(len(each) - 1 for each in references)),
        "repetition": sum(map(repeats, said)) / len(found), "empty": sum(not answer for answer in said) / len(found),
        "unended": sum(answer[-1] != EOS for answer in found) / len(found), **spoken(task, sample.pairs, said),
    }  # fmt: skip


def greedy(model: Seq2Seq, batch: Batch, limits: Sequence[int]) -> list[Answer]:
    """The likeliest next token, again and again: no constraint hides a fault, and a near tie is worth no second look,
    which makes it cheaper than `search`."""
    device = batch.source.values.device
    last_B, ended_B, said = (
        torch.full((len(limits),), BOS, device=device),
        torch.zeros(len(limits)) > 0,
        list[torch.Tensor](),
    )
    with searching([model]):
        memory = model.encode(batch.source, batch.context)
        state = model.start(memory)
        while len(said) < max(limits) and not bool(ended_B.all()):
            steps, state = model.decode(last_B[:, None], memory, state)
            last_B = model.log_probs(steps, memory)[:, 0].argmax(1)
            said.append(last_B.cpu())
            ended_B = ended_B | (said[-1] == EOS) | (torch.tensor(limits) <= len(said))
    rows = torch.stack(said, 1).tolist()
    return [upto(row[:limit]) for row, limit in zip(rows, limits, strict=True)]


def upto(tokens: list[int]) -> Answer:
    """What comes before the first end mark, and it."""
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


def matched(found: Sequence[Answer], references: Sequence[list[int]]) -> float:
    """The share of reference tokens, end marks among them, that stand at the same place of the answer."""
    pairs = list(zip(found, references, strict=True))
    right = sum(a == b for answer, reference in pairs for a, b in zip(answer, reference, strict=False))
    return right / max(1, sum(map(len, references)))


def repeats(tokens: Sequence[int]) -> bool:
    """Whether four tokens come again, or one stands three times in a row."""
    fours = [tuple(tokens[at : at + 4]) for at in range(len(tokens) - 3)]
    return len(set(fours)) < len(fours) or any(
        tokens[at] == tokens[at + 1] == tokens[at + 2] for at in range(len(tokens) - 2)
    )


def spoken(task: Task, pairs: Sequence[Pair], found: Sequence[Answer]) -> dict[str, Any]:
    """What is seen of the answers as texts."""
    texts = [task.answer(each, task.read(pair).extra) for each, pair in zip(found, pairs, strict=True)]
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
