"""The program: fast to start, one line for every mistake, honest exit codes, and every command on a real model."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import antiphon
from antiphon.__main__ import main
from antiphon.cli import COMMANDS, demo, pronunciations
from commands import Call, calling, refused  # noqa: F401

TINY = ["training.threads=1", "model.width=32", "model.encoder.layers=1", "training.rate=0.01", "training.warmup=1"]
TINY += ["training.validate_every=50", "training.patience=0", "model.dropout=0", "training.label_smoothing=0"]
PAIRS = [(" ".join(str(number)), " ".join(reversed(str(number)))) for number in range(100, 400)]
NO_TORCH = "import sys; {}; assert not {{'torch', 'numpy'}} & set(sys.modules)"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs, two trained runs and their settings."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS))
    for name, steps in (("run", 250), ("short", 2)):
        with pytest.raises(SystemExit) as end:
            main(["train", f"{folder}/pairs.tsv", "--out", f"{folder}/{name}", f"training.steps={steps}", *TINY])
        assert not end.value.code
    return folder


def program(*words: str | Path) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "antiphon", *map(str, words)]


# Starting


@pytest.mark.parametrize("code", ["import antiphon; dir(antiphon)", "import antiphon.__main__, antiphon.cli"])
def test_import_is_light(code: str) -> None:
    subprocess.run([sys.executable, "-c", NO_TORCH.format(code)], check=True)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
def test_help_is_fast_and_without_torch(words: list[str]) -> None:
    code = f"from antiphon.__main__ import _run; assert not _run({words!r})"
    command = [sys.executable, "-c", NO_TORCH.format(code)]
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.3


TRAINED = """
import sys
from antiphon import fit
pairs = [(a + b + c, c + b + a) for a in "abcd" for b in "efgh" for c in "ijkl"]
tiny = {"data.source.tokenizer": "char", "model.width": 8, "model.heads": 2, "training.steps": 2}
fit(pairs, out=sys.argv[1], assignments=tiny)
assert not {"torch._dynamo", "pandas", "pyarrow", "scipy", "sympy"} & set(sys.modules)
"""


def test_training_imports_no_compiler(tmp_path: Path) -> None:
    """The first optimizer of `torch.optim` brings in 800 modules: a second, and 80 MB."""
    subprocess.run([sys.executable, "-c", TRAINED, tmp_path / "run"], check=True)


SHAPES = """
import resource, antiphon, torch
torch.set_num_threads(1)
torch.set_float32_matmul_precision("medium")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
weight = torch.ones(256, 128)
for rows in range(500, 530):
    torch.ones(rows, 128) @ weight.T
before = peak()
for rows in range(100, 400):
    torch.ones(rows, 128) @ weight.T
