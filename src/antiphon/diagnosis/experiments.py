"""Short experiments that tell apart what one run cannot: each takes a run folder and gives figures.

Those that train begin from fresh weights, with the settings, tokens and some pairs of the run, for a bounded number of
steps. Those that ask the model take the best one of the run. Losses are in nats a token.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antiphon.data.corpus import Pair
from antiphon.diagnosis.cases import Case
from antiphon.inference.forced import teacher_forced
from antiphon.inference.search import rescore, search
from antiphon.models.attention import CrossAttention, MultiHead
from antiphon.models.functional import join_heads
from antiphon.models.seq2seq import Seq2Seq

FEW = 16
"""Pairs of the batch that is to be learned by heart, and of those that are looked at together."""

LEARNED = 0.1
"""A batch is learned by heart once its loss is this share of the first."""

FACTORS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Rates that are tried, as multiples of the run's own."""


@dataclass(frozen=True)
class Overfit:
    """Whether one small batch can be learned by heart; `losses` are those of all steps."""

    pairs: int
    first: float
    last: float
    learned: bool
    losses: tuple[float, ...]


def overfit_batch(run: Path, steps: int = 150) -> Overfit:
    """Train on a few pairs of different sources, without dropout or smoothing.

    A model that cannot learn even these has the wrong rate or a fault in itself; data and size are then not to blame.
    """
    case = Case.open(run)
    pairs = list({pair.source: pair for pair in sorted(case.pairs, key=lambda each: len(each.target))}.values())
    middle = max(0, len(pairs) // 2 - FEW // 2)
    few = pairs[middle : middle + FEW]
    curve = case.learn(few, steps, dropout=False)
    first = curve.steps[0] if curve.steps else float("inf")
    return Overfit(len(few), first, curve.last, curve.last < LEARNED * first, curve.steps)


@dataclass(frozen=True)
class Rates:
    """Training loss in the end at several rates, `(rate, loss)`, infinite where it was lost; the run's `own` rate, and
    the `best`."""

    own: float
    best: float
    losses: tuple[tuple[float, float], ...]


def rate_range(run: Path, steps: int = 40, factors: Sequence[float] = FACTORS) -> Rates:
    """Train a little at rates around the run's own (as Smith 2017, each rate from fresh weights)."""
    case = Case.open(run)
    own = case.config.training.rate or 0.001
    found = [(own * factor, case.learn(case.pairs, steps, rate=own * factor).last) for factor in factors]
    return Rates(own, min(found, key=lambda each: each[1])[0], tuple(found))


@dataclass(frozen=True)
class Shuffled:
    """Best loss on held-out pairs after learning from the pairs as they are (`right`), and with targets handed to
    other sources (`shuffled`)."""

    right: float
    shuffled: float


def shuffled_targets(run: Path, steps: int = 150) -> Shuffled:
    """Train twice. Where both are alike, sources tell nothing: pairs do not belong together, or nothing gets across."""
    case = Case.open(run)
    targets = [pair.target for pair in case.pairs]
    random.Random(1).shuffle(targets)
    mixed = [replace(pair, target=target) for pair, target in zip(case.pairs, targets, strict=True)]
    right, wrong = (case.learn(pairs, steps, looks=3).best for pairs in (case.pairs, mixed))
    return Shuffled(right, wrong)


@dataclass(frozen=True)
class Uniform:
    """Loss on held-out pairs as the model is (`loss`), and with its attention to the source made `uniform`."""

    loss: float
    uniform: float


def uniform_attention(run: Path) -> Uniform | None:
    """Take from the model where it looks. Where it loses nothing by that, it never looked anywhere. None without
    attention."""
    case = Case.open(run)
    model = case.bundle.model
    looking = [part for part in model.decoder.modules() if isinstance(part, CrossAttention | MultiHead)]
    if not looking:
        return None
    batches = [case.task.batch(case.held_out[at : at + FEW]) for at in range(0, len(case.held_out), FEW)]
    loss = teacher_forced(model, batches).loss
    with evenly(model):
        return Uniform(loss, teacher_forced(model, batches).loss)


@contextmanager
def evenly(model: Seq2Seq) -> Iterator[None]:
    """Every attention to the source gives all of it the same weight."""
    parts = [part for part in model.decoder.modules() if isinstance(part, CrossAttention | MultiHead)]
    handles = [part.register_forward_hook(_even) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _even(part: CrossAttention | MultiHead, inputs: tuple[Any, ...], output: Any) -> Any:
    """What an attention would have given."""
    query_NTD, stored, mask_BS, _ = inputs
    _, weights, state = output
    even_BS = mask_BS.to(query_NTD.dtype) / mask_BS.sum(1, keepdim=True)
    if isinstance(part, MultiHead):
        context_BHD = (even_BS[:, None, :, None] * stored["values"]).sum(2)
        context = join_heads(context_BHD[:, :, None].expand(-1, -1, weights.shape[2], -1), query_NTD.dtype)
        attended: Tensor = part.output(context).view(query_NTD.shape)
        return attended, even_BS[:, None, None].expand(weights.shape), state
    context = (even_BS[:, :, None] * stored["values"]).sum(1)
    times = query_NTD.shape[0] // mask_BS.shape[0]
    many = context.repeat_interleave(times, 0)[:, None].expand(query_NTD.shape)
    attended = torch.tanh(part.merge(torch.cat([many, query_NTD], dim=2)))
    return attended, even_BS.repeat_interleave(times, 0)[:, None].expand(weights.shape), state


@dataclass(frozen=True)
class Halves:
    """Best loss on held-out pairs after learning from a quarter, a half and all of the pairs, `(pairs, loss)`; and what
    `doubled` data may be expected to give, if each doubling goes on to gain less by the same factor."""

    losses: tuple[tuple[int, float], ...]
    doubled: float


def data_halves(run: Path, steps: int = 200) -> Halves:
    """Train on parts of the data, each for as many steps; each validated several times, since less is learned by heart
    sooner."""
    case = Case.open(run)
    counts = [max(FEW, len(case.pairs) // parts) for parts in (4, 2, 1)]
    mixed = random.Random(1).sample(case.pairs, len(case.pairs))
    losses = [case.learn(mixed[:count], steps, looks=8).best for count in counts]
    earlier, later = losses[0] - losses[1], losses[1] - losses[2]
    factor = min(1.0, max(0.0, later / earlier)) if earlier > 0 else 0.0
    return Halves(tuple(zip(counts, losses, strict=True)), losses[2] - max(0.0, later) * factor)


@dataclass(frozen=True)
class Errors:
    """Of held-out pairs whose answer is not the reference: the shares where the model itself prefers the reference that
    search did not find (`search`), and where it prefers the answer (`model`); and the share of answers that are the
    reference (`exact`). `beam` is that of the run."""

    pairs: int
    beam: int
    exact: float
    search: float
    model: float


def search_errors(run: Path, most: int = 64) -> Errors:
    """Hold the score of each reference against that of the answer, both scored alike."""
    case = Case.open(run).of_text()
    model, settings, pairs = case.bundle.model, replace(case.config.decoding, ctc=0.0), case.held_out[:most]
    settings = replace(settings, sample=False, risk="", abstain=0.0, n_best=1, groups=1)
    exact = by_search = wrong = 0
    for at in range(0, len(pairs), FEW):
        for same, better in _compared(case, model, settings, pairs[at : at + FEW]):
            exact, wrong, by_search = exact + same, wrong + (not same), by_search + (not same and better)
    return Errors(len(pairs), settings.beam or 5, exact / max(1, len(pairs)), by_search / max(1, len(pairs)),
                  (wrong - by_search) / max(1, len(pairs)))  # fmt: skip


def _compared(case: Case, model: Seq2Seq, settings: Any, pairs: list[Pair]) -> Iterator[tuple[bool, bool]]:
    """Of each pair whether the answer is the reference, and whether the reference has the better score."""
    batch = case.task.batch(pairs)
    references = [ids[:length - 1] for ids, length in
                  zip(batch.target.values.tolist(), batch.target.lengths_B.tolist(), strict=True)]  # fmt: skip
    limits = [max(case.task.limit(int(length)), len(each)) for length, each in
              zip(batch.lengths_B.tolist(), references, strict=True)]  # fmt: skip
    find = partial(search, [model], batch.source, settings, max_lengths=limits, context=batch.context)
    scored = rescore([model], batch.source, references, settings, context=batch.context)
    for answer, reference in zip(find(), scored, strict=True):
        yield answer[0].tokens == reference.tokens, reference.score > answer[0].score + 1e-4
