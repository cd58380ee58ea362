"""Objectives of whole answers: exact gradients, rewards of the right text, all families, accumulation, bad settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from antiphon.cli.display import facts
from antiphon.core.batch import EOS, PAD, UNK, Batch, Loss, Padded, pad
from antiphon.core.config import Config, Training
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override
from antiphon.data.corpus import Pair
from antiphon.inference.task import Task
from antiphon.models.heads import of_tokens
from antiphon.models.seq2seq import Seq2Seq, build
from antiphon.training import reinforcement
from antiphon.training.objectives import Likelihood
from antiphon.training.observers import StepEvent
from antiphon.training.optimizers import Flat
from antiphon.training.reinforcement import Reward, chosen, draw, forced, make_objective, remembered, repeated
from antiphon.training.runner import Local, Step, choose, size
from runs import configured, light, prepared, run, words

DECODERS = ("rnn", "lstm", "gru", "conv", "transformer", "ssru")
KINDS: dict[str, dict[str, Any]] = {
    "self-critical": {"training__objective": "self-critical", "training__reward": "cer"},
    "minimum-risk": {"training__objective": "minimum-risk", "training__reward": "cer+exact", "training__samples": 3},
    "unlikelihood": {"training__objective": "unlikelihood"},
    "sequence-unlikelihood": {"training__objective": "sequence-unlikelihood"},
}
WHOLE = ("self-critical", "minimum-risk")


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def made(config: Config, pairs: list[tuple[str, str]] | None = None, seed: int = 1) -> tuple[Any, Seq2Seq, Task]:
    """An objective that has begun with a fresh model, the model, and the task."""
    task, _, _ = prepared(config, pairs)
    model = build(config.model, len(task.source.vocabulary), len(task.target.vocabulary), seed=seed)
    objective = make_objective(config, task)
    objective.begin(model, None)
    return objective, model, task


def some(task: Task, count: int = 7) -> Batch:
    return task.batch([Pair(*pair) for pair in words(count, seed=5)])


# Drawing


def test_tokens_are_chosen_by_their_chances() -> None:
    torch.manual_seed(1)
    chances = torch.tensor([0.0, 0.5, 0.2, 0.0, 0.3])
    found = torch.bincount(chosen(chances.expand(20_000, 5)), minlength=5) / 20_000
    torch.testing.assert_close(found, chances, atol=0.015, rtol=0)
    assert found[0] == found[3] == 0


@pytest.mark.parametrize("head", ["vocabulary", "copy"])
@pytest.mark.parametrize("kind", DECODERS)
def test_what_is_drawn_is_what_the_model_says(kind: str, head: str) -> None:
    """Teacher forcing of a greedy answer finds its tokens likeliest; drawn ones have the model's chances."""
    config = configured(kind, model__head=head)
    _, model, task = made(config)
    with torch.no_grad():
        model.head.bias[EOS] += 1.5
        model.target.embedding.weight.mul_(12)
    model.eval()
    batch = some(task)
    memory = remembered(model, batch, 2)
    limits = torch.tensor([5, 5] * 3 + [2] * 8)
    torch.manual_seed(3)
    answers = draw(model, memory, limits, torch.arange(14) % 2 == 1)
    steps = forced(model, memory, answers)
    said = model.log_probs(steps, memory).argmax(2)
    for row in range(14):
        length = int(answers.lengths_B[row])
        tokens = answers.values[row, :length]
        assert length == int(limits[row]) or (tokens[-1] == EOS and length < int(limits[row]))
        assert EOS not in tokens[:-1]
        assert (answers.values[row, length:] == PAD).all()
        if row % 2:
            assert torch.equal(tokens, said[row, :length])
    assert len({int(length) for length in answers.lengths_B}) > 1
    assert any(not torch.equal(answers.values[row], answers.values[row + 1]) for row in range(0, 14, 2))


