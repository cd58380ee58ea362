"""Search against brute force on a model small enough to enumerate, and its promises on noisy models."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antiphon.core.batch import BOS, EOS, Memory, Padded, State, Steps, pad
from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError, TrainingError
from antiphon.inference.endings import _ranked
from antiphon.inference.hypothesis import Hypothesis
from antiphon.inference.scoring import Referee
from antiphon.inference.search import rescore, search

V = 7
LIMIT = 4


class Table(nn.Module):
    """A model whose next token depends on the source and the whole history by a table of logits.

    `noise` imitates float error: what is added depends on how many rows are in the batch, alone it is zero.
    """

    def __init__(
        self, seed: int = 0, *, size: int = V, states: int = 101, noise: float = 0.0, flat: bool = False
    ) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.table = torch.randn(states, size, generator=draw) * 1.5
        if flat:
            self.table = self.table.round()
        self.looks = torch.rand(states, 40, generator=draw)
        self.target_size, self.noise, self.calls = size, noise, 0

    def encode(self, source: Padded, context: Mapping[str, Padded] | None = None) -> Memory:
        states = (source.values * source.mask_BL)[..., None].float()
        copies = context["copy"].values if context else None
        return Memory(states, source.mask_BL, states.sum(1), copies)

    def start(self, memory: Memory) -> State:
        return {"hash": memory.summary_BD[:, 0].long() % len(self.table), "memory.mask": memory.mask_BS}

    def decode(self, tokens_NT: Tensor, memory: Memory, state: State) -> tuple[Steps, State]:
        assert len(memory.mask_BS) == len(state["memory.mask"])
        assert len(tokens_NT) % len(memory.mask_BS) == 0
        assert len(state["hash"]) == len(tokens_NT)
        value, hidden = state["hash"], []
        for column in tokens_NT.T:
            value = (value * 31 + column + 7) % len(self.table)
            hidden.append(value)
        hash_NT = torch.stack(hidden, 1)
        mask = memory.mask_BS.repeat_interleave(len(tokens_NT) // len(memory.mask_BS), 0)
        looks = self.looks[hash_NT][..., : mask.shape[1]] * mask[:, None]
        return Steps(hash_NT[..., None].float(), looks / looks.sum(2, keepdim=True)), state | {"hash": value}

    def log_probs(self, steps: Steps, memory: Memory) -> Tensor:
        logits = self.table[steps.hidden_BTD[..., 0].long()].clone()
        if self.noise and len(memory.mask_BS) > 1:
            self.calls += 1
            draw = torch.Generator().manual_seed(self.calls * 1000 + len(logits))
            logits += self.noise * torch.randn(logits.shape, generator=draw)
        return logits.log_softmax(2)


def sources(count: int = 9, seed: int = 3) -> Padded:
    draw = np.random.default_rng(seed)
    return pad([[*draw.integers(4, 60, draw.integers(1, 9)).tolist(), EOS] for _ in range(count)])


def everything(limit: int = LIMIT, size: int = V) -> list[list[int]]:
    words = [token for token in range(size) if token not in (0, 2, EOS)]
    return [list(text) for length in range(limit + 1) for text in itertools.product(words, repeat=length)]


def run(model: Table | list[Table], source: Padded, limit: int = LIMIT, **settings: object) -> list[list[Hypothesis]]:
    models = model if isinstance(model, list) else [model]
    decoding = Decoding(**{"beam": 5, **settings})  # type: ignore[arg-type]
    return search(models, source, decoding, max_lengths=[limit] * len(source.lengths_B))


def one(source: Padded, row: int) -> Padded:
    return source.rows(torch.tensor([row]))


def texts(answers: list[list[Hypothesis]]) -> list[list[list[int]]]:
    return [[answer.tokens for answer in mine] for mine in answers]


@pytest.mark.parametrize(("penalty", "coverage"), [(0.0, 0.0), (1.0, 0.0), (0.6, 0.3)])
def test_wide_beam_is_the_exact_argmax(penalty: float, coverage: float) -> None:
    source, settings = sources(4), Decoding(length_penalty=penalty, coverage_penalty=coverage)
    found = run(Table(), source, beam=900, n_best=6, length_penalty=penalty, coverage_penalty=coverage, thorough=True)
    targets = everything()
    for row in range(4):
        alone = one(source, row)
        tiled = Padded(alone.values.expand(len(targets), -1), alone.lengths_B.expand(len(targets)))
        scored = sorted(rescore([Table()], tiled, targets, settings), key=lambda answer: -answer.score)
        scored = [answer for answer in scored if len(answer.tokens) < LIMIT or _may_end(Table(), alone, answer.tokens)][
            :6
        ]
        assert texts([found[row]]) == texts([scored])
        np.testing.assert_allclose([a.score for a in found[row]], [a.score for a in scored], atol=1e-5)


def _may_end(model: Table, source: Padded, tokens: list[int]) -> bool:
    """At the length limit only a hypothesis whose likeliest token is the end mark counts as finished."""
    memory = model.encode(source)
    state = model.decode(torch.tensor([[2, *tokens[:-1]]]), memory, model.start(memory))[1]
    return _ends(model, memory, state, tokens[-1])


@pytest.mark.parametrize(
    "settings",
    [
        {"beam": 1},
        {"beam": 4, "n_best": 4},
        {"beam": 6, "groups": 3, "n_best": 3},
        {"sample": True, "n_best": 3},
        {"coverage_penalty": 0.2, "length_penalty": 0.5},
    ],
)
def test_score_is_the_rescored_score(settings: dict[str, object]) -> None:
    source, model = sources(), [Table(1), Table(2)]
    answers = run(model, source, 8, **settings)
    for row, mine in enumerate(answers):
        for answer in (answer for answer in mine if answer.finished):
            again = rescore(model, one(source, row), [answer.tokens], Decoding(**{"beam": 6, **settings}))[0]
            assert answer.score == pytest.approx(again.score, abs=1e-5)
            np.testing.assert_allclose(answer.log_probs, again.log_probs, atol=1e-5)
            np.testing.assert_allclose(answer.weights, again.weights, atol=1e-6)
            assert answer.weights.shape == (len(answer.tokens) + 1, int(source.lengths_B[row]))
            np.testing.assert_allclose(answer.weights.sum(1), 1, atol=1e-5)


def test_beam_of_one_is_greedy() -> None:
    source, model = sources(), Table()
    for row, (answer,) in enumerate(run(model, source, 10, beam=1)):
        memory = model.encode(one(source, row))
        state, token, tokens = model.start(memory), 2, []
        while len(tokens) < 10:
            steps, state = model.decode(torch.tensor([[token]]), memory, state)
            log_probs = model.log_probs(steps, memory)[0, 0]
            log_probs[[0, 2]] = -math.inf
            token = int(log_probs.argmax())
            if token == EOS:
                break
            tokens.append(token)
        assert answer.tokens == tokens
        assert answer.finished == (token == EOS or (len(tokens) == 10 and _ends(model, memory, state, tokens[-1])))


def _ends(model: Table, memory: Memory, state: State, token: int) -> bool:
    steps, _ = model.decode(torch.tensor([[token]]), memory, state)
    log_probs = model.log_probs(steps, memory)[0, 0]
    log_probs[[0, 2]] = -math.inf
    return int(log_probs.argmax()) == EOS


SETTINGS = [
    {"beam": 1}, {"beam": 5}, {"beam": 5, "n_best": 5}, {"beam": 6, "groups": 2, "n_best": 4}, {"sample": True},
    {"sample": True, "n_best": 3, "top_p": 0.7, "temperature": 0.8}, {"sample": True, "top_k": 3},
    {"beam": 4, "no_repeat": 2}, {"beam": 3, "coverage_penalty": 0.4, "length_penalty": 0.7},
    {"beam": 3, "min_length": 3}, {"beam": 5, "thorough": True},
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("flat", [False, True], ids=["smooth", "ties"])
def test_the_batch_changes_nothing(settings: dict[str, object], flat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of the size of float error, tables full of exact ties: still the same tokens in every batch."""
    settled: list[int] = []

    def best(self: Referee, sentence: int, *rest: Any) -> Tensor:
        settled.append(sentence)
        return plain_best(self, sentence, *rest)

    plain_best = Referee.best
    monkeypatch.setattr(Referee, "best", best)
    source = sources(20)
    noisy = Table(5, noise=1e-6, flat=flat, size=12)
    decoding = Decoding(**{"beam": 5, **settings})  # type: ignore[arg-type]
    alone = [search([noisy], one(source, row), decoding, max_lengths=[9], sample_ids=[row])[0] for row in range(20)]
    order = np.random.default_rng(0).permutation(20)
    repeated = 0
    settled.clear()
    for size in (2, 7, 20):
        for start in range(0, 20, size):
            rows = torch.tensor(order[start : start + size])
            batch = search([noisy], source.rows(rows), decoding, max_lengths=[9] * len(rows), sample_ids=rows.tolist())
            for row, mine in zip(rows.tolist(), batch, strict=True):
                assert texts([mine]) == texts([alone[row]])
                repeated += mine[0].repeated
    together = not decoding.sample and decoding.groups == 1
    assert (len(settled) if together else repeated) > 0 if flat else repeated < 9 > len(settled)


