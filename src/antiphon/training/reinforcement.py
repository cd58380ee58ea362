"""Learning from a score of whole answers: self-critical and minimum-risk training, mixed with likelihood.

Both begin well only from a model that likelihood has trained. A gain may come from a sharper distribution alone,
whatever the reward (Choshen et al. 2020): compare with a run whose reward is `constant`.

Axes: B sources, S answers to each, N = B * S answers source by source, T steps, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from antiphon import metrics
from antiphon.core.batch import BOS, EOS, UNK, Batch, Loss, Memory, Padded, Steps
from antiphon.core.config import Config
from antiphon.core.errors import BundleError, ConfigError
from antiphon.data.modalities import Text
from antiphon.inference.bundle import tensors
from antiphon.inference.task import Task
from antiphon.metrics import Metric, Pooled
from antiphon.models.heads import of_tokens, pieces
from antiphon.models.seq2seq import Seq2Seq
from antiphon.training.distillation import from_settings
from antiphon.training.objectives import Likelihood, Objective

INITIAL = "training/initial.safetensors"
"""The weights that training began with, as a file of a checkpoint."""

CONSTANT = "constant"

STRANGERS = [chr(0x13000 + number) for number in range(1001)]
"""Words of one letter (Egyptian hieroglyphs) for those that no vocabulary has; the last one never matches."""


def make_objective(config: Config, task: Task) -> Objective:
    """The objective of the settings. Raises `ConfigError` where they contradict each other."""
    match config.training.objective:
        case "self-critical":
            return SelfCritical(config, task)
        case "minimum-risk":
            return MinimumRisk(config, task)
        case "adversarial":
            from antiphon.training.adversarial import Adversarial  # it builds on what is below

            return Adversarial(config, task)
        case "sequence-unlikelihood":
            from antiphon.training.repetition import SequenceUnlikelihood  # and so does it

            return SequenceUnlikelihood(config, task)
        case _:
            return from_settings(config.training, task)


class Drawing(Objective):
    """What objectives of drawn answers share: how they are drawn, measured, and mixed with likelihood."""

    players: tuple[str, ...] = ("model",)
    drawn: int
    """Answers to each source."""

    def __init__(self, config: Config, task: Task) -> None:
        settings = config.training
        self.settings, self.share, self.likelihood = settings, settings.likelihood, Likelihood(settings)
        self.task, self.most = task, config.decoding.max_length

    def begin(self, model: Seq2Seq, files: Mapping[str, bytes] | None) -> None:
        """Keep a copy of the model that training began with, for the divergence from it."""
        self.initial = deepcopy(model).requires_grad_(False).eval()
        if files is not None:
            _take(self.initial, files)
        self.content = save({name: tensor.contiguous() for name, tensor in tensors(self.initial).items()})

    def files(self) -> dict[str, bytes]:
        """That copy."""
        return {INITIAL: self.content}

    def mixed(
        self, total: Tensor, sums: dict[str, float], models: Mapping[str, Any], batch: Batch, progress: float
    ) -> dict[str, Loss]:
        """(1 - share) times this total plus share times likelihood; the count is of target tokens, as for that."""
        if self.share:
            total = (1 - self.share) * total + self.share * self.likelihood(models, batch, progress)["model"].total
        return {"model": Loss(total, batch.count, sums)}

    def answers(self, model: Seq2Seq, batch: Batch) -> tuple[Padded, Memory]:
        """Drawn answers, and the memory of each one's source, with its gradient."""
        memory, limits_N = remembered(model, batch, self.drawn), self.limits(model, batch)
        return draw(model, memory, limits_N, self.greedy(limits_N)), memory

    def limits(self, model: Seq2Seq, batch: Batch) -> Tensor:
        """Most tokens of each answer `[N]`, an end mark included, as a search would allow."""
        end = model.config.max_positions if model.config.positions == "learned" else 1 << 20
        limits = [min(end, 1 + (self.most or self.task.limit(length))) for length in batch.lengths_B.tolist()]
        return torch.tensor(limits, device=batch.labels_BT.device).repeat_interleave(self.drawn)

    def measured(
        self, model: Seq2Seq, memory: Memory, batch: Batch, answers: Padded
    ) -> tuple[Tensor, dict[str, float]]:
        """The log probability of each token `[N, T]`, with its gradient; and sums of what is logged of them."""
        steps = forced(model, memory, answers)
        log_probs_NT = of_tokens(model.words, steps, memory, answers)
        self.initial.to(model.words.weight.dtype)  # in bf16 with a twin, so that nothing but learning parts them
        sums = self._shape(model, steps, memory, batch, answers)
        return log_probs_NT, {"tokens": float(answers.lengths_B.sum()), **sums}

    @torch.no_grad()
    def _shape(self, model: Seq2Seq, steps: Steps, memory: Memory, batch: Batch, answers: Padded) -> dict[str, float]:
        """Of the first answer to each source: the number of its tokens, and summed over them the entropy of each next
        token and its divergence from what the initial model expects."""
        many = len(answers.lengths_B) // len(batch.labels_BT)
        first_B = torch.arange(0, len(answers.lengths_B), many, device=answers.values.device)
        first, known = Padded(answers.values[first_B], answers.lengths_B[first_B]), remembered(self.initial, batch, 1)
        now = pieces(steps.rows(first_B), memory.rows(first_B), first.mask_BL)
        before = pieces(forced(self.initial, known, first), known, first.mask_BL)
        entropy, divergence = 0.0, 0.0
        for one, other in zip(now, before, strict=True):
            now_MV, before_MV = model.log_probs(*one)[:, 0], self.initial.log_probs(*other)[:, 0]
            chances_MV = now_MV.exp()
            entropy -= float((chances_MV * now_MV).sum())
            divergence += float((chances_MV * (now_MV - before_MV)).sum())
        return {"looked": float(first.lengths_B.sum()), "entropy": entropy, "divergence": divergence}

    @abstractmethod
    def greedy(self, limits_N: Tensor) -> Tensor:
        """True for answers that are to be the likeliest, and not drawn."""


