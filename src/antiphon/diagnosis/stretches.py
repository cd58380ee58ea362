"""From which line to which the targets belong to other lines: by lengths and words, as the cheapest path of offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from antiphon.diagnosis.lexical import Association, Content

WINDOW, WIDE = 3, 200
"""Lines to either side that are looked at everywhere, and where a stretch goes with nothing near it."""

LEAST, SHORTEST = 200, 20
"""Lines of a corpus, and of a stretch, below which nothing is said."""

CHANGE, MARGIN = 20.0, 0.25
"""What a change of offset costs, and what a line does at any offset but 0, in standard deviations of a line's evidence:
noise alone, with no margin to win, comes to 2 changes once in exp(20) lines."""

PROVEN = 8.0
"""Standard errors by which a stretch is better explained at its offset."""


@dataclass(frozen=True)
class Stretch:
    """Lines `start` to `stop` (rows from 0, without the last), whose target is `offset` rows further; None: nowhere.

    `evidence` is how many standard errors that is better explained than by their own targets.
    """

    start: int
    stop: int
    offset: int | None
    evidence: float

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Evidence:
    """What speaks for each offset on each line `[N, offsets]`, relative to offset 0, in standard deviations."""

    offsets: tuple[int, ...]
    gains: np.ndarray
    own: np.ndarray
    """How well a line's own target explains it `[N]`, above what its neighbours' do, as a share of the mean."""
    told_apart: float
    """How often a line's own target beats a neighbour's."""


def gather(
    sources: Sequence[str], targets: Sequence[str], source: Content, target: Content, model: Association
) -> Evidence:
    """Words and lengths at each offset; what a dialogue says again of a line before is no evidence."""
    offsets = tuple(range(-WINDOW, WINDOW + 1))
    words = np.stack([model.scores(source, target, offset) for offset in offsets], 1)
    lengths = np.stack(list(_lengths(sources, targets, offsets)), 1)
    total = words / max(1e-6, float((words - words[:, WINDOW, None]).std())) + 0.5 * lengths
    gains = total - total[:, WINDOW, None]
    others = [place for place in range(len(offsets)) if place != WINDOW]
    scale = max(1e-6, float(gains[:, others].std()))
    above = -gains[:, others].mean(1) / scale
    said = _said_before(sources, targets, offsets)
    if said[:, WINDOW].mean() < 0.1:
        gains[said] = -scale
    return Evidence(offsets, gains / scale, above, float((gains[:, others] < 0).mean()))


def _lengths(sources: Sequence[str], targets: Sequence[str], offsets: Sequence[int]) -> Iterator[np.ndarray]:
    """How usual the length of each target is for that of the source, at each offset; at most 0."""
    left, right = (np.log1p(np.fromiter(map(len, texts), np.float64, len(texts))) for texts in (sources, targets))
    slope = np.cov(left, right)[0, 1] / max(1e-9, float(left.var())) if len(left) > 1 else 0.0
    wanted = right.mean() + slope * (left - left.mean())
    spread = max(0.1, float(1.4826 * np.median(np.abs(right - wanted))))
    for offset in offsets:
        moved = np.clip(np.arange(len(right)) + offset, 0, len(right) - 1)
        yield -np.minimum(4.0, ((right[moved] - wanted) / spread) ** 2 / 2).astype(np.float32)


def _said_before(sources: Sequence[str], targets: Sequence[str], offsets: Sequence[int]) -> np.ndarray:
    """Whether the target at each offset is in the source itself, as what was said before is in dialogues."""
    lines = len(sources)
    said = np.zeros((lines, len(offsets)), bool)
    for place, offset in enumerate(offsets):
        rows = range(max(0, -offset), min(lines, lines - offset))
        said[rows.start : rows.stop, place] = [targets[row + offset] in sources[row] for row in rows]
    return said


def find(
    sources: Sequence[str], targets: Sequence[str], source: Content, target: Content, model: Association
) -> list[Stretch]:
    """All stretches whose targets are those of other lines, in order; none where there is too little to go by."""
    if len(sources) < LEAST:
        return []
    evidence = gather(sources, targets, source, target, model)
    found = [stretch for stretch in _stretches(evidence) if len(stretch) >= SHORTEST and stretch.evidence >= PROVEN]
    return [_wider(stretch, source, target, model) if stretch.offset is None else stretch for stretch in found]


def _stretches(evidence: Evidence) -> Iterator[Stretch]:
    """The path of offsets, cut where it changes."""
    states: list[int | None] = [offset for offset in evidence.offsets if offset]
    gains = [evidence.gains[:, place] - MARGIN for place, offset in enumerate(evidence.offsets) if offset]
    usual = float(np.quantile(evidence.own, 0.75))
    if usual > 0.8:
        # Nothing explains it: its own target is no better than its neighbours', where that is usually so.
        states.append(None)
        gains.append(0.25 * usual - evidence.own)
    table = np.stack(gains, 1)
    if all(_best_sum(column) < 2 * CHANGE for column in table.T):
        return
    start = 0
    for state, group in groupby(_path(table)):
        stop = start + sum(1 for _ in group)
        if state:
            inside = table[start:stop, state - 1]
            sure = float(inside.mean() / max(0.5, float(inside.std())) * np.sqrt(stop - start))
            yield Stretch(start, stop, states[state - 1], sure)
        start = stop


def _best_sum(values: np.ndarray) -> float:
    """The largest sum of neighbouring values; a stretch that reaches the last line may have half the gain."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    inside = float((sums - np.minimum.accumulate(sums)).max())
    at_the_end = float(sums[-1] - sums.min())
    return max(inside, 2 * at_the_end)


def _path(gains: np.ndarray) -> list[int]:
    """The best state of each line (0: as it is, k: column k - 1), where each change costs (Viterbi 1967)."""
    states = range(gains.shape[1] + 1)
    best, came = [0.0] + [-CHANGE] * gains.shape[1], []
    for row in gains.tolist():
        top = max(states, key=best.__getitem__)
        jump = best[top] - CHANGE
        came.append([state if best[state] >= jump else top for state in states])
        best = [max(value, jump) + gain for value, gain in zip(best, (0.0, *row), strict=True)]
    state, path = max(states, key=best.__getitem__), []
    for choices in reversed(came):
        path.append(state)
        state = choices[state]
    return path[::-1]


def _wider(stretch: Stretch, source: Content, target: Content, model: Association) -> Stretch:
    """The same with the offset, however far, at which it goes with its targets, if there is one."""
    middle = (stretch.start + stretch.stop) // 2
    rows = slice(max(stretch.start, middle - 150), min(stretch.stop, middle + 150))
    offsets = [offset for offset in range(-WIDE, WIDE + 1) if abs(offset) > WINDOW]
    means = np.array([model.scores(source, target, offset, rows)[rows].mean() for offset in offsets])
    top = int(means.argmax())
    others = np.delete(means, top)
    if means[top] - others.mean() > PROVEN * max(1e-6, float(others.std())):
        return replace(stretch, offset=offsets[top])
    return stretch
