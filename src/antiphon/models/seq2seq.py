"""The whole model: frontend, encoder, memory, decoder, head; and the one place that builds it from a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from antiphon.core.batch import Batch, Loss, Memory, Padded, State, Steps
from antiphon.core.config import Model
from antiphon.core.errors import ConfigError
from antiphon.models.attention import Common, FeedForward, MultiHead, SelfAttention, Wrap
from antiphon.models.ctc import CTCHead
from antiphon.models.decoders import Decoder, make_decoder
from antiphon.models.encoders import ConformerLayer, Encoder, make_encoder
from antiphon.models.forecasting import NUMBERS_HEADS, NumbersHead
from antiphon.models.frontends import FramesFrontend, NumbersFrontend, TextFrontend
from antiphon.models.graph import GraphEncoder, RelationalAttention
from antiphon.models.heads import HEADS, VocabularyHead, coverage_loss
from antiphon.models.recurrent import Recurrent

T = TypeVar("T")


class Seq2Seq(nn.Module):
    """An encoder-decoder: any encoder, any decoder, any attention, any head."""

    def __init__(
        self, config: Model, source: TextFrontend | FramesFrontend, encoder: Encoder,
        target: TextFrontend | NumbersFrontend, decoder: Decoder, head: VocabularyHead | NumbersHead,
        graph: GraphEncoder | None = None, ctc: CTCHead | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config, self.graph = config, graph
        self.source, self.encoder, self.target, self.decoder, self.head = source, encoder, target, decoder, head
        self.ctc = ctc

    @property
    def source_size(self) -> int:
        """Tokens in the source vocabulary, or features of a frame."""
        return self.source.size

    @property
    def target_size(self) -> int:
        """Tokens in the target vocabulary, or features of a number."""
        return self.target.size

    @property
    def words(self) -> VocabularyHead:
        """The head of a model of text; `ConfigError` where it is one of numbers."""
        if isinstance(self.head, NumbersHead):
            raise ConfigError("this is for models of text, and this one is of numbers")
        return self.head

    def encode(self, source: Padded, context: Mapping[str, Padded] | None = None) -> Memory:
        """Source ids `[B, S]` or frames `[B, L, F]`, and of the batch's `context` the facts where there is a graph
        encoder, to the memory, which hands on what is known ahead."""
        context = context or {}
        memory: Memory = replace(self.encoder(*self.source.read(source)), ahead=context.get("ahead"))
        if "copy" in context:
            memory = replace(memory, copy_BS=context["copy"].values)
        if self.graph is None or "facts" not in context:
            return memory
        assert isinstance(self.source, TextFrontend)
        known = self.graph(self.source, context)
        return memory.join(replace(known, copy_BS=context["fact_copy"].values) if "fact_copy" in context else known)

    def start(self, memory: Memory) -> State:
        """The decoder's state before its first step, one row a sentence."""
        return self.decoder.start(memory)

    def decode(self, tokens_NT: Tensor, memory: Memory, state: State) -> tuple[Steps, State]:
        """The next steps after `state`, for tokens that begin with BOS, or for numbers `[N, T, F]`, of which the first
        is not read; N is B or a multiple (hypotheses)."""
        return self.decoder(self._written(tokens_NT, memory, state["step"]), memory, state)

    def _written(self, tokens_NT: Tensor, memory: Memory, start_N: Tensor | None = None) -> Tensor:
        """The vectors of what was said before."""
        if isinstance(self.target, NumbersFrontend):
            return self.target(tokens_NT, start_N, memory.ahead)
        return self.target(tokens_NT, start_N)

    def log_probs(self, steps: Steps, memory: Memory) -> Tensor:
        """Log probabilities of the next token in fp32, `[N, T, V]`; wider with a copy head."""
        return self.words.log_probs(steps, memory)

    def forward(self, batch: Batch) -> tuple[Steps, Memory]:
        """Teacher forcing: all steps of the targets at once."""
        memory = self.encode(batch.source, batch.context)
        steps, _ = self.decoder(self._written(batch.inputs_BT, memory), memory, self.start(memory))
        return steps, memory

    def loss(self, batch: Batch, *, smoothing: float = 0.0, coverage: float = 0.0, ctc: float = 0.0) -> Loss:
        """Negative log likelihood in nats, summed over target tokens; plus `coverage` times the coverage loss.

        `ctc` is the share of the CTC head in all of it. Of numbers it is the loss of their head, summed over steps.
        """
        steps, memory = self(batch)
        if isinstance(self.head, NumbersHead):
            return self.head.loss(steps, batch.target)
        loss = self.head.loss(steps, memory, batch.labels_BT, smoothing)
        if coverage:
            loss = Loss(loss.total + coverage * coverage_loss(steps, batch.labels_BT), loss.count)
        return self.heard(loss, memory, batch, ctc) if ctc else loss

    def heard(self, loss: Loss, memory: Memory, batch: Batch, share: float) -> Loss:
        """1 - share times the loss plus share times that of the CTC head (Watanabe et al. 2017), which goes into the
        sums as `ctc`, beside the number of targets that their sources had no room for."""
        if not share:
            return loss
        assert self.ctc is not None, "training.ctc needs model.ctc"
        nats, short = self.ctc.loss(memory, batch.target)
        sums = {**loss.sums, "ctc": float(nats.detach()), "ctc_too_short": float(short)}
        return Loss((1 - share) * loss.total + share * nats, loss.count, sums)


