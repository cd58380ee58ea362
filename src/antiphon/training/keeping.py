"""What a run keeps: the best model as a bundle, and checkpoints, which are bundles with a `training/` folder inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from antiphon.core.config import Config
from antiphon.core.errors import BundleError
from antiphon.inference import bundle
from antiphon.inference.task import Task
from antiphon.metrics import Score
from antiphon.training.checkpoint import STATE, Checkpoints, Found, State
from antiphon.training.learner import Learner


class Keeper:
    """Makes files of a model as it is now. `pairs` are those it learns from, `facts` what is known of them."""

    def __init__(
        self, out: Path, config: Config, task: Task, learner: Learner, pairs: int, facts: Mapping[str, Any]
    ) -> None:
        self.out, self.config, self.task, self.learner = out, config, task, learner
        self.pairs, self.facts, self.checkpoints = pairs, facts, Checkpoints(out)
        self.unsaved: tuple[dict[str, bytes], dict[str, Any]] | None = None

    def best(self, state: State, seconds: float, scores: Mapping[str, Score]) -> None:
        """The model is the best so far; `write_best` writes it as it was now."""
        self.unsaved = self._contents(state, seconds, scores)

    def write_best(self, state: State) -> None:
        """Write the best model, if it is not yet on disk. `OSError` where the disk fails."""
        if self.unsaved is not None:
            files, card = self.unsaved
            files[STATE] = state.to_bytes()
            bundle.write_folder(self.out / "best", files, facts=bundle.facts(card))
            self.unsaved = None

    def write(self, state: State, training: Mapping[str, bytes]) -> None:
        """Write a checkpoint with these files of training. `OSError` where the disk fails."""
        files, card = self._contents(state, state.seconds, {})
        self.checkpoints.save(state, {**files, **training}, bundle.facts(card))

    def rescue(self, state: State) -> Found:
        """The checkpoint to roll back to, or the newest where a full disk kept that one from being written."""
        try:
            return self.checkpoints.load(state.anchor)
        except BundleError:
            return self.checkpoints.newest()

    def _contents(
        self, state: State, seconds: float, scores: Mapping[str, Score]
    ) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The files of a bundle, and what its card says."""
        known = {key: self.facts[key] for key in ("data", "command", "trained_from", "taught_by") if key in self.facts}
        hashed = self.facts.get("train", self.facts.get("store", ""))
        spent = {"steps": state.step, "minutes": round(seconds / 60, 2)}
        card = {**known, "data_hash": hashed, "pairs": self.pairs, **spent, "scores": list(scores.values())}
        return self.learner.contents(self.task, self.config, card)
