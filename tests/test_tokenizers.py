"""Tokenizers give back what they were given, and cut the same way every time."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.config import Side
from antiphon.core.errors import BundleError, ConfigError
from antiphon.data.tokenizers import Subword, Tokenizer, Word, _escape, learn, load, reservoir

KINDS = ["word", "whitespace", "char", "byte", "bpe", "unigram", "chinese", "label"]
TEXTS = [
    f"the {adjective} {noun} {verb} over {number} lazy {noun}s, don't they?"
    for adjective in ("quick", "brown", "unbelievable", "smaller")
    for noun in ("fox", "dog", "walker", "talker")
    for verb in ("jumps", "walked", "talking")
    for number in (3, 14)
] + ["我们在学习机器翻译。", "这是一个小测试", "Straße über Ärger"]  # fmt: skip

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
marked = st.text(st.sampled_from("ab ▁￭\ue000\ue001\ue002.,'-\u0301\u200b\u3000我们"), max_size=20)


@cache
def tokenizer(kind: str) -> Tokenizer:
    return learn(kind, TEXTS, size=200, side=Side())


@pytest.mark.parametrize("kind", KINDS)
def test_promises(kind: str) -> None:
    made = tokenizer(kind)
    assert made.kind == kind
    assert made.exact == (kind not in ("word", "whitespace"))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=texts | marked)
def test_round_trip(kind: str, text: str) -> None:
    made = tokenizer(kind)
    tokens = made.encode(text)
    expected = text if made.exact else " ".join(text.split())
    assert made.decode(tokens) == expected
    assert all(tokens), "no token is empty"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@settings(max_examples=60, deadline=None)
@given(text=texts | marked, seed=st.integers(0, 1 << 40))
def test_sampled_cuts_mean_the_same_text(kind: str, text: str, seed: int) -> None:
    made = tokenizer(kind)
    assert made.decode(made.sample(text, 0.3, seed)) == text
    assert made.sample(text, 0.3, seed) == made.sample(text, 0.3, seed)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sampling_follows_the_seed_in_any_thread(kind: str) -> None:
    made = tokenizer(kind)
    text = TEXTS[0]
    strength = 0.5 if kind == "bpe" else 0.05
    here = [made.sample(text, strength, seed) for seed in range(40)]
    assert len({tuple(tokens) for tokens in here}) > 5
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda seed: made.sample(text, strength, seed), range(40))) == here
    made.encode(text)
    assert made.sample(text, strength, 7) == here[7]


def test_other_tokenizers_have_one_way_to_cut() -> None:
    for kind in ("word", "whitespace", "char", "byte", "chinese"):
        assert tokenizer(kind).sample(TEXTS[0], 0.5, 1) == tokenizer(kind).encode(TEXTS[0])


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_again_it_is_the_same(kind: str) -> None:
    made = tokenizer(kind)
    again = load(kind, made.files())
    assert [again.encode(text) for text in TEXTS] == [made.encode(text) for text in TEXTS]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_learning_is_deterministic(kind: str) -> None:
    assert learn(kind, TEXTS, size=200, side=Side()).files() == tokenizer(kind).files()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hi, (you)!", "Hi ￭, (￭ you ￭) ￭!"),
        ("don't stop", "don't stop"),
        ("well-known 3.14 3rd B2B", "well ￭-￭ known 3.14 3rd B2B"),
        ("a...b", "a ￭. ￭. ￭.￭ b"),
        ("snake_case", "snake ￭_￭ case"),
        ("«Où?»", "«￭ Où ￭? ￭»"),
        ("हिन्दी है।", "हिन्दी है ￭।"),
        ("می‌خواهم", "می‌خواهم"),
        ("cafe\u0301 x", "cafe\u0301 x"),
    ],
)
def test_words(text: str, tokens: str) -> None:
    assert Word().encode(text) == tokens.split(" ")
    assert Word().decode(tokens.split(" ")) == text


def test_known_cuts() -> None:
    assert tokenizer("whitespace").encode("K AE1  T\u3000x") == ["K", "AE1", "T", "x"]
    assert tokenizer("char").encode("a b") == ["a", " ", "b"]
    assert tokenizer("byte").encode("a ä") == ["a", "<0x20>", "<0xC3>", "<0xA4>"]
    assert tokenizer("byte").decode(["<0xC3>", "<unk>", "x"]) == "\ufffdx"
    assert tokenizer("chinese").encode("我们学习") == ["我们", "学习"]
    assert "▁the" in tokenizer("bpe").encode("the fox")


def test_jieba_stands_in_for_rjieba(monkeypatch: pytest.MonkeyPatch) -> None:
    class Jieba:
        @staticmethod
        def setLogLevel(level: int) -> None: ...

        @staticmethod
        def cut(text: str) -> list[str]:
            return list(text)

    monkeypatch.setitem(sys.modules, "rjieba", None)
    monkeypatch.setitem(sys.modules, "jieba", Jieba)
    assert load("chinese", {}).encode("我们") == ["我", "们"]
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(Exception, match=r"pip install 'antiphon\[chinese\]'"):
        load("chinese", {}).encode("我们")


def test_unseen_characters_stay() -> None:
    for kind in ("bpe", "unigram"):
        assert "雪" in "".join(tokenizer(kind).encode("the 雪 fox"))


def test_sizes_that_do_not_fit() -> None:
    assert learn("bpe", ["ab", "ab"], size=30_000, side=Side()).encode("ab") == ["▁ab"]
    with pytest.raises(ConfigError, match="different characters; choose a larger vocabulary"):
        learn("unigram", TEXTS, size=5, side=Side())
    with pytest.raises(ConfigError, match="cannot learn bpe pieces"):
        learn("bpe", [], size=100, side=Side())


def test_bad_files_and_kinds() -> None:
    with pytest.raises(ConfigError, match="did you mean unigram"):
        load("unigramm", {})
    with pytest.raises(BundleError, match="needs this file"):
        load("bpe", {})
    with pytest.raises(BundleError, match="not a SentencePiece model"):
        Subword("bpe", b"nonsense")


def test_damaged_subword_models_are_refused_or_work() -> None:
    model = tokenizer("bpe").files()["sentencepiece.model"]
    draw = random.Random(1)
    for _ in range(100):
        place = draw.randrange(len(model))
        try:
            Subword("bpe", model[:place] + draw.randbytes(1) + model[place + 1 :]).encode("the fox")
        except BundleError:
            continue


def test_reservoir() -> None:
    stream = [str(number) for number in range(10_000)]
    sample = reservoir(stream, 1000, seed=1)
    assert sample == reservoir(iter(stream), 1000, seed=1)
    assert len(set(sample)) == 1000
    assert 4500 < sum(map(int, sample)) / 1000 < 5500
    assert reservoir(stream, 20_000, seed=1) == stream


SAMPLED = """
from antiphon.core.config import Side
from antiphon.data.tokenizers import learn
texts = [f"the cat number {n} sat on mat {n * n} quietly" for n in range(300)]
for kind in ("bpe", "unigram"):
    cuts = learn(kind, texts, size=80, side=Side())
    print([cuts.sample(text, 0.4, seed) for seed, text in enumerate(texts[:40])])
