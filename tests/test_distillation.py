"""Word-level distillation: what is minimized, whose vocabulary it is, exact resume, and teachers that do not fit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from antiphon.__main__ import main
from antiphon.core.batch import Batch
from antiphon.core.config import Config, Training
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.data.corpus import Pair, open_pairs
from antiphon.data.store import prepare
from antiphon.inference import bundle
from antiphon.inference.task import Task
from antiphon.models.seq2seq import Seq2Seq, build
from antiphon.training.distillation import Distillation, Teachers, from_settings
from antiphon.training.objectives import Likelihood
from antiphon.training.optimizers import Flat
from antiphon.training.runner import Local, Step, size
from antiphon.training.start import fit, resume
from antiphon.training.trainer import train
from runs import Recorder, configured, light, outcome, words
from starts import FAMILIES, QUICK, SHORT, STILL, raw, trained

MADE = {"model.width": 16, "model.heads": 2, "model.feedforward": 16, "model.encoder.kind": "gru",
        "model.encoder.layers": 1, "training.metric": "loss"}  # fmt: skip
LEARNING = ("gru", "transformer")
OTHERS = [kind for kind in FAMILIES if kind not in LEARNING]


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


@pytest.fixture(scope="module", name="teacher")
def shared_teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that knows something; nobody may change it."""
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        yield trained(tmp_path_factory.mktemp("teacher") / "teacher", training__steps=120, model__width=32)


def student(kind: str, teacher: Path, **more: Any) -> Config:
    """A complete configuration of a student of this teacher."""
    changes = {"training__objective": "distillation", "training__teachers": (str(teacher),), **more}
    return configured(kind, **changes)


def examples(teacher: Path) -> Batch:
    return bundle.load(teacher).task.batch([Pair(*pair) for pair in words(60)[:30]])


def apart(model: Seq2Seq, teacher: Path) -> float:
    """The mean divergence of a model's distributions from its teacher's, in nats a target token."""
    batch, wise = examples(teacher), bundle.load(teacher).model
    with torch.no_grad():
        ours, theirs = (each.eval().log_probs(*each(batch))[batch.target.mask_BL] for each in (model, wise))
    return float((theirs.exp() * (theirs - ours)).sum(1).mean())


# What is minimized


def networks(kind: str = "gru") -> tuple[Seq2Seq, list[Seq2Seq]]:
    """A student without dropout, and two teachers that forget theirs."""
    wise = configured("lstm", model__width=24, model__dropout=0.4).model
    return build(configured(kind, model__dropout=0.0).model, 11, 12, seed=1), [
        build(wise, 11, 12, seed=seed) for seed in (5, 6)
    ]


def some() -> Batch:
    config = configured()
    return Task.learn(open_pairs(words(), config.data), config).batch([Pair(*pair) for pair in words()[:7]])


