"""Learning from what other models expect: word-level distillation from one teacher or several.

A student has the vocabularies of its teachers: a distribution over other tokens would say nothing to it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from antiphon.core.batch import Batch, Loss, Memory, Steps
from antiphon.core.config import Config, Training
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override
from antiphon.data.facts import MARKS
from antiphon.data.modalities import Text
from antiphon.inference.bundle import Bundle, load
from antiphon.inference.task import Task
from antiphon.models.distillation import Projection, Said, mixed_cross_entropy, soft_cross_entropy
from antiphon.models.functional import real_rows
from antiphon.models.heads import CopyHead, coverage_loss
from antiphon.models.seq2seq import Seq2Seq
from antiphon.training.finetuning import SIDE, Start, agree
from antiphon.training.identity import fingerprint_bundle
from antiphon.training.objectives import Objective, heard, sampled, token_level

CUT = [name for name in SIDE if name != "vectors"]
KEPT = ("data.shared", "data.context", *(f"data.{side}.{name}" for side in ("source", "target") for name in CUT))
"""Settings that a teacher decides."""


class Distillation(Objective):
    """(1 - share) times cross-entropy against the mean of the teachers' distributions, plus share times likelihood.

    Word-level knowledge distillation (Hinton et al. 2015; Kim and Rush 2016). Teachers read the same batch, without
    dropout, and in the precision of the student. The soft part is multiplied by the square of the temperature, so that
    its gradient does not depend on it in the first place.
    """

    players: tuple[str, ...] = ("model",)

    def __init__(self, settings: Training, teachers: Sequence[Seq2Seq]) -> None:
        if settings.r_drop:
            raise ConfigError("training.objective=distillation has no R-Drop", do="leave out training.r_drop")
        self.teachers = [teacher.requires_grad_(False).eval() for teacher in teachers]
        self.share, self.temperature, self.smoothing = (
            settings.likelihood, settings.temperature, settings.label_smoothing or 0.0
        )  # fmt: skip
        self.coverage, self.sampling = settings.coverage, settings.scheduled_sampling
        self.ctc = settings.ctc or 0.0

    def __call__(self, models: Mapping[str, Any], batch: Batch, progress: float) -> dict[str, Loss]:
        model = models["model"]
        if self.sampling:
            batch = sampled(model, batch, self.sampling * min(1.0, progress))
        steps, memory = model(batch)
        soft = self.against(model, steps, memory, batch)
        total = (1 - self.share) * self.temperature**2 * soft
        if self.share:
            total = total + self.share * model.words.loss(steps, memory, batch.labels_BT, self.smoothing).total
        if self.coverage:
            total = total + self.coverage * coverage_loss(steps, batch.labels_BT)
        loss = Loss(total, batch.count, {"teacher": float(soft.detach())})
        return {"model": model.heard(loss, memory, batch, self.ctc)}

    def against(self, model: Seq2Seq, steps: Steps, memory: Memory, batch: Batch) -> torch.Tensor:
        """The cross-entropy against the teachers, in nats, summed over the real target tokens."""
        weight, taught = model.words.weight, list[Said]()
        with torch.no_grad():
            for teacher in self.teachers:
                teacher.to(device=weight.device, dtype=weight.dtype)
                taught.append(Said(teacher.words, *teacher(batch)))
        student = Said(model.words, steps, memory)
        if isinstance(model.words, CopyHead):
            return mixed_cross_entropy(student, taught, batch.labels_BT, temperature=self.temperature)
        rows = real_rows(batch.labels_BT)
        parts = [projection(each, rows) for each in (student, *taught)]
        return soft_cross_entropy(parts[0], parts[1:], temperature=self.temperature)

    def facts(self, loss: Loss) -> dict[str, float]:
        """Nats of cross-entropy against the teachers a target token, at the temperature."""
        return {"teacher": loss.sums["teacher"] / max(1, loss.count), **heard(loss)}


def projection(said: Said, rows: torch.Tensor) -> Projection:
    """What a model's logits are made of in these rows of all steps."""
    hidden_ND = said.steps.hidden_BTD.flatten(0, 1).index_select(0, rows)
    return Projection(hidden_ND, said.head.weight, said.head.bias)


def from_settings(settings: Training, task: Task | None = None) -> Objective:
    """The objective of the settings, where it needs no rewards; with a task the teachers must fit it."""
    if settings.objective != "distillation":
        return token_level(settings)
    teachers = Teachers.open(settings.teachers)
    if task is not None:
        teachers.check(task)
        teachers.check_heads(task.copy)
    return Distillation(settings, [bundle.model for bundle in teachers.bundles])


