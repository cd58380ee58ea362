"""What an answer must and must not hold: forced prefixes, required and banned phrases, n-grams that may not recur.

Axes as in `selection`, and P phrases of a sentence, L tokens of a phrase, U distinct tokens of its phrases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from antiphon.core.marks import EOS, PAD
from antiphon.inference.hypothesis import Constraint, Phrase
from antiphon.inference.selection import INF, Choice, gap, top


def forbid_repeats(log_probs_ARV: Tensor, history_ART: Tensor, size: int) -> None:
    """In place: no token that would complete an n-gram of this size a second time."""
    length = history_ART.shape[2]
    if length < size:
        return
    grams = history_ART.unfold(2, size, 1)
    tail = history_ART[:, :, length - size + 1 :]
    again = (grams[..., :-1] == tail[:, :, None]).all(3)
    found = again.nonzero(as_tuple=True)
    log_probs_ARV[found[0], found[1], grams[..., -1][found]] = -INF


def forbid_phrases(log_probs_ARV: Tensor, history_ART: Tensor, active_A: Tensor, constraints: list[Constraint]) -> None:
    """In place: no token that would complete a banned phrase."""
    length = history_ART.shape[2]
    for row, sentence in enumerate(active_A.tolist()):
        for phrase in constraints[sentence].banned:
            *begin, last = phrase
            if len(begin) > length or last >= log_probs_ARV.shape[2]:
                continue
            tail = history_ART[row, :, length - len(begin) :]
            log_probs_ARV[row, (tail == tail.new_tensor(begin)).all(1), last] = -INF


def force_prefix(log_probs_ARV: Tensor, allowed_ARV: Tensor, step: int, prefix_AT: Tensor) -> Tensor:
    """Only the prefix's token where a sentence's prefix (padded with PAD) is not over; rules do not apply in it."""
    if step >= prefix_AT.shape[1]:
        return allowed_ARV
    token_A = prefix_AT[:, step]
    only = torch.full_like(log_probs_ARV, -INF)
    index = token_A[:, None, None].expand(-1, log_probs_ARV.shape[1], 1)
    only.scatter_(2, index, log_probs_ARV.gather(2, index))
    return torch.where((token_A != PAD)[:, None, None], only, allowed_ARV)


@dataclass(frozen=True)
class Required:
    """Progress of every hypothesis through its required phrases: one small string-matching automaton a phrase.

    A phrase is met once it has occurred as a run of tokens, wherever; what is met stays met. `table_APLU` gives
    the state after each of the sentence's own tokens; any other token leads back to the start.
    """

    tokens_AU: Tensor
    lengths_AP: Tensor
    table_APLU: Tensor
    progress_ARP: Tensor

    @staticmethod
    def begin(constraints: Sequence[Constraint], device: torch.device) -> Required | None:
        """The automata before the first token; None where nothing is required."""
        phrases = [constraint.required for constraint in constraints]
        if not any(phrases):
            return None
        tokens = [sorted({token for phrase in sentence for token in phrase}) for sentence in phrases]
        most = max(map(len, phrases))
        longest = max(len(phrase) for sentence in phrases for phrase in sentence)
        lengths = torch.zeros(len(phrases), most, dtype=torch.long)
        table = torch.zeros(len(phrases), most, longest + 1, max(map(len, tokens)), dtype=torch.long)
        known = torch.full((len(phrases), table.shape[3]), -1)
        for row, sentence in enumerate(phrases):
            known[row, : len(tokens[row])] = torch.tensor(tokens[row], dtype=torch.long)
            for number, phrase in enumerate(sentence):
                lengths[row, number] = len(phrase)
                table[row, number, : len(phrase) + 1, : len(tokens[row])] = _automaton(phrase, tokens[row])
        progress = torch.zeros(len(phrases), 1, most, dtype=torch.long)
        return Required(known.to(device), lengths.to(device), table.to(device), progress.to(device))

    @property
    def need_AR(self) -> Tensor:
        """Tokens that still suffice to meet everything, whatever has been met in part."""
        return _need(self.progress_ARP, self.lengths_AP)

    def after_ARPU(self) -> Tensor:
        """The progress after each of the sentence's own tokens."""
        rows, own = self.progress_ARP.shape[1], self.table_APLU.shape[3]
        table = self.table_APLU[:, None].expand(-1, rows, -1, -1, -1)
        index = self.progress_ARP[..., None, None].expand(-1, -1, -1, 1, own)
        return table.gather(3, index).squeeze(3)

    def needs_after(self) -> tuple[Tensor, Tensor]:
        """Tokens needed after each own token `[A, R, U]`, and after any other `[A, R]`."""
        after = self.after_ARPU().transpose(2, 3)
        met = self.progress_ARP == self.lengths_AP[:, None]
        return _need(after, self.lengths_AP[:, None]), _need(self.progress_ARP * met, self.lengths_AP)

    def admit(self, log_probs_ARV: Tensor, left_A: Tensor) -> None:
        """In place: only tokens after which the rest still fits into `left` tokens (this one counted), and the end
        only when everything is met. So every hypothesis that is alive can meet all, and does."""
        own_ARU, other_AR = self.needs_after()
        room_A = left_A[:, None] - 1
        index_ARU, real_ARU = self._own(log_probs_ARV.shape[1])
        kept_ARU = log_probs_ARV.gather(2, index_ARU).masked_fill(own_ARU > room_A[..., None], -INF)
        end_AR = log_probs_ARV[..., EOS].masked_fill(self.need_AR > 0, -INF)
        log_probs_ARV.masked_fill_((other_AR > room_A)[..., None], -INF)
        # padding of the token lists points at PAD, which is forbidden anyway
        log_probs_ARV.scatter_(2, index_ARU, kept_ARU.masked_fill(~real_ARU, -INF))
        log_probs_ARV[..., EOS] = end_AR

    def _own(self, rows: int) -> tuple[Tensor, Tensor]:
        index_ARU = self.tokens_AU[:, None].expand(-1, rows, -1)
        return index_ARU.clamp_min(PAD), index_ARU >= 0

    def choose(self, totals_AR: Tensor, log_probs_ARV: Tensor, room_A: Tensor, slots: int) -> Choice:
        """Dynamic beam allocation (Post and Vilar 2018): the slots are shared out between banks of equal progress,
        so that hypotheses that meet more are not crowded out by likelier ones that meet less."""
        index_ARU, real_ARU = self._own(log_probs_ARV.shape[1])
        own_ARU, other_AR = self.needs_after()
        special_ARU = log_probs_ARV.gather(2, index_ARU).masked_fill(~real_ARU, -INF)
        rest_ARV = log_probs_ARV.scatter(2, index_ARU, -INF)
        values, tokens = top(rest_ARV.flatten(0, 1), slots + 1)
        shape = (*log_probs_ARV.shape[:2], -1)
        log_probs_AN = torch.cat([special_ARU, values.view(shape)], 2)
        tokens_AN = torch.cat([index_ARU, tokens.view(shape)], 2)
        other = other_AR[..., None].expand(values.view(shape).shape)
        # an end mark is only there when nothing is needed, and then its need is the others', zero
        needs = torch.cat([own_ARU, other], 2).flatten(1)
        ranks = (totals_AR[..., None] + log_probs_AN.double()).flatten(1)
        kept, gaps = _share_out(ranks, needs, room_A, slots)
        totals = ranks.gather(1, kept.clamp_min(0)).masked_fill(kept < 0, -INF)
        places = kept.clamp_min(0)
        return Choice(
            places // tokens_AN.shape[2],
            tokens_AN.flatten(1).gather(1, places),
            log_probs_AN.flatten(1).gather(1, places),
            totals,
            gaps,
        )

    def follow(self, choice: Choice) -> Required:
        """The progress of the chosen hypotheses."""
        after = self.after_ARPU()
        most, own = after.shape[2:]
        index = choice.parents_AK[:, :, None, None].expand(-1, -1, most, own)
        same = choice.tokens_AK[..., None] == self.tokens_AU[:, None]
        stepped = (after.gather(1, index) * same[:, :, None]).sum(3)
        before = self.progress_ARP.gather(1, choice.parents_AK[..., None].expand(-1, -1, most))
        met = before == self.lengths_AP[:, None]
        return replace(self, progress_ARP=torch.where(met, before, stepped))

    def rows(self, keep: Tensor) -> Required:
        """Only some sentences."""
        return Required(self.tokens_AU[keep], self.lengths_AP[keep], self.table_APLU[keep], self.progress_ARP[keep])


