"""`antiphon audit` as somebody types it, and the few lines of it that `antiphon train` says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from antiphon.cli.findings import report
from antiphon.diagnosis.data import audit
from antiphon.diagnosis.reading import read
from commands import Call, calling, refused  # noqa: F401
from corpora import sentences, write_pairs

SOURCES, TARGETS = sentences(900)
TINY = ["training.threads=1", "training.processes=1", "training.steps=1", "model.width=16", "model.heads=2"]


@pytest.fixture(name="shifted", scope="module")
def a_shifted_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    targets = [*TARGETS[:400], *TARGETS[401:], "."]
    return write_pairs(tmp_path_factory.mktemp("shifted") / "a.tsv", SOURCES, targets)


def test_exit_codes_and_json(call: Call, shifted: Path, tmp_path: Path) -> None:
    code, out, err = call("audit", shifted, "--json")
    assert (code, err) == (1, "")
    told = json.loads(out)
    assert told["verdict"] == "stop"
    [finding] = [finding for finding in told["findings"] if finding["kind"] == "misaligned"]
    assert abs(finding["figures"]["first line"] - 401) <= 3
    assert finding["examples"][1]["about"].startswith("its target: ")
    clean = write_pairs(tmp_path / "a.tsv", SOURCES, TARGETS)
    code, out, err = call("audit", clean, "--test", clean)
    assert code == 1, "a test that is in training whole"
    code, out, _ = call("audit", clean, "data.columns=2,1", "--task", "translation")
    assert (code, out.splitlines()[-1][:4]) == (0, "go  ")


def test_a_mistake_is_one_line(call: Call, tmp_path: Path) -> None:
    assert "there is no such file" in refused(call, "audit", tmp_path / "none.tsv")
    assert "unknown" in refused(call, "audit", write_pairs(tmp_path / "a.tsv", ["a"], ["b"]), "data.colums=1,2")
    assert "is there already" in refused(call, "audit", tmp_path / "a.tsv", "--fix", tmp_path / "a.tsv")


def test_a_few_pairs_are_no_trouble(call: Call, tmp_path: Path) -> None:
    for count in (1, 2, 30):
        code, out, err = call("audit", write_pairs(tmp_path / "a.tsv", SOURCES[:count], TARGETS[:count]))
        assert (code, err) == (0, ""), out


def test_fix_says_what_it_did(call: Call, shifted: Path, tmp_path: Path) -> None:
    code, out, _ = call("audit", shifted, "--fix", tmp_path / "b.tsv")
    assert code == 1
    assert " lines kept, " in " ".join(out.split())
    assert abs(len(read(str(tmp_path / "b.tsv"), audit(str(shifted)).data.settings)) - 897) <= 2


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_report_fits_the_terminal(shifted: Path, width: int) -> None:
    console = Console(width=width, record=True, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report(audit(str(shifted)), full=True))
    console.file.close()
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for wanted in ("are misaligned: the target of each stands 1 line earlier", "stop: mend this first", "its target: "):
        assert wanted in text


def test_train_says_what_matters_and_no_more(call: Call, tmp_path: Path) -> None:
    sources = [source if row % 20 else TARGETS[row] for row, source in enumerate(SOURCES)]
    spoilt = [target + (" &amp; mehr" if row % 10 == 1 else "") for row, target in enumerate(TARGETS)]
    data = write_pairs(tmp_path / "a.tsv", sources, spoilt)
    code, out, _ = call("train", data, "--out", tmp_path / "run", *TINY)
    assert code == 0
    said = [line for line in out.splitlines() if "warning" in line or "antiphon audit" in line]
    assert len(said) == 3
    assert "copies of their source" in said[1]
    clean = write_pairs(tmp_path / "b.tsv", SOURCES, TARGETS)
    code, out, _ = call("train", clean, "--out", tmp_path / "other", *TINY)
    assert (code, "antiphon audit" in out) == (0, False)
