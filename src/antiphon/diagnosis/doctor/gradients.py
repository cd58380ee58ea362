"""Gradients that vanish or explode, units that are dead, gates that are stuck, and the one pair that spoils a step."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import numpy as np

from antiphon.diagnosis.doctor.findings import Evidence, Finding, Plot
from antiphon.diagnosis.doctor.optimization import NO_SYMPTOM
from antiphon.diagnosis.doctor.patient import LIMIT, Patient
from antiphon.diagnosis.doctor.record import FEWEST, Record
from antiphon.diagnosis.doctor.weighing import both, sure
from antiphon.diagnosis.findings import some

SPIKE = 10.0
"""A gradient so many times the median of those around it is a spike."""
LONE, REGULAR, STEPS, EPOCHS = 4.0, 0.4, 5, 4
"""A gradient that is so high among those of its epoch stands out, and the share of epochs with such a one that is no
chance; the steps of an epoch that count, and the epochs."""
TOO_DEEP = 2.0
"""Times as many layers as are proposed."""


def vanishing(patient: Patient) -> Iterator[Finding]:
    """The gradient gets smaller from layer to layer on its way back (Hochreiter 1991, Bengio et al. 1994)."""
    record, model = patient.record, patient.record.config.model
    deep = max(model.encoder.layers or 1, model.decoder.layers or 1)
    plain = "rnn" in (model.encoder.kind, model.decoder.kind)
    bare = model.residual is False and deep >= 3
    shares = by_depth(record)
    falls = {side: values[0][1] / max(values[-1][1], 1e-30) for side, values in shares.items() if len(values) > 1}
    side = min(falls, key=lambda name: falls[name], default="")
    seen = sure(falls[side], 0.05, 0.002) if side else 0.0
    prone = (
        0.9 if bare and (model.norm == "none" or deep >= 6) else 0.75 if bare else 0.6 if plain and deep >= 3 else 0.1
    )
    cause = both(max(seen, 0.6 if prone >= 0.75 else 0.0), prone)
    symptom = max(patient.stuck, sure(1 - patient.learned, 0.5, 0.8), NO_SYMPTOM)
    cure: dict[str, Any] = {"model.residual": True, "model.norm": "pre"}
    cure |= {"model.encoder.kind": "gru", "model.decoder.kind": "gru"} if plain else {}
    cure |= {"model.activation": "relu"} if model.activation == "tanh" and not plain else {}
    for key in ("model.encoder.layers", "model.decoder.layers"):  # what fell is depth, and depth takes long to train
        cure |= {key: patient.advised(key)} if patient.ratio(key) >= TOO_DEEP else {}
    where = f"{side}.layers.0" if side else ""
    yield Finding(
        "vanishing gradients", both(symptom, cause),
        f"hardly anything is learned ({patient.learned:.0%} of what frequencies leave open), in {deep} layers "
        f" {'without residual connections' if bare else 'of plain RNN' if plain else 'deep'}",
        (Evidence(f"the gradient of the first {side} layer is {falls[side]:.1g} times that of the last" if side else
                  f"residual {model.residual}, norm {model.norm}, activation {model.activation}",
                  {"ratio": falls.get(side, math.nan), "layers": deep}, where=where),),
        "not a rate too low: all layers would learn alike slowly; not frozen weights: their updates are not 0",
        cure, expect="gradients of one size in all layers, and a loss that falls from the start",
        plot=Plot(f"gradient by layer, {side}", "layer", tuple(shares[side])) if side else record.plot(),
    )  # fmt: skip


def by_depth(record: Record) -> dict[str, list[tuple[float, float]]]:
    """Of both stacks: the depth of each layer and its gradient a weight, root mean square, median over probes."""
    found: dict[str, dict[int, list[float]]] = {"encoder": {}, "decoder": {}}
    for probe in record.probes.get("layers", ()):
        for layer in probe.get("layers") or ():
            match = re.match(r"(encoder|decoder)\.\D*(\d+)", str(layer.get("name")))
            if match and layer.get("gradient") is not None:
                size = max(1, layer.get("parameters") or 1)
                found[match[1]].setdefault(int(match[2]), []).append(layer["gradient"] / size**0.5)
    return {side: [(float(depth), median(layers[depth])) for depth in sorted(layers)] for side, layers in found.items()}


def exploding(patient: Patient) -> Iterator[Finding]:
    """Gradients grow without bound, and nothing holds them (Pascanu et al. 2013)."""
    record, clip = patient.record, patient.record.config.training.clip
    if len(record.norms) < FEWEST or clip:
        return
    finite = record.norms[np.isfinite(record.norms)]
    middle = float(np.median(finite)) if len(finite) else 1.0
    largest = float(finite.max()) / middle if len(finite) and middle else math.inf
    broken, most = len(record.norms) - len(finite), float(finite.max()) if len(finite) else math.inf
    cause = max(sure(largest, 20, 100), sure(broken, 0.9, 3), sure(middle, 20, 200))
    symptom = max(sure(patient.lost, 0.1, 0.4), patient.stuck, sure(broken, 0.9, 3), 0.55)
    ratio = patient.ratio("training.rate", "training.warmup")
    # clipped, plain SGD hardly moves where gradients differ by so much
    cure = {"training.clip": 1.0} | (
        {"training.optimizer": "adamw", "training.rate": None} if record.config.training.optimizer == "sgd" else {}
    )
    yield Finding(
        "exploding gradients", both(cause, symptom) * (0.6 if ratio >= LIMIT else 1.0),
        f"gradients of up to {largest:,.0f} times the usual norm went into the weights as they were"
        + (f", and {broken} steps were not finite" if broken else ""),
        (Evidence(f"norm {middle:.3g} in the middle of the run, {most:.3g} at most; training.clip=0",
                  {"largest / median": largest, "not finite": broken},
                  step=int(np.argmax(record.norms)) + 1),),
        f"not the rate, which is {ratio:.2g} times what is proposed; not one bad pair: such steps come again and again",
        cure, expect="single steps that do no harm",
        plot=Plot("gradient norm", "step", tuple((step + 1.0, float(min(norm, 1e6 * middle))) for step, norm in
                                                 enumerate(record.norms[:: -(-len(record.norms) // 60)]))),
    )  # fmt: skip


def dead_units(patient: Patient) -> Iterator[Finding]:
    """Units behind a ReLU that are 0 whatever is read learn nothing any more (Maas et al. 2013)."""
    dead = activations(patient.record, "dead")
    if not dead:
        return
    where, (share, points) = max(dead.items(), key=lambda item: item[1][0])
    yield Finding(
        "dead units", both(sure(share, 0.5, 0.9), harm(patient)) * nearer(patient),
        f"{share:.0%} of the units of {where} are 0 for every token",
        (Evidence(f"{share:.0%} dead at the end, {points[0][1]:.0%} at the first look", {"dead": share}, where=where),),
        "not sparse activity: these units are 0 for all tokens of a batch",
        {"model.activation": "leaky_relu", "model.norm": "pre", "training.rate": patient.advised("training.rate")},
        expect="units that answer to some tokens again", plot=Plot(f"dead units, {where}", "step", points),
    )  # fmt: skip


def saturated_gates(patient: Patient) -> Iterator[Finding]:
    """Gates that are always open or shut pass no gradient."""
    stuck = activations(patient.record, "saturated")
    if not stuck:
        return
    where, (share, points) = max(stuck.items(), key=lambda item: item[1][0])
    yield Finding(
        "saturated gates", both(sure(share, 0.8, 0.97), harm(patient)) * nearer(patient),
        f"{share:.0%} of the values of {where} are at an end of their range",
        (Evidence(f"{share:.0%} saturated at the end, {points[0][1]:.0%} at the first look", {"saturated": share},
                  where=where),),
        "not vanishing by depth: it is one layer's own gates that are stuck",
        {"training.rate": patient.advised("training.rate"), "training.clip": 1.0, "model.initialization": "xavier"},
        expect="gates that move, and longer memory", plot=Plot(f"saturated, {where}", "step", points),
    )  # fmt: skip


def harm(patient: Patient) -> float:
    """How sure it is that learning suffered: many units are idle in good models too."""
    return max(patient.stuck, sure(patient.lost, 0.1, 0.4), sure(1 - patient.learned, 0.5, 0.8), NO_SYMPTOM)


def nearer(patient: Patient) -> float:
    """Large steps kill units and drive gates to their ends: then the rate is the cause."""
    return 0.6 if patient.ratio("training.rate", "training.warmup") >= LIMIT else 1.0


def activations(record: Record, what: str) -> dict[str, tuple[float, tuple[tuple[float, float], ...]]]:
    """The latest share by layer, and all of them by step."""
    found: dict[str, list[tuple[float, float]]] = {}
    for probe in record.probes.get("layers", ()):
        for each in probe.get("activations") or ():
            if each.get(what) is not None:
                found.setdefault(str(each.get("name")), []).append((float(probe.get("step", 0)), float(each[what])))
    return {name: (points[-1][1], tuple(points)) for name, points in found.items()}


def poisonous_batch(patient: Patient) -> Iterator[Finding]:
    """A few pairs whose gradient is far from that of all others, step for step the same ones."""
    record = patient.record
    heights = heights_of(record)
    lone, share = lone_steps(record, heights)
    spikes = lone if share >= REGULAR else spikes_of(record, heights)
    if len(record.norms) < FEWEST or not spikes:
        return
    pairs = culprits(record)
    again = max(pairs.values(), default=0)
    rare = len(spikes) <= 2 * math.ceil(record.epochs) + 2 and len(spikes) < 0.1 * len(record.norms)
    height = median(spikes.values())
    cause = max(sure(height, 12, 40) * (1.0 if rare else 0.5), sure(share, REGULAR, 2 * REGULAR))
    pair = max(pairs, key=lambda name: pairs[name]) if pairs else ""
    named = 0.9 if again >= 2 else 0.7 if pairs else 0.6
    clipped = 0.85 if record.config.training.clip else 1.0
    yield Finding(
        "poisonous batch", both(cause, named) * clipped,
        f"{some(len(spikes), 'single step', 'single steps')} had gradients of {height:,.0f} times those around them",
        (Evidence(f"a spike in step {step:,}: {height:,.0f} times the median around it", {"ratio": height}, step, pair)
         if (step := max(spikes, key=lambda place: spikes[place])) else Evidence("none"),
         *([Evidence(f"{share:.0%} of the epochs have one step that stands out, and no other", {"share": share})]
           if share >= REGULAR else []),
         *([Evidence(f"the worst pair was there {some(again, 'time', 'times')}", {"times": again}, where=pair)]
           if pair else [])),
        "not the rate or a missing clip: the steps before and after are as usual, and so are all other pairs",
        {"training.clip": 1.0} if not record.config.training.clip else {},
        f"look at it, and take it out: {pair}" if pair else "antiphon audit shows pairs that are far from all others",
        "no spikes, and a better use of the steps around them",
        Plot("gradient norm", "step", tuple((step + 1.0, float(norm)) for step, norm in enumerate(record.norms) if
                                            math.isfinite(norm))[:: -(-len(record.norms) // 60)]),
    )  # fmt: skip


def heights_of(record: Record) -> np.ndarray:
    """How many times the median of the 20 steps around it the gradient of each step is; 0 where one is not finite."""
    norms, found = record.norms, np.zeros(len(record.norms))
    for place in range(len(norms)):
        around = np.concatenate([norms[max(0, place - 10) : place], norms[place + 1 : place + 11]])
        middle = float(np.median(around)) if len(around) else 0.0
        if math.isfinite(norms[place]) and 0 < middle < math.inf:
            found[place] = norms[place] / middle
    return found


def spikes_of(record: Record, heights: np.ndarray) -> dict[int, float]:
    """Steps whose gradient is far above those around it, past the first tenth; and how far."""
    begin = max(10, len(heights) // 10)
    return {int(record.steps[place]["step"]): float(heights[place]) for place in range(begin, len(heights))
            if heights[place] > SPIKE}  # fmt: skip


def lone_steps(record: Record, heights: np.ndarray) -> tuple[dict[int, float], float]:
    """Steps that stand out as no other of their epoch does, as the batch of one bad pair would; and the share of
    epochs that have one, if there are enough of them to say so."""
    epochs: dict[int, list[tuple[float, int]]] = {}
    for height, event in zip(heights, record.steps, strict=True):
        epochs.setdefault(int(event.get("epoch") or 0), []).append((float(height), int(event["step"])))
    whole = [sorted(epoch, reverse=True) for epoch in epochs.values() if len(epoch) >= STEPS]
    lone = {step: height for (height, step), (second, _), *_ in whole if height >= LONE and second < height / 2}
    return lone, len(lone) / len(whole) if len(whole) >= EPOCHS else 0.0


def culprits(record: Record) -> Counter[str]:
    """The pairs that probes blame for spikes, and how often."""
    blamed: Counter[str] = Counter()
    for probe in record.probes.get("layers", ()):
        blamed.update(_named(pair) for pair in (probe.get("pairs") or ())[:1])
    return blamed


def _named(pair: Any) -> str:
    if isinstance(pair, Mapping):
        return f"pair {pair.get('row', '?')}: {pair.get('source', '')} → {pair.get('target', '')}"
    return str(pair)