A, B, C, D = range(4, 8)


class CatchesUp(Table):
    """A ends at once; B and C begin badly, but what follows costs nothing: B C D D D D D D has the better mean at last.

    `chance` is that of C; at `TIE` the beginning is level with what has ended where a search decides whether to go on.
    """

    TIE = 0.5 * (0.98 * 0.5) ** 1.5 / 0.25

    def __init__(self, chance: float, noise: float = 0.0) -> None:
        super().__init__(size=8, noise=noise)
        rows = torch.full((9, 8), 1e-9, dtype=torch.float64)
        rows[BOS, A] = rows[BOS, B] = 0.5
        rows[A, EOS], rows[A, D] = 0.98, 0.02
        rows[B, C], rows[B, EOS] = chance, 1 - chance
        rows[C, D] = rows[D, D] = rows[8, EOS] = 1.0
        self.table = rows.log().float()

    def start(self, memory: Memory) -> State:
        return {"hash": torch.zeros(len(memory.mask_BS), dtype=torch.long), "memory.mask": memory.mask_BS}

    def decode(self, tokens_NT: Tensor, memory: Memory, state: State) -> tuple[Steps, State]:
        step_NT = state["hash"][:, None] + torch.arange(tokens_NT.shape[1])
        row_NT = torch.where(step_NT == 8, 8, tokens_NT)
        weights = torch.ones(*tokens_NT.shape, memory.mask_BS.shape[1]) / memory.mask_BS.shape[1]
        return Steps(row_NT[..., None].float(), weights), state | {"hash": step_NT[:, -1] + 1}


