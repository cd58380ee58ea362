"""Made-up names: the same on both sides and in the facts, rare words alone, and a model that has to copy them."""

from __future__ import annotations

import json
from random import Random

import pytest

from antiphon.core.config import Data
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override
from antiphon.data import augment
from antiphon.data.columns import Pair
from antiphon.data.knowledge import FACTS
from antiphon.data.names import Names, Stems, given, stem, taken
from antiphon.data.tokenizers import Char, Whitespace, Word
from runs import configured

NAMES = [f"{first}{last}" for first in ("alpha", "Beta", "gamma_", "Delta") for last in "abcdefghijklmnopqrstuvwxyz"]
PAIRS = [Pair(f"call {name} with {3**n}", f"{name} ( {3**n} )") for n, name in enumerate(NAMES)]


def test_source_and_target_change_alike() -> None:
    names = Names.learn(1.0, PAIRS)
    for seed in range(50):
        pair = PAIRS[seed]
        new = names(pair, Random(seed))
        _, called, _, number = new.source.split()
        assert new.target == f"{called} ( {number} )"
        assert len(number) == len(pair.source.split()[3])
        assert called[0].isupper() or pair.source.split()[1][0].islower()
        assert new.source.split()[::2] == ["call", "with"]


def test_names_are_those_of_others_and_new_ones() -> None:
    names = Names.learn(1.0, PAIRS)
    made = {names(PAIRS[0], Random(seed)).target.split()[0] for seed in range(200)}
    assert made & set(names.shared)
    assert made - set(names.shared)


def test_a_word_that_many_targets_have_stays() -> None:
    pairs = [Pair(f"if {word} then return", f"if {word} : return") for word in NAMES]
    names = Names.learn(1.0, pairs)
    assert names.common == {"if", "return"}
    assert names(pairs[0], Random(3)).target.split()[::2] == ["if", ":"]


def test_facts_change_with_the_target() -> None:
    facts = json.dumps([["Aarhus_Airport", "runwayLength", "2702.0"], ["Aarhus_Airport", "city", "Aarhus"]])
    pair = Pair("Aarhus Airport", "The runway of Aarhus Airport is 2702.0 long.", (), {FACTS: facts, "tone": "kind"})
    assert given(pair) == {"Aarhus", "Airport", "2702", "0"}
    names = Names.learn(1.0, [pair, *(Pair(word, word) for word in NAMES)])
    new = names(pair, Random(1))
    (first, relation, length), (again, other, city) = json.loads(new.context[FACTS])
    assert first == again == new.source != "Aarhus Airport"
    assert first.split()[0] == city
    assert (relation, other, new.context["tone"]) == ("runwayLength", "city", "kind")
    assert new.target == f"The runway of {first} is {length} long."


def test_a_rate_of_a_half_changes_half() -> None:
    names = Names.learn(0.5, PAIRS)
    changed = sum(names(PAIRS[0], Random(seed)).source.split()[1] != "alphaa" for seed in range(400))
    assert 160 < changed < 240


def test_pairs_without_a_name_in_common_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.augment\.names does nothing.*set it to 0"):
        Names.learn(0.5, [Pair("a b", "c d"), Pair("e", "f")])


def test_numbers_alone_can_be_shared_too() -> None:
    names = Names.learn(1.0, [Pair(f"number {n}", f"Zahl {n}") for n in range(100, 200)])
    assert names.shared == ()
    new = names(Pair("number 123", "Zahl 123"), Random(1))
    assert new.source.split()[1] == new.target.split()[1] != "123"
    assert names(Pair("number 123 Ann", "Ann"), Random(1)).target == "Ann"


def test_what_is_taken_is_rare_and_shared() -> None:
    assert taken(PAIRS) == 1.0
    assert taken([Pair("if a", "if b")] * 9) == 0.0
    assert taken([*PAIRS, *(Pair("x", f"y{n}") for n in range(104))]) == 0.5
    assert taken([]) == 0.0


def test_names_are_an_augmentation_like_any_other() -> None:
    config = override(configured(), {"data.augment.names": 0.5, "data.augment.drop": 0.1})
    found = augment.learn(PAIRS, config.data, Word(), Word())
    assert found is not None
    assert list(found.changes) == ["names", "drop"]
    assert found(PAIRS[0], 5) == found(PAIRS[0], 5)
    assert augment.learn(PAIRS, Data(), Word(), Word()) is None


FINNISH = [
    Pair("vapiti N PRT", "vapiteitta"), Pair("briossi N TRANS", "briossiksi"), Pair("latkia V", "latkinet"),
    Pair("no X", "yes"),
]  # fmt: skip


def test_a_stem_is_the_longest_run_that_both_share() -> None:
    assert stem(list("älköön kysellä"), list("kysellyt")) == (7, 0, 6)
    assert stem(list("ab"), list("ab")) == (0, 0, 0)


def test_stems_change_alike_and_endings_stay() -> None:
    stems = Stems.learn(1.0, FINNISH, Char(), Char())
    assert set(stems.drawn) == set("vapitbrioslk")
    for seed in range(30):
        new = stems(FINNISH[1], Random(seed))
        made = new.source.removesuffix(" N TRANS")
        assert len(made) == len("briossi")
        assert new.target == made + "ksi"
        assert set(made) <= set(stems.drawn)
    assert stems(FINNISH[3], Random(1)) == FINNISH[3]
    assert {stems(FINNISH[1], Random(seed)).source for seed in range(30)} != {FINNISH[1].source}


def test_stems_of_spelled_words_leave_tags_alone() -> None:
    spelled = [Pair(" ".join(pair.source.split()[0]) + " N", " ".join(pair.target)) for pair in FINNISH[:3]]
    stems = Stems.learn(1.0, spelled, Whitespace(), Whitespace())
    assert "N" not in stems.drawn
    new = stems(spelled[0], Random(2))
    assert new.source.split()[-1] == "N"
    assert new.target.split()[:5] == new.source.split()[:5]
    assert new.target.split()[6:] == spelled[0].target.split()[6:]


def test_pairs_without_a_stem_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.augment\.stems does nothing.*set it to 0"):
        Stems.learn(0.5, [Pair("a b", "c d")], Char(), Char())


def test_stems_are_an_augmentation_like_any_other() -> None:
    config = override(configured(), {"data.augment.stems": 0.5, "data.augment.share": 1.0})
    found = augment.learn(FINNISH, config.data, Char(), Char())
    assert found is not None
    assert list(found.changes) == ["stems"]
    changed = sum(found(FINNISH[0], seed) != FINNISH[0] for seed in range(200))
    assert 70 < changed < 130
