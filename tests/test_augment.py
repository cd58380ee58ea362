"""Augmentation: each kind does what it says, follows from its seed, spares validation, and resumes exactly."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.config import Augment, Config, Data
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.data import augment
from antiphon.data.augment import MASK, REVERSED, REVERSED_KEY, Augmenter
from antiphon.data.corpus import Pair
from antiphon.data.noise import BESIDE
from antiphon.data.tokenizers import Char, Label, Tokenizer, Whitespace
from antiphon.inference.task import Task
from antiphon.training.start import fit, resume
from runs import Recorder, configured, light, outcome, prepared, words

ENGLISH = [
    Pair("the big dog sees a cat .", "der große Hund sieht eine Katze ."),
    Pair("the large hound runs quickly .", "der Hund rennt schnell ."),
    Pair("a small house stands there !", "ein kleines Haus steht da !"),
    Pair("my home is small", "mein Heim ist klein"),
]


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def made(
    pairs: list[Pair] = ENGLISH, tokenizer: Tokenizer | None = None, data: Data | None = None, **settings: Any
) -> Augmenter:
    tokenizer = tokenizer or Whitespace()
    data = replace(data or Data(), augment=replace(Augment(share=1.0), **settings))
    augmenter = augment.learn(pairs, data, tokenizer, tokenizer)
    assert augmenter is not None
    return augmenter


def sources(augmenter: Augmenter, pair: Pair = ENGLISH[0], many: int = 300) -> list[str]:
    return [augmenter(pair, seed).source for seed in range(many)]


def units(texts: list[str]) -> list[list[str]]:
    return [text.split() for text in texts]


WORDS = ENGLISH[0].source.split()


def test_without_settings_there_is_none() -> None:
    assert augment.learn(ENGLISH, Data(), Whitespace(), Whitespace()) is None
    assert augment.learn(ENGLISH, Data(augment=Augment(share=0.0, drop=0.5)), Whitespace(), Whitespace()) is None


def test_drop_leaves_out_at_its_rate_and_never_all() -> None:
    found = units(sources(made(drop=0.3)))
    assert 0.25 < 1 - sum(map(len, found)) / (300 * len(WORDS)) < 0.35
    for kept in found:
        rest = iter(WORDS)
        assert all(unit in rest for unit in kept), "the order must stay"
    assert {len(kept) for kept in units(sources(made(drop=1.0)))} == {1}


def test_swap_keeps_the_words_and_moves_neighbours() -> None:
    found = units(sources(made(swap=0.2)))
    assert all(sorted(each) == sorted(WORDS) for each in found)
    assert any(each != WORDS for each in found)
    assert all(each.index("sees") - WORDS.index("sees") in (-1, 0, 1) for each in found)


@pytest.mark.parametrize("kind", ["replace", "insert"])
def test_what_is_put_in_is_drawn_by_frequency_from_training(kind: str) -> None:
    known = Counter(word for pair in ENGLISH for word in pair.source.split())
    found = Counter(word for each in units(sources(made(**{kind: 1.0}), many=1500)) for word in each)
    if kind == "insert":
        found -= Counter(dict.fromkeys(WORDS, 1500))
    assert set(found) == set(known)
    total = sum(known.values())
    assert all(abs(found[word] / found.total() - known[word] / total) < 0.02 for word in known)
    long = {len(each) for each in units(sources(made(**{kind: 1.0})))}
    assert long == {len(WORDS) * (2 if kind == "insert" else 1)}


def test_a_mask_reads_as_an_unknown_token() -> None:
    config = configured(data__source__tokenizer="word", data__augment__mask=0.5, data__augment__share=1.0)
    task = Task.learn(ENGLISH, config)
    changed = made(mask=0.5)(ENGLISH[0], 1)
    assert MASK in changed.source
    ids = task.encode(changed).source
    assert ids.count(1) == changed.source.count(MASK)


def test_characters_are_the_units_without_spaces_or_where_the_side_is_cut_so() -> None:
    plain = [Pair("abcdef", "x"), Pair("bcda", "y")]
    assert len(made(plain, drop=0.5)(plain[0], 3).source) < 6
    found = made(ENGLISH, Char(), mask=1.0)(ENGLISH[0], 1).source
    assert found == MASK * len(ENGLISH[0].source)


def test_typos_touch_letters_at_their_rate() -> None:
    before = ENGLISH[0].source
    found = sources(made(typos=0.1))
    assert sum(text != before for text in found) > 200
    assert all(abs(len(text) - len(before)) < 8 for text in found)
    assert all(text.count(".") == 1 and text.count(" ") == 6 for text in sources(made(typos=1.0)))
    assert set("".join(found)) > set(before)
    assert made(typos=0.5)(Pair("人类人类人类", "b"), 5).source != "人类人类人类"


def test_keys_are_beside_each_other() -> None:
    assert set(BESIDE["s"]) == set("wedxza")
    assert set(BESIDE["q"]) == set("wa")


def test_casing_and_punctuation_change_the_whole_source_at_their_rate() -> None:
    pair = Pair("The Dog, there. ", "x")
    found = Counter(sources(made(casing=0.5), pair))
    assert set(found) == {"The Dog, there. ", "the dog, there. ", "THE DOG, THERE. ", "The Dog, There. "}
    assert 120 < found["The Dog, there. "] < 180
    found = Counter(sources(made(punctuation=0.5), pair))
    assert set(found) == {"The Dog, there. ", "The Dog, there"}
    assert 120 < found["The Dog, there"] < 180
    for text, bare in [("?!", "?!"), ("你好。", "你好"), ("no mark ", "no mark ")]:
        assert made(punctuation=1.0)(Pair(text, "x"), 1).source == bare


def test_switchout_leaves_labels_alone() -> None:
    pairs = [Pair(f"{word} b", "good" if word == "a" else "bad") for word in "ac"]
    augmenter = augment.learn(pairs, Data(augment=Augment(switchout=1e9)), Whitespace(), Label())
    assert augmenter is not None
    changed = [augmenter(pair, seed) for pair in pairs for seed in range(20)]
    assert {each.target for each in changed[:20]} == {"good"}
    assert len({each.source for each in changed}) > 2


def test_switchout_changes_as_many_as_its_temperature_says() -> None:
    """Wang et al. 2018: of L units n are changed with probability in proportion to exp(-n / temperature)."""
    augmenter = made(switchout=1.0)
    found = Counter[int]()
    for seed in range(2000):
        after = augmenter(ENGLISH[0], seed)
        assert len(after.target.split()) == len(ENGLISH[0].target.split())
        found[sum(a != b for a, b in zip(after.source.split(), WORDS, strict=True))] += 1
    assert 0.60 < found[0] / 2000 < 0.66  # 1 - 1/e = 0.632
    assert 0.20 < found[1] / 2000 < 0.265  # that / e = 0.233
    assert any(augmenter(ENGLISH[0], seed).target != ENGLISH[0].target for seed in range(20))
    two = made([Pair("a b", "x y"), Pair("b a", "y x")], switchout=1e9)
    assert {two(Pair("a", "x"), seed).source for seed in range(20)} == {"a", "b"}
    assert {two(Pair("a b", "x"), seed).source for seed in range(40)} == {"a b", "b b", "a a", "b a"}
    number = [two(Pair("a a a", "x"), seed).source.count("b") for seed in range(1000)]
    assert all(0.2 < number.count(each) / 1000 < 0.3 for each in range(4)), (
        "each number is alike, and all chosen do change"
    )


def test_reversal_is_told_by_a_tag() -> None:
    pair = ENGLISH[2]
    turned = " ".join(reversed(pair.target.split()))
    back = "! there stands house small a"
    cases = [("target", pair.source, turned), ("source", back, pair.target), ("both", back, turned)]
    for sides, source, target in cases:
        after = made(reverse=sides, reverse_rate=1.0)(pair, 1)
        assert (after.source, after.target, set(after.context)) == (source, target, {REVERSED_KEY})
    config = configured(data__source__tokenizer="word", data__augment__reverse="target")
    task = Task.learn(ENGLISH, config)
    assert task.read(made(reverse="target", reverse_rate=1.0)(pair, 1)).tokens[0] == REVERSED
    assert (
        task.encode(made(reverse="target", reverse_rate=1.0)(pair, 1)).source[0]
        == task.source.vocabulary.index[REVERSED]
    )
    assert REVERSED not in Task.learn(ENGLISH, configured(data__source__tokenizer="word")).source.vocabulary.index


ALL: dict[str, Any] = {
    "drop": 0.2,
    "swap": 0.2,
    "replace": 0.2,
    "mask": 0.1,
    "insert": 0.2,
    "typos": 0.1,
    "casing": 0.5,
}
ALL |= {"punctuation": 0.5, "switchout": 1.0, "reverse": "both"}


def test_the_same_seed_gives_the_same_also_elsewhere() -> None:
    augmenter = made(**ALL)
    again = pickle.loads(pickle.dumps(augmenter))
    first = [augmenter(ENGLISH[0], seed) for seed in range(50)]
    assert first == [again(ENGLISH[0], seed) for seed in range(50)]
    assert first == [made(**ALL)(ENGLISH[0], seed) for seed in range(50)]
    assert len({(pair.source, pair.target) for pair in first}) > 45


def test_a_share_of_the_pairs_is_changed_and_blank_texts_never_come_out() -> None:
    found = [made(**ALL, share=0.3)(ENGLISH[0], seed) for seed in range(500)]
    assert 0.6 < sum(pair is ENGLISH[0] for pair in found) / 500 < 0.8
    tiny = [Pair("a b", "c d"), Pair("a", "b"), Pair(".", "!"), Pair("  a", "é"), Pair("name", "name")]
    hard = made(tiny, **dict.fromkeys(augment.RATES, 1.0), switchout=9.0, reverse="both")
    for pair in tiny:
        after = [hard(pair, seed) for seed in range(30)]
        assert all(each.source.strip() and each.target.strip() for each in after)


def test_context_is_kept() -> None:
    pair = Pair("a b c", "x y z", (), {"domain": "news"})
    assert made(drop=0.5, reverse="source", reverse_rate=1.0)(pair, 1).context == {"domain": "news", REVERSED_KEY: ""}


def test_effects_are_measured_and_shown() -> None:
    pairs = [Pair(f"word{number} . " + "long " * (40 if number < 2 else 0), "x") for number in range(100)]
    augmenter = made(pairs, punctuation=1.0, typos=0.5, share=0.5)
    lines = augment.effects(augmenter, pairs, 1000)
    assert len(lines) == 3
    assert lines[0].startswith("augmentation changes about ")
    by_name = {line.split()[2]: line for line in lines[1:]}
    count = int(by_name["punctuation"].split()[5])
    assert 400 <= count <= 600
    assert by_name["punctuation"].count(" -> ") == 3
    assert "long" not in by_name["punctuation"]


# In a run

SETTINGS = {
    "model.width": 16, "training.threads": 1, "training.metric": "loss", "training.steps": 14,
    "training.validate_every": 4, "data.batch_tokens": 200, "model.encoder.kind": "gru", "model.decoder.kind": "gru",
    "data.augment.typos": 0.2, "data.augment.drop": 0.2, "data.augment.reverse": "both", "data.augment.share": 0.7,
}  # fmt: skip


def test_a_resumed_run_ends_with_the_same_bits_and_shows_its_changes(tmp_path: Path) -> None:
    pairs, seen = words(60), Recorder()
    fit(pairs, out=tmp_path / "whole", assignments=SETTINGS, observers=[seen])
    fit(pairs, out=tmp_path / "parts", assignments=SETTINGS, observers=[Recorder(6)])
    resume(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    fit(pairs, out=tmp_path / "plain", assignments={**SETTINGS, "data.augment.drop": 0.1})
    assert outcome(tmp_path / "plain")["model.safetensors"] != outcome(tmp_path / "whole")["model.safetensors"]
    told = [note.text for note in seen.notes if "augmentation by" in note.text]
    assert [text.split()[4] for text in told] == ["drop", "typos", "reverse"]
    assert all(text.count(" -> ") >= 3 for text in told)


def test_subword_sampling_tells_its_effect_too(tmp_path: Path) -> None:
    cut = {"data.source.tokenizer": "bpe", "data.source.vocabulary": 30, "data.source.sampling": 0.5}
    plain = {key: value for key, value in SETTINGS.items() if "augment" not in key}
    seen = Recorder()
    fit(words(60), out=tmp_path / "run", assignments={**plain, **cut, "training.steps": 1}, observers=[seen])
    assert any("subword sampling of the source changes about" in note.text for note in seen.notes)


def test_epochs_differ_and_validation_is_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loader and the validator encode, caught on its way through the task."""
    seen: list[tuple[str, int | None]] = []
    encode = Task.encode

    def spied(task: Task, pair: Pair, *, seed: int | None = None, **more: Any) -> Any:
        example = encode(task, pair, seed=seed, **more)
        seen.append((pair.source, seed))
        return example

    monkeypatch.setattr(Task, "encode", spied)
    pairs = words(60)
    fit(pairs[:-8], valid=pairs[-8:], out=tmp_path, assignments=SETTINGS)
    seeds: dict[str, set[int]] = {}
    for source, seed in seen:
        if seed is not None:
            seeds.setdefault(source, set()).add(seed)
    held_out = {source for source, _ in pairs[-8:]} - {source for source, _ in pairs[:-8]}
    assert held_out
    assert not held_out & set(seeds)
    assert max(len(each) for each in seeds.values()) >= 3, "an epoch, a seed"


