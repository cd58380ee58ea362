"""Models learn to say facts, and to answer from a knowledge base, about entities that training never had."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from antiphon.core.config import Data
from antiphon.data.columns import Pair
from antiphon.data.corpus import open_pairs
from antiphon.inference.bundle import load
from antiphon.inference.evaluate import evaluate
from antiphon.inference.predictor import Predictor
from antiphon.training.start import fit
from runs import light

SAID = {
    "birthPlace": "{0} was born in {1}",
    "capital": "{1} is the capital of {0}",
    "leaderName": "{1} leads {0}",
}
ASKED = {
    "birthPlace": "where was {0} born ?",
    "capital": "what is the capital of {0} ?",
    "leaderName": "who leads {0} ?",
}
SETTINGS = {
    "model.head": "copy", "model.encoder.layers": 1, "model.decoder.layers": 2, "model.width": 64,
    "model.feedforward": 64, "model.dropout": 0.0, "training.rate": 0.005, "training.warmup": 20,
    "data.batch_tokens": 1500, "training.metric": "loss", "training.threads": 1, "training.label_smoothing": 0.0,
    "data.source.tokenizer": "whitespace", "data.target.tokenizer": "whitespace", "data.source.min_count": 30,
    "data.target.min_count": 30, "model.encoder.kind": "transformer", "model.decoder.kind": "transformer",
    "training.steps": 200, "training.validate_every": 200,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def names(count: int, seed: int) -> list[str]:
    """Names that are seen a few times each, so that no vocabulary has them."""
    draw = random.Random(seed)
    made = {"".join(draw.choice("bcdfgklmnprst") + draw.choice("aeiou") for _ in range(3)) for _ in range(count)}
    return sorted(name.title() for name in made)


OLD = names(300, 1)
NEW = sorted(set(names(60, 2)) - set(OLD))


def told(pool: list[str], count: int, seed: int) -> list[dict[str, object]]:
    """One or two facts in any order, and the text that says them in the order of their relations."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        facts = [[pair[0], name, pair[1]] for name in sorted(draw.sample(sorted(SAID), draw.randint(1, 2)))
                 for pair in [draw.sample(pool, 2)]]  # fmt: skip
        target = " and ".join(SAID[name].format(subject, thing) for subject, name, thing in facts)
        draw.shuffle(facts)
        rows.append({"facts": facts, "target": target})
    return rows


def base(pool: list[str], seed: int) -> list[list[str]]:
    """Every second name with one of the others for each relation."""
    draw = random.Random(seed)
    return [[name, relation, draw.choice(pool[1::2])] for name in pool[::2] for relation in SAID]


def asked(facts: list[list[str]], count: int, seed: int) -> list[tuple[str, str]]:
    """Questions about facts, and what is to be said."""
    chosen = random.Random(seed).choices(facts, k=count)
    return [(ASKED[name].format(subject), SAID[name].format(subject, thing)) for subject, name, thing in chosen]


def check_text(kind: str, run: Path) -> None:
    fit(told(OLD, 2000, 3), out=run, assignments={**SETTINGS, "model.knowledge.kind": kind})
    guesser = Predictor(load(run))
    rows = told(OLD, 60, 5) + told(NEW, 60, 6)
    pairs = list(open_pairs(rows, Data()))
    found = evaluate(guesser, pairs, ["exact"], bootstrap=0)
    buckets = {each.label: each for each in found.by_entities}
    assert buckets["none seen"].count == 60
    assert all(each.scores["exact"] >= 95 for each in buckets.values()), found.by_entities
    assert found.scores["entity_coverage"].value >= 97
    empty = next(guesser.predict([Pair("", "", (), pairs[0].context)]))
    assert empty[0].text == found.answers[0]


def check_dialogue(kind: str, run: Path) -> None:
    old, new, both = base(OLD, 3), base(NEW, 4), run.parent / "facts.tsv"
    both.write_text("".join("\t".join(fact) + "\n" for fact in old + new), encoding="utf-8")
    given = {**SETTINGS, "model.knowledge.kind": kind, "data.knowledge": str(both), "data.facts": 6}
    fit(asked(old, 2000, 5), out=run, assignments=given, task="dialogue")
    pairs = asked(new, 100, 6)
    answers = Predictor(load(run), knowledge=both).predict(source for source, _ in pairs)
    right = sum(found[0].text == answer for found, (_, answer) in zip(answers, pairs, strict=True))
    assert right >= 95, right


def test_a_graph_becomes_text(tmp_path: Path) -> None:
    check_text("graph", tmp_path / "run")


def test_questions_are_answered_from_a_knowledge_base(tmp_path: Path) -> None:
    check_dialogue("linear", tmp_path / "run")


@pytest.mark.slow
def test_facts_become_text_when_joined_to_the_source(tmp_path: Path) -> None:
    check_text("linear", tmp_path / "run")


@pytest.mark.slow
def test_questions_are_answered_from_a_graph(tmp_path: Path) -> None:
    check_dialogue("graph", tmp_path / "run")
