"""A trained model as a folder or one zip: weights, settings, vocabularies and a model card, and no code.

Loading runs nothing from the file: names come from a fixed list, every byte is hashed, the weights' shapes are
compared with the configuration before anything is built. A checkpoint is the same with a `training/` folder inside.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import antiphon
from antiphon.core.config import Config
from antiphon.core.errors import AntiphonError, BundleError
from antiphon.core.keys import read as read_config
from antiphon.core.keys import to_dict
from antiphon.inference.confidence import FILE as CONFIDENCE_FILE
from antiphon.inference.confidence import Calibration
from antiphon.inference.files import (
    CARD,
    MANIFEST,
    current,
    read,
    read_card,
    verify,
    write_file,
    write_folder,
    write_zip,
)
from antiphon.inference.strict_json import dump_json, load_json
from antiphon.inference.task import TASK_FILE, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from antiphon.inference.adapters import Adapter
    from antiphon.models.seq2seq import Seq2Seq

__all__ = ["Bundle", "bundle_files", "current", "facts", "load", "locate", "read", "restore", "room", "save", "tensors"]
__all__ += ["verify", "write", "write_file", "write_folder", "write_zip"]

CONFIG_FILE, WEIGHTS_FILE, ADAPTERS = "config.json", "model.safetensors", "adapters/"
ENGINES = ("ctranslate2", "onnx")
"""Folders in a bundle that hold a network for another engine than PyTorch."""


@dataclass(frozen=True)
class Stored:
    """A network that is still bytes, built when it is first needed; `content` is None where there are none of it."""

    content: bytes | None
    config: Config
    sizes: tuple[int, int]
    path: Path
    device: str | torch.device = "cpu"

    @cached_property
    def model(self) -> Seq2Seq:
        """The network. `BundleError` where it was left out of an exported model, or is damaged."""
        from antiphon.inference.network import restored

        if self.content is None:
            do = "take the model that it was exported from, or export with --keep"
            raise BundleError("this model was exported without PyTorch's weights", where=self.path, do=do)
        try:
            return restored(self.content, self.config, self.sizes).to(self.device).eval()
        except Exception as error:
            raise _refused(error, self.path) from None


@dataclass(frozen=True)
class Bundle:
    """A model with everything it needs to answer. `manifest["card"]` tells where it comes from; `confidence` is there
    once it has been fitted; `engines` has by name the files of engines that it was exported to."""

    network: Seq2Seq | Stored
    task: Task
    config: Config
    manifest: dict[str, Any]
    path: Path
    confidence: Calibration | None = None
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    engines: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)

    @property
    def model(self) -> Seq2Seq:
        """The network in PyTorch. `BundleError` where the bundle has none."""
        return self.network.model if isinstance(self.network, Stored) else self.network

    @property
    def complete(self) -> bool:
        """Whether it has a network for PyTorch."""
        return not isinstance(self.network, Stored) or self.network.content is not None

    def adapted(self, name: str) -> Bundle:
        """The bundle that answers by one of its adapters: what it adds is in the weights, so it costs nothing more."""
        from antiphon.inference.adapters import chosen, merge

        adapter = chosen(self.adapters, name, self.path)
        model, data = copy.deepcopy(self.model), adapter.config.data
        merge(model, adapter)
        task = self.task.within(data, adapter.length)
        config = replace(adapter.config, model=self.config.model)
        return replace(self, network=model, task=task, config=config, adapters={}, confidence=None)


def save(
    path: Path | str, *, model: Seq2Seq, task: Task, config: Config, card: Mapping[str, Any],
    adapters: Mapping[str, Adapter] | None = None, confidence: Calibration | None = None,
) -> None:  # fmt: skip
    """Write a bundle atomically: a folder, or one file where the name ends in `.zip`; an older bundle gives way.

    `card` is what the model card says; known keys are in `model_card`. Raises `BundleError` where the weights are
    not finite, and where something else is in the way.
    """
    files = bundle_files(model=model, task=task, config=config, card=card, adapters=adapters)
    files |= {} if confidence is None else {CONFIDENCE_FILE: confidence.to_bytes()}
    write(Path(path), files, facts(card))


def room(path: Path | str) -> Path:
    """The path of a bundle that is to be written. Raises `BundleError` where anything but a bundle would be lost."""
    path = Path(path)
    zipped = path.suffix.lower() == ".zip"
    if not path.exists() or (not zipped and path.is_dir() and ((path / MANIFEST).exists() or not any(path.iterdir()))):
        return path
    if zipped and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if MANIFEST in archive.namelist():
                return path
    raise BundleError("something that is no model is there already", where=path, do="choose another name")


def write(path: Path, files: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
    room(path)
    try:
        if path.suffix.lower() == ".zip":
            write_zip(path, files, facts=about)
        else:
            write_folder(path, files, facts=about)
    except OSError as error:
        raise BundleError(f"cannot be written: {error.strerror}", where=path) from None


def add_confidence(path: Path | str, confidence: Calibration, *, out: Path | str | None = None) -> Path:
    """Put a calibration into a bundle (of a run, its best model), atomically, or into a copy `out`; says where it is.

    All else stays as it was, a model card that was edited by hand too.
    """
    path = locate(Path(path))
    manifest = verify(path)
    training = any(name.startswith("training/") for name in manifest["files"])
    _, files = read(path, training=training)
    with suppress(BundleError, KeyError, OSError):
        files[CARD] = read_card(path)
    about = {key: value for key, value in manifest.items() if key not in ("format", "files", "sha256")}
    final = path if out is None else Path(out)
    write(final, {**files, CONFIDENCE_FILE: confidence.to_bytes()}, about)
    return final


def load(path: Path | str, *, device: str | torch.device = "cpu") -> Bundle:
    """Read a bundle: its folder, its zip, a checkpoint, or a run (its best model).

    Raises `BundleError` for whatever is wrong with it.
    """
    path = locate(Path(path))
    manifest, files = read(path)
    try:
        config, task = described(files)
        confidence = Calibration.read(files[CONFIDENCE_FILE]) if CONFIDENCE_FILE in files else None
        network = Stored(files.get(WEIGHTS_FILE), config, (task.source.size, task.target.size), path, device)
        engines = engines_of(files)
        if not engines and network.content is None:
            raise BundleError("the file is missing", where=WEIGHTS_FILE)
        if engines:  # the network may never be asked for, nor what builds it be here
            return Bundle(network, task, config, manifest, path, confidence, {}, engines)
        from antiphon.inference.adapters import restore as restore_adapters

        adapters = restore_adapters(files, config, tensors(network.model))
    except Exception as error:
        raise _refused(error, path) from None
    return Bundle(network.model, task, config, manifest, path, confidence, adapters)


def _refused(error: Exception, path: Path) -> BundleError:
    """Whatever is wrong, said of the file."""
    if isinstance(error, BundleError) and error.where == str(path):
        return error
    if isinstance(error, AntiphonError):
        return BundleError(_line(error), where=path)
    # a file from outside may be wrong in ways nobody has thought of; what is certain is that it is the file
    return BundleError(f"cannot be loaded: {type(error).__name__}: {_line(error)}", where=path)


def engines_of(files: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """The files of each engine, by the names that it knows them by."""
    found: dict[str, dict[str, bytes]] = {}
    for name, content in files.items():
        folder, _, rest = name.partition("/")
        if folder in ENGINES and rest:
            found.setdefault(folder, {})[rest] = content
    return found


def _line(error: Exception) -> str:
    """The message in one line of bounded length: parts of it may come from the file."""
    return " ".join(str(error).partition("\n")[0].split())[:500]


def locate(path: Path) -> Path:
    """The bundle that a path means: itself, or the best model of a run."""
    found = current(path)
    if found.is_dir() and not (found / MANIFEST).exists() and not (found / WEIGHTS_FILE).exists():
        best = current(found / "best")
        if best.exists():
            return best
        if (found / CONFIG_FILE).exists() or (found / "checkpoints").exists():
            raise BundleError("the run has no best model yet", where=path, do="let it train on, or give a checkpoint")
        if not (found / TASK_FILE).exists():
            raise BundleError("there is no model in this folder", where=path, do="give a run, a bundle or its zip")
    return found


def bundle_files(
    *, model: torch.nn.Module, task: Task, config: Config, card: Mapping[str, Any],
    adapters: Mapping[str, Adapter] | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """All files of a bundle but the manifest, by name; `write_folder` makes a bundle or a checkpoint of them."""
    import safetensors.torch

    weights, several = tensors(model), list((adapters or {}).values())
    if broken := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise BundleError("the weights are not finite", got=broken[0], do="lower training.rate")
    about = model_card(config, card, sum(tensor.numel() for tensor in weights.values()), several)
    files = {
        CONFIG_FILE: dump_json(to_dict(config)),
        WEIGHTS_FILE: safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in weights.items()}),
        CARD: about.encode(errors="backslashreplace"),
        **task.files(),
    }
    for adapter in several:
        files |= adapter.files()
    return files


def described(files: Mapping[str, bytes]) -> tuple[Config, Task]:
    """The configuration and the task from verified files."""
    if CONFIG_FILE not in files:
        raise BundleError("the file is missing", where=CONFIG_FILE)
    config = read_config(load_json(files[CONFIG_FILE], where=CONFIG_FILE), where=CONFIG_FILE)
    return config, Task.load(files, config)


def restore(files: Mapping[str, bytes]) -> tuple[Seq2Seq, Task, Config]:
    """The model, task and configuration from verified files."""
    from antiphon.inference.network import restored

    config, task = described(files)
    if WEIGHTS_FILE not in files:
        raise BundleError("the file is missing", where=WEIGHTS_FILE)
    return restored(files[WEIGHTS_FILE], config, (task.source.size, task.target.size)), task, config


def tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """What of a model is saved: each parameter once, under its first name, and the buffers of its state."""
    saved = model.state_dict()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return parameters | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def facts(card: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says besides the files."""
    return {"antiphon": antiphon.__version__, "card": _plain(card)}