def test_the_loss_is_its_definition() -> None:
    model, teachers = networks()
    batch, settings = some(), Training(objective="distillation", likelihood=0.3, label_smoothing=0.1, temperature=2.0)
    loss = Distillation(settings, teachers)({"model": model.eval()}, batch, 0.0)["model"]

    def chances(each: Seq2Seq) -> torch.Tensor:
        steps, _ = each(batch)
        return ((steps.hidden_BTD @ each.head.weight.T + each.head.bias) / 2).softmax(2)[batch.target.mask_BL]

    wanted = (chances(teachers[0]) + chances(teachers[1])) / 2
    soft = -(wanted * chances(model).log()).sum()
    hard = Likelihood(settings)({"model": model}, batch, 0.0)["model"]
    torch.testing.assert_close(loss.total, 0.7 * 4 * soft + 0.3 * hard.total)
    assert loss.count == hard.count
    assert loss.sums["teacher"] == pytest.approx(float(soft.detach()), rel=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
def test_accumulation_and_splitting_are_exact(kind: str) -> None:
    model, teachers = networks(kind)
    batch, rows = some(), len(some().labels_BT)
    flat, runner = Flat(model.train().double()), Local(Training())
    objective = Distillation(Training(label_smoothing=0.1), teachers)

    def gradient(batches: list[Batch], limit: int | None = None) -> tuple[torch.Tensor, float, int]:
        flat.zero()
        loss = runner.accumulate(objective, {"model": model}, Step(batches, (1, 1), 0.0, limit))["model"]
        return flat.gradient.clone(), float(loss.total), loss.count

    whole = gradient([batch])
    parts = [batch.rows(torch.arange(0, 2)), batch.rows(torch.arange(2, rows))]
    for other in (gradient(parts), gradient([batch], size(batch) // 3)):
        torch.testing.assert_close(other[0], whole[0])
        assert other[1:] == (pytest.approx(whole[1]), whole[2])
    assert all(parameter.grad is None for teacher in teachers for parameter in teacher.parameters())


@pytest.mark.parametrize("kind", [*LEARNING, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)])
def test_a_student_comes_nearer_to_its_teacher_than_by_likelihood(kind: str, teacher: Path, tmp_path: Path) -> None:
    task, divergence = bundle.load(teacher).task, {}
    few = {"training__steps": 60, "training__validate_every": 1000, "model__dropout": 0.0, "training__patience": 0}
    for objective in ("likelihood", "distillation"):
        config = student(kind, teacher, **{**few, "training__objective": objective, "training__likelihood": 0.0})
        store = prepare(open_pairs(words(60), config.data), partial(task.encode))
        train(config, task, store, [Pair(*pair) for pair in words(60)[:4]], tmp_path / objective)
        divergence[objective] = apart(bundle.load(tmp_path / objective).model, teacher)
    assert divergence["distillation"] < 0.8 * divergence["likelihood"]


# Whose vocabulary it is


def test_the_student_takes_over_the_vocabularies(teacher: Path, tmp_path: Path) -> None:
    seen = Recorder()
    given = {key: SHORT[key] for key in SHORT} | MADE
    fit(words(50, seed=9), out=tmp_path / "run", assignments=given, teachers=[teacher], observers=[seen])
    wise, pupil = bundle.load(teacher), bundle.load(tmp_path / "run")
    for side in ("source", "target"):
        assert getattr(pupil.task, side).vocabulary.tokens == getattr(wise.task, side).vocabulary.tokens
    assert (pupil.config.model.decoder.kind, pupil.config.model.decoder.layers) == ("ssru", 1)
    assert (pupil.config.training.objective, pupil.config.decoding.beam) == ("distillation", 1)
    assert any("model.decoder.kind = ssru: a step costs little" in note.text for note in seen.notes)
    assert "teacher (sha256 " in (tmp_path / "run" / "best" / "README.md").read_text()
    assert all(event.facts["teacher"] > 0 for event in seen.steps)


def test_the_student_reads_as_many_facts_and_turns_as_its_teacher(tmp_path: Path) -> None:
    old = raw(tmp_path / "old", configured(data__facts=7, data__history=2))
    found = Teachers.open([str(old)]).settings({})
    assert (found.data.facts, found.data.history) == (7, 2)
    assert Teachers.open([str(old)]).settings({"data.history": 3}).data.history == 3


def test_word_vectors_are_the_students_own(tmp_path: Path) -> None:
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("a " + " ".join(["0.5"] * 16) + "\n")
    old = raw(tmp_path / "old", configured(data__source__vectors=str(vectors), data__source__freeze=True))
    vectors.unlink()
    fit(words(), out=tmp_path / "run", assignments={**STILL, **MADE}, teachers=[old])
    side = bundle.load(tmp_path / "run").config.data.source
    assert (side.vectors, side.freeze, side.tokenizer, side.max_length) == ("", False, "char", 50)


STOPS = [("gru", "fp32", 1, 3), ("transformer", "bf16", 1, 5)]
STOPS += [pytest.param("ssru", "fp32", 2, 4, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("kind", "precision", "processes", "stop"), STOPS)
def test_a_stopped_run_ends_with_the_same_bits(
    kind: str, precision: str, processes: int, stop: int, teacher: Path, tmp_path: Path
) -> None:
    kinds = {"model.encoder.kind": "gru" if kind == "ssru" else kind, "model.decoder.kind": kind}
    given = {**SHORT, **MADE, **kinds, "model.attention": "multihead", "training.accumulate": 2,
             "training.precision": precision, "training.processes": processes, "model.dropout": 0.2}  # fmt: skip
    fit(words(60), out=tmp_path / "whole", assignments=given, teachers=[teacher, teacher])
    fit(words(60), out=tmp_path / "parts", assignments=given, teachers=[teacher, teacher], observers=[Recorder(stop)])
    resume(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_two_processes_are_one(teacher: Path, tmp_path: Path) -> None:
    given = {**SHORT, **MADE, "model.dropout": 0.0, "training.steps": 3}
    one, two = Recorder(), Recorder()
    fit(words(60), out=tmp_path / "one", assignments=given, teachers=[teacher], observers=[one])
    fit(words(60), out=tmp_path / "two", assignments={**given, "training.processes": 2}, teachers=[teacher],
        observers=[two])  # fmt: skip
    for first, second in zip(one.steps, two.steps, strict=True):
        assert first.loss == pytest.approx(second.loss, rel=1e-4)
        assert first.facts == pytest.approx(second.facts, rel=1e-4)


# What does not fit


def test_a_changed_teacher_is_refused_at_a_resume(teacher: Path, tmp_path: Path) -> None:
    shutil.copytree(teacher, tmp_path / "teacher")
    fit(words(60), out=tmp_path / "run", assignments={**SHORT, **MADE}, teachers=[tmp_path / "teacher"],
        observers=[Recorder(3)])  # fmt: skip
    old = bundle.load(teacher)
    with torch.no_grad():
        old.model.head.bias += 0.1
    shutil.rmtree(tmp_path / "teacher")
    bundle.save(tmp_path / "teacher", model=old.model, task=old.task, config=old.config, card={})
    with pytest.raises(DataError, match=r"the teacher has changed since this run began \(got sha256"):
        resume(tmp_path / "run")


def test_teachers_that_do_not_fit_are_named(teacher: Path, tmp_path: Path) -> None:
    other = raw(tmp_path / "other", configured(), [("x", "y"), ("xy", "yx")] * 9)
    with pytest.raises(ConfigError, match=r"other: another source vocabulary than that of the teacher .*\(got 6 and 9"):
        fit(words(), out=tmp_path / "run", teachers=[teacher, other])
    with pytest.raises(ConfigError, match=r"the student: another source vocabulary than that of the teacher"):
        fit(words(), out=tmp_path / "run", teachers=[teacher], start=other, assignments=STILL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("given", "message"), [
    ({"data.source.tokenizer": "word"}, "data.source.tokenizer is char in the teacher"),
    ({"data.target.lowercase": "true"}, "data.target.lowercase is false in the teacher"),
    ({"training.r_drop": "1"}, "distillation has no R-Drop"),
    ({"training.temperature": "0"}, "training.temperature must be above 0"),
    ({"training.teachers": "nowhere"}, "nowhere"),
])  # fmt: skip
def test_settings_that_contradict_are_named(given: dict[str, str], message: str, teacher: Path, tmp_path: Path) -> None:
    teachers = [] if "training.teachers" in given else [teacher]
    with pytest.raises((ConfigError, DataError, bundle.AntiphonError), match=message):
        fit(words(), out=tmp_path / "run", assignments={**QUICK, **MADE, "training.steps": 2, **given},
            teachers=teachers)  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_distillation_needs_a_teacher_with_a_distribution(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a teacher; name models with --teacher"):
        fit(words(), out=tmp_path / "run", assignments={"training.objective": "distillation"})
    copying = raw(tmp_path / "copying", configured(model__head="copy"))
    with pytest.raises(ConfigError, match="copying: the teacher copies words of the source"):
        fit(
            words(), out=tmp_path / "run", teachers=[copying], assignments={**QUICK, **MADE, "model.head": "vocabulary"}
        )


def test_a_student_that_cannot_copy_is_told_before_anything_is_read(tmp_path: Path) -> None:
    copying = raw(tmp_path / "copying", configured(model__head="copy"))
    with pytest.raises(ConfigError, match=r"the student has no copy head.*model\.attention=none"):
        fit(tmp_path / "nowhere.tsv", out=tmp_path / "run", teachers=[copying], assignments={"model.attention": "none"})


def test_a_student_copies_where_its_teacher_does(tmp_path: Path) -> None:
    copying = raw(tmp_path / "copying", configured(model__head="copy"))
    seen, given = Recorder(), {**QUICK, **MADE, "training.steps": 4}
    fit(words(), out=tmp_path / "run", teachers=[copying], assignments=given, observers=[seen])
    assert all(0 < step.facts["teacher"] < 20 for step in seen.steps)
    assert bundle.load(tmp_path / "run").task.copy
    given = {**given, "training.objective": "likelihood", "model.attention": "none"}  # which cannot copy
    fit(words(), out=tmp_path / "blind", teachers=[copying], assignments=given)
    assert not bundle.load(tmp_path / "blind").task.copy


def test_other_objectives_take_the_vocabulary_alone(teacher: Path, tmp_path: Path) -> None:
    given = {**STILL, **MADE, "training.objective": "likelihood"}
    fit(words(50, seed=9), out=tmp_path / "run", assignments=given, teachers=[teacher])
    made = bundle.load(tmp_path / "run")
    assert made.task.source.vocabulary.tokens == bundle.load(teacher).task.source.vocabulary.tokens
    assert isinstance(from_settings(made.config.training), Likelihood)


def test_the_command_line(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in words(60)))
    command = ["train", str(tmp_path / "pairs.tsv"), "--out", str(tmp_path / "run"), "--teacher", str(teacher)]
    settings = [f"{key}={value}" for key, value in {**STILL, **MADE}.items()]
    with pytest.raises(SystemExit) as shown:
        main([*command, "--show"])
    assert shown.value.code == 0
    assert "a step costs little" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as done:
        main([*command, "--teacher", str(teacher), *settings])
    assert done.value.code == 0
    teachers = bundle.load(tmp_path / "run").config.training.teachers
    assert teachers == override(Config(), {"training.teachers": ",".join([str(teacher)] * 2)}).training.teachers
