"""Small models of numbers for tests: what every decoder must hold with them, waves to learn, and their settings."""

from __future__ import annotations

import math
import random
from typing import Any

import torch

from antiphon.core.batch import Batch, Padded
from antiphon.core.config import Config
from antiphon.models.seq2seq import Seq2Seq, build
from runs import configured

SOURCE_FEATURES, FEATURES = 3, 2
SOURCE_LENGTHS, LENGTHS = (7, 13, 2, 5), (4, 2, 6, 1)

OF_NUMBERS: dict[str, Any] = {
    "data__source__kind": "numbers", "data__target__kind": "numbers", "data__source__tokenizer": None,
    "data__target__tokenizer": None, "data__frames__normalize": "each", "model__frontend__kind": "stack",
    "model__frontend__reduce": 1, "model__tie": "none", "model__head": "gaussian", "model__ends": False,
    "training__label_smoothing": 0.0, "training__precision": "fp32",
}  # fmt: skip


def settings(kind: str = "gru", **more: Any) -> Config:
    """A complete configuration of a family for numbers."""
    return configured(kind, **{**OF_NUMBERS, **more})


def network(kind: str, head: str, *, ends: bool = True, **more: Any) -> Seq2Seq:
    """A model with weights big enough for a mistake to show."""
    config = settings(kind, model__head=head, model__ends=ends, **more)
    made = build(config.model, SOURCE_FEATURES, FEATURES, seed=3).eval()
    with torch.no_grad():
        made.target.begin.normal_()
        made.head.output.weight.mul_(2)
    return made


COVARIATES = 3


def told(given: Batch) -> Batch:
    """The batch with what is known ahead: of each step, and for the last pair but one of all at once."""
    lengths = torch.tensor([*LENGTHS[:2], 1, LENGTHS[3]])
    values = torch.randn(len(LENGTHS), max(LENGTHS), COVARIATES, generator=torch.Generator().manual_seed(5))
    return Batch(given.source, given.target, {"ahead": Padded(values, lengths)})


def batch() -> Batch:
    """A ragged batch, with what must not be read in the padding."""
    draw = torch.Generator().manual_seed(4)
    source = torch.randn(len(LENGTHS), max(SOURCE_LENGTHS), SOURCE_FEATURES, generator=draw)
    target = torch.randn(len(LENGTHS), max(LENGTHS), FEATURES, generator=draw)
    return Batch(Padded(source, torch.tensor(SOURCE_LENGTHS)), Padded(target, torch.tensor(LENGTHS)))


@torch.no_grad()
def check_steps(made: Seq2Seq, given: Batch) -> None:
    """One step at a time, or in two pieces, gives what all steps at once give."""
    steps, memory = made(given)
    whole, inputs = made.head.quantiles(steps), given.inputs_BT
    for cuts in (range(1, inputs.shape[1] + 1), (2, inputs.shape[1])):
        state, done, parts = made.start(memory), 0, []
        for cut in cuts:
            part, state = made.decode(inputs[:, done:cut], memory, state)
            parts.append(made.head.quantiles(part))
            done = cut
        torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)


def wider(side: Padded) -> Padded:
    """The same with more padding."""
    return Padded(torch.nn.functional.pad(side.values, (0, 0, 0, 3), value=9.0), side.lengths_B)


@torch.no_grad()
def check_padding(made: Seq2Seq, given: Batch) -> None:
    """A pair's loss is what it is alone, whatever stands in the padding; all of them add up to that of the batch."""
    wide = Batch(wider(given.source), wider(given.target),
                 {name: wider(part) for name, part in given.context.items()})  # fmt: skip
    alone = [made.loss(given.rows(torch.tensor([row]))) for row in range(len(LENGTHS))]
    found = made.loss(wide)
    torch.testing.assert_close(found.total, sum(each.total for each in alone), atol=1e-4, rtol=1e-4)
    assert found.count == sum(each.count for each in alone) == given.count == sum(LENGTHS)


def waves(count: int, *, past: int = 24, ahead: int = 12, ragged: bool = False, seed: int = 1) -> list[tuple[str, str]]:
    """Waves of many levels, sizes and periods: what was, and how they go on."""
    draw, pairs = random.Random(seed), []
    for _ in range(count):
        size, level, begin, period = draw.uniform(0.5, 20), draw.gauss(0, 50), draw.uniform(0, 6), draw.uniform(8, 16)
        length = draw.randint(ahead // 2, ahead) if ragged else ahead
        values = [level + size * math.sin(begin + 2 * math.pi * t / period) for t in range(past + length)]
        words = [f"{value + draw.gauss(0, size / 50):.3f}" for value in values]
        pairs.append((" ".join(words[:past]), " ".join(words[past:])))
    return pairs
