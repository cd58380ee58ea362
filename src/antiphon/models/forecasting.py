"""Heads of numbers: from a decoder's steps to the distribution of the next one, and to the loss.

Axes: T steps, F features of a step, Q quantiles, O outputs of the matrix.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.core.batch import Loss, Padded, Steps
from antiphon.core.numbers import LEVELS
from antiphon.models.linear import Linear

LEAST = 1e-3
"""The least deviation, of numbers that have deviation 1: what is known for certain costs no more than so much."""


class NumbersHead(nn.Module):
    """What heads of numbers share: the end of a sequence, and a sum of losses over real steps.

    With `ends` it says after each step how likely that was the last one; without, all sequences are equally long.
    """

    def __init__(self, width: int, features: int, outputs: int, ends: bool) -> None:
        super().__init__()
        self.features, self.ends = features, ends
        self.output = Linear(width, outputs + ends)

    def outputs(self, steps: Steps) -> Tensor:
        """What the matrix makes of each step but the end, `[N, T, O]` in fp32."""
        made: Tensor = self.output(steps.hidden_BTD).float()
        return made[..., :-1] if self.ends else made

    def end(self, steps: Steps) -> Tensor:
        """How likely each step is the last one, `[N, T]`; 0 where all sequences are equally long."""
        if not self.ends:
            return steps.hidden_BTD.new_zeros(steps.hidden_BTD.shape[:2]).float()
        return torch.sigmoid(self.output(steps.hidden_BTD).float()[..., -1])

    def losses(self, steps: Steps, target: Padded) -> Tensor:
        """The loss of each real step `[B, T]`, 0 elsewhere."""
        losses_BT = self.misses(steps, target.values.float())
        if self.ends:
            last_BT = target.mask_BL & (torch.arange(1, 1 + losses_BT.shape[1], device=losses_BT.device)
                                        == target.lengths_B[:, None])  # fmt: skip
            logits_BT = self.output(steps.hidden_BTD).float()[..., -1]
            wrong_BT = F.binary_cross_entropy_with_logits(logits_BT, last_BT.float(), reduction="none")
            losses_BT = losses_BT + wrong_BT
        return losses_BT.masked_fill(~target.mask_BL, 0.0)

    def loss(self, steps: Steps, target: Padded) -> Loss:
        """The sum over real steps, and their number."""
        return Loss(self.losses(steps, target).sum(), int(target.lengths_B.sum()))

    @abstractmethod
    def misses(self, steps: Steps, values_BTF: Tensor) -> Tensor:
        """How far each step's distribution is from what came, `[B, T]`, summed over features."""

    @abstractmethod
    def point(self, steps: Steps) -> Tensor:
        """The best guess, `[N, T, F]`."""

    @abstractmethod
    def deviation(self, steps: Steps) -> Tensor | None:
        """The deviation about it, `[N, T, F]`, where it is all there is to know."""

    @abstractmethod
    def quantiles(self, steps: Steps) -> Tensor:
        """Those of `LEVELS`, rising, `[N, T, F, Q]`."""

    @abstractmethod
    def draw(self, steps: Steps, chance_NTF: Tensor) -> Tensor:
        """The numbers below which so much of the probability lies, `[N, T, F]`: draws, where chances are uniform."""


class GaussianHead(NumbersHead):
    """A mean and a deviation for each feature; negative log likelihood in nats (as DeepAR, Salinas et al. 2020)."""

    def __init__(self, width: int, features: int, ends: bool) -> None:
        super().__init__(width, features, 2 * features, ends)

    def _both(self, steps: Steps) -> tuple[Tensor, Tensor]:
        mean_NTF, raw_NTF = self.outputs(steps).chunk(2, dim=-1)
        return mean_NTF, F.softplus(raw_NTF) + LEAST

    def misses(self, steps: Steps, values_BTF: Tensor) -> Tensor:
        mean_BTF, deviation_BTF = self._both(steps)
        squares = ((values_BTF - mean_BTF) / deviation_BTF) ** 2
        return (0.5 * squares + deviation_BTF.log() + 0.5 * math.log(2 * math.pi)).sum(-1)

    def point(self, steps: Steps) -> Tensor:
        return self._both(steps)[0]

    def deviation(self, steps: Steps) -> Tensor | None:
        return self._both(steps)[1]

    def quantiles(self, steps: Steps) -> Tensor:
        mean_NTF, deviation_NTF = self._both(steps)
        normal_Q = torch.special.ndtri(torch.tensor(LEVELS, device=mean_NTF.device))
        return mean_NTF[..., None] + deviation_NTF[..., None] * normal_Q

    def draw(self, steps: Steps, chance_NTF: Tensor) -> Tensor:
        mean_NTF, deviation_NTF = self._both(steps)
        return mean_NTF + deviation_NTF * torch.special.ndtri(chance_NTF)


class QuantileHead(NumbersHead):
    """Quantiles of each feature, which cannot cross: the median, and what each one further out adds to the last.

    The loss is twice the mean pinball loss, which is about the continuous ranked probability score (Gneiting and
    Raftery 2007), in units of the scaled numbers.
    """

    def __init__(self, width: int, features: int, ends: bool) -> None:
        super().__init__(width, features, len(LEVELS) * features, ends)

    def quantiles(self, steps: Steps) -> Tensor:
        made_NTFQ = self.outputs(steps).unflatten(-1, (self.features, len(LEVELS)))
        middle = len(LEVELS) // 2
        below, median, above = made_NTFQ.split([middle, 1, middle], dim=-1)
        down = F.softplus(below).flip(-1).cumsum(-1).flip(-1)
        return torch.cat([median - down, median, median + F.softplus(above).cumsum(-1)], dim=-1)

    def misses(self, steps: Steps, values_BTF: Tensor) -> Tensor:
        quantiles_BTFQ = self.quantiles(steps)
        levels_Q = torch.tensor(LEVELS, device=values_BTF.device)
        over = values_BTF[..., None] - quantiles_BTFQ
        return 2 * torch.maximum(levels_Q * over, (levels_Q - 1) * over).mean(-1).sum(-1)

    def point(self, steps: Steps) -> Tensor:
        return self.quantiles(steps)[..., len(LEVELS) // 2]

    def deviation(self, steps: Steps) -> Tensor | None:
        return None

    def draw(self, steps: Steps, chance_NTF: Tensor) -> Tensor:
        """Between two quantiles along a line; beyond the last one along an exponential tail of the same density."""
        quantiles_NTFQ, levels_Q = self.quantiles(steps), torch.tensor(LEVELS, device=chance_NTF.device)
        place = torch.searchsorted(levels_Q, chance_NTF.contiguous()).clamp(1, len(LEVELS) - 1)
        low, high = (quantiles_NTFQ.gather(-1, (place + way)[..., None])[..., 0] for way in (-1, 0))
        slope = (high - low) / (levels_Q[place] - levels_Q[place - 1])
        first, last = LEVELS[0], LEVELS[-1]
        inside = low + slope * (chance_NTF - levels_Q[place - 1])
        under = low + slope * first * (chance_NTF.clamp_max(first) / first).log()
        over = high - slope * (1 - last) * ((1 - chance_NTF.clamp_min(last)) / (1 - last)).log()
        return torch.where(chance_NTF < first, under, torch.where(chance_NTF > last, over, inside))


NUMBERS_HEADS: dict[str | None, type[GaussianHead] | type[QuantileHead]] = {
    "gaussian": GaussianHead,
    "quantile": QuantileHead,
}