print(peak() - before)
"""


def test_compiled_products_are_forgotten() -> None:
    """Without the bounds that `antiphon` sets, 300 shapes of a product would hold 160 MB."""
    done = subprocess.run([sys.executable, "-c", SHAPES], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 80


def test_bounds_of_the_environment_stand() -> None:
    code = "import antiphon, os; print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'], os.environ['LRU_CACHE_CAPACITY'])"
    environment = {**os.environ, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7", "LRU_CACHE_CAPACITY": "8"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["7", "8"]


def test_help_lists_every_command(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert [name for name in COMMANDS if f" {name} " not in out] == []
    for name, purpose in COMMANDS.items():
        assert purpose[:20] in call(name, "--help")[1]
    assert call("--version")[1].strip() == antiphon.__version__


def test_public_names_are_there() -> None:
    for name in antiphon.__all__:
        assert getattr(antiphon, name) is not None
    with pytest.raises(AttributeError):
        _ = antiphon.nothing


# Mistakes


def test_mistakes_on_the_command_line(call: Call) -> None:
    assert 'Did you mean "train"' in refused(call, "trian")
    assert "--out" in refused(call, "train", "pairs.tsv")
    assert "did you mean model.width?" in refused(call, "train", "pairs.tsv", "--out", "x", "model.widht=3")
    assert "key=value" in refused(call, "train", "pairs.tsv", "--out", "x", "model.width")
    assert "model.width" in refused(call, "train", "pairs.tsv", "--out", "x", "model.width=many")


def test_mistakes_in_files(call: Call, work: Path, tmp_path: Path) -> None:
    assert "nowhere.tsv" in refused(call, "train", tmp_path / "nowhere.tsv", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "nowhere" in refused(call, "predict", tmp_path / "nowhere")
    assert "nowhere" in refused(call, "resume", tmp_path / "nowhere")
    assert "nowhere.txt" in refused(call, "predict", work / "run", tmp_path / "nowhere.txt")
    assert "nowhere.toml" in refused(call, "train", "x", "--out", "y", "--config", tmp_path / "nowhere.toml")
    (tmp_path / "bad.txt").write_bytes(b"1 2\n\xff\n")
    assert "bad.txt:2" in refused(call, "predict", work / "run", tmp_path / "bad.txt")
    assert "unknown metric exakt; did you mean exact?" in refused(
        call, "evaluate", work / "run", work / "pairs.tsv", "--metrics", "exakt"
    )
    assert "did you mean beam?" in refused(call, "predict", work / "run", "baem=5", text="1\n")


def test_a_run_is_never_overwritten(call: Call, work: Path) -> None:
    before = (work / "run" / "config.json").stat().st_mtime_ns
    assert str(work / "run") in refused(call, "train", work / "pairs.tsv", "--out", work / "run")
    assert (work / "run" / "config.json").stat().st_mtime_ns == before


# Training


def test_recipe_comes_first_and_show_trains_nothing(call: Call, work: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[model]\nwidth = 64\nencoder = { kind = "gru" }\n')
    code, out, _ = call(
        "train", work / "pairs.tsv", "--out", tmp_path / "run", "--config", file, "--show", "model.width=32"
    )
    assert code == 0
    assert re.search(r"model\.width +32 +given", out)
    assert re.search(r"model\.encoder\.kind +gru +given", out)
    assert re.search(r"training\.rate +\S+ +\S+", out)
    assert list(tmp_path.iterdir()) == [file]


def test_training_log_is_plain_and_says_how_to_go_on(call: Call, work: Path, tmp_path: Path) -> None:
    code, out, err = call("train", work / "pairs.tsv", "--out", tmp_path / "run", "training.steps=2", *TINY)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert out.index("setting") < out.index("training.rate") < out.index("parameters on") < out.index("ended after 2")
    assert f"antiphon predict {tmp_path}/run" in out.replace("\n", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_interrupted_training_says_how_to_resume(work: Path, tmp_path: Path, number: int, code: int) -> None:
    run = tmp_path / "run"
    words = ["training.steps=100000", "training.epochs=none", "training.patience=0", *TINY]
    process = subprocess.Popen(
        program("train", work / "pairs.tsv", "--out", run, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # tests may run under nohup
    )
    wait_for(lambda: (run / "log.jsonl").exists() and '"event": "validation"' in (run / "log.jsonl").read_text())
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    assert f"antiphon resume {run}" in out


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_resume_of_a_finished_run_changes_nothing(call: Call, work: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in (work / "short").rglob("*"))
    code, out, _ = call("resume", work / "short")
    assert code == 0
    assert "nothing left to do" in out
    assert sorted((path, path.stat().st_mtime_ns) for path in (work / "short").rglob("*")) == before


# Using a model


def test_predict_keeps_order_and_lines(call: Call, work: Path) -> None:
    lines = ["1 2 3", "", "3 1 1", "1 2 3", "2"]
    code, out, _ = call("predict", work / "run", text="\n".join(lines) + "\n")
    answers = out.split("\n")
    assert code == 0
    assert len(answers) == len(lines) + 1
    assert answers[0] == answers[3] == "3 2 1"
    assert answers[1] == ""
    (work / "lines.txt").write_text("\n".join(lines) + "\n")
    assert call("predict", work / "run", work / "lines.txt")[1] == out
    assert call("predict", work / "run", "-", "beam=5", text="\n".join(lines) + "\n")[1] == out


def test_predict_writes_json_lines(call: Call, work: Path) -> None:
    code, out, _ = call("predict", work / "run", "--jsonl", "beam=3", "n_best=3", text="1 2 3\n2 2 1\n")
    first, second = (json.loads(line) for line in out.splitlines())
    assert code == 0
    assert (first["source"], second["source"]) == ("1 2 3", "2 2 1")
    assert len(first["answers"]) == 3
    best = first["answers"][0]
    assert best["text"] == "3 2 1"
    assert len(best["tokens"]) == len(best["probabilities"]) == len(best["alignment"]) == 3
    assert best["score"] >= first["answers"][1]["score"]
    assert (0 < best["probability"] <= 1, best["confidence"]) == (True, None)


def test_predict_with_an_ensemble(call: Call, work: Path) -> None:
    code, out, _ = call("predict", f"{work / 'run'},{work / 'run'}", text="1 2 3\n")
    assert (code, out) == (0, "3 2 1\n")


def test_predict_into_a_closed_pipe(work: Path) -> None:
    command = " ".join(program("predict", work / "run"))
    script = f"yes '1 2 3' | head -n 30000 | {command} | head -n 1; echo ${{PIPESTATUS[2]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "3 2 1\n141\n"
    assert done.stderr == ""


def test_predict_with_context(call: Call, tmp_path: Path) -> None:
    rows = [{"source": str(n % 7), "target": f"{way} {n % 7}", "way": way} for n in range(80) for way in ("up", "down")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["data.context=way", "training.steps=200", "data.target.tokenizer=whitespace", *TINY]
    code, _, err = call("train", tmp_path / "pairs.jsonl", "--out", tmp_path / "run", *words)
    assert (code, err) == (0, "")
    assert call("predict", tmp_path / "run", text="3\tup\n3\tdown\n")[1] == "up 3\ndown 3\n"
    assert "source<tab>way" in refused(call, "predict", tmp_path / "run", text="3\n")


def test_evaluate(call: Call, work: Path) -> None:
    code, out, _ = call("evaluate", work / "run", work / "pairs.tsv", "--metrics", "exact,per")
    assert code == 0
    assert re.search(r"^exact 1?\d\d\.\d\d \[", out, flags=re.M)
    code, out, _ = call("evaluate", work / "run", work / "pairs.tsv", "--json", "beam=1")
    found = json.loads(out)
    assert code == 0
    assert found["sentences"] == len(PAIRS)
    assert found["decoding"]["beam"] == 1
    assert found["scores"]["error"]["value"] < 20


def test_compare_finds_the_difference(call: Call, work: Path) -> None:
    code, out, _ = call("compare", work / "short", work / "run", work / "pairs.tsv", "--metrics", "exact")
    assert code == 0
    assert re.search(r"^exact .*, significant", out, flags=re.M)


def test_info(call: Call, work: Path) -> None:
    code, out, _ = call("info", work / "run")
    assert code == 0
    assert [
        part for part in ("lstm", "width 32", "parameters", "steps", "command", "data hash") if part not in out
    ] == []
    code, out, _ = call("info")
    assert code == 0
    assert "model.encoder.kind" in out


# The demo


def test_demo(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dict(word.split("=") for word in TINY) | {"training.steps": "4", "training.validate_every": "2"}
    monkeypatch.setattr(demo, "RECIPE", demo.RECIPE | small)
    entries = pronunciations.entries(pronunciations.dictionary())
    monkeypatch.setattr(pronunciations, "entries", lambda path: dict(list(entries.items())[::100]))
    code, out, err = call("demo", "--out", tmp_path)
    assert (code, err) == (0, "")
    for part in ("WER, %", "33.9", "30.2", "Word error on validation words", "Try next", "predict", "--full"):
        assert part in out, part
    assert len(re.findall(r"dictionary: | ✓\n", out)) >= 20
    assert (tmp_path / "run-curve.html").stat().st_size > 100_000
    commands = re.findall(r"^  (.*antiphon (?:predict|evaluate).*)$", out, flags=re.M)
    assert len(commands) == 2
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(commands[0], shell=True, check=True, capture_output=True, env=environment)
    code, again, _ = call("demo", "--out", tmp_path)
    assert code == 0
    assert "already trained" in again
    assert again[again.index("WER, %") :] == out[out.index("WER, %") :]


def test_a_word_too_many_names_the_help_of_the_command(call: Call) -> None:
    assert refused(call, "tasks", "foo") == "error: one word too many (got foo); see: antiphon tasks --help"
    assert refused(call, "train", "x.tsv", "--out", "x", "--way", "bean").endswith("; see: antiphon train --help")
    assert refused(call, "fly").endswith("; see: antiphon --help")


def test_an_adapter_without_a_name_is_refused(call: Call, work: Path, tmp_path: Path) -> None:
    """An empty variable of a shell must not make of an adapter's training one of the whole model."""
    words = "train", work / "pairs.tsv", "--from", work / "run", "--out", tmp_path / "run", "--adapter", ""
    assert "the adapter has no name" in refused(call, *words)
    assert "the adapter has no name" in refused(call, "predict", work / "run", "--adapter", "")
    assert not (tmp_path / "run").exists()


def test_json_of_a_comparison_wants_old_pairs(call: Call, work: Path) -> None:
    line = refused(call, "compare", work / "run", work / "short", work / "pairs.tsv", "--json")
    assert "give --old PAIRS" in line


def test_text_without_a_line_is_refused_before_anything_is_written(call: Call, work: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    line = refused(call, "synthesize", work / "run", tmp_path / "empty.txt", "--out", tmp_path / "made.jsonl")
    assert "empty.txt: there is no line in it" in line
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


@pytest.mark.parametrize(("setting", "said"), [
    ({"PYTHONIOENCODING": "ascii"}, b"\\xfc"), ({"PYTHONUTF8": "0", "LC_ALL": "POSIX"}, "ü".encode()),
])  # fmt: skip
def test_every_script_can_be_answered_in(setting: dict[str, str], said: bytes) -> None:
    environment = {**os.environ, "PYTHONCOERCECLOCALE": "0", **setting}
    code = "import sys; from antiphon.__main__ import _outspoken; _outspoken(sys.stdout); print(chr(252))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr
