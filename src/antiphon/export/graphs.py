"""The two graphs of a model, tensors in and tensors out: one reads a source, one says the next token.

Axes: B sentences, N hypotheses (a multiple of B), L those of them that still live, S source, V vocabulary, C
candidates.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.core.batch import EOS, Memory, Padded, State, Steps, of_sentence
from antiphon.models.copying import TINY
from antiphon.models.decoders import RecurrentMixer
from antiphon.models.frontends import TextFrontend
from antiphon.models.heads import CopyHead, VocabularyHead
from antiphon.models.recurrent import Recurrent
from antiphon.models.seq2seq import Seq2Seq

FACTS = ("facts", "fact_node", "fact_subject", "fact_object")
"""What of a batch's context is read by a graph encoder, in the order of the graph's inputs."""
LARGE = 2048
"""Tokens from which on the best are looked for in `PARTS` parts of the vocabulary side by side."""
PARTS = 32
NEVER = -1e9
"""The bias of what only fills up the last part."""


@contextmanager
def plainly() -> Iterator[None]:
    """The plain version of every function that has a faster one for PyTorch, as under `torch.export`."""
    asked = torch.compiler.is_compiling
    torch.compiler.is_compiling = lambda: True
    try:
        with torch.no_grad():
            yield
    finally:
        torch.compiler.is_compiling = asked


class Cell(nn.Module):
    """One step of a recurrent layer as products that can be made of integers; of an LSTM or RNN a single one."""

    def __init__(self, recurrent: Recurrent) -> None:
        super().__init__()
        self.names, kernel = recurrent.names, recurrent.kernel
        self.size = kernel.hidden_size
        self.activation = torch.relu if getattr(kernel, "nonlinearity", "") == "relu" else torch.tanh
        parts = [
            kernel.get_parameter(f"{name}_l0").detach() for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        self.gated = isinstance(kernel, nn.GRU)
        if not self.gated:
            parts = [torch.cat(parts[:2], 1), parts[2] + parts[3]]
        self.parts = nn.ParameterList(parts)

    def forward(self, x_NTD: Tensor, state: State) -> tuple[Tensor, State]:
        """`[N, 1, D]` to `[N, 1, D]`, and the state after it."""
        x_ND, hidden_ND = x_NTD[:, 0], state["hidden"]
        after = self._gru(x_ND, hidden_ND) if self.gated else self._others(x_ND, hidden_ND, state)
        return after["hidden"][:, None], after

    def _gru(self, x_ND: Tensor, hidden_ND: Tensor) -> State:
        inputs, weights, bias, other = self.parts
        reset, update, new = F.linear(x_ND, inputs, bias).split(self.size, 1)
        reset_too, update_too, new_too = F.linear(hidden_ND, weights, other).split(self.size, 1)
        update = torch.sigmoid(update + update_too)
        new = torch.tanh(new + torch.sigmoid(reset + reset_too) * new_too)
        return {"hidden": (1 - update) * new + update * hidden_ND}

    def _others(self, x_ND: Tensor, hidden_ND: Tensor, state: State) -> State:
        made = F.linear(torch.cat([x_ND, hidden_ND], 1), *self.parts)
        if "cell" not in state:
            return {"hidden": self.activation(made)}
        enter, forget, new, leave = made.split(self.size, 1)
        cell_ND = torch.sigmoid(forget) * state["cell"] + torch.sigmoid(enter) * torch.tanh(new)
        return {"hidden": torch.sigmoid(leave) * torch.tanh(cell_ND), "cell": cell_ND}


class RMSNorm(nn.Module):
    """Root-mean-square norm in so many words."""

    def __init__(self, norm: nn.RMSNorm) -> None:
        super().__init__()
        assert norm.eps is not None
        self.weight, self.eps = norm.weight, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


def exportable(model: Seq2Seq) -> Seq2Seq:
    """A copy whose modules are those that become good graphs, with a vocabulary of whole parts where it is large."""
    model = copy.deepcopy(model).eval().cpu().float()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.RMSNorm):
                setattr(module, name, RMSNorm(child))
    for layer in model.decoder.layers:
        if isinstance(layer.mix, RecurrentMixer):
            layer.mix.recurrent = Cell(layer.mix.recurrent)  # type: ignore[assignment]
    if type(model.head) is VocabularyHead and model.target_size >= LARGE:
        _fill_up(model, model.head)
    return model


def _fill_up(model: Seq2Seq, head: VocabularyHead) -> None:
    """Rows of nothing, so that the vocabulary is a multiple of `PARTS`; in tied embeddings too."""
    missing = -len(head.weight) % PARTS
    wide = nn.Parameter(F.pad(head.weight.detach(), (0, 0, 0, missing)), requires_grad=False)
    for frontend in (model.source, model.target):
        if isinstance(frontend, TextFrontend) and frontend.embedding.weight is head.weight:
            frontend.embedding.weight = wide
    head.weight = wide
    head.bias = nn.Parameter(F.pad(head.bias.detach(), (0, missing), value=NEVER), requires_grad=False)


class EncoderGraph(nn.Module):
    """A source, its lengths and what stands beside it, to the mask of the memory and the decoder's first state."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model

    def forward(self, source: Tensor, lengths: Tensor, *facts: Tensor) -> tuple[Tensor, ...]:
        """`[B, S]` or `[B, S, F]` and `[B]`; the facts as in `Batch.context`, and their lengths."""
        context = {}
        if facts:
            context = {name: Padded(values, facts[-1]) for name, values in zip(FACTS, facts, strict=False)}
        memory = self.model.encode(Padded(source, lengths), context)
        heard = [] if self.model.ctc is None else [self.model.ctc.log_probs(memory)]
        return memory.mask_BS, *heard, *self.model.start(memory).values()