def _automaton(phrase: Phrase, tokens: list[int]) -> Tensor:
    """States by tokens: how much of the phrase the text ends with (Knuth, Morris and Pratt 1977); the last stays."""
    table = torch.zeros(len(phrase) + 1, len(tokens), dtype=torch.long)
    for state in range(len(phrase)):
        for column, token in enumerate(tokens):
            text = (*phrase[:state], token)
            table[state, column] = next(n for n in range(state + 1, -1, -1) if text[len(text) - n :] == phrase[:n])
    table[len(phrase)] = len(phrase)
    return table


def _need(progress_P: Tensor, lengths_P: Tensor) -> Tensor:
    """Go on with the phrase that is furthest, and start the other unmet ones afresh."""
    lengths = lengths_P[:, None].expand_as(progress_P) if progress_P.dim() == lengths_P.dim() + 1 else lengths_P
    unmet = progress_P < lengths
    return ((lengths * unmet).sum(-1) - (progress_P * unmet).amax(-1)).clamp_min(0)


def _share_out(ranks_AN: Tensor, needs_AN: Tensor, room_A: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Places of the kept candidates `[A, slots]` (-1: none), and the smallest gap at any bank's cut."""
    banks = int(needs_AN.max()) + 1
    real = ranks_AN > -INF
    member_ABN = (needs_AN[:, None] == torch.arange(banks, device=needs_AN.device)[None, :, None]) & real[:, None]
    share_AB = _shares(member_ABN.sum(2), room_A)
    sorted_ABN, places_ABN = (
        torch.where(member_ABN, ranks_AN[:, None], -INF).topk(min(slots + 1, ranks_AN.shape[1]), 2)
    )  # fmt: skip
    missing = slots + 1 - sorted_ABN.shape[2]
    if missing > 0:
        sorted_ABN = torch.nn.functional.pad(sorted_ABN, (0, missing), value=-INF)
        places_ABN = torch.nn.functional.pad(places_ABN, (0, missing))
    gaps = gap(sorted_ABN.flatten(0, 1), share_AB.flatten()).view(share_AB.shape).amin(1)
    inside = (torch.arange(slots + 1, device=ranks_AN.device) < share_AB[..., None]) & (sorted_ABN > -INF)
    order = inside.flatten(1).int().topk(slots, 1)
    kept = places_ABN.flatten(1).gather(1, order.indices)
    return kept.masked_fill(order.values == 0, -1), gaps


def _shares(counts_AB: Tensor, room_A: Tensor) -> Tensor:
    """Slots a bank: equal shares, what a bank cannot fill going to the others, those that need least first."""
    share = torch.zeros_like(counts_AB)
    left = room_A.clone()
    while bool(((left > 0) & (counts_AB > share).any(1)).any()):
        open_AB = counts_AB > share
        order = open_AB.cumsum(1)
        base = (left // open_AB.sum(1).clamp_min(1))[:, None]
        extra = (order <= (left - base.squeeze(1) * open_AB.sum(1))[:, None]).long()
        more = torch.minimum((base + extra) * open_AB, counts_AB - share)
        share, left = share + more, left - more.sum(1)
    return share
