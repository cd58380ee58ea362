"""Every block of the READMEs runs as it stands, and both languages show the same ones."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = (ROOT / name for name in ("README.md", "README.zh.md"))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def run(folder: Path, *command: str) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_shell_blocks_run(tmp_path: Path) -> None:
    found = blocks(ENGLISH, "bash")
    assert len(found) >= 4
    run(tmp_path, "bash", "-euo", "pipefail", "-c", "\n".join(found))
    assert (tmp_path / "first-run").is_dir()


def test_python_blocks_run(tmp_path: Path) -> None:
    found = blocks(ENGLISH, "python")
    assert found
    run(tmp_path, sys.executable, "-W", "error", "-c", "\n".join(found))


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
