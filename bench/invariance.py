"""Whether answers depend on the batch: Multi30k test sentences, each decoder family, several batch sizes and orders.

    ANTIPHON_DATA=... python bench/invariance.py [--steps 300] [--sentences 1000] [--families gru,ssru]

Trains a small model of each family for a few hundred steps, answers the test set in batches of 1, of 7 and of 64
(these as they stand, sorted and shuffled), greedily and with a beam of 5, and counts the answers whose tokens differ
from those in batches of 1. JSON on standard output; exit code 1 if any differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _commands import data_sets

from antiphon.core.keys import override
from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor
from antiphon.training.start import fit

FAMILIES = {
    "rnn": ("rnn", "rnn"), "lstm": ("lstm", "lstm"), "gru": ("gru", "gru"), "conv": ("conv", "conv"),
    "transformer": ("transformer", "transformer"), "ssru": ("transformer", "ssru"),
}  # fmt: skip


def trained(family: str, data: Path, run: Path, steps: int) -> Predictor:
    """A small model of the family."""
    encoder, decoder = FAMILIES[family]
    settings: dict[str, Any] = {
        "model.encoder.kind": encoder, "model.decoder.kind": decoder, "model.encoder.layers": 2, "model.width": 128,
        "model.decoder.layers": 2, "training.steps": steps, "training.metric": "loss", "training.threads": 1,
        "training.validate_every": steps,
    }  # fmt: skip
    pairs, valid = ((data / f"{part}.en", data / f"{part}.de") for part in ("train", "val"))
    fit(pairs, valid=valid, out=run, task="translation", assignments=settings)
    return Predictor(load(run))


def measure(predictor: Predictor, sentences: list[str], beam: int) -> dict[str, Any]:
    """How many answers differ from those given one by one, and how many were decoded twice."""
    settings = override(predictor.config, {"decoding.beam": beam}).decoding
    begun, told = time.process_time(), {}
    alone = list(predictor.predict(sentences, settings=settings, batch_size=1))
    told["alone_cpu_seconds"] = round(time.process_time() - begun, 1)
    wanted = {sentence: answers[0].tokens for sentence, answers in zip(sentences, alone, strict=True)}
    shuffled = random.Random(1).sample(sentences, len(sentences))
    for order, inputs in (("given", sentences), ("sorted", sorted(sentences, key=len)), ("shuffled", shuffled)):
        for size in (7, 64):
            begun = time.process_time()
            found = list(predictor.predict(inputs, settings=settings, batch_size=size))
            differ = sum(a[0].tokens != wanted[s] for s, a in zip(inputs, found, strict=True))
            told[f"{order}_{size}"] = {
                "differ": differ,
                "twice": sum(answers[0].repeated for answers in found),
                "cpu_seconds": round(time.process_time() - begun, 1),
            }
    return told


def main() -> int:
    """Measure the families asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--families", default=",".join(FAMILIES))
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return 0
    data = root / "multi30k"
    lines = (data / "test_2016_flickr.en").read_text(encoding="utf-8").split("\n")[: options.sentences]
    result: dict[str, Any] = {"sentences": len(lines), "steps": options.steps, "families": {}}
    with tempfile.TemporaryDirectory() as folder:
        for family in options.families.split(","):
            predictor = trained(family, data, Path(folder) / family, options.steps)
            result["families"][family] = {f"beam_{beam}": measure(predictor, lines, beam) for beam in (1, 5)}
            print(family, json.dumps(result["families"][family]), file=sys.stderr, flush=True)
    runs = [run for family in result["families"].values() for beam in family.values() for run in beam.values()]
    result["differing"] = sum(run["differ"] for run in runs if isinstance(run, dict))
    print(json.dumps(result, indent=1))
    return int(result["differing"] > 0)


if __name__ == "__main__":
    sys.exit(main())
