"""Tasks are values: each is whole, recipe and evaluation read it, and the documentation lists it as it is."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antiphon import Seq2Seq, metrics
from antiphon.cli import tasks as command
from antiphon.core.config import Config
from antiphon.core.errors import ConfigError
from antiphon.core.keys import get, leaves, override
from antiphon.data.corpus import Pair
from antiphon.inference.evaluate import suitable
from antiphon.inference.tasks import PRESETS, Choice, Preset
from antiphon.inference.tasks import get as preset
from antiphon.training.recipes import propose
from antiphon.training.statistics import Statistics

PAGE = Path(__file__).parents[1] / "docs" / "tasks.md"
TEXT = [Pair(f"word{n} of line {n} and thing{n}", f"Wort{n} in Zeile {n} und Ding{n}") for n in range(300)]


def recipe(task: str, **settings: Any) -> dict[str, Choice]:
    config, choices = propose(override(Config(), {"task": task, **settings}), Statistics.of(TEXT))
    assert {choice.key: get(config, choice.key) for choice in choices} == {c.key: c.value for c in choices}
    return {choice.key: choice for choice in choices}


@pytest.mark.parametrize("task", PRESETS.values(), ids=PRESETS)
def test_a_task_is_whole_and_proposed_with_its_reasons(task: Preset) -> None:
    assert task.purpose
    assert task.metrics
    for name in task.metrics:
        metrics.get(name)
    found = recipe(task.name)
    for choice in task.choices:
        assert choice.key in leaves()
        assert found[choice.key] == replace(choice, needs=None)
        assert choice.reason
    judged = found["training.metric"].value
    names = suitable(override(Config(), {"task": task.name, "training.metric": judged}), [["plain text"]], "text")
    assert set(task.metrics) <= set(names)


def test_what_a_task_brings_shows_in_the_recipe() -> None:
    assert recipe("summarization")["data.source.max_length"].value == 512
    assert recipe("summarization")["decoding.no_repeat"].value == 3
    assert recipe("translation")["decoding.no_repeat"].value == 0
    assert recipe("dialogue")["decoding.min_length"].value == 1
    assert recipe("classification")["data.target.tokenizer"].value == "label"
    assert {recipe(name)["model.head"].value for name in ("code", "data-to-text", "summarization")} == {"copy"}
    assert recipe("translation")["model.head"].value == "vocabulary"


def test_what_a_task_brings_gives_way() -> None:
    mine = {"decoding.no_repeat": 0, "data.source.max_length": 100}
    assert not set(mine) & set(recipe("summarization", **mine))
    assert recipe("summarization", **{"data.target.tokenizer": "char"})["decoding.no_repeat"].value == 0
    assert recipe("code", **{"model.attention": "none"})["model.head"].value == "vocabulary"
    apart = {"data.source.tokenizer": "char", "data.target.tokenizer": "bpe"}
    assert recipe("code", **apart)["model.head"].value == "vocabulary"
    assert recipe("code", **{"training.teachers": ("teacher",)})["model.head"].value == "vocabulary"


def test_an_unknown_task_is_told_before_the_data_is_read(tmp_path: Path) -> None:
    for call in (preset, lambda name: Seq2Seq(name, verbose=False).fit(tmp_path / "no such file")):
        with pytest.raises(ConfigError, match="unknown task sumarization; did you mean summarization"):
            call("sumarization")


def test_the_command_lists_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    command.tasks()
    shown = " ".join(capsys.readouterr().out.split())
    for task in PRESETS.values():
        assert f"{task.name} {task.purpose}" in shown
    assert "decoding.no_repeat=3" in shown


def test_the_page_has_the_table() -> None:
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition("<!-- tasks -->\n")
    _, end, after = rest.partition("<!-- end -->")
    page = f"{before}{begin}{command.table()}\n{end}{after}"
    assert begin
    assert end
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "WRITE_DOCS=1 writes it anew"
