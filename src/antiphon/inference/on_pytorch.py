"""PyTorch as an engine: every network, alone or as an ensemble, and all that a search can be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from antiphon.core.config import Decoding
from antiphon.data.batching import collate
from antiphon.data.numbers import Numbers
from antiphon.data.store import Example
from antiphon.inference.ctc import heard
from antiphon.inference.hypothesis import Hypothesis
from antiphon.inference.rollout import roll_out
from antiphon.inference.search import Look, Tell, search
from antiphon.inference.task import Task
from antiphon.models.seq2seq import Seq2Seq

if TYPE_CHECKING:
    from antiphon.inference.engines import Asked


class PyTorch:
    """Answers by one network, or by the mean of several."""

    name, whole = "PyTorch", False

    def __init__(self, models: Sequence[Seq2Seq], task: Task) -> None:
        self.models, self.task = models, task
        self.device = next(models[0].parameters()).device

    def lacks(self, settings: Decoding, asked: Asked) -> str:
        """Nothing."""
        return ""

    def search(
        self, asked: Sequence[Asked], settings: Decoding, *, batch_size: int, details: bool, look: Look | None = None,
        tell: Tell | None = None,
    ) -> list[list[Hypothesis]]:  # fmt: skip
        """What the search, or for numbers the roll-out, finds for one batch; `look` and `tell` are those of the search,
        but where a CTC head is to say more of what was found, that is not told early."""
        sources, longest = [each.source for each in asked], self._longest
        batch = collate([Example(source.ids, [], source.context) for source in sources]).to(self.device)
        limits, numbers = [min(each.limit, longest) for each in asked], [each.number for each in asked]
        if isinstance(self.task.target, Numbers):
            rolled = roll_out(
                self.models, batch.source, settings, max_lengths=limits, context=batch.context, sample_ids=numbers
            )
            return [list[Hypothesis](each) for each in rolled]
        found = search(
            self.models, batch.source, settings, max_lengths=limits, context=batch.context,
            constraints=[each.constraint for each in asked], sample_ids=numbers, look=look,
            tell=tell if self.models[0].ctc is None else None,
        )  # fmt: skip
        return heard(self.models[0], batch, found)

    @property
    def _longest(self) -> int:
        """Learned positions end somewhere."""
        ends = [model.config.max_positions - 1 for model in self.models if model.config.positions == "learned"]
        return min(ends, default=1 << 20)