def build(model: Model, source_size: int, target_size: int, *, seed: int = 1) -> Seq2Seq:
    """A model with fresh weights that depend on the arguments alone. Every optional field must have a value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _assemble(model, source_size, target_size)
        initialize(network, model.initialization)
    return network


def _given(value: T | None, key: str) -> T:
    """A setting that must have been chosen by now."""
    if value is None:
        raise ConfigError(f"model.{key} has no value", do="let the recipe propose one, or set it")
    return value


def _assemble(model: Model, source_size: int, target_size: int) -> Seq2Seq:
    if model.tie == "all" and source_size != target_size:
        raise ConfigError(
            "model.tie=all needs one vocabulary",
            got=f"{source_size} and {target_size} tokens",
            do="set data.shared=true or model.tie=target",
        )
    width, dropout = _given(model.width, "width"), _given(model.dropout, "dropout")
    positions, attention = _given(model.positions, "positions"), _given(model.attention, "attention")
    encoder_kind, decoder_kind = _given(model.encoder.kind, "encoder.kind"), _given(model.decoder.kind, "decoder.kind")
    share = dropout if model.dropout_embedding is None else model.dropout_embedding

    def places(kind: str) -> str:
        return positions if kind in ("transformer", "conformer", "conv") else "none"

    target, head = _writing(model, target_size, width, places(decoder_kind), share)
    source: TextFrontend | FramesFrontend
    if model.frontend.kind:
        source = FramesFrontend(source_size, width, model.frontend, positions=places(encoder_kind),
                                longest=model.max_positions, share=share)  # fmt: skip
    else:
        embedding = nn.Embedding(source_size, width)
        if model.tie == "all" and isinstance(target, TextFrontend):
            embedding = target.embedding
        source = _frontend(model, embedding, places(encoder_kind), share)

    both = Common(
        width=width,
        feedforward=_given(model.feedforward, "feedforward"),
        heads=model.heads,
        positions=positions,
        norm=_given(model.norm, "norm"),
        norm_kind=model.norm_kind,
        activation=_given(model.activation, "activation"),
        residual=_given(model.residual, "residual"),
        dropout=dropout,
        dropout_attention=model.dropout_attention,
        dropout_recurrent=model.dropout_recurrent,
    )
    half, other = model.encoder, model.decoder
    layers = _given(half.layers, "encoder.layers"), _given(other.layers, "decoder.layers")
    encoder = make_encoder(
        encoder_kind, both, layers=layers[0], bidirectional=half.bidirectional, kernel=half.kernel,
        window=half.window or 0, global_tokens=half.global_tokens,
    )  # fmt: skip
    decoder = make_decoder(decoder_kind, both, layers=layers[1], attention=attention, kernel=other.kernel)
    graph = GraphEncoder(both, layers=model.knowledge.layers) if model.knowledge.kind == "graph" else None
    ctc = CTCHead(width, target_size) if model.ctc else None
    return Seq2Seq(model, source, encoder, target, decoder, head, graph, ctc)


def _frontend(model: Model, embedding: nn.Embedding, positions: str, share: float) -> TextFrontend:
    return TextFrontend(
        embedding, positions=positions, longest=model.max_positions, share=share, words=model.dropout_word
    )


def _writing(
    model: Model, size: int, width: int, positions: str, share: float
) -> tuple[TextFrontend | NumbersFrontend, VocabularyHead | NumbersHead]:
    """What reads the target so far, and the head that says how it goes on."""
    if model.head in NUMBERS_HEADS:
        longest, ends = model.max_positions, _given(model.ends, "ends")
        numbers = NumbersFrontend(size, width, positions=positions, longest=longest, share=share,
                                  covariates=model.covariates)  # fmt: skip
        return numbers, NUMBERS_HEADS[model.head](width, size, ends)
    embedding = nn.Embedding(size, width)
    tied = _given(model.tie, "tie") != "none"
    output = embedding.get_parameter("weight") if tied else nn.Parameter(torch.empty(size, width))
    return _frontend(model, embedding, positions, share), HEADS[model.head or "vocabulary"](output)


@torch.no_grad()
def initialize(model: Seq2Seq, kind: str) -> None:
    """Fresh weights: `xavier` (Glorot and Bengio 2010), `normal` (0.02), or `deep`, Xavier with the last matrix of
    every feed-forward, multi-head and Conformer branch scaled by 1/sqrt(number of branches), so that a deep stack stays
    put.

    Embeddings begin small (0.02): a residual stream hands the input word through to the output, and with tied weights
    a large embedding would begin by betting all on repeating it."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            (nn.init.normal_(module.weight, std=0.02) if kind == "normal" else nn.init.xavier_uniform_(module.weight))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, Recurrent | RelationalAttention):
            module.initialize()
        elif isinstance(module, NumbersFrontend):
            nn.init.normal_(module.begin, std=0.02)
    if model.config.tie == "none" and isinstance(model.head, VocabularyHead):
        nn.init.normal_(model.head.weight, std=0.02)
    if kind == "deep" and model.config.residual:
        for stack in filter(None, (model.encoder, model.decoder, model.graph)):
            branches = sum(isinstance(module, Wrap) for module in stack.modules())
            for module in stack.modules():
                if isinstance(module, FeedForward | SelfAttention | MultiHead | RelationalAttention | ConformerLayer):
                    module.output.weight.mul_(1 / math.sqrt(branches))