def test_a_thorough_search_finds_what_catches_up() -> None:
    source, model = sources(1), CatchesUp(0.6)
    for thorough, tokens in ((False, [A]), (True, [B, C, D, D, D, D, D, D])):
        [[answer]] = run(model, source, 12, thorough=thorough, beam=2)
        assert answer.tokens == tokens
    assert run(model, source, 12, length_penalty=0.0, beam=2)[0][0].tokens == [A]


def test_when_to_stop_is_a_decision_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is alive ties with what has ended: float error would say whether to go on, so each decides alone."""
    source, noisy = sources(20), CatchesUp(CatchesUp.TIE, noise=1e-6)
    alone = texts([run(noisy, one(source, row), 12, beam=2)[0] for row in range(20)])
    assert texts(run(noisy, source, 12, beam=2)) == alone
    for place in ("search", "beam"):
        monkeypatch.setattr(f"antiphon.inference.{place}.MARGIN", -1.0)
    assert texts(run(noisy, source, 12, beam=2)) != alone


def test_without_the_margin_the_batch_would_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teeth of the test above."""
    for place in ("search", "beam"):
        monkeypatch.setattr(f"antiphon.inference.{place}.MARGIN", -1.0)
    source, noisy = sources(20), Table(5, noise=1e-6, flat=True, size=12)
    batch = run(noisy, source, 9)
    alone = [run(noisy, one(source, row), 9)[0] for row in range(20)]
    assert texts(batch) != texts(alone)