@pytest.mark.parametrize("rows", [1, 5, 512])
@pytest.mark.parametrize("head", ["vocabulary", "copy"])
def test_log_probabilities_by_pieces_are_the_plain_ones(head: str, rows: int) -> None:
    """So are their gradients, in every weight and in what the source says."""
    _, model, task = made(configured("lstm", model__head=head))
    batch, found = some(task), []
    for each in (None, rows):
        torch.manual_seed(3)
        memory = remembered(model.eval(), batch, 2)
        answers = draw(model, memory, torch.tensor([5, 2] * 7), torch.zeros(14, dtype=torch.bool))
        steps = forced(model, memory, answers)
        if each is None:
            said_NT = model.log_probs(steps, memory).gather(2, answers.values[..., None]).squeeze(2)
            said_NT = said_NT.masked_fill(~answers.mask_BL, 0.0)
        else:
            said_NT = of_tokens(model.words, steps, memory, answers, rows=each)
        weights = torch.linspace(-1, 2, said_NT.numel()).view_as(said_NT)
        found.append([said_NT, slope(model, (said_NT.exp() * weights).sum())])
    assert len({int(length) for length in answers.lengths_B}) > 1
    for plain, pieces in zip(*found, strict=True):
        torch.testing.assert_close(pieces, plain, atol=1e-5, rtol=1e-4)


def test_answers_can_be_learned_from_and_dropout_comes_back() -> None:
    objective, model, task = made(configured("gru", **KINDS["self-critical"], model__dropout_recurrent=0.1))
    model.train()
    model.encoder.eval()
    before = [module.training for module in model.modules()]
    objective({"model": model}, some(task), 0.0)["model"].total.backward()
    assert [module.training for module in model.modules()] == before


# The gradient

TINY: dict[str, Any] = {"decoding__max_length": 1, "model__dropout": 0.0, "training__likelihood": 0.0}
PAIR = [("ab", "ab"), ("ba", "a")] * 6


def every_answer(model: Seq2Seq, batch: Batch) -> tuple[Padded, Tensor]:
    """All answers of at most two tokens, and the log probability of each."""
    size = model.target_size
    answers = pad([[EOS], *([one, two] for one, two in product(range(size), range(size)) if one != EOS)])
    memory = remembered(model, batch, len(answers.lengths_B))
    log_probs = model.log_probs(forced(model, memory, answers), memory)
    picked = log_probs.gather(2, answers.values[..., None])[..., 0].masked_fill(~answers.mask_BL, 0).sum(1)
    torch.testing.assert_close(picked.exp().sum(), torch.ones(()))
    return answers, picked


def expected(model: Seq2Seq, batch: Batch, objective: Any, power: float = 1.0) -> Tensor:
    """The expected reward over all answers of at most two tokens, by enumeration; in shares `p ** power`."""
    answers, picked = every_answer(model, batch)
    return ((power * picked).softmax(0) * objective.reward(batch, answers)).sum()


def slope(model: Seq2Seq, total: Tensor) -> Tensor:
    """The gradient of everything, in one row."""
    model.zero_grad()
    total.backward()
    parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    return torch.cat([part.flatten().clone() for part in parts])


def lively(config: Config) -> tuple[Any, Seq2Seq, Batch]:
    """A model whose chances are uneven, and one pair."""
    objective, model, task = made(config, PAIR)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.1, -0.5, 0.0, 0.4, 0.6, 0.3]))
        model.target.embedding.weight.mul_(5)
    objective.begin(model, None)
    return objective, model.train(), task.batch([Pair("ab", "ab")])


@pytest.mark.parametrize("kind", ["gru", "transformer"])
def test_self_critical_climbs_the_expected_reward(kind: str) -> None:
    """The mean over many draws is the exact gradient; the greedy baseline changes nothing in the mean."""
    objective, model, batch = lively(configured(kind, **KINDS["self-critical"], **TINY))
    exact = -slope(model, expected(model, batch, objective))
    torch.manual_seed(1)
    rows = 8000
    loss = objective({"model": model}, batch.rows(torch.zeros(rows, dtype=torch.long)), 0.0)["model"]
    found = slope(model, loss.total) / rows
    assert torch.cosine_similarity(found, exact, dim=0) > 0.99
    assert float(found.norm() / exact.norm()) == pytest.approx(1, abs=0.07)
    assert loss.count == 3 * rows


