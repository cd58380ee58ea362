"""What a model might say next after a given beginning, and where each word would lead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from antiphon.core.batch import BOS, EOS, PAD, UNK, Memory
from antiphon.core.errors import ConfigError, DataError
from antiphon.data.batching import Example, collate
from antiphon.data.corpus import Pair
from antiphon.data.vocabulary import SPECIAL, extended_ids
from antiphon.inference.beam import Look
from antiphon.inference.constraints import Constraint
from antiphon.inference.predictor import Predictor
from antiphon.inference.scoring import average
from antiphon.inference.search import search, searching
from antiphon.inference.task import Source


@dataclass(frozen=True)
class Next:
    """A token that may come next, its probability, and `ahead`, the text of the likeliest way on after it; `end` says
    that it is the end mark."""

    token: str
    probability: float
    end: bool
    ahead: str


@dataclass(frozen=True)
class Explored:
    """The tokens of a beginning, what they read, and what may come next, likeliest first."""

    tokens: list[str]
    text: str
    following: list[Next]


def explore(
    predictor: Predictor, item: str | Pair, *, prefix: str = "", tokens: Sequence[str] = (), width: int = 5,
    look: Look | None = None,
) -> Explored:  # fmt: skip
    """The `width` likeliest tokens after a beginning, given as text or as tokens, with a greedy look ahead of each.

    `look` is called after each step, and may give up.

    Probabilities are those of the model (of an ensemble, their mean), without the rules of a search. Raises `DataError`
    for a blank source and `ConfigError` for a beginning that the model cannot write, and where targets are numbers.
    """
    if width < 1:
        raise ConfigError("width must be at least 1", where="explore", got=width)
    item = predictor.task.completed(item)
    words, source = predictor.task.words, predictor.task.read(item)
    if not (item if isinstance(item, str) else item.source).strip():
        raise DataError("the source is empty", do="give something to answer")
    given = tuple(extended_ids(tokens, words.vocabulary, source.extra))
    strange = any(token != SPECIAL[UNK] for token, number in zip(tokens, given, strict=True) if number == UNK)
    if not tokens:
        given = predictor.task.phrase(prefix, source.extra)
        strange = UNK in given
    if strange or len(given) >= predictor.longest:
        raise ConfigError("the model cannot write this beginning", do="shorten it, or spell it otherwise")
    probabilities_V = _probabilities(predictor, source, given)
    best = probabilities_V.topk(min(width, len(probabilities_V) - 2))  # without the two marks that are no token
    ways = [(*given, choice) for choice in best.indices.tolist()]
    ahead = _ahead(predictor, source, [way for way in ways if way[-1] != EOS], look)
    following = [
        Next("" if way[-1] == EOS else words.tokens(way[-1:], source.extra)[0], chance, way[-1] == EOS,
             "" if way[-1] == EOS else next(ahead))
        for way, chance in zip(ways, best.values.tolist(), strict=True)
    ]  # fmt: skip
    return Explored(words.tokens(given, source.extra), predictor.task.answer(given, source.extra), following)


def _probabilities(predictor: Predictor, source: Source, given: Sequence[int]) -> Tensor:
    """`[V]` of the next token, none for marks that are no token."""
    models = [bundle.model for bundle in predictor.bundles]
    with searching(models):
        batch = collate([Example(source.ids, [], source.context)]).to(next(models[0].parameters()).device)
        said = torch.tensor([[BOS, *given]], device=batch.source.values.device)
        memories: list[Memory] = [model.encode(batch.source, batch.context) for model in models]
        parts = []
        for model, memory in zip(models, memories, strict=True):
            steps, _ = model.decode(said, memory, model.start(memory))
            parts.append(model.log_probs(steps, memory)[:, -1])
        probabilities_V = average(parts)[0].exp()
        probabilities_V[[PAD, BOS]] = -1.0
        return probabilities_V.double().cpu()


def _ahead(predictor: Predictor, source: Source, ways: list[tuple[int, ...]], look: Look | None) -> Iterator[str]:
    """The text that greedy search puts after each of these beginnings."""
    if not ways:
        return
    models = [bundle.model for bundle in predictor.bundles]
    task, settings = predictor.task, predictor.config.decoding
    batch = collate([Example(source.ids, [], source.context)] * len(ways))
    batch = batch.to(next(models[0].parameters()).device)
    limit = min(settings.max_length or task.limit(source.length), predictor.longest)
    greedy = replace(settings, beam=1, n_best=1, groups=1, sample=False, min_length=None, no_repeat=None)
    found = search(models, batch.source, greedy, max_lengths=[limit] * len(ways), context=batch.context,
                   constraints=[Constraint(prefix=way) for way in ways], look=look)  # fmt: skip
    for way, [best] in zip(ways, found, strict=True):
        yield task.answer(best.tokens, source.extra).removeprefix(task.answer(way, source.extra))
