"""Metrics against the packages that define them, against published figures, and against counts made by hand."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import jiwer
import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from antiphon import metrics
from antiphon.core.errors import AntiphonError, ConfigError, DataError
from antiphon.metrics.base import Metric, Pooled
from antiphon.metrics.words import sentences, units, words

DATA = os.environ.get("ANTIPHON_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="set ANTIPHON_DATA to the folder of test corpora")
WORDS = ["the", "a", "dog", "cat", "man", "runs", "Eats", ",", ".", "über", "学", "生", "don't", "3.5", "(very)", "..."]


def additive(name: str) -> Metric:
    metric = metrics.get(name)
    assert not isinstance(metric, Pooled)
    return metric


def alone(metric: Metric, hypothesis: str, references: list[str]) -> float:
    return metric.sentence(metric.stats(hypothesis, references))


def random_corpus(seed: int, count: int = 40) -> tuple[list[str], list[list[str]]]:
    """Hypotheses that are noisy copies of their first reference, one to three references each, some empty."""
    draw = random.Random(seed)

    def sentence() -> list[str]:
        return [draw.choice(WORDS) for _ in range(draw.randint(0, 12))]

    hypotheses, references = [], []
    for _ in range(count):
        first = sentence()
        noisy = [draw.choice(WORDS) if draw.random() < 0.2 else word for word in first if draw.random() > 0.1]
        hypotheses.append(" ".join(noisy))
        references.append([" ".join(first), *(" ".join(sentence()) for _ in range(draw.randint(0, 2)))])
    return hypotheses, references


def columns(references: list[list[str]]) -> list[list[str | None]]:
    """References as sacrebleu wants them: one list a reference number, None where a sentence has no more."""
    most = max(map(len, references))
    return [[row[number] if number < len(row) else None for row in references] for number in range(most)]


def value(name: str, hypotheses: list[str], references: list[list[str]]) -> float:
    return metrics.corpus(metrics.get(name), hypotheses, references, bootstrap=0).value


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("bleu", BLEU(force=True)),
        ("bleu:lowercase", BLEU(lowercase=True, force=True)),
        ("bleu:char", BLEU(tokenize="char", force=True)),
        ("bleu:zh", BLEU(tokenize="zh", force=True)),
        ("bleu:none:lowercase", BLEU(tokenize="none", lowercase=True, force=True)),
        ("chrf", CHRF()),
        ("chrf:words", CHRF(word_order=2)),
        ("chrf:lowercase", CHRF(lowercase=True)),
        ("ter", TER()),
        ("ter:cased", TER(case_sensitive=True)),
    ],
)
def test_sacrebleu_gives_the_same_to_the_last_bit(name: str, peer: BLEU | CHRF | TER) -> None:
    for seed in range(5):
        hypotheses, references = random_corpus(seed)
        expected = peer.corpus_score(hypotheses, columns(references))  # type: ignore[arg-type]
        score = metrics.corpus(metrics.get(name), hypotheses, references, bootstrap=0)
        assert score.value == expected.score
        assert score.signature == str(peer.get_signature())


def test_sentence_bleu_is_sacrebleus_with_effective_order() -> None:
    peer = BLEU(effective_order=True)
    metric = additive("bleu")
    for hypothesis, references in zip(*random_corpus(7), strict=True):
        assert alone(metric, hypothesis, references) == peer.sentence_score(hypothesis, references).score
    assert alone(metric, "a dog", ["a dog"]) == pytest.approx(100.0)


def test_statistics_add_up() -> None:
    hypotheses, references = random_corpus(3)
    for name in set(metrics.NAMES) - set(metrics.scoring.OF_NUMBERS):
        metric = metrics.get(name)
        if isinstance(metric, Pooled):
            continue
        table = metrics.scoring.table(metric, hypotheses, references)
        assert metric.score(sum(table[1:], table[0])) == value(name, hypotheses, references)
        assert metric.score(table[0]) == pytest.approx(value(name, hypotheses[:1], references[:1]))


@needs_data
def test_published_bleu_of_tgen_on_e2e() -> None:
    hypotheses = lines(Path(DATA, "scorer_anchors", "e2e_tgen.hyp"))
    references = [json.loads(line)["refs"] for line in lines(Path(DATA, "e2e_nlg", "test.multi_ref.jsonl"))]
    assert round(value("bleu:lowercase", hypotheses, references), 2) == 65.93
    assert round(value("bleu", hypotheses, references), 2) == 62.13


@needs_data
@pytest.mark.parametrize(
    ("system", "lower", "cased"),
    [("rnn", (33.66, 57.42, 6.52), (32.85, 56.11, 6.30)), ("transformer", (32.21, 51.18, 5.99), (31.31, 49.88, 5.68))],
)
def test_known_bleu_of_webnlg_systems(system: str, lower: tuple[float, ...], cased: tuple[float, ...]) -> None:
    hypotheses = lines(Path(DATA, "scorer_anchors", f"webnlg_end2end_{system}.hyp"))
    rows = [json.loads(line) for line in lines(Path(DATA, "webnlg", "test.jsonl"))]
    for part, seen in enumerate([(True, False), (True,), (False,)]):
        chosen = [number for number, row in enumerate(rows) if row["seen"] in seen]
        found = [hypotheses[number] for number in chosen]
        references = [rows[number]["refs"] for number in chosen]
        assert round(value("bleu:lowercase", found, references), 2) == lower[part]
        assert round(value("bleu", found, references), 2) == cased[part]


@needs_data
def test_parity_on_real_text() -> None:
    """German against itself, shifted by a sentence in every fifth place."""
    target = lines(Path(DATA, "multi30k", "test_2016_flickr.de"))[:200]
    hypotheses = [target[number - 1] if number % 5 == 0 else line for number, line in enumerate(target)]
    peers = {"bleu": BLEU(), "chrf": CHRF(), "ter": TER()}
    for name, peer in peers.items():
        assert value(name, hypotheses, [[line] for line in target]) == peer.corpus_score(hypotheses, [target]).score
    assert value("wer", hypotheses, [[line] for line in target]) == pytest.approx(100 * jiwer.wer(target, hypotheses))
    assert value("cer", hypotheses, [[line] for line in target]) == pytest.approx(100 * jiwer.cer(target, hypotheses))


def test_jiwer_gives_the_same() -> None:
    for seed in range(5):
        hypotheses, references = random_corpus(seed)
        kept = [(hypothesis, refs[0]) for hypothesis, refs in zip(hypotheses, references, strict=True) if refs[0]]
        found, first = [row[0] for row in kept], [row[1] for row in kept]
        single = [[line] for line in first]
        assert value("wer", found, single) == pytest.approx(100 * jiwer.wer(first, found))
        assert value("cer", found, single) == pytest.approx(100 * jiwer.cer(first, found))
        assert value("per", found, single) == value("wer", found, single)


def test_edit_rates_take_the_nearest_reference() -> None:
    metric = additive("per")
    assert metric.stats("AH B AW T", ["AH B AW T S", "X AH B", "A"]).tolist() == [1, 5]
    assert metric.stats("A B", ["A", "A B C"]).tolist() == [1, 3]
    assert alone(metric, "A B C D", ["A B"]) == 100.0
    assert alone(metric, "A B C D E", ["A B"]) == 150.0


def test_edit_rates_of_nothing() -> None:
    metric = additive("wer")
    assert alone(metric, "", [""]) == 0.0
    assert alone(metric, "a", [""]) == 100.0
    assert alone(metric, "", ["a b"]) == 100.0


def test_exact_and_error_are_complements() -> None:
    hypotheses = ["AH B", "AH  B", "AH", "", "x"]
    references = [["AH B"], ["K", "AH B "], ["AH B"], ["AH"], ["X"]]
    assert value("exact", hypotheses, references) == 40.0
    assert value("error", hypotheses, references) == 60.0
    assert metrics.get("exact").higher_is_better
    assert not metrics.get("error").higher_is_better


def test_macro_f1_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(1)
    said, meant = (draw.choice(["yes", "no", "not  known", "may be"], 200, p=p).tolist()
                   for p in ([0.4, 0.4, 0.1, 0.1], [0.6, 0.3, 0.05, 0.05]))  # fmt: skip
    expected = sklearn.f1_score(meant, said, average="macro")
    assert value("macro_f1", said, [[each] for each in meant]) == pytest.approx(100 * expected)
    assert value("accuracy", said, [[each] for each in meant]) == value("exact", said, [[each] for each in meant])


def test_macro_f1_of_strange_answers() -> None:
    assert value("macro_f1", ["a", "b", "never seen"], [["a"], ["a", "b"], ["b"]]) == pytest.approx(
        100 * (1 + 2 / 3) / 2
    )
    assert value("macro_f1", ["x"], [["a"]]) == 0.0
    metric = additive("macro_f1")
    assert [alone(metric, answer, ["a", "b"]) for answer in ("a", "b ", "c")] == [100.0, 100.0, 0.0]


def test_macro_f1_compares_systems_over_the_same_classes() -> None:
    references = [[each] for each in ("a", "b", "a", "c") * 10]
    metric = additive("macro_f1")
    first, second = (metrics.scoring.table(metric, said, references) for said in (["a"] * 40, ["z"] * 40))
    assert first.shape == second.shape == (40, 9)


def test_token_accuracy_counts_positions() -> None:
    metric = additive("token_accuracy")
    assert metric.stats("N V N", ["N V D"]).tolist() == [2, 3]
    assert metric.stats("N V N X", ["N V N"]).tolist() == [3, 4]
    assert metric.stats("N V", ["V N", "N X"]).tolist() == [1, 2]
    assert alone(metric, "", [""]) == 100.0
    assert alone(metric, "", ["a b", ""]) == alone(metric, "", ["", "a b"]) == 100.0


@pytest.mark.parametrize("stem", [False, True])
def test_rouge_score_gives_the_same_on_english(stem: bool) -> None:
    rouge = pytest.importorskip("rouge_score.rouge_scorer")
    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    peer = rouge.RougeScorer(kinds, use_stemmer=stem)
    draw = random.Random(5)
    vocabulary = [
        "Running",
        "runs",
        "dogs,",
        "happily-living_dogs",
        "don't",
        "3.5",
        "the",
        "nations;",
        "(cats)",
        "U.S.A",
    ]
    for _ in range(30):
        texts = ["\n".join(" ".join(draw.choices(vocabulary, k=draw.randint(0, 9))) for _ in "ab") for _ in range(3)]
        expected = peer.score_multi(texts[1:], texts[0])
        for kind in kinds:
            metric = additive(kind + ":stem" if stem else kind)
            assert alone(metric, texts[0], texts[1:]) == pytest.approx(100 * expected[kind].fmeasure)


def test_rouge_reads_every_script() -> None:
    pytest.importorskip("rouge_score")
    assert alone(additive("rouge1"), "我喜欢学习", ["我喜欢睡觉"]) == pytest.approx(60.0)
    assert alone(additive("rougeL"), "привет мир", ["привет, мир!"]) == 100.0
    assert alone(additive("rouge1"), "naïve café", ["naive cafe"]) == 0.0


def test_rouge_of_whole_summaries_lets_sentences_change_places() -> None:
    pytest.importorskip("rouge_score")
    one, other = "Amy is ill. Bob buys bread!", "Bob buys bread. Amy is ill."
    assert alone(additive("rougeLsum"), one, [other]) == 100.0
    assert alone(additive("rougeL"), one, [other]) == pytest.approx(50.0)
    assert alone(additive("rougeLsum"), "她病了。他买面包！", ["他买面包。她病了。"]) == 100.0
    assert alone(additive("rougeLsum:stem"), "bread bakers", ["baker\nbread"]) == 100.0
    assert alone(additive("rougeLsum"), "", ["a"]) == 0.0


def test_sentences_end_with_marks_and_lines() -> None:
    assert sentences('"No." Then 3.5 more... "Oh!"\nend') == ['"No."', "Then 3.5 more...", '"Oh!"', "end"]
    assert sentences("你好。走吗？“好！”\n\n") == ["你好。", "走吗？", "“好！", "”"]
    assert sentences(" \n") == []


def test_words_of_many_scripts() -> None:
    assert words("Don't stop_it, U.S.") == ["don", "t", "stop", "it", "u", "s"]
    assert words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert words("ภาษาไทย 3") == ["ภ", "า", "ษ", "า", "ไ", "ท", "ย", "3"]
    assert words("กำ ที่") == ["ก", "ำ", "ที่"]
    assert words("می‌خواهم") == ["می‌خواهم"]
    assert words("用Python写") == ["用", "python", "写"]
    assert words("") == []
    assert units("Hello, world.  你好。") == ["Hello,", "world.", "你", "好", "。"]
    assert units("t͡ʃ ɛ ː") == ["t͡ʃ", "ɛ", "ː"]


def test_distinct_counts_all_outputs_together() -> None:
    outputs = ["a b a", "a b", ""]
    assert value("distinct1", outputs, [[""]] * 3) == pytest.approx(100 * 2 / 5)
    assert value("distinct2", outputs, [[""]] * 3) == pytest.approx(100 * 2 / 3)
    assert value("distinct2", ["a", "b"], [[""]] * 2) == 0.0


def test_self_bleu_equals_the_quadratic_way() -> None:
    peer = BLEU(effective_order=True)
    hypotheses, _ = random_corpus(11, 25)
    hypotheses += hypotheses[:3]
    single = [
        peer.sentence_score(each, hypotheses[:place] + hypotheses[place + 1 :]).score
        for place, each in enumerate(hypotheses)
    ]
    assert value("self_bleu", hypotheses, [[""]] * len(hypotheses)) == pytest.approx(sum(single) / len(single))
    assert value("self_bleu", ["a dog"], [[""]]) == 0.0


def test_unknown_names_are_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean bleu"):
        metrics.get("blue")
    with pytest.raises(ConfigError, match="did you mean lowercase"):
        metrics.get("bleu:lower")
    with pytest.raises(ConfigError, match="unknown option x of metric wer"):
        metrics.get("wer:x")
    with pytest.raises(ConfigError, match="one tokenizer"):
        metrics.get("bleu:zh:char")


def test_misfits_are_named() -> None:
    metric = metrics.get("wer")
    with pytest.raises(DataError, match="2 and 1"):
        metrics.corpus(metric, ["a", "b"], [["a"]])
    with pytest.raises(DataError, match="nothing to score"):
        metrics.corpus(metric, [], [])
    with pytest.raises(DataError, match="sentence 2: the sentence has no reference"):
        metrics.corpus(metric, ["a", "b"], [["a"], []])


def test_one_string_is_one_reference() -> None:
    score = metrics.corpus(metrics.get("wer"), ["a b", "c"], ["a b", "d"], bootstrap=0)
    assert score.value == pytest.approx(100 / 3)
    assert score.signature.startswith("nrefs:1|")


def test_missing_rouge_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(AntiphonError, match=r"pip install 'antiphon\[rouge\]'"):
        metrics.get("rouge1")


def test_scores_print_with_their_interval() -> None:
    assert str(metrics.Score("wer", 1.0, (0.5, 1.5), "", False)) == "wer 1.00 [0.50, 1.50]"
    assert str(metrics.Score("loss", 1.23456, None, "", False)) == "loss 1.2346"