class SequenceLevel(Drawing):
    """(1 - share) times what a subclass makes of drawn answers and their rewards, plus share times likelihood.

    Sums are over sources; the count is of target tokens, as for likelihood. Answers are drawn, scored and learned from
    without dropout, so that the gradient is that of the distribution that they were drawn from; likelihood keeps it.
    """

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        self.reward = Reward(config.training.reward, task)

    def __call__(self, models: Mapping[str, Any], batch: Batch, progress: float) -> dict[str, Loss]:
        model = models["model"]
        with no_dropout(model):
            answers, memory_N = self.answers(model, batch)
            rewards_BS = self.reward(batch, answers).view(-1, self.drawn)
            total, sums = self.learn(model, memory_N, batch, answers, rewards_BS)
        return self.mixed(total, sums, models, batch, progress)

    def facts(self, loss: Loss) -> dict[str, float]:
        """Reward with its variance, advantage, length, share of identical answers; entropy and divergence a token."""
        sums = loss.sums
        count, tokens = sums["answers"], sums["tokens"]
        reward = sums["reward"] / count
        return {
            "reward": reward, "reward_variance": max(0.0, sums["squares"] / count - reward**2),
            "advantage": sums["advantage"] / count, "length": tokens / count, "identical": sums["identical"] / count,
            **looks(sums),
        }  # fmt: skip

    @abstractmethod
    def learn(
        self, model: Seq2Seq, memory: Memory, batch: Batch, answers: Padded, rewards_BS: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """What is to be minimized, summed over sources, and sums of what is logged."""


class SelfCritical(SequenceLevel):
    """Self-critical sequence training (Rennie et al. 2017; Paulus et al. 2018).

    A drawn answer becomes likelier by as much as it is better than the greedy one. With a constant reward nothing would
    be better than anything: there the greedy answer does not count, and every drawn one becomes likelier.
    """

    drawn = 2

    def greedy(self, limits_N: Tensor) -> Tensor:
        """Every second answer."""
        return torch.arange(len(limits_N), device=limits_N.device) % 2 == 1

    def learn(
        self, model: Seq2Seq, memory: Memory, batch: Batch, answers: Padded, rewards_BS: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Minus the advantage times the log probability of the drawn answer."""
        places = torch.arange(0, len(answers.lengths_B), 2, device=rewards_BS.device)
        drawn, best = answers.rows(places), answers.rows(places + 1)
        reward_B, greedy_B = rewards_BS.unbind(1)
        advantage_B = reward_B if self.reward.constant else reward_B - greedy_B
        log_probs_BT, sums = self.measured(model, memory.rows(places), batch, drawn)
        same = sum(map(torch.equal, _listed(drawn), _listed(best)))
        return -(advantage_B * log_probs_BT.sum(1)).sum(), sums | _rewarded(reward_B, advantage_B, same)


class MinimumRisk(SequenceLevel):
    """Minimum risk training (Shen et al. 2016): the expected reward among drawn answers, each counted once.

    An answer's share of the expectation is its probability to the power `risk_sharpness`, divided by the sum of these.
    The risk is divided by the sharpness, which else would only scale the gradient. A constant reward has no gradient
    here, so that its run is more training by likelihood.
    """

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        self.drawn, self.sharpness = config.training.samples, config.training.risk_sharpness
        if self.drawn < 2:
            do = "set training.samples to 2 or more"
            raise ConfigError("minimum risk compares answers to one source", got="training.samples=1", do=do)

    def greedy(self, limits_N: Tensor) -> Tensor:
        """None."""
        return torch.zeros_like(limits_N, dtype=torch.bool)

    def learn(
        self, model: Seq2Seq, memory: Memory, batch: Batch, answers: Padded, rewards_BS: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Minus the expected reward."""
        log_probs_NT, sums = self.measured(model, memory, batch, answers)
        again_BS = repeated(answers.values.view(len(rewards_BS), self.drawn, -1))
        powers_BS = (self.sharpness * log_probs_NT.sum(1).view_as(rewards_BS)).masked_fill(again_BS, -torch.inf)
        expected_B = (powers_BS.softmax(1) * rewards_BS).sum(1)
        advantage_BS = rewards_BS - expected_B.detach()[:, None]
        return -expected_B.sum() / self.sharpness, sums | _rewarded(rewards_BS, advantage_BS, int(again_BS.sum()))


def looks(sums: Mapping[str, float]) -> dict[str, float]:
    """Entropy of the next token and its divergence from what the initial model expects, in nats a token."""
    return {"entropy": sums["entropy"] / sums["looked"], "kl": sums["divergence"] / sums["looked"]}


def _rewarded(rewards: Tensor, advantage: Tensor, identical: int) -> dict[str, float]:
    sums = {"reward": rewards.sum(), "squares": rewards.double().square().sum(), "advantage": advantage.sum()}
    return {name: float(value) for name, value in sums.items()} | {
        "answers": float(rewards.numel()), "identical": float(identical),
    }  # fmt: skip


def _listed(answers: Padded) -> list[Tensor]:
    return [row[:length] for row, length in zip(answers.values, answers.lengths_B.tolist(), strict=True)]


def repeated(values_BST: Tensor) -> Tensor:
    """True where an answer, padded, equals an earlier one to the same source, `[B, S]`."""
    same_BSS = (values_BST[:, :, None] == values_BST[:, None]).all(3)
    return same_BSS.tril(-1).any(2)


def _take(model: nn.Module, files: Mapping[str, bytes]) -> None:
    weights = load(files[INITIAL]) if INITIAL in files else {}
    for name, tensor in tensors(model).items():
        if name not in weights or weights[name].shape != tensor.shape:
            raise BundleError("the checkpoint lacks the weights that training began with", where=INITIAL, got=name)
        tensor.copy_(weights[name])


# Answers


@contextmanager
def no_dropout(model: nn.Module) -> Iterator[None]:
    """The model without dropout for a while; afterwards each part is as it was."""
    before = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in before:
            # On a GPU recurrent kernels have no gradient outside training; they have no dropout of their own.
            module.training = isinstance(module, nn.RNNBase)
        yield
    finally:
        for module, mode in before:
            module.training = mode


def remembered(model: Seq2Seq, batch: Batch, times: int) -> Memory:
    """The memory of the batch's sources, each so many times."""
    memory = model.encode(batch.source, batch.context)
    rows = torch.arange(len(batch.labels_BT), device=batch.labels_BT.device)
    return memory.rows(rows.repeat_interleave(times))


def draw(model: Seq2Seq, memory: Memory, limits_N: Tensor, greedy_N: Tensor, begun_NT: Tensor | None = None) -> Padded:
    """Answers token by token from the model's own chances, or the likeliest token where `greedy_N`, one a memory row.

    They include the end mark; one that reaches its limit has none. Random numbers are PyTorch's. Where `begun_NT` is
    not negative it is the token, so that answers go on from beginnings.
    """
    with torch.inference_mode():
        values_NT, lengths_N = _drawn(model, memory, limits_N, greedy_N, begun_NT)
    return Padded(values_NT.clone(), lengths_N.clone())  # else no gradient could flow by these tensors


def _drawn(
    model: Seq2Seq, memory: Memory, limits_N: Tensor, greedy_N: Tensor, begun_NT: Tensor | None
) -> tuple[Tensor, Tensor]:
    place_N = torch.arange(len(limits_N), device=limits_N.device)
    values_NT = limits_N.new_zeros(len(limits_N), int(limits_N.max()))
    lengths_N, left_N = torch.zeros_like(limits_N), limits_N.clone()
    token_N, state = torch.full_like(limits_N, BOS), model.start(memory)
    for step in range(values_NT.shape[1]):
        steps, state = model.decode(token_N[:, None], memory, state)
        log_probs_NV = model.log_probs(steps, memory)[:, 0]
        token_N = torch.where(greedy_N, log_probs_NV.argmax(1), chosen(log_probs_NV.exp()))
        if begun_NT is not None and step < begun_NT.shape[1]:
            told_N = begun_NT[place_N, step]
            token_N = torch.where(told_N < 0, token_N, told_N)
        values_NT[place_N, step] = token_N
        lengths_N[place_N] = step + 1
        going = ((token_N != EOS) & (left_N > step + 1)).nonzero().squeeze(1)
        if not len(going):
            break
        if len(going) < len(token_N):
            place_N, token_N, greedy_N, left_N = place_N[going], token_N[going], greedy_N[going], left_N[going]
            memory, state = memory.rows(going), {name: value[going] for name, value in state.items()}
    return values_NT[:, : int(lengths_N.max())], lengths_N


def chosen(chances_NV: Tensor) -> Tensor:
    """One index of each row by its chances: the first where their running sum exceeds a random share of the whole."""
    running_NV = chances_NV.cumsum(1, dtype=torch.float64)
    share_N = torch.rand(len(chances_NV), 1, dtype=torch.float64, device=chances_NV.device)
    index_N = torch.searchsorted(running_NV, share_N * running_NV[:, -1:], right=True).squeeze(1)
    return index_N.clamp_max(chances_NV.shape[1] - 1)


def forced(model: Seq2Seq, memory: Memory, answers: Padded) -> Steps:
    """All steps of given answers at once, one answer a memory row."""
    begin = answers.values.new_full((len(answers.lengths_B), 1), BOS)
    steps, _ = model.decode(torch.cat([begin, answers.values[:, :-1]], 1), memory, model.start(memory))
    return steps


# Rewards


class Reward:
    """The sum of sentence scores of metrics named `bleu+rougeL`, each divided by 100 and, of error rates, negative.

    `constant` gives 1 for every answer. Raises `ConfigError` for a name that is no metric of single sentences.
    """

    def __init__(self, names: str, task: Task) -> None:
        self.task, self.constant = task, names == CONSTANT
        self.metrics = [] if self.constant else [_metric(name) for name in names.split("+")]

    def __call__(self, batch: Batch, answers: Padded) -> Tensor:
        """The reward of each answer `[N]`; there are as many to each source of the batch."""
        if self.constant:
            return torch.ones(len(answers.lengths_B), device=answers.values.device)
        known: dict[tuple[str, str], float] = {}
        for each in (texts := list(self.texts(batch, answers))):
            if each not in known:
                known[each] = self.score(*each)
        return torch.tensor([known[each] for each in texts], device=answers.values.device)

    def score(self, answer: str, reference: str) -> float:
        """The reward of one answer."""
        signs = [1 if metric.higher_is_better else -1 for metric in self.metrics]
        found = [metric.sentence(metric.stats(answer, [reference])) for metric in self.metrics]
        return sum(sign * value for sign, value in zip(signs, found, strict=True)) / 100

    def texts(self, batch: Batch, answers: Padded) -> Iterator[tuple[str, str]]:
        """Each answer and its reference as text. An unknown token in an answer matches nothing."""
        rows, size = len(batch.labels_BT), len(self.task.words.vocabulary)
        times, drawn = len(answers.lengths_B) // rows, _listed(answers)
        for row, label in enumerate(_listed(batch.target)):
            extra = self.extra(batch, row)
            reference = self.task.answer(label.tolist(), extra)
            for answer in drawn[row * times : (row + 1) * times]:
                ids = [size + len(extra) if token == UNK else token for token in answer.tolist()]
                yield self.task.answer(ids, [*extra, STRANGERS[-1]]), reference

    def extra(self, batch: Batch, row: int) -> list[str]:
        """What ids past the target vocabulary stand for: the source's token, or a letter where that is unknown too."""
        if "copy" not in batch.context or not isinstance(self.task.source, Text):
            return []
        size, tokens = len(self.task.words.vocabulary), self.task.source.vocabulary.tokens
        found: dict[int, str] = {}
        read = [(batch.context["copy"], batch.source)]
        read += [(batch.context["fact_copy"], batch.context["facts"])] if "facts" in batch.context else []
        both = (zip(ids.values[row].tolist(), words.values[row].tolist(), strict=False) for ids, words in read)
        for number, token in chain.from_iterable(both):
            if number >= size:
                stranger = STRANGERS[(number - size) % (len(STRANGERS) - 1)]
                found.setdefault(number - size, stranger if token == UNK else tokens[token])
        return [found.get(number, STRANGERS[-1]) for number in range(max(found, default=-1) + 1)]


def _metric(name: str) -> Metric:
    if not name:
        do = "name a metric, such as rougeL, or several joined by +"
        raise ConfigError("training.reward names no metric", got=repr(name), do=do)
    metric = metrics.of_text(name)
    if isinstance(metric, Pooled):
        raise ConfigError("training.reward needs a metric of single answers", got=name, do="choose another metric")
    return metric
