"""Adversarial learning of answers: a discriminator tells them from people's, and the model learns to be taken for one.

Each step has several turns of the discriminator, then one of the model, on the same sources. A discriminator's gradient
cannot go through drawn tokens: its chance that the answer is a person's is a reward (SeqGAN, Yu et al. 2017; for
dialogue Li et al. 2017), and teacher forcing goes on beside it. Axes are those of `reinforcement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.core.batch import Batch, Loss, Memory, Padded
from antiphon.core.config import Config, Training
from antiphon.core.errors import ConfigError
from antiphon.data.batching import mix
from antiphon.inference.task import Task
from antiphon.models.discriminator import Discriminator, make_discriminator
from antiphon.models.seq2seq import Seq2Seq
from antiphon.training import reinforcement
from antiphon.training.collapse import Collapse
from antiphon.training.objectives import Turn
from antiphon.training.reinforcement import Drawing, no_dropout, remembered, repeated

STREAM = 0xAD
"""Parts the discriminator's first weights from other draws by the same seed."""

ROWS = 1024
"""Beginnings that go on together, each with a memory of its own."""


class Adversarial(Drawing):
    """The policy gradient of the discriminator's verdict, token by token, mixed with likelihood.

    A token counts for what it adds to the chance to be taken for a person: the value of the answer up to it, minus that
    of the answer before it. The value of a beginning is the mean verdict over ends that the model draws (roll-outs), or
    the verdict of a discriminator that learns from random beginnings (REGS, Li et al. 2017). The value before a token
    does not depend on it, so it is a baseline that leaves the gradient what it is in the mean.
    """

    players = ("discriminator", "model")
    metrics = ("distinct1", "distinct2")
    drawn = 1

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        settings = config.training
        if settings.discriminator_width % 4:
            do = "take 64, say"
            got = settings.discriminator_width
            raise ConfigError("training.discriminator_width must be a multiple of 4", got=got, do=do)
        self.rollouts, self.watcher = settings.rollouts, Collapse(settings.collapse)

    def begin(self, model: Seq2Seq, files: Mapping[str, bytes] | None) -> None:
        """Keep a copy of the model, and go on watching."""
        super().begin(model, files)
        if files is not None:
            self.watcher.restore(files)

    def files(self) -> dict[str, bytes]:
        """The copy, and what was watched."""
        return super().files() | self.watcher.files()

    def opponents(self, model: Seq2Seq) -> dict[str, tuple[nn.Module, Training]]:
        """The discriminator. It learns at a constant rate from the first step on, while the model's still warms up."""
        settings = self.settings
        seed = mix(settings.seed, STREAM)
        module = make_discriminator(
            settings.discriminator, model.source_size, model.target_size, settings.discriminator_width, seed=seed
        )
        return {"discriminator": (module, replace(
            settings, optimizer="adam", rate=settings.discriminator_rate, schedule="constant", warmup=0, clip=1.0,
            l1=0.0, l2=0.0,
        ))}  # fmt: skip

    def turns(self) -> Sequence[Turn]:
        """Several of the discriminator, then the model's."""
        return (*[self.tell_apart] * self.settings.discriminator_turns, self)

    # The discriminator's turn

    def tell_apart(self, models: Mapping[str, Any], batch: Batch, progress: float) -> dict[str, Loss]:
        """Cross-entropy of who gave each answer, over as many drawn ones as there are people's."""
        model, judge = models["model"], models["discriminator"]
        with torch.no_grad(), no_dropout(model):
            answers, _ = self.answers(model, batch)
        whole = bool(self.rollouts)
        source_BD = judge.read(batch.source)
        logits = [judge(source_BD, said if whole else beginning(said)) for said in (batch.target, answers)]
        signed_2B = torch.cat([logits[0], -logits[1]])  # high where it is right
        return {"discriminator": Loss(F.softplus(-signed_2B).sum(), len(signed_2B))}

    # The model's turn

    def __call__(self, models: Mapping[str, Any], batch: Batch, progress: float) -> dict[str, Loss]:
        model, judge = models["model"], models["discriminator"]
        with no_dropout(model), no_dropout(judge):
            answers, memory = self.answers(model, batch)
            log_probs_BT, sums = self.measured(model, memory, batch, answers)
            with torch.no_grad():
                source_BD = judge.read(batch.source)
                values_BT = self.values(model, judge, batch, source_BD, answers)
                people_B = judge(source_BD, batch.target).sigmoid()
        advantage_BT = (values_BT[:, 1:] - values_BT[:, :-1]).masked_fill(~answers.mask_BL, 0.0)
        ends_B = values_BT.gather(1, answers.lengths_B[:, None]).squeeze(1)
        sums |= _told(ends_B, people_B, answers)
        return self.mixed(-(advantage_BT * log_probs_BT).sum(), sums, models, batch, progress)

    def values(self, model: Seq2Seq, judge: Discriminator, batch: Batch, source_BD: Tensor, answers: Padded) -> Tensor:
        """The chance to be taken for a person of each answer's first t tokens, `[B, T + 1]`, t from 0 on."""
        many, steps = answers.values.shape
        values_BT = source_BD.new_zeros(many, steps + 1)
        if self.rollouts:
            row_N, taken_N = answers.mask_BL.nonzero(as_tuple=True)  # beginnings that leave something to be said
            memory, limits_B = remembered(model, batch, 1), self.limits(model, batch)
            values_BT[row_N, taken_N] = torch.cat([
                self._ends(model, judge, memory.rows(rows), limits_B[rows], source_BD[rows], begun)
                for rows, begun in zip(row_N.split(ROWS), _begun(answers, row_N, taken_N).split(ROWS), strict=True)
            ])  # fmt: skip
            place_B = torch.arange(many, device=row_N.device)
            values_BT[place_B, answers.lengths_B] = judge(source_BD, answers).sigmoid()
        else:
            values_BT[:, 0] = 0.5  # nothing is said, and nothing known
            values_BT[:, 1:] = judge.beginnings(source_BD, answers).sigmoid().masked_fill(~answers.mask_BL, 0.0)
        return values_BT

    def _ends(
        self, model: Seq2Seq, judge: Discriminator, memory: Memory, limits_N: Tensor, source_ND: Tensor,
        begun_NT: Tensor,
    ) -> Tensor:  # fmt: skip
        """The mean verdict on answers that the model draws from each beginning on (roll-outs)."""
        total_N = source_ND.new_zeros(len(source_ND))
        for _ in range(self.rollouts):
            ends = reinforcement.draw(model, memory, limits_N, self.greedy(limits_N), begun_NT)
            total_N += judge(source_ND, ends).sigmoid()
        return total_N / self.rollouts

    def greedy(self, limits_N: Tensor) -> Tensor:
        """None."""
        return torch.zeros_like(limits_N, dtype=torch.bool)

    def facts(self, loss: Loss) -> dict[str, float]:
        """Discriminator accuracy on whole answers, reward; of drawn answers length, entropy, divergence, variety.

        Distinct-2 and the share of identical answers are among those that were drawn together.
        """
        sums, answers, tokens = loss.sums, loss.sums["answers"], loss.sums["tokens"]
        return {
            "accuracy": sums["right"] / (2 * answers), "reward": sums["reward"] / answers,
            **reinforcement.looks(sums), "length": tokens / answers,
            "distinct2": sums["pairs"] / max(1.0, sums["all_pairs"]), "identical": sums["identical"] / answers,
        }  # fmt: skip


