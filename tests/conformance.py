"""What every architecture must hold, as plain functions on a model: run by test_conformance, broken by test_teeth."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from antiphon.core.batch import EOS, Batch, Padded, State, of_sentence, pad
from antiphon.core.config import Decoder, Decoding, Encoder, Frontend, Knowledge, Model
from antiphon.inference.ctc import joint
from antiphon.inference.search import rescore, search
from antiphon.models.seq2seq import Seq2Seq, build

ENCODERS = ("rnn", "lstm", "gru", "conv", "transformer", "conformer")
DECODERS = ("rnn", "lstm", "gru", "conv", "transformer", "ssru")
ATTENTIONS = ("none", "additive", "coverage", "location", "dot", "general", "multihead")
HEADS = ("vocabulary", "copy")
UNPLACED = [attention for attention in ATTENTIONS if attention != "location"]
KNOWING = [
    *zip(ENCODERS, DECODERS, UNPLACED, ["vocabulary"] * 6, strict=True),
    *zip(
        ("lstm", "gru", "conv", "transformer", "rnn", "gru"),
        DECODERS,
        (*UNPLACED[1:], "dot"),
        ["copy"] * 6,
        strict=True,
    ),
]
"""With a graph encoder: each encoder, decoder, attention that needs no order, and head."""
REDUCERS = {"stack": 6, "conv": 6, "conv2d": 6, "pyramid": 6, "pictures": 12 * 12 * 3}
"""With the features of a frame; those of pictures are square."""
LENGTHS = (7, 13, 2)
"""Frames of the three sources, where these are no text."""
SIZE = 20

SOURCES = [[5, 6, 7, EOS], [8, 9, 10, 11, 12, 13, EOS], [5, EOS]]
TARGETS = [[4, 5, EOS], [6, 21, EOS], [4, 5, 6, 7, 8, EOS]]
COPIES = [[4, 6, 7, EOS], [8, 9, 20, 11, 21, 13, EOS], [5, EOS]]


GRAPHS = {
    "facts": [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], []],
    "fact_node": [[1, 1, 2, 3, 4, 5, 5], [1, 2, 3], []],
    "fact_subject": [[0, 0, 0, 1, 0, 1, 1], [0, 0, 2], []],
    "fact_object": [[0, 0, 0, 2, 0, 4, 4], [0, 0, 1], []],
    "fact_copy": [[5, 20, 7, 8, 9, 10, 11], [21, 13, 22], []],
}
"""Two facts with one subject, a fact, and none."""


PARTS = (ENCODERS, DECODERS, ATTENTIONS, HEADS)


def combinations() -> Iterator[Model]:
    """Every encoder with every decoder, attention and head; copying needs attention."""
    for parts in itertools.product(*PARTS):
        if parts[2:] != ("none", "copy"):
            yield model(*parts)


def architectures() -> list[Any]:
    """All combinations and variants, as parameters of a test for which two combinations of three are slow: in the
    others every two parts still meet, with either head."""
    found = [pytest.param(config, id=label(config)) for config in variants()]
    for config in combinations():
        chosen = config.encoder.kind, config.decoder.kind, config.attention, config.head
        place = sum(kinds.index(str(kind)) for kinds, kind in zip(PARTS, chosen, strict=True))
        found.append(pytest.param(config, id=label(config), marks=[pytest.mark.slow] if place % 3 else []))
    return found


def variants() -> Iterator[Model]:
    """The settings that do not need the whole product: positions, norms, activations, ties, directions, depths."""
    for positions in ("none", "sinusoidal", "learned", "rotary", "t5", "alibi"):
        for family in ("transformer", "conv"):
            yield model(family, family, positions=positions)
        yield model("conformer", "transformer", positions=positions)
    for norm, kind, residual in itertools.product(("none", "pre", "post"), ("layer", "rms"), (True, False)):
        if residual:  # without, so deep a stack lets nothing of the target through
            yield model("transformer", "ssru", norm=norm, norm_kind=kind, residual=residual)
            yield model("conformer", "gru", norm=norm, norm_kind=kind)
        yield model("lstm", "gru", "dot", norm=norm, norm_kind=kind, residual=residual)
    for activation in ("relu", "leaky_relu", "gelu", "swiglu", "tanh"):
        yield model("rnn", "transformer", activation=activation)
    for tie, start in (("none", "xavier"), ("all", "normal"), ("target", "deep")):
        yield model("conv", "lstm", tie=tie, initialization=start)
    for encoder, decoder, attention, head in KNOWING:
        yield model(encoder, decoder, attention, head, knowledge="graph")
    for reducer, reduce in itertools.product(REDUCERS, (1, 2, 4, 8)):
        yield model(("lstm", "transformer", "conv")[reduce % 3], "gru", frontend=Frontend(kind=reducer, reduce=reduce))
    yield model("gru", "rnn", encoder_extra=Encoder(kind="gru", layers=1, bidirectional=False), feedforward=32)
    yield model("conformer", "lstm", feedforward=0)
    for encoder, decoder in zip(ENCODERS, DECODERS, strict=True):
        yield model(encoder, decoder, ctc=True)


def model(
    encoder: str, decoder: str, attention: str = "multihead", head: str = "vocabulary", *,
    positions: str = "sinusoidal", norm: str = "pre",
    norm_kind: str = "layer", residual: bool = True, activation: str = "relu", tie: str = "target",
    initialization: str = "xavier", feedforward: int | None = None, encoder_extra: Encoder | None = None,
    dropout: float = 0.0, knowledge: str = "none", frontend: Frontend | None = None, ctc: bool = False,
) -> Model:  # fmt: skip
    """A small configuration."""
    modern = {encoder, decoder} & {"transformer", "conformer", "ssru"}
    return Model(
        encoder=encoder_extra or Encoder(kind=encoder, layers=2), decoder=Decoder(kind=decoder, layers=2), width=16,
        feedforward=feedforward if feedforward is not None else 32 if modern else 0, heads=4, attention=attention,
        positions=positions, norm=norm, norm_kind=norm_kind, activation=activation, residual=residual, tie=tie,
        head=head, initialization=initialization, dropout=dropout, knowledge=Knowledge(kind=knowledge), ctc=ctc,
        frontend=frontend or Frontend(),
    )  # fmt: skip


def label(config: Model) -> str:
    """A short name for test ids."""
    known = [config.knowledge.kind] if config.knowledge.kind != "none" else []
    known += [f"{config.frontend.kind}{config.frontend.reduce}"] if config.frontend.kind else []
    known += ["ctc"] if config.ctc else []
    parts = [
        *known,
        config.encoder.kind,
        config.decoder.kind,
        config.attention,
        config.head,
        config.positions,
        config.norm,
    ]
    return "-".join(map(str, [*parts, config.norm_kind, config.activation, config.tie, config.residual]))


def share(network: Seq2Seq) -> float:
    """Of a CTC head in losses and scores, where there is one."""
    return 0.3 if network.ctc is not None else 0.0


def made(config: Model) -> tuple[Seq2Seq, Batch]:
    """The model, ready to answer, with weights big enough for a mistake to show, and a ragged batch for it."""
    signal = config.frontend.kind is not None
    network = build(config, REDUCERS[config.frontend.kind] if config.frontend.kind else SIZE, SIZE, seed=3).eval()
    with torch.no_grad():
        network.head.bias[EOS] += 1.5  # so that some hypotheses end before the limit
        tables = set() if signal else {network.source.embedding.weight}
        for bias in (weight for weight in network.source.parameters() if signal and weight.dim() == 1):
            bias.add_(0.3)  # what is nothing before a layer is something after it
        for table in tables | {network.target.embedding.weight, network.head.weight}:
            table.mul_(0.25 / table.std())
    copying = config.head == "copy"
    targets = TARGETS if copying else [[min(token, SIZE - 1) for token in target] for target in TARGETS]
    context = {"copy": pad(COPIES)} if copying else {}
    if config.knowledge.kind == "graph":
        context |= {name: pad(rows) for name, rows in GRAPHS.items() if copying or name != "fact_copy"}
    return network, Batch(frames(network.source_size) if signal else pad(SOURCES), pad(targets), context)


def frames(features: int) -> Padded:
    """Three sources of frames, with what must not be heard in the padding."""
    draw = torch.Generator().manual_seed(4)
    return Padded(torch.randn(len(LENGTHS), max(LENGTHS), features, generator=draw), torch.tensor(LENGTHS))


@torch.no_grad()
def check_steps(network: Seq2Seq, batch: Batch) -> None:
    """One step at a time, or in two pieces, gives what all steps at once give."""
    steps, memory = network(batch)
    at_once = network.log_probs(steps, memory)
    inputs = batch.inputs_BT
    for cuts in (range(1, inputs.shape[1] + 1), (2, inputs.shape[1])):
        state, done, outputs, weights = network.start(memory), 0, [], []
        for cut in cuts:
            part, state = network.decode(inputs[:, done:cut], memory, state)
            outputs.append(network.log_probs(part, memory))
            weights.append(part.weights_BTS)
            done = cut
        _same(torch.cat(outputs, 1), at_once, "step by step differs from all at once")
        _same(torch.cat(weights, 1), steps.weights_BTS, "weights step by step differ")


@torch.no_grad()
def check_padding(network: Seq2Seq, batch: Batch) -> None:
    """A pair's steps, summary and loss are what they are alone, however much padding stands beside it."""
    wide = Batch(_wider(batch.source), _wider(batch.target), {k: _wider(v) for k, v in batch.context.items()})
    steps, memory = network(wide)
    total = 0.0
    for row in range(len(batch.source.lengths_B)):
        alone = batch.rows(torch.tensor([row]))
        one, its = network(alone)
        length, real = alone.target.values.shape[1], memory.mask_BS[row]
        assert int(real.sum()) == len(its.mask_BS[0]), "padding changes how much is read"
        _same(memory.summary_BD[row], its.summary_BD[0], "padding changes the summary")
        _same(steps.hidden_BTD[row, :length], one.hidden_BTD[0], "padding changes the steps")
        weights = steps.weights_BTS[row, :length]
        _same(weights[:, real], one.weights_BTS[0], "padding changes the weights")
        assert not weights[:, ~real].any(), "padding is looked at"
        total += float(network.loss(alone, smoothing=0.1, coverage=0.5, ctc=share(network)).total)
    loss = network.loss(wide, smoothing=0.1, coverage=0.5, ctc=share(network)).total
    _same(loss, torch.tensor(total), "padding changes the loss", 1e-3)
    assert network.loss(wide).count == batch.count, "padding is counted"