def test_encoding_changes_with_a_seed_alone() -> None:
    config = configured(data__augment__drop=0.5, data__augment__share=1.0)
    task, _, _ = prepared(config)
    augmenter = augment.learn(
        [Pair(*pair) for pair in words()], config.data, task.source.tokenizer, task.target.tokenizer
    )
    changed, pair = replace(task, augment=augmenter), Pair("abcde", "edcba")
    assert changed.encode(pair) == task.encode(pair) == task.encode(pair, seed=1)
    assert len({tuple(changed.encode(pair, seed=seed).source) for seed in range(20)}) > 5
    assert changed.files() == task.files()


def test_other_synonyms_are_refused_on_resume(tmp_path: Path) -> None:
    file = tmp_path / "groups.txt"
    file.write_text("abc cba\n")
    pairs = [*words(60), ("abc", "x"), ("cba", "y")]
    named = {**SETTINGS, "data.augment.synonyms": str(file)}
    fit(pairs, out=tmp_path / "run", assignments=named, observers=[Recorder(3)])
    file.write_text("abc cba bac\n")
    with pytest.raises(DataError, match="synonym data has changed"):
        resume(tmp_path / "run")


def test_reversal_needs_a_model_that_knows_the_tag(tmp_path: Path) -> None:
    plain = {key: value for key, value in SETTINGS.items() if "augment" not in key}
    fit(words(60), out=tmp_path / "first", assignments={**plain, "training.steps": 1})
    again = {"data.augment.reverse": "both", "training.steps": 1}
    with pytest.raises(ConfigError, match="the vocabulary that is kept has no <reversed>; take"):
        fit(words(60), out=tmp_path / "second", start=tmp_path / "first", assignments=again)


