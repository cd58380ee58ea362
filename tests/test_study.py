"""The folder of a study: who prepares it, where its pairs are after a move, and which context it can hold."""

from __future__ import annotations

import errno
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.config import Config
from antiphon.core.errors import ConfigError, TrainingError
from antiphon.core.keys import override
from antiphon.data.corpus import open_pairs
from antiphon.training.identity import UNBORN, begun, claim
from antiphon.training.sources import write_pairs
from antiphon.training.start import fit
from antiphon.tuning.study import Study
from antiphon.tuning.worker import Line, Reporter, _trained, ended
from runs import Recorder, words
from searches import FIXED


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in words(120)), encoding="utf-8")
    return path


def test_a_folder_that_is_being_prepared_is_left_alone(data: Path, tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    for name in ("study", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / UNBORN).write_text(f"{other.pid} {begun(other.pid)} {platform.node()}")
        (tmp_path / name / "pairs").touch()
    for make in (lambda: Study.open(str(data), tmp_path / "study", given=FIXED), lambda: claim(tmp_path / "run")):
        with pytest.raises(TrainingError, match=f"is preparing this folder .got process {other.pid}"):
            make()
    (tmp_path / "run" / UNBORN).write_text(f"{other.pid} 1 {platform.node()}")  # another had this number before
    claim(tmp_path / "run")
    assert not (tmp_path / "run/pairs").exists()
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="this is a file, and a run is a folder"):
        claim(tmp_path / "file")
    other.communicate()
    assert (tmp_path / "study/pairs").exists()


def test_a_study_that_was_moved_goes_on_with_its_trial(data: Path, tmp_path: Path) -> None:
    pairs = str(data)
    given = {key: value for key, value in FIXED.items() if key != "training.steps"} | {"training.steps": 6}
    fit(pairs, valid=pairs, out=tmp_path / "run", assignments=given, observers=[Recorder(stop_at=3)])
    facts = json.loads((tmp_path / "run/data.json").read_bytes())
    old = {name: [str(tmp_path / "before/pairs.tsv")] for name in ("train", "valid")}
    (tmp_path / "run/data.json").write_text(json.dumps({**facts, "files": {**facts["files"], **old}}))
    job = {"run": str(tmp_path / "run"), "train": pairs, "valid": pairs, "judge": "", "settings": {}, "command": ""}
    assert _trained(job, Reporter(Agreeing())).reason == "steps"


class Agreeing(Line):
    """A search that lets every training go on."""

    def tell(self, what: str, **values: Any) -> None:
        self.hear({"say": "go on"})


def test_settings_are_to_blame_for_a_training_that_cannot_learn_but_not_for_a_full_disk(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(name: str, **settings: Any) -> dict[str, Any]:
        given = {**FIXED, **{key.replace("__", "."): value for key, value in settings.items()}}
        return {"run": str(tmp_path / name), "train": str(data), "valid": str(data), "judge": "", "settings": given,
                "command": ""}  # fmt: skip

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    found = ended(job("wild", training__optimizer="sgd", training__rate=1e30, training__clip=0.0), Agreeing())
    assert (found["event"], found["untrainable"]) == ("failed", True)
    assert "keeps failing" in found["text"]
    monkeypatch.setattr("antiphon.training.checkpoint.folders.write_folder", full)
    found = ended(job("full"), Agreeing())
    assert (found["event"], found["untrainable"]) == ("failed", False)


def test_context_that_could_not_be_told_from_the_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,refs\n" + "".join(f"a{n},b{n},c\n" for n in range(30)))
    given = {**FIXED, "data.columns": ("text", "label"), "data.context": ("refs",)}
    with pytest.raises(ConfigError, match=r"data\.context: a column of context cannot be called refs here"):
        Study.open(str(tmp_path / "a.csv"), tmp_path / "study", given=given)
    rows = [{"text": f"a{n}", "label": f"b{n}", "refs": "c", "source": "x"} for n in range(30)]
    write_pairs(tmp_path / "copy.jsonl", open_pairs(rows, override(Config(), given).data), "text")
    assert json.loads((tmp_path / "copy.jsonl").read_text().splitlines()[0]) == {"source": "a0", "target": "b0"}