@torch.no_grad()
def check_facts(network: Seq2Seq, batch: Batch) -> None:
    """Every token of a fact and both ends of a relation reach the answer; padding and the order of facts do not."""
    if "facts" not in batch.context:
        return
    said, facts = network(batch)[0].hidden_BTD, batch.context["facts"]

    def changed(name: str, row: int, place: int, value: int) -> Tensor:
        values = batch.context[name].values.clone()
        values[row, place] = value
        context = {**batch.context, name: Padded(values, facts.lengths_B)}
        other = network(Batch(batch.source, batch.target, context))[0].hidden_BTD
        return (other - said)[row, : int(batch.target.lengths_B[row])].abs().max()

    for row, place in itertools.product(range(2), range(facts.values.shape[1])):
        moved = changed("facts", row, place, 15)
        assert (moved > 0) == (place < facts.lengths_B[row]), "a fact is lost, or padding is read"
    assert changed("fact_subject", 0, 3, 4) > 0, "the subject of a relation is lost"
    assert changed("fact_object", 0, 3, 4) > 0, "the object of a relation is lost"
    order = torch.tensor([3, 4, 5, 6, 2, 0, 1])
    graph = ("facts", "fact_node", "fact_subject", "fact_object", "fact_copy")
    context = {name: Padded(padded.values[:, order], padded.lengths_B) if name in graph else padded
               for name, padded in batch.rows(torch.tensor([0])).context.items()}  # fmt: skip
    other = network(Batch(*(each.rows(torch.tensor([0])) for each in (batch.source, batch.target)), context))
    _same(other[0].hidden_BTD[0], said[0, : other[0].hidden_BTD.shape[1]], "the order of facts changes the steps")


