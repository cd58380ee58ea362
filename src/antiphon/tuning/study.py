"""The folder of a study: its pairs, what it searches, and what must be the same for it to go on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from antiphon import metrics
from antiphon.core.alone import hold
from antiphon.core.config import Config
from antiphon.core.errors import BundleError, ConfigError, DataError, TrainingError
from antiphon.core.keys import get, override
from antiphon.data.corpus import Corpus, open_pairs, split
from antiphon.inference import files as folders
from antiphon.inference.forced import LIKELIHOODS
from antiphon.inference.strict_json import dump_json, load_json
from antiphon.inference.tasks import Choice
from antiphon.training import recipes
from antiphon.training.given import settings
from antiphon.training.identity import UNBORN, abandoned, differences, prepare
from antiphon.training.observers import Audience
from antiphon.training.sources import HELD_OUT, Sources, nameable, write_pairs
from antiphon.training.spaces import Among, Between, Range, space
from antiphon.training.start import finder

SPEC = "study.json"
PARTS = ("train", "valid", "judge")
"""Pairs to learn from, pairs that trainings are compared by, and pairs that only finalists are judged by."""

PATIENCE = 5.0
"""Seconds that the workers of a search that was killed have to end."""


@dataclass(frozen=True)
class Spec:
    """What a study is about. `asked` are the settings that somebody gave, `given` what trainings get of them, `recipe`
    the values of those that are searched."""

    data: str
    valid: str
    hashes: dict[str, str]
    task: str
    asked: dict[str, Any]
    given: dict[str, Any]
    metric: str
    higher: bool
    ranges: tuple[Range, ...]
    recipe: dict[str, Any]
    counts: dict[str, int]
    judged: str
    """Where the pairs come from that finalists are judged by: `held out`, or the name of a file."""
    seed: int
    notes: tuple[str, ...] = field(default=())

    def to_bytes(self) -> bytes:
        """As a file."""
        values = asdict(self) | {"version": 1, "ranges": [vars(each) for each in self.ranges]}
        return dump_json(values)

    @classmethod
    def read(cls, path: Path) -> Spec:
        """What `to_bytes` gave; anything else is a `BundleError`."""
        values = load_json(path.read_bytes(), where=path)
        try:
            if values.pop("version") != 1:
                raise ValueError
            ranges = tuple(Among(**_tuples(each)) if "values" in each else Between(**each) for each in values["ranges"])
            return cls(**{**values, "ranges": ranges, "notes": tuple(values["notes"])})
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BundleError("is not a study of this version", where=path, do="begin another") from None


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "values": tuple(values["values"])}


class Study:
    """The folder: `study.json`, `data/`, `trials.log` (Optuna's journal), `trials/`, `finals/`, `best/`."""

    def __init__(self, out: Path, spec: Spec, choices: Sequence[Choice] = ()) -> None:
        self.out, self.spec, self.choices = out, spec, list(choices)

    @classmethod
    def open(
        cls, data: Any, out: Path, *, valid: Any = None, test: Any = None, given: Mapping[str, Any] | None = None,
        limit: Mapping[str, Any] | None = None,
    ) -> Study:  # fmt: skip
        """A new study of these pairs, or the one that is in the folder, if it is of the same pairs and settings.

        `limit` is what ends each training, where nobody said; a study that is there already has its own.

        Raises `ConfigError` or `DataError` where it is not, or where the folder holds something else.
        """
        out, typed = Path(out), override(Config(), dict(given or {}))
        wanted = {key: get(typed, key) for key in given or {}}
        if not (out / SPEC).exists():
            return cls._begin(out, data, valid, test, wanted, dict(limit or {}))
        found = cls(out, Spec.read(out / SPEC))
        found._same(data, valid, test, wanted)
        return found

    @classmethod
    def _begin(cls, out: Path, data: Any, valid: Any, test: Any, given: dict[str, Any], limit: dict[str, Any]) -> Study:
        _claim(out)
        try:
            spec, choices = _prepared(out, data, valid, test, given, limit)
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
        folders.write_file(out / SPEC, spec.to_bytes())
        (out / UNBORN).unlink()
        return cls(out, spec, choices)

    def _same(self, data: Any, valid: Any, test: Any, given: Mapping[str, Any]) -> None:
        changed = list(differences(self.spec.asked, json.loads(dump_json(dict(given)))))
        if changed:
            raise ConfigError(f"the settings differ from those of the study: {'; '.join(changed)}", where=self.out,
                              do="give the same ones, or another --out")  # fmt: skip
        hashes = _hashes(settings(given, None), data, valid, test)
        if hashes != self.spec.hashes:
            raise DataError("the pairs have changed since this study began", where=self.out,
                            got=", ".join(key for key in {*hashes, *self.spec.hashes}
                                          if hashes.get(key) != self.spec.hashes.get(key)),
                            do="restore them, or give another --out")  # fmt: skip

    def part(self, name: str) -> Path:
        """The file with one of the parts of the pairs."""
        return self.out / "data" / f"{name}.jsonl"

    def trial(self, number: int) -> Path:
        """The run of a trial."""
        return self.out / "trials" / f"{number:04d}"


def _claim(out: Path) -> None:
    """Make the folder; refuse one that has something in it, but for a study that died before it began."""
    if abandoned(out):
        shutil.rmtree(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError("the folder is not empty, and has no study", where=out, do="give another --out")
    out.mkdir(parents=True, exist_ok=True)
    prepare(out)


def _kept(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as trainings in the study are given them: its copy of the pairs has no columns to choose."""
    return {key: value for key, value in given.items() if key != "data.columns"}


def _prepared(
    out: Path, data: Any, valid: Any, test: Any, given: dict[str, Any], limit: dict[str, Any]
) -> tuple[Spec, list[Choice]]:
    """The three parts on disk, and what the recipe proposes for the first."""
    wanted = settings(given, None)
    nameable(wanted.data)
    sources = Sources.keep(out / "given", data, valid, None, wanted.data)
    wanted = sources.kind(wanted)
    notes, counts, kind = [*sources.lost], {}, wanted.data.source.kind or "text"
    for name, part in zip(PARTS, _parts(sources, wanted, test), strict=True):
        write_pairs(path := out / "data" / f"{name}.jsonl", part, kind)
        counts[name] = path.read_bytes().count(b"\n")
        notes += [f"{name} pairs: {line}" for line in part.report.lines()]
    shutil.rmtree(out / "given", ignore_errors=True)
    kept = _kept(given) | limit | {f"data.{side}.kind": getattr(wanted.data, side).kind for side in ("source", "target")
                           if getattr(wanted.data, side).kind != "text"}  # fmt: skip
    config, choices = _recipe(out, kept)
    ranges = space(config, given)
    metric = config.training.metric or "loss"
    hashes, named = _hashes(settings(given, None), data, valid, test), "" if valid is None else _name(valid)
    spec = Spec(
        _name(data), named, hashes, config.task, given, kept, metric, higher(metric),
        tuple(ranges), {each.key: get(config, each.key) for each in ranges}, counts,
        "held out" if test is None else _name(test), config.training.seed, tuple(notes),
    )  # fmt: skip
    if not ranges:
        raise ConfigError("there is nothing to search", where="tune", do="leave some settings open")
    return spec, choices


def _parts(sources: Sources, config: Config, test: Any) -> tuple[Corpus, Corpus, Corpus]:
    """Training, validation and judging pairs; without a test file the last are held out as well."""
    train, valid = sources.open(config)
    if test is not None:
        return train, valid, open_pairs(test, config.data)
    if sources.valid:
        return (train, *split(valid, 0.5))
    kept, judge = split(train, config.data.valid, 2, most=HELD_OUT)
    return kept, valid, judge


def _recipe(out: Path, given: Mapping[str, Any]) -> tuple[Config, list[Choice]]:
    """What a training on the study's own pairs would propose."""
    sources = Sources.keep(out, out / "data/train.jsonl", out / "data/valid.jsonl", None, settings(given, None).data)
    config = sources.kind(settings(given, None))
    pairs, _ = sources.open(config)
    return recipes.propose(config, sources.looked_at(config, pairs, finder(config, Audience([]))))


def higher(metric: str) -> bool:
    """Whether more of this metric is better."""
    known = {each.name: each.higher_is_better for each in LIKELIHOODS}
    return known[metric] if metric in known else metrics.get(metric).higher_is_better


def _hashes(config: Config, data: Any, valid: Any, test: Any) -> dict[str, str]:
    given = {"data": data, "valid": valid, "test": test}
    return {name: open_pairs(value, config.data).fingerprint() for name, value in given.items() if value is not None}


def _name(data: Any) -> str:
    return str(data) if isinstance(data, str | os.PathLike) else "pairs in memory"


def lock(out: Path) -> IO[bytes]:
    """Hold the study: one search at a time. Whoever has a copy of the file, such as a worker, holds it too.

    Raises `TrainingError` where somebody else does, and does not let go of it in a few seconds.
    """
    file = open(out / ".lock", "ab")  # noqa: SIM115
    try:
        hold(
            file,
            TrainingError("another search is at work here", where=out, do="wait for it, or stop it"),
            seconds=PATIENCE,
        )
    except TrainingError:
        file.close()
        raise
    return file
