"""Connectionist temporal classification against all alignments there are: its loss, its prefixes, its searches."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from antiphon.core.batch import BOS, EOS, PAD, Loss, Memory, pad
from antiphon.core.config import Config, Decoding, Training
from antiphon.core.errors import ConfigError
from antiphon.core.keys import override
from antiphon.data.corpus import Pair
from antiphon.inference.beam import Beams
from antiphon.inference.bundle import load
from antiphon.inference.constraints import Constraint
from antiphon.inference.ctc import NEVER, Joint, begin, changes, follow
from antiphon.inference.endings import _ranked
from antiphon.inference.hearing import align
from antiphon.inference.hypothesis import Hypothesis
from antiphon.inference.predictor import Predictor
from antiphon.inference.rerank import _error
from antiphon.inference.search import rescore, search
from antiphon.inference.selection import MARGIN
from antiphon.models.ctc import CTCHead
from antiphon.models.seq2seq import Seq2Seq, build
from antiphon.training.distillation import Distillation
from antiphon.training.objectives import Likelihood, Unlikelihood, r_drop
from antiphon.training.recipes import propose
from antiphon.training.statistics import Statistics
from antiphon.training.trainer import train
from conformance import ENCODERS, made, model
from runs import Recorder, configured, prepared, words

V, S = 6, 4
A, B = 4, 5


def chances(rows: int = 2, length: int = S, size: int = V) -> Tensor:
    """Log probabilities `[B, S, V]` that differ a good deal."""
    return torch.randn(rows, length, size, generator=torch.Generator().manual_seed(4)).mul(2).log_softmax(2)


def heard(log_probs_SV: Tensor) -> dict[tuple[int, ...], float]:
    """The probability of all that the states can say: the sum over its alignments, each state by itself."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs_SV.shape[1]), repeat=len(log_probs_SV)):
        text = tuple(token for token, _ in itertools.groupby(path) if token != PAD)
        nats = sum(float(log_probs_SV[place, token]) for place, token in enumerate(path))
        found[text] = found.get(text, 0.0) + math.exp(nats)
    return found


def logged(chance: float) -> float:
    return math.log(chance) if chance else NEVER


@pytest.mark.parametrize("text", [(), (A,), (A, A), (A, B, A), (A, A, A), (B, B, 1, 1), (1, A, B, A, B)], ids=str)
def test_prefixes_score_as_the_sum_over_all_alignments(text: tuple[int, ...]) -> None:
    """Beside padding, and beside another hypothesis of the same sentence; `(A, A, A)` is longer than its source."""
    log_probs, lengths = chances(), torch.tensor([S, S - 1])
    state = begin(log_probs, torch.arange(S) < lengths[:, None])
    state = {
        name: value if name.startswith("memory") else value.repeat_interleave(2, 0) for name, value in state.items()
    }
    state = follow(state, torch.full((4,), BOS))
    for token in text:
        state = follow(state, torch.tensor([token, A, token, B]))
    for row, length in enumerate(lengths.tolist()):
        known, found = heard(log_probs[row, :length]), changes(state)[2 * row]

        def begun(text: tuple[int, ...], known: dict[tuple[int, ...], float] = known) -> float:
            return logged(sum(chance for whole, chance in known.items() if whole[: len(text)] == text))

        assert float(state["ctc.prefix"][2 * row]) == pytest.approx(begun(text), abs=1e-6)
        wanted = [begun((*text, token)) for token in range(V)]
        wanted[PAD], wanted[EOS] = NEVER, logged(known.get(text, 0.0))
        torch.testing.assert_close(found, torch.tensor(wanted).double() - begun(text), atol=2e-6, rtol=1e-6)


