"""Training an adapter: the model's weights are the frozen ones with its addition, and only its factors learn.

The model finds the gradient of its weights as always; that of the factors follows by the chain rule. So nothing of the
network, of bf16 or of several processes knows of adapters. The optimizer's memory is that of the factors alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from antiphon.core.config import Config
from antiphon.core.errors import BundleError, ConfigError
from antiphon.inference.adapters import Adapter, file_names
from antiphon.inference.adapters import restore as restore_adapters
from antiphon.inference.bundle import CARD, CONFIG_FILE, Bundle, facts, model_card, read, read_config
from antiphon.inference.strict_json import load_json
from antiphon.inference.task import Task
from antiphon.models.adapters import Factors, added, fresh, slopes
from antiphon.training.checkpoint import Found
from antiphon.training.finetuning import Start
from antiphon.training.learner import Learner
from antiphon.training.optimizers import Flat
from antiphon.training.regularizers import lent


@dataclass(frozen=True)
class Base:
    """The bundle that an adapter is trained for: its files, which the new bundle has byte for byte, and its card."""

    config: Config
    files: Mapping[str, bytes]
    card: Mapping[str, Any]

    @classmethod
    def of(cls, bundle: Bundle) -> Base:
        """Of a bundle that was loaded."""
        manifest, files = read(bundle.path)
        return cls(bundle.config, files, manifest.get("card") or {})

    @classmethod
    def wanted(cls, start: Start | None, config: Config) -> Base | None:
        """Of the model to start from, where an adapter is to be trained."""
        return cls.of(start.bundle) if start is not None and config.model.adapter.name else None

    @classmethod
    def again(cls, found: Found, name: str) -> Base:
        """From a checkpoint of the training of the adapter `name`."""
        own = file_names(name)
        files = {key: content for key, content in found.files.items()
                 if key not in own and not key.startswith("training/")}  # fmt: skip
        return cls(
            read_config(load_json(files[CONFIG_FILE], where=CONFIG_FILE)), files, found.manifest.get("card") or {}
        )


class AdapterLearner(Learner):
    """The player whose model has an adapter to learn; all that the adapter does not change must be frozen."""

    def __init__(self, model: nn.Module, config: Config, base: Base) -> None:
        self.config, self.base = config, base
        self.changed = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._keep()
        made = fresh(self.changed, config.model.adapter.rank, config.training.seed)
        parts = nn.ParameterList([part for factors in made.values() for part in factors])
        super().__init__(model, config.training, own=Flat(parts))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        self.factors = {name: Factors(*pair) for name, pair in zip(made, pairs, strict=True)}

    def ready(self, count: int) -> float:
        """Make the gradient of the factors from the summed one of the weights; gives its norm before clipping."""
        for name, factors in self.factors.items():
            slope = self.changed[name].grad
            assert slope is not None
            for part, found in zip(factors, slopes(slope, factors, self.config.model.adapter.scale), strict=True):
                assert part.grad is not None
                part.grad.copy_(found)
        return super().ready(count)

    def update(self, rate: float) -> None:
        """One optimizer step, and the weights that follow from it."""
        super().update(rate)
        self._merge()

    @contextmanager
    def lent(self, weights: Tensor | None) -> Iterator[None]:
        """Let the model use other factors for a while (None: its own)."""
        try:
            with lent(self.own, weights):
                self._merge()
                yield
        finally:
            self._merge()

    def contents(self, task: Task, config: Config, card: Mapping[str, Any]) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The files of the base as they are, and the adapter's; and the card of the base."""
        factors = {name: Factors(*(part.detach() for part in both)) for name, both in self.factors.items()}
        name = config.model.adapter.name
        adapter = Adapter(name, config, task.length, facts(card)["card"], factors)
        earlier = restore_adapters(self.base.files, self.base.config, dict(self.model.named_parameters()))
        several = [*earlier.values(), adapter]
        size = sum(weight.numel() for weight in self.model.parameters())
        about = model_card(self.base.config, self.base.card, size, several).encode(errors="backslashreplace")
        return {**self.base.files, **adapter.files(), CARD: about}, dict(self.base.card)

    def _keep(self) -> None:
        """Remember the weights without the adapter."""
        self.frozen = {name: weight.detach().clone() for name, weight in self.changed.items()}

    @torch.no_grad()
    def _merge(self) -> None:
        for name, factors in self.factors.items():
            self.changed[name].copy_(added(self.frozen[name], factors, self.config.model.adapter.scale))

    @torch.no_grad()
    def _load(self, files: Mapping[str, bytes]) -> None:
        super()._load(files)
        self._keep()
        where = file_names(self.config.model.adapter.name)[1]
        values = load(files[where]) if where in files else {}
        self.own.weights.zero_()
        for name, factors in self.factors.items():
            for kind, part in factors._asdict().items():
                value = values.get(f"{name}.{kind}")
                if value is None or value.shape != part.shape:
                    raise BundleError("the checkpoint's adapter does not fit the model", where=where, got=name)
                part.copy_(value)
        self._merge()


def make_learner(
    config: Config, model: nn.Module, start: Mapping[str, Tensor] | None, base: Base | None, found: Found | None
) -> Learner:
    """What learns: the model, or an adapter of it in the bundle `base`, or in the one that a checkpoint was made of."""
    name = config.model.adapter.name
    if not name:
        return Learner(model, config.training, start)
    base = Base.again(found, name) if found is not None else base
    if base is None:
        raise ConfigError("an adapter needs a model to start from", do="give one with --from, or fit(start=...)")
    return AdapterLearner(model, config, base)
