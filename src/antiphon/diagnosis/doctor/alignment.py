"""How the decoder looks at the source: whether it can, whether it knows the order, and where it looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from antiphon.diagnosis.doctor.findings import Evidence, Finding, Plot
from antiphon.diagnosis.doctor.patient import Patient
from antiphon.diagnosis.doctor.weighing import both, sure

ORDERLESS = ("transformer", "conformer")
THIN = 8
"""Fewer numbers of a head than these say too little of a token to find it by."""


def no_positions(patient: Patient) -> Iterator[Finding]:
    """Self-attention without positions reads a bag of words (Vaswani et al. 2017)."""
    model = patient.record.config.model
    blind = [side for side in ("encoder", "decoder") if getattr(model, side).kind in ORDERLESS]
    if model.positions != "none" or not blind:
        return
    symptom = sure(1 - patient.learned, 0.05, 0.5)
    yield Finding(
        "no positions", both(0.95 if "encoder" in blind else 0.7, max(0.8, symptom)),
        f"the {' and the '.join(blind)} cannot tell the order of what {'they read' if len(blind) > 1 else 'it reads'}",
        (Evidence(f"model.positions=none with self-attention: every order of a source is the same source; "
                  f"{patient.learned:.0%} of what there is to learn was learned", {"learned": patient.learned}),
         *_looking(patient)),
        "not diffuse attention by itself: without places there is nothing to point at; a recurrent encoder needs none",
        {"model.positions": patient.advised("model.positions") or "sinusoidal"},
        expect="attention that follows the source, and a much lower loss where order matters",
        plot=patient.record.plot(),
    )  # fmt: skip


def no_attention(patient: Patient) -> Iterator[Finding]:
    """One vector for a whole source forgets what is long (Bahdanau et al. 2015)."""
    record = patient.record
    if record.config.model.attention != "none":
        return
    sides = patient.material.train if patient.material else None
    length = sides.lengths[0] if sides else 20.0
    used = patient.record.last("loss", "shuffled")
    points = by_length(patient)
    yield Finding(
        "no attention", both(sure(length, 5, 20), max(0.75, sure(1 - patient.learned, 0.2, 0.6))),
        f"sources of {length:.0f} tokens on average are squeezed into one vector",
        (Evidence("model.attention=none", {"source length": length, "learned": patient.learned}),
         *([Evidence(f"the loss of the longest targets is {points[-1][1]:.2f}, of the shortest {points[0][1]:.2f}")]
           if len(points) > 1 else []),
         *([Evidence(f"with the sources of other pairs the loss is {used:.2f}", {"shuffled": used})] if used else [])),
        "not a model too small: what is lost is lost with the length; not a run too short, which harms short ones too",
        {"model.attention": patient.advised("model.attention") or "multihead"},
        expect="answers to long sources as good as to short ones",
        plot=Plot("loss by target length", "tokens", points) if len(points) > 1 else record.plot(),
    )  # fmt: skip


def diffuse_attention(patient: Patient) -> Iterator[Finding]:
    """The decoder looks everywhere alike, which is nowhere; heads of a few numbers cannot do otherwise."""
    entropy, model = patient.record.last("attention", "entropy"), patient.record.config.model
    if entropy is None:
        return
    width = model.width or THIN
    fewer = max(each for each in range(1, max(1, width // (2 * THIN)) + 1) if width % each == 0)
    thin = model.attention == "multihead" and width // model.heads < THIN and fewer < model.heads
    few = f"each of {model.heads} heads has {width // model.heads} of {width} numbers to tell tokens apart by"
    budget = ("training.epochs", "training.steps", "training.minutes")
    cure = {"model.heads": fewer} if thin else {
        "training.rate": patient.advised("training.rate"), "training.warmup": patient.advised("training.warmup"),
        **dict.fromkeys(budget), "training.epochs": patient.advised(*budget)}  # fmt: skip
    yield Finding(
        "diffuse attention", both(sure(entropy, 0.8, 0.97), max(unused(patient), 0.9 if thin else 0.3)),
        f"attention is spread over the whole source: {entropy:.0%} of the entropy that it could have",
        (*([Evidence(few, {"numbers": width // model.heads})] if thin else []), *_looking(patient)),
        "not a run too short: with so few numbers no head can point, however long it learns" if thin else
        "not a decoder that does without: the loss with the sources of other pairs says how much it uses its own",
        cure, expect="entropy that falls, and a loss that falls with it", plot=_attention(patient, "entropy"),
    )  # fmt: skip


def stuck_attention(patient: Patient) -> Iterator[Finding]:
    """The decoder looks at the end mark, or at the first token, whatever it says."""
    places = {name: patient.record.last("attention", name) for name in ("end", "first")}
    where = max(places, key=lambda name: places[name] or 0.0)
    if places[where] is None:
        return
    used = unused(patient)
    yield Finding(
        "stuck attention", both(sure(places[where], 0.6, 0.9), max(used, 0.3)),
        f"{places[where]:.0%} of all attention is on the {'end mark' if where == 'end' else 'first token'} of sources",
        _looking(patient),
        "not a resting place: models that learn well look there at some steps, and still use what they read",
        {"training.warmup": patient.advised("training.warmup"), "training.rate": patient.advised("training.rate"),
         "model.attention": "multihead"},
        expect="attention that moves with the answer", plot=_attention(patient, where),
    )  # fmt: skip


def unused(patient: Patient) -> float:
    """How sure it is that the source is hardly used: other sources cost no more loss than its own."""
    shuffled, valid = (patient.record.last("loss", name) for name in ("shuffled", "valid"))
    return sure(shuffled / valid - 1, 0.1, 0.01) if shuffled and valid else patient.stuck


def _looking(patient: Patient) -> tuple[Evidence, ...]:
    """What the attention probes found last, and what other sources would do."""
    names = ("entropy", "coverage", "diagonality", "end", "first")
    found = {name: value for name in names if (value := patient.record.last("attention", name)) is not None}
    shuffled, valid = (patient.record.last("loss", name) for name in ("shuffled", "valid"))
    told = [Evidence("attention: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()), found)] * bool(
        found
    )
    if shuffled and valid:
        told.append(Evidence(f"held-out loss {valid:.2f}, and {shuffled:.2f} with the sources of other pairs",
                             {"valid": valid, "shuffled": shuffled}))  # fmt: skip
    return tuple(told)


def _attention(patient: Patient, name: str) -> Plot:
    return Plot(f"attention: {name}", "step", tuple((float(step), value) for step, value in
                                                    patient.record.probed("attention", name)))  # fmt: skip


def by_length(patient: Patient) -> tuple[tuple[float, float], ...]:
    """The latest held-out loss by the length of targets."""
    probes: list[Any] = list(patient.record.probes.get("loss", ()))
    rows = (probes[-1].get("by_length") or []) if probes else []
    return tuple((float(row[0]), float(row[2])) for row in rows if row[2] is not None and (row[3] or 0) > 0)


RULES = (no_positions, no_attention, diffuse_attention, stuck_attention)
