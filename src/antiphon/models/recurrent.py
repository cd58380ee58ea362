"""The recurrent kernels that encoders and decoders share: whole sequences at once, one direction, batch first."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from antiphon.core.batch import State
from antiphon.models.functional import dropout

KERNELS: dict[str, type[nn.RNN] | type[nn.LSTM] | type[nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """RNN (Elman 1990), LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al. 2014), one layer, one direction.

    Recurrent dropout drops weights, not states (DropConnect; Merity et al. 2018), so the sequence still runs at once.
    """

    def __init__(self, kind: str, width: int, hidden: int, activation: str, share: float) -> None:
        super().__init__()
        self.share = share
        if kind == "rnn":
            nonlinearity = "relu" if activation == "relu" else "tanh"
            self.kernel: nn.RNNBase = nn.RNN(width, hidden, batch_first=True, nonlinearity=nonlinearity)
        else:
            self.kernel = KERNELS[kind](width, hidden, batch_first=True)
        self.names = ("hidden", "cell") if kind == "lstm" else ("hidden",)

    def forward(self, x_BTD: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Hidden states `[B, T, D]` and the last state, each `[B, D]` by name."""
        past: Tensor | tuple[Tensor, ...] | None = None
        if state is not None:
            parts = tuple(state[name][None].contiguous() for name in self.names)
            past = parts if len(parts) == 2 else parts[0]
        if self.share and self.training:
            weight = {"weight_hh_l0": dropout(self.kernel.get_parameter("weight_hh_l0"), self.share, True)}
            y_BTD, last = functional_call(self.kernel, weight, (x_BTD, past))
        else:
            y_BTD, last = self.kernel(x_BTD, past)
        parts = last if isinstance(last, tuple) else (last,)
        return y_BTD, {name: part[0] for name, part in zip(self.names, parts, strict=True)}

    @torch.no_grad()
    def initialize(self) -> None:
        """Orthogonal recurrent matrices, Xavier inputs, an LSTM that begins by remembering (Jozefowicz et al. 2015)."""
        hidden = self.kernel.hidden_size
        for name, weight in self.kernel.named_parameters():
            if weight.dim() == 1:
                weight.zero_()
                if "bias_ih" in name and "cell" in self.names:
                    weight[hidden : 2 * hidden] = 1.0
                continue
            for gate in weight.split(hidden):
                (nn.init.orthogonal_ if "weight_hh" in name else nn.init.xavier_uniform_)(gate)
