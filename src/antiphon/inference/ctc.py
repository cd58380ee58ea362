"""Joint decoding: what follows a hypothesis is scored by the decoder, and by what the CTC head of its model hears.

Axes: N hypotheses, B sentences, S states of the source, X moments (before the first state, and after each), V
vocabulary. Log probabilities of hypotheses are in double precision, for they add up over all states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.core.batch import BOS, EOS, PAD, Batch, Memory, Padded, State, Steps
from antiphon.core.errors import ConfigError
from antiphon.inference.hearing import align
from antiphon.inference.scoring import Model
from antiphon.inference.selection import INF
from antiphon.models.ctc import CTCHead
from antiphon.models.seq2seq import Seq2Seq

if TYPE_CHECKING:
    from antiphon.inference.hypothesis import Hypothesis

NEVER = -1e5
"""The log probability of what a source has no room for: finite, so that hypotheses can still be compared."""

TINY = 1e-37
"""The least chance of a token at a state: fp32 has hardly less."""

LEAST = 1e-30
"""The least chance of a next token that there is room for, as a share of the likeliest moment before it."""


@dataclass(frozen=True)
class Heard(Steps):
    """Steps, and by how much each next token changes the log probability of what is heard."""

    changes_BTV: Tensor


class Joint:
    """A model whose log probabilities are 1 - weight times its own plus weight times the changes of what its CTC head
    hears: the sums over a hypothesis are those of Watanabe et al. (2017)."""

    def __init__(self, model: Model, weight: float) -> None:
        head: CTCHead | None = getattr(model, "ctc", None)
        if head is None:
            do = "train it with model.ctc=true training.ctc=0.3, or leave out decoding.ctc"
            raise ConfigError("decoding.ctc needs a model with a CTC head", got=f"decoding.ctc={weight}", do=do)
        self.model, self.head, self.weight = model, head, weight

    @property
    def target_size(self) -> int:
        """Tokens in the target vocabulary."""
        return self.model.target_size

    def encode(self, source: Padded, context: Mapping[str, Padded] | None = None) -> Memory:
        """The model's memory."""
        return self.model.encode(source, context)

    def start(self, memory: Memory) -> State:
        """The decoder's state, and that of the hypothesis without tokens."""
        return self.model.start(memory) | begin(self.head.log_probs(memory), memory.mask_BS)

    def decode(self, tokens_NT: Tensor, memory: Memory, state: State) -> tuple[Heard, State]:
        """The model's steps with what is heard after each."""
        own = {name: value for name, value in state.items() if name.removeprefix("memory.").startswith("ctc")}
        others = {name: value for name, value in state.items() if name not in own}
        steps, after = self.model.decode(tokens_NT, memory, others)
        found = []
        for token_N in tokens_NT.unbind(1):
            own = follow(own, token_N)
            found.append(changes(own))
        return Heard(steps.hidden_BTD, steps.weights_BTS, torch.stack(found, 1)), after | own

    def log_probs(self, steps: Steps, memory: Memory) -> Tensor:
        """Joint scores of the next token, which need not sum to one as probabilities."""
        assert isinstance(steps, Heard)
        return (1 - self.weight) * self.model.log_probs(steps, memory) + self.weight * steps.changes_BTV


def joint(models: Sequence[Model], weight: float) -> Sequence[Model]:
    """The models, each with its CTC head where that has a weight."""
    return [Joint(model, weight) for model in models] if weight else models


def begin(log_probs_BSV: Tensor, mask_BS: Tensor) -> State:
    """Of the hypotheses without tokens: `memory.ctc`, what each state says, and if it is `real`; by moment, the log
    probability that the states until then say just the hypothesis, the last of them a `ctc.token` or a `ctc.blank`;
    `ctc.prefix`, that all states say it or anything that begins so; `ctc.last`, its last token.

    Padding says blank for sure, so that the last moment is the end of every source.
    """
    chances_BVS = log_probs_BSV.transpose(1, 2).exp().contiguous().clamp_min_(TINY)
    chances_BVS.masked_fill_(~mask_BS[:, None], 0.0)
    chances_BVS[:, PAD].masked_fill_(~mask_BS, 1.0)
    blank_BX = F.pad(_logs(chances_BVS[:, PAD]).cumsum(1), (1, 0))
    last_B = torch.full(mask_BS.shape[:1], BOS, device=mask_BS.device)
    return {
        "memory.ctc": chances_BVS, "memory.ctc.real": mask_BS, "ctc.token": torch.full_like(blank_BX, -INF),
        "ctc.blank": blank_BX, "ctc.prefix": blank_BX[:, 0], "ctc.last": last_B,
    }  # fmt: skip


