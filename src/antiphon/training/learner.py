"""The players of an objective: of each its module, flat parameters, optimizer, and the averages of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from antiphon.core.config import Config, Training
from antiphon.core.errors import BundleError
from antiphon.inference.bundle import WEIGHTS_FILE, bundle_files, tensors
from antiphon.inference.task import Task
from antiphon.training import optimizers
from antiphon.training.optimizers import Flat
from antiphon.training.regularizers import Average, Last, lent, penalize, pull

OPTIMIZER, AVERAGE, LAST = "training/optimizer.safetensors", "training/average.safetensors", "training/last.safetensors"
START = "training/start.safetensors"


class Learner:
    """Turns summed gradients into better weights. The model must be on its device already.

    `start` has the weights that `training.l2_start` pulls towards; checkpoints hold them too. `flat` are the weights of
    the model, `own` what the optimizer changes: the same, unless the weights are made from something else. The files of
    a player with a `name` are its own.
    """

    def __init__(
        self, model: nn.Module, settings: Training, start: Mapping[str, Tensor] | None = None, own: Flat | None = None,
        name: str = "",
    ) -> None:  # fmt: skip
        self.model, self.settings = model, settings
        self.weights_file = f"training/{name}.safetensors" if name else WEIGHTS_FILE
        self.optimizer_file = f"training/{name}_optimizer.safetensors" if name else OPTIMIZER
        self.flat = Flat(model)
        self.own = own or self.flat
        self.optimizer = optimizers.make(self.own, settings)
        self.average = Average(self.own, settings.ema) if settings.ema else None
        self.last = Last(settings.average)
        self.start = self._here(start or {}) if settings.l2_start else {}

    def ready(self, count: int) -> float:
        """Make the summed gradient that of the mean loss plus penalties, clipped; gives its norm before clipping."""
        if self.settings.l1 or self.settings.l2 or self.start:
            self.own.gradient.div_(max(1, count))
            penalize(self.own, self.settings)
            if self.start:
                pull(self.model, self.start, self.settings.l2_start)
            count = 1
        return optimizers.clip(self.own.gradient, self.settings.clip, max(1, count))

    def update(self, rate: float) -> None:
        """One optimizer step."""
        optimizers.set_rate(self.optimizer, rate)
        self.optimizer.step()
        if self.average:
            self.average.update()

    def judged(self) -> Tensor | None:
        """The weights that validation looks at, where they are not its own."""
        return self.average.weights if self.average else None

    @contextmanager
    def lent(self, weights: Tensor | None) -> Iterator[None]:
        """Let the model use other weights for a while (None: its own)."""
        with lent(self.own, weights):
            yield

    def contents(self, task: Task, config: Config, card: Mapping[str, Any]) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The model as the files of a bundle, and the card that goes into its manifest."""
        return bundle_files(model=self.model, task=task, config=config, card=card), dict(card)

    def validated(self) -> None:
        """Remember the weights that were just validated, where the last few are to be averaged."""
        if self.last.size > 1:
            judged = self.judged()
            self.last.add(self.own.weights if judged is None else judged)

    def finite(self) -> bool:
        """Whether every weight is a number."""
        return bool(torch.linalg.vector_norm(self.own.weights).isfinite())

    def files(self) -> dict[str, bytes]:
        """Everything but the weights, as the files of a checkpoint."""
        files = {self.optimizer_file: save(optimizers.tensors(self.optimizer))}
        if self.average:
            updates = torch.tensor(self.average.updates)
            files[AVERAGE] = save({"weights": self.average.weights, "updates": updates})
        if self.last.kept:
            files[LAST] = save({str(number): weights for number, weights in enumerate(self.last.kept)})
        if self.start:
            files[START] = save(self.start)
        return files

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Take over the weights of a checkpoint, and what `files` gave."""
        for name in (self.weights_file, self.optimizer_file):
            if name not in files:
                raise BundleError("the checkpoint lacks what a player has learned", where=name)
        self._load(files)
        optimizers.restore(self.optimizer, load(files[self.optimizer_file]))
        if self.average:
            if AVERAGE not in files:
                raise BundleError("the checkpoint has no averaged weights", where=AVERAGE)
            values = load(files[AVERAGE])
            self.average.weights.copy_(values["weights"])
            self.average.updates = int(values["updates"])
        # These files are the model's: a player without such settings must not take them for its own.
        kept = load(files[LAST]) if self.last.size > 1 and LAST in files else {}
        self.last.kept = [kept[str(number)].to(self.flat.weights.device) for number in range(len(kept))]
        if self.settings.l2_start and START in files:
            self.start = self._here(load(files[START]))

    def _here(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A copy on the model's device."""
        return {name: tensor.to(self.flat.weights.device, copy=True) for name, tensor in weights.items()}

    @torch.no_grad()
    def _load(self, files: Mapping[str, bytes]) -> None:
        weights = load(files[self.weights_file])
        self.flat.weights.zero_()  # also what lies between parameters
        for name, tensor in tensors(self.model).items():
            if name not in weights or weights[name].shape != tensor.shape:
                raise BundleError("the checkpoint's weights do not fit the model", where=self.weights_file, got=name)
            tensor.copy_(weights[name])


class Players:
    """The learner of the model, and those whom the objective sets beside it, by name."""

    def __init__(self, model: Learner, opponents: Mapping[str, tuple[nn.Module, Training]]) -> None:
        self.model, self.learners, device = model, {"model": model}, model.flat.weights.device
        for name, (module, settings) in opponents.items():
            plain = replace(settings, ema=0.0, average=0, l2_start=0.0)
            self.learners[name] = Learner(module.to(device), plain, name=name)
        self.models: Mapping[str, nn.Module] = {name: each.model for name, each in self.learners.items()}

    @property
    def size(self) -> int:
        """Parameters of all of them."""
        return sum(parameter.numel() for model in self.models.values() for parameter in model.parameters())

    def zero(self) -> None:
        """Forget all gradients."""
        for learner in self.learners.values():
            learner.flat.zero()

    def finite(self) -> bool:
        """Whether every weight is a number."""
        return all(learner.finite() for learner in self.learners.values())

    def files(self) -> dict[str, bytes]:
        """What a checkpoint keeps of them besides the model's weights."""
        files = self.model.files()
        for learner in (learner for learner in self.learners.values() if learner is not self.model):
            whole = {name: tensor.contiguous() for name, tensor in tensors(learner.model).items()}
            files |= {learner.weights_file: save(whole), **learner.files()}
        return files

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Take over what the files of a checkpoint hold."""
        for learner in self.learners.values():
            learner.restore(files)