@torch.no_grad()
def check_future(network: Seq2Seq, batch: Batch) -> None:
    """What is said at a step does not depend on later target tokens, and does depend on earlier ones."""
    steps, _ = network(batch)
    changed = batch.target.values.clone()
    changed[2, 3] = 9
    other, _ = network(Batch(batch.source, Padded(changed, batch.target.lengths_B), batch.context))
    _same(other.hidden_BTD[2, :4], steps.hidden_BTD[2, :4], "the future is seen")
    assert (other.hidden_BTD[2, 4] - steps.hidden_BTD[2, 4]).abs().max() > 0, "the past is not seen"


@torch.no_grad()
def check_probabilities(network: Seq2Seq, batch: Batch) -> None:
    """Probabilities sum to one, and the loss is their plain negative log likelihood."""
    steps, memory = network(batch)
    log_probs = network.log_probs(steps, memory)
    _same(log_probs.exp().sum(2), torch.ones(log_probs.shape[:2]), "probabilities do not sum to one", 1e-4)
    picked = log_probs.gather(2, batch.labels_BT[..., None]).squeeze(2)
    plain = -picked.masked_fill(~batch.target.mask_BL, 0.0).sum()
    _same(network.loss(batch).total, plain, "loss is not the negative log likelihood", 1e-3)


def check_source(network: Seq2Seq, batch: Batch) -> None:
    """Every source position reaches the answer, and every weight gets a finite gradient."""
    network.zero_grad()
    if network.config.frontend.kind:
        _check_frames(network, batch)
        return
    caught: list[Tensor] = []
    hook = network.source.register_forward_hook(lambda _, __, output: (output.retain_grad(), caught.append(output))[0])
    network.loss(batch, smoothing=0.1, ctc=share(network)).total.backward()
    hook.remove()
    gradient = caught[0].grad
    assert gradient is not None
    reached = gradient.abs().sum(2) > 0
    assert torch.equal(reached, batch.source.mask_BL), "a source position is lost, or padding is read"
    for name, weight in network.named_parameters():
        assert weight.grad is not None, f"{name} is not trained"
        assert weight.grad.isfinite().all(), f"{name} has a gradient that is not finite"


