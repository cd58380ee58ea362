"""Evaluation and comparison, with a predictor whose answers are known beforehand."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from antiphon import metrics
from antiphon.cli.models import scored_pairs
from antiphon.core.batch import EOS, Batch
from antiphon.core.config import Config, Decoder, Decoding, Encoder, Model
from antiphon.core.errors import DataError
from antiphon.core.keys import override
from antiphon.data.batching import Example, collate
from antiphon.data.corpus import Pair, Report
from antiphon.data.facts import Finder
from antiphon.data.modalities import TooLong
from antiphon.inference.breakdown import best_answers, by_frequency, by_length, worst_answers
from antiphon.inference.bundle import Bundle
from antiphon.inference.evaluate import Evaluation, compare, evaluate, suitable
from antiphon.inference.forced import teacher_forced
from antiphon.inference.predictor import Predictor
from antiphon.inference.task import Task
from antiphon.models.seq2seq import Seq2Seq, build


def model(seed: int = 1, head: str = "vocabulary", size: int = 30) -> Seq2Seq:
    config = Model(
        encoder=Encoder(kind="gru", layers=1), decoder=Decoder(kind="gru", layers=1), width=16, feedforward=0,
        heads=2, attention="dot", positions="none", norm="none", activation="tanh", residual=False, tie="none",
        head=head, dropout=0.3,
    )  # fmt: skip
    return build(config, size, size, seed=seed)


@dataclass(frozen=True)
class FakeAnswer:
    text: str
    source_tokens: Sequence[str]
    probability: float = 0.5
    confidence: float | None = None
    abstained: bool = False
    forecast: None = None


class FakeTask:
    """Every letter is a token."""

    knowledge, find, entities = "none", Finder(), None

    def ids(self, text: str) -> list[int]:
        return [4 + ord(letter) % 26 for letter in text] + [EOS]

    def encode(self, pair: Pair, *, report: Report | None = None) -> Example:
        if len(pair.target) > 20:
            error = TooLong("target is longer than max_length=20")
            error.skip = True
            raise error
        return Example(self.ids(pair.source), self.ids(pair.target))

    def batch(self, pairs: Sequence[Pair]) -> Batch:
        return collate([self.encode(pair) for pair in pairs])


class FakePredictor:
    """Says what it was told to say."""

    calibration = None

    def __init__(self, says: dict[str, str], models: Sequence[Seq2Seq] = ()) -> None:
        self.says, self.models, self.task = says, list(models), FakeTask()
        self.settings: list[Decoding | None] = []
        self.config, self.report = Config(), Report()

    def predict(self, inputs: Iterable[Pair], *, settings: Decoding | None = None) -> Iterator[list[FakeAnswer]]:
        self.settings.append(settings)
        self.report = Report()
        self.report.add("empty input, answered with nothing", "input 1")
        for pair in inputs:
            yield [FakeAnswer(self.says[pair.source], list(pair.source)), FakeAnswer("second best", [])]


PAIRS = [
    Pair("a", "A", ("A",)),
    Pair("bb", "B B", ("B B", "B")),
    Pair("ccc", "C D E", ("C D E",)),
    Pair("dddd", "D D D D", ("D D D D",)),
    Pair("eeeee", "E A", ("E A",)),
    Pair("ffffff", "F A B", ("F A B",)),
    Pair("ggggggg", "G", ("G",)),
    Pair("hhhhhhhh", "H H", ("H H",)),
]
RIGHT = {pair.source: pair.target for pair in PAIRS}
WRONG = RIGHT | {"bb": "B", "ccc": "C X E", "hhhhhhhh": "nothing of it", "ggggggg": "G G"}


@pytest.fixture
def found() -> Evaluation:
    return evaluate(FakePredictor(WRONG, [model()]), PAIRS, ["exact", "per", "distinct1"], bootstrap=100)


def test_scores_are_those_of_the_answers(found: Evaluation) -> None:
    assert list(found.scores) == ["loss", "perplexity", "forced_accuracy", "exact", "per", "distinct1"]
    assert found.scores["exact"].value == pytest.approx(100 * 5 / 8)
    assert found.scores["per"].value == pytest.approx(100 * 5 / 17)
    assert found.scores["exact"].interval is not None
    assert found.scores["per"].signature.startswith("nrefs:var|bs:100|seed:1|")
    assert found.answers == [WRONG[pair.source] for pair in PAIRS]


def test_loss_is_the_models_own_over_every_reference(found: Evaluation) -> None:
    network = model().eval()
    spread = [Pair(pair.source, reference) for pair in PAIRS for reference in pair.references]
    with torch.no_grad():
        loss = network.loss(FakeTask().batch(spread))
    expected = float(loss.total) / loss.count
    assert loss.count == sum(len(pair.target) + 1 for pair in spread)
    assert found.scores["loss"].value == pytest.approx(expected, rel=1e-5)
    assert found.scores["perplexity"].value == pytest.approx(math.exp(expected), rel=1e-5)


def test_buckets_hold_every_sentence_once(found: Evaluation) -> None:
    assert [bucket.label for bucket in found.by_length] == ["1-2 tokens", "3-4 tokens", "5-6 tokens", "7-8 tokens"]
    assert [bucket.count for bucket in found.by_length] == [2, 2, 2, 2]
    assert [bucket.scores["exact"] for bucket in found.by_length] == [100.0, 50.0, 100.0, 0.0]
    assert all("distinct1" not in bucket.scores for bucket in found.by_length)


def test_equal_lengths_make_one_bucket() -> None:
    pairs = [Pair(source, "x") for source in "abcd"]
    found = evaluate(FakePredictor(dict.fromkeys("abcd", "x")), pairs, ["exact"], bootstrap=0)
    assert [(bucket.label, bucket.count) for bucket in found.by_length] == [("1 tokens", 4)]


@pytest.mark.parametrize(
    ("counts", "labels"),
    [
        ({1: 9, 2: 90, 3: 301}, ["1-2 tokens", "3 tokens"]),
        ({1: 301, 2: 90, 3: 9}, ["1 tokens", "2-3 tokens"]),
        ({5: 10, 6: 10, 7: 10, 8: 10, 9: 1}, ["5 tokens", "6 tokens", "7 tokens", "8-9 tokens"]),
    ],
)
def test_skewed_lengths_are_cut_near_quarters(counts: dict[int, int], labels: list[str]) -> None:
    lengths = [length for length, count in counts.items() for _ in range(count)]
    buckets = by_length([], {}, lengths)
    assert [bucket.label for bucket in buckets] == labels
    assert sum(bucket.count for bucket in buckets) == len(lengths)


def test_words_are_counted_by_frequency() -> None:
    answers, references = ["the cat sat", "the the dog"], [("the cat ran", "no"), ("the dog",)]
    buckets = {bucket.label: bucket for bucket in by_frequency(answers, references, {"the": 50, "cat": 1, "dog": 4})}
    assert list(buckets) == ["0 times", "1 times", "2-4 times", "10-99 times"]
    assert buckets["10-99 times"].count == 2
    assert buckets["10-99 times"].scores["precision"] == pytest.approx(100 * 2 / 3)
    assert buckets["10-99 times"].scores["recall"] == 100.0
    assert buckets["0 times"].scores == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert buckets["2-4 times"].scores["f1"] == 100.0
    counted = by_frequency(answers, references, None)
    assert [bucket.label for bucket in counted] == ["0 times", "1 times", "2-4 times"]


def test_worst_answers_come_first(found: Evaluation) -> None:
    assert [example.number for example in found.worst[:3]] == [8, 7, 3]
    assert found.worst[0].answer == "nothing of it"
    assert found.worst[0].score == 0.0
    assert found.worst[-1].score == 100.0


def test_decoding_settings_reach_the_predictor() -> None:
    predictor, settings = FakePredictor(RIGHT), Decoding(beam=3)
    found = evaluate(predictor, PAIRS, ["exact"], decoding=settings, bootstrap=0)
    assert predictor.settings == [settings]
    assert found.decoding["beam"] == 3
    assert evaluate(predictor, PAIRS, ["exact"], bootstrap=0).decoding["beam"] is None


def test_an_ensemble_has_no_loss() -> None:
    found = evaluate(FakePredictor(RIGHT, [model(1), model(2)]), PAIRS, ["exact"], bootstrap=0)
    assert list(found.scores) == ["exact"]


def test_json_is_json_and_lines_are_lines(found: Evaluation) -> None:
    endless = replace(found.scores["loss"], value=math.inf)
    values = json.loads(replace(found, scores=found.scores | {"loss": endless}).to_json({"model": "run"}))
    assert values["model"] == "run"
    assert values["sentences"] == 8
    assert values["scores"]["exact"]["value"] == 62.5
    assert values["scores"]["loss"]["value"] is None
    assert values["worst"][0]["references"] == ["H H"]
    assert len(values["data"]) == 64
    text = "\n".join(found.lines())
    assert "exact 62.50 [" in text
    assert "nothing of it" in text
    assert "by frequency in these references" in text


def test_what_was_odd_is_told() -> None:
    long = Pair("iiiiiiiii", "I " * 15)
    predictor = FakePredictor(RIGHT | {"iiiiiiiii": "I"}, [model()])
    found = evaluate(predictor, [*PAIRS, long], ["exact"], bootstrap=0)
    assert found.notes[0] == "1 x empty input, answered with nothing (input 1)"
    assert found.notes[1].startswith("1 x left out of the loss: target is longer than max_length=20")
    assert found.scores["loss"] == evaluate(predictor, PAIRS, ["exact"], bootstrap=0).scores["loss"]
    assert found.notes[0] in found.lines()


def test_where_all_is_too_long_there_is_no_loss() -> None:
    long = [Pair(f"{'i' * count}", "I " * 15) for count in (9, 10, 11)]
    for pairs in (long[:1], [*long, PAIRS[0]]):  # a resample of few may have nothing but these
        predictor = FakePredictor({pair.source: "I" for pair in pairs}, [model()])
        found = evaluate(predictor, pairs, ["exact"], bootstrap=200)
        assert ("loss" in found.scores) == (len(pairs) > 1)
        assert all(math.isfinite(end) for score in found.scores.values() for end in score.interval or ())
        assert {each.name for each in compare(found, found)} == set(found.scores)


def test_what_has_no_score_is_neither_the_worst_nor_the_best() -> None:
    tables = {"exact": np.array([[1.0, 1.0], [math.nan, 1.0], [0.0, 1.0]])}
    pairs = [Pair(text, text) for text in "abc"]
    told = worst_answers([metrics.get("exact")], tables, pairs, list("abx"), [("a",), ("b",), ("c",)])
    assert [each.number for each in told] == [3, 1]
    assert [each.number for each in best_answers([metrics.get("exact")], tables, pairs, list("abx"))] == [1, 3]


def test_metrics_that_suit_the_task() -> None:
    assert suitable(Config(), [["abc"]], "a") == ["exact", "error", "per", "cer"]
    config = override(Config(task="translation"), {"training.metric": "ter"})
    assert suitable(config, [["guten Tag"]], "a") == ["ter", "bleu", "chrf"]
    assert suitable(config, [["你好, world"]], "a") == ["ter", "bleu:zh", "chrf"]
    assert suitable(config, [*[["guten Tag"]] * 2000, *[["你好"]] * 500], "a") == ["ter", "bleu", "bleu:zh", "chrf"]
    assert suitable(override(config, {"training.metric": "loss"}), [["x"]], "a") == ["bleu", "chrf"]
    found = evaluate(FakePredictor(RIGHT), PAIRS, bootstrap=0)
    assert list(found.scores) == ["exact", "error", "per", "cer"]


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate(FakePredictor({}), [], ["exact"])
    with pytest.raises(DataError, match="0 target tokens"):
        teacher_forced(model(), [])


def test_a_system_equals_itself(found: Evaluation) -> None:
    results = compare(found, found)
    assert [result.name for result in results] == list(found.scores)
    assert all(result.difference == 0 and not result.significant for result in results)


def test_the_better_system_is_found() -> None:
    pairs = [Pair(f"{number:03}", "x y") for number in range(100)]
    bad = {pair.source: "x y" if int(pair.source) % 2 else "x" for pair in pairs}
    good = {pair.source: "x y" for pair in pairs}
    names = ["exact", "wer", "distinct1"]
    first, second = (evaluate(FakePredictor(says, [model()]), pairs, names) for says in (bad, good))
    results = {result.name: result for result in compare(first, second)}
    assert list(results) == ["loss", "perplexity", "forced_accuracy", "exact", "wer", "distinct1"]
    assert results["exact"].difference == 50.0
    assert results["exact"].significant
    assert results["wer"].difference == -25.0
    assert results["wer"].wins == 1.0
    assert not results["loss"].significant


def test_losses_over_other_tokens_are_not_compared(found: Evaluation) -> None:
    other = replace(found, tables=found.tables | {"": found.tables[""] + [[0, 1, 0]]})
    assert [result.name for result in compare(found, other)] == ["exact", "per", "distinct1"]


def test_different_data_cannot_be_compared(found: Evaluation) -> None:
    other = evaluate(FakePredictor(RIGHT), PAIRS[:4], ["exact"], bootstrap=0)
    with pytest.raises(DataError, match="different pairs"):
        compare(found, other)


@pytest.mark.parametrize("head", ["vocabulary", "copy"])
def test_teacher_forcing_is_exact_over_uneven_batches(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, task = model(head=head), FakeTask()
    pairs = [Pair("abcd"[: 1 + row % 4], "wxyzuv"[: row % 6]) for row in range(20)]

    def batch(chosen: Sequence[Pair]) -> Batch:
        made = task.batch(chosen)
        return replace(made, context={"copy": made.source}) if head == "copy" else made

    network.train()
    forced = teacher_forced(network, [batch(pairs[:3]), batch(pairs[3:])])
    assert network.training
    network.eval()
    with torch.no_grad():
        loss = network.loss(batch(pairs))
        steps, memory = network(batch(pairs))
        said = network.log_probs(steps, memory).argmax(2)
    right = (said == batch(pairs).labels_BT) & batch(pairs).target.mask_BL
    assert forced.loss == pytest.approx(float(loss.total) / loss.count, rel=1e-5)
    assert forced.perplexity == pytest.approx(math.exp(forced.loss))
    assert forced.token_accuracy == pytest.approx(100 * int(right.sum()) / loss.count)
    monkeypatch.setattr("antiphon.inference.forced.LOGITS", 500)
    assert np.allclose(teacher_forced(network, [batch(pairs)]), forced, rtol=1e-5)


def test_likelihoods_stay_with_their_sentences() -> None:
    predictor = FakePredictor(RIGHT, [model()])
    forward, back = (evaluate(predictor, pairs, ["exact"], bootstrap=0) for pairs in (PAIRS, PAIRS[::-1]))
    single = [pair for pair in PAIRS if len(pair.references) == 1]
    for pair in single:
        row = [each for whole in PAIRS for each in [whole] * len(whole.references)].index(pair)
        mirrored = [each for whole in PAIRS[::-1] for each in [whole] * len(whole.references)].index(pair)
        assert forward.tables[""][row, 1] == len(pair.target) + 1
        assert np.allclose(forward.tables[""][row], back.tables[""][mirrored], rtol=1e-4)


def real(seed: int, head: str = "vocabulary", source_length: int | None = None, too_long: str = "skip") -> Predictor:
    """A predictor of the package, untrained."""
    settings = {
        "data.source.tokenizer": "char", "data.target.tokenizer": "whitespace", "model.head": head,
        "data.source.max_length": source_length, "data.too_long": too_long, "decoding.beam": 2,
    }  # fmt: skip
    config = override(Config(), settings)
    task = Task.learn(PAIRS, config)
    sizes = len(task.source.vocabulary), len(task.target.vocabulary)
    network = build(replace(model(head=head).config, width=16), *sizes, seed=seed)
    return Predictor(Bundle(network, task, replace(config, model=network.config), {}, Path()))


@pytest.mark.parametrize("head", ["vocabulary", "copy"])
def test_with_the_predictor_of_the_package(head: str) -> None:
    first, second = (evaluate(real(seed, head), PAIRS, bootstrap=50) for seed in (1, 2))
    predictor = real(1, head)
    assert first.answers == [answers[0].text for answers in predictor.predict(PAIRS)]
    spread = [Pair(pair.source, reference) for pair in PAIRS for reference in pair.references]
    forced = teacher_forced(predictor.models[0], [predictor.task.batch(spread)])
    assert first.scores["loss"].value == pytest.approx(forced.loss, rel=1e-5)
    assert [bucket.label for bucket in first.by_length] == ["1-2 tokens", "3-4 tokens", "5-6 tokens", "7-8 tokens"]
    assert [result.name for result in compare(first, second)] == list(first.scores)
    assert json.loads(first.to_json())["decoding"]["beam"] == 2


def test_what_is_odd_in_a_source_is_told_once() -> None:
    cut = sum(len(pair.source) > 5 for pair in PAIRS)
    found = evaluate(real(1, source_length=6, too_long="truncate"), PAIRS, ["exact"], bootstrap=0)
    [note] = [note for note in found.notes if "source cut to max_length=6" in note]
    assert note.startswith(f"{cut} x "), "for the answers, not for the loss of each reference again"


def test_sources_that_are_too_long_are_told() -> None:
    found = evaluate(real(1, source_length=8), PAIRS, ["exact"], bootstrap=0)
    assert any("not answered: source is longer than max_length=8" in note for note in found.notes)
    assert any("left out of the loss" in note for note in found.notes)
    assert found.answers[-1] == ""


def test_lengths_of_few_sources_make_no_empty_bucket() -> None:
    for lengths in itertools.product([1, 3, 6, 9, 12], repeat=5):
        assert sum(bucket.count for bucket in by_length([], {}, lengths)) == 5


def test_columns_to_compare_by_are_read_where_training_chose_others(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\tlabel\tdomain\na b\tx\tlaw\n")
    config = override(Config(), {"data.columns": ("text", "label")})
    [pair] = scored_pairs(str(tmp_path / "a.tsv"), config, more=["domain"])
    assert pair.context == {"domain": "law"}
    assert scored_pairs(str(tmp_path / "a.tsv"), config)[0].context == {}
