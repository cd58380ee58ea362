"""What a doctor finds in a run: symptom, evidence, cause, how it was told from its rivals, the cure, what to expect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Cause = Literal[
    "vanishing gradients", "exploding gradients", "dead units", "saturated gates", "poisonous batch",
    "rate too high", "rate too low", "no warm-up", "batch too small", "ended early", "frozen weights",
    "overfitting", "too much regularization", "model too small",
    "misaligned data", "noisy data", "held-out data in training", "domain gap", "label leak", "train/serve mismatch",
    "vocabulary too small", "truncation",
    "no attention", "diffuse attention", "stuck attention", "no positions",
    "beam too wide", "length penalty", "search limits", "sampling",
    "exposure bias", "repetition", "dull answers", "copying the source", "length collapse", "metric against loss",
    "damaged model",
]  # fmt: skip

HIGH, SAID, LOW = 0.7, 0.5, 0.3
"""Confidence that is high, from which on a run is not healthy, and below which nothing is said."""

LITTLE = 0.1
"""Whoever has learned no more than this share of what there is to learn is not healthy, whatever may be the cause."""


@dataclass(frozen=True)
class Evidence:
    """What was measured: in words, as figures, and where: the step, the layer or the pair."""

    text: str
    figures: Mapping[str, float] = field(default_factory=dict)
    step: int | None = None
    where: str = ""


@dataclass(frozen=True)
class Plot:
    """A small picture: what goes up, over what, and its points."""

    name: str
    over: str = "step"
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Finding:
    """One cause. `cure` are settings and their new values, `action` what to do where no setting cures. One that is
    `in_files` was there before anything was trained: no other cause has brought it about."""

    cause: Cause
    confidence: float
    symptom: str
    evidence: tuple[Evidence, ...]
    told_apart: str
    cure: Mapping[str, Any] = field(default_factory=dict)
    action: str = ""
    expect: str = ""
    plot: Plot | None = None
    in_files: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        plot = self.plot and {"name": self.plot.name, "over": self.plot.over, "points": [*map(list, self.plot.points)]}
        return {
            "cause": self.cause, "confidence": round(self.confidence, 3), "symptom": self.symptom,
            "evidence": [{**vars(each), "figures": dict(each.figures)} for each in self.evidence],
            "told_apart": self.told_apart, "cure": dict(self.cure), "action": self.action, "expect": self.expect,
            "plot": plot,
        }  # fmt: skip


@dataclass(frozen=True)
class Examination:
    """All findings, the surest first, what was looked at, and how much was learned of what there is to learn (1 where
    that cannot be said)."""

    run: str
    findings: tuple[Finding, ...]
    looked_at: tuple[str, ...]
    losses: Plot
    learned: float = 1.0
    seconds: float = 0.0

    @property
    def named(self) -> bool:
        """Whether a cause is more likely than not."""
        return any(finding.confidence >= SAID for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """Whether no cause is more likely than not, and something was learned."""
        return not self.named and self.learned > LITTLE

    @property
    def verdict(self) -> str:
        """What is said where no cause is."""
        if self.named:
            return ""
        if not self.healthy:
            return f"{self.learned:.0%} of what there is to learn was learned, and no cause is likelier than not"
        return "nothing is more likely wrong than not" if self.findings else "nothing is wrong with this run"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.run, "healthy": self.healthy, "learned": round(self.learned, 3),
            "verdict": self.verdict, "findings": [finding.to_dict() for finding in self.findings],
            "looked_at": list(self.looked_at), "cpu_seconds": round(self.seconds, 2),
        }  # fmt: skip


EXPLAINS: dict[str, tuple[str, ...]] = {
    "misaligned data": ("noisy data", "diffuse attention", "dull answers", "length collapse", "overfitting",
                        "repetition", "exposure bias", "model too small", "stuck attention", "rate too high",
                        "rate too low"),
    "noisy data": ("overfitting", "model too small", "exposure bias"),
    "train/serve mismatch": ("domain gap", "overfitting", "vocabulary too small", "copying the source"),
    "domain gap": ("overfitting", "vocabulary too small"),
    "rate too high": ("dead units", "saturated gates", "diffuse attention", "dull answers", "length collapse",
                      "repetition", "exploding gradients", "ended early", "stuck attention", "exposure bias",
                      "model too small", "vanishing gradients", "no warm-up"),
    "rate too low": ("ended early", "diffuse attention", "dull answers", "repetition", "length collapse",
                     "exposure bias", "stuck attention", "model too small"),
    "no warm-up": ("dead units", "diffuse attention", "dull answers", "length collapse", "repetition",
                   "vanishing gradients"),
    "vanishing gradients": ("diffuse attention", "dull answers", "length collapse", "repetition", "ended early",
                            "model too small", "exposure bias", "stuck attention"),
    "exploding gradients": ("dead units", "dull answers", "diffuse attention", "poisonous batch"),
    "ended early": ("diffuse attention", "dull answers", "repetition", "length collapse", "exposure bias",
                    "stuck attention", "model too small"),
    "frozen weights": ("model too small", "diffuse attention", "ended early", "dull answers", "repetition",
                       "length collapse", "exposure bias"),
    "too much regularization": ("ended early", "model too small", "dull answers", "diffuse attention",
                                "length collapse", "dead units", "saturated gates"),
    "model too small": ("dull answers", "exposure bias", "diffuse attention", "repetition", "ended early",
                        "length collapse"),
    "no positions": ("diffuse attention", "repetition", "length collapse", "exposure bias", "model too small",
                     "stuck attention", "ended early", "no warm-up"),
    "no attention": ("exposure bias", "repetition", "model too small", "ended early"),
    "search limits": ("length collapse", "repetition"),
    "length penalty": ("length collapse", "repetition"),
    "beam too wide": ("length collapse",),
    "sampling": ("repetition", "exposure bias"),
    "truncation": ("length collapse", "search limits", "label leak"),
    "batch too small": ("ended early", "dull answers", "diffuse attention", "exposure bias", "repetition"),
    "copying the source": ("noisy data", "domain gap"),
    "dull answers": ("noisy data", "domain gap", "length collapse"),
}  # fmt: skip
"""What a cause brings with it: where the cause is sure, these are its symptoms, and lose confidence. What may be a
symptom itself brings something only where it is in the files."""


SYMPTOMS = ("dull answers", "repetition", "length collapse", "exposure bias", "diffuse attention", "stuck attention")
"""What anything that keeps a model from learning brings with it, however clear it is to see."""


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The surest first, symptoms behind their causes; of a cause the surest finding; unlikely ones not at all."""
    from dataclasses import replace

    best: dict[str, Finding] = {}
    for finding in findings:
        if finding.cause not in best or finding.confidence > best[finding.cause].confidence:
            best[finding.cause] = finding
    weighed = [replace(finding, confidence=_left(finding, best.values())) for finding in best.values()]
    likely = (finding for finding in weighed if finding.confidence >= LOW)
    return tuple(sorted(likely, key=lambda finding: -finding.confidence))


def _left(finding: Finding, others: Iterable[Finding]) -> float:
    """The confidence that is left when surer causes have explained what they explain."""
    left = finding.confidence
    if finding.in_files and finding.cause in (*SYMPTOMS, "copying the source"):
        return left
    for other in others:
        if finding.cause not in EXPLAINS.get(other.cause, ()) or (other.cause in SYMPTOMS and not other.in_files):
            continue
        enough = SAID if finding.cause in SYMPTOMS else finding.confidence - 0.1
        mutual = other.cause in EXPLAINS.get(finding.cause, ())
        if other.confidence > finding.confidence if mutual else other.confidence >= enough:
            left = min(left, finding.confidence * (1 - 0.7 * other.confidence))
    return left


def thinned(xs: Sequence[float], ys: Sequence[float], most: int = 60) -> tuple[tuple[float, float], ...]:
    """At most so many points of a curve, each the mean of its neighbours."""
    size = max(1, -(-len(xs) // most))
    parts = [(xs[at : at + size], ys[at : at + size]) for at in range(0, len(xs), size)]
    return tuple((float(sum(x) / len(x)), float(sum(y) / len(y))) for x, y in parts)