def _check_frames(network: Seq2Seq, batch: Batch) -> None:
    values = batch.source.values.clone().requires_grad_()
    network.loss(Batch(Padded(values, batch.source.lengths_B), batch.target), smoothing=0.1).total.backward()
    assert values.grad is not None
    assert torch.equal(values.grad.abs().sum(2) > 0, batch.source.mask_BL), "a frame is lost, or padding is heard"


def check_search(network: Seq2Seq, batch: Batch) -> None:
    """Beam scores are rescored scores; a beam of one is greedy; a batch answers as its members do alone."""
    limits = [6] * len(batch.source.lengths_B)
    several, weight = Decoding(beam=3, n_best=3, ctc=share(network)), share(network)
    beam = search([network], batch.source, several, max_lengths=limits, context=batch.context)
    for row, hypotheses in enumerate(beam):
        alone = batch.rows(torch.tensor([row]))
        again = search([network], alone.source, several, max_lengths=[6], context=alone.context)[0]
        assert [h.tokens for h in hypotheses] == [h.tokens for h in again], "the batch changes the answer"
    ended = [(row, each) for row, hypotheses in enumerate(beam) for each in hypotheses if each.finished]
    if ended:
        each = batch.rows(torch.tensor([row for row, _ in ended]))
        scored = rescore([network], each.source, [found.tokens for _, found in ended], several, context=each.context)
        for (_, found), other in zip(ended, scored, strict=True):
            assert abs(other.score - found.score) < 1e-4, "beam score is not the rescored score"
    single = search([network], batch.source, Decoding(beam=1, ctc=weight), max_lengths=limits, context=batch.context)
    assert [h[0].tokens for h in single] == greedy(network, batch, 6), "a beam of one is not greedy"


@torch.no_grad()
def greedy(network: Seq2Seq, batch: Batch, longest: int) -> list[list[int]]:
    """The plainest decoding there is: no cache, the whole prefix again at every step."""
    [whole] = joint([network], share(network))
    memory = whole.encode(batch.source, batch.context)
    tokens = torch.full((len(memory.mask_BS), 1), 2)
    for _ in range(longest + 1):
        steps, _ = whole.decode(tokens, memory, whole.start(memory))
        scores = whole.log_probs(steps, memory)[:, -1].clone()
        scores[:, [0, 2]] = -torch.inf
        tokens = torch.cat([tokens, scores.argmax(1, keepdim=True)], 1)
    rows = [row[1:] for row in tokens.tolist()]
    return [row[: row.index(EOS)] if EOS in row[: longest + 1] else row[:longest] for row in rows]


@torch.no_grad()
def check_saving(network: Seq2Seq, batch: Batch) -> None:
    """Weights written and read into a fresh model give the same numbers to the bit."""
    unique = {name: weight for name, weight in network.state_dict().items() if name != "head.weight"}
    if network.config.tie == "none":
        unique["head.weight"] = network.state_dict()["head.weight"]
    if network.config.tie == "all":
        unique.pop("target.embedding.weight")
    fresh = build(network.config, network.source_size, SIZE, seed=9).eval()
    fresh.load_state_dict(load(save({k: v.contiguous() for k, v in unique.items()})), strict=False)
    assert torch.equal(fresh(batch)[0].hidden_BTD, network(batch)[0].hidden_BTD), "a saved model answers differently"


@torch.no_grad()
def check_folding(network: Seq2Seq, batch: Batch) -> None:
    """Several hypotheses a sentence give what each gives alone, without a copy of the memory for each."""
    steps, memory = network(batch)
    state: State = {
        name: value if of_sentence(name) else value.repeat_interleave(2, 0)
        for name, value in network.start(memory).items()
    }
    other = batch.inputs_BT.clone()
    other[:, 1] = 7
    both = torch.stack([batch.inputs_BT, other], 1).flatten(0, 1)
    folded, _ = network.decode(both, memory, state)
    _same(folded.hidden_BTD[::2], steps.hidden_BTD, "a second hypothesis changes the first")


def _wider(padded: Padded) -> Padded:
    """Three more positions of padding."""
    values = torch.nn.functional.pad(padded.values, (0, 0) * (padded.values.dim() - 2) + (0, 3))
    return Padded(values, padded.lengths_B)


def _same(left: Tensor, right: Tensor, message: str, tolerance: float = 2e-5) -> None:
    difference = (left - right).abs().max().item()
    assert difference <= tolerance, f"{message} ({difference:.2g})"


CHECKS = (
    check_steps, check_padding, check_future, check_probabilities, check_source, check_search, check_saving,
    check_folding, check_facts,
)  # fmt: skip
