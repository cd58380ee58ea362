"""Short experiments that tell rivals apart: each makes some causes likelier and others less."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from antiphon.core.errors import AntiphonError
from antiphon.diagnosis import experiments
from antiphon.diagnosis.doctor.findings import Evidence, Finding
from antiphon.diagnosis.doctor.weighing import SUREST

FOR, AGAINST = 4.0, 0.25
"""What an experiment does to the odds of a cause."""

RATES = ("rate too high", "rate too low")
BY_DATA = ("misaligned data", "noisy data", "domain gap")
BY_SEARCH = ("beam too wide", "length penalty", "search limits", "sampling")
BUILT = ("vanishing gradients", "dead units", "frozen weights")


@dataclass(frozen=True)
class Trial:
    """An experiment that was made: what came of it in words and figures, and what it does to the odds of causes."""

    name: str
    text: str
    figures: Mapping[str, float]
    odds: Mapping[str, float]
    cure: Mapping[str, Any] = field(default_factory=dict)
    """What was found to do better, for the causes that it speaks for."""


def tried(run: Path, findings: tuple[Finding, ...]) -> Iterator[Trial]:
    """The experiments that tell these findings apart, as they are made; what cannot be tried on a run is left out."""
    causes = {finding.cause for finding in findings}
    for name, (about, make) in EXPERIMENTS.items():
        if causes & set(about):
            try:
                trial = _told(make(run))
            except AntiphonError as error:
                trial = Trial(name, f"could not be tried: {error}", {}, {})
            if trial is not None:
                yield trial


def _told(trial: Trial | None) -> Trial | None:
    """The trial; one that lost its numbers tells nothing apart."""
    if trial is None or all(map(math.isfinite, trial.figures.values())):
        return trial
    figures = {name: value for name, value in trial.figures.items() if math.isfinite(value)}
    return Trial(trial.name, f"{trial.text}: it lost its numbers", figures, {})


def weighed(findings: Iterable[Finding], trials: Iterable[Trial]) -> tuple[Finding, ...]:
    """The findings after the experiments, the surest first; what an experiment found is among their evidence."""
    trials, found = list(trials), []
    for finding in findings:
        told = [trial for trial in trials if finding.cause in trial.odds]
        confidence, cure = finding.confidence, dict(finding.cure)
        for trial in told:
            confidence = _moved(confidence, trial.odds[finding.cause])
            cure |= trial.cure if trial.odds[finding.cause] > 1 else {}
        more = tuple(Evidence(f"tried, {trial.name}: {trial.text}", trial.figures) for trial in told)
        found.append(replace(finding, confidence=confidence, evidence=(*finding.evidence, *more), cure=cure))
    return tuple(sorted(found, key=lambda finding: -finding.confidence))


def _moved(confidence: float, by: float) -> float:
    odds = by * confidence / max(1e-6, 1 - confidence)
    return min(SUREST, odds / (1 + odds))


def _batch(run: Path) -> Trial:
    """Whether the model can learn anything at all by heart."""
    found = experiments.overfit_batch(run)
    can, figures = "learned" if found.learned else "not learned", {"first": found.first, "last": found.last}
    odds = dict.fromkeys((*BUILT, *RATES), AGAINST if found.learned else FOR)
    odds |= dict.fromkeys((*BY_DATA, "model too small"), FOR if found.learned else AGAINST)
    return Trial("one batch", f"{found.pairs} pairs were {can} by heart, loss {found.last:.2f} from {found.first:.2f}",
                 figures, odds)  # fmt: skip


def _rates(run: Path) -> Trial:
    """Whether another rate learns faster."""
    found = experiments.rate_range(run)
    times = found.best / found.own
    odds = {"rate too high": FOR if times < 0.5 else AGAINST, "rate too low": FOR if times > 2 else AGAINST}
    text = f"of rates around {found.own:.2g}, {found.best:.2g} learned most in the first steps"
    figures = {"own": found.own, "best": found.best}
    return Trial("rates", text, figures, odds, {"training.rate": float(f"{found.best:.3g}")})


def _shuffled(run: Path) -> Trial:
    """Whether sources tell anything of their targets."""
    found = experiments.shuffled_targets(run)
    nothing = found.right > 0.95 * found.shuffled
    odds = dict.fromkeys((*BY_DATA, "diffuse attention", "stuck attention"), FOR if nothing else AGAINST)
    text = f"held-out loss {found.right:.2f}, and {found.shuffled:.2f} where targets were handed to other sources"
    return Trial("shuffled targets", text, {"right": found.right, "shuffled": found.shuffled}, odds)


def _uniform(run: Path) -> Trial | None:
    """Whether the decoder needs where it looks."""
    found = experiments.uniform_attention(run)
    if found is None:
        return None
    idle = found.uniform < 1.02 * found.loss
    odds = dict.fromkeys(("diffuse attention", "stuck attention"), FOR if idle else AGAINST)
    text = f"held-out loss {found.loss:.2f}, and {found.uniform:.2f} with attention made even"
    return Trial("even attention", text, {"loss": found.loss, "uniform": found.uniform}, odds)


def _halves(run: Path) -> Trial:
    """Whether more pairs help."""
    found = experiments.data_halves(run)
    last = found.losses[-1][1]
    helps = found.doubled < 0.97 * last
    told = ", ".join(f"{loss:.2f} from {count:,}" for count, loss in found.losses)
    odds = {"overfitting": FOR if helps else AGAINST, "model too small": AGAINST if helps else FOR}
    return Trial("parts of the data", f"held-out loss {told} pairs; twice as many may give {found.doubled:.2f}",
                 {"last": last, "doubled": found.doubled}, odds)  # fmt: skip


def _search(run: Path) -> Trial:
    """Whether search or model is wrong where answers are."""
    found = experiments.search_errors(run)
    blamed = found.search > found.model
    odds = dict.fromkeys(BY_SEARCH, FOR if blamed else 1.0)
    text = f"the search missed a better reference in {found.search:.0%}, the model was wrong in {found.model:.0%}"
    return Trial("search errors", text, {"search": found.search, "model": found.model}, odds)


EXPERIMENTS: dict[str, tuple[tuple[str, ...], Callable[[Path], Trial | None]]] = {
    "one batch": ((*BUILT, "model too small", *BY_DATA), _batch),
    "rates": (RATES, _rates),
    "shuffled targets": ((*BY_DATA, "diffuse attention", "stuck attention"), _shuffled),
    "even attention": (("diffuse attention", "stuck attention"), _uniform),
    "parts of the data": (("overfitting",), _halves),
    "search errors": (BY_SEARCH, _search),
}
"""Experiments, and the causes for which each is made."""
