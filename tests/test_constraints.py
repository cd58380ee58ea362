"""Hard constraints: never broken by any beam, and the exact best answer by a wide one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from antiphon.core.batch import EOS, Padded
from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError
from antiphon.inference.constraints import Constraint, _automaton, _shares
from antiphon.inference.search import Hypothesis, rescore, search
from test_search import Table, V, everything, one, sources, texts


def run(
    model: Table, source: Padded, constraints: list[Constraint], limit: int = 12, **settings: Any
) -> list[list[Hypothesis]]:
    limits = [limit] * len(constraints)
    return search([model], source, Decoding(**{"beam": 5, **settings}), max_lengths=limits, constraints=constraints)


def holds(tokens: list[int], phrase: tuple[int, ...]) -> bool:
    return any(tuple(tokens[at : at + len(phrase)]) == phrase for at in range(len(tokens)))


def phrases(draw: np.random.Generator, count: int, size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(draw.integers(4, size, draw.integers(1, 4)).tolist()) for _ in range(count))


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_required_is_always_there(beam: int) -> None:
    """Also where the model hates it, the limit is tight, phrases overlap or repeat tokens."""
    draw = np.random.default_rng(beam)
    source, model = sources(40), Table(beam, size=9)
    model.table[:, 6] -= 20
    asked = [Constraint(required=phrases(draw, int(draw.integers(0, 4)), 9)) for _ in range(40)]
    for limit in (1, 4, 15):
        for mine, constraint in zip(run(model, source, asked, limit, beam=beam, n_best=beam), asked, strict=True):
            assert mine
            for answer in mine:
                assert all(holds(answer.tokens, phrase) for phrase in constraint.required)
                assert len(answer.tokens) <= max(limit, constraint.needed)


@pytest.mark.parametrize("beam", [1, 5])
def test_required_words_of_one_sentence_are_nothing_to_the_others(beam: int) -> None:
    source, model = sources(20), Table(3, size=9)
    asked = [Constraint(required=((4, 5),)) if row % 2 else Constraint() for row in range(20)]
    for limit in (1, 2, 4, 9):
        together = run(model, source, asked, limit, beam=beam)
        for row in range(0, 20, 2):
            [alone] = run(model, one(source, row), [Constraint()], limit, beam=beam)
            told = [[(answer.tokens, answer.finished) for answer in mine] for mine in (together[row], alone)]
            assert told[0] == told[1], (limit, row)


def test_required_by_a_wide_beam_is_the_exact_argmax() -> None:
    """Against enumeration of all answers of up to five tokens that hold the phrases."""
    source, settings = sources(3), Decoding()
    targets = everything(5)
    for row, required in enumerate([((4, 5),), ((6,), (5, 4)), ((4, 4, 6),)]):
        alone = one(source, row)
        allowed = [target for target in targets if all(holds(target, phrase) for phrase in required)]
        tiled = Padded(alone.values.expand(len(allowed), -1), alone.lengths_B.expand(len(allowed)))
        best = max(rescore([Table(2)], tiled, allowed, settings), key=lambda answer: answer.score)
        [[found]] = run(Table(2), alone, [Constraint(required=required)], 7, beam=4000)
        assert found.score >= best.score - 1e-6
        if len(found.tokens) <= 5:
            assert found.tokens == best.tokens


def test_allocation_finds_better_answers_than_forcing_at_the_end() -> None:
    """With one slot a bank, phrases enter where they fit, not only when the length runs out."""
    source, model = sources(30), Table(7, size=12)
    draw = np.random.default_rng(1)
    asked = [Constraint(required=phrases(draw, 1, 12)) for _ in range(30)]
    few, many = (run(model, source, asked, 20, beam=beam) for beam in (1, 10))
    assert np.mean([mine[0].score for mine in many]) > np.mean([mine[0].score for mine in few])
    assert np.mean([len(mine[0].tokens) for mine in many]) < 19


def test_banned_is_never_there_and_nothing_else_is_lost() -> None:
    draw = np.random.default_rng(5)
    source, model = sources(40), Table(3, size=8)
    free = run(model, source, [Constraint()] * 40)
    asked = [Constraint(banned=phrases(draw, 2, 8)) for _ in range(40)]
    for settings in ({}, {"beam": 1}, {"sample": True, "n_best": 3}, {"beam": 4, "groups": 2}):
        for mine, constraint in zip(run(model, source, asked, **settings), asked, strict=True):
            for answer in mine:
                assert not any(holds(answer.tokens, phrase) for phrase in constraint.banned)
    banned = run(model, source, asked)
    changed = [before[0].tokens != after[0].tokens for before, after in zip(free, banned, strict=True)]
    needed = [any(holds(before[0].tokens, phrase) for phrase in constraint.banned)
              for before, constraint in zip(free, asked, strict=True)]  # fmt: skip
    assert any(needed)
    assert all(change for change, need in zip(changed, needed, strict=True) if need)


def test_prefix_is_forced_and_scored() -> None:
    source, model = sources(20), Table(3)
    asked = [Constraint(prefix=((4, 5, 6) * 3)[: row % 7]) for row in range(20)]
    for settings in ({}, {"beam": 1}, {"sample": True}, {"beam": 4, "groups": 2}):
        for row, (mine, constraint) in enumerate(zip(run(model, source, asked, 5, **settings), asked, strict=True)):
            answer = mine[0]
            assert tuple(answer.tokens[: len(constraint.prefix)]) == constraint.prefix
            if answer.finished:
                again = rescore([model], one(source, row), [answer.tokens], Decoding())[0]
                assert answer.score == pytest.approx(again.score, abs=1e-5)


def test_all_together_and_whatever_the_batch() -> None:
    draw = np.random.default_rng(8)
    source, model = sources(20), Table(4, size=10, noise=1e-6, flat=True)
    asked = [Constraint((4,) * (row % 3), phrases(draw, row % 3, 7), ((7, 8), (9,))) for row in range(20)]
    together = run(model, source, asked, 10, n_best=2, no_repeat=4, min_length=3)
    for row, mine in enumerate(together):
        assert texts(run(model, one(source, row), [asked[row]], 10, n_best=2, no_repeat=4, min_length=3)) == texts(
            [mine]
        )
        for answer in mine:
            assert all(holds(answer.tokens, phrase) for phrase in asked[row].required)
            assert not any(holds(answer.tokens, phrase) for phrase in asked[row].banned)


def test_automaton_is_string_matching() -> None:
    phrase, tokens = (4, 4, 5, 4, 4, 6), [4, 5, 6]
    table = _automaton(phrase, tokens)
    draw = np.random.default_rng(0)
    for _ in range(200):
        text = draw.choice(tokens, 12).tolist()
        state = 0
        for token in text:
            state = int(table[state, tokens.index(token)])
        assert (state == len(phrase)) == holds(text, phrase)


def test_shares_use_every_slot() -> None:
    draw = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 6, (200, 5), generator=draw)
    room = torch.randint(0, 9, (200,), generator=draw)
    shares = _shares(counts, room)
    assert (shares <= counts).all()
    assert torch.equal(shares.sum(1), torch.minimum(room, counts.sum(1)))
    equal = _shares(torch.full((1, 4), 100), torch.tensor([8]))
    assert equal.tolist() == [[2, 2, 2, 2]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constraint(prefix=(EOS,)),
        lambda: Constraint(required=((),)),
        lambda: Constraint(required=((5, 4, 6),), banned=((4, 6),)),
        lambda: Constraint(prefix=(5,), banned=((5,),)),
        lambda: run(Table(), sources(1), [Constraint(required=((4,),))], sample=True),
        lambda: run(Table(), sources(1), [Constraint(required=((4,),))], beam=4, groups=2),
        lambda: run(Table(), sources(1), [Constraint(prefix=(V,))]),
    ],
)
def test_contradictions_are_errors(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()
