"""The search of `antiphon.inference.search` without PyTorch: the same decisions on the few candidates that matter.

Axes: B sentences, A those still searched, K slots of a beam, R rows a sentence (1 at the first step, then K), N all
rows, L those that live, C candidates, S source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from antiphon.core.config import Decoding
from antiphon.core.marks import BOS, EOS, PAD
from antiphon.inference.endings import INF, Step, collected
from antiphon.inference.hypothesis import BEAM, MARGIN, Constraint, Hypothesis, NoNumbers


class Walk(Protocol):
    """Some sources on the way through a decoder: the state of all rows, out of sight."""

    mask_BS: np.ndarray
    """True at the real positions of the memory."""
    known_B: np.ndarray
    """The ids that a sentence may say are below this: those of the vocabulary and of words that it copies."""
    most: int
    """The most candidates that can be asked for; more is asked for as -1: all there are."""

    def step(
        self, tokens_N: np.ndarray, parents_N: np.ndarray, living_L: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log probabilities and ids `[L, C]` of the likeliest tokens after these, best first (all, in order of their
        ids, for a count of -1), and where rows looked, `[N, S]`. `parents` are the rows of the last step that rows go
        on from."""
        ...

    def keep(self, sentences: np.ndarray) -> None:
        """Go on with these sentences alone."""
        ...


@dataclass(frozen=True)
class Task:
    """What is to be searched besides the sources, a row a sentence."""

    settings: Decoding
    limits: Sequence[int]
    constraints: Sequence[Constraint]
    numbers: Sequence[int]


@dataclass(frozen=True)
class Choice:
    """The kept candidates of a step, as in `antiphon.inference.selection`."""

    parents_AK: np.ndarray
    tokens_AK: np.ndarray
    log_probs_AK: np.ndarray
    totals_AK: np.ndarray
    gaps_A: np.ndarray


_BY_SENTENCE = ["active_A", "limits_A", "room_A", "tokens_AR", "totals_AR", "history_ART", "looked_ARS", "mask_AS"]
_BY_SENTENCE += ["prefixes_AT", "best_AN", "shortest_A", "known_A"]