@pytest.mark.parametrize("power", [1.0, 0.3])
def test_minimum_risk_is_the_expected_reward_where_all_answers_are_drawn(power: float) -> None:
    more = {"training__samples": 2000, "training__risk_sharpness": power}
    objective, model, batch = lively(configured("gru", **{**KINDS["minimum-risk"], **TINY, **more}))
    exact = -slope(model, expected(model, batch, objective, power)) / power
    torch.manual_seed(1)
    loss = objective({"model": model}, batch, 0.0)["model"]
    torch.testing.assert_close(slope(model, loss.total), exact, rtol=1e-3, atol=1e-5)
    assert objective.facts(loss)["identical"] == pytest.approx(1 - 31 / 2000)


def test_a_constant_reward_strengthens_whatever_is_drawn_and_leaves_risk_alone() -> None:
    constant = {"training__reward": "constant"}
    objective, model, batch = lively(configured("gru", **{**KINDS["self-critical"], **TINY, **constant}))
    batch = batch.rows(torch.zeros(9, dtype=torch.long))
    torch.manual_seed(2)
    loss = objective({"model": model}, batch, 0.0)["model"]
    torch.manual_seed(2)
    answers, memory = objective.answers(model, batch)
    drawn = answers.rows(torch.arange(0, 18, 2))
    log_probs, _ = objective.measured(model, memory.rows(torch.arange(0, 18, 2)), batch, drawn)  # of each token
    torch.testing.assert_close(loss.total, -log_probs.sum())
    assert objective.facts(loss)["reward"] == 1
    risk, model, batch = lively(configured("gru", **{**KINDS["minimum-risk"], **TINY, **constant}))
    assert slope(model, risk({"model": model}, batch, 0.0)["model"].total).abs().max() < 1e-3


def test_likelihood_has_its_share() -> None:
    objective, model, task = made(
        configured("gru", **KINDS["minimum-risk"], model__dropout=0.0, training__likelihood=0.25)
    )
    batch, nats = some(task), Likelihood(objective.settings)
    torch.manual_seed(4)
    mixed = objective({"model": model}, batch, 0.0)["model"]
    torch.manual_seed(4)
    objective.share = 0.0
    alone = objective({"model": model}, batch, 0.0)["model"]
    likelihood = nats({"model": model}, batch, 0.0)["model"]
    torch.testing.assert_close(mixed.total, 0.75 * alone.total + 0.25 * likelihood.total)
    assert mixed.count == alone.count == likelihood.count


def test_equal_answers_are_found() -> None:
    values = torch.tensor([[[4, 3], [5, 3], [4, 3]], [[4, 4], [4, 4], [4, 4]]])
    assert repeated(values).tolist() == [[False, False, True], [False, True, True]]


# What is logged


@pytest.mark.parametrize("kind", WHOLE)
def test_entropy_and_divergence_are_those_of_the_distribution(kind: str) -> None:
    objective, model, batch = lively(configured("lstm", **{**KINDS[kind], **TINY, "training__samples": 50}))
    rows = batch.rows(torch.zeros(2000 if kind == "self-critical" else 40, dtype=torch.long))
    torch.manual_seed(1)
    begun = objective.facts(objective({"model": model}, rows, 0.0)["model"])
    with torch.no_grad():
        model.head.bias[4] += 0.5
    torch.manual_seed(1)
    now = objective.facts(objective({"model": model}, rows, 0.0)["model"])
    assert 0 < now["entropy"] < math.log(6)
    assert 1 < now["length"] < 2
    assert now["reward_variance"] > 0
    assert now["kl"] > 0.01
    assert begun["kl"] == pytest.approx(0, abs=1e-6)
    log_probs = model.log_probs(*model.eval()(batch)).detach()[0, 0]
    first = float(-(log_probs.exp() * log_probs).sum())  # the first token's; of the second, other tokens came before it
    assert now["entropy"] == pytest.approx(first, rel=0.05)


