"""The models that are served: by name, as they were when they were loaded, and what they can read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from antiphon.core.config import HELD, Config
from antiphon.core.errors import AntiphonError, BundleError, ConfigError, nearest
from antiphon.core.keys import read as read_config
from antiphon.data import speech, video
from antiphon.data.arrays import INLINE
from antiphon.data.corpus import Pair
from antiphon.data.formats import fault
from antiphon.data.knowledge import FACTS, Fact, dump
from antiphon.data.signals import Overview, Signal
from antiphon.inference import bundle, engines
from antiphon.inference.chat import speakers
from antiphon.inference.confidence import FILE as CONFIDENCE_FILE
from antiphon.inference.hypothesis import BEAM
from antiphon.inference.lengths import LengthModel
from antiphon.inference.strict_json import load_json
from antiphon.inference.task import Task
from antiphon.inference.weights import header
from antiphon.serving.refusals import WRONG, Refusal, wrong
from antiphon.serving.settings import Settings
from antiphon.serving.worker import tags

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Served:
    """A model, or an ensemble, under its name. `copies` are files of its own, so that every process has the same model
    whatever happens to `paths`; `signature` is what these looked like. `engine` is what answers."""

    name: str
    paths: tuple[Path, ...]
    copies: tuple[str, ...]
    signature: object
    sha256: str
    task: Task
    config: Config
    adapters: Mapping[str, tuple[Config, Task]]
    parameters: int
    calibrated: bool
    engine: str = "PyTorch"

    def by(self, adapter: str | None) -> Served:
        """The model as it reads and searches by one of its adapters; itself where it has none of this name."""
        if adapter is None or adapter not in self.adapters:
            return self
        config, task = self.adapters[adapter]
        return replace(self, config=config, task=task, calibrated=False)

    def about(self, settings: Settings) -> dict[str, Any]:
        """What clients are told of it."""
        context = tags(self.task)
        return {
            "name": self.name, "task": self.task.name, "source": str(self.config.data.source.kind or "text"),
            "target": str(self.config.data.target.kind or "text"), "knowledge": self.task.knowledge != "none",
            "chat": bool(self.task.turns), "speakers": speakers(self.task), "plain": not self.parameters,
            "adapters": list(self.adapters), "context": context,
            "domains": context.get("domain", []), "engine": self.engine, "parameters": self.parameters,
            "limits": {"characters": settings.characters, "batch": settings.inputs, "tokens": settings.tokens,
                       "hypotheses": settings.hypotheses},
            "beam": self.beam, "confidence": self.calibrated, "sha256": self.sha256,
        }  # fmt: skip

    @property
    def beam(self) -> int:
        """Hypotheses that it keeps unless told otherwise."""
        return self.config.decoding.beam or (1 if self.config.data.target.kind == "numbers" else BEAM)

    def pair(
        self, source: str, context: Mapping[str, str], facts: Sequence[tuple[str, str, str]], settings: Settings,
        where: str,
    ) -> Pair:  # fmt: skip
        """An input as the model reads it. Raises `Refusal`."""
        if isinstance(self.task.source, Signal) and (self.task.source.kind not in HELD or source.startswith(INLINE)):
            what = f"the model reads {self.task.source.kind}, and this is text"
            raise Refusal(WRONG, what, where=where, do="POST a file to /v1/files", cause="input")
        self._know(context, where)
        if facts and self.task.knowledge == "none":
            raise Refusal(WRONG, "the model reads no facts", where=where, do="leave them out", cause="input")
        given = dict(context) | (
            {FACTS: dump([Fact(*fact) for fact in facts])} if self.task.knowledge != "none" else {}
        )
        size = sum(map(len, (source, *given.values())))
        if size > settings.characters:
            what = f"an input has at most {settings.characters:,} characters"
            raise Refusal(WRONG, what, where=where, got=f"{size:,}", do="send less", cause="too-long")
        _sound(source, where)
        return Pair(source, "", (), given)

    def _know(self, context: Mapping[str, str], where: str) -> None:
        """Refuse context columns that the model does not know, and what is no text in them."""
        if unknown := sorted(set(context) - set(self.task.context)):
            what = "the model has no such context"
            raise Refusal(WRONG, what, where=where, got=ascii(unknown[0][:40]), cause="input")
        for text in context.values():
            _sound(text, where)

    def count(self, pair: Pair, settings: Settings, where: str) -> int:
        """Source tokens of an input. Raises `Refusal`."""
        try:
            given = self.task.completed(pair)
            assert isinstance(given, Pair)
            length = self.task.read(given).length if given.source.strip() else 1
        except AntiphonError as error:
            raise wrong(error, where) from None
        return _within(length, settings, where)

    def heard(self, path: Path, context: Mapping[str, str], settings: Settings) -> int:
        """The same for the file of a recording, a film or an array, with what else the model reads."""
        signal = self.task.source
        if not isinstance(signal, Signal) or signal.kind in HELD:
            what = f"the model reads {'numbers in a line' if isinstance(signal, Signal) else 'text'}"
            raise Refusal(WRONG, what, where="file", do="POST it to /v1/predict", cause="input")
        if path.suffix not in (kinds := SUFFIXES[signal.kind]):
            what = f"the model reads {', '.join(kinds)}"
            raise Refusal(WRONG, what, where="file", got=path.suffix, do="send such a file", cause="input")
        self._know(context, "context")
        if self.task.covariates is not None:
            try:
                self.task.covariates.read(Pair("the file", "", (), dict(context)))
            except AntiphonError as error:
                raise wrong(error, "context") from None
        try:
            frames = path.stat().st_size / (4 * signal.features) if signal.kind == "frames" else 0.0
            frames = frames or Overview.of([str(path)], self.config.data).frames
        except AntiphonError as error:
            raise wrong(error, "file") from None
        return _within(max(1, math.ceil(frames / signal.reduced)), settings, "file")


SUFFIXES = {"speech": speech.SUFFIXES, "video": video.SUFFIXES, "frames": (".npy",)}
"""What may be sent to a model of each kind."""


def _sound(text: str, where: str) -> None:
    if problem := fault(text):
        raise Refusal(WRONG, f"the text {problem.partition(' (')[0]}", where=where, do="repair it", cause="input")


def _within(tokens: int, settings: Settings, where: str) -> int:
    if tokens > settings.tokens:
        what = f"an input has at most {settings.tokens:,} tokens"
        raise Refusal(WRONG, what, where=where, got=f"{tokens:,}", do="send less", cause="too-long")
    return tokens


def named(words: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Models as people name them: NAME=PATH or a path, whose last part is then the name; commas join an ensemble."""
    found: dict[str, tuple[Path, ...]] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        if not equals or Path(word).exists():
            name, rest = "", word
        paths = [Path(rest)] if Path(rest).exists() else [Path(part) for part in rest.split(",")]
        name = name or _name(paths[0].absolute())
        if not _NAME.fullmatch(name):
            do = "write NAME=PATH, with a name of letters, digits, points, hyphens and underscores"
            raise ConfigError("this cannot be the name of a model", where="serve", got=repr(name), do=do)
        if name in found:
            raise ConfigError("two models have one name", where="serve", got=name, do="write NAME=PATH")
        found[name] = tuple(paths)
    if not found:
        raise ConfigError("there is no model to serve", where="serve", do="name one: antiphon serve RUN")
    return found


