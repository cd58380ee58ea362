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
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import antiphon
from antiphon.core.config import Config, to_dict
from antiphon.core.config import read as read_config
from antiphon.core.errors import AntiphonError, BundleError
from antiphon.inference.adapters import Adapter, card_lines, chosen, merge
from antiphon.inference.adapters import restore as restore_adapters
from antiphon.inference.confidence import FILE as CONFIDENCE_FILE
from antiphon.inference.confidence import Calibration
from antiphon.inference.files import (
    CARD,
    MANIFEST,
    current,
    dump_json,
    load_json,
    read,
    read_card,
    verify,
    write_file,
    write_folder,
    write_zip,
)
from antiphon.inference.task import Task
from antiphon.inference.weights import header
from antiphon.models.seq2seq import Seq2Seq, build

__all__ = ["Bundle", "bundle_files", "current", "facts", "load", "locate", "read", "restore", "room", "save", "tensors"]
__all__ += ["verify", "write_file", "write_folder", "write_zip"]

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


@dataclass(frozen=True)
class Bundle:
    """A model with everything it needs to answer. `manifest["card"]` tells where it comes from; `confidence` is there
    once it has been fitted."""

    model: Seq2Seq
    task: Task
    config: Config
    manifest: dict[str, Any]
    path: Path
    confidence: Calibration | None = None
    adapters: Mapping[str, Adapter] = field(default_factory=dict)

    def adapted(self, name: str) -> Bundle:
        """The bundle that answers by one of its adapters: what it adds is in the weights, so it costs nothing more."""
        adapter = chosen(self.adapters, name, self.path)
        model, data = copy.deepcopy(self.model), adapter.config.data
        merge(model, adapter)
        task = replace(
            self.task,
            source=self.task.source.limited(data.source.max_length, data.too_long),
            target=self.task.target.limited(data.target.max_length, data.too_long),
            length=adapter.length,
            find=replace(self.task.find, most=data.facts),
        )
        config = replace(adapter.config, model=self.config.model)
        return replace(self, model=model, task=task, config=config, adapters={}, confidence=None)


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
    _write(Path(path), files, facts(card))


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


def _write(path: Path, files: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
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
    _write(final, {**files, CONFIDENCE_FILE: confidence.to_bytes()}, about)
    return final


def load(path: Path | str, *, device: str | torch.device = "cpu") -> Bundle:
    """Read a bundle: its folder, its zip, a checkpoint, or a run (its best model).

    Raises `BundleError` for whatever is wrong with it.
    """
    path = locate(Path(path))
    manifest, files = read(path)
    try:
        model, task, config = restore(files)
        adapters = restore_adapters(files, config, tensors(model))
        confidence = Calibration.read(files[CONFIDENCE_FILE]) if CONFIDENCE_FILE in files else None
    except AntiphonError as error:
        raise BundleError(_line(error), where=path) from None
    except Exception as error:
        # a file from outside may be wrong in ways nobody has thought of; what is certain is that it is the file
        raise BundleError(f"cannot be loaded: {type(error).__name__}: {_line(error)}", where=path) from None
    return Bundle(model.to(device).eval(), task, config, manifest, path, confidence, adapters)


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
    return found


def bundle_files(
    *, model: torch.nn.Module, task: Task, config: Config, card: Mapping[str, Any],
    adapters: Mapping[str, Adapter] | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """All files of a bundle but the manifest, by name; `write_folder` makes a bundle or a checkpoint of them."""
    weights, several = tensors(model), list((adapters or {}).values())
    if broken := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise BundleError("the weights are not finite", got=broken[0], do="lower training.rate")
    files = {
        CONFIG_FILE: dump_json(to_dict(config)),
        WEIGHTS_FILE: safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in weights.items()}),
        CARD: model_card(config, card, sum(tensor.numel() for tensor in weights.values()), several).encode(),
        **task.files(),
    }
    for adapter in several:
        files |= adapter.files()
    return files


def restore(files: Mapping[str, bytes]) -> tuple[Seq2Seq, Task, Config]:
    """The model, task and configuration from verified files."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in files:
            raise BundleError("the file is missing", where=name)
    config = read_config(load_json(files[CONFIG_FILE], where=CONFIG_FILE), where=CONFIG_FILE)
    task = Task.load(files, config)
    shapes = header(files[WEIGHTS_FILE], WEIGHTS_FILE)
    sizes = task.source.size, task.target.size
    _check(config, sizes, shapes)
    model = build(config.model, *sizes, seed=0)
    loaded = safetensors.torch.load(files[WEIGHTS_FILE])
    with torch.no_grad():
        for name, tensor in tensors(model).items():
            if not loaded[name].isfinite().all():
                raise BundleError("the weights are not finite", where=WEIGHTS_FILE, got=name)
            tensor.copy_(loaded[name])
    return model.eval(), task, config


def tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """What of a model is saved: each parameter once, under its first name, and the buffers of its state."""
    saved = model.state_dict()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return parameters | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def facts(card: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says besides the files."""
    return {"antiphon": antiphon.__version__, "card": _plain(card)}


class _NoInitialization(TorchFunctionMode):
    """Leaves `torch.nn.init` out: on the meta device it would import the compiler, 1.3 CPU seconds, to fill nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def _check(config: Config, sizes: tuple[int, int], shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Compare the weights with the configuration on a model without memory, so that a lie costs nothing."""
    layers = (config.model.encoder.layers or 0) + (config.model.decoder.layers or 0)
    if layers > len(shapes):
        raise BundleError("has fewer tensors than layers", where=WEIGHTS_FILE, got=f"{len(shapes)} for {layers} layers")
    with torch.device("meta"), _NoInitialization():
        model = build(config.model, *sizes, seed=0)
    expected = {name: ("F32", tuple(tensor.shape)) for name, tensor in tensors(model).items()}
    if expected != shapes:
        wrong = min(name for name in expected.keys() | shapes.keys() if expected.get(name) != shapes.get(name))
        got = f"{wrong[:60]}: {shapes.get(wrong)}, the configuration makes {expected.get(wrong)}"
        raise BundleError("does not fit the configuration", where=WEIGHTS_FILE, got=got)
    hidden = sum(buffer.numel() for buffer in model.buffers())
    if hidden > 1 << 28:
        raise BundleError("the configuration needs tables that are too large", where=CONFIG_FILE, got=hidden)


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
    named = {key for key, _ in LINES} | {"name", "scores"}
    lines += [f"| {key} | {_cell(value)} |" for key, value in plain.items() if key not in named]
    lines += ["", "## Scores", "", *_score_lines(plain.get("scores")), ""]
    lines += card_lines(adapters)
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


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")
