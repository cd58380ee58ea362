"""The documentation agrees with the code: settings, metrics, commands and links exist, and the site builds offline."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon import metrics
from antiphon.core.keys import leaves

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
NAMED = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())


@NAMED
def test_settings_that_are_named_exist(text: str) -> None:
    found = re.findall(r"[`\s]((?:data|model|training|decoding)\.[a-z][a-z0-9_.]*[a-z0-9])(?=`|=| |\n)", text)
    groups = {key[: key.index(".", place)] for key in leaves() for place in range(len(key)) if "." in key[place:]}
    files = (".bin", ".tsv", ".jsonl", ".json", ".csv", ".py", ".txt", ".zip", ".safetensors")
    assert not [name for name in found if name not in leaves() | dict.fromkeys(groups) and not name.endswith(files)]


def test_every_metric_is_in_the_table_and_works() -> None:
    rows = [
        line for line in TEXTS["docs/evaluation.md"].splitlines() if line.startswith("| `") and line.count("|") == 5
    ]
    cells = [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in rows]
    assert set(metrics.NAMES) <= {name for cell in cells for name in cell}
    for name in re.findall(r"`((?:bleu|chrf|ter|rouge.|self_bleu)(?::[a-z0-9]+)+)`", TEXTS["docs/evaluation.md"]):
        metrics.get(name)


def test_every_decision_is_listed() -> None:
    pages = {Path(name).name for name in TEXTS if name.startswith("docs/decisions/")} - {"README.md"}
    assert pages == set(re.findall(r"\]\(([^)]+\.md)\)", TEXTS["docs/decisions/README.md"]))


@NAMED
def test_python_blocks_are_python(text: str) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S):
        compile(block, "block", "exec")


def test_metrics_block_runs() -> None:
    block = re.findall(r"^```python\n(.*?)^```$", TEXTS["docs/evaluation.md"], flags=re.M | re.S)[0]
    done = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "case:lc" in done.stdout


def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("material")
    # Not --quiet: it silences the warnings that --strict would count.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    fetched = (
        r"<(?:script|img|iframe|source)[^>]+src=\"https?:|<link[^>]+rel=\"(?:stylesheet|preload)\"[^>]+href=\"https?:"
    )
    assert not [path for path in pages if re.search(fetched, path.read_text(encoding="utf-8"))]
