"""The whole model: frontend, encoder, memory, decoder, head; and the one place that builds it from a configuration."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from antiphon.core.batch import Batch, Loss, Memory, Padded, State, Steps
from antiphon.core.config import Model
from antiphon.core.errors import ConfigError
from antiphon.models.attention import FeedForward, MultiHead, SelfAttention
from antiphon.models.decoders import Decoder, make_decoder
from antiphon.models.encoders import Encoder, make_encoder
from antiphon.models.frontends import TextFrontend
from antiphon.models.heads import HEADS, VocabularyHead, coverage_loss
from antiphon.models.recurrent import Recurrent


class Seq2Seq(nn.Module):
    """An encoder-decoder: any encoder, any decoder, any attention, any head."""

    def __init__(
        self, config: Model, source: TextFrontend, encoder: Encoder, target: TextFrontend, decoder: Decoder,
        head: VocabularyHead,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = config
        self.source, self.encoder, self.target, self.decoder, self.head = source, encoder, target, decoder, head

    @property
    def source_size(self) -> int:
        """Tokens in the source vocabulary."""
        return self.source.embedding.num_embeddings

    @property
    def target_size(self) -> int:
        """Tokens in the target vocabulary."""
        return self.target.embedding.num_embeddings

    def encode(self, source: Padded, copy_BS: Tensor | None = None) -> Memory:
        """Source ids `[B, S]` to the memory; `copy_BS` as in `Batch.context["copy"]`."""
        memory = self.encoder(self.source(source.values), source.mask_BL)
        return Memory(memory.states_BSD, memory.mask_BS, memory.summary_BD, copy_BS)

    def start(self, memory: Memory) -> State:
        """The decoder's state before its first step, one row a sentence."""
        return self.decoder.start(memory)

    def decode(self, tokens_NT: Tensor, memory: Memory, state: State) -> tuple[Steps, State]:
        """The next steps after `state`, for tokens that begin with BOS; N is B or a multiple (hypotheses)."""
        return self.decoder(self.target(tokens_NT, state["step"]), memory, state)  # type: ignore[no-any-return]

    def log_probs(self, steps: Steps, memory: Memory) -> Tensor:
        """Log probabilities of the next token in fp32, `[N, T, V]`; wider with a copy head."""
        return self.head.log_probs(steps, memory)

    def forward(self, batch: Batch) -> tuple[Steps, Memory]:
        """Teacher forcing: all steps of the targets at once."""
        copies = batch.context.get("copy")
        memory = self.encode(batch.source, None if copies is None else copies.values)
        steps, _ = self.decode(batch.inputs_BT, memory, self.start(memory))
        return steps, memory

    def loss(self, batch: Batch, *, smoothing: float = 0.0, coverage: float = 0.0) -> Loss:
        """Negative log likelihood in nats, summed over target tokens; plus `coverage` times the coverage loss."""
        steps, memory = self(batch)
        loss = self.head.loss(steps, memory, batch.labels_BT, smoothing)
        if coverage:
            loss = Loss(loss.total + coverage * coverage_loss(steps, batch.labels_BT), loss.count)
        return loss


def build(model: Model, source_size: int, target_size: int, *, seed: int = 1) -> Seq2Seq:
    """A model with fresh weights that depend on the arguments alone. Every optional field must have a value."""
    _check(model, source_size, target_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _assemble(model, source_size, target_size)
        initialize(network, model.initialization)
    return network


def _check(model: Model, source_size: int, target_size: int) -> None:
    groups = [("model", model), ("model.encoder", model.encoder), ("model.decoder", model.decoder)]
    for prefix, group in groups:
        for name, value in vars(group).items():
            if value is None and name != "dropout_embedding":
                raise ConfigError(f"{prefix}.{name} has no value", do="let the recipe propose one, or set it")
    if model.tie == "all" and source_size != target_size:
        raise ConfigError("model.tie=all needs one vocabulary", got=f"{source_size} and {target_size} tokens",
                          do="set data.shared=true or model.tie=target")  # fmt: skip


def _assemble(model: Model, source_size: int, target_size: int) -> Seq2Seq:
    assert model.width and model.encoder.kind and model.decoder.kind and model.encoder.layers and model.decoder.layers
    assert model.feedforward is not None and model.attention and model.positions and model.norm and model.activation
    assert model.residual is not None and model.dropout is not None
    embedded = model.dropout if model.dropout_embedding is None else model.dropout_embedding
    target = nn.Embedding(target_size, model.width)
    source = target if model.tie == "all" else nn.Embedding(source_size, model.width)
    output = nn.Parameter(torch.empty(target_size, model.width)) if model.tie == "none" else target.weight

    def frontend(embedding: nn.Embedding, kind: str) -> TextFrontend:
        positions = model.positions if kind in ("transformer", "conv") else "none"
        return TextFrontend(
            embedding, positions=positions, longest=model.max_positions, share=embedded, words=model.dropout_word
        )

    # Both halves take these; what only one takes is named below.
    width, inner, heads, places = model.width, model.feedforward, model.heads, model.positions
    norm, norm_kind, kind, residual = model.norm, model.norm_kind, model.activation, model.residual
    rates = model.dropout, model.dropout_attention, model.dropout_recurrent
    encoder = make_encoder(
        model.encoder.kind, width=width, layers=model.encoder.layers, feedforward=inner, heads=heads,
        bidirectional=model.encoder.bidirectional, kernel=model.encoder.kernel, positions=places, norm=norm,
        norm_kind=norm_kind, activation=kind, residual=residual, dropout=rates[0], dropout_attention=rates[1],
        dropout_recurrent=rates[2],
    )  # fmt: skip
    decoder = make_decoder(
        model.decoder.kind, width=width, layers=model.decoder.layers, feedforward=inner, heads=heads,
        attention=model.attention, kernel=model.decoder.kernel, positions=places, norm=norm, norm_kind=norm_kind,
        activation=kind, residual=residual, dropout=rates[0], dropout_attention=rates[1], dropout_recurrent=rates[2],
    )  # fmt: skip
    return Seq2Seq(
        model, frontend(source, model.encoder.kind), encoder, frontend(target, model.decoder.kind), decoder,
        HEADS[model.head](output),
    )  # fmt: skip


@torch.no_grad()
def initialize(model: Seq2Seq, kind: str) -> None:
    """Fresh weights: `xavier` (Glorot and Bengio 2010), `normal` (0.02), or `deep`, Xavier with the last matrix of
    every residual branch scaled by 1/sqrt(number of branches), so that the sum over a deep stack stays put."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d):
            (nn.init.normal_(module.weight, std=0.02) if kind == "normal" else nn.init.xavier_uniform_(module.weight))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif isinstance(module, Recurrent):
            module.initialize()
    if model.config.tie == "none":
        nn.init.normal_(model.head.weight, std=model.head.weight.shape[1] ** -0.5)
    if kind == "deep" and model.config.residual:
        for stack in (model.encoder, model.decoder):
            branches = sum(len(layer.wraps) for layer in stack.layers)  # type: ignore[arg-type,misc]
            for module in stack.modules():
                if isinstance(module, FeedForward | SelfAttention | MultiHead):
                    module.output.weight.mul_(1 / math.sqrt(branches))