def test_lengths_are_kept_and_unfinished_is_said() -> None:
    source = sources()
    for settings in ({"beam": 4, "n_best": 4}, {"sample": True, "n_best": 2}, {"beam": 1}, {"beam": 4, "groups": 2}):
        for limit, least in ((1, 0), (3, 2), (6, 4)):
            for mine in run(Table(4), source, limit, min_length=least, **settings):
                assert mine
                for answer in mine:
                    assert len(answer.tokens) <= limit
                    assert len(answer.tokens) == limit if not answer.finished else len(answer.tokens) >= least
                    assert len(answer.log_probs) == len(answer.tokens) + answer.finished
                    assert EOS not in answer.tokens


def test_never_ending_model_is_unfinished() -> None:
    model = Table()
    model.table[:, EOS] = -50.0
    for mine in run(model, sources(), 6, beam=3, n_best=3):
        assert [answer.finished for answer in mine] == [False] * 3
        assert all(len(answer.tokens) == 6 for answer in mine)
        assert mine[0].score >= mine[1].score >= mine[2].score
        assert mine[0].score == pytest.approx(sum(mine[0].log_probs) / 6)


def test_no_repeat() -> None:
    source, model = sources(), Table(8)
    plain = run(model, source, 25, min_length=20)
    assert any(_repeats(answer.tokens, 2) for (answer,) in plain)
    for settings in ({}, {"beam": 1}, {"sample": True, "n_best": 2}):
        for mine in run(model, source, 25, no_repeat=2, min_length=12, **settings):
            assert not any(_repeats(answer.tokens, 2) for answer in mine)


def _repeats(tokens: list[int], size: int) -> bool:
    grams = [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]
    return len(set(grams)) < len(grams)


def test_ensemble_is_the_mean_of_probabilities() -> None:
    source = sources(1)
    first, second, both = (rescore(models, source, [[5, 4]], Decoding())[0].log_probs
                           for models in ([Table(1)], [Table(2)], [Table(1), Table(2)]))  # fmt: skip
    np.testing.assert_allclose(np.exp(both), (np.exp(first) + np.exp(second)) / 2, atol=1e-6)
    assert run([Table(1), Table(1)], source)[0][0].tokens == run(Table(1), source)[0][0].tokens


def test_groups_differ_more() -> None:
    source, model = sources(20), Table(3, size=12)
    plain = run(model, source, 8, beam=6, n_best=3)
    diverse = run(model, source, 8, beam=6, n_best=3, groups=3, diversity=2.0)
    starts = [sum(len({answer.tokens[0] if answer.tokens else EOS for answer in mine}) for mine in found)
              for found in (plain, diverse)]  # fmt: skip
    assert starts[1] > starts[0]
    assert all(len(set(map(tuple, mine))) == len(mine) for mine in texts(diverse))


def test_sampling_follows_the_probabilities() -> None:
    model, source = Table(6), sources(1)
    many = Padded(source.values.expand(4000, -1), source.lengths_B.expand(4000))
    settings = Decoding(sample=True, min_length=1)
    first = [mine[0].tokens[0] for mine in search([model], many, settings, max_lengths=[1] * 4000)]
    memory = model.encode(source)
    steps, _ = model.decode(torch.tensor([[2]]), memory, model.start(memory))
    expected = model.log_probs(steps, memory)[0, 0].exp()
    expected[[0, 2, EOS]] = 0
    expected /= expected.sum()
    share = np.bincount(first, minlength=V) / 4000
    np.testing.assert_allclose(share, expected, atol=4 * 0.5 / math.sqrt(4000))
    for cut, count in (({"top_k": 2}, 2), ({"top_p": 0.01}, 1), ({"temperature": 1e-4}, 1)):
        few = search([model], many, replace(settings, **cut), max_lengths=[1] * 4000)  # type: ignore[arg-type]
        likely = set(expected.topk(count).indices.tolist())
        assert {mine[0].tokens[0] for mine in few} == likely


def test_sampling_depends_on_seed_and_number_alone() -> None:
    source, model = sources(12), Table(6, size=30)
    settings = Decoding(sample=True, n_best=2, seed=4)
    all_of_them = search([model], source, settings, max_lengths=[9] * 12, sample_ids=range(100, 112))
    same = search([model], one(source, 7), settings, max_lengths=[9], sample_ids=[107])
    other = search([model], one(source, 7), replace(settings, seed=5), max_lengths=[9], sample_ids=[107])
    assert texts(same) == texts([all_of_them[7]])
    assert texts(other) != texts(same)
    assert any(mine[0].tokens != mine[1].tokens for mine in all_of_them)


