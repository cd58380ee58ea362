"""What stays in the beam: the quick ways choose what the plain one does, and the margin is wider than float error."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import conformance
from antiphon.core.batch import EOS, pad
from antiphon.core.config import Decoding
from antiphon.inference.search import rescore
from antiphon.inference.selection import MARGIN, plain, quick, top


def test_top_is_topk() -> None:
    values = torch.randn(40, 1031)
    values[3, 7] = -math.inf
    for count in (1, 2, 6, 300):
        expected = values.topk(count, 1)
        found = top(values, count)
        assert torch.equal(found[0], expected.values)
        assert torch.equal(found[1], expected.indices)
    assert top(torch.randn(2, 3), 9)[0].shape == (2, 3)


@pytest.mark.parametrize("kind", conformance.DECODERS)
@pytest.mark.parametrize("length", [3, 30])
def test_the_margin_is_four_times_the_float_error(kind: str, length: int) -> None:
    """The log probability of an answer alone, and among others beside padding."""
    network, _ = conformance.made(conformance.model("transformer" if kind == "ssru" else kind, kind))
    draw = torch.Generator().manual_seed(length)
    rows = [torch.randint(4, conformance.SIZE, (size,), generator=draw).tolist() for size in (length, 2, 40)]
    sources, targets = pad([[*row, EOS] for row in rows]), rows
    settings = Decoding(length_penalty=0.0)
    together = rescore([network], sources, targets, settings)
    for row, answer in enumerate(together):
        alone = rescore([network], sources.rows(torch.tensor([row])), [targets[row]], settings)[0]
        assert abs(answer.score - alone.score) <= MARGIN / 4 * math.sqrt(len(targets[row]) + 1)


@pytest.mark.parametrize("size", [7, 64, 128, 1031])
@pytest.mark.parametrize(("sentences", "rows", "parts"), [(1, 1, 9), (1, 5, 9), (9, 1, 9), (9, 5, 10), (40, 5, 99)])
def test_the_quick_choice_is_the_plain_one(size: int, sentences: int, rows: int, parts: int) -> None:
    """Dead rows and dead sentences among the living, blocks that are not full, several parts."""
    draw = torch.Generator().manual_seed(size)
    log_probs_ARV = torch.randn(sentences, rows, size, generator=draw).log_softmax(2)
    log_probs_ARV[0, 0, 1:5] = -math.inf
    totals_AR = -torch.rand(sentences, rows, generator=draw, dtype=torch.float64)
    room_A = torch.randint(1, 6, (sentences,), generator=draw)
    if sentences > 1:
        totals_AR[2:4], room_A[2:4] = -math.inf, 0
    totals_AR[0, 1:3] = totals_AR[-1, 4:] = -math.inf
    asked: list[int] = []

    def log_probs(rows_N: Tensor) -> Tensor:
        asked.extend(rows_N.tolist())
        return log_probs_ARV.flatten(0, 1)[rows_N]

    expected = plain(totals_AR, log_probs_ARV, room_A, 5)
    found = quick(totals_AR, log_probs, room_A, 5, rows=parts)
    living = [row for row in range(sentences * rows) if totals_AR.flatten()[row] > -math.inf]
    assert set(living) <= set(asked)
    assert len(asked) == len(set(asked)) <= sentences * rows
    kept = expected.totals_AK > -math.inf
    assert torch.equal(kept, found.totals_AK > -math.inf)
    for name in ("parents_AK", "tokens_AK", "log_probs_AK"):
        assert torch.equal(getattr(found, name)[kept], getattr(expected, name)[kept])
    torch.testing.assert_close(found.totals_AK, expected.totals_AK, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.gaps_A, expected.gaps_A, rtol=0, atol=1e-12)
