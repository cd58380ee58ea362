"""Each rule of the doctor on a log made by hand: the fault is named first, and a healthy log is left in peace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from antiphon.data.columns import Pair
from antiphon.diagnosis.doctor import Finding, examine_live, optimization, pairs
from antiphon.diagnosis.doctor.findings import HIGH, SAID, Evidence, ranked
from antiphon.diagnosis.doctor.patient import Patient
from antiphon.diagnosis.doctor.weighing import lost_again, noise, second_half, smooth, sure
from antiphon.diagnosis.findings import Finding as Remark
from patients import STEPS, falling, layers, patient

DEEP = {"model__encoder__layers": 8, "model__decoder__layers": 8, "model__residual": False, "model__norm": "none"}
SPIKED = [0.5 + (20.0 if place in (120, 280) else 0.0) for place in range(STEPS)]
FLAT = falling(to=5.6)
COLOURS = ["red", "blue", "green", "black", "white", "grey", "brown", "pink", "gold", "silver", "purple", "orange"]
POISON = [{"row": 17, "loss": 9.0, "source": "x", "target": "y y y"}]


def looking(**facts: float) -> list[dict[str, object]]:
    """Probes at validation: attention, and how much other sources cost."""
    return [{"kind": "attention", "step": 400, **facts}, {"kind": "loss", "step": 400, "train": 2.0, "valid": 2.0,
                                                          "shuffled": 2.01}]  # fmt: skip


def active(**facts: float) -> list[dict[str, object]]:
    """Probes of one layer's units."""
    return layers(activations=[{"name": "encoder.layers.0", "what": "relu", "scale": 1.0, "dead": None,
                                "saturated": None, **facts}])  # fmt: skip


FAULTS: dict[str, Callable[[], Patient]] = {
    "rate too high": lambda: patient(np.concatenate([falling()[:200], np.full(200, 5.0)]), training__rate=0.1),
    "rate too low": lambda: patient(np.linspace(6, 5, STEPS), training__rate=1e-5),
    "no warm-up": lambda: patient(FLAT, training__warmup=0, model__norm="post"),
    "batch too small": lambda: patient(falling(noise=0.5), tokens=40, data__batch_tokens=64),
    "vanishing gradients": lambda: patient(FLAT, probes=layers(gradients=[1e-7 * 10**n for n in range(8)]), **DEEP),
    "exploding gradients": lambda: patient(falling(), norms=[0.5 if n % 9 else 900.0 for n in range(STEPS)],
                                           training__clip=0),
    "poisonous batch": lambda: patient(norms=SPIKED, probes=layers(pairs=POISON)),
    "frozen weights": lambda: patient(probes=layers(ratio=0.0)),
    "dead units": lambda: patient(probes=active(dead=0.95)),
    "saturated gates": lambda: patient(probes=active(saturated=0.99)),
    "overfitting": lambda: patient(falling(to=0.05), valid=[4, 3, 2, 1.5, 1.6, 2, 2.5, 3, 3.2, 3.4],
                                   model__dropout=0.0),
    "too much regularization": lambda: patient(FLAT, model__dropout=0.85),
    "model too small": lambda: patient(falling(to=4), model__width=8),
    "no positions": lambda: patient(falling(to=4), model__positions="none"),
    "no attention": lambda: patient(falling(to=4), model__attention="none", model__encoder__kind="gru",
                                    model__decoder__kind="gru"),
    "diffuse attention": lambda: patient(probes=looking(entropy=0.98)),
    "stuck attention": lambda: patient(probes=looking(end=0.95, first=0.01)),
    "exposure bias": lambda: patient(probes=[{"kind": "answers", "step": 400, "forced_accuracy": 0.95,
                                              "free_accuracy": 0.1}]),
}  # fmt: skip


@pytest.mark.parametrize("cause", FAULTS)
def test_a_fault_is_named_first(cause: str) -> None:
    found = examine_live(FAULTS[cause]())
    assert found
    assert found[0].cause == cause, [(each.cause, round(each.confidence, 2)) for each in found]
    assert found[0].confidence >= SAID
    assert found[0].evidence
    assert found[0].told_apart
    assert found[0].cure or found[0].action


