"""Rate, warm-up, batch, length of training and what does not learn at all (Goodfellow et al. 2016, chapter 8)."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import numpy as np

from antiphon.diagnosis.doctor.findings import Evidence, Finding
from antiphon.diagnosis.doctor.patient import LIMIT, Patient
from antiphon.diagnosis.doctor.record import FEWEST, Record
from antiphon.diagnosis.doctor.weighing import both, noise, sure

PEAK = "training.rate"
AWAY = 100
"""Times the first loss that none has by chance."""
NO_SYMPTOM = 0.3
"""What a cause is worth that is there, but of which nothing is to be seen."""


def rate_too_high(patient: Patient) -> Iterator[Finding]:
    """What was learned is lost again, or nothing is learned, at steps that are large beside the weights."""
    record = patient.record
    if len(record.losses) < FEWEST:
        return
    ratio, step, jump = patient.ratio(PEAK, "training.warmup"), step_size(record), sensitivity(record)
    cause = max(sure(ratio, LIMIT, 8), sure(step, 0.06, 0.25), 0.9 * sure(jump, 0.05, 0.3))
    broken = 0.9 if record.noted("rollback") else sure(len(record.noted("skip")), 1, 3)
    symptom = max(patient.stuck, sure(patient.lost, 0.1, 0.4), broken, NO_SYMPTOM)
    confidence = both(symptom, cause) * (0.6 if ratio < 1.5 and not broken else 1.0)
    if record.config.training.clip == 0 and ratio < LIMIT:
        confidence *= 0.7  # then nothing held the gradient, which is the nearer cause
    advised = patient.advised(PEAK) or record.peak / 10
    target = advised if ratio > 1.5 else record.peak / 5
    yield Finding(
        "rate too high", confidence,
        f"{'what was learned was lost again' if patient.lost > 0.1 else 'little was learned'}: the training loss went "
        f"from {record.losses[0]:.2f} to {record.curve.min():.2f} and ended at {record.curve[-1]:.2f}",
        (Evidence(f"the rate rose to {record.peak:.2g}; for this optimizer and width {advised:.2g} is proposed",
                  {"peak rate": record.peak, "proposed": advised, "ratio": ratio}),
         *_steps(step),
         *([Evidence(f"the last update, applied once more, changes the loss of a training batch by {jump:+.0%}",
                     {"change": jump})] if jump is not None else [])),
        "not a model too small or data that cannot be learned: these stay flat and do not rise; not a missing warm-up, "
        "which harms in the first steps alone",
        {PEAK: round(target, 6)}, expect="a training loss that falls smoothly and stays down", plot=record.plot(),
    )  # fmt: skip


def _steps(step: float | None) -> list[Evidence]:
    if step is None:
        return []
    return [Evidence(f"an update is {step:.1%} of the weights that it changes; some 0.1 to 5 % is usual",
                     {"update / weight": step})]  # fmt: skip


def rate_too_low(patient: Patient) -> Iterator[Finding]:
    """The loss still falls as fast as ever, and the weights have hardly moved."""
    record = patient.record
    if len(record.losses) < FEWEST:
        return
    ratio, reach = patient.ratio(PEAK, "training.warmup"), moved(record)
    cause = sure(ratio, 1 / LIMIT, 1 / 15)
    if reach is not None and ratio < 1 / 1.5:
        cause = max(cause, sure(reach, 1.0, 0.2))
    symptom = max(patient.stuck, sure(patient.late, 0.12, 0.35), NO_SYMPTOM)
    advised = patient.advised(PEAK) or record.peak * 10
    far = "" if reach is None else f", in which weights could move by {reach:.2g} times their own size"
    yield Finding(
        "rate too low", both(symptom, cause) * (1 - sure(patient.lost, 0.1, 0.4)),
        f"learning creeps: {patient.late:.0%} of the fall of the loss came in the second half of the run",
        (Evidence(f"the rate rose to {record.peak:.2g}, {advised:.2g} is proposed{far}",
                  {"peak rate": record.peak, "proposed": advised, "ratio": ratio}),),
        "not a model too small: its loss would have become flat; not a run ended early: its steps were small, not few",
        {PEAK: round(advised, 6)}, expect="the same loss in a fraction of the steps, and a lower one in the end",
        plot=record.plot(),
    )  # fmt: skip


def no_warmup(patient: Patient) -> Iterator[Finding]:
    """The first steps are large, and what they break does not mend (Xiong et al. 2020)."""
    record = patient.record
    warmup, advised = record.config.training.warmup or 0, patient.advised("training.warmup") or 0
    if len(record.losses) < FEWEST or advised < 10 or patient.recurrent:
        return
    post = record.config.model.norm in ("post", "none")
    cause = sure(max(1, warmup) / advised, 0.25, 0.05) * (1.0 if post else 0.8)
    early = early_rise(record)
    symptom = max(patient.stuck, sure(early, 0.2, 1.0), NO_SYMPTOM)
    high = patient.ratio(PEAK, "training.warmup")
    yield Finding(
        "no warm-up", both(symptom, cause) * (0.75 if high >= LIMIT else 1.0),
        "the first steps went at full rate, and the loss "
        f"{'rose at once' if early > 0.2 else 'has not recovered from them'}",
        (Evidence(f"{warmup} steps of warm-up, {advised} are proposed; norm {record.config.model.norm}",
                  {"warm-up": warmup, "proposed": advised, "rise in the first tenth": early}),
         Evidence(f"the gradient's norm was {finite_max(record.norms[:FEWEST]):.3g} at most in the first {FEWEST} "
                  f"steps, and {np.median(record.norms):.3g} in the middle of the run", step=1)),
        f"not the rate itself, which is {high:.2g} times what is proposed; a Transformer normalized after each block "
        "needs small steps first",
        {"training.warmup": advised, **({"model.norm": "pre"} if post else {})},
        expect="a loss that falls from the first steps on", plot=record.plot(),
    )  # fmt: skip


def batch_too_small(patient: Patient) -> Iterator[Finding]:
    """Each step sees so few tokens that its gradient is mostly noise (McCandlish et al. 2018)."""
    record = patient.record
    tokens, advised = float(np.nanmean(record.column("tokens"))), patient.advised("data.batch_tokens")
    if len(record.losses) < FEWEST or not advised:
        return
    rough = noise(record.losses[len(record.losses) // 5 :])
    asked = (record.value("data.batch_tokens") or advised) * record.config.training.accumulate
    yield Finding(
        "batch too small", both(sure(advised / asked, 3, 10), sure(rough, 0.12, 0.3)),
        f"steps disagree: from one to the next the loss differs by {rough:.0%}",
        (Evidence(f"{tokens:,.0f} tokens a step; {advised:,} are proposed for this much data",
                  {"tokens": tokens, "proposed": advised, "noise": rough}),),
        "not the rate: with the proposed batch the same rate suits; not noisy data: noise in the data stays in larger "
        "batches too",
        {"data.batch_tokens": advised, **({PEAK: patient.advised(PEAK)} if patient.advised(PEAK) else {})},
        expect="a smoother loss, faster epochs, and a lower loss in the end", plot=record.plot(),
    )  # fmt: skip


def broke(patient: Patient) -> Iterator[Finding]:
    """A training that gave up, or whose loss ran away, before there was enough to read the log by."""
    record = patient.record
    if record.end or not record.steps or (record.in_nats and len(record.losses) >= FEWEST):
        return
    back, losses = len(record.noted("rollback")), record.column("loss")
    away = not np.isfinite(losses[-1]) or abs(losses[-1]) > AWAY * max(1.0, abs(losses[0]))
    if not (back or away):
        return
    rate = patient.advised(PEAK, "training.warmup") or record.peak / 10
    yield Finding(
        "rate too high", 0.9 if back and away else 0.75,
        f"the loss went from {losses[0]:.3g} to {losses[-1]:.3g} in {len(losses)} steps"
        + (f", and {back} times back" if back else ""),
        (Evidence(f"the rate rose to {record.peak:.2g}, {rate:.2g} is proposed",
                  {"peak rate": record.peak, "proposed": rate, "rolled back": back}),),
        "not a run too short: what was lost is more than there was at first; not one bad pair: going back did not help",
        {PEAK: round(rate, 6), "training.warmup": patient.advised("training.warmup")},
        expect="a loss that falls", plot=record.plot(),
    )  # fmt: skip


def ended_early(patient: Patient) -> Iterator[Finding]:
    """The budget was used up while the model was still learning."""
    record, training = patient.record, patient.record.config.training
    if not record.steps or not record.end:
        return  # it has not ended
    budget = ("training.epochs", "training.steps", "training.minutes")
    advised = patient.advised(*budget)
    short = advised / max(0.01, record.epochs) if advised else 1.0
    never = training.warmup / len(record.steps) if training.warmup and training.schedule != "plateau" else 0.0
    few = sure(short, 6, 30) * (0.5 + 0.5 * sure(1 / patient.gap, 0.6, 0.95))
    symptom = max(sure(patient.late, 0.15, 0.4), 0.8 * patient.stuck, 0.9 * sure(never, 0.7, 1.5))
    rate = patient.ratio(PEAK, "training.warmup")
    slow = 1.0 if 1 / LIMIT < rate < LIMIT else 0.5
    known = ": nothing is known by heart yet" if patient.gap < 1.2 else ""
    cure = {"training.epochs": advised, "training.steps": None, "training.minutes": None}
    if never > 0.5:
        cure |= {"training.warmup": patient.advised("training.warmup", *budget)}
    yield Finding(
        "ended early", both(max(few, 0.9 * sure(never, 0.7, 1.5)), symptom) * slow,
        f"it ended after {record.epochs:.2g} passes over the data, {_state(patient)}",
        (Evidence(f"{record.epochs:.3g} epochs, about {advised} are proposed",
                  {"epochs": record.epochs, "late": patient.late}),
         Evidence(f"held-out loss is {patient.gap:.2f} times that of training" + known,
                  {"gap": patient.gap}),
         *([Evidence(f"warm-up takes {training.warmup} of {len(record.steps)} steps: the rate never got to stay where "
                     "it was meant to", {"share": never})] if never > 0.5 else [])),
        "not a rate too low: the steps were as large as is proposed, and too few; not a model too small: its loss "
        "would be flat",
        cure, expect="the loss goes on falling; early stopping says when it is enough", plot=record.plot(),
    )  # fmt: skip


def _state(patient: Patient) -> str:
    """How far a run was when it ended."""
    if patient.late > 0.15:
        return f"while the loss was still falling: {patient.late:.0%} of its fall came in the second half"
    return f"with {patient.learned:.0%} learned of what there is to learn beyond frequencies"


def frozen(patient: Patient) -> Iterator[Finding]:
    """Weights that no step changes."""
    record = patient.record
    still, whole = unchanged(record)
    set_so = [f"data.{side}.freeze" for side in ("source", "target") if record.value(f"data.{side}.freeze")]
    share = sum(still.values()) / whole if whole else 0.0
    sure_so = max(sure(share, 0.02, 0.2), 0.75 if set_so else 0.0)
    if not still and not set_so:
        return
    names = ", ".join(still) or "the word vectors"
    yield Finding(
        "frozen weights", sure_so * (0.8 if patient.learned > 0.6 else 1.0),
        f"{names} never changed" + (f": {share:.0%} of all weights" if still else ""),
        (Evidence(f"updates of {names} are 0 at every step" if still else f"{' and '.join(set_so)}=true",
                  {"share of the weights": share}, where=names),),
        "not vanishing gradients: these become small, and are never 0 exactly",
        dict.fromkeys(set_so, False), "" if set_so else "train all parts of the model",
        expect="all layers move, and the loss falls further",
    )  # fmt: skip


def unchanged(record: Record) -> tuple[dict[str, int], int]:
    """Layers whose update was 0 whenever it was looked at, with their parameters, and the parameters of all."""
    still: dict[str, int] = {}
    moving: dict[str, int] = {}
    for probe in record.probes.get("layers", ()):
        for layer in probe.get("layers") or ():
            if layer.get("update") is None:
                continue
            known = moving if layer["update"] else still
            known[layer["name"]] = int(layer.get("parameters") or 1)
    still = {name: size for name, size in still.items() if name not in moving}
    return still, sum((still | moving).values())


def step_size(record: Record) -> float | None:
    """The median over the run of the whole model's update as a share of its weights, while the rate was high."""
    found = []
    for probe in record.probes.get("layers", ()):
        layers = [layer for layer in probe.get("layers") or () if layer.get("weight") and layer.get("update")]
        if layers and (probe.get("rate") or 0) >= record.peak / 3:
            norms = [sum(layer[name] ** 2 for layer in layers) ** 0.5 for name in ("update", "weight")]
            found.append(norms[0] / norms[1])
    return median(found) if found else None


def sensitivity(record: Record) -> float | None:
    """The most that the last update, applied once more, raised the loss of a batch, as a share of it."""
    rises = []
    for probe in record.probes.get("rate", ()):
        losses = probe.get("sensitivity")
        if isinstance(losses, list) and len(losses) > 1 and losses[0] and losses[1] is not None:
            rises.append(losses[1] / losses[0] - 1)
    return median(rises) if rises else None


def moved(record: Record) -> float | None:
    """How far weights can have gone at all, in their own size: Adam moves each by the rate a step, at most."""
    if record.config.training.optimizer not in ("adam", "adamw", "rmsprop"):
        return None
    size = (record.config.model.width or 128) ** -0.5
    return float(np.nansum(record.column("rate"))) / size


def early_rise(record: Record) -> float:
    """How far the loss rose above its start within the first tenth of the run, as a share of the start."""
    early = record.losses[: max(FEWEST, len(record.losses) // 10)]
    return float(max(0.0, early.max() / early[0] - 1))


def finite_max(values: np.ndarray) -> float:
    """The largest finite value."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else float("inf")
