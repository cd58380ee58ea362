"""What searches for answers: PyTorch, or a faster engine that a model was exported to, behind one protocol."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from antiphon.core.config import Decoding
from antiphon.core.errors import require
from antiphon.inference import on_ctranslate2, on_onnxruntime
from antiphon.inference.bundle import Bundle
from antiphon.inference.hypothesis import Constraint, Hypothesis, pool
from antiphon.inference.task import Source

if TYPE_CHECKING:
    from antiphon.inference.beam import Look
    from antiphon.inference.on_pytorch import PyTorch
    from antiphon.inference.search import Tell


KNOWN = (on_ctranslate2, on_onnxruntime)
"""The engines that a model may be exported to, the fastest first."""
LOOK = 8192
"""Source tokens times hypotheses that such an engine answers between two looks at who still waits."""


@dataclass(frozen=True)
class Asked:
    """One input for an engine: what is read, what the answer must hold, the most tokens before its end mark, and its
    number, on which sampling depends."""

    source: Source
    constraint: Constraint
    limit: int
    number: int


class Engine(Protocol):
    """Answers by one network.

    `name` is what people are told. One that is `whole` wants all inputs of a window at once, for it makes its own
    batches and uses all cores; others get batches sorted by length.
    """

    name: str
    whole: bool

    def lacks(self, settings: Decoding, asked: Asked) -> str:
        """What of this it cannot do exactly as PyTorch does, by the name of the setting; "" for nothing."""
        ...

    def search(
        self, asked: Sequence[Asked], settings: Decoding, *, batch_size: int, details: bool
    ) -> list[list[Hypothesis]]:
        """The `n_best` best hypotheses of each input, best first; without `details` their log probabilities and weights
        may be missing, and `total` is there."""
        ...


def open_engine(bundle: Bundle, workers: int) -> Engine | None:
    """The fastest engine of an exported model that is installed, with so many workers; None where PyTorch is to answer.

    Raises `AntiphonError` with the command that installs one where there is nothing else to answer with.
    """
    ready = [module for module in KNOWN if module.FOLDER in bundle.engines]
    for module in ready:
        if module.present():
            return module.open_files(bundle.engines[module.FOLDER], bundle, workers)
    if ready and not bundle.complete:
        raise require(ready[0].EXTRA, ready[0].PACKAGE)
    return None


def answering(folders: Collection[str]) -> str:
    """The name of what answers for a bundle with these exports, as far as is known before it is opened."""
    return next((module.NAME for module in KNOWN if module.FOLDER in folders and module.present()), "PyTorch")


def watched(
    engine: Engine, pytorch: Callable[[], PyTorch], asked: Sequence[Asked], settings: Decoding, *, batch_size: int,
    details: bool, look: Look, tell: Tell | None,
) -> list[list[Hypothesis]]:  # fmt: skip
    """What the engine finds while somebody looks on, and PyTorch for those that it cannot do: that one is looked at
    after each step, another engine after a few inputs."""
    parts: tuple[list[Asked], list[Asked]] = [], []
    for each in asked:
        parts[engine.name == "PyTorch" or bool(engine.lacks(settings, each))].append(each)
    found = _in_pieces(engine, parts[0], settings, batch_size, details, look, tell)
    if parts[1]:
        searched = pytorch().search(
            parts[1], settings, batch_size=batch_size, details=True, look=look, tell=tell
        )  # fmt: skip
        found |= zip((each.number for each in parts[1]), searched, strict=True)
    return [found[each.number] for each in asked]


def _in_pieces(
    engine: Engine, asked: Sequence[Asked], settings: Decoding, batch_size: int, details: bool, look: Look,
    tell: Tell | None,
) -> dict[int, list[Hypothesis]]:  # fmt: skip
    """Answers by the number of the input. Between pieces `look` may give up inputs that nobody waits for any more: they
    get an empty answer without an end; and `tell` hears of those that are done before the last."""
    found, left, width = dict[int, list[Hypothesis]](), list(asked), pool(settings)
    while left:
        gone = set(look([each.number for each in left], lambda number: None))
        found |= {number: [Hypothesis([], 0.0, [], on_ctranslate2.NOWHERE, False)] for number in gone}
        left = [each for each in left if each.number not in gone]
        costs = itertools.accumulate(len(each.source.ids) * width for each in left)
        count = max(1, sum(cost <= LOOK for cost in costs))
        part, left = left[:count], left[count:]
        answers = engine.search(part, settings, batch_size=batch_size, details=details) if part else []
        for each, mine in zip(part, answers, strict=True):
            found[each.number] = mine
            if tell is not None and left:  # what is done with the last comes with it
                tell(each.number, mine)
    return found


def divided(
    engine: Engine, spare: Callable[[], Engine], asked: Sequence[Asked], settings: Decoding, *, batch_size: int,
    details: bool,
) -> list[list[Hypothesis]]:  # fmt: skip
    """What the engine finds for those it can do, and the spare one, in batches, for the others."""
    able = [not engine.lacks(settings, each) for each in asked]
    if all(able):
        return engine.search(asked, settings, batch_size=batch_size, details=details)
    mine = [each for each, can in zip(asked, able, strict=True) if can]
    rest = [each for each, can in zip(asked, able, strict=True) if not can]
    found = iter(engine.search(mine, settings, batch_size=batch_size, details=details) if mine else [])
    parts = [rest[start : start + batch_size] for start in range(0, len(rest), batch_size)]
    others = (each for part in parts for each in spare().search(part, settings, batch_size=batch_size, details=details))
    return [next(found) if can else next(others) for can in able]
