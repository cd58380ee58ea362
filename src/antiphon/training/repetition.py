"""Learning not to repeat oneself: unlikelihood of what comes again in the model's own answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from antiphon.core.batch import Batch, Loss, Padded
from antiphon.training.objectives import LEAST
from antiphon.training.reinforcement import Drawing, looks, no_dropout

LONG = 4
"""Tokens of a run that must not come again."""


class SequenceUnlikelihood(Drawing):
    """(1 - share) times unlikelihood of repetition, plus share times likelihood (Welleck et al. 2020, sequence level).

    The model answers greedily and without dropout; every token of a run of four that the answer had before
    counts -log(1 - p), summed over answers. The count is of target tokens, as for likelihood.
    """

    drawn = 1

    def greedy(self, limits_N: Tensor) -> Tensor:
        """All of them: what is to be unlearned is what a search says."""
        return torch.ones_like(limits_N, dtype=torch.bool)

    def __call__(self, models: Mapping[str, Any], batch: Batch, progress: float) -> dict[str, Loss]:
        model = models["model"]
        with no_dropout(model):
            answers, memory = self.answers(model, batch)
            log_probs_NT, sums = self.measured(model, memory, batch, answers)
        again_NT = again(answers)
        against_NT = -(1 - log_probs_NT.exp()).clamp_min(LEAST).log()
        total = against_NT.masked_fill(~again_NT, 0.0).sum()
        sums |= {"unlikelihood": float(total.detach()), "again": float(again_NT.sum()), "answers": float(len(again_NT))}
        return self.mixed(total, sums, models, batch, progress)

    def facts(self, loss: Loss) -> dict[str, float]:
        """The share of tokens in repeated runs and their unlikelihood an answer; length, entropy and divergence."""
        sums = loss.sums
        return {
            "repetition": sums["again"] / sums["tokens"], "unlikelihood": sums["unlikelihood"] / sums["answers"],
            "length": sums["tokens"] / sums["answers"], **looks(sums),
        }  # fmt: skip


def again(answers: Padded, long: int = LONG) -> Tensor:
    """True for each token of a run of `long` that was there before in the same answer, `[N, T]`; runs may overlap."""
    values_NT, length = answers.values, answers.values.shape[1]
    found_NT = torch.zeros_like(values_NT, dtype=torch.bool)
    if length <= long:
        return found_NT
    runs_NRL = values_NT.unfold(1, long, 1)
    same_NRR = (runs_NRL[:, :, None] == runs_NRL[:, None]).all(3)
    ends_R = torch.arange(long, length + 1, device=values_NT.device)
    real_NR = ends_R <= answers.lengths_B[:, None]
    before_NR = same_NRR.tril(-1).any(2) & real_NR
    for place in range(long):
        found_NT[:, place : place + before_NR.shape[1]] |= before_NR
    return found_NT
