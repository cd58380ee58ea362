"""Where two features meet: facts with teachers, adapters, confidence, ensembles and conversations."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antiphon import Seq2Seq
from antiphon.__main__ import main
from antiphon.core.errors import ConfigError
from antiphon.data.columns import Pair
from antiphon.data.facts import MARKS
from antiphon.data.turns import is_mark
from antiphon.inference import bundle
from antiphon.inference.calibration import calibrate
from antiphon.inference.predictor import Predictor
from antiphon.inference.task import Task
from antiphon.training.start import fit, resume
from antiphon.training.synthetic import distill
from runs import SMALL, Recorder, configured, light, outcome, words

GIVEN = {
    **SMALL, "model.encoder.kind": "gru", "model.decoder.kind": "gru", "model.attention": "dot", "training.steps": 4,
    "training.validate_every": 4, "decoding.max_length": 12, "data.source.max_length": 120,
}  # fmt: skip
STUDENT = {"training.steps": 2, "training.threads": 1, "model.width": 16, "model.heads": 2, "data.batch_tokens": 400}


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def told(count: int = 50, seed: int = 1) -> list[dict[str, Any]]:
    """Words, what they like, and words to say."""
    draw, known = random.Random(seed), [word for word, _ in words(30, 3)]
    return [
        {"source": draw.choice(known), "target": draw.choice(known),
         "facts": [[draw.choice(known), "likes", draw.choice(known)] for _ in range(draw.randint(1, 2))]}
        for _ in range(count)
    ]  # fmt: skip


def asked(count: int = 80) -> list[tuple[str, str]]:
    """The same without facts."""
    return [(row["source"], row["target"]) for row in told(count)]


@pytest.fixture(scope="module", name="models")
def shared_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Models that read facts in each way, and one that looks them up in `base.tsv`; nobody may change them."""
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        folder = tmp_path_factory.mktemp("models")
        (folder / "base.tsv").write_text("".join(f"{one}\tlikes\t{other}\n" for one, other in words(30, 3)))
        for kind in ("none", "linear", "graph"):
            fit(told(), out=folder / kind, assignments={**GIVEN, "model.knowledge.kind": kind})
        looked_up = {"model.knowledge.kind": "graph", "data.knowledge": str(folder / "base.tsv")}
        fit(asked(), out=folder / "base", assignments={**GIVEN, **looked_up}, task="dialogue")
        yield folder


# Teachers


@pytest.mark.parametrize("kind", ["none", "linear", "graph"])
def test_a_student_reads_facts_as_its_teacher_does(kind: str, models: Path, tmp_path: Path) -> None:
    fit(told(), out=tmp_path / "run", assignments=STUDENT, teachers=[models / kind])
    assert bundle.load(tmp_path / "run").task.knowledge == kind


def test_a_teacher_that_would_read_no_facts_is_refused(models: Path, tmp_path: Path) -> None:
    other = {**STUDENT, "model.knowledge.kind": "linear"}
    none, answers = {**STUDENT, "model.knowledge.kind": "none"}, {**other, "training.objective": "likelihood"}
    with pytest.raises(ConfigError, match="graph has no marks for facts"):
        fit(told(), out=tmp_path / "run", assignments=other, teachers=[models / "graph"])
    with pytest.raises(ConfigError, match=r"linear reads facts otherwise \(got none and linear\)"):
        fit(told(), out=tmp_path / "run", assignments=none, teachers=[models / "linear"])
    with pytest.raises(ConfigError, match="none has no marks for facts"):
        fit(told(), out=tmp_path / "run", assignments=answers, teachers=[models / "none"])


def test_a_teacher_looks_facts_up_to_answer(models: Path, tmp_path: Path) -> None:
    given = {**STUDENT, "data.knowledge": str(models / "base.tsv")}
    distill([models / "base"], asked(), out=tmp_path / "run", assignments=given)
    about = (tmp_path / "run.answers.jsonl.about.json").read_text()
    assert '"knowledge"' in about
    assert bundle.load(tmp_path / "run").task.knowledge == "graph"


# Confidence


def test_confidence_is_fitted_to_answers_from_facts_that_are_looked_up(models: Path) -> None:
    model = Seq2Seq.load(models / "base", knowledge=models / "base.tsv").calibrate(asked(), "chrf")
    assert len(model.predict(["abc"])) == 1
    assert model.predictor.calibration is not None


def test_an_adapter_is_not_calibrated_in_silence(models: Path, tmp_path: Path) -> None:
    adapted(models, tmp_path / "run")
    with pytest.raises(ConfigError, match="confidence is fitted to the model alone"):
        Seq2Seq.load(tmp_path / "run", adapter="few").calibrate(told(), "chrf")


