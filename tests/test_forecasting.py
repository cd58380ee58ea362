"""Heads of numbers: their losses, any decoder beneath them, and rolling out. Each check is seen to fail."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from antiphon.core.batch import Batch, Padded, Steps, of_sentence
from antiphon.core.config import Decoding, Training
from antiphon.core.errors import ConfigError
from antiphon.core.numbers import LEVELS
from antiphon.inference.rollout import roll_out
from antiphon.models import forecasting, frontends
from antiphon.models.forecasting import LEAST, GaussianHead, NumbersHead, QuantileHead
from antiphon.models.seq2seq import Seq2Seq, build
from antiphon.training.objectives import Likelihood, sampled
from antiphon.training.runner import Local, Step
from forecasts import COVARIATES, FEATURES, LENGTHS, batch, check_padding, check_steps, network, told, waves
from runs import configured

DECODERS = ("rnn", "lstm", "gru", "conv", "transformer", "ssru")
KINDS = ("gaussian", "quantile")


def head(kind: str, ends: bool = False) -> tuple[NumbersHead, Steps]:
    torch.manual_seed(1)
    made: NumbersHead = forecasting.NUMBERS_HEADS[kind](5, FEATURES, ends)
    return made, Steps(2 * torch.randn(len(LENGTHS), max(LENGTHS), 5), torch.zeros(0))


def test_the_gaussian_loss_is_that_of_torch() -> None:
    made, steps = head("gaussian")
    target = batch().target
    mean, raw = made.output(steps.hidden_BTD).chunk(2, -1)
    nats = -Normal(mean, torch.nn.functional.softplus(raw) + LEAST).log_prob(target.values).sum(-1)
    loss = made.loss(steps, target)
    torch.testing.assert_close(loss.total, nats[target.mask_BL].sum())
    assert loss.count == sum(LENGTHS)
    quantiles = Normal(mean[..., None], torch.nn.functional.softplus(raw)[..., None] + LEAST).icdf(torch.tensor(LEVELS))
    torch.testing.assert_close(made.quantiles(steps), quantiles, atol=1e-4, rtol=1e-4)


def test_the_quantile_loss_by_hand() -> None:
    made, steps = head("quantile")
    target, quantiles = batch().target, made.quantiles(steps).detach()
    total = 0.0
    for row, length in enumerate(LENGTHS):
        for step in range(length):
            for feature in range(FEATURES):
                over = target.values[row, step, feature] - quantiles[row, step, feature]
                pinball = [level * d if d > 0 else (level - 1) * d for level, d in zip(LEVELS, over, strict=True)]
                total += 2 * float(sum(pinball)) / len(LEVELS)
    torch.testing.assert_close(made.loss(steps, target).total, torch.tensor(total), rtol=1e-4, atol=1e-4)


def test_the_loss_of_the_end_is_added() -> None:
    made, steps = head("gaussian", ends=True)
    target, chance = batch().target, made.end(steps).detach()
    likely = sum(math.log(chance[row, length - 1]) + sum(math.log(1 - chance[row, step]) for step in range(length - 1))
                 for row, length in enumerate(LENGTHS))  # fmt: skip
    rest = made.misses(steps, target.values)[target.mask_BL].sum()
    torch.testing.assert_close(made.loss(steps, target).total, rest - likely, rtol=1e-4, atol=1e-4)


def test_quantiles_never_cross_and_the_median_is_the_guess() -> None:
    made, steps = head("quantile")
    assert isinstance(made, QuantileHead)
    assert (made.quantiles(steps).diff(dim=-1) > 0).all()
    torch.testing.assert_close(made.point(steps), made.quantiles(steps)[..., LEVELS.index(0.5)])


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_quantiles(kind: str) -> None:
    made, steps = head(kind)
    one = Steps(steps.hidden_BTD[:1, :1], steps.weights_BTS)
    for place in (0, 4, 9, 18):
        chance = torch.full((1, 1, FEATURES), LEVELS[place])
        torch.testing.assert_close(made.draw(one, chance), made.quantiles(one)[..., place], atol=1e-4, rtol=1e-4)
    chances = torch.linspace(1e-6, 1 - 1e-6, 999)[:, None, None].expand(-1, 1, FEATURES)
    drawn = made.draw(Steps(one.hidden_BTD.expand(999, -1, -1), one.weights_BTS), chances)
    assert (drawn.diff(dim=0) > 0).all()
    assert drawn.isfinite().all()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_decoder_says_numbers(decoder: str, kind: str) -> None:
    made = network(decoder, kind)
    check_steps(made, batch())
    check_padding(made, batch())


@pytest.mark.parametrize("decoder", DECODERS)
def test_any_decoder_is_told_what_is_known(decoder: str) -> None:
    made, given = network(decoder, "gaussian", model__covariates=COVARIATES), told(batch())
    check_steps(made, given)
    check_padding(made, given)
    others = {"ahead": Padded(given.context["ahead"].values.clone(), given.context["ahead"].lengths_B)}
    others["ahead"].values[0, 2] += 1
    before, after = (made.head.point(made(each)[0]) for each in (given, Batch(given.source, given.target, others)))
    assert torch.equal(before[1:], after[1:])
    torch.testing.assert_close(before[0, :2], after[0, :2])
    assert (before[0, 2] - after[0, 2]).abs().max() > 1e-4


@pytest.mark.parametrize("decoder", DECODERS)
def test_what_is_known_is_told_to_every_hypothesis(decoder: str) -> None:
    made, given = network(decoder, "gaussian", model__covariates=COVARIATES).eval(), told(batch())
    with torch.no_grad():
        memory = made.encode(given.source, given.context)
        one, _ = made.decode(given.inputs_BT[:, :1], memory, made.start(memory))
        state = {name: value if of_sentence(name) else value.repeat_interleave(3, 0)
                 for name, value in made.start(memory).items()}  # fmt: skip
        several, _ = made.decode(given.inputs_BT[:, :1].repeat_interleave(3, 0), memory, state)
    torch.testing.assert_close(several.hidden_BTD, one.hidden_BTD.repeat_interleave(3, 0))


@pytest.mark.parametrize("attention", ["none", "coverage"])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_with_other_attentions_and_positions(attention: str, positions: str) -> None:
    for decoder in ("conv", "transformer"):
        check_steps(network(decoder, "gaussian", model__attention=attention, model__positions=positions), batch())


FRONTEND = frontends.NumbersFrontend.forward


def begins_anew(self: Any, values: torch.Tensor, start: Any = None, ahead: Padded | None = None) -> torch.Tensor:
    return FRONTEND(self, values, None, ahead)


def reads_padding(self: Any, values: torch.Tensor, start: Any = None, ahead: Padded | None = None) -> torch.Tensor:
    longest = ahead and torch.full_like(ahead.lengths_B, ahead.values.shape[1])
    return FRONTEND(self, values, start, ahead and Padded(ahead.values, longest))


def counts_padding(self: NumbersHead, steps: Steps, target: Padded) -> torch.Tensor:
    return self.misses(steps, target.values)


def ends_late(self: NumbersHead, steps: Steps, target: Padded) -> torch.Tensor:
    return LOSSES(self, steps, Padded(target.values, torch.full_like(target.lengths_B, target.values.shape[1])))


LOSSES = NumbersHead.losses


@pytest.mark.parametrize(
    ("owner", "name", "value", "check"),
    [
        (frontends.NumbersFrontend, "forward", begins_anew, check_steps),
        (NumbersHead, "losses", counts_padding, check_padding),
        (NumbersHead, "losses", ends_late, check_padding),
    ],
)
def test_mistakes_are_seen(owner: Any, name: str, value: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = network("gru", "gaussian")
    check(made, batch())
    monkeypatch.setattr(owner, name, value)
    with pytest.raises(AssertionError):
        check(made, batch())


def test_what_is_known_of_others_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network("gru", "gaussian", model__covariates=COVARIATES)
    monkeypatch.setattr(frontends.NumbersFrontend, "forward", reads_padding)
    with pytest.raises(AssertionError):
        check_padding(made, told(batch()))


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_a_batch_have_its_gradient(kind: str) -> None:
    made, found = network("gru", kind), []
    for limit in (None, 20):
        made.zero_grad()
        local = Local(Training())
        losses = local.accumulate(Likelihood(Training(label_smoothing=0.0)), {"model": made},
                                  Step([batch(), batch()], (1, 1), limit=limit))  # fmt: skip
        found.append((losses["model"].total, losses["model"].count, made.head.output.weight.grad.clone()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(found[0][2], found[1][2], atol=1e-4, rtol=1e-4)
    assert found[0][1] == found[1][1] == 2 * sum(LENGTHS)


@pytest.mark.parametrize("decoder", ["gru", "transformer"])
def test_scheduled_sampling_reads_the_models_own_guesses(decoder: str) -> None:
    made, given = network(decoder, "gaussian"), batch()
    torch.testing.assert_close(sampled(made, given, 0.0).inputs_BT, given.inputs_BT)
    inputs = sampled(made, given, 1.0).inputs_BT
    steps, memory = made(given)
    if decoder == "gru":
        steps, _ = made.decode(inputs, memory, made.start(memory))
    torch.testing.assert_close(inputs[:, 1:], made.head.point(steps)[:, :-1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(inputs[:, 1:], given.inputs_BT[:, 1:])


# Rolling out

PLAIN = Decoding(beam=1)


def rolled(
    made: Seq2Seq, given: Batch, limits: list[int], decoding: Decoding = PLAIN, ids: list[int] | None = None
) -> Any:
    return [best for [best] in roll_out([made], given.source, decoding, max_lengths=limits, sample_ids=ids)]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_forecast_is_what_the_model_says_after_its_own_guesses(decoder: str) -> None:
    made, given = network(decoder, "gaussian", ends=False), batch()
    found = rolled(made, given, [6] * 4)
    values = torch.from_numpy(np.stack([each.forecast.values_TF for each in found])).float()
    forced = Batch(given.source, Padded(values, torch.full((4,), 6)))
    with torch.no_grad():
        steps, _ = made(forced)
    torch.testing.assert_close(made.head.point(steps), values, atol=1e-5, rtol=1e-4)
    quantiles = torch.from_numpy(np.stack([each.forecast.quantiles_TFQ for each in found])).float()
    torch.testing.assert_close(made.head.quantiles(steps), quantiles, atol=1e-4, rtol=1e-4)
    assert all(each.finished and len(each.forecast.values_TF) == 6 for each in found)
    assert [each.weights.shape for each in found] == [(6, length) for length in given.source.lengths_B]


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("decoder", ["lstm", "transformer", "conv"])
def test_a_forecast_does_not_depend_on_what_is_beside_it(decoder: str, sample: bool) -> None:
    made, given = network(decoder, "quantile"), batch()
    decoding = replace(PLAIN, sample=sample, samples=7)
    together = rolled(made, given, [6, 5, 4, 3], decoding)
    for row, limit in enumerate([6, 5, 4, 3]):
        [alone] = rolled(made, given.rows(torch.tensor([row])), [limit], decoding, [row])
        np.testing.assert_allclose(alone.forecast.values_TF, together[row].forecast.values_TF, atol=1e-5)
        assert len(alone.forecast.paths) == len(together[row].forecast.paths) == (7 if sample else 0)
        for one, other in zip(alone.forecast.paths, together[row].forecast.paths, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_paths_follow_the_distribution_and_the_seed() -> None:
    made, given = network("gru", "gaussian", ends=False), batch().rows(torch.tensor([1]))
    [guess] = rolled(made, given, [3])
    decoding = replace(PLAIN, sample=True, samples=4000)
    [drawn] = rolled(made, given, [3], decoding)
    first = np.stack(drawn.forecast.paths)[:, 0]
    deviation = guess.forecast.deviation_TF[0]
    np.testing.assert_allclose(first.mean(0), guess.forecast.values_TF[0], atol=4 * deviation.max() / 4000**0.5)
    np.testing.assert_allclose(first.std(0), deviation, rtol=0.05)
    np.testing.assert_allclose(drawn.forecast.quantiles_TFQ[0, :, LEVELS.index(0.9)], np.quantile(first, 0.9, axis=0))
    [again] = rolled(made, given, [3], decoding)
    np.testing.assert_array_equal(again.forecast.values_TF, drawn.forecast.values_TF)
    [other] = rolled(made, given, [3], replace(decoding, seed=2))
    assert not np.allclose(other.forecast.values_TF, drawn.forecast.values_TF)
    [cold] = rolled(made, given, [3], replace(decoding, temperature=1e-6))
    np.testing.assert_allclose(cold.forecast.values_TF, guess.forecast.values_TF, atol=1e-4)


def test_an_answer_ends_where_it_is_likelier_to_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    made, given = network("gru", "gaussian"), batch()
    monkeypatch.setattr(GaussianHead, "end", lambda self, steps: torch.full(steps.hidden_BTD.shape[:2], 0.2))
    found = rolled(made, given, [9, 2, 4, 9])
    assert [len(each.forecast.values_TF) for each in found] == [4, 2, 4, 4]  # 0.8 ** 3 > 0.5 > 0.8 ** 4
    assert [each.finished for each in found] == [True, False, True, True]
    longer = rolled(made, given, [9, 9, 9, 9], replace(PLAIN, min_length=6))
    assert [len(each.forecast.values_TF) for each in longer] == [6] * 4
    [drawn, *_] = rolled(made, given, [30] * 4, replace(PLAIN, sample=True, samples=1000))
    lengths = [len(path) for path in drawn.forecast.paths]
    assert abs(float(np.mean(lengths)) - 5) < 0.5  # that of a coin that ends one step in five
    assert len(drawn.forecast.values_TF) == int(np.median(lengths))


def test_an_ensemble_is_the_mean() -> None:
    first, second = network("gru", "gaussian", ends=False), network("lstm", "gaussian", ends=False)
    given = batch().source
    [[both], *_] = roll_out([first, second], given, PLAIN, max_lengths=[1] * 4)
    alone = [roll_out([each], given, PLAIN, max_lengths=[1] * 4)[0][0] for each in (first, second)]
    mean = sum(each.forecast.values_TF for each in alone) / 2
    np.testing.assert_allclose(both.forecast.values_TF, mean, atol=1e-5)


def test_text_and_numbers_are_not_mixed_up() -> None:
    words = build(configured("gru").model, 20, 20, seed=1)
    with pytest.raises(ConfigError, match="a model of text makes no numbers"):
        roll_out([words], Padded(torch.tensor([[5]]), torch.tensor([1])), PLAIN, max_lengths=[3])
    made = network("gru", "gaussian")
    with pytest.raises(ConfigError, match="is for models of text"):
        made.log_probs(*made(batch()))


def test_waves_are_what_they_say() -> None:
    pairs = waves(3, ragged=True)
    assert pairs == waves(3, ragged=True)
    assert all(6 <= len(target.split()) <= 12 for _, target in pairs)
