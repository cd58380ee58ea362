"""`evaluate --robust`: what is asked, what it is compared with, what is left out, and the command on a real model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from antiphon.core.config import Config, Decoding
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override
from antiphon.data.corpus import Pair, Report
from antiphon.inference import robustness as robust
from antiphon.inference.evaluate import evaluate
from antiphon.inference.robustness import PERTURBATIONS, Robustness, perturbed, robustness, table
from antiphon.training.start import fit
from commands import Call, calling, refused  # noqa: F401
from runs import light
from test_evaluate import FakeAnswer, FakePredictor

WORDS = {"the": "der", "dog": "Hund", "cat": "Kater", "sees": "sieht", "hears": "hört", "a": "einen"}
SOURCES = [f"The {one} {does} a {other}." for one in ("dog", "cat") for does in ("sees", "hears")
           for other in ("dog", "cat")]  # fmt: skip
BY_NAME = {each.name: each for each in PERTURBATIONS}


def translated(source: str) -> str:
    """Word by word; what is unknown becomes noise."""
    bare = ((word.strip("."), "." * word.endswith(".")) for word in source.split())
    return " ".join(WORDS.get(word.lower(), "???") + end for word, end in bare)


class Knows(FakePredictor):
    """Translates word by word, where a rule lets it."""

    def __init__(self, answer: Callable[[str], str], config: Config) -> None:
        super().__init__({})
        self.answer, self.config = answer, config

    def predict(self, inputs: Iterable[Pair], *, settings: Decoding | None = None) -> Iterator[list[FakeAnswer]]:
        self.report = Report()
        for pair in inputs:
            yield [FakeAnswer(self.answer(pair.source), pair.source.split())]


PAIRS = [Pair(source, translated(source)) for source in SOURCES]
TRANSLATION = override(Config(), {"task": "translation"})


def measured(answer: Callable[[str], str] = translated, config: Config = TRANSLATION) -> Robustness:
    predictor = Knows(answer, config)
    clean = evaluate(predictor, PAIRS, ["bleu", "exact"], bootstrap=100)
    return robustness(predictor, PAIRS, clean)


def test_a_model_that_minds_capitals_alone_falls_there_alone() -> None:
    found = measured(lambda text: "nothing" if text.isupper() else translated(text))
    falls = {drop.name: drop.scores["exact"].difference for drop in found.drops if "exact" in drop.scores}
    assert falls["CAPITALS"] == -100.0
    assert falls["lower case"] == falls["Title Case"] == falls["double spaces"] == falls["twice as long"] == 0.0
    [drop] = [drop for drop in found.drops if drop.name == "CAPITALS"]
    assert all(not other.example for other in found.drops if falls.get(other.name) == 0.0), "nothing got worse there"
    assert drop.scores["bleu"].significant
    assert drop.scores["bleu"].interval[1] < -50
    assert drop.example["after"] == drop.example["before"].upper()
    assert (drop.example["answer before"], drop.example["answer after"]) == (drop.example["reference"], "nothing")
    assert (drop.changed, drop.pairs) == (8, 8)


def test_two_sources_are_compared_with_both_answers_in_a_row() -> None:
    asked = perturbed(BY_NAME["twice as long"], PAIRS, [pair.target for pair in PAIRS])
    assert len(asked.pairs) == 4
    assert asked.pairs[0].source == f"{SOURCES[0]} {SOURCES[1]}"
    assert asked.before[0] == asked.pairs[0].target == f"{PAIRS[0].target} {PAIRS[1].target}"
    short = measured(lambda text: translated(text.split(". ")[0]))
    [drop] = [drop for drop in short.drops if drop.name == "twice as long"]
    assert (drop.scores["exact"].first, drop.scores["exact"].second) == (100.0, 0.0)


def test_single_words_are_looked_for_in_the_target() -> None:
    found = measured()
    [drop] = [drop for drop in found.drops if drop.name == "single words"]
    assert (drop.scores["found"].first, drop.scores["found"].second) == (100.0, 100.0)
    babbling = measured(lambda text: translated(text) + " und so weiter" * (len(text.split()) == 1))
    [drop] = [drop for drop in babbling.drops if drop.name == "single words"]
    assert drop.scores["found"].second == pytest.approx(25.0)


def test_what_makes_no_sense_is_left_out_and_named() -> None:
    found = measured(config=override(Config(), {"task": "classification"}))
    assert list(found.left_out) == ["single words", "twice as long"]
    assert "classification" in found.left_out["single words"]
    lower = measured(config=override(TRANSLATION, {"data.source.lowercase": True}))
    assert lower.left_out["CAPITALS"] == "the model reads all in lower case"
    assert perturbed(BY_NAME["lower case"], [Pair("你好。", "x")], ["x"]) is None
    with pytest.raises(ConfigError, match="for sources and targets of text"):
        measured(config=override(TRANSLATION, {"data.source.kind": "frames"}))


def test_of_a_dialogue_the_newest_turn_alone_is_changed() -> None:
    asked = perturbed(BY_NAME["CAPITALS"], [Pair("Hello you. <turn> Hi there.", "Yes.")], ["Yes."])
    assert asked.pairs[0].source == "Hello you. <turn> HI THERE."


def test_every_perturbation_changes_the_source_and_is_the_same_again() -> None:
    for each in PERTURBATIONS:
        first, second = (perturbed(each, PAIRS, [pair.target for pair in PAIRS]) for _ in range(2))
        assert first == second
        assert [pair.source for pair in first.pairs] != SOURCES
    typed = [perturbed(BY_NAME["typing errors"], PAIRS * 9, SOURCES * 9, seed).pairs[0].source for seed in range(20)]
    assert len(set(typed)) > 5


def test_rows_and_json_tell_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Knows(translated, TRANSLATION)
    clean = evaluate(predictor, PAIRS, ["exact"], bootstrap=100)
    found = robustness(predictor, PAIRS, clean)
    values = json.loads(robust.to_json(found, clean, {"model": "m"}))
    assert [row[0] for row in table(found)] == [drop["name"] for drop in values["robustness"]["drops"]]
    [typing] = [row for row in table(found) if row[0] == "typing errors"]
    assert typing[4] == "100.00"
    assert values["scores"]["exact"]["value"] == 100.0


def test_the_command_on_a_real_model(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)
    pairs = [(pair.source, pair.target) for pair in PAIRS * 6]
    settings = {
        "task": "translation", "model.width": 16, "training.threads": 1, "training.metric": "loss",
        "training.steps": 3, "model.encoder.kind": "gru", "model.decoder.kind": "gru",
        "data.source.tokenizer": "word", "data.target.tokenizer": "word", "decoding.beam": 1,
        "decoding.max_length": 6,
    }  # fmt: skip
    fit(pairs, out=tmp_path / "run", assignments=settings)
    file = tmp_path / "test.tsv"
    file.write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    code, out, _ = call("evaluate", tmp_path / "run", file, "--robust", "--metrics", "chrf")
    assert code == 0
    for each in PERTURBATIONS:
        assert f"{each.name}  " in out
        assert re.search(rf"{re.escape(f'{each.name}: {each.what}')}; (most hurt:|no answer got worse)", out)
    code, out, _ = call("evaluate", tmp_path / "run", file, "--robust", "--json", "--metrics", "exact")
    values = json.loads(out)
    assert len(values["robustness"]["drops"]) == len(PERTURBATIONS)
    assert set(values["robustness"]["drops"][0]["scores"]) == {"exact"}


def test_metrics_of_all_answers_together_are_refused_before_anything_is_answered() -> None:
    with pytest.raises(ConfigError, match=r"compares answer by answer.*got distinct1, self_bleu"):
        robust.check(TRANSLATION, ["distinct1", "self_bleu"])
    robust.check(TRANSLATION, ["distinct1", "chrf"])
    predictor = Knows(translated, TRANSLATION)
    with pytest.raises(ConfigError, match="compares answer by answer"):
        robustness(predictor, PAIRS, evaluate(predictor, PAIRS, ["distinct1"], bootstrap=100))
