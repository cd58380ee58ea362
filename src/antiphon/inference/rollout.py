"""From a source to numbers that go on: step after step, each told the ones before it; the best guess, or drawn paths.

Axes: B sentences, K paths of each, N = B * K rows, T steps, F features, Q quantiles, S source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from antiphon.core.batch import Memory, Padded
from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError
from antiphon.core.numbers import LEVELS, Forecast
from antiphon.inference.hypothesis import Rolled
from antiphon.inference.search import searching
from antiphon.models.forecasting import NumbersHead
from antiphon.models.seq2seq import Seq2Seq

ROWS = 4096
"""Paths that are drawn at once."""
EDGE = 1e-6
"""How near to certain a chance may be drawn."""


@dataclass(frozen=True)
class _Rows:
    """Rows rolled out together; what stands after a row's length means nothing."""

    values_NTF: Tensor
    quantiles_NTFQ: Tensor
    deviation_NTF: Tensor | None
    weights_NTS: Tensor
    lengths_N: Tensor
    ended_N: Tensor


def roll_out(
    models: Sequence[Seq2Seq], source: Padded, settings: Decoding, *, max_lengths: Sequence[int],
    context: Mapping[str, Padded] | None = None, sample_ids: Sequence[int] | None = None,
) -> list[list[Rolled]]:  # fmt: skip
    """The forecast of every sentence, in scaled numbers.

    It is the best guess of each step, fed back; with `settings.sample` the median at each step of `settings.samples`
    drawn paths. A sequence of learned length ends where it is likelier to have ended than not, a drawn one where an end
    is drawn. Several models are an ensemble: their quantiles are averaged. What is drawn depends on the seed and a
    sentence's number (`sample_ids`, default its place), and on nothing else in the batch.
    """
    with searching(models):
        memories = [model.encode(source, context) for model in models]
        best = _roll(models, memories, list(max_lengths), settings, None)
        found = [_guess(best, row, memories[-1].mask_BS[row]) for row in range(len(max_lengths))]
        if settings.sample:
            numbers = list(sample_ids) if sample_ids is not None else list(range(len(found)))
            drawn = _draw(models, memories, list(max_lengths), settings, numbers)
            found = [_median(guess, paths) for guess, paths in zip(found, drawn, strict=True)]
    return [[each] for each in found]


def _heads(models: Sequence[Seq2Seq]) -> list[NumbersHead]:
    heads = [model.head for model in models if isinstance(model.head, NumbersHead)]
    if len(heads) < len(models):
        raise ConfigError("a model of text makes no numbers", do="take one with data.target.kind=numbers")
    return heads


def _roll(
    models: Sequence[Seq2Seq], memories: Sequence[Memory], limits: list[int], settings: Decoding,
    chances_NTX: Tensor | None,
) -> _Rows:  # fmt: skip
    """All rows to their ends: best guesses, or draws by these uniform chances, the last of each step for the end."""
    heads, rows, device = _heads(models), len(limits), memories[0].mask_BS.device
    limits_N, lengths_N = torch.tensor(limits, device=device), torch.zeros(rows, dtype=torch.long, device=device)
    said_N1F = torch.zeros(rows, 1, heads[0].features, device=device)
    going_N, ended_N = torch.ones(rows, device=device), torch.zeros(rows, dtype=torch.bool, device=device)
    states, parts = [model.start(memory) for model, memory in zip(models, memories, strict=True)], []
    for step in range(max(limits)):
        told = []
        for place, (model, memory) in enumerate(zip(models, memories, strict=True)):
            steps, states[place] = model.decode(said_N1F, memory, states[place])
            told.append(steps)
        both = list(zip(heads, told, strict=True))
        said_N1F = torch.stack([head.point(steps) for head, steps in both]).mean(0)
        end_N = torch.stack([head.end(steps) for head, steps in both]).mean(0)[:, 0]
        going_N, over_N = going_N * (1 - end_N), going_N * (1 - end_N) <= 0.5
        if chances_NTX is not None:
            chance_N1F = chances_NTX[:, step : step + 1, :-1]
            drawn_N1F = torch.stack([head.draw(steps, chance_N1F) for head, steps in both]).mean(0)
            said_N1F = said_N1F + settings.temperature * (drawn_N1F - said_N1F)
            over_N = chances_NTX[:, step, -1] < end_N
        parts.append((said_N1F, *_spread(both), torch.stack([steps.weights_BTS for steps in told]).mean(0)))
        lengths_N += ~ended_N & (step < limits_N)
        ended_N = ended_N | (over_N & (step < limits_N) & (step + 1 >= (settings.min_length or 0)))
        if bool((ended_N | (step + 1 >= limits_N)).all()):
            break
    values, quantiles, deviations, weights = zip(*parts, strict=True)
    deviation_NTF = None if deviations[0] is None else torch.cat(deviations, 1)
    ends = heads[0].ends
    return _Rows(torch.cat(values, 1), torch.cat(quantiles, 1), deviation_NTF, torch.cat(weights, 1), lengths_N,
                 ended_N if ends else torch.ones_like(ended_N))  # fmt: skip


