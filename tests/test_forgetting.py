"""Gain and forgetting beside each other, and scores for each value of a context column."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antiphon.__main__ import main
from antiphon.core.errors import DataError
from antiphon.data.corpus import Pair
from antiphon.inference.evaluate import Evaluation, evaluate
from antiphon.inference.forgetting import Side, rows, to_json, verdict
from runs import words
from test_evaluate import FakePredictor

NEW = [Pair(f"n{n}", f"N{n}") for n in range(40)]
OLD = [Pair(f"o{n}", f"O{n}") for n in range(60)]


def answered(pairs: list[Pair], right: int, metric: str = "exact") -> Evaluation:
    """By a model whose first so many answers are right."""
    says = {pair.source: pair.target if n < right else "no" for n, pair in enumerate(pairs)}
    return evaluate(FakePredictor(says), pairs, [metric])


def sides(metric: str = "exact") -> tuple[Side, Side]:
    new = Side("new.tsv", answered(NEW, 4, metric), answered(NEW, 36, metric))
    return new, Side("old.tsv", answered(OLD, 54, metric), answered(OLD, 24, metric))


@pytest.mark.parametrize(("metric", "gain", "loss"), [("exact", "+80.00", "-50.00"), ("error", "-80.00", "+50.00")])
def test_what_is_gained_and_what_is_forgotten(metric: str, gain: str, loss: str) -> None:
    table = list(rows(("before", "after"), *sides(metric)))
    assert table[0] == (metric, "new: new.tsv", "old: old.tsv")
    assert [row[0] for row in table] == [metric, "before", "after", "difference", "", ""]
    assert table[3][1].startswith(f"{gain} [")
    assert table[3][2].startswith(f"{loss} [")
    assert table[4][1].startswith("gained, p = 0.000")
    assert table[4][2].startswith("forgotten, p = 0.000")


def test_a_difference_that_chance_makes_is_called_so() -> None:
    found = Side("old", answered(OLD, 30), answered(OLD, 29)).comparisons()["exact"]
    assert verdict(found, "gained", "lost").startswith("not significant, p = ")


def test_json_has_all_numbers() -> None:
    values = json.loads(to_json({"models": ["a", "b"]}, *sides()))
    assert values["new"]["difference"]["exact"]["difference"] == pytest.approx(80)
    assert values["old"]["before"]["exact"]["value"] == pytest.approx(90)
    assert values["old"]["sentences"] == 60


def test_json_has_no_number_that_is_none() -> None:
    new = sides()[0]
    strange = replace(new.before.scores["exact"], value=math.nan)
    odd = Side("new.tsv", replace(new.before, scores={"exact": strange}), new.after)
    told = to_json({}, odd, odd)
    assert json.loads(told, parse_constant=pytest.fail)["new"]["before"]["exact"]["value"] is None


def test_each_value_of_a_column_has_its_score_and_interval() -> None:
    pairs = [Pair(f"{to}{n}", to, (), {"to": to}) for to, many in (("a", 10), ("b", 30)) for n in range(many)]
    says = {pair.source: pair.target if pair.target == "a" else "b" * (int(pair.source[1:]) % 2) for pair in pairs}
    found = evaluate(FakePredictor(says), pairs, ["exact"], columns=["to"])
    assert [(each.value, each.count) for each in found.by_group] == [("b", 30), ("a", 10)]
    assert [each.scores["exact"].value for each in found.by_group] == [50, 100]
    low, high = found.by_group[0].scores["exact"].interval or (0, 0)
    assert 25 < low < 50 < high < 75
    assert "by to:" in found.lines()
    assert json.loads(found.to_json())["by_group"][1]["value"] == "a"
    assert evaluate(FakePredictor(says), pairs, ["exact"]).by_group == []
    with pytest.raises(DataError, match="the column from is missing"):
        evaluate(FakePredictor(says), pairs, ["exact"], columns=["from"])


def test_the_command_shows_both_test_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from runs import configured
    from starts import copies, raw

    old = raw(tmp_path / "old", configured())
    for name, pairs in (("new", copies()), ("before", words(60))):
        (tmp_path / f"{name}.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs))

    def told(*more: Any) -> str:
        with pytest.raises(SystemExit) as end:
            main(["compare", str(old), str(old), str(tmp_path / "new.tsv"), "--metrics", "exact", *more])
        assert end.value.code == 0
        return capsys.readouterr().out

    out = told("--old", str(tmp_path / "before.tsv"))
    assert "not significant" in out
    assert out.count("sha256") == 2
    values = json.loads(told("--old", str(tmp_path / "before.tsv"), "--json"))
    assert values["old"]["difference"]["exact"]["difference"] == 0
