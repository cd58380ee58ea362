"""Bundles of earlier versions still load and still say what they said.

`python tests/test_golden.py NAME` makes a new one, tests/golden/NAME; those that are there are never made again.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from antiphon.core.keys import override
from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor

GOLDEN = Path(__file__).parent / "golden"
INPUTS = ["abc", "cab", "dead bee", "facade", "é", ""]
SETTINGS = ({}, {"decoding.beam": 4, "decoding.n_best": 2}, {"decoding.sample": True, "decoding.seed": 7})


def said(folder: Path) -> list[list[list[object]]]:
    """The texts and rounded scores of all answers, for each way to search."""
    predictor, found = Predictor(load(folder)), []
    for changes in SETTINGS:
        settings = override(predictor.config, changes).decoding
        answers = predictor.predict(INPUTS, settings=settings)
        found.append([[answer.text, round(answer.score, 3)] for several in answers for answer in several])
    return found


@pytest.mark.parametrize("folder", sorted(GOLDEN.glob("*/bundle")), ids=lambda folder: folder.parent.name)
def test_an_old_bundle_says_what_it_said(folder: Path) -> None:
    wanted = json.loads((folder.parent / "answers.json").read_text(encoding="utf-8"))
    for found, expected in zip(said(folder), wanted, strict=True):
        assert [text for text, _ in found] == [text for text, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=2e-3)


def test_there_is_one() -> None:
    assert list(GOLDEN.glob("*/answers.json"))


def make(name: str) -> None:
    """Train a tiny model, keep its bundle, and write down what it says."""
    from antiphon.training.start import fit

    draw = random.Random(1)
    words = ["".join(draw.choices("abcdef ", k=draw.randint(2, 7))).strip() or "a" for _ in range(600)]
    settings = {
        "model.encoder.kind": "gru", "model.decoder.kind": "ssru", "model.encoder.layers": 1, "model.width": 16,
        "model.decoder.layers": 1, "model.feedforward": 16, "model.head": "copy", "training.steps": 150,
        "training.rate": 0.01, "data.source.tokenizer": "char", "data.target.tokenizer": "char",
    }  # fmt: skip
    folder = GOLDEN / name
    with tempfile.TemporaryDirectory() as run:
        fit([(word, word[::-1]) for word in words], out=Path(run) / "run", assignments=settings)
        bundle = load(Path(run) / "run").path
        shutil.copytree(bundle, folder / "bundle", ignore=shutil.ignore_patterns("training"))
    text = json.dumps(said(folder / "bundle"), ensure_ascii=False, indent=1)
    (folder / "answers.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(sys.argv[1])