def _plain(value: Any) -> Any:
    """The same as JSON can hold it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


LINES = (
    ("data", "Training data"),
    ("data_hash", "SHA-256 of the data"),
    ("pairs", "Training pairs"),
    ("trained_from", "Trained from"),
    ("steps", "Optimizer steps"),
    ("minutes", "Minutes of training"),
    ("command", "Command"),
    ("licence", "Licence"),
)
"""What a model card states, by key."""


def model_card(config: Config, card: Mapping[str, Any], parameters: int, adapters: Sequence[Adapter] = ()) -> str:
    """README.md of a bundle: data and its hash, scores, command, licence and settings. It may be edited by hand."""
    from antiphon.inference.adapters import card_lines

    model, plain = config.model, _plain(card)
    known = {"licence": "not stated: the owner of the data decides, write it here", "trained_from": "fresh weights"}
    known |= plain
    shape = (
        f"{model.encoder.kind} encoder, {model.decoder.kind} decoder, width {model.width}, {parameters:,} parameters"
    )
    lines = [
        f"# {plain.get('name', config.task)}",
        "",
        f"A sequence-to-sequence model by antiphon {antiphon.__version__}: {shape}.",
    ]
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| {title} | {_cell(known.get(key, 'not stated'))} |" for key, title in LINES]
    named = {key for key, _ in LINES} | {"name", "scores", "export"}
    lines += [f"| {key} | {_cell(value)} |" for key, value in plain.items() if key not in named]
    lines += ["", "## Scores", "", *_score_lines(plain.get("scores")), ""]
    lines += [*_export_lines(plain.get("export")), *card_lines(adapters)]
    lines += [
        "## Use",
        "",
        "```sh",
        'echo "..." | antiphon predict FOLDER',
        "```",
        "",
        "## Settings",
        "",
        "```json",
    ]
    return "\n".join([*lines, json.dumps(to_dict(config), indent=1), "```", ""])


def _score_lines(scores: Any) -> list[str]:
    if not scores:
        return ["None were measured."]
    items = scores.items() if isinstance(scores, dict) else [(item.get("name", "score"), item) for item in scores]
    lines = ["| metric | value | 95 % interval | signature |", "|---|---|---|---|"]
    for name, item in items:
        score = item if isinstance(item, dict) else {"value": item}
        interval = score.get("interval")
        between = f"{interval[0]:.4g} to {interval[1]:.4g}" if interval else ""
        value = score.get("value")
        shown = f"{value:.4g}" if isinstance(value, int | float) else str(value)
        lines.append(f"| {_cell(name)} | {shown} | {between} | {_cell(score.get('signature', ''))} |")
    return lines


def _export_lines(made: Any) -> list[str]:
    """Of an exported model, what that changed."""
    if not isinstance(made, dict):
        return []
    lines = ["## Export", "", f"Measured on {made['pairs']:,} pairs, one thread.", ""]
    lines += [f"| | bytes of weights | answers per CPU second | {_cell(made['metric'])} | answers as PyTorch's |"]
    lines += ["|---|---|---|---|---|"]
    for row in made["rows"]:
        cells = f"{row['size']:,}", f"{row['rate']:,.0f}", f"{row['score']:.2f}", f"{row['same']:.1%}"
        lines.append(f"| {_cell(row['engine'])} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")
