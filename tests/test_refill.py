"""A beam that stays full: as a plain loop finds it, whatever the batch."""

from __future__ import annotations

import pytest
import torch

from antiphon.core.batch import BOS, EOS, PAD, pad
from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError
from antiphon.inference.constraints import Constraint
from antiphon.inference.search import Hypothesis, search
from test_search import Table

SOURCES = [[5, 6, 4], [4], [6, 6, 5, 4, 4], [5, 5], [4, 5, 6, 4, 5, 6, 4]]


def plainly(model: Table, source: list[int], settings: Decoding, limit: int) -> list[tuple[list[int], float, bool]]:
    """The search as one writes it down: candidates, the best of them, those that ended, and what fills their places."""
    beam, memory = settings.beam or 5, model.encode(pad([source]))
    live: list[tuple[list[int], float]] = [([], 0.0)]
    ended: list[tuple[list[int], float, bool]] = []

    def score(total: float, length: int) -> float:
        return total / length**settings.penalty

    for step in range(limit + 1):
        candidates = []
        for tokens, total in live:
            steps, _ = model.decode(torch.tensor([[BOS, *tokens]]), memory, model.start(memory))
            for token, value in enumerate(model.log_probs(steps, memory)[0, -1].double().tolist()):
                if token not in (PAD, BOS):
                    candidates.append(([*tokens, token], total + value, total))
        candidates.sort(key=lambda each: -each[1])
        for tokens, total, before in candidates[:beam]:
            if tokens[-1] == EOS:
                ended.append((tokens[:-1], score(total, step + 1), True))
            elif step == limit:
                ended.append((tokens[:-1], score(before, step), False))
        if len(ended) >= beam:
            break
        live = [(tokens, total) for tokens, total, _ in candidates if tokens[-1] != EOS][:beam]
    unique = {(tuple(tokens), finished): (tokens, value, finished) for tokens, value, finished in ended}
    return sorted(unique.values(), key=lambda each: (-each[2], -each[1]))[: settings.n_best]


def told(found: list[Hypothesis]) -> list[tuple[list[int], float, bool]]:
    return [(each.tokens, pytest.approx(each.score, abs=1e-9), each.finished) for each in found]


@pytest.mark.parametrize("beam", [2, 3, 5])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("limit", [2, 4, 12])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_search_that_is_written_down(beam: int, length_penalty: float, limit: int, seed: int) -> None:
    model, settings = Table(seed), Decoding(beam=beam, n_best=beam, length_penalty=length_penalty, refill=True)
    found = search([model], pad(SOURCES), settings, max_lengths=[limit] * len(SOURCES))
    assert [told(each) for each in found] == [plainly(model, source, settings, limit) for source in SOURCES]


def test_it_is_another_search_than_a_beam_that_grows_narrow() -> None:
    """Or the tests here would say nothing: here and there one finds more than the other."""
    both = [Decoding(beam=3, refill=refill) for refill in (False, True)]
    scores = [[each[0].score for seed in range(6) for each in
               search([Table(seed)], pad(SOURCES), how, max_lengths=[12] * len(SOURCES))] for how in both]  # fmt: skip
    gains = [new - old for old, new in zip(*scores, strict=True)]
    assert max(gains) > 0.01
    assert min(gains) < -0.01


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_the_batch_changes_nothing(noise: float) -> None:
    model, settings = Table(2, noise=noise, flat=True), Decoding(beam=4, n_best=4, refill=True)
    together = search([model], pad(SOURCES), settings, max_lengths=[8] * len(SOURCES))
    for source, found in zip(SOURCES, together, strict=True):
        [alone] = search([model], pad([source]), settings, max_lengths=[8])
        assert [each.tokens for each in alone] == [each.tokens for each in found]


def test_rules_hold_and_the_weights_are_of_the_tokens() -> None:
    model = Table(1)
    settings = Decoding(beam=4, n_best=2, refill=True, no_repeat=1, coverage_penalty=0.2, min_length=2)
    asked = [Constraint(prefix=(4,)), *[Constraint(banned=((5,),))] * (len(SOURCES) - 1)]
    found = search([model], pad(SOURCES), settings, max_lengths=[5] * len(SOURCES), constraints=asked)
    for source, constraint, mine in zip(SOURCES, asked, found, strict=True):
        for each in mine:
            assert len(set(each.tokens)) == len(each.tokens) >= 2
            assert each.tokens[: len(constraint.prefix)] == list(constraint.prefix)
            assert not constraint.banned or 5 not in each.tokens
            assert each.weights.shape == (len(each.log_probs), len(source))
            assert len(each.log_probs) == len(each.tokens) + each.finished


def test_more_answers_than_the_beam_are_refused() -> None:
    with pytest.raises(ConfigError, match="n_best is larger"):
        search([Table()], pad([[4]]), Decoding(beam=2, n_best=3, refill=True), max_lengths=[3])
