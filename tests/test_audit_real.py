"""Audits of real data sets; `bench/audit.py` does the same at length."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from antiphon.core.config import Data
from antiphon.diagnosis import stretches
from antiphon.diagnosis.belonging import WINDOW
from antiphon.diagnosis.data import audit
from antiphon.diagnosis.lexical import Association, Content
from antiphon.diagnosis.pairs import shared
from antiphon.diagnosis.reading import read
from antiphon.diagnosis.words import cut

SMALL = ["sigmorphon2020_g2p/ice_train.tsv", "sigmorphon2018_inflection/german-train-medium", "csl_zh/title.dev.tsv"]
LARGE = [
    "multi30k/train.en,multi30k/train.de", "tatoeba_cmn_eng/train.tsv", "samsum/train.tsv", "e2e_nlg/train.tsv",
    "webnlg/train.jsonl", "django_code/train.tsv", "scan/simple.train.tsv", "cmudict_g2p/train.tsv",
]  # fmt: skip


def real(files: str) -> str:
    folder = os.environ.get("ANTIPHON_DATA")
    if not folder:
        pytest.skip("set ANTIPHON_DATA to the folder of real data")
    return ",".join(str(Path(folder) / name) for name in files.split(","))


def test_a_line_missing_in_multi30k_is_found_within_20() -> None:
    texts, draw = read(real("multi30k/train.en,multi30k/train.de"), Data()), random.Random(3)
    for side in (0, 1):
        sides, place = [list(texts.sources), list(texts.targets)], draw.randrange(len(texts) - 1)
        del sides[side][place]
        sides[side].append("")
        words = Content.of(cut(sides[0])), Content.of(cut(sides[1]))
        model = Association.learn(*words, range(-WINDOW, WINDOW + 1))
        [stretch] = stretches.find(*sides, *words, model)
        assert abs(stretch.start - place) <= 20
        assert stretch.offset == (1, -1)[side]


@pytest.mark.parametrize("files", [*SMALL, *(pytest.param(files, marks=pytest.mark.slow) for files in LARGE)])
def test_clean_sets_are_not_stopped(files: str) -> None:
    assert audit(real(files)).verdict != "stop"


def test_dialogues_of_samsum_that_recur_are_found() -> None:
    train, test = (read(real(f"samsum/{name}.tsv"), Data()) for name in ("train", "test"))
    found = {finding.kind: finding.figures for finding in shared(train, test, "test", cut(train.sources))}
    assert (found["test in training"]["sources"], found["test in training"]["pairs"]) == (42, 0)


@pytest.mark.slow
def test_a_hundred_thousand_pairs_take_seconds(tmp_path: Path) -> None:
    texts = read(real("multi30k/train.en,multi30k/train.de"), Data())
    pairs = [(texts.sources[row % len(texts)], texts.targets[row % len(texts)], row) for row in range(100_000)]
    path = tmp_path / "pairs.tsv"
    lines = (" ".join((*source.split(), str(row))) + "\t" + " ".join((*target.split(), str(row))) + "\n"
             for source, target, row in pairs)  # fmt: skip
    path.write_text("".join(lines), encoding="utf-8")
    assert audit(str(path)).seconds < 20
