"""Learning from answers: distillation by sequences, back-translation and self-training, from end to end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from antiphon.__main__ import main
from antiphon.core.errors import ConfigError, DataError, TrainingError
from antiphon.core.keys import override
from antiphon.data.corpus import Pair
from antiphon.data.store import Example
from antiphon.estimator import Seq2Seq
from antiphon.inference import bundle
from antiphon.inference.predictor import Predictor
from antiphon.inference.synthesis import Making
from antiphon.inference.task import Task
from antiphon.training.start import fit, resume
from antiphon.training.synthetic import beside, distill, from_text, learn_from_text
from antiphon.training.validation import Validator
from runs import SMALL, Recorder, configured, light, outcome, words
from served import listener
from starts import QUICK, SHORT, STILL, raw

TRAIN = {key: SMALL[key] for key in SMALL if key.startswith(("training.", "data.", "model.")) and "layers" not in key}
TRAIN |= {"model.width": 32, "model.dropout": 0.0, "data.batch_tokens": 600, "training.patience": 0,
          "model.encoder.kind": "gru", "model.encoder.layers": 1, "training.label_smoothing": 0.0,
          "training.validate_every": 100, "model.attention": "multihead"}  # fmt: skip
OURS = {key: value for key, value in TRAIN.items() if key.startswith(("training.", "model."))} | {
    "data.batch_tokens": 600
}
SEVERAL = words(330, seed=2)
"""What the good model has seen."""
FEW, POOR = SEVERAL[:30], {**TRAIN, "training.steps": 100, "model.decoder.kind": "gru", "model.decoder.layers": 1}
UNSEEN = [Pair(*pair) for pair in words(80, seed=77)]


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


@pytest.fixture(scope="module", name="good")
def shared_good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that reverses most words, either way round; nobody may change it."""
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        given = {**TRAIN, "training.steps": 300, "model.decoder.kind": "gru", "model.decoder.layers": 1,
                 "decoding.beam": 3}  # fmt: skip
        folder = tmp_path_factory.mktemp("good") / "good"
        fit(SEVERAL, out=folder, assignments=given)
        yield folder


def loss(path: Path) -> float:
    """Nats a token of words that nobody has seen."""
    found = bundle.load(path)
    return Validator(override(found.config, {"training.metric": "loss"}), found.task, UNSEEN)(found.model, int).loss


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Distillation by sequences


def test_a_student_learns_its_teachers_answers_and_is_judged_by_references(good: Path, tmp_path: Path) -> None:
    seen, done = Recorder(), list[tuple[int, int]]()
    wrong = [(source, "e" + target) for source, target in SEVERAL[:200]]
    result = distill([good], wrong, out=tmp_path / "run", assignments={**OURS, "training.steps": 60},
                     observers=[seen], progress=lambda *each: done.append(each))  # fmt: skip
    made = rows(beside(tmp_path / "run"))
    held_out = rows(tmp_path / "run" / "data" / "valid.jsonl")
    assert {row["source"] for row in made} | {row["source"] for row in held_out} == {source for source, _ in wrong}
    assert not {row["source"] for row in made} & {row["source"] for row in held_out}
    assert all(row["target"].startswith("e") and row["target"][1:] == row["source"][::-1] for row in held_out)
    answers = [best[0].text for best in Predictor(bundle.load(good)).predict([row["source"] for row in made])]
    assert answers == [row["target"] for row in made]
    assert done[-1][0] == done[-1][1] == len({source for source, _ in wrong}) - len(held_out)
    config = bundle.load(tmp_path / "run").config
    assert (config.model.decoder.kind, config.model.decoder.layers, config.decoding.beam) == ("ssru", 1, 1)
    assert config.training.objective == "likelihood"
    assert result.reason == "steps"
    assert any("pairs made" in note.text for note in seen.notes)
    assert loss(tmp_path / "run") < 1.2


