"""A report of a run, or of several beside each other: what they learned, how good they are, where they err."""

from __future__ import annotations

from antiphon.diagnosis.report.judging import Judged, judge
from antiphon.diagnosis.report.page import page
from antiphon.diagnosis.report.reading import Run, open_run

__all__ = ["Judged", "Run", "judge", "open_run", "page"]
