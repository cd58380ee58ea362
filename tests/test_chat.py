"""A chat answers as `predict` does on the same turns, remembers both sides, and ends in order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from antiphon import Chat, Predictor, Seq2Seq, fit, load
from antiphon.core.errors import ConfigError, DataError
from antiphon.data.corpus import Pair
from antiphon.data.turns import Turn, join
from antiphon.inference.chat import speakers
from antiphon.training.start import resume
from commands import Call, calling  # noqa: F401
from runs import Recorder, light, outcome

QUICK = {
    "training.steps": 60, "training.threads": 1, "training.processes": 1, "training.rate": 0.01,
    "training.validate_every": 60, "data.batch_tokens": 300, "model.width": 32, "model.dropout": 0.0,
    "model.encoder.kind": "gru", "model.decoder.kind": "gru", "model.encoder.layers": 1, "model.decoder.layers": 1,
    "data.source.tokenizer": "whitespace", "data.target.tokenizer": "whitespace",
}  # fmt: skip
THINGS = ("tea", "rain", "chess", "snow")
TALKS = [[f"i like {one}", f"me too {one}", f"and {two}", "why", "what do i like", f"{one} and {two}"]
         for one in THINGS for two in THINGS] * 3  # fmt: skip


def trained(path: Path, dialogues: object, **more: object) -> Path:
    Seq2Seq("dialogue", settings={**QUICK, **more}, verbose=False).fit(dialogues).save(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def _light() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("chat") / "plain", [{"turns": talk} for talk in TALKS])


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    said = [[{"speaker": "ab"[n % 2], "text": text} for n, text in enumerate(talk)] for talk in TALKS]
    settings = {"training.steps": 2, "data.history": 3}
    return trained(tmp_path_factory.mktemp("chat") / "named", [{"turns": talk} for talk in said], **settings)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = [(talk[0], talk[1]) for talk in TALKS]
    return trained(tmp_path_factory.mktemp("chat") / "single", pairs, **{"training.steps": 2})


def test_answers_are_those_of_predict_on_the_turns_so_far(plain: Path) -> None:
    chat, predictor = Chat(Predictor(load(plain))), Predictor(load(plain))
    assert chat.remembered == 5
    said: list[Turn] = []
    answers = []
    for line in ["i like tea", "and rain", "what do i like", "and snow", "what do i like"]:
        said.append(Turn(line))
        others = [Pair(join([Turn(text)]), "") for text in ("i like chess", "why")]
        [_, [wanted, *_], _] = predictor.predict([others[0], Pair(join(said[-5:]), ""), others[1]])
        answers.append(chat.say(line))
        assert answers[-1] == wanted.text
        said.append(Turn(wanted.text))
    assert chat.history == said
    assert len(set(answers)) > 1
    chat.reset()
    assert chat.history == []
    assert chat.say("i like tea") == answers[0]


def test_speakers_are_those_of_training(named: Path) -> None:
    predictor = Predictor(load(named))
    assert speakers(predictor.task) == ["a", "b"]
    chat = Chat(predictor)
    assert (chat.speaker, chat.partner, chat.remembered) == ("a", "b", 3)
    assert (Chat(predictor, partner="a").speaker, Chat(predictor, speaker="b").partner) == ("b", "a")
    chat.say("i like tea")
    assert [turn.speaker for turn in chat.history] == ["a", "b"]
    with pytest.raises(ConfigError, match="does not know this speaker"):
        Chat(predictor, speaker="c")


def test_more_than_two_speakers_must_be_named(named: Path) -> None:
    bundle = load(named)
    source = bundle.task.source
    vocabulary = replace(source.vocabulary, tokens=(*source.vocabulary.tokens, "<turn:c>"))
    task = replace(bundle.task, source=replace(source, vocabulary=vocabulary))
    with pytest.raises(ConfigError, match=r"say who talks and who answers \(got 3 that it knows: a, b, c"):
        Chat(Predictor(replace(bundle, task=task)))


def test_what_cannot_be_said_is_not_remembered(plain: Path, single: Path) -> None:
    chat = Chat(Predictor(load(plain)))
    for text in ("", "  ", "a <turn> b", "<turn:x>", "a\0b"):
        with pytest.raises(DataError):
            chat.say(text)
    assert chat.history == []
    with pytest.raises(ConfigError, match="knows no speakers"):
        Chat(Predictor(load(single)), speaker="a")


def test_draws_differ_from_turn_to_turn_and_not_from_chat_to_chat(single: Path) -> None:
    predictor = Predictor(load(single))
    drawn = replace(predictor.config.decoding, sample=True, max_length=6, min_length=3)
    chats = [Chat(predictor, settings=drawn) for _ in range(2)]
    first, second = ([chat.say("i like tea") for _ in range(6)] for chat in chats)
    assert first == second
    assert len(set(first)) > 1


# The command


def test_a_pipe_gets_one_answer_a_line(plain: Path, call: Call) -> None:
    lines = "i like tea\n\n/help\n/histori\n<turn>\nand rain\n/history\n/reset\ni like tea\n/quit\nnever read\n"
    code, out, err = call("chat", plain, text=lines)
    answers = out.splitlines()
    assert code == 0
    chat = Chat(Predictor(load(plain)))
    one, two = chat.say("i like tea"), chat.say("and rain")
    assert answers == [one, two, "i like tea", one, "and rain", two, one]
    assert "it sees the latest 5 turns" in err.splitlines()[0]
    assert "unknown command /histori; did you mean /history?" in err
    assert "this cannot be said" in err
    assert "forgotten" in err


def test_without_history_it_says_so(single: Path, call: Call) -> None:
    code, out, err = call("chat", single, "beam=2", text="i like tea\ni like tea")
    assert code == 0
    assert len(set(out.splitlines())) == 1
    assert len(out.splitlines()) == 2
    assert "trained without history, so it answers each line alone" in err


def test_what_is_odd_is_told_once(plain: Path, call: Call) -> None:
    _, out, err = call("chat", plain, text="zzz yyy\nzzz\nzzz\n")
    assert len(out.splitlines()) == 3
    assert err.count("unknown token in the input") == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["n_best=2", "beam=2"], "a chat gives one answer (got n_best=2)"),
        (["--adapter", "x"], "no adapter x"),
        (["--knowledge", "x"], "the model reads no facts"),
        (["--speaker", "x"], "knows no speakers"),
        (["beem=3"], "unknown setting beem"),
        (["beam"], "written key=value"),
    ],
)
def test_mistakes_are_one_line(plain: Path, call: Call, words: list[str], why: str) -> None:
    code, out, err = call("chat", plain, *words)
    assert (code, out) == (2, "")
    assert why in err
    assert len(err.splitlines()) == 1


def test_context_columns_are_given_by_name(tmp_path: Path, call: Call) -> None:
    rows = [{"source": talk[0], "target": talk[1], "tone": tone} for talk in TALKS for tone in ("kind", "rude")]
    model = trained(tmp_path / "model", rows, **{"training.steps": 2, "data.context": ("tone",)})
    assert call("chat", model, "tone=rude", "beam=1", text="i like tea\n")[0] == 0
    assert "give tone=..." in call("chat", model, text="i like tea\n")[2]


def test_the_program_ends_with_its_input(plain: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "antiphon", "chat", str(plain)]
    done = subprocess.run(command, input="i like tea", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1


def test_training_on_turns_goes_on_to_the_bit(tmp_path: Path) -> None:
    settings = {"task": "dialogue", "training.validate_every": 4, "training.steps": 8, "data.augment.swap": 0.3}
    for name, stop in (("whole", None), ("parts", 5)):
        given = {**QUICK, **settings, "model.head": "copy"}
        dialogues = [{"turns": talk} for talk in TALKS]
        fit(dialogues, out=tmp_path / name, assignments=given, observers=[Recorder(stop)])
    resume(tmp_path / "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    assert load(tmp_path / "parts").task.turns == 5