def adapted(models: Path, run: Path, **more: Any) -> Predictor:
    given = {"training.steps": 2, "training.threads": 1, "training.metric": "loss", "model.adapter.name": "few", **more}
    fit(told(seed=2), out=run, assignments=given, start=models / "graph")
    return Predictor(bundle.load(run), adapter="few")


# Adapters


def test_an_adapter_reads_as_many_facts_as_in_its_training(models: Path, tmp_path: Path) -> None:
    guesser = adapted(models, tmp_path / "run", **{"data.facts": 1})
    assert guesser.task.find.most == 1
    assert bundle.load(tmp_path / "run").task.find.most == 30


def test_adapters_and_confidence_survive_together(models: Path, tmp_path: Path) -> None:
    adapted(models, tmp_path / "run")
    made = calibrate(bundle.load(tmp_path / "run"), list(pairs_of(80)), "chrf")
    bundle.add_confidence(tmp_path / "run", made.calibration)
    Seq2Seq.load(tmp_path / "run").save(tmp_path / "saved.zip")
    kept = bundle.load(tmp_path / "saved.zip")
    assert kept.confidence == made.calibration
    assert sorted(kept.adapters) == ["few"]
    assert Predictor(kept, adapter="few").calibration is None


def pairs_of(count: int) -> Iterator[Any]:
    from antiphon.core.config import Data
    from antiphon.data.corpus import open_pairs

    yield from open_pairs(told(count), Data())


# Copying


@pytest.mark.parametrize("kind", ["linear", "graph"])
@pytest.mark.parametrize("tokenizer", ["word", "char", "bpe"])
@pytest.mark.parametrize("limit", [200, 24, 2])
def test_capitals_of_turns_and_facts_are_copied(kind: str, tokenizer: str, limit: int) -> None:
    sides = {f"data__{side}__tokenizer": tokenizer for side in ("source", "target")}
    config = configured(model__head="copy", model__knowledge__kind=kind, data__source__lowercase=True, task="dialogue",
                        data__source__max_length=limit, **sides)  # fmt: skip
    known = [Pair("who <turn> me <turn:Bo>", "ok bob", (), {"facts": "a | b | c"}) for _ in range(9)]
    task = Task.learn(known, config)
    said = Pair("Hi Ann! <turn> Is McZorb <turn:Bo>", "", (), {"facts": "McZorb | nearTo | Oslo && Oslo | in | Norway"})
    source = task.read(said)
    own = [token for token in source.tokens if not is_mark(token) and token not in MARKS]
    copied = [
        number for name in ("copy", "fact_copy") for number in source.context.get(name, []) if number not in (0, 3)
    ]
    texts = [task.answer(copied, source.extra)]
    assert len(copied) == len(own) + len(source.facts)
    if limit == 200:
        assert [name for name in ("Hi Ann!", "Is McZorb", "Oslo", "Norway") if name not in texts[0]] == []
    assert task.answer(copied, source.extra).lower() == task.target.tokenizer.decode([*own, *source.facts]).lower()


# Several players


def test_players_keep_apart_what_is_the_models_alone(models: Path, tmp_path: Path) -> None:
    given = {"training.objective": "adversarial", "training.steps": 5, "training.validate_every": 2,
             "training.average": 2, "training.ema": 0.5, "training.l2_start": 0.1, "training.threads": 1}  # fmt: skip
    fit(told(), out=tmp_path / "whole", assignments=given, start=models / "graph")
    fit(told(), out=tmp_path / "parts", assignments=given, start=models / "graph", observers=[Recorder(3)])
    resume(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


# Answering


def test_models_that_know_other_entities_answer_together(models: Path) -> None:
    first = bundle.load(models / "graph")
    other = replace(first, task=replace(first.task, entities=frozenset({1})))
    texts = [[answers[0].text for answers in Predictor(each).predict(pairs_of(5))] for each in (first, [first, other])]
    assert texts[0] == texts[1]
    talking = replace(first, task=replace(first.task, turns=3))
    with pytest.raises(ConfigError, match="the same vocabularies"):
        Predictor([first, talking])


def test_a_source_with_more_facts_than_any_is_long(models: Path) -> None:
    guesser = Predictor(bundle.load(models / "graph"))
    [pair, *_] = pairs_of(1)
    many = " && ".join(f"{one} | likes | {other}" for one, other in words(12, 3))
    [[answer]] = guesser.predict([replace(pair, context={"facts": many})])
    assert "longer than any source in training" in answer.reason


def test_talking_to_a_model_that_looks_facts_up(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("abc\n/quit\n"))
    with pytest.raises(SystemExit) as end:
        main(["chat", str(models / "base"), "--knowledge", str(models / "base.tsv")])
    output = capsys.readouterr()
    assert (end.value.code or 0) == 0
    assert len(output.out.splitlines()) == 1
    assert "error" not in output.err
