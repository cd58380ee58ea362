"""The doctor beside a training: a cause that is certain is told in one line, once, while it can still be helped."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path
from typing import Any

from antiphon.diagnosis.doctor.examining import examine_live
from antiphon.diagnosis.doctor.findings import Finding
from antiphon.diagnosis.doctor.material import Advice
from antiphon.diagnosis.doctor.patient import Patient
from antiphon.diagnosis.doctor.record import Record
from antiphon.training.observers import Answer, Note, Observer, Opened, ProbeEvent, Started, StepEvent, ValidationEvent
from antiphon.training.statistics import Statistics

CERTAIN, STEPS, LOOKED = 0.85, 100, 2000
"""From which confidence on something is said, after so many steps; pairs that the recipe looks at."""
LAST = 20_000
"""The last step that is looked at: what goes wrong shows early, and a run may have millions."""


class Bedside(Observer):
    """Keeps what is told of a run, and has a display say what is certain; it changes nothing."""

    def __init__(self, display: Observer) -> None:
        self.display = display
        self.events: list[dict[str, Any]] = []
        self.told: set[str] = set()
        self.advice: Advice | None = None

    def opened(self, event: Opened) -> Answer:
        """The settings, and what the recipe would say of the first pairs."""
        data = event.config.data
        if {data.source.kind, data.target.kind} != {"text"}:
            return None
        pairs = list(islice(event.train, LOOKED))
        self.advice = Advice(event.config, Statistics.of(pairs, None, data))
        return None

    def started(self, event: Started) -> Answer:
        """How many pairs there are."""
        if self.advice is not None:
            self.advice.statistics = dataclasses.replace(self.advice.statistics, pairs=event.pairs)
        return None

    def step(self, event: StepEvent) -> Answer:
        """Remember."""
        return self._keep("step", event)

    def noted(self, event: Note) -> Answer:
        """Remember."""
        return self._keep("note", event)

    def probed(self, event: ProbeEvent) -> Answer:
        """Remember, as the log has it."""
        if event.step <= LAST:
            about = {"event": "probe", "step": event.step, "epoch": event.epoch, "kind": event.kind}
            self.events.append({**about, **event.facts})
        return None

    def validated(self, event: ValidationEvent) -> Answer:
        """Remember, and say what is certain by now."""
        self._keep("validation", event)
        if event.step > LAST:
            self.events.clear()
        if self.advice is None or sum(each["event"] == "step" for each in self.events) < STEPS:
            return None
        record = Record.of(self.advice.config, self.events, Path(), {})
        for finding in examine_live(Patient(record, given_advice=self.advice)):
            if finding.confidence >= CERTAIN and finding.cause not in self.told:
                self.told.add(finding.cause)
                self.display.noted(Note("audit", line(finding), event.step))
        return None

    def _keep(self, kind: str, event: Any) -> Answer:
        if event.step <= LAST:
            self.events.append({"event": kind, **dataclasses.asdict(event)})
        return None


def line(finding: Finding) -> str:
    """A finding in one line."""
    cure = " ".join(f"{key}={value}" for key, value in finding.cure.items() if value is not None)
    return f"doctor: {finding.cause} ({finding.confidence:.0%}): {finding.symptom}" + (
        f"; cure: {cure}" if cure else ""
    )
