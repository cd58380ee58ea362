"""From a decoder's steps to probabilities and to the loss: from the vocabulary alone, or also by copying."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from antiphon.core.batch import Loss, Memory, Padded, Steps
from antiphon.models.copying import TINY, mixture_cross_entropy
from antiphon.models.functional import linear_cross_entropy, real_rows
from antiphon.models.linear import Linear, linear

ROWS = 512
"""Steps whose distributions are held at once where not all of them are wanted."""


class VocabularyHead(nn.Module):
    """Softmax over the vocabulary; the matrix may be the target embedding (Press and Wolf 2017)."""

    def __init__(self, weight_VD: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight_VD
        self.bias = nn.Parameter(torch.zeros(len(weight_VD)))

    def log_probs(self, steps: Steps, memory: Memory) -> Tensor:
        """`[B, T, V]`, in fp32."""
        logits = linear(steps.hidden_BTD, self.weight, self.bias).float()
        return logits.log_softmax(2) if torch.is_grad_enabled() else torch.log_softmax(logits, 2, out=logits)

    def loss(self, steps: Steps, memory: Memory, labels_BT: Tensor, smoothing: float) -> Loss:
        """Cross-entropy in nats, summed over the real labels."""
        rows = real_rows(labels_BT)
        hidden_ND = steps.hidden_BTD.flatten(0, 1).index_select(0, rows)
        labels_N = labels_BT.flatten().index_select(0, rows)
        total = linear_cross_entropy(hidden_ND, self.weight, self.bias, labels_N, smoothing=smoothing)
        return Loss(total, len(rows))


class CopyHead(VocabularyHead):
    """Pointer-generator: a gate mixes the vocabulary with the attention over the source (See et al. 2017).

    Ids from V on stand for source words that the vocabulary lacks. Label smoothing applies to the vocabulary part.
    """

    def __init__(self, weight_VD: nn.Parameter) -> None:
        super().__init__(weight_VD)
        self.gate = Linear(weight_VD.shape[1], 1)

    def log_probs(self, steps: Steps, memory: Memory) -> Tensor:
        """`[B, T, V + extra]`, extra being the most source words outside the vocabulary in any row."""
        copy_BS = _copies(steps, memory)
        gate = torch.sigmoid(self.gate(steps.hidden_BTD).float())
        vocabulary = gate * linear(steps.hidden_BTD, self.weight, self.bias).float().softmax(2)
        extra = max(0, int(copy_BS.max()) + 1 - len(self.weight))
        mixed = F.pad(vocabulary, (0, extra))
        index = copy_BS[:, None].expand(steps.weights_BTS.shape)
        return mixed.scatter_add(2, index, (1 - gate) * steps.weights_BTS.float()).clamp_min(TINY).log()

    def loss(self, steps: Steps, memory: Memory, labels_BT: Tensor, smoothing: float) -> Loss:
        """Cross-entropy of the mixture in nats, summed over the real labels."""
        rows = real_rows(labels_BT)
        hidden_ND = steps.hidden_BTD.flatten(0, 1).index_select(0, rows)
        labels_N = labels_BT.flatten().index_select(0, rows)
        gate_N = torch.sigmoid(self.gate(hidden_ND).float()).squeeze(1)
        same = _copies(steps, memory)[:, None] == labels_BT[:, :, None]
        copied_N = (steps.weights_BTS.float() * same).sum(2).flatten().index_select(0, rows)
        parts = hidden_ND, self.weight, self.bias, gate_N, copied_N, labels_N
        return Loss(mixture_cross_entropy(*parts, smoothing=smoothing), len(rows))


def _copies(steps: Steps, memory: Memory) -> Tensor:
    """The source's ids, one row a hypothesis."""
    assert memory.copy_BS is not None, "a copy head needs Batch.context['copy']"
    return memory.copy_BS.repeat_interleave(steps.hidden_BTD.shape[0] // memory.copy_BS.shape[0], dim=0)


def pieces(steps: Steps, memory: Memory, real_NT: Tensor, rows: int = ROWS) -> Iterator[tuple[Steps, Memory]]:
    """The real steps of all answers, so many at a time, each as an answer of one step `[M, 1]`; of the memory only what
    a head reads is theirs. It has a row an answer."""
    places_M = real_NT.flatten().nonzero().squeeze(1)
    columns = [each.flatten(0, 1).index_select(0, places_M) for each in (steps.hidden_BTD, steps.weights_BTS)]
    answers_M = places_M // real_NT.shape[1]
    for hidden_MD, weights_MS, answer_M in zip(*(each.split(rows) for each in (*columns, answers_M)), strict=True):
        copies = None if memory.copy_BS is None else memory.copy_BS[answer_M]
        yield Steps(hidden_MD[:, None], weights_MS[:, None]), replace(memory, copy_BS=copies)


def of_tokens(head: VocabularyHead, steps: Steps, memory: Memory, answers: Padded, rows: int = ROWS) -> Tensor:
    """The log probability of each token of given answers, `[N, T]`, 0 where they are padded; one answer a memory row.

    A few distributions are held at once, and made again for their gradient.
    """

    def piece(hidden_M1D: Tensor, weights_M1S: Tensor, memory: Memory, tokens_M: Tensor) -> Tensor:
        return head.log_probs(Steps(hidden_M1D, weights_M1S), memory)[:, 0].gather(1, tokens_M[:, None]).squeeze(1)

    real_NT = answers.mask_BL
    tokens = answers.values[real_NT].split(rows)
    found = [
        checkpoint(piece, part.hidden_BTD, part.weights_BTS, own, token_M, use_reentrant=False,
                   preserve_rng_state=False)
        for (part, own), token_M in zip(pieces(steps, memory, real_NT, rows), tokens, strict=True)
    ]  # fmt: skip
    log_probs_M = torch.cat(found)
    return log_probs_M.new_zeros(real_NT.shape).masked_scatter(real_NT, log_probs_M)


def coverage_loss(steps: Steps, labels_BT: Tensor) -> Tensor:
    """Sum over real steps of sum_s min(attention, attention so far): the price of looking twice (See et al. 2017)."""
    weights_BTS = steps.weights_BTS.float()
    before = weights_BTS.cumsum(1) - weights_BTS
    return torch.minimum(weights_BTS, before).sum(2).flatten().index_select(0, real_rows(labels_BT)).sum()


HEADS = {"vocabulary": VocabularyHead, "copy": CopyHead}
