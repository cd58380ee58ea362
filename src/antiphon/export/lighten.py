"""From a trained model to small fast ones: students, fewer tokens, shortlists, int8, each measured, for a person to
pick from."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from antiphon import metrics
from antiphon.core.config import Config, Data
from antiphon.core.errors import ConfigError, require
from antiphon.core.keys import get, override
from antiphon.core.stopping import interruptible
from antiphon.data.corpus import Pair, group_references, open_pairs, split
from antiphon.data.facts import Finder
from antiphon.data.knowledge import fingerprint as digest_of
from antiphon.data.report import Report
from antiphon.export.checking import metric_of
from antiphon.export.pruning import pruned
from antiphon.export.writing import Plan, export
from antiphon.inference import files as folders
from antiphon.inference import on_ctranslate2, on_onnxruntime
from antiphon.inference.bundle import Bundle, load
from antiphon.inference.ctranslate2_model import obstacles
from antiphon.inference.evaluate import check_metric, said
from antiphon.inference.predictor import Predictor
from antiphon.inference.strict_json import dump_json, load_json
from antiphon.metrics import Pooled, Score
from antiphon.training.distillation import Teachers
from antiphon.training.identity import differences, fingerprint_bundle
from antiphon.training.observers import Result
from antiphon.training.sources import HELD_OUT, nameable, write_pairs
from antiphon.training.start import resume
from antiphon.training.synthetic import Progress, beside, distill, silent

SPEC, TOGETHER = "lighten.json", 16
"""The file that says what a folder was made of, and every how many-th input is answered before time counts."""

DEEP = {"model.encoder.kind": "transformer", "model.encoder.layers": 6, "model.decoder.layers": 1,
        "model.attention": "multihead"}  # fmt: skip
"""A student reads a source once, with all its layers, and writes each token with one (Kasai et al. 2021)."""

STUDENTS = ("transformer", "ssru")
"""Families of the students' decoders."""

ITSELF = "model"

Watch = Callable[[str], AbstractContextManager[tuple[Sequence[Any], Progress]]]
"""Gives what looks at the making of a student, whose name it is told."""


@dataclass(frozen=True)
class Candidate:
    """One model to pick: bytes of its folder, tokenizer included, CPU milliseconds a sentence on one thread, score."""

    name: str
    what: str
    path: Path
    size: int
    milliseconds: float
    score: Score

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class Lightened:
    """All candidates, the model itself first; `interrupted` is the signal that ended it before, or 0."""

    out: Path
    pairs: int
    candidates: list[Candidate]
    interrupted: int = 0
    notes: tuple[str, ...] = ()


def lighten(
    model: str, data: Any, out: Path | str, *, valid: Any = None, assignments: Mapping[str, Any] | None = None,
    metric: str = "", knowledge: str = "", watch: Watch = lambda name: nullcontext(((), silent)),
    told: Callable[[Candidate], None] = lambda candidate: None, command: str = "",
) -> Lightened:  # fmt: skip
    """Make light versions of a model in the folder `out`, and measure each on validation pairs.

    The model's answers to `data` teach the students, with `assignments` as their settings. What is there already is
    not made again, and trainings go on. Scores are by `metric`, or by what training was judged by. A model that looks
    facts up finds them in the file `knowledge`, or in that of its training. Raises `AntiphonError`.
    """
    given = dict(assignments or {})
    with interruptible():
        bundle, made = Teachers.open([model]).bundles[0], _Folder(Path(out))
        parts = made.begin(bundle, data, valid, given, knowledge)
        name = metric or metric_of(bundle.config)
        check_metric(metrics.get(name), bundle.config)
        pairs = group_references(open_pairs(parts[1], Data()))
    work = _Work(model, bundle, made, parts, pairs, name, told)
    work.measure(ITSELF, "as it is, in PyTorch", Path(model))
    for what in exports(bundle):
        work.export(ITSELF, what, bundle)
    for student in STUDENTS:
        with watch(student) as (observers, progress):
            result = _student(model, made, student, parts, given, observers, progress, command)
        if result.interrupted:
            return Lightened(made.out, len(pairs), work.candidates, result.interrupted)
        taught = work.lightest(student, load(made.student(student)))
        for what in exports(taught):
            work.export(student, what, taught)
    found = Lightened(made.out, len(pairs), work.candidates, 0, tuple(work.notes))
    values = {"candidates": [each.to_dict() for each in found.candidates], "pairs": found.pairs, "command": command}
    folders.write_file(made.out / "result.json", dump_json(values))
    return found


