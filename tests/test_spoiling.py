"""Commands leave alone what is not theirs, say names as they are, and end as programs do whose reader has left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from antiphon.__main__ import main
from commands import Call, calling, refused  # noqa: F401

TINY = ["training.threads=1", "training.processes=1", "model.width=16", "training.steps=4", "training.probes=false"]
PAIRS = "".join(f"{' '.join(str(number))}\t{' '.join(reversed(str(number)))}\n" for number in range(100, 160))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs and a run."""
    folder = tmp_path_factory.mktemp("spoiling")
    (folder / "pairs.tsv").write_text(PAIRS)
    with pytest.raises(SystemExit) as end:
        main(["train", f"{folder}/pairs.tsv", "--out", f"{folder}/run", *TINY])
    assert not end.value.code
    return folder


def test_the_demo_leaves_other_folders_alone(call: Call, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("precious")
    assert "something else is here already; choose another" in refused(call, "demo", "--out", tmp_path, "--fresh")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "thesis.txt"]


def test_a_sweep_leaves_its_data_alone(call: Call, work: Path, tmp_path: Path) -> None:
    pytest.importorskip("altair")
    held = tmp_path / "held.json"
    held.write_text('{"source": "1 2", "target": "2 1"}\n')
    for data in (held, work / "pairs.tsv"):
        words = "sweep", work / "run", data, "--temperatures", "1", "--out", tmp_path / "held.html"
        assert "the numbers go beside the plot, and this is there already" in refused(call, *words)
    assert held.read_text() == '{"source": "1 2", "target": "2 1"}\n'


