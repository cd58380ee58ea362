"""From a decoder's steps to probabilities and to the loss: from the vocabulary alone, or also by copying."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.core.batch import Loss, Memory, Steps
from antiphon.models.functional import linear_cross_entropy, real_rows
from antiphon.models.linear import Linear, linear

_TINY = 1e-20


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
        return mixed.scatter_add(2, index, (1 - gate) * steps.weights_BTS.float()).clamp_min(_TINY).log()

    def loss(self, steps: Steps, memory: Memory, labels_BT: Tensor, smoothing: float) -> Loss:
        """Cross-entropy of the mixture in nats, summed over the real labels."""
        rows = real_rows(labels_BT)
        hidden_ND = steps.hidden_BTD.flatten(0, 1).index_select(0, rows)
        labels_N = labels_BT.flatten().index_select(0, rows)
        vocabulary_NV = F.linear(hidden_ND, self.weight, self.bias).float().log_softmax(1)
        gate_N = torch.sigmoid(self.gate(hidden_ND).float()).squeeze(1)
        known = labels_N < len(self.weight)
        picked = vocabulary_NV.gather(1, labels_N.masked_fill(~known, 0)[:, None]).squeeze(1).exp() * known
        same = _copies(steps, memory)[:, None] == labels_BT[:, :, None]
        copied = (steps.weights_BTS.float() * same).sum(2).flatten().index_select(0, rows)
        right = (gate_N * picked + (1 - gate_N) * copied).clamp_min(_TINY).log()
        total = -(1 - smoothing) * right.sum()
        if smoothing:
            total = total - smoothing * vocabulary_NV.mean(1).sum()
        return Loss(total, len(rows))


def _copies(steps: Steps, memory: Memory) -> Tensor:
    """The source's ids, one row a hypothesis."""
    assert memory.copy_BS is not None, "a copy head needs Batch.context['copy']"
    return memory.copy_BS.repeat_interleave(steps.hidden_BTD.shape[0] // memory.copy_BS.shape[0], dim=0)


def coverage_loss(steps: Steps, labels_BT: Tensor) -> Tensor:
    """Sum over real steps of sum_s min(attention, attention so far): the price of looking twice (See et al. 2017)."""
    weights_BTS = steps.weights_BTS.float()
    before = weights_BTS.cumsum(1) - weights_BTS
    return torch.minimum(weights_BTS, before).sum(2).flatten().index_select(0, real_rows(labels_BT)).sum()


HEADS = {"vocabulary": VocabularyHead, "copy": CopyHead}