class _Folder:
    """Where everything is."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def begin(
        self, bundle: Bundle, data: Any, valid: Any, given: Mapping[str, Any], knowledge: str
    ) -> tuple[Path, Path]:
        """The training and the validation pairs as files, each with its facts where the model wants some; refuses a
        folder that was made of something else."""
        read = bundle.config.data
        nameable(read)
        opened = {"data": open_pairs(data, read), **({"valid": open_pairs(valid, read)} if valid is not None else {})}
        typed = override(Config(), dict(given))
        spec = {"model": fingerprint_bundle(bundle.manifest), "settings": {key: get(typed, key) for key in given},
                **{name: each.fingerprint() for name, each in opened.items()}}  # fmt: skip
        if knowledge and bundle.task.knowledge == "none":
            raise ConfigError("the model reads no facts", where="knowledge", got=knowledge, do="leave it out")
        told = (knowledge or read.knowledge) if bundle.task.knowledge != "none" else ""
        spec |= {"knowledge": digest_of(told)} if told else {}
        parts = self.out / "data/train.jsonl", self.out / "data/valid.jsonl"
        if (self.out / SPEC).exists():
            self._same(spec)
            return parts
        if self.out.exists() and any(path.name != "data" for path in self.out.iterdir()):
            raise ConfigError("the folder has something else in it", where=self.out, do="give another --out")
        halves = (opened["data"], opened["valid"]) if valid is not None else \
            split(opened["data"], read.valid, most=HELD_OUT)  # fmt: skip
        find = Finder.open(replace(read, knowledge=told), Report())
        for path, part in zip(parts, halves, strict=True):
            write_pairs(path, map(find.written, part) if told else part, read.source.kind or "text")
        folders.write_file(self.out / SPEC, dump_json(spec))
        return parts

    def _same(self, spec: Mapping[str, Any]) -> None:
        before = load_json((self.out / SPEC).read_bytes(), where=self.out / SPEC)
        changed = list(differences(before, json.loads(dump_json(spec))))
        if changed:
            raise ConfigError(f"this folder was made of something else: {'; '.join(changed)}", where=self.out,
                              do="give what it was made of, or another --out")  # fmt: skip

    def student(self, name: str) -> Path:
        """The run of a student."""
        return self.out / "students" / name


def exports(bundle: Bundle) -> Iterator[Plan]:
    """How a model can be exported here: for CTranslate2 with a shortlist and without, or for onnxruntime."""
    able = not obstacles(bundle.config) and not on_ctranslate2.lacking(replace(bundle.config.decoding, refill=True))
    if able and on_ctranslate2.present():
        yield Plan("ctranslate2", "int8")
        yield Plan("ctranslate2", "int8", candidates=())
    elif on_onnxruntime.present():
        yield Plan("onnx", "int8")
    else:
        engine = on_ctranslate2 if able else on_onnxruntime
        raise require(engine.EXTRA, engine.PACKAGE)


def _student(
    model: str, made: _Folder, kind: str, parts: tuple[Path, Path], given: Mapping[str, Any], observers: Sequence[Any],
    progress: Progress, command: str,
) -> Result:  # fmt: skip
    """The run of a student: begun, gone on with, or as it ended. The first one's answers serve the others."""
    run = made.student(kind)
    if (run / "config.json").exists():
        return resume(run, observers)
    answers = beside(made.student(STUDENTS[0]))
    for end in ("", ".about.json"):
        source, target = Path(f"{answers}{end}"), Path(f"{beside(run)}{end}")
        if kind != STUDENTS[0] and source.exists() and not target.exists():
            shutil.copy(source, target)
    settings = {**DEEP, "model.decoder.kind": kind, **given}
    return distill([model], parts[0], out=run, valid=parts[1], assignments=settings, observers=observers,
                   progress=progress, command=command)  # fmt: skip


