"""Candidates in another order: minimum Bayes risk, and a backward model against dull answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon import metrics
from antiphon.__main__ import main
from antiphon.core.batch import pad
from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override
from antiphon.data.corpus import Pair
from antiphon.inference import predictor as predicting
from antiphon.inference import rerank
from antiphon.inference.bundle import Bundle, save
from antiphon.inference.constraints import Constraint
from antiphon.inference.helpers import possible
from antiphon.inference.predictor import Answer, Predictor
from antiphon.inference.rerank import Candidates, Mutual, Ranked, Risk
from antiphon.inference.risk import expected, utilities, utility
from antiphon.inference.search import Hypothesis, rescore
from antiphon.models.seq2seq import build
from antiphon.training.validation import Validator
from test_predictor import make, said, texts

FAMILIES = ["rnn", "lstm", "gru", "conv", "transformer", "ssru"]
DRAWS: dict[str, Any] = {"sample": True, "risk": "wer", "samples": 8, "n_best": 3}


def backward_model(kind: str = "gru", *, seed: int = 7, **data: Any) -> Bundle:
    """Reads words and writes characters: the other way round than the models of `make`."""
    sides = {"source": {"tokenizer": "whitespace"}, "target": {"tokenizer": "char"}} | data
    return make(kind if kind != "ssru" else "gru", kind, seed=seed, **sides)


def hypothesis(tokens: list[int], score: float, *, finished: bool = True) -> Hypothesis:
    return Hypothesis(tokens, score, [score] * (len(tokens) + 1), np.zeros((len(tokens) + 1, 2), np.float32), finished)


# Minimum Bayes risk


def test_utilities_by_hand() -> None:
    """Word error rate: edits by the length of what is right, which is the column."""
    table = utilities(utility("wer"), ["a b", "a c", "a b c d"])
    np.testing.assert_allclose(table, [[0, 50, 50], [50, 0, 50], [100, 100, 0]])
    assert expected(utility("wer"), ["a b", "a c", "a b c d"]) == pytest.approx([100 / 3, 100 / 3, 200 / 3])
    assert expected(utility("wer"), ["a b", "a c", "a c"]) == pytest.approx([100 / 3, 50 / 3, 50 / 3])
    assert expected(utility("exact"), ["x", "y", "y", "z"]) == [25, 50, 50, 25]


@pytest.mark.parametrize(
    "name", sorted(set(metrics.NAMES) - {"distinct1", "distinct2", "self_bleu", *metrics.scoring.OF_NUMBERS})
)
def test_every_metric_of_sentences_prefers_the_middle(name: str) -> None:
    found = ["the cat sat on the mat", "the cat sat on the mat", "", "a dog ran off"]
    metric = utility(name)
    values = expected(metric, found)
    assert values[0] == values[1]
    best = max(values) if metric.higher_is_better else min(values)
    assert values[0] == best
    assert values.count(best) == 2


def test_ties_go_to_the_score_then_to_what_came_first() -> None:
    found = [hypothesis([4], -3.0), hypothesis([5], -1.0), hypothesis([6], -2.0), hypothesis([7], -2.0)]
    words = ["d", "e", "f", "g"]
    [(ranked, close)] = Risk(Decoding(risk="exact", n_best=4, beam=4)).rank([Candidates(Pair("s", ""), found, words)])
    assert [each.tokens for each in ranked] == [[5], [6], [7], [4]]
    assert [each.utility for each in ranked] == [25] * 4
    assert close
    [(_, close)] = Risk(Decoding(risk="exact", n_best=1, beam=4)).rank([Candidates(Pair("s", ""), found, words)])
    assert not close


def test_utility_goes_before_score_and_finished_before_utility() -> None:
    found = [hypothesis([4], -1.0), hypothesis([5, 6], -9.0), hypothesis([5, 7], -8.0), hypothesis([5], -5.0)]
    found.append(hypothesis([5], -2.0, finished=False))
    words = ["a", "b c", "b d", "b", "b"]
    for metric in ("chrf", "token_accuracy"):
        rank = Risk(Decoding(risk=metric, n_best=5, beam=5)).rank
        [(ranked, close)] = rank([Candidates(Pair("s", ""), found, words)])
        assert ranked[0].tokens == [5]
        assert not ranked[-1].finished
        assert ranked[-1].utility == ranked[0].utility
        assert (ranked[-2].tokens, ranked[-2].score) == ([4], -1.0)
        assert not close


def test_identical_candidates_are_one_answer() -> None:
    found = [hypothesis([4, 5], -1.0)] * 6
    [(ranked, close)] = Risk(Decoding(risk="chrf", n_best=3)).rank([Candidates(Pair("s", ""), found, ["a b"] * 6)])
    assert ranked == [Ranked(**vars(found[0]), utility=100.0)]
    assert not close


@pytest.mark.parametrize("decoder", FAMILIES)
@pytest.mark.parametrize("settings", [DRAWS, {"risk": "chrf", "beam": 6, "n_best": 2}], ids=["draws", "beam"])
def test_the_answer_has_the_highest_utility_of_the_candidates(decoder: str, settings: dict[str, Any]) -> None:
    encoder = "gru" if decoder == "ssru" else decoder
    chosen, predictor = Decoding(min_length=3, **settings), Predictor(make(encoder, decoder))
    metric = utility(chosen.risk)
    every = replace(chosen, risk="", n_best=rerank.pool(chosen))
    moved = 0
    for mine, found in zip(
        predictor.predict(texts(16), settings=chosen), predictor.predict(texts(16), settings=every), strict=True
    ):
        values = expected(metric, [answer.text for answer in found])
        best = max(values) if metric.higher_is_better else min(values)
        if all(answer.finished for answer in found):
            assert mine[0].utility == best
        moved += mine[0].tokens != found[0].tokens
        for answer in mine:
            [same, *_] = [
                other for other in found if (other.tokens, other.finished) == (answer.tokens, answer.finished)
            ]
            assert answer.score == pytest.approx(same.score, abs=1e-5)
            assert answer.alignment == same.alignment
            assert answer.utility == values[found.index(same)]
        assert len({tuple(answer.tokens) for answer in mine}) == len(mine)
    assert moved


@pytest.mark.parametrize(
    "settings", [DRAWS, {"risk": "exact", "beam": 6, "groups": 3, "n_best": 4}, {"risk": "bleu"}], ids=str
)
def test_risk_does_not_depend_on_the_batch(settings: dict[str, Any]) -> None:
    check_batches(Predictor(make("transformer"), processes=1), Decoding(min_length=2, max_length=9, **settings))


def check_batches(predictor: Predictor, settings: Decoding) -> None:
    inputs = texts(9)
    expected = said(list(predictor.predict(inputs, settings=settings, batch_size=1)))
    assert len({tuple(mine[0]) for mine in expected}) > 1
    assert said(list(predictor.predict(inputs, settings=settings, batch_size=9))) == expected
    assert said(list(predictor.predict(inputs, settings=settings, batch_size=4, window=5))) == expected
    if not settings.sample:  # draws depend on the number of the line
        order = np.random.default_rng(1).permutation(9)
        shuffled = said(list(predictor.predict([inputs[n] for n in order], settings=settings)))
        assert shuffled == [expected[n] for n in order]


def test_risk_follows_the_seed() -> None:
    predictor, inputs = Predictor(make()), texts(20)
    first, again, other = (
        said(list(predictor.predict(inputs, settings=Decoding(**DRAWS, seed=seed)))) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.skipif(not possible(), reason="processes cannot be copied here")
@pytest.mark.parametrize("settings", [Decoding(**DRAWS), Decoding(beam=4, n_best=2)], ids=["risk", "backward"])
def test_many_processes_rank_as_one_does(settings: Decoding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "SHARE", 4)
    inputs, side = texts(40), {"tokenizer": "whitespace", "max_length": 3}
    backward = None if settings.risk else backward_model(source=side)
    one, two = (Predictor(make("transformer"), backward=backward, processes=number) for number in (1, 2))
    assert said(list(one.predict(inputs, settings=settings))) == said(list(two.predict(inputs, settings=settings)))
    assert two._helpers(40) == 2
    assert one.report.counts.keys() == two.report.counts.keys()


def test_a_near_tie_is_ranked_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that differ with the batch, as much as float error would make them: the tokens do not."""
    exact = Predictor._search

    def noisy(self: Predictor, jobs: Any, *how: Any) -> list[list[Hypothesis]]:
        found = exact(self, jobs, *how)
        draw = np.random.default_rng(len(jobs))
        error = 1e-6 if len(jobs) > 1 else 0
        return [[replace(each, score=round(each.score) + error * draw.normal()) for each in mine] for mine in found]

    monkeypatch.setattr(Predictor, "_search", noisy)
    predictor, settings = Predictor(make(), processes=1), Decoding(sample=True, risk="exact", samples=6, n_best=2)
    alone = said(list(predictor.predict(texts(12), settings=settings, batch_size=1)))
    together = list(predictor.predict(texts(12), settings=settings, batch_size=12))
    assert said(together) == alone
    assert any(mine[0].repeated for mine in together)
    monkeypatch.setattr(rerank, "MARGIN", 0.0)
    assert said(list(predictor.predict(texts(12), settings=settings, batch_size=12))) != alone