def beginning(answers: Padded) -> Padded:
    """A random beginning of each answer, of at least one token, and perhaps the whole."""
    lengths_B = (torch.rand(len(answers.lengths_B), device=answers.lengths_B.device) * answers.lengths_B).long() + 1
    return Padded(answers.values, lengths_B.minimum(answers.lengths_B))


def _begun(answers: Padded, row_N: Tensor, taken_N: Tensor) -> Tensor:
    """The first so many tokens of those answers, then -1, `[N, T]`."""
    free_NT = torch.arange(answers.values.shape[1], device=row_N.device) >= taken_N[:, None]
    return answers.values[row_N].masked_fill(free_NT, -1)


def _told(ends_B: Tensor, people_B: Tensor, answers: Padded) -> dict[str, float]:
    """Sums of what is logged; a verdict of one half is no verdict, and counts as half right."""
    right = sum(float((side > 0.5).sum()) + 0.5 * float((side == 0.5).sum()) for side in (people_B, 1 - ends_B))
    pairs = torch.stack([answers.values[:, :-1], answers.values[:, 1:]], 2)[answers.mask_BL[:, 1:]]
    return {
        "answers": float(len(ends_B)), "reward": float(ends_B.sum()), "right": right, "all_pairs": float(len(pairs)),
        "pairs": float(len(pairs.unique(dim=0))), "identical": float(repeated(answers.values[None]).sum()),
    }  # fmt: skip
