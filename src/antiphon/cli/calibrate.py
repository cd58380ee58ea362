"""`antiphon calibrate`: how far a model's answers can be trusted, learned from pairs it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from antiphon.cli.models import Knowledge
from antiphon.core.errors import ConfigError


def calibrate(
    model: str,
    data: str,
    /,
    *settings: str,
    knowledge: Knowledge = None,
    metric: Annotated[str | None, Parameter(help="what confidence is in; default: what training was judged by")] = None,
    out: Annotated[
        Path | None, Parameter(help="write a copy there, a folder or a .zip; default: into the model")
    ] = None,
) -> None:
    """Learn from pairs how likely an answer is to be right, and keep that in the model.

    Afterwards `antiphon predict --confidence` shows it, and `--abstain 0.8` leaves out what is less sure.

    Parameters
    ----------
    model
        A bundle or a run, whose best model it is.
    data
        A file of pairs that the model was not trained on, or source.txt,target.txt.
    settings
        How to search, as key=value: beam=5 and so on. Confidence holds for these.
    """
    from antiphon.cli.models import idle, scored_pairs, searching, writable
    from antiphon.inference import calibration
    from antiphon.inference.bundle import add_confidence, load, room

    if "," in model and not Path(model).exists():
        raise ConfigError("an ensemble has no confidence", where="calibrate", got=model, do="give one model")
    if out is not None:
        writable(room(out))
    bundle = load(Path(model))
    pairs = scored_pairs(data, bundle.config, words=settings)
    chosen = searching(bundle.config, settings)
    idle(chosen, settings, first=True)
    found = calibration.calibrate(bundle, pairs, metric, decoding=chosen, knowledge=knowledge)
    print("\n".join([*(f"note: {line}" for line in found.notes), *found.lines()]))
    print(f"written to {add_confidence(model, found.calibration, out=out)}")
