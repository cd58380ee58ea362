"""What comes of the search: the same weights answer the same sources again, with one setting at a time as is usual."""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.diagnosis.doctor.answers import Answers
from antiphon.diagnosis.doctor.findings import Cause, Evidence, Finding
from antiphon.diagnosis.doctor.patient import Patient
from antiphon.diagnosis.doctor.weighing import sure

BLAMED: dict[str, Cause] = {
    "beam": "beam too wide", "length_penalty": "length penalty", "coverage_penalty": "length penalty",
    "no_repeat": "search limits", "min_length": "search limits", "max_length": "search limits", "sample": "sampling",
    "temperature": "sampling", "groups": "beam too wide", "refill": "beam too wide",
}  # fmt: skip


def search(patient: Patient, answers: Answers) -> Iterator[Finding]:
    """Answers by the run's own search are worse than those by the usual one, and one setting is to blame."""
    if not answers.pairs or not answers.differing:
        return
    own, usual = answers.score(answers.own), answers.score(answers.usual)
    if usual - own < 1:
        return
    gains = {name: answers.score(answers.without(name)) - own for name in answers.differing}
    name = max(gains, key=lambda each: gains[each])
    value, better = getattr(answers.own, name), getattr(answers.usual, name)
    told = ", ".join(f"{each} {gain:+.1f}" for each, gain in sorted(gains.items(), key=lambda item: -item[1]))
    missed, lengths = answers.against_references, (answers.lengths(answers.own), answers.lengths(answers.usual))
    yield Finding(
        BLAMED[name], sure((usual - own) / max(10.0, usual), 0.05, 0.25),
        f"the same weights answer better by the usual search: chrF {usual:.1f}, by this one {own:.1f}",
        (Evidence(f"decoding.{name}={value}, and {better} is proposed; what each setting gains by itself: {told}",
                  {"own": own, "usual": usual, **gains}),
         Evidence(f"answers are {lengths[0]:.0%} as long as references, by the usual search {lengths[1]:.0%}",
                  {"own length": lengths[0], "usual length": lengths[1]}),
         Evidence(f"the model itself prefers the reference to the answer of this search in {missed:.0%} of cases",
                  {"search errors": missed}),
         *_example(answers)),
        "not the model: its weights are the same in both",
        {f"decoding.{each}": getattr(answers.usual, each) for each in answers.differing
         if gains[each] > 0.5 or each == name},
        expect=f"chrF of about {usual:.0f} on the same pairs, with no training at all",
    )  # fmt: skip


def _example(answers: Answers) -> tuple[Evidence, ...]:
    """A source whose answer the search changed."""
    for pair, own, usual in zip(answers.pairs, answers.by(answers.own), answers.by(answers.usual), strict=True):
        if own != usual:
            return (
                Evidence(
                    f"{pair.source[:60]} → {own[:60] or '(nothing)'}; usually {usual[:60]}", where=pair.source[:60]
                ),
            )
    return ()
