"""Counts of everything unusual in the data, so that nothing is dropped or changed in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

PLACES = 3
"""How many places a report remembers for each reason."""


@dataclass
class Report:
    """What happened to the data, by reason, with the first few places of each."""

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, place: object = "", example: str = "", *, times: int = 1) -> None:
        """Counts `reason`; the first places, each with a short example, are kept."""
        self.counts[reason] = self.counts.get(reason, 0) + times
        kept = self.places.setdefault(reason, [])
        if len(kept) < PLACES and (place or example):
            shown = f"{place} {_short(example)!r}" if example else str(place)
            kept.append(shown.strip())

    def merge(self, other: Report) -> None:
        """Adds the counts and places of another report."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            kept = self.places.setdefault(reason, [])
            kept.extend(other.places.get(reason, [])[: PLACES - len(kept)])

    def join(self, other: Report) -> None:
        """Adds what another report of the same data has that this one does not know of."""
        for reason, count in other.counts.items():
            if reason not in self.counts:
                self.counts[reason], self.places[reason] = count, other.places.get(reason, [])

    def lines(self) -> list[str]:
        """One line a reason, such as `12 x target is empty (train.tsv:3, train.tsv:8, train.tsv:9, ...)`."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        for reason, count in self.counts.items():
            places = self.places.get(reason, [])
            more = ", ..." if count > len(places) else ""
            yield f"{count:,} x {reason}" + (f" ({', '.join(places)}{more})" if places else "")


def _short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[:limit] + "..."
