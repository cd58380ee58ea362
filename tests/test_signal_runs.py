"""Whole runs on sources that are no text: they learn, resume to the bit, answer alike in every batch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from antiphon import Seq2Seq
from antiphon.core.errors import ConfigError, DataError
from antiphon.inference.bulk import digest
from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor
from antiphon.inference.recordings import words
from antiphon.training.observers import read_log
from antiphon.training.start import fit, resume
from commands import Call, calling, refused
from runs import Recorder, light, listing, outcome

__all__ = ["calling"]

RATE = 8000
PITCHES = {"low": 300.0, "middle": 800.0, "high": 2000.0}
FAST: dict[str, Any] = {
    "task": "speech", "model.width": 32, "model.encoder.kind": "gru", "model.decoder.kind": "gru",
    "model.encoder.layers": 1, "model.decoder.layers": 1, "model.attention": "additive", "model.dropout": 0.0,
    "data.frames.mels": 20, "training.threads": 1, "training.processes": 1, "training.rate": 0.01,
    "data.batch_tokens": 512, "training.label_smoothing": 0.0, "data.augment.speed": 0.1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def say(names: list[str], draw: np.random.Generator, shortest: float = 0.03) -> np.ndarray:
    """Tones one after another, with a pause after each, of at most a fifth of a second."""
    parts = []
    for name in names:
        length = int(draw.uniform(0.08, 0.14) * RATE)
        wave = 0.3 * np.sin(2 * np.pi * PITCHES[name] * np.arange(length) / RATE)
        parts += [wave * np.hanning(length), np.zeros(int(draw.uniform(shortest, 0.2) * RATE))]
    samples = np.concatenate(parts)
    return (samples + draw.normal(0, 0.003, len(samples))).astype(np.float32)


def table(folder: Path, count: int, seed: int = 1, longest: int = 4) -> Path:
    """Recordings of one to four tones and their names, in a table with paths counted from its folder."""
    draw, lines = np.random.default_rng(seed), list[str]()
    (folder / "takes").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        names = list(draw.choice(list(PITCHES), draw.integers(1, longest + 1)))
        soundfile.write(folder / f"takes/{seed}-{number}.wav", say(names, draw), RATE)
        lines.append(f"takes/{seed}-{number}.wav\t{' '.join(names)}")
    (folder / f"{seed}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / f"{seed}.tsv"


@pytest.fixture(scope="module", name="model")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that names tones; nobody may change it."""
    folder = tmp_path_factory.mktemp("tones")
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        fit(table(folder, 300), out=folder / "run", assignments={**FAST, "training.epochs": 12})
    return folder / "run"


def test_it_learns_and_the_bundle_reads_raw_files(model: Path, tmp_path: Path, call: Call) -> None:
    test = table(tmp_path, 60, seed=2)
    code, out, err = call("evaluate", model, test, "--metrics", "exact", "--json")
    assert code == 0, err
    assert json.loads(out)["scores"]["exact"]["value"] >= 85
    lines = test.read_text().splitlines()
    code, out, _ = call("predict", model, test)
    assert code == 0
    assert len(out.splitlines()) == 60
    takes = [tmp_path / line.split("\t")[0] for line in lines[:3]]
    code, again, _ = call("predict", model, *takes, "beam=3")
    assert code == 0
    assert again.splitlines() == out.splitlines()[:3]
    code, typed, _ = call("predict", model, text="".join(f"{take}\n" for take in takes))
    assert typed == again
    titled = tmp_path / "titled.tsv"
    titled.write_text("source\ttarget\n" + "\n".join(lines[:3]) + "\n", encoding="utf-8")
    code, titles, _ = call("predict", model, titled, "beam=3")
    assert titles == again
    code, told, _ = call("info", model)
    assert "speech at 8,000 Hz, 20 features a frame" in told


def test_lengths_are_told_in_seconds_before_training(model: Path) -> None:
    told = [event["text"] for event in read_log(model / "log.jsonl") if event["event"] == "note"]
    [line] = [text for text in told if "sources of" in text]
    assert re.search(
        r"sources of 0\.\d+ to [\d.]+ \(middle [\d.]+\) s, [\d.]+ minutes in all; targets of .* a second", line
    )


def test_answers_do_not_depend_on_the_batch(model: Path, tmp_path: Path) -> None:
    sources = [str(tmp_path / line.split("\t")[0]) for line in table(tmp_path, 40, seed=3).read_text().splitlines()]
    predictor = Predictor(load(model), processes=1)
    together = [each[0] for each in predictor.predict(sources, batch_size=16)]
    alone = [each[0] for each in predictor.predict(sources, batch_size=1)]
    assert [each.tokens for each in together] == [each.tokens for each in alone]
    np.testing.assert_allclose([each.score for each in together], [each.score for each in alone], atol=1e-4)


def test_words_have_times(model: Path) -> None:
    draw = np.random.default_rng(5)
    [[answer]] = Predictor(load(model)).predict([_inline(say(["low", "high", "middle"], draw))])
    found = words(answer, "whitespace")
    assert [word.text for word in found] == ["low", "high", "middle"]
    starts = [word.start for word in found]
    assert starts == sorted(starts)
    assert all(word.end > word.start for word in found)
    assert starts[2] > 0.2


def _inline(samples: np.ndarray) -> str:
    from antiphon.data.arrays import written

    return written(samples)


def test_long_recordings_are_cut_where_they_are_quiet(model: Path, tmp_path: Path, call: Call) -> None:
    draw = np.random.default_rng(6)
    names = list(draw.choice(list(PITCHES), 20))
    soundfile.write(tmp_path / "long.wav", say(names, draw, shortest=0.15), RATE)
    code, out, err = call("predict", model, tmp_path / "long.wav", "--jsonl")
    assert code == 0
    [answer] = json.loads(out)["answers"]
    said = answer["text"].split()
    assert SequenceMatcher(None, said, names).ratio() > 0.8
    assert "cut into pieces" in answer["reason"]
    assert "cut into pieces" in err
    assert [word["text"] for word in answer["words"]] == said
    assert answer["words"][-1]["start"] > 2


def test_what_is_drawn_for_a_recording_depends_on_no_other(model: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(6)
    for name, count in (("long", 20), ("short", 2)):
        soundfile.write(tmp_path / f"{name}.wav", say(["low", "high"] * (count // 2), draw, shortest=0.15), RATE)
    predictor = Predictor(load(model), processes=1)
    how = replace(predictor.config.decoding, sample=True, temperature=2.0, ctc=0.0, beam=1)
    inputs = [str(tmp_path / "long.wav"), "", *[str(tmp_path / "short.wav")] * 4]
    whole = [found[0].text for found in predictor.predict(inputs, settings=how)]
    assert predictor.report.places["empty input, answered with nothing"] == ["input 2"]
    for first in range(1, len(inputs)):
        rest = [found[0].text for found in predictor.predict(inputs[first:], settings=how, first=first)]
        assert rest == whole[first:]


def test_what_is_odd_about_a_long_recording_is_counted_once_by_its_name(
    model: Path, tmp_path: Path, call: Call
) -> None:
    loud = np.clip(20 * say(["low", "high"] * 10, np.random.default_rng(6), shortest=0.15), -1, 1)
    soundfile.write(tmp_path / "loud.wav", np.stack([loud, loud], axis=1), RATE)
    soundfile.write(tmp_path / "still.wav", np.zeros(8 * RATE), RATE)
    code, _, err = call("predict", model, tmp_path / "loud.wav", tmp_path / "still.wav")
    assert code == 0
    for what in ("several channels", "clipped", "nothing but silence"):
        [line] = [line for line in err.splitlines() if what in line]
        assert line.startswith("note: 1 x ")
    assert "data:" not in err


def test_a_long_recording_is_answered_by_an_exported_model(model: Path, tmp_path: Path, call: Call) -> None:
    pytest.importorskip("onnxruntime")
    data = table(tmp_path, 12, seed=8)
    code, _, err = call("export", model, tmp_path / "onnx", "--data", data, "--to", "onnx", "ctc=0")
    assert code == 0, err
    names = ["low", "high", "middle"] * 6
    soundfile.write(tmp_path / "long.wav", say(names, np.random.default_rng(6), shortest=0.15), RATE)
    code, out, err = call("predict", tmp_path / "onnx", tmp_path / "long.wav")
    assert code == 0, err
    assert len(out.split()) > 5


def test_tables_of_recordings_are_read_whatever_their_form(model: Path, tmp_path: Path, call: Call) -> None:
    rows = [line.split("\t") for line in table(tmp_path, 3, seed=4).read_text().splitlines()]
    code, wanted, _ = call("predict", model, tmp_path / "4.tsv")
    assert code == 0
    (tmp_path / "turned.tsv").write_text(
        "\n".join("\t".join(row[::-1]) for row in [["source", "target"], *rows]) + "\n"
    )
    (tmp_path / "a.csv").write_text("\n".join(",".join(row) for row in [["source", "target"], *rows]) + "\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"source": row[0]}) + "\n" for row in rows))
    for name in ("turned.tsv", "a.csv", "a.jsonl"):
        code, out, err = call("predict", model, tmp_path / name)
        assert (code, out) == (0, wanted), (name, err)
    done = call("predict", model, *(tmp_path / row[0] for row in rows), "--out", tmp_path / "out.txt")
    assert "3 of 3" in done[2] or "3 answers" in done[2]
    assert digest([str(tmp_path / row[0]) for row in rows])[1] == 3


def test_a_stopped_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    settings = {**FAST, "training.steps": 12, "training.validate_every": 5, "model.dropout": 0.2}
    data = table(tmp_path, 60)
    fit(data, out=tmp_path / "whole", assignments=settings)
    fit(data, out=tmp_path / "stopped", assignments=settings, observers=[Recorder(7)])
    resume(tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("changed", ["takes/1-7.wav", "takes/2-1.wav"], ids=["training", "validation"])
def test_a_changed_recording_stops_a_resume(changed: str, tmp_path: Path) -> None:
    data, valid, settings = table(tmp_path, 40), table(tmp_path, 4, seed=2), {**FAST, "training.steps": 12}
    fit(data, valid=valid, out=tmp_path / "run", assignments=settings, observers=[Recorder(3)])
    soundfile.write(tmp_path / changed, say(["low"] * 4, np.random.default_rng(9)), RATE)
    before = listing(tmp_path / "run")
    with pytest.raises(DataError, match="data has changed"):
        resume(tmp_path / "run")
    assert listing(tmp_path / "run") == before


def test_arrays_from_python(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)

    def pair() -> tuple[np.ndarray, str]:
        rises = bool(draw.integers(2))
        slope = np.linspace(-1, 1, draw.integers(5, 30)) * (1 if rises else -1)
        return np.stack([slope, slope**2], 1) + draw.normal(0, 0.3, (len(slope), 2)), "up" if rises else "down"

    settings = {**FAST, "task": "classification", "training.epochs": 6, "data.augment.speed": 0.0}
    model = Seq2Seq(settings=settings, verbose=False).fit([pair() for _ in range(200)])
    test = [pair() for _ in range(30)]
    assert model.score(test) > 0.9
    model.save(tmp_path / "model")
    again = Seq2Seq.load(tmp_path / "model")
    sources = [frames for frames, _ in test]
    assert again.predict(sources) == model.predict(sources)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda path: path.unlink(), r"1\.tsv:31: there is no file .*1-30\.wav"),
        (lambda path: path.write_bytes(path.read_bytes()[:44]), r"1-30\.wav: the recording has no sample"),
        (lambda path: path.write_text("no sound"), r"1-30\.wav: is no recording that can be read"),
        (
            lambda path: soundfile.write(path, np.full(800, np.nan, np.float32), RATE, "FLOAT"),
            "a sample is not a number",
        ),
    ],
)
def test_a_damaged_recording_is_named(
    damage: Callable[[Path], Any], match: str, tmp_path: Path, call: Call
) -> None:  # fmt: skip
    data = table(tmp_path, 40)
    damage(tmp_path / "takes/1-30.wav")
    line = refused(call, "train", data, "--task", "speech", "--out", tmp_path / "run", "training.steps=2")
    assert pytest.importorskip("re").search(match, line), line
    assert not (tmp_path / "run").exists()


def test_damaged_rows_can_be_skipped_and_are_counted(tmp_path: Path, call: Call) -> None:
    data = table(tmp_path, 40)
    (tmp_path / "takes/1-30.wav").unlink()
    words = [f"{key}={value}" for key, value in FAST.items() if key != "task"]
    code, out, err = call("train", data, "--task", "speech", "--out", tmp_path / "run", "training.steps=2",
                          "data.damaged=skip", *words)  # fmt: skip
    assert code == 0, err
    assert "1 x skipped: there is no file" in out + err


@pytest.mark.parametrize(
    "setting",
    ["data.shared=true", "model.head=copy", "data.augment.typos=0.1", "training.objective=adversarial",
     "data.source.sampling=0.1", "model.frontend.reduce=3"],
)  # fmt: skip
def test_what_is_for_text_is_refused(setting: str, tmp_path: Path, call: Call) -> None:
    data = table(tmp_path, 12)
    line = refused(call, "train", data, "--out", tmp_path / "run", setting)
    assert "model.frontend.reduce" in line or "is for sources of text" in line


def test_a_frontend_is_not_for_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sources are text"):
        fit([("a", "b"), ("c", "d")], out=tmp_path / "run", assignments={"model.frontend.kind": "conv"})


def test_a_sentence_is_no_recording(model: Path, call: Call) -> None:
    assert "there is no such file" in refused(call, "predict", model, text="hello\n")
