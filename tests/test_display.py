"""What people see: curves, alignments, the live panel, plain lines, the recipe and the settings."""

import errno
import io
import math
import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from antiphon.cli import console, display, drawing, info, settings
from antiphon.cli.display import Trace, clock, marked, watching
from antiphon.core.errors import ConfigError
from antiphon.metrics import Score
from antiphon.training.observers import Note, Result, Started, StepEvent, ValidationEvent

ROOT = Path(__file__).parents[1]


def step(number: int, loss: float) -> StepEvent:
    return StepEvent(number, number // 100, 100, loss, 3000, 12345.6, 1.0, 1e-3, 0.5, 75.0, 0)


def validation(number: int, value: float, answer: str, *, best: bool = True) -> ValidationEvent:
    score = Score("error", value, None, "", False)
    return ValidationEvent(number, 1, 0.5, {"error": score}, [("jinx", "JH IH NG K S", answer)], best)


def events() -> Iterator[tuple[str, object]]:
    yield "started", Started(Path("run"), 1234567, 5000, 100, 100, None, 30, 1.0, "error", None, 0.0, 1, 2, "cpu")
    yield "step", step(10, 3.0)
    yield "validated", validation(10, 90.0, "JH IH N")
    yield "noted", Note("skip", "step 15: the loss was not finite", 15)
    yield "step", step(20, 1.0)
    yield "validated", validation(20, 40.0, "JH IH NG K S")
    yield "finished", Result(Path("run"), "minutes", 20, 1, "error", 40.0, 20, {}, None, 61.0, 0)


def shown(console: Console) -> str:
    with watching(console) as observer:
        for name, event in events():
            getattr(observer, name)(event)
            if name == "validated" and hasattr(observer, "render"):
                console.print(observer.render())
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())  # type: ignore[attr-defined]


def test_panel_shows_everything_that_matters() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, force_jupyter=False, width=100, height=30)
    text = shown(console)
    parts = ("1,234,567 parameters", "12,346 tokens/s", "1:15 left", "error 40.00", "★ best", "wanted", "jinx", "▁")
    assert [part for part in parts if part not in text] == []
    assert "not finite" in text
    assert "JH IH NG K S ✓" in text


def test_panel_says_where_the_best_was() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, force_jupyter=False, width=100)
    with watching(console) as panel:
        panel.started(next(events())[1])  # type: ignore[arg-type]
        panel.step(step(30, 1.0))
        panel.validated(validation(10, 40.0, "JH"))
        panel.validated(validation(30, 50.0, "JH", best=False))
        console.print(panel.render())  # type: ignore[attr-defined]
    text = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert "best loss 0.500   error 40.00 at step 10" in text


def test_lines_are_plain_and_few() -> None:
    console = Console(file=io.StringIO(), width=40)
    text = shown(console)
    assert "\x1b" not in text
    assert len(text.splitlines()) == 5
    assert "step 20: validation loss 0.500   error 40.00 (best)" in text
    assert "time is up" in text


def test_lines_tell_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "PLAIN_SECONDS", 0.0)
    text = shown(Console(file=io.StringIO()))
    assert "epoch 1, step 10: loss 3.000, 12,346 tokens/s, 1:15 left\n" in text


def test_terminal_is_left_in_order_after_a_failure() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, force_jupyter=False)

    def fail() -> None:
        with watching(console) as panel:
            panel.started(next(events())[1])  # type: ignore[arg-type]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert console.file.getvalue().rstrip("\n").endswith("\x1b[?25h")  # type: ignore[attr-defined]


def test_marked_tokens_agree_in_order() -> None:
    text = marked("AE B T AH", "AE B AH T")
    styles = {text.plain[span.start : span.end].strip(): str(span.style) for span in text.spans}
    assert styles["AE"] == styles["B"] == "green"
    assert sorted([styles["T"], styles["AH"]]) == ["green", "red"]
    assert marked("abc", "abc").plain == "abc ✓"


def test_trace_keeps_the_whole_history_small() -> None:
    trace = Trace(limit=8)
    for value in range(64):
        trace.add(float(value))
    assert len(trace.values) <= 8
    assert trace.values == sorted(trace.values)
    assert math.isclose(sum(trace.values) / len(trace.values), 31.5, rel_tol=0.2)