# Bad input


@pytest.mark.parametrize("name", ["drop", "share", "synonym_rate", "reverse_rate"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_rate_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"data.augment.{name} must be from 0 to 1 \(got {value}\); set it"):
        override(Config(), {f"data.augment.{name}": value})


def test_other_bad_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"data.augment.switchout must not be negative"):
        override(Config(), {"data.augment.switchout": -1})
    with pytest.raises(ConfigError, match=r"data\.augment\.reverse"):
        override(Config(), {"data.augment.reverse": "sideways"})
    with pytest.raises(ConfigError, match="casing does nothing"):
        made(data=Data(source=replace(Data().source, lowercase=True)), casing=0.5)
    with pytest.raises(ConfigError, match=r"data.augment.synonyms: there is no such file or folder \(got .*; check"):
        made(synonyms=str(tmp_path / "nothing.txt"))
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="install WordNet"):
        made(synonyms="wordnet")
    with pytest.raises(ConfigError, match="cannot be read"):
        made(synonyms=str(tmp_path))


def test_classes_stay_classes() -> None:
    pairs = [
        Pair(f"{word} film", name) for word in ("good", "bad", "fine", "poor") for name in ("positive", "negative")
    ]
    for settings in ({"switchout": 1.0}, {"reverse": "both", "reverse_rate": 1.0}):
        changed = augment.learn(pairs, Data(augment=Augment(share=1.0, **settings)), Whitespace(), Label(), ())  # type: ignore[arg-type]
        assert changed is not None
        targets = {changed(pair, seed).target for pair in pairs for seed in range(20)}
        assert targets == {"positive", "negative"}


@pytest.mark.parametrize("too_long", ["skip", "error"])
def test_pairs_of_two_that_are_too_long_are_not_made(too_long: str, tmp_path: Path) -> None:
    rows = [(f"a{n} b{n} c{n} d{n} e{n} .", f"A{n} B{n} C{n} D{n} E{n} .") for n in range(60)]
    given = {"training.steps": 1, "training.threads": 1, "training.processes": 1, "model.width": 16,
             "data.source.tokenizer": "word", "data.target.tokenizer": "word", "data.source.max_length": 9,
             "data.augment.robust": True, "data.too_long": too_long}  # fmt: skip
    seen = Recorder()
    fit(rows, out=tmp_path / "run", task="translation", assignments=given, observers=[seen])
    assert any("0 pairs of two in a row" in note.text for note in seen.notes)
