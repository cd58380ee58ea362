"""Logs of trainings as a doctor reads them, made by hand: how the loss falls, how gradients are, what probes say."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.core.config import Config
from antiphon.core.keys import override
from antiphon.data.corpus import open_pairs
from antiphon.diagnosis.doctor.material import Advice
from antiphon.diagnosis.doctor.patient import Patient
from antiphon.diagnosis.doctor.record import Record
from antiphon.training.recipes import propose
from antiphon.training.statistics import Statistics
from corpora import sentences

STEPS, EPOCH = 400, 40


def advice(**settings: Any) -> Advice:
    """What the recipe says of made-up text for a Transformer, and its configuration but for what is given."""
    given = {f"model.{side}.kind": "transformer" for side in ("encoder", "decoder")}
    given |= {name.replace("__", "."): value for name, value in settings.items()}
    return Advice(propose(override(Config(), given), statistics())[0], statistics())


@cache
def statistics() -> Statistics:
    """What the recipe sees of made-up text."""
    return Statistics.of(open_pairs(list(zip(*sentences(600), strict=True)), Config().data))


def falling(to: float = 0.4, speed: float = 5.0, noise: float = 0.03) -> np.ndarray:
    """Losses that fall from 6 as those of a healthy training do."""
    draw = np.random.default_rng(1)
    curve = to + (6 - to) * np.exp(-speed * np.arange(STEPS) / STEPS * 3)
    return curve * (1 + noise * draw.standard_normal(STEPS))


def patient(
    losses: np.ndarray | None = None, *, norms: Sequence[float] | None = None, rate: float | None = None,
    valid: Sequence[float] | None = None, probes: Sequence[Mapping[str, Any]] = (), notes: Sequence[str] = (),
    kind: str = "skip", tokens: int = 1500, **settings: Any,
) -> Patient:  # fmt: skip
    """A patient with these losses; the rate is that of its configuration, warm-up left out."""
    recipe = advice(**settings)
    losses = falling() if losses is None else losses
    draw = random.Random(1)
    rate = recipe.config.training.rate if rate is None else rate
    steps: list[dict[str, Any]] = [
        {"event": "step", "step": place + 1, "epoch": place // EPOCH, "epoch_steps": EPOCH, "loss": float(loss),
         "tokens": tokens, "rate": rate, "gradient_norm": norms[place] if norms else draw.uniform(0.4, 0.6)}
        for place, loss in enumerate(losses)
    ]  # fmt: skip
    places = range(40, len(losses) + 1, 40)
    looks = valid if valid is not None else [float(losses[place - 10 : place].mean()) for place in places]
    every = STEPS // max(1, len(looks))
    seen = [{"event": "validation", "step": (number + 1) * every, "loss": loss, "scores": {}, "best": True}
            for number, loss in enumerate(looks)]  # fmt: skip
    told = [{"event": "note", "kind": kind, "text": text} for text in notes]
    looked = [{"event": "probe", "epoch": 0, **probe} for probe in probes]
    record = Record.of(recipe.config, [*steps, *seen, *told, *looked], Path("run"), {})
    return Patient(record, given_advice=recipe)


def layers(ratio: float = 0.01, gradients: Sequence[float] = (1.0, 1.0), **more: Any) -> list[dict[str, Any]]:
    """Probes of layers: how large updates are beside weights, and the gradient of each encoder layer."""
    found = [{"name": f"encoder.layers.{depth}", "parameters": 100, "weight": 1.0, "gradient": gradient,
              "update": ratio}
             for depth, gradient in enumerate(gradients)]  # fmt: skip
    return [{"kind": "layers", "step": step, "rate": 1.0, "layers": found, "activations": [], **more}
            for step in (1, 10, 100, 400)]  # fmt: skip
