"""What training minimizes. An objective names its players and gives each a `Loss`: a sum, and what it is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from antiphon.core.batch import BOS, Batch, Loss, Memory, Padded, Steps
from antiphon.core.config import Training
from antiphon.core.errors import ConfigError
from antiphon.models.forecasting import NumbersHead
from antiphon.models.heads import coverage_loss
from antiphon.models.seq2seq import Seq2Seq

STEPWISE = ("rnn", "lstm", "gru", "ssru")
"""Decoders that read one token after another anyway, so that scheduled sampling can be exact."""


SEQUENCE_LEVEL = ("self-critical", "minimum-risk", "adversarial", "sequence-unlikelihood")
"""Objectives that learn from whole answers of the model."""

Turn = Callable[[Mapping[str, Any], Batch, float], dict[str, Loss]]
"""The losses of the players that learn in a part of a step, from all models, a batch, and how far training is."""


class Objective(Protocol):
    """Losses of a batch. Each player has its own optimizer; `progress` is the share of training done, 0 to 1."""

    players: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    """What validation tells of held-out answers besides the metric that it judges by."""
    watcher: Any = None
    """An observer of the objective's own; `files` must keep what it remembers."""

    def __call__(self, models: Mapping[str, Any], batch: Batch, progress: float) -> dict[str, Loss]:
        """The loss of each player."""

    def turns(self) -> Sequence[Turn]:
        """What is learned one after another from the batches of a step; a player learns in its turn alone."""
        return (self,)

    def opponents(self, model: Seq2Seq) -> dict[str, tuple[nn.Module, Training]]:
        """The players besides the model, fresh, with how each one learns. Checkpoints keep them, bundles do not."""
        return {}

    def begin(self, model: Seq2Seq, files: Mapping[str, bytes] | None) -> None:
        """The model as training begins; when it goes on, the files of its checkpoint too."""
        return None

    def files(self) -> dict[str, bytes]:
        """What a checkpoint must keep of it."""
        return {}

    def facts(self, loss: Loss) -> dict[str, float]:
        """What is logged of a step with this loss, by name."""
        return {}


@dataclass(frozen=True)
class Fed(Batch):
    """A batch whose decoder reads other inputs than its own targets."""

    inputs: Padded | None = None

    @property
    def inputs_BT(self) -> Tensor:
        assert self.inputs is not None
        return self.inputs.values

    def rows(self, index: Tensor) -> Batch:
        assert self.inputs is not None
        plain = Batch(self.source, self.target, self.context).rows(index)
        return Fed(plain.source, plain.target, plain.context, self.inputs.rows(index))


class Likelihood(Objective):
    """Cross-entropy of the right token (maximum likelihood), with label smoothing where asked for.

    Adds scheduled sampling and R-Drop as the settings say.
    """

    players: tuple[str, ...] = ("model",)

    def __init__(self, settings: Training) -> None:
        self.smoothing = settings.label_smoothing or 0.0
        self.coverage, self.r_drop, self.sampling = settings.coverage, settings.r_drop, settings.scheduled_sampling
        self.ctc = settings.ctc or 0.0

    def __call__(self, models: Mapping[str, Any], batch: Batch, progress: float) -> dict[str, Loss]:
        model = models["model"]
        if self.sampling:
            batch = sampled(model, batch, self.sampling * min(1.0, progress))
        if self.r_drop:
            return {"model": r_drop(model, batch, self.r_drop, self.smoothing, self.coverage, self.ctc)}
        return {"model": model.loss(batch, smoothing=self.smoothing, coverage=self.coverage, ctc=self.ctc)}

    def facts(self, loss: Loss) -> dict[str, float]:
        """What a CTC head loses, where there is one."""
        return heard(loss)


class Unlikelihood(Objective):
    """Likelihood, and `weight` times unlikelihood of what the target had before and does not have here."""

    players: tuple[str, ...] = ("model",)

    def __init__(self, settings: Training) -> None:
        if settings.r_drop:
            raise ConfigError("training.objective=unlikelihood has no R-Drop", do="leave out training.r_drop")
        self.smoothing, self.weight = settings.label_smoothing or 0.0, settings.unlikelihood
        self.ctc = settings.ctc or 0.0
        self.coverage, self.sampling = settings.coverage, settings.scheduled_sampling

    def __call__(self, models: Mapping[str, Any], batch: Batch, progress: float) -> dict[str, Loss]:
        model = models["model"]
        if self.sampling:
            batch = sampled(model, batch, self.sampling * min(1.0, progress))
        steps, memory = model(batch)
        loss = model.head.loss(steps, memory, batch.labels_BT, self.smoothing)
        against = unlikelihood(model.log_probs(steps, memory), batch.target)
        total = loss.total + self.weight * against
        if self.coverage:
            total = total + self.coverage * coverage_loss(steps, batch.labels_BT)
        loss = Loss(total, loss.count, {"unlikelihood": float(against.detach())})
        return {"model": model.heard(loss, memory, batch, self.ctc)}

    def facts(self, loss: Loss) -> dict[str, float]:
        """Nats of unlikelihood a target token, without its weight."""
        return {"unlikelihood": loss.sums["unlikelihood"] / max(1, loss.count), **heard(loss)}


