"""From a source to its likeliest targets: greedy, beam, diverse groups or sampling, by one loop.

Axes: B sentences, A those still searched, K slots of a beam, R rows a sentence (1 at the first step, then K),
V vocabulary, S source, T target.

The score of a hypothesis is its log probability in nats divided by length ** length_penalty, the length counting
the end mark, plus the coverage penalty of Wu et al. (2016). With `decoding.ctc` what a CTC head hears is a share of
the log probability (`antiphon.inference.ctc`). Finished hypotheses rank before unfinished ones.
A finished hypothesis keeps its slot, so a beam of one is greedy search; a sentence is done when all slots are
taken, or when no live hypothesis would be returned if it ended with the next step, or at its length limit. With
`decoding.refill` a beam of more than one stays full instead (`antiphon.inference.refill`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from antiphon.core.batch import BOS, EOS, Padded, pad
from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError
from antiphon.inference.beam import Beams, Look
from antiphon.inference.ctc import joint
from antiphon.inference.endings import collected
from antiphon.inference.hypothesis import BEAM, MARGIN, Constraint, Hypothesis, check
from antiphon.inference.refill import Refilled
from antiphon.inference.scoring import Model, average, coverage

Tell = Callable[[int, list[Hypothesis]], None]
"""Gets the number of a sentence, and its answers."""


def search(
    models: Sequence[Model],
    source: Padded,
    settings: Decoding,
    *,
    max_lengths: Sequence[int],
    context: Mapping[str, Padded] | None = None,
    constraints: Sequence[Constraint] | None = None,
    sample_ids: Sequence[int] | None = None,
    look: Look | None = None,
    tell: Tell | None = None,
) -> list[list[Hypothesis]]:
    """The `n_best` best hypotheses of every sentence, best first (draws in order where `settings.sample`).

    Several models are an ensemble: their probabilities are averaged. `max_lengths` are the most tokens before the
    end mark, raised where a constraint needs more; `context` is that of the `Batch`. `sample_ids` number the sentences
    for sampling (default: their places). The tokens do not depend on what else is in the batch: a sentence with a
    decision so close that float error could turn it is decoded again alone (docs/decisions/0001-near-ties.md).
    `look` is called after each step with sentences by their numbers; what it gives up cannot change what is found for
    others. `tell` gets the answers of a sentence as soon as they are certain, if that is before the end.
    """
    if not models:
        raise ConfigError("there is no model to decode with")
    check(settings)
    rows, context = len(source.lengths_B), context or {}
    asked = list(constraints) if constraints is not None else [Constraint()] * rows
    _check_constraints(settings, asked, models[0].target_size, context)
    limits = [max(1, limit, item.needed) for limit, item in zip(max_lengths, asked, strict=True)]
    numbers = list(sample_ids) if sample_ids is not None else list(range(rows))
    if any(item.required for item in asked) and not all(item.required for item in asked):
        return _apart(models, source, settings, limits, context, asked, numbers, look, tell)
    with searching(models):
        models = joint(models, settings.ctc or 0.0)
        answers, gaps = _decode(models, source, settings, limits, context, asked, numbers, look, tell)
        for row in (gaps < MARGIN).nonzero().flatten().tolist():
            read = [source, *context.values()]
            if rows == 1 and all(each.values.shape[1] == int(each.lengths_B) for each in read):
                break  # this was the canonical form already
            index = torch.tensor([row], device=source.lengths_B.device)
            own = {name: padded.rows(index) for name, padded in context.items()}
            one = models, source.rows(index), settings, [limits[row]], own, [asked[row]], [numbers[row]], look
            alone, _ = _decode(*one)
            answers[row] = [replace(hypothesis, repeated=True) for hypothesis in alone[0]]
    return answers


def _apart(
    models: Sequence[Model], source: Padded, settings: Decoding, limits: list[int], context: Mapping[str, Padded],
    asked: list[Constraint], numbers: list[int], look: Look | None, tell: Tell | None,
) -> list[list[Hypothesis]]:  # fmt: skip
    """Sentences with and without required words by themselves, for these are searched for in another way."""
    found: dict[int, list[Hypothesis]] = {}
    for required in (False, True):
        rows = [row for row, item in enumerate(asked) if bool(item.required) == required]
        index = torch.tensor(rows, device=source.lengths_B.device)
        own = {name: padded.rows(index) for name, padded in context.items()}
        answers = search(
            models, source.rows(index), settings, max_lengths=[limits[row] for row in rows], context=own,
            constraints=[asked[row] for row in rows], sample_ids=[numbers[row] for row in rows], look=look, tell=tell,
        )  # fmt: skip
        found |= zip(rows, answers, strict=True)
    return [found[row] for row in range(len(asked))]


def rescore(
    models: Sequence[Model], source: Padded, targets: Sequence[list[int]], settings: Decoding, *,
    context: Mapping[str, Padded] | None = None,
) -> list[Hypothesis]:  # fmt: skip
    """Given answers (without end marks), one a sentence, scored by teacher forcing just as `search` scores."""
    with searching(models):
        models = joint(models, settings.ctc or 0.0)
        labels = pad([[*target, EOS] for target in targets]).to(source.values.device)
        begin = labels.values.new_full((len(targets), 1), BOS)
        inputs = torch.cat([begin, labels.values[:, :-1]], 1)
        parts, weights = [], []
        for model in models:
            memory = model.encode(source, context)
            steps, _ = model.decode(inputs, memory, model.start(memory))
            picked = model.log_probs(steps, memory).gather(2, labels.values[..., None]).squeeze(2)
            parts.append(picked)
            weights.append(steps.weights_BTS.float())
            mask_BS = memory.mask_BS
        log_probs = average(parts)
        weights_BTS = torch.stack(weights).mean(0)
    result = []
    for row, target in enumerate(targets):
        values, looks = log_probs[row, : len(target) + 1].double(), weights_BTS[row, : len(target) + 1]
        real = looks[:, mask_BS[row]]
        score = values.sum() / (len(target) + 1) ** settings.penalty + coverage(real.sum(0), settings.coverage_penalty)
        result.append(Hypothesis(list(target), float(score), values.tolist(), real.cpu().numpy()))
    return result


def _check_constraints(settings: Decoding, asked: list[Constraint], size: int, context: Mapping[str, Padded]) -> None:
    if (settings.sample or settings.groups > 1) and any(item.required for item in asked):
        raise ConfigError("required words need a plain beam", do="leave out decoding.sample and decoding.groups")
    copies = [context[name].values for name in ("copy", "fact_copy") if name in context]
    sizes = (torch.cat(copies, 1).amax(1) + 1).clamp_min(size).tolist() if copies else [size] * len(asked)
    for item, known in zip(asked, sizes, strict=True):
        highest = max((token for phrase in (item.prefix, *item.required) for token in phrase), default=0)
        if highest >= known:
            raise ConfigError("a constraint holds a token that the model lacks", got=f"id {highest} of {known}")


@contextmanager
def searching(models: Sequence[Model]) -> Iterator[None]:
    """Dropout off, matrix products as exact as fp32 is, and one thread (several only wait for each other: a step's
    products are too small to share); afterwards all is as it was."""
    modules = [model for model in models if isinstance(model, torch.nn.Module) and model.training]
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        for module in modules:
            module.eval()
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(1)
        with torch.inference_mode():
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)
        for module in modules:
            module.train()


def _decode(
    models: Sequence[Model], source: Padded, settings: Decoding, limits: list[int], context: Mapping[str, Padded],
    asked: list[Constraint], numbers: list[int], look: Look | None,
    tell: Tell | None = None,
) -> tuple[list[list[Hypothesis]], Tensor]:  # fmt: skip
    """One batch as it is: the answers, and the smallest gap of any decision that made them, by sentence."""
    special = settings.sample or settings.groups > 1 or any(item.required for item in asked)
    kind = Refilled if settings.refill and not special and (settings.beam or BEAM) > 1 else Beams
    beams = kind(models, source, settings, limits, context, asked, numbers, look)

    def outcome(rows: Sequence[int]) -> tuple[list[list[Hypothesis]], np.ndarray]:
        gaps = beams.gaps.cpu().numpy()
        answers = collected(beams.ends.columns(), beams.steps, beams.read_BS, gaps, settings, beams.columns, rows)
        return answers, gaps

    for done in beams.run():
        if tell is not None and done:
            answers, gaps = outcome(done)
            for row, mine in zip(done, answers, strict=True):
                if gaps[row] >= MARGIN:
                    tell(numbers[row], mine)
    answers, gaps = outcome(range(len(limits)))
    return answers, torch.from_numpy(gaps)