def test_sparkline_follows_the_values() -> None:
    assert drawing.sparkline([3.0, 2.0, math.nan, 1.0]) == "█▅▁"
    assert len(drawing.sparkline([float(value) for value in range(1000)], 40)) == 40
    assert drawing.sparkline([]) == ""
    assert drawing.sparkline([1.0, 1.0]) == "▁▁"


def test_curve_falls_where_the_values_fall() -> None:
    lines = drawing.curve([(0, 100.0), (50, 50.0), (100, 0.0)], width=20, height=4)
    assert len(lines) == 4
    assert lines[0].startswith("     100 ┤")
    marks = [[index for index, cell in enumerate(line[10:]) if cell != "\u2800"] for line in lines]
    assert [min(row) for row in marks] == sorted(min(row) for row in marks)
    assert max(marks[-1]) == 19


def test_monotone_alignment_is_the_best_of_all_paths() -> None:
    from itertools import combinations_with_replacement

    weights = np.random.default_rng(1).dirichlet(np.ones(5), size=6)
    path = drawing.monotone(weights)
    every = combinations_with_replacement(range(5), 6)
    best = max(every, key=lambda steps: sum(np.log(weights[t, s] + 1e-6) for t, s in enumerate(steps)))
    assert path == list(best)


def test_alignment_puts_tokens_under_their_place() -> None:
    above, below = drawing.alignment(list("jinx"), ["JH", "IH", "NG", "K", "S"], [0, 1, 2, 3, 3], ["green"] * 5)
    assert above.plain.split() == list("jinx")
    assert below.plain.index("K S") == above.plain.index("x")
    assert drawing.alignment(list("ab"), ["A"], [0], ["red"])[1].plain == "A · "


def test_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    losses = [{"step": 1, "loss": 2.0, "of": "training"}, {"step": 2, "loss": 1.0, "of": "training"}]
    drawing.page(tmp_path / "curve.html", "Curve", losses, [{"step": 2, "score": 40.0, "metric": "error"}])
    text = (tmp_path / "curve.html").read_text(encoding="utf-8")
    assert "vega" in text
    assert not re.search(r"<(script|link)[^>]*(src|href)=", text)


def test_clock() -> None:
    assert [clock(5), clock(245.9), clock(3605)] == ["0:05", "4:05", "1:00:05"]


def test_assignments() -> None:
    assert settings.assignments(["model.width=64", "data.source.vectors=a=b"]) == {
        "model.width": "64",
        "data.source.vectors": "a=b",
    }
    assert settings.assignments(["beam=5", "decoding.n_best=2"], "decoding") == {
        "decoding.beam": "5",
        "decoding.n_best": "2",
    }
    with pytest.raises(ConfigError, match="key=value"):
        settings.assignments(["beam"])
    with pytest.raises(ConfigError, match="did you mean beam"):
        settings.assignments(["baem=5"], "decoding")


def test_settings_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('task = "translation"\n[model]\nwidth = 64\n[model.encoder]\nkind = "gru"\n')
    assert settings.from_file(file) == {"task": "translation", "model.width": 64, "model.encoder.kind": "gru"}
    file.write_text("[model]\nwidht = 64\n")
    with pytest.raises(ConfigError, match=r"run\.toml: unknown setting model\.widht; did you mean model\.width"):
        settings.from_file(file)
    file.write_text("model = [")
    with pytest.raises(ConfigError, match="not TOML"):
        settings.from_file(file)


def test_settings_page_is_up_to_date() -> None:
    path = ROOT / "docs" / "settings.md"
    if os.environ.get("WRITE_DOCS"):
        path.write_text(info.settings_page(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == info.settings_page(), "WRITE_DOCS=1 writes it anew"


@pytest.mark.parametrize("command", [True, False])
def test_only_a_command_fails_where_nobody_reads(command: bool) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    fails = pytest.raises(BrokenPipeError) if command else nullcontext()
    with fails, watching(console.Console(file=Gone()), command=command) as lines:
        assert lines.noted(Note("save", "text", 1)) == "stop"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_full_disk_behind_the_output_and_a_closed_terminal_end_nothing(terminal: bool) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    full = console.Console(file=Full(), force_terminal=terminal, force_jupyter=False, width=100)
    with watching(full) as observer:
        for name, event in events():
            assert getattr(observer, name)(event) != "stop"
        assert observer.noted(Note("data", "text", 1)) is None