def _name(path: Path) -> str:
    return path.parent.name if path.name == "best" else path.stem if path.suffix == ".zip" else path.name


def signature(paths: Sequence[Path]) -> object:
    """What models look like on disk, so that a change is seen."""
    return tuple(_look(path) for path in paths)


def _look(path: Path) -> object:
    try:
        found = bundle.locate(path)
        files = [found] if found.is_file() else [*found.glob("*.*"), *found.glob("adapters/*")]
        stats = [(str(file), file.stat()) for file in sorted(files)]
        return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)
    except (OSError, AntiphonError) as error:
        return type(error).__name__


def read(name: str, paths: tuple[Path, ...], folder: Path) -> Served:
    """Verify a model and keep a copy of it in a folder. Raises `BundleError`."""
    looks, copies = signature(paths), []
    for number, path in enumerate(paths):
        found = bundle.locate(path)
        manifest, files = bundle.read(found)
        facts = {key: value for key, value in manifest.items() if key not in ("format", "files", "sha256")}
        copy = folder / f"{name}-{number}-{manifest['sha256'][:16]}.zip"
        bundle.write_zip(copy, files, facts=facts)
        copies.append(str(copy))
        if not number:
            first, sha256 = files, manifest["sha256"]
    try:
        config = read_config(load_json(first[bundle.CONFIG_FILE], where=bundle.CONFIG_FILE), where=bundle.CONFIG_FILE)
        task, weights = Task.load(first, config), first.get(bundle.WEIGHTS_FILE)  # exports may be without
        shapes = header(weights, bundle.WEIGHTS_FILE) if weights is not None else {}
        adapters = _adapters(first, task) if len(paths) == 1 else {}
    except AntiphonError as error:
        raise BundleError(error.what, where=paths[0], got=error.got, do=error.do) from None
    except Exception as error:  # as in `bundle.load`: what is certain is that it is the file
        raise BundleError(f"cannot be loaded: {type(error).__name__}", where=paths[0]) from None
    return Served(
        name, paths, tuple(copies), looks, sha256, task, config, adapters,
        sum(math.prod(shape) for _, shape in shapes.values()), CONFIDENCE_FILE in first and len(paths) == 1,
        engines.answering(bundle.engines_of(first)) if len(paths) == 1 else "PyTorch",
    )  # fmt: skip


def _adapters(files: Mapping[str, bytes], task: Task) -> dict[str, tuple[Config, Task]]:
    """By what settings, and of what lengths, each adapter answers."""
    found = {}
    for file in sorted(name for name in files if name.startswith(bundle.ADAPTERS) and name.endswith(".json")):
        about = load_json(files[file], where=file)
        config = read_config(about["config"], where=file)
        found[Path(file).stem] = config, task.within(config.data, LengthModel(**about["length"]))
    return found


def find(models: Mapping[str, Served], name: str | None) -> Served:
    """The model of this name; the first where none is named. Raises `Refusal`."""
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        raise Refusal(404, "there is no such model", where="model", do=nearest(name[:64], models), cause="input")
    return models[name]
