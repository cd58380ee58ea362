"""What commands ask of their data and settings before any work: columns that some model reads, searches that fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from antiphon import Seq2Seq
from antiphon.core.errors import ConfigError
from antiphon.inference.answer import Answer
from antiphon.inference.synthesis import Making
from commands import Call, calling, refused  # noqa: F401
from corpora import write_pairs
from runs import words
from starts import QUICK

PAIRS = sorted(set(words(60, seed=5)))
SETTINGS = [f"{key}={value}" for key, value in {**QUICK, "training.steps": 4, "training.validate_every": 2}.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with named columns, and two models of it: `plain` does not read the column `way`, `tagged` does."""
    made = tmp_path_factory.mktemp("asking")
    rows = [f"{source}\t{target}\t{'ab'[number % 2]}" for number, (source, target) in enumerate(PAIRS)]
    (made / "table.tsv").write_text("\n".join(["word\tform\tway", *rows]) + "\n", encoding="utf-8")
    write_pairs(made / "pairs.tsv", *map(list, zip(*PAIRS, strict=True)))
    given = dict(word.split("=", 1) for word in SETTINGS) | {"data.columns": "word,form"}
    for name, more in (("plain", {}), ("tagged", {"data.context": "way"})):
        Seq2Seq(settings={**given, **more}, verbose=False).fit(made / "table.tsv").save(made / name)
    return made


def test_the_columns_of_all_models_are_read_whichever_comes_first(folder: Path, call: Call, tmp_path: Path) -> None:
    plain, tagged, table = folder / "plain", folder / "tagged", folder / "table.tsv"
    for models in ((plain, tagged), (tagged, plain)):
        code, _, err = call("compare", *models, table, "--metrics", "exact")
        assert code == 0, err
        code, _, err = call(
            "sweep", *models, table, "--out", tmp_path / f"{models[0].name}.html", "--temperatures", "1"
        )
        assert code == 0, err


def test_what_lacks_a_column_is_said_before_anything_is_answered(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: object, **more: object) -> None:
        raise AssertionError("something was answered")

    monkeypatch.setattr("antiphon.inference.predictor.Predictor.predict", never)
    told = refused(call, "evaluate", folder / "plain", folder / "table.tsv", "--by", "nope")
    assert "table.tsv" in told
    assert "no column nope; known: form, way, word" in told
    assert "no column" in refused(call, "compare", folder / "plain", folder / "tagged", folder / "table.tsv",
                                  "--old", folder / "pairs.tsv")  # fmt: skip


def test_a_line_without_its_context_is_told_by_its_number(folder: Path, call: Call) -> None:
    told = refused(call, "predict", folder / "tagged", text=f"{PAIRS[0][0]}\ta\n{PAIRS[1][0]}\n")
    assert "input 2: a line must have the context" in told
    code, out, _ = call("predict", folder / "tagged", text=f"{PAIRS[0][0]}\ta\n\n")
    assert (code, out.count("\n"), out.endswith("\n\n")) == (0, 2, True)


def test_settings_of_a_search_that_do_nothing_or_cannot_be_are_told(folder: Path, call: Call) -> None:
    code, _, err = call("predict", folder / "plain", "temperature=3", "top_k=1", "diversity=1", text="a b\n")
    assert code == 0
    assert "note: temperature, top_k without sample=true: it changes nothing" in err
    assert "note: diversity without groups=2 or more: it changes nothing" in err
    err = call("predict", folder / "plain", "risk=chrf", "beam=1", text="a b\n")[2]
    assert "note: risk with one candidate changes nothing" in err
    assert "decoding.risk is one metric (got chrf+bleu)" in refused(call, "predict", folder / "plain", "risk=chrf+bleu")
    err = call("predict", folder / "plain", "samples=5", "risk=chrf", "length_reward=2", text="a b\n")[2]
    assert "note: samples without sample=true" in err
    assert "note: length_reward without --backward" in err
    assert "it changes nothing" not in call("predict", folder / "plain", "sample=true", "top_k=1", text="a b\n")[2]
    for command in (["evaluate"], ["calibrate", "--out", folder / "sure"]):
        err = call(command[0], folder / "plain", folder / "table.tsv", *command[1:], "n_best=2", "top_p=0.9")[2]
        assert "note: n_best changes nothing: the first answer alone is judged" in err
        assert "note: top_p without sample=true" in err
    assert "note: top_k without" in call("chat", folder / "plain", "top_k=2", text="a b\n")[2]
    for wrong, what in (
        (["max_length=2", "min_length=3"], "min_length is above decoding.max_length (got 3 and 2)"),
        (["top_p=1.5"], "top_p must be above 0, and 1 at most (got 1.5)"),
        (["n_best=9", "--jsonl"], "give beam=9 too"),
    ):
        assert what in refused(call, "predict", folder / "plain", *wrong, text="a b\n")


def test_an_empty_answer_is_called_so() -> None:
    make = Making("source")
    empty = Answer("", 0.0, [], [], [], np.zeros((0, 1)), ["a"], 0.5, reason="longer than any source in training")
    assert make(0, None, [empty]) == {"skipped": "empty answer"}  # type: ignore[arg-type]


