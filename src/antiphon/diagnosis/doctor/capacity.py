"""What the model cannot read or say at all: words that it has no token for, and texts that were cut."""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.diagnosis.doctor.findings import Evidence, Finding
from antiphon.diagnosis.doctor.patient import Patient
from antiphon.diagnosis.doctor.weighing import sure

SIDES = ("source", "target")


def vocabulary_too_small(patient: Patient) -> Iterator[Finding]:
    """Tokens that the vocabulary lacks: in sources they are not seen, in targets they are learned as answers."""
    sides = patient.material.train if patient.material else None
    if sides is None:
        return
    for side, unknown in zip(SIDES, sides.unknown, strict=True):
        least = patient.record.value(f"data.{side}.min_count")
        size, sizes = (
            patient.record.value(f"data.{side}.vocabulary"),
            (f"data.{side}.vocabulary", f"data.{side}.min_count"),
        )
        cure = {key: value for key in (*sizes, f"data.{side}.tokenizer")
                if (value := patient.advised(key, *sizes, f"data.{side}.tokenizer")) is not None
                and value != patient.record.value(key)}  # fmt: skip
        yield Finding(
            "vocabulary too small", sure(unknown, 0.02, 0.08) * (1.0 if side == "target" else 0.95),
            f"{unknown:.1%} of the {side} tokens of training are unknown",
            (Evidence(f"the vocabulary may have {size:,} tokens, each seen {least} times or more",
                      {"unknown": unknown, "vocabulary": float(size or 0)}, where=side),),
            "not a domain gap: it is so in training already; not a model too small: none learns what it does not see",
            cure, "" if cure else f"take a larger data.{side}.vocabulary, or subwords: data.{side}.tokenizer=bpe",
            "answers without unknown words",
        )  # fmt: skip


def truncation(patient: Patient) -> Iterator[Finding]:
    """Texts that are longer than the model may read or write lose their end, the end of a target included."""
    sides = patient.material.train if patient.material else None
    if sides is None:
        return
    for side, cut in zip(SIDES, sides.cut, strict=True):
        limit, key = patient.record.value(f"data.{side}.max_length"), f"data.{side}.max_length"
        if not limit:
            continue
        yield Finding(
            "truncation", sure(cut, 0.05, 0.25) * (1.0 if side == "target" else 0.95),
            f"{cut:.0%} of the {side}s of training were cut to {limit} tokens",
            (Evidence(f"{key}={limit}; {sides.lengths[SIDES.index(side)]:.0f} tokens on average are left",
                      {"cut": cut, "limit": float(limit)}, where=side),),
            "not a collapse of length in the search: the pairs themselves were cut, and their ends are not learned",
            {key: max(patient.advised(key) or 256, 2 * limit)},
            expect="whole answers, and a loss on ends that falls",
        )  # fmt: skip


RULES = (vocabulary_too_small, truncation)
