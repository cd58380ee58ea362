"""The quick part of the audit, when a training begins."""

from __future__ import annotations

from antiphon.diagnosis.quick import quick
from antiphon.training.observers import Answer, Note, Observer, Opened


class Checkup(Observer):
    """Looks at the pairs before anything is learned, and has a display say what matters."""

    def __init__(self, display: Observer) -> None:
        self.display = display

    def opened(self, event: Opened) -> Answer:
        """At most three lines, the last of which says where there is more."""
        data = event.config.data
        if {data.source.kind, data.target.kind} != {"text"}:
            return None
        lines = quick(event.train)
        for line in lines:
            self.display.noted(Note("audit", f"warning: {line}"))
        if lines:
            self.display.noted(Note("audit", "antiphon audit says which, and --fix mends it"))
        return None