def test_score_takes_pairs(folder: Path) -> None:
    model = Seq2Seq.load(folder / "plain")
    with pytest.raises(ConfigError, match="score takes pairs"):
        model.score(["a b"], ["b a"])
    with pytest.raises(ConfigError, match=r"^settings: unknown setting model.widht"):
        Seq2Seq(settings={"model.widht": 3}, verbose=False).fit(PAIRS)


def test_a_table_gives_its_sources(folder: Path, call: Call, tmp_path: Path) -> None:
    text = "".join(f"{source}\n" for source, _ in PAIRS[:3])
    wanted = call("predict", folder / "plain", text=text)[1]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"word": source, "form": ["x", "y"], "way": "a"}) + "\n" for source, _ in PAIRS[:3])
    )
    (tmp_path / "a.csv").write_text("id,word\n" + "".join(f'1,"{source}"\n' for source, _ in PAIRS[:3]))
    (tmp_path / "a.tsv").write_text("word\tform\n" + "".join(f"{source}\tx\n" for source, _ in PAIRS[:3]))
    for name in ("a.jsonl", "a.csv", "a.tsv"):
        code, out, err = call("predict", folder / "plain", tmp_path / name)
        assert (code, out) == (0, wanted), err
    (tmp_path / "plain.csv").write_text("ab,cd\nba\n")
    verbatim = call("predict", folder / "plain", text="ab,cd\nba\n")[1]
    assert call("predict", folder / "plain", tmp_path / "plain.csv")[1] == verbatim
    (tmp_path / "old.csv").write_bytes(b"a b\rc d\r")
    (tmp_path / "long.csv").write_text("ab " * 50_000 + "\n")
    for name in ("old.csv", "long.csv"):
        code, out, err = call("predict", folder / "plain", tmp_path / name)
        assert (code, out.count("\n")) == (0, 1), err
    assert "no model is named" in refused(call, "predict", ",", text="a\n")
    assert "no metric is named" in refused(call, "evaluate", folder / "plain", folder / "table.tsv", "--metrics", "")


def test_predict_reads_the_columns_that_are_named_and_no_other_setting_of_data(
    folder: Path, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "asked.csv").write_text(f"id,text\n7,{PAIRS[0][0]}\n")
    (tmp_path / "lines").write_text(f"{PAIRS[0][0]}\n")
    named = call("predict", folder / "plain", tmp_path / "asked.csv", "data.columns=text")
    assert named == call("predict", folder / "plain", tmp_path / "lines")
    assert "there is no column nope; known: id, text" in refused(
        call, "predict", folder / "plain", tmp_path / "asked.csv", "data.columns=nope")  # fmt: skip
    assert "data.columns is for tables" in refused(call, "predict", folder / "plain", "data.columns=text", text="a\n")
    assert "unknown setting data.empty" in refused(
        call, "predict", folder / "plain", tmp_path / "asked.csv", "data.empty=bogus")  # fmt: skip
    assert "unknown setting data.columns" in refused(call, "chat", folder / "plain", "data.columns=a", text="a\n")


def test_lines_with_their_context_are_no_mistaken_table(folder: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "asked.tsv").write_text(f"{PAIRS[0][0]}\ta\n")
    code, _, err = call("predict", folder / "tagged", tmp_path / "asked.tsv")
    assert (code, "read as lines" in err) == (0, False)
    assert "read as lines" in call("predict", folder / "plain", tmp_path / "asked.tsv")[2]


def test_a_title_as_usual_is_known_whatever_training_called_it(folder: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "asked.csv").write_text(f"source,label\n{PAIRS[0][0]},x\n")
    (tmp_path / "one.tsv").write_text(f"source\n{PAIRS[0][0]}\n")
    (tmp_path / "lines").write_text(f"{PAIRS[0][0]}\n")
    wanted = call("predict", folder / "plain", tmp_path / "lines")[1]
    for name in ("asked.csv", "one.tsv"):
        assert call("predict", folder / "plain", tmp_path / name)[:2] == (0, wanted)


def test_answers_to_another_column_are_not_gone_on_with(folder: Path, tmp_path: Path, call: Call) -> None:
    table, out = tmp_path / "two.csv", tmp_path / "answers"
    table.write_text("left,right\n" + f"{PAIRS[0][0]},{PAIRS[1][0]}\n" * 3)
    assert call("predict", folder / "plain", table, "data.columns=left", "--out", out)[0] == 0
    out.rename(tmp_path / "answers.partial")
    refused(call, "predict", folder / "plain", table, "data.columns=right", "--out", out)


def test_advice_is_of_settings_that_the_command_has(folder: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "asked.jsonl").write_text('{"word": "a"}\n{"word": ""}\n')
    told = refused(call, "predict", folder / "plain", tmp_path / "asked.jsonl")
    assert "repair or remove the line" in told
    assert "data.empty" not in told
    _, _, err = call("chat", folder / "plain", text="a\udcff\n")
    assert "is not valid UTF-8" in err
