"""What is wrong with pairs is found, in the lines where it is; what is right with them is left in peace."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.config import Config, Data
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.diagnosis import damage, stretches
from antiphon.diagnosis.belonging import WINDOW
from antiphon.diagnosis.characters import Characters
from antiphon.diagnosis.data import audit
from antiphon.diagnosis.findings import Audit, Finding
from antiphon.diagnosis.lexical import Association, Content
from antiphon.diagnosis.quick import quick
from antiphon.diagnosis.reading import read
from antiphon.diagnosis.repeats import Shingles, near_others, near_rows
from antiphon.diagnosis.stretches import Stretch
from antiphon.diagnosis.words import cut
from corpora import sentences, write_pairs

SOURCES, TARGETS = sentences(1500)


def found(sources: list[str], targets: list[str]) -> list[Stretch]:
    words = cut(sources), cut(targets)
    sides = Content.of(words[0]), Content.of(words[1])
    model = Association.learn(*sides, range(-WINDOW, WINDOW + 1))
    return stretches.find(sources, targets, *sides, model)


def of_kind(result: Audit, kind: str) -> Finding:
    [finding] = [finding for finding in result.findings if finding.kind == kind]
    return finding


# Misaligned


@pytest.mark.parametrize("missing", [3, 700, 1400])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_missing_line_is_found_where_it_is(missing: int, side: str) -> None:
    sides = {"source": list(SOURCES), "target": list(TARGETS)}
    sides[side].append(sides[side].pop(missing))
    [stretch] = found(sides["source"], sides["target"])
    assert stretch.offset == (-1 if side == "target" else 1)
    assert abs(stretch.start - missing) <= 3
    assert stretch.stop == len(SOURCES)


def test_several_shifts_are_told_apart() -> None:
    targets = list(TARGETS)
    del targets[300:302]
    targets[1000:1000] = ["ein Satz zuviel."] * 2
    (first,) = found(SOURCES, targets)
    assert (first.offset, abs(first.start - 300) <= 3, abs(first.stop - 1000) <= 3) == (-2, True, True)
    del targets[1200]
    found_now = found(SOURCES, [*targets, "."])
    assert [stretch.offset for stretch in found_now] == [-2, -1]


def test_a_wide_shift_and_an_unrelated_stretch() -> None:
    shifted = [*TARGETS[:500], *TARGETS[540:], *TARGETS[:40]]
    [wide] = found(SOURCES, shifted)
    assert wide.offset == -40
    assert abs(wide.start - 500) <= 20
    mixed = TARGETS[600:900]
    random.Random(2).shuffle(mixed)
    [stretch] = found(SOURCES, [*TARGETS[:600], *mixed, *TARGETS[900:]])
    assert stretch.offset is None
    assert abs(stretch.start - 600) <= 20
    assert abs(stretch.stop - 900) <= 20


def test_clean_text_noise_and_dialogues_are_no_shift() -> None:
    assert not found(SOURCES, TARGETS)
    noise = list(TARGETS)
    random.Random(1).shuffle(noise)
    assert not found(SOURCES, noise)
    assert not found(SOURCES[:-1], SOURCES[1:]), "each answer is what is answered next"
    assert not found(["a b c"] * 900, ["x y z"] * 900)


def test_the_path_pays_for_changes() -> None:
    gains = np.full((300, 1), -1.0)
    gains[100:150] = 1.0
    assert stretches._path(gains) == [0] * 100 + [1] * 50 + [0] * 150
    gains[100:150] = 0.5
    assert stretches._path(gains) == [0] * 300, "25 is less than two changes cost"


# Whole audits


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return audit(str(write_pairs(tmp_path_factory.mktemp("clean") / "a.tsv", SOURCES, TARGETS)))


def test_clean_pairs_are_let_go(clean: Audit) -> None:
    assert clean.verdict == "note"
    assert not [finding for finding in clean.findings if finding.level != "note"]
    assert clean.counts["train"]["pairs"] == 1500
    assert clean.counts["train"]["scripts"] == {"source": {"Latin": 1.0}, "target": {"Latin": 1.0}}


def twice(text: str) -> str:
    """UTF-8 taken for Windows-1252."""
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode())


def spoil(targets: list[str], sources: list[str]) -> dict[str, list[int]]:
    """Does something wrong to every tenth line; gives the kinds with the lines, from 1."""
    done: dict[str, Callable[[int], None]] = {
        "encoding: double-encoded": lambda row: targets.__setitem__(row, twice(f"Mädchen {targets[row]}")),
        "encoding: entities": lambda row: targets.__setitem__(row, targets[row] + " &amp; Co."),
        "encoding: blind": lambda row: sources.__setitem__(row, sources[row][:5] + "\u200b" + sources[row][5:]),
        "encoding: lost": lambda row: sources.__setitem__(row, sources[row][:5] + "\ufffd" + sources[row][5:]),
        "copied": lambda row: targets.__setitem__(row, sources[row]),
        "target script": lambda row: targets.__setitem__(row, "Москва стоит на своём месте"),
        "lengths": lambda row: targets.__setitem__(row, "."),
    }
    lines: dict[str, list[int]] = {}
    for number, (kind, spoiled) in enumerate(done.items()):
        for row in range(100 * number, 100 * number + 50, 10):
            spoiled(row)
            lines.setdefault(kind, []).append(row + 1)
    for row in range(800, 850, 10):
        sources[row], targets[row] = targets[row], sources[row]
        lines.setdefault("turned round", []).append(row + 1)
    for row in range(900, 950, 10):
        sources[row], targets[row] = sources[60], targets[60]
    for row in range(1000, 1100):
        sources[row], targets[row] = sources[row] + f" {row}", targets[row] + f" {row + (row % 20 == 0)}"
    lines["numbers"] = list(range(1001, 1101, 20))
    return lines


def test_every_kind_of_wrong_line_is_found_where_it_is(tmp_path: Path) -> None:
    sources, targets = list(SOURCES), list(TARGETS)
    lines = spoil(targets, sources)
    result = audit(str(write_pairs(tmp_path / "a.tsv", sources, targets)))
    for kind, wanted in lines.items():
        assert set(of_kind(result, kind).lines) >= set(wanted), kind
        assert len(of_kind(result, kind).lines) <= len(wanted) + 4, kind
    assert set(range(901, 951, 10)) <= set(of_kind(result, "duplicate pairs").lines)
    for finding in result.findings:
        assert finding.symptom
        assert finding.cost
        assert finding.cure
        assert len(finding.examples) <= 3
    assert json.loads(json.dumps(result.to_dict()))["verdict"] == "go", "few are wrong"


def test_noise_is_estimated(tmp_path: Path) -> None:
    sources, targets = sentences(3000, seed=4)
    rows = random.Random(1).sample(range(3000), 300)
    moved = [targets[row] for row in rows[1:] + rows[:1]]
    for row, target in zip(rows, moved, strict=True):
        targets[row] = target
    finding = of_kind(audit(str(write_pairs(tmp_path / "a.tsv", sources, targets))), "noise")
    assert 0.06 < float(finding.figures["noise"]) < 0.13
    right = len(set(finding.lines) & {row + 1 for row in rows})
    assert right > 0.9 * len(finding.lines) > 100


def test_what_a_test_shares_with_training(tmp_path: Path) -> None:
    train = write_pairs(tmp_path / "train.tsv", SOURCES, TARGETS)
    sources, targets = sentences(200, seed=9)
    sources[:10], targets[:5] = SOURCES[100:110], TARGETS[100:105]
    long = [row for row, source in enumerate(SOURCES) if len(source.split()) > 11][:5]
    sources[20:25] = [SOURCES[row].rstrip(".") + " tuvesa" for row in long]
    other = [text.lower().replace(".", " .") for text in targets]
    result = audit(str(train), test=str(write_pairs(tmp_path / "test.tsv", sources, other)))
    finding = of_kind(result, "test in training")
    assert (finding.figures["sources"], finding.level, finding.lines) == (10, "care", tuple(range(1, 11)))
    assert sorted(finding.rows) == list(range(100, 110)), "the lines of training, which --fix leaves out"
    assert of_kind(result, "test nearly in training").lines == tuple(range(21, 26))
    assert [finding.symptom for finding in result.findings if finding.kind == "written otherwise"]
    half = write_pairs(tmp_path / "half.tsv", SOURCES[:100], TARGETS[:100])
    assert audit(str(train), valid=str(half)).verdict == "stop"


def test_classes_with_two_names_for_one_text(tmp_path: Path) -> None:
    labels = ["good" if row % 2 else "bad" for row in range(600)]
    sources = [*SOURCES[:300], *SOURCES[:300]]
    result = audit(str(write_pairs(tmp_path / "a.tsv", sources, [*labels[:300], *labels[1:301]])))
    assert of_kind(result, "many targets").level == "care"


def test_long_texts_and_settings(tmp_path: Path) -> None:
    sources = [*SOURCES[:299], " ".join(SOURCES[:60])]
    path = str(write_pairs(tmp_path / "a.tsv", sources, TARGETS[:300]))
    finding = of_kind(audit(path, override(Config(), {"data.source.max_length": "100"})), "long sources")
    assert finding.lines == (300,)
    assert "data.source.max_length=" in finding.cure


# Reading


def test_every_line_that_is_no_pair_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    lines = [b"source\ttarget", *[f"{a}\t{b}".encode() for a, b in zip(SOURCES[:20], TARGETS[:20], strict=True)]]
    lines[3:3] = [b"\tx", b"x\t ", b"one", b"a\xff\tb", b"", b"a\0\tb"]
    path.write_bytes(b"\n".join(lines) + b"\n")
    texts = read(str(path), Data())
    assert texts.lines.tolist() == [2, 3, *range(10, 28)]
    assert texts.odd == {
        "source is empty": [4], "target is empty": [5], "has another number of columns than the first line": [6],
        "is not valid UTF-8": [7], "blank line skipped": [8], "holds a NUL character": [9],
    }  # fmt: skip
    assert audit(str(path)).verdict == "stop", "more than a tenth of a kind"


def test_parallel_files_of_other_lengths(tmp_path: Path) -> None:
    sides = tmp_path / "a.en", tmp_path / "a.de"
    for path, texts in zip(sides, (SOURCES, TARGETS[:900] + TARGETS[901:]), strict=True):
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    result = audit(",".join(map(str, sides)))
    assert result.verdict == "stop"
    assert dict(of_kind(result, "line counts").figures) == {"source lines": 1500, "target lines": 1499}
    figures = of_kind(result, "misaligned").figures
    assert abs(int(figures["first line"]) - 901) <= 3
    assert figures["last line"] == 1499


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    numbers = tmp_path / "a.tsv"
    numbers.write_text("".join(f"{n}.5 {n}.25 1.5\t{n}.75 2.5\n" for n in range(30)))
    with pytest.raises(ConfigError, match="for texts"):
        audit(str(numbers))
    empty = tmp_path / "b.tsv"
    empty.write_text("\t\n\t\n")
    with pytest.raises(DataError, match="no pair in it"):
        audit(str(empty))


# Parts


@given(st.text(st.sampled_from("äößéñçžœłαβγωЖдюя€“”—中文語あ한🙂")))
def test_double_encoding_is_undone(text: str) -> None:
    assert damage.without_double_encoding(twice(text)) == text


@pytest.mark.parametrize("text", ["Mädchen", "Ãrsted à la carte", "français élève", "Straße 5 °C", "R&B", "a & b;"])
def test_what_is_right_is_not_repaired(text: str) -> None:
    assert damage.repaired(text, frozenset(damage.REPAIRS)) == text


def test_scripts_are_those_of_unicode() -> None:
    side = Characters.of(["Hallo Welt", "Привет мир", "日本語 です", "12 !?"])
    shares = side.main_scripts()
    letters = sum(character.isalpha() for character in "Hallo WeltПривет мир日本語 です")
    assert shares == {"LATIN": 9 / letters, "CYRILLIC": 9 / letters, "CJK": 3 / letters, "HIRAGANA": 2 / letters}
    assert unicodedata.name("語").startswith("CJK")


def test_near_duplicates_are_counted_exactly() -> None:
    texts = [source for source in SOURCES if len(source.split()) >= 10][:100]
    again = [text.rstrip(".") + " bado" for text in texts[:20]]
    words = cut([*texts, *again])
    near = near_rows(Shingles.of(words))
    assert {row: before for row, before in near.items() if row >= 100} == {100 + row: row for row in range(20)}
    index = dict(words.index)
    others = near_others(Shingles.of(cut(again, index)), Shingles.of(cut(texts, index)))
    assert others == {row: row for row in range(20)}


def test_the_quick_part_says_what_matters_alone() -> None:
    from antiphon.data.columns import Pair

    pairs = [Pair(source, target) for source, target in zip(SOURCES, TARGETS, strict=True)]
    assert quick(pairs) == []
    assert quick([]) == []
    copies = [Pair(pair.source, pair.source) if row % 20 == 0 else pair for row, pair in enumerate(pairs)]
    assert quick(copies) == ["about 5.0% of the targets are copies of their source"]
    turns = [f"{'and ' * (row * 7 % 23)}so on, {row}" for row in range(1500)]
    assert quick([Pair(*each) for each in zip(turns[1:], turns, strict=False)])[0].startswith("from about pair 4 on")
    talk = [Pair(f"{old} / {new}", answer) for old, new, answer in zip(turns, turns[1:], turns[2:], strict=False)]
    assert quick(talk) == []
    damaged = [Pair(pair.source, f"MÃ¤dchen \ufffd &amp; {pair.target}") for pair in copies]
    assert len(quick(damaged)) == 2


def test_a_column_that_no_model_reads_hides_nothing(tmp_path: Path) -> None:
    for name, start in (("train", 0), ("test", 5000)):
        rows = "".join(f"{a}\t{b}\t{start + n}\n" for n, (a, b) in enumerate(zip(SOURCES, TARGETS, strict=True)))
        (tmp_path / f"{name}.tsv").write_text(f"source\ttarget\tid\n{rows}")
    files = str(tmp_path / "train.tsv"), str(tmp_path / "test.tsv")
    assert of_kind(audit(files[0], test=files[1]), "test in training").figures["sources"] == len(set(SOURCES))
    read = override(Config(), {"data.context": ("id",)})
    assert not [each for each in audit(files[0], read, test=files[1]).findings if each.kind == "test in training"]
