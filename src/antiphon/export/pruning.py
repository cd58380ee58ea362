"""A model without the tokens that its data never uses: fewer rows to keep, and to choose from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from antiphon.core.errors import ConfigError
from antiphon.data.corpus import Pair
from antiphon.data.modalities import Text
from antiphon.data.vocabulary import SPECIAL, Vocabulary
from antiphon.inference.bundle import Bundle
from antiphon.models.seq2seq import Seq2Seq, build

SHORT = 2
"""Tokens of so many characters stay whatever the data: rare words are spelled with them."""


def pruned(bundle: Bundle, pairs: Iterable[Pair]) -> Bundle:
    """The model with the tokens of these pairs, special ones, tags, and letters alone.

    Raises `ConfigError` where a side is not text.
    """
    task = bundle.task
    if not isinstance(task.source, Text) or not isinstance(task.target, Text):
        do = "leave the vocabulary as it is"
        raise ConfigError("only text has a vocabulary to prune", where="lighten", do=do)
    used = _always(task.source.vocabulary), _always(task.target.vocabulary)
    for pair in pairs:
        example = task.encode(pair)
        for found, ids in zip(used, (example.source, example.target), strict=True):
            found.update(int(number) for number in ids)
        used[0].update(int(number) for number in example.context.get("facts", ()))  # what a graph encoder reads
    if task.shared:
        used = (used[0] | used[1],) * 2
    kept = [sorted(number for number in found if number < len(side.vocabulary))
            for found, side in zip(used, (task.source, task.target), strict=True)]  # fmt: skip
    sides = [replace(side, vocabulary=Vocabulary(tuple(side.vocabulary.tokens[number] for number in rows)))
             for side, rows in zip((task.source, task.target), kept, strict=True)]  # fmt: skip
    smaller = replace(task, source=sides[0], target=sides[1])
    return replace(bundle, network=_cut(bundle, *kept), task=smaller, adapters={}, engines={})


def _always(vocabulary: Vocabulary) -> set[int]:
    """Special tokens, tags, and what is so short that words are spelled with it."""
    tokens = enumerate(vocabulary.tokens)
    return {number for number, token in tokens if number < len(SPECIAL) or len(token) <= SHORT or token[0] == "<"}


def _cut(bundle: Bundle, source: list[int], target: list[int]) -> Seq2Seq:
    """The network with these rows of all that has one a token."""
    old, sizes = bundle.model, (bundle.task.source.size, bundle.task.target.size)
    new = build(bundle.config.model, len(source), len(target))
    rows = {"source": (sizes[0], source), "target": (sizes[1], target)}
    weights = old.state_dict()
    with torch.no_grad():
        for name, tensor in new.state_dict().items():
            whole, kept = rows["source" if name.startswith("source.") else "target"]
            same = tensor.shape == weights[name].shape
            tensor.copy_(weights[name] if same or len(weights[name]) != whole else weights[name][kept])
    return new.eval()