def test_risk_keeps_constraints_and_bans() -> None:
    predictor, inputs = Predictor(make()), texts(12)
    for settings in (Decoding(risk="chrf", beam=4), Decoding(sample=True, risk="chrf", samples=6)):
        found = list(predictor.predict(inputs, settings=settings, prefixes=["so"] * 12, banned=["ba", "lo"]))
        assert all(mine[0].tokens[:1] == ["so"] and not {"ba", "lo"} & set(mine[0].tokens) for mine in found)
    assert next(mine[0].text for mine in predictor.predict(["", "ba"], settings=settings)) == ""


def test_a_banned_word_that_turns_up_is_searched_away(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, inputs = Predictor(make(target={"tokenizer": "bpe", "vocabulary": 30}), processes=1), texts(15)
    settings = Decoding(risk="chrf", beam=4)
    monkeypatch.setattr(Predictor, "_constraint", lambda *given: Constraint())  # as if it were spelled otherwise
    free = [mine[0].text.split() for mine in predictor.predict(inputs, settings=settings)]
    word = max({word for words in free for word in words}, key=lambda word: sum(word in words for words in free))
    found = list(predictor.predict(inputs, settings=settings, banned=[word]))
    assert not any(word in mine[0].text.split() for mine in found)
    assert all(mine[0].utility is not None for mine in found)


# A backward model


def ordered(found: list[list[Answer]], key: Any) -> bool:
    return all(mine == sorted(mine, key=key) for mine in found)


def test_what_is_no_text_has_no_backward_model() -> None:
    forward = make("gru")
    heard = replace(forward, task=replace(forward.task, source=object()))
    with pytest.raises(ConfigError, match="a backward model scores texts"):
        Predictor(heard, backward=backward_model())


@pytest.mark.parametrize("decoder", FAMILIES)
def test_the_weight_goes_from_the_beam_to_the_backward_model(decoder: str) -> None:
    inputs, settings = texts(10), Decoding(beam=5, n_best=5, min_length=2)
    forward, backward = make("gru", decoder), backward_model(decoder)
    plain = said(list(Predictor(forward).predict(inputs, settings=settings)))
    predictor = Predictor(forward, backward=backward)
    by_weight = {
        weight: list(predictor.predict(inputs, settings=replace(settings, backward_weight=weight)))
        for weight in (0.0, 0.5, 1e9)
    }
    assert said(by_weight[0.0]) == plain
    assert ordered(by_weight[1e9], lambda answer: (not answer.finished, -answer.backward))
    assert ordered(by_weight[0.5], lambda answer: (not answer.finished, -answer.score - 0.5 * answer.backward))
    assert said(by_weight[0.5]) != plain
    assert said(by_weight[1e9]) != said(by_weight[0.5])
    for mine, same in zip(by_weight[1e9], by_weight[0.0], strict=True):
        assert {answer.text: answer.backward for answer in mine} == pytest.approx(
            {answer.text: answer.backward for answer in same}, abs=1e-5
        )


def test_the_backward_score_is_that_of_rescore() -> None:
    """Without a length penalty both scores are plain log probabilities, as in the paper."""
    backward, settings = backward_model(), Decoding(beam=4, n_best=4, length_penalty=0.0, coverage_penalty=0.3)
    for source, mine in zip(
        texts(6), Predictor(make(), backward=backward).predict(texts(6), settings=settings), strict=True
    ):
        for answer in mine:
            example = backward.task.encode(Pair(answer.text, source))
            [alone] = rescore([backward.model], pad([example.source]), [example.target[:-1]], settings)
            assert answer.backward == pytest.approx(sum(alone.log_probs), abs=1e-4)


def test_long_answers_are_rewarded() -> None:
    predictor, settings = Predictor(make("lstm"), backward=backward_model()), Decoding(beam=5, n_best=5)
    found = list(predictor.predict(texts(20), settings=replace(settings, length_reward=1e6)))
    assert ordered(found, lambda answer: (not answer.finished, -len(answer.tokens)))
    plain = list(predictor.predict(texts(20), settings=settings))
    assert not ordered(plain, lambda answer: (not answer.finished, -len(answer.tokens)))


@pytest.mark.parametrize(
    "settings", [{}, {"length_penalty": 0.0, "coverage_penalty": 0.2}, {"sample": True, "samples": 6}], ids=str
)
def test_re_ranking_does_not_depend_on_the_batch(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(make("conv"), backward=backward_model("transformer"), processes=1)
    chosen = Decoding(beam=4, n_best=3, min_length=2, max_length=7, **settings)
    check_batches(predictor, chosen)
    found = said(list(predictor.predict(texts(9), settings=chosen)))
    monkeypatch.setattr(rerank, "LOGITS", 1)
    assert said(list(predictor.predict(texts(9), settings=chosen))) == found


def test_close_scores_of_a_backward_model_are_told() -> None:
    settings, backward = Decoding(n_best=2, backward_weight=1.0), backward_model()
    found = [hypothesis([4, 5], -1.0), hypothesis([5, 4], -2.0)]
    [(_, close)] = Mutual(settings, backward).rank([Candidates(Pair("ba du", ""), found, ["ba du", "du ba"])])
    assert not close
    [(ranked, close)] = Mutual(settings, backward).rank([Candidates(Pair("ba du", ""), found, ["ba", "ba"])])
    assert not close
    found[1] = replace(found[1], score=-1.000001)
    [(ranked, close)] = Mutual(settings, backward).rank([Candidates(Pair("ba du", ""), found, ["ba", "ba"])])
    assert close
    assert [each.tokens for each in ranked] == [[4, 5], [5, 4]]


def test_what_a_backward_model_cannot_read_is_cut_and_told() -> None:
    side = {"tokenizer": "whitespace", "max_length": 3}
    for backward in (backward_model(source=side, too_long="error"), learned(8)):
        predictor = Predictor(make(), backward=backward)
        [[answer]] = predictor.predict(["ba du ki lo me ra"], settings=Decoding(beam=3, min_length=8))
        assert "backward model: source cut to max_length" in answer.reason
        assert any("backward model: source cut" in line for line in predictor.report.lines())


def learned(longest: int) -> Bundle:
    """A backward model with a table of so many positions."""
    bundle = backward_model("transformer")
    config = replace(bundle.config, model=replace(bundle.config.model, positions="learned", max_positions=longest))
    sizes = len(bundle.task.source.vocabulary), len(bundle.task.target.vocabulary)
    return replace(bundle, network=build(config.model, *sizes), config=config)


def test_backward_models_that_copy_and_want_context() -> None:
    copying = make(head="copy", context=["to"], source={"tokenizer": "whitespace"}, target={"tokenizer": "whitespace"})
    forward = make(context=["to"])
    inputs = [Pair(text, "", context={"to": "x"}) for text in ["qq ww", "ba", "zz du"]]
    found = list(Predictor(forward, backward=copying).predict(inputs, settings=Decoding(beam=3, n_best=3)))
    assert all(answer.backward is not None and np.isfinite(answer.backward) for mine in found for answer in mine)
    with pytest.raises(ConfigError, match=r"wants context.*to"):
        Predictor(make(), backward=copying)


def test_a_nul_in_an_answer_is_no_error() -> None:
    found = [hypothesis([4], -1.0), hypothesis([5], -2.0)]
    [(ranked, _)] = Mutual(Decoding(), backward_model()).rank([Candidates(Pair("ba", ""), found, ["\0", "ba"])])
    assert len(ranked) == 1


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"risk": "distinct1"}, "metric of single sentences"),
        ({"risk": "self_bleu"}, "metric of single sentences"),
        ({"risk": "crhf"}, "did you mean chrf"),
        ({"risk": "chrf:cased"}, "unknown option"),
        ({"risk": "chrf", "sample": True, "samples": 3, "n_best": 4}, "larger than decoding.samples.*4 and 3"),
        ({"risk": "chrf", "beam": 3, "n_best": 4}, "larger than the beam.*4 and 3"),
        ({"risk": "chrf", "samples": 0}, "samples must be at least 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(Predictor(make()).predict(["ba"], settings=Decoding(**settings)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"risk": "chrf"}, "exclude each other"),
        ({"n_best": 6}, "larger than the beam"),
        ({"backward_weight": -0.1}, "must not be negative"),
        ({"length_reward": float("nan")}, "infinite"),
    ],
)
def test_settings_that_a_backward_model_cannot_have(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(Predictor(make(), backward=make()).predict(["ba"], settings=Decoding(**settings)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Bundles of two models that face each other, and pairs."""
    for name, bundle in (("forward", make()), ("backward", backward_model())):
        save(tmp_path / name, model=bundle.model, task=bundle.task, config=bundle.config, card={})
    (tmp_path / "pairs.tsv").write_text("".join(f"{text}\t{text[::-1]}\n" for text in texts(30)))
    return tmp_path


def command(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0), *capsys.readouterr()


def test_commands_take_risk_and_backward_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forward, backward, pairs = (folder / name for name in ("forward", "backward", "pairs.tsv"))
    (folder / "lines.txt").write_text("ba du ki\n")
    lines = [forward, folder / "lines.txt", "--jsonl", "n_best=3"]
    _, out, _ = command(capsys, "predict", *lines, "risk=chrf", "sample=true", "samples=8")
    values = [answer["utility"] for answer in json.loads(out)["answers"] if answer["finished"]]
    assert values == sorted(values, reverse=True)
    _, out, _ = command(capsys, "predict", *lines, "--backward", backward, "backward_weight=1e6")
    rows = json.loads(out)["answers"]
    values = [answer["backward"] for answer in rows if answer["finished"]]
    assert values == sorted(values, reverse=True)
    assert "utility" not in rows[0]
    code, out, _ = command(capsys, "evaluate", forward, pairs, "--json", "--backward", backward, "risk=")
    assert (code, json.loads(out)["backward"]) == (0, str(backward))
    code, _, error = command(capsys, "predict", *lines, "--backward", backward, "risk=chrf")
    assert (code, error.count("\n")) == (2, 1)
    assert "exclude each other" in error


def test_a_wrong_risk_is_refused_before_training() -> None:
    bundle = make()
    config = override(bundle.config, {"decoding.risk": "distinct2"})
    with pytest.raises(ConfigError, match="metric of single sentences"):
        Validator(config, bundle.task, [Pair("ba", "ba")])
    settings = Validator(override(bundle.config, {"decoding.risk": "chrf"}), bundle.task, [Pair("ba", "ba")]).settings
    assert settings.risk == ""


def test_memory_is_that_of_a_beam() -> None:
    """Many candidates mean fewer sentences at once."""
    sizes: list[int] = []
    predictor = Predictor(make(), processes=1)
    search = predictor._search
    predictor._search = lambda jobs, *how: (sizes.append(len(jobs)), search(jobs, *how))[1]  # type: ignore[method-assign,func-returns-value]
    list(predictor.predict(texts(20), settings=Decoding(sample=True, risk="exact", samples=20), batch_size=16))
    assert max(sizes) == 4
