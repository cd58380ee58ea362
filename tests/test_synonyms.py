"""Synonyms: WordNet's main meanings, files of groups, Cilin, neighbours among vectors; and files that are none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from antiphon.core.errors import ConfigError, DataError
from antiphon.data import synonyms
from antiphon.data.corpus import Pair
from antiphon.data.tokenizers import Char, Chinese, Tokenizer
from test_augment import made, sources

CHINESE = [Pair("我喜欢快乐的人类", "a"), Pair("我喜欢高兴的生人", "b")]
GROUPS = "# a comment\nnoun\tdog\thound\tmutt\nbig, large\na the\nhouse home\nlonely\n"


def test_synonyms_from_a_file_are_those_that_training_has(tmp_path: Path) -> None:
    (tmp_path / "groups.txt").write_text(GROUPS)
    augmenter = made(synonyms=str(tmp_path / "groups.txt"), synonym_rate=0.5)
    found = Counter(sources(augmenter))
    big, dog = ("big", "large"), ("dog", "hound")
    assert set(found) == {f"the {a} {b} sees a cat ." for a in big for b in dog}
    assert all(50 < count < 100 for count in found.values())
    assert augmenter.changes["synonyms"](Pair("BIG, Dog", "x"), Random(3)).source in (
        {f"{a}, {b}" for a in ("BIG", "LARGE") for b in ("Dog", "Hound")}
    )


CILIN = "Aa01A02= 人类 生人 全人类\nAa01A03# 喜欢 快乐\nGa01A01= 快乐 高兴 欢乐 乐\nAa02A01= 我 人 的\nAa01A04@ 我\n"


@pytest.mark.parametrize("tokenizer", [Char(), Chinese()], ids=["char", "chinese"])
def test_chinese_synonyms_from_cilin(tokenizer: Tokenizer, tmp_path: Path) -> None:
    if tokenizer.kind == "chinese":
        pytest.importorskip("rjieba")
    (tmp_path / "cilin.txt").write_text(CILIN, encoding="utf-8")
    pairs = [*CHINESE, Pair("人类", "c"), Pair("生人", "d")]
    found = set(sources(made(pairs, tokenizer, synonyms=str(tmp_path / "cilin.txt"), synonym_rate=0.5), CHINESE[0]))
    assert {"我喜欢高兴的人类", "我喜欢快乐的生人"} <= found
    assert not any("全人类" in text or "欢乐" in text for text in found), "training does not have these"
    assert all(text.startswith("我喜欢") for text in found)


def test_synonyms_from_word_vectors(tmp_path: Path) -> None:
    lines = ["big 1 0.1 0", "large 1 0 0", "dog 0 1 0", "hound 0 1 0.1", "cat 0 0.1 1", "unseen 1 0 0"]
    (tmp_path / "vectors.txt").write_text("6 3\n" + "\n".join(lines) + "\n")
    found = set(sources(made(synonyms=str(tmp_path / "vectors.txt"), synonym_rate=0.5)))
    assert found == {f"the {a} {b} sees a cat ." for a in ("big", "large") for b in ("dog", "hound")}
    with pytest.raises(ConfigError, match="need words"):
        made(CHINESE, Char(), synonyms=str(tmp_path / "vectors.txt"))


SYNSETS = {
    "data.noun": "  licence\n00000100 03 n 03 dog 0 domestic_dog 0 Canis 0 000 | a dog\n"
    "00000200 03 n 02 he 0 helium 0 000 | a gas\n00000300 03 n 02 bank 0 shore 0 000 | x\n"
    "00000400 03 n 02 bank 0 till 0 000 | x\n00000500 03 n 02 dog 0 frump 0 000 | x\n"
    "00000960 10 n 02 talking 0 talk 0 000 | x\n"
    "00000950 28 n 02 May 0 springtime 0 000 | x\n",
    "data.verb": "00000600 30 v 02 bank 0 trust 0 000 | x\n00000900 04 v 02 pushing 0 push 0 000 | x\n",
    "data.adj": "00000700 00 a 02 big(a) 0 large 0 000 | x\n",
    "data.adv": "00000800 02 r 01 there 0 000 | x\n",
    "index.noun": "  licence\ndog n 2 1 @ 2 1 00000100 00000500\nmay n 1 0 1 0 00000950\n"
    "talking n 1 0 1 1 00000960\n"
    "he n 1 0 1 0 00000200\nbank n 2 0 2 2 00000300 00000400\n",
    "index.verb": "bank v 1 0 1 1 00000600\npushing v 1 0 1 0 00000900\n",
    "index.adj": "big a 1 0 1 1 00000700\nlarge a 1 0 1 1 00000700\n",
    "index.adv": "there r 1 0 1 0 00000800\n",
    "cntlist.rev": "dog%1:05:00:: 1 42\n"
    "talking%1:10:00:: 1 3\nbank%1:17:01:: 1 5\nbank%1:14:00:: 2 4\nbank%2:31:00:: 1 4\nbig%3:00:01:: 1 9\n",
}


def test_wordnet_gives_the_main_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in SYNSETS.items():
        (tmp_path / name).write_text(text)
    assert synonyms.wordnet(tmp_path) == {"big": ["large"], "large": ["big"]}
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    assert set(sources(made(synonyms="wordnet", synonym_rate=1.0))) == {"the large dog sees a cat ."}
    (tmp_path / "cntlist.rev").unlink()
    with pytest.raises(ConfigError, match="WordNet cannot be read"):
        made(synonyms="wordnet")


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"one\ntwo\n", "no group of synonyms"), (b"big large\n\xff\xfe bad\n", "groups.txt:2"),
     (b" ".join(b"w%d" % number for number in range(1500)), "1500 words"),
     (b"big 1 2 3\nlarge 1 2 x\n", "groups.txt:2"), (b"", "no group of synonyms")],
    ids=["single", "bytes", "huge", "vector", "empty"],
)  # fmt: skip
def test_a_bad_synonym_file_is_refused(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "groups.txt").write_bytes(content)
    with pytest.raises((ConfigError, DataError), match=problem):
        made(synonyms=str(tmp_path / "groups.txt"))