def test_facts_add_up_over_pieces_and_are_shown() -> None:
    objective, model, task = made(configured("gru", **KINDS["self-critical"]))
    parts = [objective({"model": model}, some(task, count), 0.0)["model"] for count in (2, 5)]
    whole = parts[0] + parts[1]
    assert whole.sums["answers"] == 7
    found = objective.facts(whole)
    assert found["reward"] == pytest.approx(sum(2 * r if n == 0 else 5 * r for n, r in enumerate(
        objective.facts(part)["reward"] for part in parts)) / 7)  # fmt: skip
    assert set(found) == {"reward", "reward_variance", "advantage", "entropy", "length", "kl", "identical"}
    event = StepEvent(1, 0, 1, 1.0, 1, 1.0, 1.0, 1.0, 1.0, None, 0, found)
    (line,) = facts(event)
    assert f"reward {found['reward']:.3f}" in line.plain
    assert not list(facts(StepEvent(1, 0, 1, 1.0, 1, 1.0, 1.0, 1.0, 1.0, None, 0)))


# Rewards


def test_a_reward_is_a_sum_of_metrics_with_their_signs() -> None:
    _, _, task = made(configured())
    assert Reward("cer", task).score("abcd", "abce") == pytest.approx(-0.25)
    assert Reward("exact+cer", task).score("ab", "ab") == pytest.approx(1)
    assert Reward("chrf", task).score("ab", "ab") == pytest.approx(1)
    assert Reward("constant", task)(some(task), some(task).target).tolist() == [1.0] * 7


def test_answers_and_references_become_text() -> None:
    _, _, task = made(configured())
    batch = some(task, 2)
    answers = Padded(batch.target.values.repeat_interleave(2, 0), batch.target.lengths_B.repeat_interleave(2))
    answers.values[1, 0] = UNK
    found = list(Reward("cer", task).texts(batch, answers))
    assert [reference for _, reference in found] == [target for _, target in words(2, seed=5) for _ in range(2)]
    assert [answer == reference for answer, reference in found] == [True, False, True, True]
    assert "<unk>" not in found[1][0]


def test_an_unknown_token_matches_no_unknown_token() -> None:
    _, _, task = made(configured())
    batch = task.batch([Pair("ab", "aX")])
    assert UNK in batch.labels_BT
    ((answer, reference),) = Reward("cer", task).texts(batch, batch.target)
    assert answer[0] == reference[0] == "a"
    assert answer[1:] != reference[1:]


def test_copied_words_are_what_the_source_has() -> None:
    """A word that only the source's vocabulary knows is itself; one that none knows is the same word on both sides."""
    pairs = [("a b zebra", "a b"), ("b a", "b a")] * 8
    word = {"data__source__tokenizer": "word", "data__target__tokenizer": "word"}
    _, _, task = made(configured("gru", model__head="copy", **word), pairs)
    batch = task.batch([Pair("a quagga zebra okapi", "zebra quagga"), Pair("zebra", "b")])
    size = len(task.target.vocabulary)
    answers = pad([[size + 1, size, EOS], [size + 2, UNK, EOS], [size, EOS], [5, EOS]])
    found = list(Reward("cer", task).texts(batch, answers))
    assert found[0][0] == found[0][1]
    assert found[0][0].startswith("zebra ")
    assert len({*found[1][0].split(), *found[0][0].split()}) == 4
    assert found[2] == ("zebra", "b")


# Every family, accumulation, settings


