"""A report of a run, or of several beside each other: what they learned, how good they are, where they err."""

from __future__ import annotations

from antiphon.diagnosis.report.judging import Judged, judge
from antiphon.diagnosis.report.page import page
from antiphon.diagnosis.report.reading import Run, read_run

__all__ = ["Judged", "Run", "judge", "page", "read_run"]
