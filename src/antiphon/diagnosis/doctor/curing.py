"""Cures applied: the same data, trained anew with the settings that findings ask for, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antiphon.core.config import Config, Data
from antiphon.core.errors import TrainingError
from antiphon.core.keys import get, leaves, override
from antiphon.data.corpus import Corpus
from antiphon.diagnosis.doctor.examining import examine
from antiphon.diagnosis.doctor.findings import HIGH, Finding
from antiphon.diagnosis.doctor.record import Record
from antiphon.inference.bundle import load, save
from antiphon.training.given import OBJECTIVES
from antiphon.training.observers import Result
from antiphon.training.sources import Sources
from antiphon.training.start import fit

SEARCH = "decoding."
TRAININGS = 3
"""Trainings at most: a cure may bring to light what stood behind its cause, such as too few passes."""


@dataclass(frozen=True)
class Best:
    """The best of a run: the metric it is judged by, its value, and the lowest held-out loss."""

    metric: str
    value: float | None
    loss: float | None
    higher: bool = False

    @staticmethod
    def of(run: Path) -> Best:
        """Read from its log."""
        record = Record.open(run)
        metric = record.config.training.metric or "loss"
        kept = [event for event in record.validations if event.get("best")]
        score = ((kept[-1].get("scores") or {}).get(metric) if kept else None) or {}
        return Best(metric, score.get("value"), record.best_loss, bool(score.get("higher_is_better")))

    def above(self, other: Best) -> bool:
        """Whether this is the better one: by the metric, and by the loss where that is the same for both, or where they
        are judged by different ones."""
        place = 0 if self.metric == other.metric else 1
        return self._order()[place:] < other._order()[place:]

    def _order(self) -> tuple[float, float]:
        value = math.inf if self.value is None else -self.value if self.higher else self.value
        return value, math.inf if self.loss is None else self.loss


def settings(record: Record, cure: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that a run was given, with those of the cure in place of its own.

    What the recipe proposed is left out and proposed anew: it may follow from what is cured, as copying does from
    attention.
    """
    plain, config = Config(), record.config
    given = (key for key in leaves() if key not in record.proposed and get(config, key) != get(plain, key))
    changed = {key: value for key, value in cure.items() if not (value is None and get(plain, key) is not None)}
    follows = (
        {"training.validate_every"} if any(key in changed for key in ("training.epochs", "training.steps")) else set()
    )
    found = {**{key: get(config, key) for key in given}, **changed}
    objective = found.get("training.objective", plain.training.objective)
    follows |= {key for key, objectives in OBJECTIVES.items() if objective not in objectives}
    return {key: value for key, value in found.items() if value is not None and key not in follows}


def curable(finding: Finding) -> None:
    """Refuse what no setting cures."""
    if not finding.cure:
        raise TrainingError(f"no setting cures {finding.cause}", where="--cure", do=finding.action or "see the finding")


def search_alone(finding: Finding) -> bool:
    """Whether the cure is another search: then nothing need be trained."""
    return all(key.startswith(SEARCH) for key in finding.cure)


def cure(run: Path, finding: Finding, out: Path, *, observers: Sequence[Any] = (), command: str = "") -> Result:
    """Train anew with the cure, on the data of the run, into the new folder `out`. Raises `AntiphonError`."""
    record = Record.open(run)
    curable(finding)
    sources = Sources.unchanged(run, record.facts, record.config)
    if sources.mix or record.config.model.adapter.name or "start" in record.facts or record.config.training.teachers:
        typed = " ".join(f"{key}={value}" for key, value in finding.cure.items() if value is not None)
        do = f"add these settings to its command: {typed}"
        raise TrainingError("what began with another model or other data is not trained anew", where=run, do=do)
    train, valid = (_part(sources, name, record.config.data) for name in ("train", "valid"))
    return fit(train, valid=valid, out=out, assignments=settings(record, finding.cure), observers=observers,
               command=command)  # fmt: skip


def _part(sources: Sources, name: str, data: Data) -> str | Corpus | None:
    """Files as they are given to a command; pairs that came from memory as they were read, whatever their columns."""
    if name in sources.copied:
        return sources.corpus(name, data)
    return ",".join(str(sources.run / file) for file in getattr(sources, name)) or None


def with_search(run: Path, finding: Finding, out: Path) -> None:
    """The best model of the run with the search of the cure, as a bundle of its own in the new folder `out`."""
    if _taken(out):
        raise TrainingError("there is something already", where=out, do="give another --out")
    bundle = load(run / "best")
    changed = override(bundle.config, dict(finding.cure))
    save(out, model=bundle.model, task=bundle.task, config=changed, card=bundle.manifest["card"],
         confidence=bundle.confidence)  # fmt: skip


def _taken(place: Path) -> bool:
    return place.exists() and (not place.is_dir() or any(place.iterdir()))


def folders(out: Path, most: int = TRAININGS) -> list[Path]:
    """Where one training after the other goes. Raises `TrainingError` where one but the first is not empty."""
    places = [out, *(out.with_name(f"{out.name}-{number}") for number in range(2, most + 1))]
    for place in places[1:]:
        if _taken(place):
            raise TrainingError("the folder of a further training is not empty", where=place, do="give another --out")
    return places


def following(run: Path, cured: Sequence[str]) -> Finding | None:
    """What is very likely still wrong with a run that was cured of other causes, where settings cure it."""
    left = (each for each in examine(run).findings if each.confidence >= HIGH and each.cause not in cured)
    return next((each for each in left if each.cure), None)
