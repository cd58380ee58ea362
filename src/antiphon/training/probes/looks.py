"""Where a decoder looks in the source: how sharply, at how much of it, and in what order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from antiphon.models.decoders import DecoderLayer
from antiphon.models.seq2seq import Seq2Seq

SEEN = 0.1
"""A source token counts as looked at where some step gives it more than this weight."""

Sums = dict[str, Tensor]
"""A total and what it is over, `[2]`, by name."""


class Looks:
    """Watches every attention to the source in a `with`. Set `mask_BT`, where targets are real, before each pass."""

    def __init__(self, model: Seq2Seq) -> None:
        self.mask_BT = torch.empty(0, 0)
        self.sums: dict[str, Sums] = {}
        self.handles = [layer.attention.register_forward_hook(partial(self._see, f"decoder.layers.{number}"))
                        for number, layer in enumerate(model.decoder.layers)
                        if isinstance(layer, DecoderLayer) and layer.attention is not None]  # fmt: skip

    def __enter__(self) -> Looks:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _see(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        mask_BS, weights = inputs[2], output[1].float()
        weights_BHTS = weights if weights.dim() == 4 else weights[:, None]
        found = measured(weights_BHTS, mask_BS, self.mask_BT)
        before = self.sums.get(name, {})
        self.sums[name] = {key: before[key] + value if key in before else value for key, value in found.items()}

    def facts(self) -> dict[str, Any]:
        """The facts of an `attention` probe: those of the last layer that looks, and of each in `layers`."""
        rows = [{"name": name, **_shares(sums)} for name, sums in self.sums.items()]
        if not rows:
            return {}
        return {**{key: value for key, value in rows[-1].items() if key != "name"}, "layers": rows}


def _shares(sums: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Totals over what they are over; of heads the sharpest."""
    shares = dict[str, float | None]()
    for name, value in sums.items():
        total, over = value.double().cpu().unbind(0)
        mean = total / over
        shares[name] = float(mean.min()) if bool((over > 0).all()) else None
    return shares


def measured(weights_BHTS: Tensor, mask_BS: Tensor, mask_BT: Tensor) -> Sums:
    """Sums over the real steps of a batch, of the mean over heads but for `sharpest`, the entropy of each head.

    `entropy` is 1 where all of the source has the same weight; `diagonality` is how well the place of a step tells
    where it looks on average: the correlation of both, whichever way round.
    """
    weights_BTS = weights_BHTS.mean(1)
    size_B, last_B = mask_BS.sum(1), _last(mask_BS)
    usual_B = size_B.clamp_min(2).log()
    real = mask_BT & (size_B > 1)[:, None]
    each_BHT = _entropy(weights_BHTS) / usual_B[:, None, None]
    seen_BS = (weights_BTS.masked_fill(~mask_BT[:, :, None], 0).amax(1) > SEEN) & mask_BS
    rows = torch.arange(len(mask_BS), device=mask_BS.device)
    end_BT = weights_BTS[rows, :, last_B]
    straight_B, known_B = _straight(weights_BTS, mask_BT)
    return {
        "entropy": _over(_entropy(weights_BTS) / usual_B[:, None], real),
        "sharpest": torch.stack([_over(each_BHT[:, head], real) for head in range(each_BHT.shape[1])], 1),
        "coverage": torch.stack([seen_BS.sum().double(), mask_BS.sum().double()]),
        "diagonality": _over(straight_B, known_B),
        "end": _over(end_BT, mask_BT),
        "first": _over(weights_BTS[:, :, 0], mask_BT),
    }


def _over(values: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([values[mask].double().sum(), mask.sum().double()])


def _entropy(weights: Tensor) -> Tensor:
    return -torch.xlogy(weights, weights).sum(-1)


def _last(mask_BS: Tensor) -> Tensor:
    """The last place that is real."""
    places = torch.arange(mask_BS.shape[1], device=mask_BS.device)
    return (places * mask_BS).amax(1)


def _straight(weights_BTS: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """How straight each target goes along its source, `[B]`, and for which that can be said: those of three steps."""
    place_S = torch.arange(weights_BTS.shape[2], device=weights_BTS.device, dtype=weights_BTS.dtype)
    looked_BT, step_BT = weights_BTS @ place_S, mask_BT.cumsum(1).to(weights_BTS.dtype)
    count_B = mask_BT.sum(1).clamp_min(1)

    def centred(x_BT: Tensor) -> Tensor:
        x_BT = x_BT.masked_fill(~mask_BT, 0)
        return (x_BT - x_BT.sum(1, keepdim=True) / count_B[:, None]).masked_fill(~mask_BT, 0)

    a, b = centred(looked_BT), centred(step_BT)
    both_B, size_B = (a * b).sum(1).abs(), (a.norm(dim=1) * b.norm(dim=1))
    return both_B / size_B.clamp_min(math.ulp(1.0)), mask_BT.sum(1) >= 3