def test_what_is_heard_of_long_sources_is_a_number() -> None:
    """Hundreds of states, some of them as sure as fp32 can tell."""
    log_probs = torch.randn(1, 700, 9, generator=torch.Generator().manual_seed(1)).mul(12).log_softmax(2)
    state = begin(log_probs, torch.ones(1, 700, dtype=torch.bool))
    for token in [BOS, *[4, 5, 5, 8] * 20]:
        before, state = state, follow(state, torch.tensor([token]))
        found = changes(state)
        assert found.isfinite().all()
        assert found.max() <= 1e-6, "what begins a longer hypothesis begins the shorter one"
        if token != BOS:
            moved = state["ctc.prefix"] - before["ctc.prefix"]
            assert changes(before)[0, token] >= moved - 1e-6
    nats = torch.nn.functional.ctc_loss(log_probs.double()[0], torch.tensor([4, 5, 5, 8] * 20), [700], [80], blank=PAD,
                                        reduction="sum")  # fmt: skip
    assert float(state["ctc.prefix"] + found[0, EOS]) == pytest.approx(-float(nats), rel=1e-5)


def test_targets_are_too_short_by_their_length_and_not_by_their_loss() -> None:
    head = CTCHead(2, V)
    torch.nn.init.zeros_(head.output.weight)
    torch.nn.init.zeros_(head.output.bias)
    with torch.no_grad():
        head.output.bias[A] = 200.0
    heard = Memory(torch.zeros(3, 2, 2), torch.tensor([[True, False], [True, True], [True, True]]), torch.zeros(3, 2))
    nats, short = head.loss(heard, pad([[A, EOS], [A, A, EOS], [A, B, EOS]]))
    assert short == 1, "A A has no room for the blank between"
    assert nats.isfinite()


def test_a_state_that_is_all_but_sure_leaves_room_for_another_opinion() -> None:
    log_probs = torch.full((1, 2, V), -300.0)
    log_probs[:, :, A] = 0.0
    state = follow(begin(log_probs, torch.ones(1, 2, dtype=torch.bool)), torch.tensor([B]))
    assert -100 < float(state["ctc.prefix"]) < -60


def head_of(log_probs_BSV: Tensor, lengths: list[int]) -> tuple[CTCHead, Memory]:
    """A head that says these log probabilities, and the memory that it says them of."""
    head = CTCHead(V, V)
    with torch.no_grad():
        head.output.weight.copy_(torch.eye(V))
        head.output.bias.zero_()
    mask = torch.arange(log_probs_BSV.shape[1]) < torch.tensor(lengths)[:, None]
    return head, Memory(log_probs_BSV.clone().requires_grad_(), mask, log_probs_BSV[:, 0])


def test_the_loss_is_the_sum_over_all_alignments() -> None:
    """The end mark is not heard; a target that its source has no room for adds nothing, and is counted."""
    texts, lengths = [(A, B), (A, A), (B, B), (1, A, B, A)], [4, 3, 2, 3]
    log_probs = chances(len(texts))
    head, memory = head_of(log_probs, lengths)
    total, short = head.loss(memory, pad([[*text, EOS] for text in texts]))
    known = [heard(log_probs[row, : lengths[row]]).get(text, 0.0) for row, text in enumerate(texts)]
    assert float(total.detach()) == pytest.approx(-sum(math.log(chance) for chance in known if chance), rel=1e-5)
    assert (short, known[2:]) == (2, [0.0, 0.0])
    total.backward()
    gradient = memory.states_BSD.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert not gradient[~memory.mask_BS].any()
    assert not gradient[2:].any()
    plain = log_probs[0].clone().requires_grad_()
    torch.nn.functional.ctc_loss(plain.log_softmax(1), torch.tensor([A, B]), [4], [2], reduction="sum").backward()
    torch.testing.assert_close(gradient[0], plain.grad)


@pytest.fixture
def network() -> Seq2Seq:
    return made(model("gru", "gru", ctc=True))[0]


BATCH = made(model("gru", "gru", ctc=True))[1]


def test_a_share_of_the_loss_is_that_of_the_head(network: Seq2Seq) -> None:
    said = network.loss(BATCH, smoothing=0.1)
    both = network.loss(BATCH, smoothing=0.1, ctc=0.3)
    nats, short = network.ctc.loss(network.encode(BATCH.source), BATCH.target) if network.ctc else (torch.zeros(()), 0)
    assert (short, both.sums["ctc_too_short"]) == (1, 1)
    torch.testing.assert_close(both.total, 0.7 * said.total + 0.3 * nats)
    assert both.count == said.count
    parts = [network.loss(BATCH.rows(torch.tensor([row])), smoothing=0.1, ctc=0.3) for row in range(3)]
    whole = sum(parts[1:], start=parts[0])
    torch.testing.assert_close(whole.total, both.total)
    assert whole.sums == pytest.approx(both.sums)