"""


def test_subword_sampling_is_the_same_in_every_process() -> None:
    """A run that was killed goes on in another process, and must cut as the first would have."""
    found = {subprocess.run([sys.executable, "-c", SAMPLED], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_subword_sampling_varies_and_at_its_calmest_is_the_plain_cut(kind: str) -> None:
    texts = [f"the cat number {n} sat on mat {n * n} quietly" for n in range(300)]
    cuts = learn(kind, texts, size=80, side=Side())
    calm = 0.0 if kind == "bpe" else 1e6
    assert isinstance(cuts, Subword)
    for text in texts:  # as likely, since two cuts may be equally so
        likely = [sum(cuts._scores[piece] for piece in cut) for cut in (cuts.sample(text, calm, 1), cuts.encode(text))]
        assert likely[0] == pytest.approx(likely[1], abs=1e-3)
    strength = 0.5 if kind == "bpe" else 0.05
    assert len({tuple(cuts.sample(texts[7], strength, seed)) for seed in range(20)}) > (5 if kind == "bpe" else 1)
    assert {cuts.decode(cuts.sample(texts[7], strength, seed)) for seed in range(20)} == {texts[7]}


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@settings(max_examples=150, deadline=None)
@given(text=texts | marked)
def test_words_are_cut_as_the_whole_text_would_be(kind: str, text: str) -> None:
    made = tokenizer(kind)
    assert isinstance(made, Subword)
    whole = made._processor.encode(_escape(text, made.space), out_type=str)
    assert made.encode(text) == made.encode(text) == whole


def test_remembered_words_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.data.tokenizers.MOST_WORDS", 10)
    made = learn("bpe", TEXTS, size=200, side=Side())
    assert isinstance(made, Subword)
    for number in range(50):
        made.encode(f"the{number} {'long' * 50}")
    assert 0 < len(made._words) <= 10
    assert max(map(len, made._words)) <= 40


def plain_dropout(made: Subword, word: str, rate: float, draw: random.Random) -> tuple[str, ...]:
    """BPE dropout as Provilkov et al. put it: one draw for every possible merge, time and again."""
    parts = list(made.space + word)
    while True:
        merges = [(made._scores.get(a + b), -place) for place, (a, b) in enumerate(pairwise(parts))]
        kept = [(score, place) for score, place in merges if score is not None and draw.random() >= rate]
        if not kept:
            return tuple(parts)
        place = -max(kept)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_bpe_dropout_draws_from_the_plain_distribution(rate: float) -> None:
    made, draw, many = tokenizer("bpe"), random.Random(3), 4000
    assert isinstance(made, Subword)
    plain = Counter(
        (plain_dropout(made, "the", rate, draw), plain_dropout(made, "dog", rate, draw)) for _ in range(many)
    )
    joined = Counter({(*first, *second): count for (first, second), count in plain.items()})
    found = Counter(tuple(made.sample("the dog", rate, seed)) for seed in range(many))
    assert sum(abs(joined[cut] - found[cut]) for cut in joined | found) / (2 * many) < 0.06
    assert (len(found) == 1) == (rate == 1.0)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_are_counted_as_they_are_cut(kind: str) -> None:
    made = tokenizer(kind)
    assert isinstance(made, Subword)
    given = [*TEXTS, *TEXTS[:7], "", "two  blanks", " at the edges "]
    assert made.count(given) == Counter(piece for text in given for piece in made.encode(text))