class StepGraph(nn.Module):
    """One cached step of the decoder for all hypotheses, and the candidates of those that live.

    `parents` are the rows of the state that hypotheses go on from; as many candidates are given as `ranks` has entries.
    """

    def __init__(self, model: Seq2Seq, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names, self.copies = model, names, isinstance(model.head, CopyHead)

    def forward(
        self, tokens: Tensor, parents: Tensor, living: Tensor, ranks: Tensor, mask: Tensor, *rest: Tensor
    ) -> Any:
        """Log probabilities and ids of the candidates `[L, C]`, where rows looked `[N, S]`, all log probabilities
        `[L, V]`, and the state after."""
        copies, entries = (rest[:2], rest[2:]) if self.copies else ((), rest)
        named = dict(zip(self.names, entries, strict=True))
        state = {name: value if of_sentence(name) else value.index_select(0, parents) for name, value in named.items()}
        nothing = torch.zeros_like(mask, dtype=torch.float32)
        steps, after = self.model.decode(tokens[:, None], Memory(nothing[:, :, None], mask, nothing[:, :1]), state)
        some = Steps(steps.hidden_BTD.index_select(0, living), steps.weights_BTS.index_select(0, living))
        log_probs_LV = self._log_probs(some, living // (tokens.shape[0] // mask.shape[0]), *copies)
        values, ids = best(log_probs_LV, ranks.shape[0])
        moved = [after[name] for name in self.names if not name.startswith("memory.")]
        return values, ids, steps.weights_BTS[:, 0], log_probs_LV, *moved

    def _log_probs(self, steps: Steps, sentences: Tensor, *copies: Tensor) -> Tensor:
        head, hidden_LD = self.model.words, steps.hidden_BTD[:, 0]
        logits_LV = F.linear(hidden_LD, head.weight, head.bias)
        if not isinstance(head, CopyHead):
            return logits_LV.log_softmax(1)
        ids, more = copies  # `more` are zeros `[1, E]` for the source words that the vocabulary lacks
        gate = torch.sigmoid(head.gate(hidden_LD))
        mixed = torch.cat([gate * logits_LV.softmax(1), more.expand(hidden_LD.shape[0], -1)], 1)
        looks_LS = (1 - gate) * steps.weights_BTS[:, 0]
        return mixed.scatter_add(1, ids.index_select(0, sentences), looks_LS).clamp_min(TINY).log()


def best(log_probs_LV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row and their ids, best first.

    Of a large vocabulary they lie in the `count` columns with the largest maxima, where its `PARTS` stand above each
    other.
    """
    size = log_probs_LV.shape[1]
    if size < LARGE or size % PARTS:
        values, ids = log_probs_LV.topk(count, 1)
        return values, ids
    parts_LPW = log_probs_LV.view(-1, PARTS, size // PARTS)
    columns_LC = parts_LPW.amax(1).topk(count, 1).indices
    some_LX = parts_LPW.gather(2, columns_LC[:, None].expand(-1, PARTS, -1)).flatten(1)
    values, places = some_LX.topk(count, 1)
    return values, places // count * (size // PARTS) + columns_LC.gather(1, places % count)


def most(model: Seq2Seq) -> int:
    """The most candidates that the step of an exportable model can give."""
    size = model.words.weight.shape[0]
    return size // PARTS if size >= LARGE and not isinstance(model.head, CopyHead) else size


def example(model: Seq2Seq, rows: int, length: int, beam: int, steps: int) -> tuple[tuple[Tensor, ...], ...]:
    """Inputs of both graphs, as they are after so many steps of such a beam."""
    reads, says = EncoderGraph(model), None
    lengths = torch.arange(length, length - rows, -1).clamp_min(1)
    source = torch.full((rows, length), 5)
    if not isinstance(model.source, TextFrontend):
        source = torch.zeros(rows, length, model.source_size)
    read = source, lengths, *_facts(model, rows, length)
    names = list(model.start(model.encode(Padded(source, lengths), {})))
    mask, *state = reads(*read)
    state = state[len(state) - len(names) :]  # without what a CTC head hears
    says = StepGraph(model, names)
    copies = (torch.full(mask.shape, 5), torch.zeros(1, beam)) if says.copies else ()
    for step in range(steps):
        count = rows if step == 0 else rows * beam
        parents = torch.arange(rows).repeat_interleave(count // rows) if step < 2 else torch.arange(count)
        said = torch.full((count,), EOS + step), parents, torch.arange(count - (step > 0)), torch.arange(2 + rows), mask
        inputs = *said, *copies, *state
        if step < steps - 1:
            moved = dict(
                zip([name for name in names if not name.startswith("memory.")], says(*inputs)[4:], strict=True)
            )
            state = [moved.get(name, value) for name, value in zip(names, state, strict=True)]
    return read, inputs


def state_names(model: Seq2Seq) -> Sequence[str]:
    """The names of what a decoder carries from step to step, in the order of the graphs' inputs and outputs."""
    features = () if isinstance(model.source, TextFrontend) else (model.source_size,)
    source = torch.zeros(1, 2, *features) if features else torch.zeros(1, 2, dtype=torch.long)
    with torch.no_grad():
        return list(model.start(model.encode(Padded(source, torch.tensor([2])))))


def _facts(model: Seq2Seq, rows: int, length: int) -> tuple[Tensor, ...]:
    if model.graph is None:
        return ()
    nodes = torch.arange(1, length + 3).expand(rows, -1)
    relation = (nodes == 2).long()
    return torch.full_like(nodes, 5), nodes, relation, 3 * relation, torch.full((rows,), length)
