"""What an answer makes of its facts: the share of their entities that it says, and scores by what training had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from antiphon.data.facts import fingerprints
from antiphon.data.knowledge import Fact, entities, mentions
from antiphon.inference.breakdown import Bucket
from antiphon.metrics.base import Metric, Stats


@dataclass(frozen=True)
class Coverage:
    """The share of entities that the answer says, in percent, from statistics `[said, all]`.

    `entity_coverage` is over all subjects and objects of a pair's facts, `entity_recall` over those of them that one of
    the references says: the ones to choose where there are more facts than an answer needs.
    """

    name: str
    higher_is_better: bool = True
    signature: str = "unit:entity of the facts|case:no|accents:no|version:1"

    def score(self, stats: Stats) -> float:
        """The share of summed statistics; all of nothing where there is no entity."""
        said, total = stats.tolist()
        return 100.0 * said / total if total else 100.0


COVERAGES = tuple(Coverage(name) for name in ("entity_coverage", "entity_recall"))


def coverage(
    facts: Sequence[Sequence[Fact]], answers: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, Stats]:
    """A table of statistics for each of `COVERAGES`."""
    tables = {each.name: np.zeros((len(answers), 2)) for each in COVERAGES}
    for row, (mine, answer, meant) in enumerate(zip(facts, answers, references, strict=True)):
        for entity in entities(mine):
            said = mentions(answer, entity)
            tables["entity_coverage"][row] += said, 1
            if any(mentions(reference, entity) for reference in meant):
                tables["entity_recall"][row] += said, 1
    return tables


def by_entities(
    metrics: Sequence[Metric | Coverage], tables: Mapping[str, Stats], facts: Sequence[Sequence[Fact]],
    known: frozenset[int],
) -> list[Bucket]:  # fmt: skip
    """Scores of pairs all, some or none of whose entities the facts of training had."""
    shares = []
    for mine in facts:
        found = fingerprints(entities(mine))
        shares.append(len(found & known) / len(found) if found else -1.0)
    values = np.array(shares)
    parts = (("all entities seen", values == 1), ("some unseen", (values > 0) & (values < 1)),
             ("none seen", values == 0), ("no facts", values < 0))  # fmt: skip
    return [
        Bucket(label, int(rows.sum()), {each.name: each.score(tables[each.name][rows].sum(axis=0)) for each in metrics})
        for label, rows in parts if rows.any()
    ]  # fmt: skip