def test_every_objective_has_its_share(network: Seq2Seq) -> None:
    nats = 0.3 * network.loss(BATCH, ctc=0.3).sums["ctc"]

    def total(loss: Loss) -> float:
        return float(loss.total.detach())

    for kind in (Likelihood, Unlikelihood):
        plain, heard = (kind(Training(ctc=share))({"model": network}, BATCH, 0.0)["model"] for share in (0.0, 0.3))
        assert total(heard) == pytest.approx(0.7 * total(plain) + nats, rel=1e-5)
        facts = kind(Training()).facts(heard)
        assert (facts["ctc"], facts["ctc_too_short"]) == (pytest.approx(nats / 0.3 / BATCH.count), 1)
    taught = [
        Distillation(Training(ctc=share), [network])({"model": network}, BATCH, 0.0)["model"] for share in (0, 0.3)
    ]
    assert total(taught[1]) == pytest.approx(0.7 * total(taught[0]) + nats, rel=1e-5)
    twice = [r_drop(network, BATCH, 1.0, 0.0, 0.0, share) for share in (0.0, 0.3)]
    assert total(twice[1]) == pytest.approx(0.7 * total(twice[0]) + nats, rel=1e-5)
    assert twice[1].sums["ctc_too_short"] == 1


@torch.no_grad()
@pytest.mark.parametrize("decoder", ["gru", "transformer"])
def test_one_step_at_a_time_is_all_steps_at_once(decoder: str) -> None:
    network, batch = made(model("gru", decoder, ctc=True))
    both, inputs = Joint(network, 0.3), batch.inputs_BT
    memory = both.encode(batch.source)
    steps, _ = both.decode(inputs, memory, both.start(memory))
    state, found = both.start(memory), []
    for step in range(inputs.shape[1]):
        part, state = both.decode(inputs[:, step : step + 1], memory, state)
        found.append(both.log_probs(part, memory))
    torch.testing.assert_close(torch.cat(found, 1), both.log_probs(steps, memory), atol=2e-5, rtol=1e-5)
    assert steps.rows(torch.tensor([2, 0])).changes_BTV.equal(steps.changes_BTV[[2, 0]])


SOURCES = [[5, 4, 5, EOS], [4, EOS], [4, 5, 4, EOS]]
TEXTS = [list(text) for size in range(4) for text in itertools.product([1, A, B], repeat=size)]


def tiny(seed: int = 1) -> Seq2Seq:
    network = build(model("gru", "gru", ctc=True), V, V, seed=seed).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(3)
    return network


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_a_wide_beam_finds_the_best_joint_score_of_all_texts(weight: float) -> None:
    """The score is made anew of the decoder's own and of the sum over all alignments."""
    network, settings = tiny(), Decoding(beam=200, n_best=3, length_penalty=0.0, ctc=weight, thorough=True)
    assert network.ctc is not None
    found = search([network], pad(SOURCES), settings, max_lengths=[3] * 3)
    for row, answers in enumerate(found):
        source = pad(SOURCES[row : row + 1])
        known = heard(network.ctc.log_probs(network.encode(source))[0])
        scores = {}
        for text in TEXTS:
            said = rescore([network], source, [text], Decoding(length_penalty=0.0))[0].score
            scores[tuple(text)] = (1 - weight) * said + weight * logged(known.get(tuple(text), 0.0))
            both = rescore([network], source, [text], settings)[0].score
            assert both == pytest.approx(scores[tuple(text)], abs=1e-4, rel=1e-6)
        best = sorted(scores, key=lambda text: -scores[text])[:3]
        assert [tuple(answer.tokens) for answer in answers] == best
        assert [answer.score for answer in answers] == pytest.approx([scores[text] for text in best], abs=1e-4)


