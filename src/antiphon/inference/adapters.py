"""Adapters in a bundle: what a domain adds to the weights, and the settings, limits and origin that go with it.

`adapters/NAME.safetensors` has the factors of each matrix, `adapters/NAME.json` the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from antiphon.core.config import Config
from antiphon.core.errors import BundleError, ConfigError
from antiphon.core.keys import get, leaves, read, to_dict
from antiphon.inference.bundle import ADAPTERS
from antiphon.inference.lengths import LengthModel, length_model
from antiphon.inference.strict_json import dump_json, load_json
from antiphon.inference.weights import header
from antiphon.models.adapters import Factors, added, shapes

MOST = 40
"""Adapters in a bundle."""

FREE = ("model.dropout", "model.adapter.", "model.frontend.time_", "model.frontend.feature_")
"""Settings of the network that are an adapter's own."""


@dataclass(frozen=True)
class Adapter:
    """One adapter: its settings (those of its training), the longest answers to expect, and its model card."""

    name: str
    config: Config
    length: LengthModel
    card: Mapping[str, Any]
    factors: Mapping[str, Factors]

    @property
    def size(self) -> int:
        """The bytes of its numbers."""
        return sum(part.nbytes for factors in self.factors.values() for part in factors)

    def files(self) -> dict[str, bytes]:
        """Its two files in a bundle. Raises `BundleError` where a number is not finite."""
        tensors = {f"{name}.{part}": tensor.cpu().contiguous() for name, factors in self.factors.items()
                   for part, tensor in factors._asdict().items()}  # fmt: skip
        if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
            raise BundleError("the adapter is not finite", got=broken[0], do="lower training.rate")
        about = {"config": to_dict(self.config), "length": asdict(self.length), "card": dict(self.card)}
        json, weights = file_names(self.name)
        return {json: dump_json(about), weights: safetensors.torch.save(tensors)}

    def merged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The matrices that it changes, with what it adds."""
        scale = self.config.model.adapter.scale
        return {name: added(weights[name], factors, scale) for name, factors in self.factors.items()}


def file_names(name: str) -> tuple[str, str]:
    """Of an adapter's settings and of its factors."""
    return f"{ADAPTERS}{name}.json", f"{ADAPTERS}{name}.safetensors"


def restore(files: Mapping[str, bytes], config: Config, weights: Mapping[str, Tensor]) -> dict[str, Adapter]:
    """The adapters among the verified files of a bundle, which must fit its configuration and weights."""
    names = sorted({name.removeprefix(ADAPTERS).partition(".")[0] for name in files if name.startswith(ADAPTERS)})
    if len(names) > MOST:
        raise BundleError(f"a bundle has at most {MOST} adapters", got=len(names))
    return {name: _restored(name, files, config, weights) for name in names}


def _restored(name: str, files: Mapping[str, bytes], config: Config, weights: Mapping[str, Tensor]) -> Adapter:
    for file in file_names(name):
        if file not in files:
            raise BundleError("the file is missing", where=file)
    where, tensors = file_names(name)
    about = load_json(files[where], where=where)
    if not isinstance(about, dict) or set(about) != {"config", "length", "card"} or not isinstance(about["card"], dict):
        raise BundleError("is not the description of an adapter", where=where)
    own = read(about["config"], where=where)
    if own.task != config.task or not _same_network(own, config):
        raise BundleError("the adapter is for another network", where=where)
    if own.model.adapter.name != name:
        raise BundleError("the adapter has another name", where=where, got=repr(own.model.adapter.name[:60]))
    factors = _factors(files[tensors], tensors, weights, own.model.adapter.rank)
    return Adapter(name, own, length_model(about["length"], where), about["card"], factors)


def _same_network(own: Config, base: Config) -> bool:
    """Whether an adapter's network is the model's, but for what belongs to its training or the model left open."""
    keys = [key for key in leaves() if key.startswith("model.") and not key.startswith(FREE)]
    return all(get(base, key) in (None, get(own, key)) for key in keys)


def _factors(content: bytes, where: str, weights: Mapping[str, Tensor], rank: int) -> dict[str, Factors]:
    """Checked names, types, shapes and values."""
    found = header(content, where)
    names = sorted({name.rpartition(".")[0] for name in found})
    expected = {}
    for name in names:
        if name not in weights:
            raise BundleError("adds to what the model does not have", where=where, got=repr(name[:60]))
        for part, shape in zip(Factors._fields, shapes(weights[name], rank), strict=True):
            expected[f"{name}.{part}"] = "F32", shape
    if found != expected:
        wrong = min(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        got = f"{wrong[:60]}: {found.get(wrong)}, rank {rank} makes {expected.get(wrong)}"
        raise BundleError("does not fit the model", where=where, got=got)
    loaded = safetensors.torch.load(content)
    if broken := [name for name, tensor in loaded.items() if not tensor.isfinite().all()]:
        raise BundleError("the adapter is not finite", where=where, got=broken[0])
    return {name: Factors(*(loaded[f"{name}.{part}"] for part in Factors._fields)) for name in names}


def chosen(adapters: Mapping[str, Adapter], name: str, where: object) -> Adapter:
    """The adapter of this name; `ConfigError` that names those that there are."""
    if name not in adapters:
        do = f"it has {', '.join(sorted(adapters))}" if adapters else "antiphon train DATA --from MODEL --adapter NAME"
        raise ConfigError(f"the model has no adapter {name}", where=where, do=do)
    return adapters[name]


@torch.no_grad()
def merge(model: torch.nn.Module, adapter: Adapter) -> None:
    """Put what an adapter adds into the weights of a model; they are shared with no other one afterwards."""
    parameters = dict(model.named_parameters())
    for name, tensor in adapter.merged(parameters).items():
        parameters[name].data = tensor.to(parameters[name].device)


def card_lines(adapters: Sequence[Adapter]) -> list[str]:
    """A table of adapters for a model card."""
    if not adapters:
        return []
    lines = ["## Adapters", "", "| name | rank | bytes | data | SHA-256 of the data |", "|---|---|---|---|---|"]
    for each in adapters:
        data, digest = (str(each.card.get(key, "not stated")).replace("|", "\\|") for key in ("data", "data_hash"))
        lines.append(f"| {each.name} | {each.config.model.adapter.rank} | {each.size:,} | {data} | {digest} |")
    return [*lines, ""]