@pytest.mark.parametrize("out", ["run/best", "copy", "other/best"])
def test_an_export_leaves_its_model_alone(out: str, call: Call, work: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    for name in ("run", "other"):
        shutil.copytree(work / "run", tmp_path / name)
    shutil.copytree(work / "run/best", tmp_path / "copy")
    model = tmp_path / ("copy" if out == "copy" else "run")
    words = "export", model, tmp_path / out, "--data", work / "pairs.tsv", "--to", "onnx"
    assert "would take the place of the model" in refused(call, *words)
    assert (tmp_path / out / "model.safetensors").exists()
    (tmp_path / "checkpoints").mkdir()
    assert call("export", model, tmp_path / "fast.zip", *words[3:])[0] == 0


def test_formats_that_would_not_be_what_they_are_called_are_refused(call: Call, work: Path, tmp_path: Path) -> None:
    made = "synthesize", work / "run", work / "pairs.tsv", "--out", tmp_path / "made.csv"
    assert "pairs are written as JSONL (got" in refused(call, *made)
    (tmp_path / "in.txt").write_text("1 2\n")
    packed = "predict", work / "run", tmp_path / "in.txt", "--out", tmp_path / "answers.txt.gz"
    assert "not packed (got" in refused(call, *packed)
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_a_report_and_a_doctor_do_not_take_other_pairs_for_those_of_the_run(
    call: Call, work: Path, tmp_path: Path
) -> None:
    (tmp_path / "pairs.tsv").write_text(PAIRS)
    code, _, _ = call("train", tmp_path / "pairs.tsv", "--out", tmp_path / "run", *TINY)
    assert code == 0
    for change in ("", "9 9 9\t1 1 1\n"):
        (tmp_path / "pairs.tsv").write_text(PAIRS + change)
        code, told, _ = call("report", tmp_path / "run", "--text")
        assert code == 0
        assert ("the training data has changed since this run began" in " ".join(told.split())) == bool(change)
        _, told, _ = call("doctor", tmp_path / "run")
        assert ("the training data has changed since this run began" in " ".join(told.split())) == bool(change)


def test_brackets_in_names_are_said_as_they_are(call: Call, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "rate[/b] [lr=0.1] :cat:"
    code, told, err = call("train", work / "pairs.tsv", "--out", out, *TINY)
    assert (code, err) == (0, "")
    assert f"try: antiphon predict '{out}'" in told
    code, _, told = call("predict", out, work / "pairs.tsv", "--out", tmp_path / "o[/v2].txt")
    assert code == 0
    assert f"60 answers in {tmp_path}/o[/v2].txt" in " ".join(told.split())


def program(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "antiphon", *map(str, words)]


@pytest.mark.parametrize(("last", "every"), [(b"step 4", 2), (b"training ", 50_000)])
def test_training_whose_lines_nobody_reads_stops_with_a_checkpoint(
    last: bytes, every: int, work: Path, tmp_path: Path
) -> None:
    words = ["train", work / "pairs.tsv", "--out", tmp_path / "run", *TINY[:3], "training.steps=100000",
             f"training.validate_every={every}", "training.patience=0"]  # fmt: skip
    with subprocess.Popen(program(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith(last):
                break
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, b"")
    end = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[-1])
    assert (end["event"], end["reason"]) == ("end", "observer")


def test_one_process_trains_in_a_run(work: Path, tmp_path: Path) -> None:
    words = ["train", work / "pairs.tsv", "--out", tmp_path / "run", *TINY[:3], "training.steps=100000",
             "training.validate_every=2", "training.patience=0"]  # fmt: skip
    with subprocess.Popen(program(*words), stdout=subprocess.DEVNULL) as process:
        while not (tmp_path / "run/checkpoints/step-00000002").exists():
            time.sleep(0.1)
        second = subprocess.run(program("resume", tmp_path / "run"), capture_output=True, text=True, check=False)
        process.terminate()
    assert second.returncode == 2
    assert "another process is training in this run; wait for it, or stop it" in second.stderr
    assert process.returncode == 143


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_closed_streams_are_empty_ones(closed: str, work: Path) -> None:
    command = f"'{sys.executable}' -m antiphon predict '{work}/run' {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                          env=os.environ)  # fmt: skip
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (0, "", False)


def test_pairs_may_be_named_otherwise_than_those_of_training(call: Call, work: Path, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("id,en,de\n1,1 2 3,3 2 1\n2,,4\n")
    words = "evaluate", work / "run", tmp_path / "test.csv", "--metrics", "exact"
    code, told, _ = call(*words, "data.columns=en,de", "data.empty=skip", "beam=1")
    assert code == 0
    assert "exact" in told
    assert "target" not in refused(call, *words, "data.columns=en,de", "data.empty=error").partition("empty")[0]
    assert "unknown setting data.valid" in refused(call, *words, "data.valid=0.5")


@pytest.mark.parametrize(("words", "said"), [
    (["audit", "PAIRS", "--task", "foo"], "unknown task foo"),
    (["audit", "PAIRS", "--keep", "copied"], "--keep is for --fix"),
    (["audit", "PAIRS", "--fix", "/proc/none/x.tsv"], "/proc/none/x.tsv: cannot be written"),
    (["audit", "PAIRS", "foo=1"], "unknown setting foo; `antiphon info` lists all"),
    (["audit", "PAIRS", "training.dropout=2"], "unknown setting training.dropout; did you mean model.dropout?"),
    (["audit", "PAIRS", "data.columns=1,1"], "names one column twice (got 1); pass data.columns=1,2"),
    (["doctor", "RUN", "--cause", "x"], "--cause is for --cure"),
    (["doctor", "RUN", "--out", "x"], "--out is for --cure"),
    (["train", "PAIRS", "--out", "x", "--config", "nope.toml"], "nope.toml: cannot be read: no such file"),
    (["train", "PAIRS", "--out", "PAIRS"], "this is a file, and a run is a folder"),
    (["trian"], 'Unknown command "trian". Did you mean "train"?; see: antiphon --help'),
])  # fmt: skip
def test_mistakes_say_what_to_do(words: list[str], said: str, call: Call, work: Path) -> None:
    places = {"PAIRS": work / "pairs.tsv", "RUN": work / "run"}
    assert said in refused(call, *(places.get(word, word) for word in words))


def test_a_table_that_is_read_as_text_is_told(call: Call, work: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("word,pron\n1,2\n")
    code, told, err = call("predict", work / "run", tmp_path / "in.csv")
    assert (code, len(told.splitlines())) == (0, 2)
    assert "in.csv is read as lines of text; where a column is meant, choose it with data.columns" in err
