"""What tells people's answers from a model's: an encoder over the source, one over the answer, and a comparison."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from antiphon.core.batch import Padded
from antiphon.models.attention import Common
from antiphon.models.encoders import make_encoder
from antiphon.models.frontends import TextFrontend
from antiphon.models.linear import Linear
from antiphon.models.recurrent import KERNELS, Recurrent

DROPOUT = 0.2


class Discriminator(nn.Module):
    """The chance that a person gave this answer to this source (Li et al. 2017). Reads beginnings of answers as well.

    Encoders of one layer with embeddings of their own: it shares nothing with the model that it judges.
    """

    def __init__(self, kind: str, source_size: int, target_size: int, width: int) -> None:
        super().__init__()
        positions = "sinusoidal" if kind in ("transformer", "conv") else "none"
        inner = 2 * width if kind == "transformer" else 0
        common = Common(
            width=width, feedforward=inner, heads=4, positions=positions, norm="pre", norm_kind="layer",
            activation="tanh" if kind == "rnn" else "relu", residual=True, dropout=DROPOUT, dropout_attention=0.0,
            dropout_recurrent=0.0,
        )  # fmt: skip

        def frontend(size: int) -> TextFrontend:
            return TextFrontend(nn.Embedding(size, width), positions=positions, longest=0, share=DROPOUT, words=0.0)

        self.source, self.answer = frontend(source_size), frontend(target_size)
        self.recurrent = kind in KERNELS
        self.reader = make_encoder(kind, common, layers=1, bidirectional=True, kernel=3)
        self.listener = make_encoder(kind, common, layers=1, bidirectional=False, kernel=3)
        self.inner, self.output = Linear(3 * width, width), Linear(width, 1)
        self._initialize(width)

    def read(self, source: Padded) -> Tensor:
        """What is to be answered, `[B, D]`."""
        found: Tensor = self.reader(self.source(source.values), source.mask_BL).summary_BD
        return found

    def forward(self, source_ND: Tensor, answers: Padded) -> Tensor:
        """The logit of the chance `[N]`, one answer for each row of what `read` gave."""
        return self._compare(source_ND, self.listener(self.answer(answers.values), answers.mask_BL).summary_BD)

    def beginnings(self, source_ND: Tensor, answers: Padded) -> Tensor:
        """The logit for the first t tokens of each answer, t from 1 on, `[N, T]`; of no meaning beyond its length."""
        if self.recurrent:  # one direction, so that the state at a token is the summary of all up to it
            states_NTD = self.listener(self.answer(answers.values), answers.mask_BL).states_BSD
            return self._compare(source_ND[:, None].expand_as(states_NTD), states_NTD)
        logits_NT = source_ND.new_zeros(answers.values.shape)
        row_M, last_M = answers.mask_BL.nonzero(as_tuple=True)
        logits_NT[row_M, last_M] = self(source_ND[row_M], Padded(answers.values[row_M], last_M + 1))
        return logits_NT

    def _compare(self, source_XD: Tensor, answer_XD: Tensor) -> Tensor:
        both = torch.cat([source_XD, answer_XD, source_XD * answer_XD], dim=-1)
        return self.output(torch.relu(self.inner(both))).squeeze(-1)

    @torch.no_grad()
    def _initialize(self, width: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                nn.init.xavier_uniform_(module.weight)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=width**-0.5)
            elif isinstance(module, Recurrent):
                module.initialize()


def make_discriminator(kind: str, source_size: int, target_size: int, width: int, *, seed: int = 1) -> Discriminator:
    """A discriminator with fresh weights that depend on the arguments alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Discriminator(kind, source_size, target_size, width)