def follow(state: State, token_N: Tensor) -> State:
    """Of the hypotheses with one more token each; the begin mark is none."""
    chances_BVS, sentence_N = state["memory.ctc"], _sentences(state)
    token_N = token_N.clamp_max(chances_BVS.shape[1] - 1)  # empty places of a beam hold any number
    said_NS = _logs(chances_BVS[sentence_N, token_N])
    silent_NS = _logs(chances_BVS[:, PAD])[sentence_N]
    again_N = token_N == state["ctc.last"]  # which only a blank can part from the one before
    whole_NX = torch.logaddexp(state["ctc.token"], state["ctc.blank"])
    before_NS = torch.where(again_N[:, None], state["ctc.blank"], whole_NX)[:, :-1].masked_fill(_padding(state), -INF)
    token_NX = _run(said_NS, before_NS)
    after = {
        "ctc.token": token_NX,
        "ctc.blank": _run(silent_NS, token_NX[:, :-1]),
        "ctc.prefix": (before_NS + said_NS).logsumexp(1).clamp_min(NEVER),
        "ctc.last": token_N,
    }
    begun_N = token_N == BOS
    kept = {name: torch.where(begun_N if value.dim() == 1 else begun_N[:, None], state[name], value)
            for name, value in after.items()}  # fmt: skip
    return state | kept


def changes(state: State) -> Tensor:
    """By how much each next token changes the log probability of a hypothesis, `[N, V]`: from that of all that begins
    so, to that of all that begins with one token more, or with the end mark to that of nothing more."""
    chances_BVS, last_N, sentence_N = state["memory.ctc"], state["ctc.last"], _sentences(state)
    padding_NS = _padding(state)
    whole_NX, blank_NX = torch.logaddexp(state["ctc.token"], state["ctc.blank"]), state["ctc.blank"]
    whole_NS, blank_NS = (each[:, :-1].masked_fill(padding_NS, -INF) for each in (whole_NX, blank_NX))
    peak_N1 = whole_NS.amax(1, keepdim=True).clamp_min(NEVER)
    shares_NS, silent_NS = ((each - peak_N1).exp().float() for each in (whole_NS, blank_NS))
    next_NV = (shares_NS.view(len(chances_BVS), -1, shares_NS.shape[1]) @ chances_BVS.transpose(1, 2)).flatten(0, 1)
    again_N1 = (silent_NS * chances_BVS[sentence_N, last_N]).sum(1, keepdim=True)
    next_NV.scatter_(1, last_N[:, None], again_N1)
    found_NV = next_NV.clamp_min_(LEAST).double().log_().add_(peak_N1).clamp_min_(NEVER)
    stuck_N = (blank_NS == -INF).all(1).nonzero().squeeze(1)
    found_NV[stuck_N, last_N[stuck_N]] = NEVER
    found_NV[:, PAD] = NEVER
    found_NV[:, EOS] = whole_NX[:, -1].clamp_min(NEVER)
    return found_NV - state["ctc.prefix"][:, None]


def _sentences(state: State) -> Tensor:
    """The sentence of each hypothesis."""
    rows, last_N = len(state["memory.ctc"]), state["ctc.last"]
    return torch.arange(len(last_N), device=last_N.device) // (len(last_N) // rows)


def _padding(state: State) -> Tensor:
    """Where nothing is said, `[N, S]`."""
    return ~state["memory.ctc.real"][_sentences(state)]


def _logs(chances: Tensor) -> Tensor:
    return chances.double().log().clamp_min(NEVER)


def _run(logs_NS: Tensor, enter_NS: Tensor) -> Tensor:
    """log x for x_t = p_t (x_{t-1} + e_{t-1}) from x_0 = 0 on, given the logs of p and e; `[N, X]`, all at once."""
    sums_NS = logs_NS.cumsum(1)
    found_NS = sums_NS + (enter_NS - (sums_NS - logs_NS)).logcumsumexp(1)
    return F.pad(found_NS, (1, 0), value=-INF)


@torch.no_grad()
def heard(model: Seq2Seq, batch: Batch, found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
    """The hypotheses with where the model's CTC head hears their tokens; as they are where it has none."""
    if model.ctc is None:
        return found
    memory = model.encode(batch.source, batch.context)
    log_probs_BSV = model.ctc.log_probs(memory)
    real = [
        log_probs_SV[mask_S].cpu().numpy() for log_probs_SV, mask_S in zip(log_probs_BSV, memory.mask_BS, strict=True)
    ]
    return [[replace(each, heard=align(said_SV, each.tokens)) for each in mine]
            for said_SV, mine in zip(real, found, strict=True)]  # fmt: skip