@pytest.mark.parametrize("objective", KINDS)
@pytest.mark.parametrize("kind", DECODERS)
def test_every_decoder_family_learns_by_every_objective(kind: str, objective: str) -> None:
    head = {"model__head": "copy"} if kind in ("gru", "transformer") else {}
    made_objective, model, task = made(configured(kind, **KINDS[objective], **head))
    flat, runner = Flat(model), Local(Training())
    step = Step([some(task), some(task, 3)], (1, 1))
    loss = runner.accumulate(made_objective, {"model": model.train()}, step)["model"]
    assert flat.gradient.isfinite().all()
    assert flat.gradient.abs().max() > 0
    assert math.isfinite(float(loss.total))
    assert all(math.isfinite(value) for value in made_objective.facts(loss).values())
    if objective in WHOLE:
        assert made_objective.facts(loss)["kl"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_accumulation_and_splitting_are_exact(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With answers that depend on their source alone, a batch gives what its parts give."""

    def fixed(model: Any, memory: Any, limits_N: Tensor, greedy_N: Tensor) -> Padded:
        looks = memory.mask_BS.sum(1)
        place = torch.arange(len(looks)) % objective.drawn
        return pad([[4 + int(n) % 3] * (1 + int(p)) + [EOS] for n, p in zip(looks, place * ~greedy_N, strict=True)])

    monkeypatch.setattr(reinforcement, "draw", fixed)
    config = configured("lstm", **KINDS[kind], model__dropout=0.0)
    objective, model, task = made(config)
    network = model.train().double()
    objective.begin(network, None)
    flat, runner, batch = Flat(network), Local(Training()), some(task, 6)

    def gradient(batches: list[Batch], limit: int | None = None) -> tuple[Tensor, Loss]:
        flat.zero()
        loss = runner.accumulate(objective, {"model": network}, Step(batches, (1, 1), 0.0, limit))["model"]
        return flat.gradient.clone(), loss

    whole = gradient([batch])
    even = [batch.rows(torch.arange(0, 4)), batch.rows(torch.arange(4, 6))]
    for other in (gradient(even), gradient([batch], limit=size(batch) // 2)):
        torch.testing.assert_close(other[0], whole[0])
        assert other[1].count == whole[1].count == batch.count
        assert float(other[1].total) == pytest.approx(float(whole[1].total))
        assert objective.facts(other[1]) == pytest.approx(objective.facts(whole[1]), abs=1e-5)


@pytest.mark.parametrize(("settings", "message"), [
    ({"objective": "self-critical"}, "training.reward names no metric.*such as rougeL"),
    ({"objective": "minimum-risk", "reward": "bleu+"}, "training.reward names no metric"),
    ({"objective": "minimum-risk", "reward": "bleuu"}, "unknown metric bleuu; did you mean bleu"),
    ({"objective": "self-critical", "reward": "chrf+distinct1"}, "needs a metric of single answers .got distinct1"),
    ({"objective": "minimum-risk", "reward": "cer", "samples": 1}, "set training.samples to 2 or more"),
    ({"objective": "unlikelihood", "r_drop": 1.0}, "has no R-Drop"),
    ({"objective": "policy"}, "training.objective.*got 'policy'"),
    ({"likelihood": 1.0}, "training.likelihood must be at least 0 and below 1"),
    ({"risk_sharpness": 0.0}, "training.risk_sharpness must be above 0"),
    ({"unlikelihood": -1.0}, "training.unlikelihood must be above 0"),
    ({"samples": 0}, "training.samples must be at least 1"),
])  # fmt: skip
def test_bad_settings_are_named(settings: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run(override(configured(), {f"training.{name}": value for name, value in settings.items()}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_process_draws_and_scores() -> None:
    split = choose(Training(objective="minimum-risk", processes=4), 99_999, 8)
    assert (split.processes, split.threads) == (1, 8)
    assert "draws and scores" in split.reason
    assert choose(Training(objective="unlikelihood"), 99_999, 8).processes == 8