def heard(loss: Loss) -> dict[str, float]:
    """Nats that a CTC head loses a target token, and the targets that their sources had no room for."""
    if "ctc" not in loss.sums:
        return {}
    return {"ctc": loss.sums["ctc"] / max(1, loss.count), "ctc_too_short": loss.sums["ctc_too_short"]}


def unlikelihood(log_probs_BTV: Tensor, target: Padded) -> Tensor:
    """Sum over the target's steps of -log(1 - p(c)), for each token c that was before and is not the right one.

    The token level of Welleck et al. (2020). A token that was before several times counts once.
    """
    labels_BT, length = target.values, target.values.shape[1]
    same_BTT = labels_BT[:, :, None] == labels_BT[:, None]
    place = torch.arange(length, device=labels_BT.device)
    before_TT = place < place[:, None]
    first_BT = ~(same_BTT & before_TT).any(2)
    against_BTT = before_TT & ~same_BTT & first_BT[:, None] & target.mask_BL[:, :, None]
    chances_BTT = log_probs_BTV.gather(2, labels_BT[:, None].expand(-1, length, -1)).exp()
    return -(1 - chances_BTT).clamp_min(LEAST).log().masked_fill(~against_BTT, 0.0).sum()


LEAST = 1e-5
"""The least chance that something else comes, so that its logarithm stays finite."""


def token_level(settings: Training) -> Objective:
    """The objective of the settings, where it needs the batch alone."""
    return Unlikelihood(settings) if settings.objective == "unlikelihood" else Likelihood(settings)


def r_drop(model: Seq2Seq, batch: Batch, weight: float, smoothing: float, coverage: float, ctc: float = 0.0) -> Loss:
    """The mean loss of two passes with different dropout, plus `weight` times their divergence.

    R-Drop (Wu et al. 2021): the symmetric Kullback-Leibler divergence of the two predictions, summed over real target
    tokens. Both passes go through as one batch of twice the rows.
    """
    size = batch.labels_BT.shape[0]
    twice = batch.rows(torch.arange(size, device=batch.labels_BT.device).repeat(2))
    steps, memory = model(twice)
    loss = model.words.loss(steps, memory, twice.labels_BT, smoothing)
    if coverage:
        loss = Loss(loss.total + coverage * coverage_loss(steps, twice.labels_BT), loss.count)
    loss = model.heard(loss, memory, twice, ctc)
    chosen = model.log_probs(steps, memory)[twice.target.mask_BL]
    first, second = chosen.chunk(2)
    apart = torch.where((first > FLOOR) & (second > FLOOR), (first.exp() - second.exp()) * (first - second), 0.0)
    sums = {name: value / 2 for name, value in loss.sums.items()}
    return Loss(loss.total / 2 + weight * apart.sum() / 2, loss.count // 2, sums)


FLOOR = -60.0
"""Log probabilities below this count as impossible: they add nothing to a divergence, and no infinity."""


def sampled(model: Seq2Seq, batch: Batch, share: float) -> Batch:
    """The batch with a random share of its decoder inputs taken from the model's own predictions.

    Of numbers, it is told its own best guess. Recurrent decoders make each prediction after what they really read
    (Bengio et al. 2015); parallel ones from a first pass over the right tokens (Mihaylova & Martins 2019). No gradient
    flows through the choice.
    """
    take_BT = torch.rand(batch.inputs_BT.shape[:2], device=batch.inputs_BT.device) < share
    take_BT[:, 0] = False
    with torch.no_grad():
        if model.config.decoder.kind in STEPWISE:
            inputs = _step_by_step(model, batch, take_BT)
        else:
            steps, memory = model(batch)
            said_BT = _said(model, steps, memory)
            inputs = torch.where(_beside(take_BT, said_BT), _shifted(said_BT), batch.inputs_BT)
    return Fed(batch.source, batch.target, batch.context, Padded(inputs, batch.target.lengths_B))


def _shifted(said_BT: Tensor) -> Tensor:
    begin = said_BT[:, :1] * 0 + BOS
    return torch.cat([begin, said_BT[:, :-1]], dim=1)


def _said(model: Seq2Seq, steps: Steps, memory: Memory) -> Tensor:
    """The likeliest tokens `[B, T]`, or the best guess at numbers `[B, T, F]`."""
    if isinstance(model.head, NumbersHead):
        return model.head.point(steps)
    return model.log_probs(steps, memory).argmax(-1)


def _beside(take: Tensor, said: Tensor) -> Tensor:
    """The choice with an axis for features where there are some."""
    return take if take.dim() == said.dim() else take[..., None]


def _step_by_step(model: Seq2Seq, batch: Batch, take_BT: Tensor) -> Tensor:
    memory = model.encode(batch.source, batch.context)
    state = model.start(memory)
    right_BT, read, said_B = batch.inputs_BT, [], batch.inputs_BT[:, 0]
    for step in range(right_BT.shape[1]):
        read.append(torch.where(_beside(take_BT[:, step], said_B), said_B, right_BT[:, step]))
        steps, state = model.decode(read[-1][:, None], memory, state)
        said_B = _said(model, steps, memory)[:, -1]
    return torch.stack(read, dim=1)
