"""All that can be asked of a run, in turn: its log, its data, and its answers; then what is the likeliest cause."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from antiphon.core.errors import AntiphonError
from antiphon.diagnosis.doctor import alignment, capacity, fit, gradients, optimization, output, pairs, searching
from antiphon.diagnosis.doctor.answers import Answers
from antiphon.diagnosis.doctor.findings import Evidence, Examination, Finding, ranked
from antiphon.diagnosis.doctor.material import Material
from antiphon.diagnosis.doctor.patient import Patient
from antiphon.diagnosis.doctor.record import Record
from antiphon.diagnosis.doctor.weighing import SUREST
from antiphon.training.checkpoint import Checkpoints

FROM_LOG = (
    optimization.rate_too_high, optimization.rate_too_low, optimization.no_warmup, optimization.batch_too_small,
    optimization.frozen, gradients.vanishing, gradients.exploding, gradients.dead_units, gradients.saturated_gates,
    gradients.poisonous_batch, fit.overfitting, fit.too_much_regularization, fit.model_too_small, *alignment.RULES,
    output.exposure_bias,
)  # fmt: skip
"""Rules that a running training can be looked at by."""

AT_THE_END = (optimization.ended_early, output.metric_against_loss)
FROM_DATA = (*pairs.RULES, *capacity.RULES)
FROM_ANSWERS = (searching.search, output.dull_answers, output.copying, output.repetition, output.length_collapse)


def examine(run: Path, *, answers: bool = True) -> Examination:
    """What is wrong with a run, the likeliest cause first; without `answers` its model is not asked for any.

    Where its data is gone the log alone is looked at. Raises `AntiphonError` where there is no run.
    """
    begun = time.process_time()
    record = Record.open(Path(run))
    whole = Material(record)
    material, missing = _readable(whole)
    patient = Patient(record, material)
    rules = (*FROM_LOG, *AT_THE_END) if record.in_nats else ()
    asked = (*_damaged(whole), *_asked(patient, (optimization.broke, *rules, *FROM_DATA)))
    findings = [_changing(each, record) for each in (*asked, *(_answered(patient) if answers else ()))]
    anew = patient.unigram or not ("start" in record.facts or record.config.model.adapter.name)
    learned = patient.learned if record.in_nats and anew else 1.0  # the loss of a trained model need not fall
    seconds = time.process_time() - begun
    looked_at = (*_looked_at(patient, answers), *missing)
    return Examination(str(run), ranked(findings), looked_at, record.plot(), learned, seconds)


def _changing(finding: Finding, record: Record) -> Finding:
    """The finding with that alone of its cure which the training did not have already."""
    cure = {key: value for key, value in finding.cure.items()
            if key.startswith("decoding.") or value != record.value(key)}  # fmt: skip
    return replace(finding, cure=cure)


def _readable(material: Material) -> tuple[Material | None, tuple[str, ...]]:
    """The pairs of a run; none, and what is to be said of it, where they are not there any more."""
    bundle, damage = material.opened
    try:
        if material.parts[0] and bundle is not None:
            return material, ()
    except AntiphonError as error:
        return None, (f"not its pairs and answers: {error}",)
    return material, (f"not its answers: {'its model is damaged' if damage else 'there is no model yet to give any'}",)


def _damaged(material: Material) -> Iterator[Finding]:
    """A model that cannot be opened."""
    if not (damage := material.opened[1]):
        return
    instead = "if there is none, train anew"
    with suppress(AntiphonError):
        instead = f"the newest checkpoint is a model too: {Checkpoints(material.record.run).newest().path}"
    yield Finding(
        "damaged model", SUREST, "the best model of the run cannot be opened", (Evidence(damage),),
        "not the training: its log is whole", action=f"fetch it from a copy; {instead}",
    )  # fmt: skip


def examine_live(patient: Patient) -> tuple[Finding, ...]:
    """What the log of a training says that still goes on."""
    return ranked(_asked(patient, FROM_LOG)) if patient.record.in_nats else ()


def _asked(patient: Patient, rules: tuple[object, ...]) -> Iterator[Finding]:
    for rule in rules:
        yield from rule(patient)  # type: ignore[operator]


def _answered(patient: Patient) -> Iterator[Finding]:
    """By the model's own answers, where it can give any of text."""
    material = patient.material
    if material is None or not material.textual or material.bundle is None or not material.asked:
        return
    answers = Answers(material.bundle, material)
    for rule in FROM_ANSWERS:
        yield from rule(patient, answers)


def _looked_at(patient: Patient, answers: bool) -> Iterator[str]:
    record, material = patient.record, patient.material
    yield f"{len(record.steps):,} steps and {len(record.validations):,} validations"
    if not record.in_nats:
        yield "not how its losses fell: they are not those of tokens by likelihood"
    if kinds := ", ".join(f"{len(found)} of {kind}" for kind, found in sorted(record.probes.items())):
        yield f"probes: {kinds}"
    if material is None:
        return
    audited = ", and their audit" if material.textual else ""
    yield f"{material.count:,} training and {len(material.parts[1]):,} held-out pairs{audited}"
    if answers and material.textual and material.bundle is not None:
        yield f"answers to {len(material.asked)} held-out sources"