SETTINGS = [
    {"beam": 4, "n_best": 4}, {"beam": 4, "groups": 2, "n_best": 2}, {"beam": 3, "min_length": 5}, {"beam": 1},
    {"beam": 3, "no_repeat": 2, "length_penalty": 0.6}, {"beam": 3, "coverage_penalty": 0.2, "thorough": True},
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("members", [1, 2], ids=["one", "ensemble"])
def test_answers_do_not_depend_on_the_batch(settings: dict[str, float], members: int) -> None:
    models = [made(model(encoder, "gru", ctc=True))[0] for encoder in ENCODERS[-members:]]
    decoding, draw = Decoding(ctc=0.4, **settings), torch.Generator().manual_seed(3)  # type: ignore[arg-type]
    sources = [[*torch.randint(4, 20, (length,), generator=draw).tolist(), EOS] for length in (30, 2, 17, 0, 9, 9)]
    together = search(models, pad(sources), decoding, max_lengths=[8] * 6)
    for source, answers in zip(sources, together, strict=True):
        [alone] = search(models, pad([source]), decoding, max_lengths=[8])
        assert [answer.tokens for answer in alone] == [answer.tokens for answer in answers]
        for answer in (each for each in answers if each.finished):
            again = rescore(models, pad([source]), [answer.tokens], decoding)[0]
            assert again.score == pytest.approx(answer.score, abs=1e-4, rel=1e-6)


def test_float_error_adds_up_over_states_as_over_tokens(network: Seq2Seq) -> None:
    """A share of 0.5 makes 300 states 75 tokens more: for a beam, in the last ranking, and beside another model."""
    settings = Decoding(ctc=0.5, length_penalty=0.0)
    ends = (np.zeros(2, int), np.array([4, 5]), np.array([0, 1]), np.array([-1.0, -1.001]), np.ones(2, int))
    assert _ranked(np.arange(2), ends, settings, 5, 300)[1] == pytest.approx(0.001 / math.sqrt(6 + 75))
    beams = Beams([network], pad([[4] * 300, [4] * 100]), settings, [9, 9], {}, [Constraint(), Constraint()], [0, 1])
    beams._note(torch.ones(2), beams.active_A, 5)
    assert beams.gaps.tolist() == pytest.approx([1 / math.sqrt(6 + 75), 1 / math.sqrt(6 + 25)])
    found = Hypothesis([4] * 5, 0.0, [0.0] * 6, np.zeros((6, 300)))
    assert _error(found, settings) == pytest.approx(MARGIN / 2 * math.sqrt(6 + 75))


def test_constraints_hold(network: Seq2Seq) -> None:
    asked = [Constraint(prefix=(7, 7)), Constraint(required=((9, 8),)), Constraint(banned=((4,), (5,)))]
    sources = pad([[5, 6, 7, 8, EOS], [8, 9, 10, 11, 12, 13, EOS], [5, 4, EOS]])
    found = search([network], sources, Decoding(beam=4, ctc=0.3), max_lengths=[6] * 3, constraints=asked)
    tokens = [answers[0].tokens for answers in found]
    assert tokens[0][:2] == [7, 7]
    assert (9, 8) in itertools.pairwise(tokens[1])
    assert not {4, 5} & set(tokens[2])


def test_what_has_no_room_can_still_be_forced(network: Seq2Seq) -> None:
    [[answer]] = search([network], pad([[EOS]]), Decoding(beam=2, ctc=0.3, min_length=4), max_lengths=[6])
    assert len(answer.tokens) >= 4
    assert math.isfinite(answer.score)


def test_the_head_decides_by_its_share(network: Seq2Seq) -> None:
    def answers(weight: float) -> list[list[Hypothesis]]:
        return search([network], BATCH.source, Decoding(beam=3, ctc=weight), max_lengths=[6] * 3)

    assert [each[0].tokens for each in answers(0.0)] != [each[0].tokens for each in answers(0.9)]


def test_what_cannot_go_together_is_said() -> None:
    deaf, source = made(model("gru", "gru"))[0], pad([[5, EOS]])
    with pytest.raises(ConfigError, match=r"needs a model with a CTC head.*model\.ctc=true"):
        search([deaf], source, Decoding(ctc=0.3), max_lengths=[3])
    with pytest.raises(ConfigError, match="no probabilities to sample from"):
        search([tiny()], source, Decoding(ctc=0.3, sample=True), max_lengths=[3])
    for settings, message in (
        ({"training.ctc": 0.3, "data.source.kind": "text"}, r"training\.ctc needs model\.ctc=true"),
        ({"decoding.ctc": 0.3, "model.ctc": False}, r"decoding\.ctc needs model\.ctc=true"),
        ({"training.ctc": 1.5, "model.ctc": True}, r"training\.ctc must be from 0 to 1"),
        ({"model.ctc": True, "model.head": "copy"}, "cannot copy"),
        ({"model.ctc": True, "model.knowledge.kind": "graph"}, "a graph has none"),
    ):
        with pytest.raises(ConfigError, match=message):
            override(Config(), settings)


def test_a_recipe_does_not_copy_beside_it() -> None:
    pairs = Statistics.of([Pair(f"a line {n} of text", f"line {n}") for n in range(50)])
    heads = {ctc: propose(override(Config(task="summarization"), {"model.ctc": ctc}), pairs)[0].model.head
             for ctc in (False, True)}  # fmt: skip
    assert heads == {False: "copy", True: "vocabulary"}


def test_a_run_learns_by_the_head_alone(tmp_path: Path) -> None:
    """The decoder gets no gradient: what is right in the answers comes from the head."""
    config = configured(
        "gru", model__ctc=True, training__ctc=1.0, decoding__ctc=1.0, training__steps=150, model__width=32,
        training__validate_every=150, training__metric="error", training__label_smoothing=0.0, model__dropout=0.0,
    )  # fmt: skip
    recorder, pairs = Recorder(), [(word, word) for word, _ in words(60)]
    train(config, *prepared(config, pairs), tmp_path / "run", observers=[recorder])
    first, last = recorder.steps[0].facts, recorder.steps[-1].facts
    assert last["ctc"] < 0.2 < first["ctc"]
    bundle = load(tmp_path / "run")
    asked = ["abcde", "bad", "ecab"]
    assert [answers[0].text for answers in Predictor(bundle, processes=1).predict(asked)] == asked
    deaf = build(dataclasses.replace(config.model, ctc=False), bundle.model.source_size, bundle.model.target_size)
    both = Predictor(bundle, backward=dataclasses.replace(bundle, network=deaf), processes=1)
    for answers in both.predict(asked, settings=Decoding(beam=3, ctc=0.5)):
        assert answers[0].backward is not None


def test_the_head_is_there_where_it_is_asked_for() -> None:
    plain, hearing = (build(model("gru", "gru", ctc=ctc), V, V, seed=2) for ctc in (False, True))
    weights = dict(hearing.named_parameters())
    for name, weight in plain.named_parameters():
        assert weights[name].shape == weight.shape
    assert {name for name in weights if name.startswith("ctc.")} == {"ctc.output.weight", "ctc.output.bias"}
    assert dataclasses.replace(hearing.config, ctc=False) == plain.config


@pytest.mark.parametrize("tokens", [[4], [4, 4], [4, 5, 4], [5, 5, 6]])
def test_an_alignment_is_the_likeliest_way(tokens: list[int]) -> None:
    """Against every way of saying the tokens in five states."""
    said = torch.randn(5, 7, generator=torch.Generator().manual_seed(len(tokens))).log_softmax(1)

    def told(way: tuple[int, ...]) -> list[int]:
        return [token for token, _ in itertools.groupby(way) if token]

    ways = [way for way in itertools.product(range(7), repeat=5) if told(way) == tokens]
    best = max(ways, key=lambda way: sum(float(said[state, token]) for state, token in enumerate(way)))
    starts = [state for state, token in enumerate(best) if token and (not state or best[state - 1] != token)]
    assert align(said.numpy(), tokens) == starts


def test_no_alignment_where_there_is_no_room() -> None:
    assert align(np.zeros((2, 7)), [4, 4]) == []