def test_extended_vocabulary_of_other_sentences_is_never_used() -> None:
    """Padding between a sentence's own source words and the widest of the batch is not an answer."""

    class Copying(Table):
        def log_probs(self, steps: Steps, memory: Memory) -> Tensor:
            known = super().log_probs(steps, memory)
            assert memory.copy_BS is not None
            extra = max(0, int(memory.copy_BS.max()) + 1 - V)
            likely = self.looks[steps.hidden_BTD[..., 0].long()][..., :extra]  # no near tie that would hide a mistake
            return torch.cat([known, likely - 1.0], 2)

    copies = pad([[V, V + 1, V + 2, EOS], [4, 4, V, EOS], [4, 5, 4, EOS]])
    source = Padded(torch.tensor([[9, 8, 7, EOS]] * 3), torch.tensor([4, 4, 4]))
    settings = Decoding(beam=4, n_best=4)
    found = search([Copying()], source, settings, max_lengths=[5] * 3, context={"copy": copies})
    assert not any(answer.repeated for mine in found for answer in mine)
    highest = [max(token for answer in mine for token in answer.tokens) for mine in found]
    assert highest[0] in range(V, V + 3)
    assert highest[1] == V
    assert highest[2] < V
    for row in range(3):
        index = torch.tensor([row])
        own = {"copy": copies.rows(index)}
        alone = search([Copying()], source.rows(index), settings, max_lengths=[5], context=own)
        assert texts(alone) == texts([found[row]])


def test_the_final_ranking_has_a_gap() -> None:
    """Two ends that never met in a beam may still be a near tie; the gap is in nats, not in nats a token, and it is
    held against an error that grows with the root of the length."""
    ends = (np.zeros(3, int), np.array([4, 9, 2]), np.array([0, 1, 2]), np.array([-1.0, -1.001, -3.0]), np.ones(3, int))
    order, smallest = _ranked(np.arange(3), ends, Decoding(), 5, 7)
    assert order == [0, 1, 2]
    assert smallest == pytest.approx(0.001 * 5 / math.sqrt(10))
    assert _ranked(np.arange(3), ends, Decoding(length_penalty=0), 5, 7)[1] == pytest.approx(0.001 / math.sqrt(10))
    unfinished = (*ends[:4], np.array([1, 0, 1]))
    order, smallest = _ranked(np.arange(3), unfinished, Decoding(), 5, 7)
    assert order == [0, 2, 1]
    assert smallest == pytest.approx(2.0 * 3 / math.sqrt(5))


def test_what_search_needs_is_undone_afterwards() -> None:
    """Whether it ends well or not: training mode, the route of matrix products, the number of threads."""

    class Noting(Table):
        def log_probs(self, steps: Steps, memory: Memory) -> Tensor:
            noted.append((self.training, torch.get_float32_matmul_precision(), torch.get_num_threads()))
            return super().log_probs(steps, memory)

    before, noted = (torch.get_float32_matmul_precision(), torch.get_num_threads()), []
    try:
        torch.set_float32_matmul_precision("medium")
        torch.set_num_threads(2)
        for broken in (False, True):
            model = Noting().train()
            model.table[:] = math.nan if broken else model.table
            with pytest.raises(TrainingError) if broken else nullcontext():
                run(model, sources(2))
            assert model.training
            assert (torch.get_float32_matmul_precision(), torch.get_num_threads()) == ("medium", 2)
        assert set(noted) == {(False, "highest", 1)}
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.set_num_threads(before[1])


def test_model_that_is_not_a_number() -> None:
    model = Table()
    model.table[:] = math.nan
    with pytest.raises(TrainingError, match="not numbers"):
        run(model, sources(2))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_best": 9}, "larger than the beam"),
        ({"sample": True, "groups": 5}, "exclude"),
        ({"length_penalty": -1.0}, "negative"),
        ({"sample": True, "top_p": 0.0}, "top_p"),
        ({"groups": 3}, "multiple"),
    ],
)
def test_contradictions_are_errors(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(Table(), sources(2), **settings)
