"""Too much or too little capacity or regularization, for the data there is (Goodfellow et al. 2016, chapter 5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from antiphon.diagnosis.doctor.findings import Evidence, Finding, Plot
from antiphon.diagnosis.doctor.patient import LIMIT, Patient
from antiphon.diagnosis.doctor.record import FEWEST
from antiphon.diagnosis.doctor.weighing import both, lost_again, sure


def overfitting(patient: Patient) -> Iterator[Finding]:
    """The held-out loss rises while that of training goes on falling."""
    record, model = patient.record, patient.record.config.model
    losses = record.validation_losses
    if len(losses) < 3:
        return
    lowest = min(loss for _, loss in losses)
    rise = lost_again(np.array([loss for _, loss in losses]))
    weak = sure(odds(model.dropout) / odds(patient.advised("model.dropout")), 0.5, 0.2)
    cause = max(0.55, 0.9 * weak)
    falls = sure(patient.gap, 1.5, 3)
    more = power_law(patient)
    cure: dict[str, Any] = {"model.dropout": max(patient.advised("model.dropout") or 0.3, model.dropout or 0.0)}
    cure |= {"training.label_smoothing": 0.1} if not record.config.training.label_smoothing else {}
    cure |= (
        {"model.width": small} if (small := patient.advised("model.width")) and small * 2 <= (model.width or 0) else {}
    )
    yield Finding(
        "overfitting", both(sure(rise, 0.08, 0.4), max(falls, 0.4), cause),
        f"the held-out loss has risen again by {rise:.0%} of its fall, while the training loss fell on",
        (Evidence(f"held-out {losses[-1][1]:.3f}, {lowest:.3f} at best; {patient.gap:.1f} times that of training",
                  {"rise": rise, "gap": patient.gap}, min(losses, key=lambda each: each[1])[0]),
         Evidence(f"dropout {model.dropout}, {patient.advised('model.dropout')} is proposed for this much data",
                  {"dropout": model.dropout or 0.0}), *more),
        "not a domain gap, which is there from the first validation on; not a rate too high: the training loss fell on",
        cure, "more pairs help most; data.augment.* makes some of those there are",
        "a held-out loss that falls longer; the best weights were kept all the same",
        Plot("held-out loss", "step", tuple((float(step), loss) for step, loss in losses)),
    )  # fmt: skip


def odds(share: float | None) -> float:
    """What is dropped for each unit that stays; a little where nothing is."""
    share = min(0.95, max(0.01, share or 0.0))
    return share / (1 - share)


def power_law(patient: Patient) -> list[Evidence]:
    """How much another doubling of the steps would bring, by a power law through the falling held-out loss."""
    losses = patient.record.validation_losses
    falling = losses[: 1 + min(range(len(losses)), key=lambda place: losses[place][1])]
    if len(falling) < 4:
        return []
    steps, values = (np.log(np.array(each)) for each in zip(*falling[-4:], strict=True))
    slope = float(np.polyfit(steps, values, 1)[0])
    return [Evidence(f"while it fell, each doubling of what was seen brought {1 - 2**slope:.0%}: twice the pairs would "
                     "bring about as much", {"exponent": slope})]  # fmt: skip


def too_much_regularization(patient: Patient) -> Iterator[Finding]:
    """So much is dropped, smoothed or pulled to 0 that the model cannot learn what there is."""
    record, model, training = patient.record, patient.record.config.model, patient.record.config.training
    if len(record.losses) < FEWEST:
        return
    advised, smoothing = patient.advised("model.dropout") or 0.2, training.label_smoothing or 0.0
    causes = {
        "model.dropout": (model.dropout or 0.0, advised, sure(odds(model.dropout) / odds(advised), 3, 7)),
        "training.label_smoothing": (smoothing, 0.1, sure(smoothing, 0.25, 0.5)),
        "training.l2": (training.l2, 0.0, sure(training.l2, 3e-4, 1e-2)),
        "training.l1": (training.l1, 0.0, sure(training.l1, 1e-5, 1e-3)),
        "training.weight_decay": (training.weight_decay, 0.01, sure(training.weight_decay, 0.3, 3)),
        "model.dropout_word": (model.dropout_word, 0.0, sure(model.dropout_word, 0.25, 0.6)),
        "model.dropout_attention": (model.dropout_attention, 0.0, sure(model.dropout_attention, 0.4, 0.8)),
    }  # fmt: skip
    name, (value, usual, cause) = max(causes.items(), key=lambda item: item[1][2])
    held = sure(patient.gap, 1.5, 0.9)
    symptom = max(0.6 * held + 0.4 * sure(1 - patient.learned, 0.3, 0.7), 0.5)
    yield Finding(
        "too much regularization", both(cause, symptom),
        f"{name}={value:g} keeps the model from learning: {patient.learned:.0%} of what there is to learn was learned",
        (Evidence(f"{usual:g} is usual", {name: float(value), "usual": float(usual)}),
         Evidence(f"held-out loss is {patient.gap:.2f} times that of training (with dropout where no probe has it "
                  "without)", {"gap": patient.gap})),
        "not a model too small: its size is as proposed; not overfitting, which is what this is against",
        {name: usual}, expect="a training loss that falls further, and a held-out loss with it", plot=record.plot(),
    )  # fmt: skip


def model_too_small(patient: Patient) -> Iterator[Finding]:
    """Training and held-out loss are alike, and both have stopped falling well above what others reach."""
    record, model = patient.record, patient.record.config.model
    if len(record.losses) < FEWEST:
        return
    keys = ("model.width", "model.feedforward", "model.encoder.layers", "model.decoder.layers")
    advised = {key: patient.advised(key, *keys) for key in keys}
    narrow = (advised["model.width"] or 1) / (model.width or advised["model.width"] or 1)
    cause = sure(narrow, LIMIT + 1, 8)
    same = sure(patient.gap, 1.5, 1.0)
    symptom = max(0.5 * same + 0.5 * sure(1 - patient.learned, 0.3, 0.7), 0.5)
    yield Finding(
        "model too small", both(cause, symptom),
        f"the loss stopped at {record.best_loss or record.curve[-1]:.2f}, in training as on held-out pairs",
        (Evidence(f"width {model.width}, {advised['model.width']} is proposed for this much data",
                  {"width": model.width or 0, "proposed": advised["model.width"] or 0}),
         Evidence(f"held-out loss is {patient.gap:.2f} times that of training: nothing is known by heart",
                  {"gap": patient.gap})),
        "not a rate too low or too short a run: the loss no longer falls; not too much dropout, which is as proposed",
        {key: value for key, value in advised.items() if value is not None},
        expect="a lower training loss first, and a lower held-out loss with it", plot=record.plot(),
    )  # fmt: skip