class Search:
    """All beams of a batch; `run` gives the answers, and for each sentence the smallest gap of a decision."""

    def __init__(self, walk: Walk, task: Task) -> None:
        settings, rows = task.settings, len(task.limits)
        self.walk, self.settings, self.constraints = walk, settings, task.constraints
        self.slots = settings.beam or BEAM
        self.active_A, self.limits_A = np.arange(rows), np.array(task.limits)
        self.room_A = np.full(rows, self.slots)
        self.tokens_AR, self.totals_AR = np.full((rows, 1), BOS), np.zeros((rows, 1))
        self.history_ART = np.zeros((rows, 1, 0), dtype=np.int64)
        self.mask_AS, self.known_A = walk.mask_BS, walk.known_B
        self.read_BS = walk.mask_BS
        self.looked_ARS = np.zeros((rows, 1, self.mask_AS.shape[1]))
        longest = max(len(item.prefix) for item in task.constraints)
        self.prefixes_AT = np.full((rows, longest), PAD)
        for row, item in enumerate(task.constraints):
            self.prefixes_AT[row, : len(item.prefix)] = item.prefix
        self.best_AN = np.full((rows, settings.n_best), -INF)
        self.shortest_A, self.gaps = np.full(rows, INF), np.full(rows, INF)
        self.parents_N = np.arange(rows)
        self.ends: list[tuple[np.ndarray, ...]] = []
        self.steps: list[Step] = []
        self.banned = max(len(item.banned) for item in task.constraints)
        self.remembers = bool(settings.no_repeat or self.banned)

    def run(self) -> tuple[list[list[Hypothesis]], np.ndarray]:
        """Search every sentence to its end."""
        while len(self.active_A):
            self._step(len(self.steps))
        columns = tuple(np.concatenate(column) for column in zip(*self.ends, strict=True))
        return collected(columns, self.steps, self.read_BS, self.gaps, self.settings, self.slots), self.gaps

    def _step(self, step: int) -> None:
        values_ARC, ids_ARC, weights_ARS = self._predict(step)
        self._rules(values_ARC, ids_ARC, step)
        if (self.limits_A == step).any():
            self._last_step(values_ARC, ids_ARC, step)
        choice = best(self.totals_AR, values_ARC, ids_ARC, self.room_A, self.slots)
        if self.remembers or (self.limits_A == step).any():
            self._give_up(values_ARC, step)
        self._note(choice.gaps_A, self.active_A, step)
        kept = self.active_A, choice.parents_AK, choice.tokens_AK, choice.log_probs_AK, weights_ARS
        self.steps.append(Step(*kept))
        self._go_on(choice, self._close(choice, weights_ARS, step))

    def _predict(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Candidates of every row, enough to choose from whatever the rules forbid; -inf where a row is not alive."""
        shape = sentences, rows = self.tokens_AR.shape
        living = (self.totals_AR.ravel() > -INF).nonzero()[0]
        count = self._count(step)
        values, ids, weights = self.walk.step(self.tokens_AR.ravel(), self.parents_N, living, count)
        if len(living) < sentences * rows:
            some = values, ids
            values = np.full((sentences * rows, values.shape[1]), -INF, dtype=values.dtype)
            ids = np.full(values.shape, EOS)
            values[living], ids[living] = some
        return values.reshape(*shape, -1), ids.reshape(*shape, -1), weights.reshape(*shape, -1)

    def _count(self, step: int) -> int:
        """Candidates a row that are asked for: one more than are kept, and as many as may be forbidden."""
        extra = int(self.known_A.max() - self.known_A.min())
        repeats = step if self.settings.no_repeat else 0
        count = self.slots + 1 + len((PAD, BOS, EOS)) + extra + repeats + self.banned
        prefixed = step < self.prefixes_AT.shape[1] and bool((self.prefixes_AT[:, step] != PAD).any())
        return -1 if prefixed or count > self.walk.most else count

    def _rules(self, values_ARC: np.ndarray, ids_ARC: np.ndarray, step: int) -> None:
        """In place: what may not come next gets -inf; nothing is renormalized, so scores stay the model's."""
        forced_A = self.prefixes_AT[:, step] if step < self.prefixes_AT.shape[1] else np.full(len(values_ARC), PAD)
        off_ARC = (ids_ARC == PAD) | (ids_ARC == BOS) | (ids_ARC >= self.known_A[:, None, None])
        if step < (self.settings.min_length or 0):
            off_ARC |= ids_ARC == EOS
        if self.settings.no_repeat:
            off_ARC |= self._repeats(ids_ARC, self.settings.no_repeat)
        if self.banned:
            off_ARC |= self._phrases(ids_ARC)
        prefixed_A = forced_A != PAD
        off_ARC[prefixed_A] = ids_ARC[prefixed_A] != forced_A[prefixed_A, None, None]
        values_ARC[off_ARC] = -INF

    def _repeats(self, ids_ARC: np.ndarray, size: int) -> np.ndarray:
        """Tokens that would complete an n-gram of this size a second time."""
        length = self.history_ART.shape[2]
        off_ARC = np.zeros(ids_ARC.shape, dtype=bool)
        tail = self.history_ART[:, :, length - size + 1 :]
        for start in range(length - size + 1):
            gram = self.history_ART[:, :, start : start + size]
            again_AR = (gram[..., :-1] == tail).all(2)
            off_ARC |= again_AR[..., None] & (ids_ARC == gram[..., -1:])
        return off_ARC

    def _phrases(self, ids_ARC: np.ndarray) -> np.ndarray:
        """Tokens that would complete a banned phrase."""
        length = self.history_ART.shape[2]
        off_ARC = np.zeros(ids_ARC.shape, dtype=bool)
        for row, sentence in enumerate(self.active_A.tolist()):
            for *begin, last in self.constraints[sentence].banned:
                if len(begin) <= length:
                    same_R = (self.history_ART[row, :, length - len(begin) :] == begin).all(1)
                    off_ARC[row] |= same_R[:, None] & (ids_ARC[row] == last)
        return off_ARC

    def _last_step(self, values_ARC: np.ndarray, ids_ARC: np.ndarray, step: int) -> None:
        """In place: at the length limit a hypothesis may only end, and only if that is likeliest."""
        last_A = self.limits_A == step
        part, ids = values_ARC[last_A], ids_ARC[last_A]
        end = np.where(ids == EOS, part, -INF).max(2)
        other = np.where(ids == EOS, -INF, part).max(2)
        values_ARC[last_A] = np.where((ids == EOS) & (end >= other)[..., None], part, -INF)
        real = (self.totals_AR[last_A] > -INF) & (end > -INF) & (other > -INF)
        with np.errstate(invalid="ignore"):
            gaps = np.where(real, np.abs(end.astype(np.float64) - other), INF).min(1)
        self._note(gaps, self.active_A[last_A], step)

    def _give_up(self, values_ARC: np.ndarray, step: int) -> None:
        """Hypotheses that can neither go on nor end are closed as unfinished, without this step."""
        stuck_AR = (self.totals_AR > -INF) & (values_ARC.max(2) == -INF)
        if stuck_AR.any():
            self._end(stuck_AR, step - 1, self._scores(self.totals_AR, max(step, 1), self.looked_ARS), finished=False)

    def _end(self, mask_AK: np.ndarray, step: int, scores_AK: np.ndarray, finished: bool) -> None:
        rows, slots = mask_AK.nonzero()
        column = np.full(len(rows), step), slots, scores_AK[rows, slots], np.full(len(rows), int(finished))
        self.ends.append((self.active_A[rows], *column))

    def _note(self, gaps: np.ndarray, sentences: np.ndarray, step: int) -> None:
        self.gaps[sentences] = np.minimum(self.gaps[sentences], gaps / (step + 1) ** 0.5)

    def _scores(self, totals: np.ndarray, length: int, looked: np.ndarray) -> np.ndarray:
        scores = totals / length**self.settings.penalty
        if self.settings.coverage_penalty:
            real = np.where(self.mask_AS[:, None], looked, 1).clip(1e-9, 1)
            scores = scores + self.settings.coverage_penalty * np.log(real).sum(2)
        return scores

    def _close(self, choice: Choice, weights_ARS: np.ndarray, step: int) -> np.ndarray:
        """Books what has ended; the sentences that are done."""
        if self.settings.coverage_penalty:
            index = np.arange(len(choice.parents_AK))[:, None], choice.parents_AK
            self.looked_ARS = self.looked_ARS[index] + weights_ARS[index]
        ended_AK = (choice.tokens_AK == EOS) & (choice.totals_AK > -INF)
        self.totals_AR = np.where(ended_AK, -INF, choice.totals_AK)
        if ended_AK.any():
            scores = self._scores(choice.totals_AK, step + 1, self.looked_ARS)
            self._end(ended_AK, step, scores, finished=True)
            self.shortest_A[ended_AK.any(1)] = np.minimum(self.shortest_A[ended_AK.any(1)], step + 1.0)
            self.room_A = self.room_A - ended_AK.sum(1)
            both = np.concatenate([self.best_AN, np.where(ended_AK, scores, -INF)], 1)
            self.best_AN = -np.sort(-both, axis=1)[:, : self.best_AN.shape[1]]
        done_A: np.ndarray = (self.totals_AR == -INF).all(1) | self._settled(step)
        return done_A

    def _settled(self, step: int) -> np.ndarray:
        """As `antiphon.inference.beam.Beams` has it: where no live hypothesis would be returned any more."""
        settings, worst_A = self.settings, self.best_AN[:, -1]
        if not (worst_A > -INF).any():
            return np.zeros(len(worst_A), dtype=bool)
        if settings.thorough:
            reach_A = self.totals_AR.max(1) / (self.limits_A + 1.0) ** settings.penalty
            done_A: np.ndarray = reach_A < worst_A - MARGIN * (step + 1) ** 0.5
            return done_A
        reach_A = self.totals_AR.max(1) / (step + 2) ** settings.penalty
        open_A = (reach_A > -INF) & (worst_A > -INF)
        nats_A = np.abs(np.where(open_A, reach_A, INF) - worst_A) * self.shortest_A**settings.penalty
        error_A = 1 + settings.coverage_penalty * self.mask_AS.sum(1)
        self._note(np.where(open_A, nats_A / error_A, INF), self.active_A, step)
        done_A = reach_A < worst_A
        return done_A

    def _go_on(self, choice: Choice, done_A: np.ndarray) -> None:
        """Moves every row to its new place. Done sentences leave the batch a quarter of it at a time."""
        if self.remembers:
            index = np.arange(len(done_A))[:, None], choice.parents_AK
            self.history_ART = np.concatenate([self.history_ART[index], choice.tokens_AK[..., None]], 2)
        sentences, rows = self.tokens_AR.shape
        self.tokens_AR = choice.tokens_AK
        self.totals_AR[done_A], self.room_A = -INF, np.where(done_A, 0, self.room_A)
        index_AK = np.arange(sentences)[:, None] * rows + choice.parents_AK
        left = sentences - int(done_A.sum())
        if left <= sentences * 3 // 4:
            keep = (~done_A).nonzero()[0]
            index_AK = index_AK[keep]
            for name in _BY_SENTENCE:
                setattr(self, name, getattr(self, name)[keep])
            if left:
                self.walk.keep(keep)
        self.parents_N = index_AK.ravel()


def best(
    totals_AR: np.ndarray, values_ARC: np.ndarray, ids_ARC: np.ndarray, room_A: np.ndarray, slots: int
) -> Choice:  # fmt: skip
    """The best `room` continuations of all rows together, by `totals + values`."""
    sentences, _, size = values_ARC.shape
    ranks_AX = (totals_AR[:, :, None] + values_ARC).reshape(sentences, -1)
    if np.isnan(ranks_AX).any():
        raise NoNumbers()
    order_AX = np.argsort(-ranks_AX, axis=1, kind="stable")[:, : slots + 1]
    ranks_AX = np.take_along_axis(ranks_AX, order_AX, 1)
    if (missing := slots + 1 - order_AX.shape[1]) > 0:
        order_AX = np.pad(order_AX, ((0, 0), (0, missing)))
        ranks_AX = np.pad(ranks_AX, ((0, 0), (0, missing)), constant_values=-INF)
    each_A, kept_AK, ranks_AK = np.arange(sentences), order_AX[:, :slots], ranks_AX[:, :slots]
    log_probs_AK = np.take_along_axis(values_ARC.reshape(sentences, -1), kept_AK, 1)
    tokens_AK = np.take_along_axis(ids_ARC.reshape(sentences, -1), kept_AK, 1)
    empty_AK = (np.arange(slots) >= room_A[:, None]) | (ranks_AK == -INF)
    last_A, dropped_A = ranks_AX[each_A, np.maximum(room_A - 1, 0)], ranks_AX[each_A, room_A]
    cut_A = (room_A > 0) & (last_A > -INF)
    gaps_A = np.where(cut_A, np.where(cut_A, last_A, 0) - dropped_A, INF)
    return Choice(kept_AK // size, tokens_AK, log_probs_AK, np.where(empty_AK, -INF, ranks_AK), gaps_A)