class _Work:
    """Exports and measures, and remembers what is done on disk."""

    def __init__(
        self, model: str, bundle: Bundle, made: _Folder, parts: tuple[Path, Path], pairs: list[Pair], metric: str,
        told: Callable[[Candidate], None],
    ) -> None:  # fmt: skip
        self.model, self.bundle, self.made, self.parts, self.pairs = model, bundle, made, parts, pairs
        self.metric, self.told = metric, told
        self.candidates, self.notes = list[Candidate](), list[str]()

    def lightest(self, name: str, student: Bundle) -> Bundle:
        """A student without the tokens that neither the pairs nor its teacher's answers use."""
        found = pruned(student, self._taught())
        sizes = [(each.task.source.size, each.task.target.size) for each in (student, found)]
        if sizes[0] != sizes[1]:
            was, now = (f"{source:,} and {target:,}" for source, target in sizes)
            self.notes.append(f"{name}: vocabularies of {was} tokens, of which the data uses {now}")
        return found

    def _taught(self) -> Iterable[Pair]:
        """The pairs, and the answers that students learned."""
        answers = beside(self.made.student(STUDENTS[0]))
        return chain(open_pairs(self.parts[0], Data()), open_pairs(answers, Data()))

    def export(self, name: str, plan: Plan, bundle: Bundle) -> None:
        """A candidate, made if it is not there, and measured; one that does not answer as PyTorch does is left out."""
        listed = plan.candidates is not None
        label = f"{name}-int8{'-shortlist' if listed else ''}"
        path, engine = self.made.out / label, {"ctranslate2": "CTranslate2", "onnx": "onnxruntime"}[plan.to]
        if not path.exists():
            plan = replace(plan, candidates=self._taught() if name != ITSELF else open_pairs(self.parts[0], Data())) \
                if listed else plan  # fmt: skip
            try:
                export(bundle, path, self.pairs, plan)
            except ConfigError as error:  # others may still be good
                self.notes.append(f"{label} is left out: {error}")
                return
        decoder = bundle.config.model.decoder
        who = "the model" if name == ITSELF else f"a student, {decoder.layers} {decoder.kind} layer"
        self.measure(label, f"{who}, {engine} int8{', shortlist' if listed else ''}", path)

    def measure(self, name: str, what: str, path: Path) -> None:
        """What a candidate costs and how good it is, from disk where that is known."""
        kept = self.made.out / "measured" / f"{name}.json"
        if not kept.exists():
            folders.write_file(kept, dump_json(measured(load(path), self.pairs, self.metric)))
        found = load_json(kept.read_bytes(), where=kept)
        score = found.pop("score")
        interval = tuple(score["interval"]) if score["interval"] else None
        candidate = Candidate(name, what, path, **found, score=Score(**{**score, "interval": interval}))
        self.candidates.append(candidate)
        self.told(candidate)


def measured(bundle: Bundle, pairs: Sequence[Pair], metric: str) -> dict[str, Any]:
    """Bytes of a bundle as it lies there, CPU milliseconds a sentence on one thread, and its score."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        predictor = Predictor(bundle, processes=1, adapter=bundle.config.model.adapter.name or None)
        list(predictor.predict(pairs[::TOGETHER], details=False))
        begun = time.process_time()
        answers = [found[0] for found in predictor.predict(pairs, details=False)]
        spent = time.process_time() - begun
    finally:
        torch.set_num_threads(threads)
    judge, references = metrics.get(metric), [pair.references or (pair.target,) for pair in pairs]
    spoken = [answer.text if isinstance(judge, Pooled) else said(answer) for answer in answers]
    score = metrics.corpus(judge, spoken, references)
    return {"size": _bytes(bundle.path), "milliseconds": 1000 * spent / len(pairs), "score": asdict(score)}


def _bytes(path: Path) -> int:
    """All files of a bundle but those of training."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file() and "training" not in each.parts)
