"""The report: what a run tells, a page that needs nothing else and shows what is so, and the terminal's version."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.core.errors import BundleError, TrainingError
from antiphon.diagnosis.report import Run, drawing, judge, judging, open_run, page
from antiphon.diagnosis.report.drawing import Axis, Line
from antiphon.diagnosis.report.judging import Judgement
from antiphon.diagnosis.report.reading import thinned
from antiphon.diagnosis.report.writing import differing
from antiphon.inference.bundle import load
from antiphon.inference.evaluate import evaluate
from antiphon.inference.predictor import Predictor
from antiphon.training.sources import Sources
from antiphon.training.start import fit
from commands import Call, calling, refused  # noqa: F401
from corpora import write_pairs
from runs import light, words

HOSTILE = '<script>alert(1)</script> & "more"'
PAIRS = [(f"the {one} sees {two} <b>", f"der {one[::-1]} sieht {two[::-1]} &amp;")
         for one in ("dog", "cat", "bird", "fish") for two in ("trees", "water", "birds", "us")]  # fmt: skip
SETTINGS = {
    "task": "translation", "model.width": 16, "training.threads": 1, "training.steps": 12, "training.processes": 1,
    "training.validate_every": 4, "model.encoder.kind": "gru", "model.decoder.kind": "gru", "data.batch_tokens": 100,
    "data.source.tokenizer": "word", "data.target.tokenizer": "word", "decoding.beam": 1, "training.metric": "loss",
    "decoding.max_length": 6,
}  # fmt: skip
LAYERS = ["encoder.layers.0", "decoder.layers.0"]
PROBES: list[dict[str, Any]] = [
    {"event": "probe", "step": step, "epoch": 0, "kind": "layers",
     "layers": [{"name": name, "parameters": 9, "weight": 2.0, "gradient": 0.1 * step, "update": 0.002}
                for name in LAYERS],
     "activations": [{"name": "encoder.layers.0", "what": "gate", "scale": 1.0, "dead": None, "saturated": 0.25}]}
    for step in (1, 2, 4, 8)
] + [
    {"event": "probe", "step": step, "epoch": 0, "kind": "loss", "train": 3.0, "valid": 3.5, "shuffled": 4.0,
     "by_length": [[1, 5, 3.2, 40], [6, 9, 3.9, 40]]} for step in (4, 8)
] + [
    {"event": "probe", "step": 4, "epoch": 0, "kind": "loss"}, {"event": "probe", "step": 8, "kind": "answers"},
    {"event": "probe", "step": 9, "kind": "layers", "layers": None}, {"event": "probe", "kind": "layers"},
    {"event": "probe", "step": 10, "kind": "something new", "x": [None]},
]  # fmt: skip
FINDING = {
    "cause": "overfitting", "confidence": 0.83, "symptom": f"the loss rises {HOSTILE}",
    "evidence": [{"text": "from 2.1 to 2.9", "figures": {}, "step": 400, "where": "validation"}],
    "told_apart": "not the data", "cure": {"model.dropout": 0.3}, "action": "", "expect": "a flat curve",
    "plot": {"name": "validation loss", "over": "step", "points": [[1, 2.0], [2, 3.0]]},
}  # fmt: skip


def probed(log: Path, events: list[dict[str, Any]]) -> None:
    """Give a log these probes and no others, and a line that a crash has torn."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if '"event": "probe"' not in line]
    lines += [json.dumps(event) for event in events]
    log.write_text("\n".join(lines) + '\n{"event": "torn', encoding="utf-8")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small runs of the same pairs, the first with probes."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        light(patch)
        lines = "".join(f"{source}\t{target}\n" for source, target in PAIRS * 3)
        (folder / "pairs.tsv").write_text(lines, encoding="utf-8")
        (folder / "valid.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in PAIRS), encoding="utf-8")
        for name, more in (("first", {}), ("second & more", {"training.steps": 4})):
            fit(folder / "pairs.tsv", valid=folder / "valid.tsv", out=folder / name, assignments={**SETTINGS, **more})
        for name in ("first", "second & more"):
            probed(folder / name / "log.jsonl", PROBES if name == "first" else [])
    return folder


@pytest.fixture(scope="module")
def found(work: Path) -> tuple[list[Run], Judgement]:
    runs = [open_run(work / "first"), open_run(work / "second & more")]
    return runs, judge(runs)


class Balance(HTMLParser):
    """Which tags are open, and the text and attributes that there are."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(html: str) -> Balance:
    reader = Balance()
    reader.feed(html)
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def html(found: tuple[list[Run], Judgement]) -> str:
    healthy = {"healthy": True, "verdict": "nothing is wrong with this run", "findings": [], "looked_at": ["losses"]}
    return page(*found, [{"healthy": False, "findings": [FINDING]}, healthy], "antiphon report <x>")


# The page


def test_the_page_is_whole_and_fetches_nothing(html: str) -> None:
    reader = parsed(html)
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base"}
    for _, attributes in reader.tags:
        assert not {"src", "onload", "onclick"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"url\(|@import|https?:", html)
    assert len(html.encode()) < 1_000_000


def test_all_sections_are_there_and_linked(html: str) -> None:
    ids = re.findall(r'<h2 id="(\w+)"', html)
    assert ids == ["scores", "differences", "learning", "doctor", "weak", "examples", "attention", "inside", "data",
                   "settings", "again"]  # fmt: skip
    assert re.findall(r'<a href="#(\w+)"', html) == ids


def test_what_others_wrote_is_text(html: str) -> None:
    text = "".join(parsed(html).text)
    assert HOSTILE in text
    assert "the dog sees trees <b>" in text
    assert "second & more" in text
    assert "antiphon report <x>" in text


def test_numbers_are_those_of_evaluate(work: Path, found: tuple[list[Run], Judgement], html: str) -> None:
    runs, judgement = found
    pairs = judging.group_references(judging._opened(runs[0], None, ())[0])
    assert judgement.pairs == judgement.of == len(pairs) == len(PAIRS)
    scores = evaluate(Predictor(load(work / "first")), pairs).scores
    for name in ("bleu", "chrf", "loss"):
        assert judgement.judged[0].evaluation.scores[name] == scores[name]
    assert f">{scores['chrf'].value:.2f} <small>[{scores['chrf'].interval[0]:.2f}, " in html
    [test] = [each for each in judgement.tests[0] if each.name == "loss"]
    assert test.first == pytest.approx(scores["loss"].value)
    assert f"{test.difference:+.4f} <small>[" in html


def test_best_answers_are_better_than_the_worst(found: tuple[list[Run], Judgement]) -> None:
    judged = found[1].judged[0]
    best, worst = [each.score for each in judged.best], [each.score for each in judged.evaluation.worst]
    assert best == sorted(best, reverse=True)
    assert best[0] == max(best + worst)
    assert all(judged.evaluation.answers[each.number - 1] == each.answer for each in judged.best)


def test_maps_show_all_tokens_of_an_answer(found: tuple[list[Run], Judgement]) -> None:
    looks = found[1].judged[0].looks
    assert 1 <= len(looks) <= judging.MAPS
    for look in looks:
        assert look.weights_TS.shape == (len(look.answer), len(look.source) + 1)
        assert np.allclose(look.weights_TS.sum(1), 1.0, atol=1e-3)


def test_probes_are_drawn_and_odd_ones_borne(html: str) -> None:
    inside = html.partition('id="inside"')[2].partition('id="data"')[0]
    for name in LAYERS:
        assert inside.count(f">{name}<") == 2, "gradients and updates"
    assert "gradients by layer" in inside
    assert "sources shuffled" in inside
    assert ">saturated<" in inside
    assert "dead units" not in inside, "no unit of a GRU is dead or not"
    assert "loss by length of the target" in inside


def test_a_finding_is_told_with_its_cure(html: str) -> None:
    text = "".join(parsed(html).text)
    for piece in ("Overfitting 83% sure", "from 2.1 to 2.9 (step 400, validation)", "model.dropout=0.3",
                  "Nothing is wrong with this run.", "Looked at: losses."):  # fmt: skip
        assert piece in text


def test_without_a_doctor_or_probes_these_sections_are_left_out(found: tuple[list[Run], Judgement]) -> None:
    runs, judgement = found
    alone = page(runs[1:], Judgement("", 16, 16, judgement.judged[1:], []), [None])
    assert not {"doctor", "inside", "differences"} & set(re.findall(r'<h2 id="(\w+)"', alone))


def test_settings_that_differ_are_marked_and_reasons_given(html: str) -> None:
    assert '<td><code>training.steps</code></td><td><span class="big">12</span></td>' in html
    assert "suits adamw" in html or "answers are of known words" in html


# The run


def test_a_run_is_read_with_all_its_curves(work: Path) -> None:
    run = open_run(work / "first")
    assert [step for step, _ in run.curve("loss")] == [float(step) for step in range(1, 13)]
    assert [step for step, _ in run.losses()] == [4.0, 8.0, 12.0]
    assert run.probed("loss", "train") == [(4.0, 3.0), (8.0, 3.0)]
    assert run.reasons()["model.head"] == "answers are of known words"
    assert run.end["reason"] == "steps"


def test_curves_are_thinned_to_means() -> None:
    found = thinned([(step, float(step % 2)) for step in range(1, 1001)], 100)
    assert len(found) == 100
    assert {value for _, value in found} == {0.5}
    assert thinned([(1, None), (2, float("nan")), (3, 1.0)]) == [(3.0, 1.0)]


def test_what_is_no_run_is_refused(tmp_path: Path, work: Path, call: Call) -> None:
    with pytest.raises(TrainingError, match="there is no run here"):
        open_run(tmp_path)
    shutil.copytree(work / "first", tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text("[1]")
    with pytest.raises(BundleError, match="damaged"):
        open_run(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(BundleError, match="damaged"):
        open_run(tmp_path / "run")
    assert "there is no run here" in refused(call, "report", tmp_path / "none")
    assert "name it .html" in refused(call, "report", work / "first", "--out", tmp_path / "x.pdf")
    assert "--pairs" in refused(call, "report", work / "first", "--pairs", "-1")
    assert "nothing.tsv" in refused(call, "report", work / "first", "--data", tmp_path / "nothing.tsv")


def test_without_model_data_or_log_the_rest_is_told(tmp_path: Path, work: Path) -> None:
    shutil.copytree(work / "first", tmp_path / "run", ignore=shutil.ignore_patterns("best", "checkpoints", "*.jsonl"))
    bare = [open_run(tmp_path / "run")]
    assert "no model yet" in judge(bare).judged[0].why
    facts = json.loads((tmp_path / "run" / "data.json").read_text())
    facts["files"]["valid"] = facts["files"]["train"] = [str(tmp_path / "gone.tsv")]
    (tmp_path / "run" / "data.json").write_text(json.dumps(facts))
    gone = [open_run(tmp_path / "run")]
    why = judge(gone)
    assert "cannot be read" in why.judged[0].why
    assert "cannot be read" in "".join(parsed(page(gone, why, [None])).text)


# The pictures


def test_axes_have_round_ticks_within() -> None:
    assert Axis(0.0, 10.0, 0, 1).ticks() == [0.0, 5.0, 10.0]
    assert Axis(3.2, 4.1, 0, 1).ticks() == pytest.approx([3.5, 4.0])
    assert Axis(1e-3, 10.0, 0, 1, log=True).ticks() == pytest.approx([1e-3, 1e-2, 0.1, 1.0, 10.0])
    assert Axis(0.3, 3.0, 0, 1, log=True).ticks() == pytest.approx([0.5, 1.0, 2.0])
    assert Axis(1.0, 100.0, 0.0, 10.0, log=True).at(10.0) == pytest.approx(5.0)
    assert [told for _, told in drawing.written([0.999, 0.9995, 1.0])] == ["0.999", "0.9995", "1"]


def test_higher_values_are_higher_up_and_names_keep_apart() -> None:
    made = drawing.chart([Line("one", [(0, 1.0), (10, 2.0)]), Line("two", [(0, 0.0), (10, 2.001)], 1)], name="x")
    lines = [[tuple(map(float, point.split(","))) for point in path.split()]
             for path in re.findall(r'<polyline[^>]*points="([^"]+)"', made)]  # fmt: skip
    assert lines[0][0][1] > lines[0][1][1]
    assert lines[1][0][1] > lines[0][0][1]
    places = [float(y) for y in re.findall(r'class="n c\d"[^>]*y="([\d.]+)"', made)]
    assert abs(places[0] - places[1]) >= 12
    assert drawing.chart([Line("one", [(0, 1.0)])], name="x") == ""
    assert drawing.chart([Line("one", [(0, -1.0), (1, 0.0)])], name="x", log=True) == ""


def test_squares_are_as_full_as_weights() -> None:
    made = drawing.attention(["a", "b"], ["x"], np.array([[0.75, 0.02, 0.23]]))
    assert re.findall(r'fill-opacity="([\d.]+)"', made) == ["0.75", "0.23"]
    assert "∎" in made


def test_layers_are_shaded_by_their_logarithms() -> None:
    made = drawing.layers(["low", "high"], [1, 2], np.array([[0.001, np.nan], [0.1, 10.0]]), name="g", unit="")
    assert re.findall(r'fill-opacity="([\d.]+)"', made) == ["0.08", "0.54", "1.00"]
    assert drawing.layers(["a"], [1, 2], np.array([[np.nan, 0.0]]), name="g", unit="") == ""


def test_what_the_reference_lacks_is_marked() -> None:
    assert differing("a man sat", "a man ran") == "a man <mark>sat</mark>"
    assert differing("<i>", "b") == "<mark>&lt;i&gt;</mark>"
    assert differing("", "b") == "<small>(nothing)</small>"
    assert differing("你们好", "你好") == "你<mark>们</mark>好"


# The command


def test_the_command_writes_the_page_and_prints_the_rest(work: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "report.html"
    code, told, _ = call("report", work / "first", work / "second & more", "--out", out, "--pairs", "8")
    assert (code, told.split()[-1]) == (0, "kB")
    text = out.read_text(encoding="utf-8")
    parsed(text)
    assert "On 8 of 16 validation pairs, evenly spread" in text
    code, told, _ = call("report", work / "first", work / "second & more", "--data", work / "valid.tsv", "--pairs", "8")
    assert code == 0
    for piece in ("first\nA GRU of", "training loss, step 1 to 12", "chrf", "bleu by length of the source",
                  "the worst answers", "second & more against first", "settings that differ",
                  "how to repeat it"):  # fmt: skip
        assert piece in told
    code, told, _ = call("report", work / "first", "--pairs", "0")
    assert "nothing was answered, as you asked" in told


@pytest.mark.slow
def test_a_browser_shows_it_on_a_phone_and_prints_it(html: str, tmp_path: Path) -> None:
    from browser import chromium, sync_api

    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--disable-gpu", "--no-sandbox"])
        asked: list[str] = []
        for width, scheme in ((390, "light"), (390, "dark"), (1200, "light")):
            shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            shown.on("request", lambda request: asked.append(request.url))
            shown.on("console", lambda message: asked.append(message.text))
            shown.goto(f"file://{tmp_path}/report.html")
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            dark = shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(25, 24, 22)"
            assert dark == (scheme == "dark")
        assert len(shown.pdf(format="A4")) > 10_000
        assert set(asked) == {f"file://{tmp_path}/report.html"}
        browser.close()


def test_what_another_run_learned_from_judges_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)
    for name, share in (("one", 0.4), ("two", 0.2)):
        fit(words(40), out=tmp_path / name, assignments={**SETTINGS, "training.steps": 2, "data.valid": share})
    runs = [open_run(tmp_path / name) for name in ("one", "two")]
    parts = [[{pair.source for pair in part} for part in Sources.recall(run.path, run.facts).open(run.config)]
             for run in runs]  # fmt: skip
    found = judge(runs)
    assert parts[0][1] & parts[1][0]
    assert found.pairs == len(parts[0][1] & parts[1][1])
    assert f"without {found.learned} that another of the runs learned from" in found.about
    assert judge([runs[0], runs[0]]).learned == 0


def test_pairs_that_were_added_to_a_file_do_not_hide_what_was_learned_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    light(monkeypatch)
    known = words(40)
    for seed, (name, size) in enumerate((("one", 30), ("two", 40))):
        write_pairs(tmp_path / f"{name}.tsv", *map(list, zip(*known[:size], strict=True)))
        given = {**SETTINGS, "training.steps": 2, "training.seed": seed, "data.valid": 0.4}
        fit(str(tmp_path / f"{name}.tsv"), out=tmp_path / name, assignments=given)
    runs = [open_run(tmp_path / name) for name in ("one", "two")]
    before = judge(runs).learned
    with open(tmp_path / "two.tsv", "a") as file:
        file.write("9 9\t9 9\n")
    assert judge(runs).learned == before > 0