def test_answers_and_distributions_together_resume_exactly(good: Path, tmp_path: Path) -> None:
    given = {**OURS, "training.steps": 9, "training.validate_every": 4}
    for name, observers in (("whole", []), ("parts", [Recorder(5)])):
        distill([good, good], SEVERAL[:60], out=tmp_path / name, level="both", nearest="cer", assignments=given,
                observers=observers)  # fmt: skip
    resume(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    assert bundle.load(tmp_path / "whole").config.training.objective == "distillation"


def test_words_alone_ask_for_no_answers(good: Path, tmp_path: Path) -> None:
    distill([good], SEVERAL[:60], out=tmp_path / "run", level="word", assignments={**OURS, "training.steps": 2})
    assert not beside(tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="no answers are learned from"):
        distill([good], SEVERAL, out=tmp_path / "more", level="word", nearest="bleu")


def test_a_run_folder_that_is_taken_is_said_before_the_answering(good: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    with pytest.raises(TrainingError, match="the run folder is not empty"):
        distill([good], SEVERAL, out=tmp_path / "run")
    assert not list(tmp_path.glob("run.answers*"))


# Text without its other side


def test_back_translated_text_makes_a_model_better(good: Path, tmp_path: Path) -> None:
    text = [target for _, target in words(200, seed=5)]
    fit(FEW, out=tmp_path / "alone", assignments=POOR)
    seen = Recorder()
    learn_from_text(FEW, by=good, text=text, side="source", out=tmp_path / "more", observers=[seen],
                    assignments={**POOR, "data.mix": 0.9})  # fmt: skip
    made = rows(beside(tmp_path / "more"))
    assert {row["target"] for row in made} <= set(text)
    assert sum(row["source"] == row["target"][::-1] for row in made) > 0.6 * len(made)
    task = bundle.load(tmp_path / "more").task
    assert "<synthetic>" in task.source.vocabulary.index
    assert task.read("ab").tokens == ["a", "b"]
    assert loss(tmp_path / "more") < 0.7 * loss(tmp_path / "alone")
    assert any("mixed-in data: 200 of" in note.text for note in seen.notes)


def test_self_training_resumes_exactly(good: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("".join(f"{source}\n" for source, _ in words(40, seed=5)))
    for name, observers in (("whole", []), ("parts", [Recorder(5)])):
        learn_from_text(FEW, by=good, text=tmp_path / "text", side="target", out=tmp_path / name, observers=observers,
                        assignments={**POOR, "training.steps": 8, "training.validate_every": 3})  # fmt: skip
    (beside(tmp_path / "parts")).unlink()
    resume(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_the_three_ways_differ(good: Path, tmp_path: Path) -> None:
    text = [source for source, _ in words(40, seed=5)]
    made = {way: from_text([good], text, tmp_path / way, "target", way) for way in ("beam", "sample", "noise")}
    found = {way: rows(each.path) for way, each in made.items()}
    assert [row["source"] for row in found["beam"]] == text
    assert [row["target"] for row in found["beam"]] == [row["target"] for row in found["noise"]]
    assert [row["source"] for row in found["noise"]] != text
    assert [row["target"] for row in found["sample"]] != [row["target"] for row in found["beam"]]


def test_a_tag_is_before_the_sources_that_are_mixed_in_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**STILL, **OURS, "training.steps": 2, "data.mix_tag": "made", "data.source.sampling": 0.1,
             "data.source.tokenizer": "bpe", "data.target.tokenizer": "char", "data.source.vocabulary": 30}  # fmt: skip
    more, encode, seen = [("fg", "gf"), ("ff", "ff")], Task.encode, set[tuple[str, bool, bool]]()

    def watched(task: Task, pair: Pair, **options: Any) -> Example:
        example = encode(task, pair, **options)
        first = task.source.vocabulary.tokens[example.source[0]]
        seen.add((pair.source, first == "<made>", options.get("seed") is not None))
        return example

    monkeypatch.setattr(Task, "encode", watched)
    fit([(f"{a} {b}", b) for a, b in words(60)], out=tmp_path / "run", assignments=given, mix=more)
    assert {tag for source, tag, _ in seen if source in ("fg", "ff")} == {True}
    assert {tag for source, tag, _ in seen if source not in ("fg", "ff")} == {False}
    assert ("fg", True, True) in seen
    assert {"f", "g"} <= set(bundle.load(tmp_path / "run").task.target.vocabulary.tokens)


# What cannot be


def test_tags_need_a_vocabulary_and_something_to_mix(tmp_path: Path) -> None:
    old = raw(tmp_path / "old", configured())
    given = {**STILL, "data.mix_tag": "made"}
    with pytest.raises(ConfigError, match=r"the vocabulary that is kept has no tag <made>"):
        fit(words(), out=tmp_path / "run", assignments=given, start=old, mix=words())
    with pytest.raises(ConfigError, match=r"data.mix_tag is for data that is mixed in"):
        fit(words(), out=tmp_path / "run", assignments={**given, "data.extend": True}, start=old)
    fit(words(), out=tmp_path / "run", assignments={**given, "data.extend": True}, start=old, mix=words())
    assert bundle.load(tmp_path / "run").task.source.vocabulary.tokens[-1] == "<made>"


def test_plain_text_has_the_columns_that_are_given(good: Path, tmp_path: Path) -> None:
    rich = [Pair(a, b, (), {"domain": "x"}) for a, b in words()]
    given = {**QUICK, "model.width": 16, "model.heads": 2, "training.steps": 1, "data.context": "domain"}
    fit(rich, out=tmp_path / "run", assignments=given)
    run, made = str(tmp_path / "run"), tmp_path / "made.jsonl"
    with pytest.raises(ConfigError, match=r"reads a column domain, and plain text has none.*--column domain=VALUE"):
        from_text([run], ["a"], made, "target", "beam")
    (tmp_path / "text").write_text("ab\n" * 40)
    for model, way in ((run, "sample"), (str(good), "beam")):
        with pytest.raises(SystemExit) as code:
            main(
                ["synthesize", model, str(tmp_path / "text"), "--out", str(made), "--way", way, "--column", "domain=x"]
            )
        assert code.value.code == 0
        rows = [json.loads(line) for line in made.read_text().splitlines()]
        assert rows
        assert {(row["source"], row["domain"]) for row in rows} == {("ab", "x")}
        made.unlink()
    with pytest.raises(SystemExit) as code:
        main(["synthesize", str(good), str(tmp_path / "text"), "--out", str(made), "--column", "domain"])
    assert code.value.code == 2
    for wrong in (["source=a"], ["domain="], ["domain=a", "--column", "domain=b"]):
        with pytest.raises(SystemExit) as code:
            main(["synthesize", str(good), str(tmp_path / "text"), "--out", str(made), "--column", *wrong])
        assert code.value.code == 2
    assert not made.exists()


def test_a_linked_folder_can_be_had(good: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "far")
    given = {**SHORT, "training.steps": 2, "model.width": 16, "model.heads": 2}
    assert distill([good], words(60), out=tmp_path / "run", assignments=given).reason == "steps"
    assert (tmp_path / "far/best").exists()


def test_several_models_are_for_synthesize(good: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one model makes the other side.*antiphon synthesize"):
        learn_from_text(words(), by=f"{good},{good}", text=["ab"], side="source", out=tmp_path / "run")


def test_what_text_cannot_have_is_said_before_the_answering(good: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"by": good, "text": ["ab"], "side": "source", "out": tmp_path / "run"}
    rich = [Pair(a, b, (), {"domain": "x", "facts": "a | is | b"}) for a, b in words()]
    with pytest.raises(ConfigError, match=r"the pairs have a column domain.*antiphon synthesize"):
        learn_from_text(rich, **given, assignments={"data.context": ("domain",)})
    with pytest.raises(ConfigError, match=r"have a column facts.*model\.knowledge\.kind=none"):
        learn_from_text(rich, **given)
    with pytest.raises(ConfigError, match=r"the vocabulary that is kept has no <reversed>"):
        distill([good], words(), out=tmp_path / "run", assignments={"data.augment.reverse": "target"})
    with pytest.raises(ConfigError, match=r"--level word learns from distributions"):
        distill([good], words(), out=tmp_path / "run", level="word", assignments={"training.objective": "likelihood"})
    assert not beside(tmp_path / "run").exists()


def test_a_student_of_text_has_no_tag_that_its_teacher_lacks(good: Path, tmp_path: Path) -> None:
    given = {"training.teachers": (str(good),), **SHORT, "model.width": 16, "training.objective": "likelihood"}
    learn_from_text(iter(words()), by=good, text=[b for _, b in words()], side="source", out=tmp_path / "run",
                    assignments=given)  # fmt: skip
    assert bundle.load(tmp_path / "run").config.data.mix_tag == ""


# The command line


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_each_command_is_one_line(good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in words(60)))
    (tmp_path / "text").write_text("".join(f"{a}\n" for a, _ in words(30, seed=5)) + "\n")
    given = [f"{key}={value}" for key, value in {**OURS, **SHORT, "training.steps": 2}.items()]
    pairs, text = tmp_path / "pairs.tsv", tmp_path / "text"
    assert call("distill", good, pairs, "--out", tmp_path / "a", "--nearest", "chrf", *given) == 0
    assert call("train", pairs, "--out", tmp_path / "b", "--back-translate", good, "--text", text, *given) == 0
    assert call("train", pairs, "--out", tmp_path / "c", "--self-train", good, "--text", text, *given) == 0
    assert call("synthesize", good, text, "--out", tmp_path / "d.jsonl", "--as", "source", "--way", "sample") == 0
    assert "1 x skipped: empty input" in capfd.readouterr().err
    assert (
        call("train", pairs, "--out", tmp_path / "e", "--mix", tmp_path / "d.jsonl", "data.mix_tag=made", *given) == 0
    )
    assert bundle.load(tmp_path / "c").config.data.mix_tag == ""
    assert bundle.load(tmp_path / "b").config.data.mix_tag == "synthetic"


def test_a_signal_ends_the_answering_and_the_same_command_goes_on(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("".join(f"{a}\n" for a, _ in words(30, seed=5)))
    (tmp_path / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in words(60)))
    given = [f"{key}={value}" for key, value in {**OURS, "training.steps": 1}.items()]
    command = ["train", tmp_path / "pairs.tsv", "--out", tmp_path / "run", "--self-train", good, *given]
    command += ["--text", tmp_path / "text"]
    make = Making.__call__

    def interrupted(making: Making, number: int, *rest: Any) -> dict[str, str]:
        if number == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(making, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Making, "__call__", interrupted)
        assert call(*command) == 128 + signal.SIGTERM
    assert "stopped; the same command goes on where it was" in capfd.readouterr().out
    assert not (tmp_path / "run").exists()
    assert call(*command) == 0
    assert "7 inputs had been answered before" in capfd.readouterr().out


def test_a_student_in_python(good: Path, tmp_path: Path) -> None:
    teacher = Seq2Seq.load(good)
    made = Seq2Seq(settings={**OURS, "training.steps": 2}, verbose=False).fit(words(60), teacher=[teacher, good])
    assert made.bundle_ is not None
    assert made.bundle_.task.source.vocabulary.tokens == bundle.load(good).task.source.vocabulary.tokens
    assert len(made.bundle_.config.training.teachers) == 2
    with pytest.raises(ConfigError, match="needs its teacher on disk; save it, and give its path"):
        Seq2Seq(out=tmp_path / "run").fit(words(60), teacher=teacher)


@pytest.mark.parametrize(("more", "message"), [
    (["--text", "t"], "text alone needs one model"), (["--self-train", "m"], "text alone needs one model"),
    (["--self-train", "m", "--back-translate", "m", "--text", "t"], "text alone needs one model"),
    (["--self-train", "m", "--text", "t", "--mix", "x"], "--mix and --text cannot go together"),
    (["--self-train", "m", "--text", "t"], "m: there is no model here"),
])  # fmt: skip
def test_options_that_make_no_sense(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t").write_text("a\n")
    Path("pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in words(60)))
    assert call("train", "pairs.tsv", "--out", "run", *more) == 2
    assert message in capsys.readouterr().err
    assert not Path("run").exists()


def test_sources_that_are_no_text_get_no_noise(tmp_path: Path) -> None:
    heard = listener(tmp_path / "heard")
    (tmp_path / "more.txt").write_text(f"{tmp_path}/0.wav\n", encoding="utf-8")
    given: dict[str, Any] = {"by": heard, "text": tmp_path / "more.txt", "side": "target", "out": tmp_path / "run"}
    with pytest.raises(ConfigError, match="noise is for sources of text"):
        learn_from_text([], **given, way="noise")
    spoken = [(f"{tmp_path}/{n}.wav", "ba") for n in range(8)]
    with suppress(DataError):  # untrained, it may say nothing that ends
        learn_from_text(spoken, valid=spoken, **given, assignments={**SHORT, "data.source.kind": "speech"})
    lines = [json.loads(line) for line in (tmp_path / "run.answers.jsonl").read_text().splitlines()]
    assert all(line.get("source", f"{tmp_path}/0.wav") == f"{tmp_path}/0.wav" for line in lines)
