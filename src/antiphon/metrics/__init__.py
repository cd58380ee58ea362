"""Metrics: how good answers are, in numbers that can be repeated and compared."""

from antiphon.metrics.base import Metric, Pooled, Score
from antiphon.metrics.scoring import NAMES, corpus, get, of_text
from antiphon.metrics.significance import Comparison

__all__ = ["NAMES", "Comparison", "Metric", "Pooled", "Score", "corpus", "get", "of_text"]
