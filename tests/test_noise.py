"""Noise that leaves the meaning: what it does to a text, what suits a task, and the switch that trains against it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from antiphon.core.config import Config
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override
from antiphon.data import noise
from antiphon.data.corpus import Pair
from antiphon.inference.tasks import PRESETS
from antiphon.training.start import fit, resume
from runs import Recorder, light, outcome
from test_augment import ENGLISH, made, sources

SENTENCE = "The Dog sees a cat, there."


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def test_texts_are_changed_as_the_names_say() -> None:
    assert noise.titled(SENTENCE) == "The Dog Sees A Cat, There."
    assert noise.spread("a b  c") == "a  b    c"
    assert noise.unpunctuated(SENTENCE) == "The Dog sees a cat, there"
    assert noise.together("Hello.", "You.") == "Hello. You."
    assert noise.together("你好。", "再见。") == "你好。再见。"
    assert noise.bare('He said: "Yes!" 12') == ["He", "said", "Yes"]
    assert noise.bare("你好。") == []


def test_strange_signs_are_of_no_script_that_is_known_and_tests_have_others() -> None:
    every = (*noise.LETTERS, *noise.SIGNS)
    assert not any(low <= high2 and low2 <= high for low, high in every
                   for low2, high2 in (*noise.OTHER_LETTERS, *noise.OTHER_SIGNS))  # fmt: skip
    russian = noise.Strange.to("собака", noise.LETTERS, noise.SIGNS)
    assert len(russian.letters) == len(noise.LETTERS) - 1
    found = [russian(SENTENCE, Random(seed)) for seed in range(100)]
    assert not any("а" <= letter <= "я" for text in found for letter in text)
    for text in found:
        assert [word for word in text.split() if word.isascii()] == SENTENCE.split()
        assert sum(not word.isascii() for word in text.split()) == 1
    assert noise.Strange.to("", noise.LETTERS, ()).word("你好", Random(1)).startswith("你好")


def test_the_mix_draws_one_kind_or_two_of_those_that_suit() -> None:
    pair = Pair(SENTENCE, "x")
    found = sources(made(robust=True, share=1.0), pair, 600)
    assert {"the dog sees a cat, there.", "THE DOG SEES A CAT, THERE.", "The Dog Sees A Cat, There."} <= set(found)
    assert {noise.spread(SENTENCE), noise.unpunctuated(SENTENCE)} <= set(found)
    strange = sum(not text.isascii() for text in found) / 600
    assert 0.12 < strange < 0.28, "3 of 19 drawn once, and sometimes twice"
    assert any(noise.spread(text) != text.replace("  ", " ") and text.isupper() and "  " in text for text in found)
    few = noise.Mixed.learn(["spaces", "punctuation"], ())
    assert {few(pair, Random(seed)).source for seed in range(50)} == {
        noise.spread(SENTENCE), noise.unpunctuated(SENTENCE), noise.spread(noise.unpunctuated(SENTENCE)),
    }  # fmt: skip
    assert few(Pair("a", "x"), Random(1)).target == "x"


def test_tasks_name_kinds_that_there_are() -> None:
    for preset in PRESETS.values():
        assert set(preset.noise) <= set(noise.NOISE)
    assert not PRESETS["speech"].noise
    assert "typos" not in PRESETS["transduction"].noise, "each letter counts there"


def test_two_become_one_of_the_same_context() -> None:
    pairs = [Pair(f"s{number}", f"t{number}", (), {"of": str(number % 2)}) for number in range(200)]
    found = noise.two_as_one(pairs, Random(1), 0.5)
    assert 25 < len(found) < 75
    for pair in found:
        first, second = pair.source.split()
        assert int(first[1:]) % 2 == int(second[1:]) % 2
        assert pair.target == pair.source.replace("s", "t")
        assert pair.context == {"of": str(int(first[1:]) % 2)}
    assert noise.two_as_one(pairs, Random(1), 0.5) == found


def test_a_sample_is_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "MOST_JOINED", 50)
    pairs = [Pair(str(number), "x") for number in range(1000)]
    found = noise.two_as_one(pairs, Random(1), 1.0)
    assert len(found) == 50
    assert max(int(pair.source.split()[0]) for pair in found) > 800


def test_words_find_their_translations() -> None:
    draw, words = Random(3), {"dog": "Hund", "cat": "Katze", "house": "Haus", "tree": "Baum", "sun": "Sonne"}
    pairs = []
    for _ in range(60):
        drawn = draw.sample(sorted(words), 3)
        pairs.append(Pair(f"the {' '.join(drawn)}.", f"das {' '.join(words[word] for word in reversed(drawn))}."))
    found = {pair.source: pair.target for pair in noise.dictionary(pairs)}
    assert found == {**words, "the": "das"}
    assert noise.dictionary(pairs[:4]) == [], "seen too seldom"


# In a run

SETTINGS: dict[str, Any] = {
    "task": "translation", "model.width": 16, "training.threads": 1, "training.metric": "loss", "training.steps": 9,
    "training.validate_every": 4, "data.batch_tokens": 200, "model.encoder.kind": "gru", "model.decoder.kind": "gru",
    "data.source.tokenizer": "word", "data.target.tokenizer": "word", "data.augment.robust": True,
}  # fmt: skip
PAIRS = [(pair.source, pair.target) for pair in ENGLISH] * 12
PAIRS = [(f"{source} {number}", f"{target} {number}") for number, (source, target) in enumerate(PAIRS)]


def test_a_resumed_run_ends_with_the_same_bits_and_tells_what_was_added(tmp_path: Path) -> None:
    seen = Recorder()
    fit(PAIRS, out=tmp_path / "whole", assignments=SETTINGS, observers=[seen])
    fit(PAIRS, out=tmp_path / "parts", assignments=SETTINGS, observers=[Recorder(5)])
    resume(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    [added] = [note.text for note in seen.notes if "pairs of two in a row" in note.text]
    assert added.startswith("training data: 2 pairs of two in a row and 2 of single words are added, '")
    assert any("augmentation by robust" in note.text or "robust changes" in note.text for note in seen.notes)


def test_words_that_have_no_facts_are_not_added_to_pairs_that_have_some(tmp_path: Path) -> None:
    rows = [{"source": source, "target": target, "facts": ""} for source, target in PAIRS]
    seen = Recorder()
    fit(rows, out=tmp_path, assignments={**SETTINGS, "training.steps": 1, "model.knowledge.kind": "linear"},
        observers=[seen])  # fmt: skip
    assert any("and 0 of single words are added" in note.text for note in seen.notes)


def test_other_tasks_have_no_pairs_added(tmp_path: Path) -> None:
    seen = Recorder()
    fit(PAIRS, out=tmp_path, assignments={**SETTINGS, "task": "dialogue", "training.steps": 1}, observers=[seen])
    assert not any("in a row" in note.text for note in seen.notes)


def test_noise_is_of_text() -> None:
    with pytest.raises(ConfigError, match=r"data.augment.robust is for sources of text"):
        override(Config(), {"data.source.kind": "frames", "data.augment.robust": True})
