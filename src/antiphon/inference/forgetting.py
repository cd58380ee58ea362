"""What a model has gained on new data, and what it has forgotten of the old: two models, two test sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from antiphon.inference.evaluate import Evaluation, compare, finite
from antiphon.metrics.base import digits_of
from antiphon.metrics.significance import Comparison

RESTATED = ("perplexity", "forced_accuracy")
"""What a table leaves out, since the loss is in it."""


@dataclass(frozen=True)
class Side:
    """One test set: what it is called, and how the model before and the one after do on it."""

    name: str
    before: Evaluation
    after: Evaluation

    def comparisons(self) -> dict[str, Comparison]:
        """Paired tests of after against before, by metric."""
        return {each.name: each for each in compare(self.before, self.after)}


def rows(names: Sequence[str], new: Side, old: Side) -> Iterator[tuple[str, str, str]]:
    """A small table for each metric: both models and their difference, on the new test set and on the old one."""
    gains, losses = new.comparisons(), old.comparisons()
    for metric in (name for name in gains if name in losses and name not in RESTATED):
        yield metric, f"new: {Path(new.name).name}", f"old: {Path(old.name).name}"
        for name, which in zip(names, ("before", "after"), strict=True):
            both = (getattr(side, which).scores[metric] for side in (new, old))
            first, second = (str(score).removeprefix(f"{metric} ") for score in both)
            yield name, first, second
        yield "difference", _difference(gains[metric]), _difference(losses[metric])
        yield "", verdict(gains[metric], "gained", "lost"), verdict(losses[metric], "improved", "forgotten")
        yield "", "", ""


def _difference(found: Comparison) -> str:
    digits = digits_of(found.name)
    interval = "" if found.interval is None else " [{0:+.{2}f}, {1:+.{2}f}]".format(*found.interval, digits)
    return f"{found.difference:+.{digits}f}{interval}"


def verdict(found: Comparison, better: str, worse: str) -> str:
    """In a word or two; `better` and `worse` are what a significant difference is called."""
    p = "" if found.p_randomization is None else f", p = {found.p_randomization:.4f}"
    if not found.significant:
        return f"not significant{p}"
    return f"{better if (found.difference > 0) == found.higher_is_better else worse}{p}"


def to_json(about: Mapping[str, Any], new: Side, old: Side) -> str:
    """Scores, differences and intervals of both test sets as JSON, with `about` in front."""
    values = {which: {
        "data": side.name, "sha256": side.before.data, "sentences": len(side.before.answers),
        "before": {name: asdict(score) for name, score in side.before.scores.items()},
        "after": {name: asdict(score) for name, score in side.after.scores.items()},
        "difference": {name: asdict(each) for name, each in side.comparisons().items()},
    } for which, side in (("new", new), ("old", old))}  # fmt: skip
    return json.dumps(finite({**about, **values}), ensure_ascii=False, indent=2, allow_nan=False)