HEALTHY: dict[str, Callable[[], Patient]] = {
    "transformer": lambda: patient(),
    "with probes": lambda: patient(probes=[*layers(), *looking(entropy=0.3, end=0.2, first=0.1)[:1]]),
    "twice the rate": lambda: patient(training__rate=0.005),
    "half the width": lambda: patient(model__width=64),
    "no dropout": lambda: patient(model__dropout=0.0),
    "no clipping": lambda: patient(training__clip=0),
    "a recurrent one": lambda: patient(model__encoder__kind="lstm", model__decoder__kind="lstm", training__warmup=0),
    "six layers": lambda: patient(model__encoder__layers=6, model__decoder__layers=6),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_log_is_left_in_peace(name: str) -> None:
    found = examine_live(HEALTHY[name]())
    assert not [(each.cause, each.confidence) for each in found if each.confidence >= SAID]


def test_probes_with_gaps_are_borne() -> None:
    gaps = [{"kind": "layers", "step": 1},
            {"kind": "layers", "step": 2, "layers": [{"name": "head"}], "activations": None},
            {"kind": "loss", "step": 3, "train": None}, {"kind": "attention", "step": 3, "entropy": None},
            {"kind": "rate", "step": 3, "sensitivity": [1.0, None, None]}, {"kind": "other", "step": 4}]  # fmt: skip
    assert not [each for each in examine_live(patient(probes=gaps)) if each.confidence >= SAID]
    assert not [each for each in examine_live(patient(falling()[:3])) if each.confidence >= SAID]


def test_a_symptom_stands_behind_its_cause() -> None:
    def finding(cause: str, confidence: float) -> Finding:
        return Finding(cause, confidence, "", (Evidence(""),), "")  # type: ignore[arg-type]

    found = ranked([finding("dull answers", 0.9), finding("misaligned data", 0.9), finding("dull answers", 0.4)])
    assert [each.cause for each in found] == ["misaligned data", "dull answers"]
    assert found[1].confidence < SAID
    assert ranked([finding("overfitting", 0.1)]) == ()
    assert [each.cause for each in ranked([finding("ended early", 0.6), finding("copying the source", 0.8)])] == [
        "copying the source", "ended early"]  # fmt: skip


def test_of_causes_that_explain_each_other_the_surer_one_stays() -> None:
    def finding(cause: str, confidence: float) -> Finding:
        return Finding(cause, confidence, "", (Evidence(""),), "")  # type: ignore[arg-type]

    found = ranked([finding("model too small", 0.69), finding("ended early", 0.72)])
    assert [(each.cause, each.confidence >= SAID) for each in found] == [("ended early", True),
                                                                        ("model too small", False)]  # fmt: skip


def test_a_pair_that_makes_one_step_of_each_epoch_stand_out_is_poisonous() -> None:
    norms = np.array([3.0 if place % 40 == place // 40 else 0.5 for place in range(STEPS)])
    assert named(norms) == "poisonous batch"
    assert named(np.where(np.arange(STEPS) < 80, norms, 0.5)) != "poisonous batch"  # two epochs of ten are chance
    assert named(np.where(np.arange(STEPS) % 40 < 20, norms, 0.7 * norms)) == "poisonous batch"
    assert named(np.array([3.0 if place % 20 == 7 else 0.5 for place in range(STEPS)])) != "poisonous batch"  # two each


def named(norms: np.ndarray) -> str:
    """What comes first for gradients like these, in ten epochs; nothing where nothing is likely."""
    found = examine_live(patient(norms=list(norms), probes=layers(pairs=POISON), training__clip=0))
    return next((each.cause for each in found if each.confidence >= SAID), "")


def test_what_is_in_the_files_is_no_symptom() -> None:
    def finding(cause: str, confidence: float, in_files: bool = False) -> Finding:
        return Finding(cause, confidence, "", (Evidence(""),), "", in_files=in_files)  # type: ignore[arg-type]

    others = [finding("ended early", 0.75), finding("noisy data", 0.97)]
    assert ranked([*others, finding("dull answers", 0.97)])[0].cause == "noisy data"
    found = ranked([*others, finding("dull answers", 0.97, in_files=True)])
    assert [each.cause for each in found] == ["dull answers", "ended early", "noisy data"]
    assert found[0].confidence == 0.97


def test_exploding_gradients_of_plain_descent_want_another_optimizer_too() -> None:
    norms = [0.5 if n % 9 else 900.0 for n in range(STEPS)]
    clipped = {"training.clip": 1.0}
    other = {"training.optimizer": "adamw", "training.rate": None}
    for optimizer, cure in (("adamw", clipped), ("sgd", clipped | other)):
        found = examine_live(patient(falling(), norms=norms, training__clip=0, training__optimizer=optimizer))
        assert next(each for each in found if each.cause == "exploding gradients").cure == cure


def test_stacks_that_are_far_deeper_than_proposed_are_shallower_in_the_cure() -> None:
    ill = FAULTS["vanishing gradients"]()
    cure = examine_live(ill)[0].cure
    assert cure["model.encoder.layers"] == ill.advised("model.encoder.layers") < DEEP["model__encoder__layers"] / 2
    shallow = patient(FLAT, model__residual=False, model__norm="none", model__encoder__layers=3)
    [found] = [each for each in examine_live(shallow) if each.cause == "vanishing gradients"]
    assert "model.encoder.layers" not in found.cure


def test_heads_of_a_few_numbers_are_why_attention_is_spread() -> None:
    learning = [looking(entropy=0.9)[0], {"kind": "loss", "step": 400, "train": 1.0, "valid": 1.0, "shuffled": 4.0}]
    found = {heads: examine_live(patient(probes=learning, model__width=64, model__heads=heads)) for heads in (4, 64)}
    assert not [each for each in found[4] if each.confidence >= 0.5]
    assert found[64][0].cause == "diffuse attention"
    assert dict(found[64][0].cure) == {"model.heads": 4}
    assert "1 of 64 numbers" in found[64][0].evidence[0].text
    for width, heads, fewer in ((50, 25, 2), (16, 4, 1), (12, 1, None)):
        ill = patient(probes=looking(entropy=0.99), model__width=width, model__heads=heads)
        spread = next(each for each in examine_live(ill) if each.cause == "diffuse attention")
        assert spread.cure.get("model.heads") == fewer


@pytest.mark.parametrize("units", [{"dead": 0.97}, {"saturated": 0.99}])
def test_a_rate_that_kills_units_is_the_cause(units: dict[str, float]) -> None:
    lost = np.concatenate([falling()[:200], np.full(200, 5.0)])
    assert examine_live(patient(lost, probes=active(**units), training__rate=0.1))[0].cause == "rate too high"


def test_another_kind_of_text_is_told_from_the_same_written_otherwise() -> None:
    """By what the audit says of both alone they look the same."""
    remark = Remark("written otherwise", "care", "capitals", "valid.tsv", "certain", "", "", {})

    def named(valid: list[str]) -> str:
        train = [
            Pair(f"the {a} dog runs to the {b} tree", f"der {a} Hund rennt")
            for a in "abcdefghijklmnopqrst"
            for b in COLOURS
        ]
        held = [Pair(text, "der Hund") for text in valid]
        found = patient()
        found.material = SimpleNamespace(remarks=[remark], textual=True, parts=(train, held), train=None, held_out=None)
        told = ranked([*pairs.audited(found), *pairs.domain_gap(found)])
        return told[0].cause

    assert named([f"THE DOG RUNS TO THE {colour.upper()} TREE" for colour in COLOURS] * 3) == "train/serve mismatch"
    assert named([f"PRICES OF {colour.upper()} SHARES FELL SHARPLY" for colour in COLOURS] * 3) == "domain gap"


def test_copies_count_where_held_out_pairs_have_none() -> None:
    plain, copied = Pair("one two", "eins zwei"), Pair("one two", "one two")
    found = patient(probes=[{"kind": "answers", "step": 400, "copied": 0.0}])
    for held, share in (([plain] * 10, 1.0), ([copied] * 4 + [plain] * 6, 0.5)):
        found.material = SimpleNamespace(parts=([copied] * 4 + [plain] * 6, held))
        assert pairs._copies(found) == share


def test_figures_become_confidence() -> None:
    assert sure(2, 2, 8) == 0.5
    assert sure(8, 2, 8) == pytest.approx(0.95)
    assert sure(0.1, 0.5, 0.1) == pytest.approx(0.95)
    assert sure(1e9, 2, 8) < 1
    assert sure(None, 2, 8) == sure(float("nan"), 2, 8) == sure(0, 2, 8) == 0
    values = falling()
    assert noise(values) < 0.05 < noise(falling(noise=0.3))
    assert second_half(np.linspace(2, 1, 101)) == pytest.approx(0.5)
    assert lost_again(np.array([3.0, 1.0, 2.0])) == 0.5
    assert len(smooth(values)) == STEPS - 20 + 1
    assert HIGH > SAID


@pytest.mark.parametrize("kind", ["text", "numbers"])
def test_a_training_that_gave_up_is_no_healthy_one(kind: str) -> None:
    def told(ill: Patient) -> list[Finding]:
        if kind == "numbers":
            data = ill.record.config.data
            data = replace(data, target=replace(data.target, kind="numbers"))
            ill.record = replace(ill.record, config=replace(ill.record.config, data=data))
        return list(optimization.broke(ill))

    away = [6.0, 5.9, 70.0, 6e10]
    [found] = told(patient(np.array(away), rate=3.0))
    assert (found.cause, found.confidence) == ("rate too high", 0.75)
    assert found.cure["training.rate"] < 0.1
    [found] = told(patient(np.array([*away, np.nan]), rate=3.0, notes=["rolled back"], kind="rollback"))
    assert found.confidence == 0.9
    assert told(patient(falling()[:4])) == []
