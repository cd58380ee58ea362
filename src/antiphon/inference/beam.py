"""The beams of a batch and their one step: predict, apply the rules, choose, close what ended, go on.

Axes: B sentences, A those still searched, K slots of a beam, G groups of slots, R rows a sentence (1 at the first
step, then K), V vocabulary, S source.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from antiphon.core.batch import BOS, EOS, PAD, Padded, State, Steps, of_sentence, pad
from antiphon.core.config import Decoding
from antiphon.inference.constraints import Required, forbid_phrases, forbid_repeats, force_prefix
from antiphon.inference.endings import Step
from antiphon.inference.hypothesis import BEAM, MARGIN, Constraint
from antiphon.inference.scoring import Model, Referee, average, coverage
from antiphon.inference.selection import INF, Choice, grouped, plain, quick, sampled, uniform

Look = Callable[[Collection[int], Callable[[int], list[int] | None]], Collection[int]]
"""Looks on after each step: gets the numbers of the sentences that go on, and what tells the tokens of the best answer
to one of them so far (None where an ended one is better); gives the numbers of those among them to be given up."""


@dataclass
class Ends:
    """Hypotheses that have ended, as flat columns: sentence, last step, slot, score, finished."""

    parts: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add(self, mask_AK: Tensor, active_A: Tensor, step: int, scores_AK: Tensor, finished: bool) -> None:
        """Appends the hypotheses in `mask`, which ended with `step`."""
        rows, slots = mask_AK.nonzero(as_tuple=True)
        steps, closed = torch.full_like(rows, step), torch.full_like(rows, int(finished))
        self.parts.append((active_A[rows], steps, slots, scores_AK[rows, slots], closed))

    def columns(self) -> tuple[np.ndarray, ...]:
        """The columns."""
        return tuple(torch.cat(column).cpu().numpy() for column in zip(*self.parts, strict=True))


_BY_SENTENCE = ["active_A", "limits_A", "room_AG", "tokens_AR", "totals_AR", "history_ART", "looked_ARS", "mask_AS"]
_BY_SENTENCE += ["prefixes_AT", "best_AN", "shortest_A"]


class Beams:
    """All beams of a batch. `run` searches to the end; `ends`, `steps` and `gaps` then hold the outcome.

    `read_BS` is true at the real positions of the memory; `columns` are what a step's record has of each sentence.
    """

    def __init__(
        self, models: Sequence[Model], source: Padded, settings: Decoding, limits: list[int],
        context: Mapping[str, Padded], constraints: list[Constraint], numbers: list[int], look: Look | None = None,
    ) -> None:  # fmt: skip
        device, rows, self.look = source.values.device, len(limits), look
        self.models, self.settings, self.constraints, self.numbers = models, settings, constraints, numbers
        self.slots = settings.n_best if settings.sample else settings.beam or BEAM
        self.columns = self.slots
        self.memories = [model.encode(source, context) for model in models]
        self.states = [model.start(memory) for model, memory in zip(models, self.memories, strict=True)]
        self.active_A = torch.arange(rows, device=device)
        self.limits_A = torch.tensor(limits, device=device)
        self.room_AG = torch.full((rows, settings.groups), self.slots // settings.groups, device=device)
        self.tokens_AR = torch.full((rows, 1), BOS, device=device)
        self.totals_AR = torch.zeros(rows, 1, dtype=torch.float64, device=device)
        self.history_ART = torch.zeros(rows, 1, 0, dtype=torch.long, device=device)
        self.mask_AS, self.copies_AS = self.memories[0].mask_BS, self.memories[0].copy_BS
        self.looked_ARS = torch.zeros(rows, 1, self.mask_AS.shape[1], device=device)
        self.read_BS = self.mask_AS.cpu().numpy()
        self.prefixes_AT = pad([list(item.prefix) or [PAD] for item in constraints]).values.to(device)
        self.required = Required.begin(constraints, device)
        self.best_AN = torch.full((rows, settings.n_best), -INF, dtype=torch.float64, device=device)
        self.shortest_A = torch.full((rows,), INF, dtype=torch.float64, device=device)
        self.gaps = torch.full((rows,), INF, dtype=torch.float64, device=device)
        self.heard_B = (settings.ctc or 0.0) ** 2 * self.mask_AS.sum(1).double()
        self.ends, self.steps = Ends(), list[Step]()
        self.referee = Referee(models, source, context)
        self.remembers = bool(settings.no_repeat) or any(item.banned for item in constraints)
        ruled = self.remembers or any(item.prefix or item.required for item in constraints)
        self.together = not (settings.sample or settings.groups > 1 or any(item.required for item in constraints))
        self.plain = self.together and not ruled and self.copies_AS is None

    def run(self) -> Iterator[list[int]]:
        """Search every sentence to its end; after each step, the places of those that it was the last of."""
        over = set[int]()
        while len(self.active_A):
            active_A = self.active_A
            done = set(active_A[self._step(len(self.steps))].tolist())
            yield sorted(done - over)
            over |= done

    def _step(self, step: int) -> Tensor:
        steps = self._decode()
        looks = [each.weights_BTS[:, 0].float().view(*self.tokens_AR.shape, -1) for each in steps]
        weights = torch.stack(looks).mean(0) if len(looks) > 1 else looks[0]
        quick = self.plain and not (self.limits_A == step).any()
        choice = self._choose_quickly(steps, step) if quick else self._choose(steps, step)
        self._note(choice.gaps_A, self.active_A, step)
        self._record(choice, weights)
        done = self._close(choice, weights, step)
        if self.look is not None:
            done = done | self._given_up(self.look, done, step)
        self._go_on(choice, done)
        return done

    def _decode(self) -> list[Steps]:
        """One step of every model."""
        result = []
        for number, (model, memory) in enumerate(zip(self.models, self.memories, strict=True)):
            steps, self.states[number] = model.decode(self.tokens_AR.reshape(-1, 1), memory, self.states[number])
            result.append(steps)
        return result

    def _log_probs(self, steps: list[Steps]) -> Tensor:
        """Log probabilities `[N, V]` of the next token, by all models."""
        each = zip(self.models, self.memories, steps, strict=True)
        return average([model.log_probs(part, memory)[:, 0] for model, memory, part in each])

    def _choose_quickly(self, steps: list[Steps], step: int) -> Choice:
        """A plain beam without rules need not look at all rows, nor at all of them at once."""

        def log_probs(rows_N: Tensor) -> Tensor:
            log_probs_NV = self._log_probs([each.rows(rows_N) for each in steps])
            self._forbid_marks(log_probs_NV, step)
            return log_probs_NV

        choice = quick(self.totals_AR, log_probs, self.room_AG[:, 0], self.slots)
        rows = torch.arange(self.tokens_AR.shape[1], device=self.tokens_AR.device)
        return self._settle(choice, lambda place: log_probs(place * len(rows) + rows), step)

    def _choose(self, steps: list[Steps], step: int) -> Choice:
        log_probs = self._log_probs(steps).view(*self.tokens_AR.shape, -1)
        log_probs = self._rules(log_probs, step)
        self._last_step(log_probs, step)
        choice = self._select(log_probs, step)
        self._give_up(log_probs, step)
        return self._settle(choice, log_probs.__getitem__, step) if self.together else choice

    def _settle(self, choice: Choice, log_probs: Callable[[int], Tensor], step: int) -> Choice:
        """The choice with near ties between all continuations of a sentence decided by the referee.

        `log_probs` gives those of the next token, `[R, V]`, of the sentence in that place.
        """
        margin_A, room_A = MARGIN * self._error(self.active_A, step), self.room_AG[:, 0]
        for place in (choice.gaps_A < margin_A).nonzero().flatten().tolist():
            log_probs_RV, room = log_probs(place), int(room_A[place])
            size = log_probs_RV.shape[1]
            totals_RV = self.totals_AR[place, :, None] + log_probs_RV.double()
            past = [self._past(place, row) for row in range(len(totals_RV))]
            margin = float(margin_A[place])
            best = self.referee.best(int(self.active_A[place]), past, totals_RV, room, margin)
            choice.parents_AK[place, :room], choice.tokens_AK[place, :room] = best // size, best % size
            choice.log_probs_AK[place, :room] = log_probs_RV.flatten()[best]
            choice.totals_AK[place, :room], choice.gaps_A[place] = totals_RV.flatten()[best], INF
        return choice

    def _past(self, place: int, row: int) -> list[int]:
        """The tokens of a hypothesis until now."""
        sentence, tokens = int(self.active_A[place]), []
        for record in reversed(self.steps):
            [at] = np.flatnonzero(record.active_A == sentence)
            tokens.append(int(record.tokens_AK[at, row]))
            row = record.parents_AK[at, row]
        return tokens[::-1]

    def _forbid_marks(self, log_probs: Tensor, step: int) -> None:
        log_probs[..., PAD] = log_probs[..., BOS] = -INF
        if step < (self.settings.min_length or 0):
            log_probs[..., EOS] = -INF

    def _rules(self, log_probs_ARV: Tensor, step: int) -> Tensor:
        """What may not come next gets -inf; nothing is renormalized, so scores stay the model's."""
        raw = log_probs_ARV.clone() if self.prefixes_AT.any() else log_probs_ARV
        self._forbid_marks(log_probs_ARV, step)
        size = self.models[0].target_size
        if self.copies_AS is not None and log_probs_ARV.shape[2] > size:
            extra_A = self.copies_AS.amax(1)
            absent_AV = torch.arange(log_probs_ARV.shape[2], device=extra_A.device) > extra_A[:, None].clamp_min(
                size - 1
            )
            log_probs_ARV.masked_fill_(absent_AV[:, None], -INF)
        if self.settings.no_repeat:
            forbid_repeats(log_probs_ARV, self.history_ART, self.settings.no_repeat)
        if self.remembers:
            forbid_phrases(log_probs_ARV, self.history_ART, self.active_A, self.constraints)
        if self.required is not None:
            self.required.admit(log_probs_ARV, self.limits_A - step)
        return force_prefix(raw, log_probs_ARV, step, self.prefixes_AT) if raw is not log_probs_ARV else log_probs_ARV

    def _last_step(self, log_probs_ARV: Tensor, step: int) -> None:
        """At the length limit a hypothesis may only end, and only if the end mark is its likeliest token."""
        last_A = self.limits_A == step
        if not last_A.any():
            return
        part = log_probs_ARV[last_A]
        end = part[..., EOS].clone()
        part[..., EOS] = -INF
        other = part.amax(2)
        part.fill_(-INF)
        part[..., EOS] = end.masked_fill(end < other, -INF)
        log_probs_ARV[last_A] = part
        real = (self.totals_AR[last_A] > -INF) & ((end > -INF) | (other > -INF))
        gaps = (end.double() - other.double()).abs().masked_fill(~real, INF).amin(1)
        self._note(gaps, self.active_A[last_A], step)

    def _note(self, gaps: Tensor, sentences: Tensor, step: int) -> None:
        gaps = gaps.double() / self._error(sentences, step)
        self.gaps[sentences] = torch.minimum(self.gaps[sentences], gaps)

    def _error(self, sentences: Tensor, step: int) -> Tensor:
        """What the error of a total grows by: the root of its tokens, and of the states that a CTC head hears it in."""
        return (step + 1 + self.heard_B[sentences]) ** 0.5

    def _select(self, log_probs_ARV: Tensor, step: int) -> Choice:
        settings, size = self.settings, log_probs_ARV.shape[2]
        if settings.sample:
            sentences = [self.numbers[sentence] for sentence in self.active_A.tolist()]
            noise = np.stack([uniform(settings.seed, number, step, size, self.slots) for number in sentences])
            return sampled(
                self.totals_AR, log_probs_ARV, self.slots, torch.from_numpy(noise).to(log_probs_ARV.device),
                temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p,
            )  # fmt: skip
        if self.required is not None:
            return self.required.choose(self.totals_AR, log_probs_ARV, self.room_AG[:, 0], self.slots)
        if settings.groups > 1:
            return grouped(self.totals_AR, log_probs_ARV, self.room_AG, self.slots, diversity=settings.diversity)
        return plain(self.totals_AR, log_probs_ARV, self.room_AG[:, 0], self.slots)

    def _give_up(self, log_probs_ARV: Tensor, step: int) -> None:
        """Hypotheses that can neither go on nor end are closed as unfinished, without this step."""
        can_be_stuck = self.remembers or self.required is not None or bool((self.limits_A == step).any())
        if not can_be_stuck:
            return
        stuck_AR = (self.totals_AR > -INF) & (log_probs_ARV.amax(2) == -INF)
        scores = self._scores(self.totals_AR, max(step, 1), self.looked_ARS)
        self.ends.add(stuck_AR, self.active_A, step - 1, scores, finished=False)

    def _scores(self, totals: Tensor, length: int, looked: Tensor) -> Tensor:
        scores = totals / length**self.settings.penalty
        if self.settings.coverage_penalty:
            real = looked.masked_fill(~self.mask_AS[:, None], 1)
            scores = scores + coverage(real, self.settings.coverage_penalty)
        return scores

    def _record(self, choice: Choice, weights_ARS: Tensor) -> None:
        kept = self.active_A, choice.parents_AK, choice.tokens_AK, choice.log_probs_AK, weights_ARS
        self.steps.append(Step(*(value.cpu().numpy() for value in kept)))

    def _close(self, choice: Choice, weights_ARS: Tensor, step: int) -> Tensor:
        """Books what has ended; the sentences that are done."""
        if self.settings.coverage_penalty:
            index = choice.parents_AK[..., None].expand(-1, -1, weights_ARS.shape[2])
            self.looked_ARS = self.looked_ARS.gather(1, index) + weights_ARS.gather(1, index)
        ended_AK = (choice.tokens_AK == EOS) & (choice.totals_AK > -INF)
        self.totals_AR = choice.totals_AK.masked_fill(ended_AK, -INF)
        if ended_AK.any():
            scores = self._scores(choice.totals_AK, step + 1, self.looked_ARS)
            self.ends.add(ended_AK, self.active_A, step, scores, finished=True)
            self.shortest_A[ended_AK.any(1)] = self.shortest_A[ended_AK.any(1)].clamp_max(step + 1.0)
            self.room_AG = self.room_AG - ended_AK.view(*self.room_AG.shape, -1).sum(2)
            self.best_AN = (
                torch.cat([self.best_AN, scores.masked_fill(~ended_AK, -INF)], 1).topk(self.best_AN.shape[1], 1).values
            )
        return (self.totals_AR == -INF).all(1) | self._settled(step)

    def _settled(self, step: int) -> Tensor:
        """True where no live hypothesis would be returned if it ended with the next step, whatever that costs; a
        thorough search asks that of all steps to come.

        Totals only fall and the limit bounds the length, so total / longest ** penalty is the best that can be reached.
        Being clear by the margin makes the outcome of a thorough search the same where float error moves the moment of
        stopping. That of any other is a decision like those on the beam.
        """
        settings, worst_A = self.settings, self.best_AN[:, -1]
        if settings.sample or settings.groups > 1:
            return torch.zeros_like(self.active_A, dtype=torch.bool)
        if settings.thorough:
            reach_A = self.totals_AR.amax(1) / (self.limits_A + 1.0).double() ** settings.penalty
            return reach_A < worst_A - MARGIN * self._error(self.active_A, step)
        reach_A = self.totals_AR.amax(1) / (step + 2) ** settings.penalty
        open_A = (reach_A > -INF) & (worst_A > -INF)
        nats_A = (reach_A - worst_A).abs() * self.shortest_A**settings.penalty
        error_A = 1 + settings.coverage_penalty * self.mask_AS.sum(1)
        self._note((nats_A / error_A).masked_fill(~open_A, INF), self.active_A, step)
        return reach_A < worst_A

    def _given_up(self, look: Look, done_A: Tensor, step: int) -> Tensor:
        """The sentences that nobody waits for any more; their best so far are booked as unfinished."""
        places = {self.numbers[n]: place for place, n in enumerate(self.active_A.tolist()) if not done_A[place]}
        given_up = [places[n] for n in look(places.keys(), lambda n: self._leading(places[n], step)) if n in places]
        best_AK = torch.zeros_like(self.totals_AR, dtype=torch.bool)
        if not given_up:
            return best_AK.any(1)
        best_AK[given_up, self.totals_AR[given_up].argmax(1)] = True
        self.ends.add(best_AK, self.active_A, step, self._scores(self.totals_AR, step + 1, self.looked_ARS), False)
        self.gaps[self.active_A[given_up]] = INF
        return best_AK.any(1)

    def _leading(self, place: int, step: int) -> list[int] | None:
        """The tokens of the best live hypothesis (the first draw, where answers are drawn)."""
        slot = 0 if self.settings.sample else int(self.totals_AR[place].argmax())
        score = self.totals_AR[place, slot] / (step + 1) ** self.settings.penalty
        return self._past(place, slot) if score > self.best_AN[place, 0] else None

    def _go_on(self, choice: Choice, done_A: Tensor) -> None:
        """Moves every row's state to its new place. Done sentences leave the batch a quarter of it at a time, so that
        batches go through the same few sizes, for which products have been planned before."""
        if self.required is not None:
            self.required = self.required.follow(choice)
        if self.remembers:
            index = choice.parents_AK[..., None].expand(-1, -1, self.history_ART.shape[2])
            self.history_ART = torch.cat([self.history_ART.gather(1, index), choice.tokens_AK[..., None]], 2)
        sentences, rows = len(done_A), self.tokens_AR.shape[1]
        self.tokens_AR = choice.tokens_AK
        self.totals_AR = self.totals_AR.masked_fill(done_A[:, None], -INF)
        self.room_AG = self.room_AG.masked_fill(done_A[:, None], 0)
        index_AK = torch.arange(sentences, device=done_A.device)[:, None] * rows + choice.parents_AK
        keep = None
        left, size = sentences - int(done_A.sum()), sentences
        while left <= size * 3 // 4 < size:
            size = size * 3 // 4
        if size < sentences:
            keep = done_A.argsort(stable=True)[:size]
            index_AK = index_AK[keep]
            self._keep(keep)
        index = index_AK.flatten()
        if len(index) == sentences * rows and torch.equal(index, torch.arange(len(index), device=index.device)):
            return
        self.states = [_moved(state, index, keep) for state in self.states]

    def _keep(self, keep: Tensor) -> None:
        for name in _BY_SENTENCE:
            setattr(self, name, getattr(self, name)[keep])
        self.copies_AS = None if self.copies_AS is None else self.copies_AS[keep]
        self.required = None if self.required is None else self.required.rows(keep)
        self.memories = [memory.rows(keep) for memory in self.memories]


def _moved(state: State, index: Tensor, keep: Tensor | None) -> State:
    """The state of the new rows; what belongs to a sentence only loses some."""
    result = {}
    for name, value in state.items():
        if of_sentence(name):
            result[name] = value if keep is None else value.index_select(0, keep)
        else:
            result[name] = value.index_select(0, index)
    return result
