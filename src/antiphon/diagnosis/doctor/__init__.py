"""The doctor of runs: what went wrong in a training, by what evidence, and the cure."""

from antiphon.diagnosis.doctor.examining import examine, examine_live
from antiphon.diagnosis.doctor.findings import Cause, Evidence, Examination, Finding, Plot
from antiphon.diagnosis.doctor.patient import Patient
from antiphon.diagnosis.doctor.record import Record

__all__ = ["Cause", "Evidence", "Examination", "Finding", "Patient", "Plot", "Record", "examine", "examine_live"]