@dataclass(frozen=True)
class Teachers:
    """Trained models of one task whose answers, or expectations, are learned from."""

    bundles: tuple[Bundle, ...]
    names: tuple[str, ...]

    @classmethod
    def open(cls, paths: Sequence[str]) -> Teachers:
        """Bundles or runs. Raises `ConfigError` where there are none, or where they do not go together."""
        if not paths:
            do = "name models with --teacher, or training.teachers"
            raise ConfigError("training.objective=distillation needs a teacher", do=do)
        found = cls(tuple(load(Path(path)) for path in paths), tuple(paths))
        for name, bundle in zip(found.names, found.bundles, strict=True):
            if not isinstance(bundle.task.source, Text) or not isinstance(bundle.task.target, Text):
                do = "train the small model on the pairs themselves"
                raise ConfigError("recordings, films, arrays and numbers are not distilled", where=name, do=do)
        for name, bundle in zip(found.names, found.bundles, strict=True):
            found.check(bundle.task, name)
        return found

    def check_heads(self, copies: bool) -> None:
        """Refuse a teacher that copies where the student cannot: it expects words that the student never says."""
        for name, bundle in zip(self.names, self.bundles, strict=True):
            if bundle.task.copy and not copies:
                do = "leave out what keeps it from copying (model.head, model.ctc, model.attention=none); or "
                do += "`antiphon distill --level sequence` learns from its answers"
                what = "the teacher copies words of the source, and the student has no copy head"
                raise ConfigError(what, where=name, do=do)

    def check(self, task: Task, where: str = "the student") -> None:
        """Refuse a task that cuts text otherwise, or numbers its tokens otherwise, than the first teacher does."""
        theirs = self.bundles[0].task
        for side in ("source", "target"):
            ours, right = getattr(task, side), getattr(theirs, side)
            if _cut(ours) != _cut(right):
                do = "take models with one vocabulary: the student has that of the first teacher, or of its start"
                raise ConfigError(f"another {side} vocabulary than that of the teacher {self.names[0]}", where=where,
                                  got=f"{len(ours.vocabulary):,} and {len(right.vocabulary):,} tokens",
                                  do=do)  # fmt: skip
        if task.context != theirs.context:
            raise ConfigError(f"the teacher {self.names[0]} reads other context columns", where=where,
                              got=f"{','.join(task.context) or 'none'} and {','.join(theirs.context) or 'none'}",
                              do="set data.context to that of the teacher")  # fmt: skip
        if task.knowledge != theirs.knowledge:
            do = f"set model.knowledge.kind={theirs.knowledge}"
            raise ConfigError(f"the teacher {self.names[0]} reads facts otherwise", where=where,
                              got=f"{task.knowledge} and {theirs.knowledge}", do=do)  # fmt: skip

    def settings(self, assignments: Mapping[str, Any]) -> Config:
        """The task and the sides of the first teacher, and its way to read facts, with these settings put in; a student
        copies where a teacher does, if it can.

        Raises `ConfigError` that names a setting which contradicts what the teacher decides.
        """
        known, given = self.bundles[0].config, override(Config(), dict(assignments))
        for key in sorted(set(KEPT) & set(assignments)):
            do = "leave it out: the student has the teacher's vocabularies"
            agree(key, given, known, "the teacher", self.names[0], do)
        sides = {name: getattr(known.data, name) for name in ("source", "target")}
        sides = {name: replace(side, sampling=0.0, vectors="", freeze=False) for name, side in sides.items()}
        same = {name: getattr(known.data, name) for name in ("shared", "context", "frames", "facts", "history")}
        data = replace(Config().data, **sides, **same)
        knowledge = replace(Config().model.knowledge, kind=known.model.knowledge.kind or "none")
        free = {key: value for key, value in assignments.items() if key not in KEPT}
        copies = any(bundle.task.copy for bundle in self.bundles) and given.model.attention != "none"
        model = replace(Config().model, knowledge=knowledge, head="copy" if copies and not given.model.ctc else None)
        return override(replace(Config(), task=known.task, data=data, model=model), free)

    def task(self, config: Config) -> Task:
        """The first teacher's task under these settings, for a student with whatever head."""
        task = Task.load(self.bundles[0].task.files(), config)
        known = set(task.source.vocabulary.index) if isinstance(task.source, Text) else set(MARKS)
        if task.knowledge == "linear" and not set(MARKS) <= known:
            do = "set model.knowledge.kind=none, or graph"
            raise ConfigError(f"the vocabulary of the teacher {self.names[0]} has no marks for facts",
                              got="model.knowledge.kind=linear", do=do)  # fmt: skip
        return replace(task, name=config.task, copy=config.model.head == "copy")


def taught(assignments: Mapping[str, Any], teachers: Sequence[str | os.PathLike[str]] = ()) -> dict[str, Any]:
    """Settings with these teachers put in, or those of `training.teachers`, and their objective where none is given."""
    given = dict(assignments)
    paths = teachers or override(Config(), given).training.teachers
    if paths:
        given["training.teachers"] = tuple(str(Path(path).absolute()) for path in paths)
        given.setdefault("training.objective", "distillation")
    return given


def teaching(paths: Sequence[str]) -> dict[str, str]:
    """For the model card: who the teachers were."""
    return {"taught_by": "; ".join(Start.open(path).lineage() for path in paths)} if paths else {}


def _cut(text: Text) -> tuple[Any, ...]:
    """What decides how a text becomes ids."""
    tokenizer, side = text.tokenizer, text.side
    return tokenizer.kind, tokenizer.files(), text.vocabulary.tokens, side.normalize, side.lowercase


def fingerprint(paths: Sequence[str]) -> str:
    """The SHA-256 of what teachers are made of."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(fingerprint_bundle(load(Path(path)).manifest).encode())
    return digest.hexdigest()
