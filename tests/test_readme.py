"""Every block of the READMEs and every example runs as it stands, and both languages show the same blocks."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from runs import light

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh"))
PACES = pytest.mark.parametrize("pace", ["quick", pytest.param("as it stands", marks=pytest.mark.slow)])
ENGLISH, CHINESE = (ROOT / name for name in ("README.md", "README.zh.md"))


def blocks(path: Path, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [text for kind, text in found if kind == language]


def paced(text: str, pace: str) -> str:
    """The text as it stands, or with a second of training wherever it asks for more, and a tenth of made up data."""
    if pace == "quick":
        text = re.sub(r"(minutes(?:=|\": ))[0-9.]+", r"\g<1>0.02", text)
        text = re.sub(r"(for _ in range\(\d+)0\)", r"\g<1>)", text)
    return text


def run(folder: Path, *command: str, data: str = os.environ.get("ANTIPHON_DATA", "")) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"ANTIPHON_DATA": data, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@PACES
def test_shell_blocks_run(tmp_path: Path, pace: str) -> None:
    found = blocks(ENGLISH, "bash")
    assert len(found) >= 4
    run(tmp_path, "bash", "-euo", "pipefail", "-c", paced("\n".join(found), pace))
    assert (tmp_path / "first-run").is_dir()


@PACES
def test_python_blocks_run(tmp_path: Path, pace: str) -> None:
    found = blocks(ENGLISH, "python")
    assert found
    run(tmp_path, sys.executable, "-W", "error", "-c", paced("\n".join(found), pace))


@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.suffix == ".py"], ids=lambda path: path.name)
def test_examples_run_for_a_moment(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has imported most of what they take seconds to import."""
    light(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTIPHON_DATA", "")
    with warnings.catch_warnings(action="error"):
        exec(compile(paced(path.read_text(encoding="utf-8"), "quick"), path.name, "exec"), {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(path: Path, tmp_path: Path) -> None:
    program = ["bash"] if path.suffix == ".sh" else [sys.executable, "-W", "error"]
    run(tmp_path, *program, "-c", path.read_text(encoding="utf-8"), data="")


@pytest.mark.slow
@pytest.mark.skipif("ANTIPHON_DATA" not in os.environ, reason="ANTIPHON_DATA names no folder")
@pytest.mark.parametrize("path", [path for path in EXAMPLES if "ANTIPHON_DATA" in path.read_text("utf-8")], ids=str)
def test_examples_run_on_real_data(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("else 10)", "else 1)")
    run(tmp_path, sys.executable, "-W", "error", "-c", text)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short_and_shadow_nothing(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
    assert path.suffix != ".py" or path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("language", ["bash", "python", ""])
def test_both_languages_show_the_same_blocks(language: str) -> None:
    def plain(path: Path) -> list[str]:
        return [re.sub(r"<[^>]*>", "<>", block) for block in blocks(path, language)]

    assert plain(ENGLISH) == plain(CHINESE)


def test_make_targets_and_extras_of_the_text_exist() -> None:
    text = ENGLISH.read_text(encoding="utf-8")
    for target in sorted(set(re.findall(r"make (demo|test|check|bench|docs|fix|lock)\b", text))):
        run(ROOT, "make", "--dry-run", target)
    extras = {name for group in re.findall(r"\.\[([a-z,]+)\]", text) for name in group.split(",")}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert extras
    assert all(re.search(rf"^{name} = \[", project, flags=re.M) for name in extras)


@pytest.mark.parametrize("path", [ENGLISH, CHINESE, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("http") or (ROOT / target).exists(), target
