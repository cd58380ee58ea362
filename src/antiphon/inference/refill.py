"""Beams that stay full: a hypothesis that has ended makes room for the next best, until as many have ended as the beam
is wide. It is the search of CTranslate2 (and of fairseq), so that a model exported to it answers as in PyTorch.

Axes as in `beam`, and W candidates of a step, best first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from antiphon.core.batch import Padded
from antiphon.core.config import Decoding
from antiphon.core.marks import EOS
from antiphon.inference.beam import Beams, Look
from antiphon.inference.hypothesis import Constraint
from antiphon.inference.scoring import Model
from antiphon.inference.selection import INF, Choice, plain


class Refilled(Beams):
    """All beams of a batch. In a step's record the rows that go on come first, then those that have ended."""

    def __init__(
        self, models: Sequence[Model], source: Padded, settings: Decoding, limits: list[int],
        context: Mapping[str, Padded], constraints: list[Constraint], numbers: list[int], look: Look | None = None,
    ) -> None:  # fmt: skip
        super().__init__(models, source, settings, limits, context, constraints, numbers, look)
        self.columns = 2 * self.slots
        self.ended_B = torch.zeros_like(self.limits_A)

    def _step(self, step: int) -> Tensor:
        steps = self._decode()
        weights_ARS = torch.stack(
            [each.weights_BTS[:, 0].float().view(*self.tokens_AR.shape, -1) for each in steps]
        ).mean(0)
        log_probs_ARV = self._rules(self._log_probs(steps).view(*self.tokens_AR.shape, -1), step)
        room_A = torch.full_like(self.active_A, self.columns + 1)
        found = plain(self.totals_AR, log_probs_ARV, room_A, self.columns + 1)
        self._give_up(log_probs_ARV, step)
        self._note(self._gaps(found), self.active_A, step)
        going, ended = self._parted(found)
        self._record(_beside(going, ended), weights_ARS)
        totals_AR, looked_ARS = self.totals_AR, self.looked_ARS
        done_A = self._book(going, ended, weights_ARS, step)
        self._cut(found, step, totals_AR, looked_ARS)
        if self.look is not None:
            done_A = done_A | self._given_up(self.look, done_A, step)
        self._go_on(going, done_A)
        return done_A

    def _parted(self, found: Choice) -> tuple[Choice, Choice]:
        """The best that go on, and those among the best of all that have ended; empty places have a total of -inf."""
        real_AW, over_AW = found.totals_AK > -INF, found.tokens_AK == EOS
        order_AK = (over_AW | ~real_AW).to(torch.int8).argsort(dim=1, stable=True)[:, : self.slots]
        going = _picked(found, order_AK)
        going.totals_AK.masked_fill_(going.tokens_AK == EOS, -INF)
        ended = _picked(found, torch.arange(self.slots, device=order_AK.device).expand_as(order_AK))
        ended.totals_AK.masked_fill_(ended.tokens_AK != EOS, -INF)
        return going, ended

    def _gaps(self, found: Choice) -> Tensor:
        """The least by which one went on and another did not, or ended within the best and not just outside."""
        over_AW, totals_AW = found.tokens_AK == EOS, found.totals_AK
        order_AW = over_AW.to(torch.int8).argsort(dim=1, stable=True)
        going_AW = totals_AW.masked_fill(over_AW, -INF).gather(1, order_AW)
        last_A, next_A = totals_AW[:, self.slots - 1], totals_AW[:, self.slots]
        inside = torch.arange(totals_AW.shape[1], device=totals_AW.device) < self.slots
        ends_AW = torch.where(inside, totals_AW - next_A[:, None], last_A[:, None] - totals_AW)
        ends_A = ends_AW.masked_fill(~over_AW, INF).nan_to_num(nan=INF, posinf=INF).amin(1)
        return torch.minimum((going_AW[:, self.slots - 1] - going_AW[:, self.slots]).nan_to_num(nan=INF), ends_A)

    def _cut(self, found: Choice, step: int, totals_AR: Tensor, looked_ARS: Tensor) -> None:
        """At the length limit, those that would go on are closed without this step."""
        late_A = self.limits_A == step
        if not late_A.any():
            return
        tokens_AK, parents_AK = found.tokens_AK[:, : self.slots], found.parents_AK[:, : self.slots]
        longer_AK = late_A[:, None] & (tokens_AK != EOS) & (found.totals_AK[:, : self.slots] > -INF)
        stuck_AR = torch.zeros_like(totals_AR).scatter_add_(1, parents_AK, longer_AK.double()) > 0
        scores_AR = self._scores(totals_AR, max(step, 1), looked_ARS)
        self.ends.add(stuck_AR, self.active_A, step - 1, scores_AR, finished=False)

    def _book(self, going: Choice, ended: Choice, weights_ARS: Tensor, step: int) -> Tensor:
        """Books what has ended; the sentences that are done."""
        looked_AKS = self.looked_ARS
        if self.settings.coverage_penalty:
            looked_AKS = self._looked(ended, weights_ARS)
            self.looked_ARS = self._looked(going, weights_ARS)
        over_AK = ended.totals_AK > -INF
        scores_AK = self._scores(ended.totals_AK, step + 1, looked_AKS)
        self.ends.add(torch.cat([torch.zeros_like(over_AK), over_AK], 1), self.active_A, step,
                      torch.cat([scores_AK, scores_AK], 1), finished=True)  # fmt: skip
        self.ended_B[self.active_A] += over_AK.sum(1)
        self.totals_AR = going.totals_AK
        full_A = self.ended_B[self.active_A] >= self.slots
        return full_A | (self.limits_A == step) | (self.totals_AR == -INF).all(1)

    def _looked(self, choice: Choice, weights_ARS: Tensor) -> Tensor:
        """Where the hypotheses of a choice have looked until now."""
        index = choice.parents_AK[..., None].expand(-1, -1, weights_ARS.shape[2])
        return self.looked_ARS.gather(1, index) + weights_ARS.gather(1, index)


def _picked(found: Choice, places_AK: Tensor) -> Choice:
    """These candidates."""
    columns = found.parents_AK, found.tokens_AK, found.log_probs_AK, found.totals_AK
    parents, tokens, log_probs, totals = (column.gather(1, places_AK) for column in columns)
    return Choice(parents, tokens, log_probs, totals, found.gaps_A)


def _beside(one: Choice, other: Choice) -> Choice:
    """All columns of both."""
    return Choice(
        torch.cat([one.parents_AK, other.parents_AK], 1),
        torch.cat([one.tokens_AK, other.tokens_AK], 1),
        torch.cat([one.log_probs_AK, other.log_probs_AK], 1),
        torch.cat([one.totals_AK, other.totals_AK], 1),
        one.gaps_A,
    )