def _spread(both: Sequence[tuple[NumbersHead, object]]) -> tuple[Tensor, Tensor | None]:
    """The quantiles of a step, and its deviation where one model says it."""
    quantiles = torch.stack([head.quantiles(steps) for head, steps in both]).mean(0)  # type: ignore[arg-type]
    return quantiles, both[0][0].deviation(both[0][1]) if len(both) == 1 else None  # type: ignore[arg-type]


def _guess(found: _Rows, row: int, read_S: Tensor) -> Rolled:
    """One row's best guess."""
    length = int(found.lengths_N[row])

    def real(values: Tensor) -> np.ndarray:
        array: np.ndarray = values[row, :length].cpu().double().numpy()
        return array

    deviation_TF = None if found.deviation_NTF is None else real(found.deviation_NTF)
    forecast = Forecast(real(found.values_NTF), real(found.quantiles_NTFQ), deviation_TF)
    weights = found.weights_NTS[row, :length][:, read_S].float().cpu().numpy()
    return Rolled([], 0.0, [], weights, bool(found.ended_N[row]), forecast=forecast)


def _draw(
    models: Sequence[Seq2Seq], memories: Sequence[Memory], limits: list[int], settings: Decoding, numbers: list[int]
) -> list[list[np.ndarray]]:
    """`settings.samples` paths `[T, F]` of each sentence, some sentences at a time."""
    many, features, device = settings.samples, _heads(models)[0].features, memories[0].mask_BS.device
    together, found = max(1, ROWS // many), []
    for start in range(0, len(limits), together):
        mine = list(range(start, min(start + together, len(limits))))
        longest = max(limits[row] for row in mine)
        chances_BKTX = torch.full((len(mine), many, longest, features + 1), 0.5)
        for place, row in enumerate(mine):
            seed = np.random.SeedSequence([settings.seed & 0xFFFFFFFF, numbers[row]])
            uniform = np.random.default_rng(seed).random((many, limits[row], features + 1), dtype=np.float32)
            chances_BKTX[place, :, : limits[row]] = torch.from_numpy(uniform).clamp(EDGE, 1 - EDGE)
        index = torch.tensor(mine, device=device).repeat_interleave(many)
        rows = _roll(models, [memory.rows(index) for memory in memories], [limits[row] for row in index.tolist()],
                     settings, chances_BKTX.flatten(0, 1).to(device))  # fmt: skip
        values, lengths = rows.values_NTF.cpu().double().numpy(), rows.lengths_N.tolist()
        paths = [path[:length] for path, length in zip(values, lengths, strict=True)]
        found += [paths[place * many : (place + 1) * many] for place in range(len(mine))]
    return found


def _median(guess: Rolled, paths: list[np.ndarray]) -> Rolled:
    """What paths say: as long as half of them are, at each step the median and quantiles of those that got there."""
    length = int(np.median([len(path) for path in paths]))
    there = [np.stack([path[step] for path in paths if len(path) > step]) for step in range(length)]
    quantiles_TFQ = np.stack([np.quantile(values, LEVELS, axis=0).T for values in there])
    values_TF = np.stack([np.median(values, axis=0) for values in there])
    weights = guess.weights[:length]
    return replace(guess, weights=weights, forecast=Forecast(values_TF, quantiles_TFQ, None, paths))
