"""`antiphon doctor` on real runs: a healthy one, a faulty one, its cure, and what a training says of itself."""

from __future__ import annotations

import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from antiphon.cli.bedside import LAST, Bedside
from antiphon.cli.prescription import report
from antiphon.core.errors import ConfigError, TrainingError
from antiphon.core.keys import override
from antiphon.data.columns import Pair
from antiphon.diagnosis.cases import Case
from antiphon.diagnosis.data import audit
from antiphon.diagnosis.doctor import Examination, Finding, Plot, Record, curing, examine
from antiphon.diagnosis.doctor.findings import HIGH, Evidence
from antiphon.diagnosis.doctor.pairs import AUDITED, distance, leaked
from antiphon.diagnosis.doctor.trying import EXPERIMENTS, Trial, tried, weighed
from antiphon.diagnosis.report import judge, open_run
from antiphon.inference.bundle import load
from antiphon.training.observers import Note, ProbeEvent, ValidationEvent
from antiphon.training.start import fit
from commands import Call, calling, refused  # noqa: F401
from corpora import sentences, write_pairs
from runs import Recorder, light, listing, words
from starts import QUICK

SMALL = {
    "training.threads": 1, "training.processes": 1, "model.encoder.kind": "gru", "model.decoder.kind": "gru",
    "model.width": 48, "model.encoder.layers": 1, "model.decoder.layers": 1, "data.batch_tokens": 400,
    "model.dropout": 0.1,
}  # fmt: skip


def pairs(count: int = 400) -> list[tuple[str, str]]:
    return sorted(set(words(count, seed=3)))


def trained(folder: Path, name: str, **settings: Any) -> Path:
    data = write_pairs(folder / f"{name}.tsv", *map(list, zip(*pairs(), strict=True)))
    given = {**SMALL, **{key.replace("__", "."): value for key, value in settings.items()}}
    fit(str(data), out=folder / name, assignments=given)
    return folder / name


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("well"), "run", training__epochs=25)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("slow"), "run", training__epochs=6, training__rate=1e-5)


def test_a_healthy_run_is_healthy(well: Path, call: Call) -> None:
    code, out, err = call("doctor", well)
    assert (code, err) == (0, ""), out
    first, *_, last = out.splitlines()
    assert "healthy" in first
    assert "CPU seconds" in last or "CPU seconds" in out
    assert "held-out pairs" in " ".join(out.split())


def test_a_fault_is_found_and_told(slow: Path, call: Call) -> None:
    code, out, err = call("doctor", slow, "--json")
    assert (code, err) == (1, "")
    told = json.loads(out)
    assert told["findings"][0]["cause"] == "rate too low"
    assert told["findings"][0]["confidence"] >= 0.7
    assert told["findings"][0]["cure"]["training.rate"] > 1e-3
    assert not told["healthy"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_report_fits_the_terminal(slow: Path, width: int) -> None:
    console = Console(width=width, record=True, force_terminal=True, file=io.StringIO())
    console.print(report(examine(slow, answers=False), full=True))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "rate too low" in text
    assert "training.rate=" in text


def test_a_cure_is_applied_and_compared(slow: Path, call: Call, tmp_path: Path) -> None:
    code, out, _ = call("doctor", slow, "--cure", "--cause", "rate too low", "--out", tmp_path / "cured")
    assert code == 0, out
    table = [line.split() for line in out.splitlines() if line.startswith("held-out loss")]
    before, after = float(table[0][-2]), float(table[0][-1])
    assert after < before
    config = json.loads((tmp_path / "cured/config.json").read_text())
    assert config["training"]["rate"] > 1e-3
    assert config["model"]["width"] == 48
    assert "the run folder is not empty" in refused(call, "doctor", slow, "--cure", "--out", tmp_path / "cured")


def test_what_a_cure_brings_to_light_is_cured_next(
    slow: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = curing.following, list[list[str]]()

    def following(run: Path, cured: list[str]) -> Finding | None:
        asked.append(cured)
        found = real(run, cured)
        return found and replace(found, cure={"training.epochs": 8})

    monkeypatch.setattr(curing, "following", following)
    code, out, _ = call("doctor", slow, "--cure", "--out", tmp_path / "cured")
    assert code == 0, out
    assert "very likely now: ended early; its cure is next" in out
    assert "no better" not in out
    assert asked[0] == ["rate too low"]
    assert len(asked) <= 2
    once, twice = (curing.Best.of(tmp_path / name) for name in ("cured", "cured-2"))
    assert twice.above(once)
    assert not once.above(twice)
    assert json.loads((tmp_path / "cured-2/config.json").read_text())["training"]["rate"] > 1e-3
    assert "the folder of a further training is not empty" in refused(
        call, "doctor", slow, "--cure", "--out", tmp_path / "cured"
    )


def test_the_better_run_is_told_by_its_metric_and_then_by_its_loss() -> None:
    kept = [curing.Best("bleu", 20.0, 2.0, higher=True), curing.Best("bleu", 20.0, 3.0, higher=True),
            curing.Best("bleu", 10.0, 1.0, higher=True), curing.Best("bleu", None, None, higher=True)]  # fmt: skip
    assert [sum(each.above(best) for each in kept) for best in kept] == [0, 1, 2, 3]
    assert curing.Best("error", 10.0, 3.0).above(curing.Best("error", 20.0, 2.0))
    assert curing.Best("error", 100.0, 2.5).above(curing.Best("loss", 2.7, 2.7))
    assert not curing.Best("chrf", 3.0, 2.9, higher=True).above(curing.Best("loss", 2.7, 2.7))


def test_what_is_tried_is_told_and_weighed_and_changes_nothing(
    slow: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    light(monkeypatch)
    learn = Case.learn
    monkeypatch.setattr(Case, "learn", lambda case, pairs, steps, **how: learn(case, pairs, min(steps, 6), **how))
    before, files = {each.cause: each.confidence for each in examine(slow, answers=False).findings}, listing(slow)
    assert before["diffuse attention"] < 0.5
    code, out, err = call("doctor", slow, "--try", "--no-answers", "--json")
    assert (code, err) == (1, "")
    after = {each["cause"]: each for each in json.loads(out)["findings"]}
    assert after.keys() == before.keys()
    assert after["diffuse attention"]["confidence"] > 0.8
    [tried] = [each for each in after["rate too low"]["evidence"] if each["text"].startswith("tried, rates")]
    assert tried["figures"] == {"own": 1e-05, "best": 0.001}
    assert after["rate too low"]["cure"]["training.rate"] == 0.001
    for name in EXPERIMENTS.keys() - {"even attention"}:
        monkeypatch.delitem(EXPERIMENTS, name)
    code, out, err = call("doctor", slow, "--try", "--no-answers")
    assert (code, err) == (1, "")
    told = " ".join(out.split())
    assert told.startswith("tried even attention held-out loss")
    assert told.index("nearly certain") < told.index("tried, even attention: held-out loss")
    assert listing(slow) == files


def test_the_search_is_told_from_the_model(well: Path, tmp_path: Path, call: Call) -> None:
    run = tmp_path / "run"
    with_it = Finding("search limits", 0.9, "", (Evidence(""),), "", {"decoding.max_length": 2})
    curing.with_search(well, with_it, tmp_path / "bundle")
    assert load(tmp_path / "bundle").config.decoding.max_length == 2
    run.mkdir()
    for name in ("log.jsonl", "config.json", "data.json"):
        (run / name).write_bytes((well / name).read_bytes())
    (tmp_path / "bundle").rename(run / "best")
    found = examine(run)
    assert found.findings[0].cause == "search limits", [(each.cause, each.confidence) for each in found.findings]
    assert found.findings[0].cure == {"decoding.max_length": None}
    code, out, _ = call("doctor", run, "--cure", "--out", tmp_path / "mended")
    assert code == 0, out
    assert load(tmp_path / "mended").config.decoding.max_length is None


def test_mistakes_are_one_line(call: Call, well: Path, tmp_path: Path) -> None:
    assert "there is no run here" in refused(call, "doctor", tmp_path)
    assert "there is no run here" in refused(call, "doctor", tmp_path / "none")
    assert "nothing to cure called dead units" in refused(call, "doctor", well, "--cure", "--cause", "dead units")
    with pytest.raises(TrainingError, match="no setting cures label leak"):
        curing.curable(Finding("label leak", 0.9, "", (Evidence(""),), "", action="look"))


def test_without_its_data_the_log_alone_is_looked_at(slow: Path, tmp_path: Path) -> None:
    facts = json.loads((slow / "data.json").read_text())
    facts["files"]["train"] = [str(tmp_path / "gone.tsv")]
    for name in ("log.jsonl", "config.json"):
        (tmp_path / name).write_bytes((slow / name).read_bytes())
    (tmp_path / "data.json").write_text(json.dumps(facts))
    found = examine(tmp_path)
    assert "gone.tsv" in found.looked_at[-1]
    assert len(found.looked_at) == 3
    assert found.learned < 1
    (tmp_path / "data.json").write_text(json.dumps({**facts, "start": "model"}))
    assert examine(tmp_path).learned == 1  # whoever begins with a trained model need not learn more


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_damaged_model_is_found_whether_or_not_there_is_data(checkpoints: bool, well: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(well, tmp_path / "run"))
    weights = run / "best" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    if not checkpoints:
        shutil.rmtree(run / "checkpoints")
    [first, *_] = examine(run).findings
    assert (first.cause, first.confidence >= HIGH) == ("damaged model", True)
    assert "model.safetensors" in first.evidence[0].text
    assert ("checkpoints/step-" if checkpoints else "train anew") in first.action
    [judged] = judge([open_run(run)]).judged
    assert "its model cannot be opened" in judged.why
    facts = json.loads((run / "data.json").read_text())
    facts["files"]["train"] = [str(tmp_path / "gone.tsv")]
    (run / "data.json").write_text(json.dumps(facts))
    assert examine(run).findings[0].cause == "damaged model"


def test_a_training_says_what_is_certain_and_changes_nothing(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "a.tsv", *map(list, zip(*pairs(100), strict=True)))
    given = {
        **SMALL,
        "model.width": 16,
        "training.rate": 1e-6,
        "training.steps": 104,
        "training.validate_every": 52,
        "data.batch_tokens": 150,
    }
    heard, plain = Recorder(), Recorder()
    fit(str(data), out=tmp_path / "watched", assignments=given, observers=[Bedside(heard)])
    fit(str(data), out=tmp_path / "plain", assignments=given, observers=[plain])
    said = [note.text for note in heard.notes if note.kind == "audit"]
    assert len(said) == 1
    assert said[0].startswith("doctor: rate too low")
    assert "training.rate=" in said[0]
    weights = [(tmp_path / name / "best/model.safetensors").read_bytes() for name in ("watched", "plain")]
    assert weights[0] == weights[1]


def test_of_a_long_training_nothing_is_kept() -> None:
    beside = Bedside(Recorder())
    for step in (1, LAST + 1):
        beside.probed(ProbeEvent(step, 0, "loss", {}))
        beside.noted(Note("data", "", step))
        assert len(beside.events) == 2
    beside.validated(ValidationEvent(LAST + 1, 0, 1.0, {}, [], False))
    assert beside.events == []


def test_leaks_and_distances() -> None:
    assert leaked(Pair("walk V;PST | walked", "walked"))
    assert leaked(Pair("walked => walk V;PST", "walked"))
    assert not leaked(Pair("walked", "walked"))
    assert not leaked(Pair("unwalked", "walked"))
    train = [f"the {noun} sleeps" for noun in ("cat", "dog", "cow")] * 100
    assert distance(train, train[:50]) == pytest.approx(0, abs=0.05)
    assert distance(train, ["el perro duerme"] * 50) > 3


def test_an_examination_of_nothing_is_healthy() -> None:
    found = Examination("run", (), ("nothing",), Plot("training loss"))
    assert found.healthy
    assert found.to_dict()["findings"] == []
    assert "healthy   nothing is wrong with this run" in shown(found)


def test_what_is_only_possible_leaves_a_run_healthy_but_not_without_doubt() -> None:
    possible = Finding("ended early", 0.4, "few passes", (Evidence("12 of 120"),), "not the rate")
    found = Examination("run", (possible,), ("nothing",), Plot("training loss"))
    assert found.healthy
    assert "healthy   nothing is more likely wrong than not" in shown(found)
    assert "ended early" in shown(found)


def test_who_has_learned_next_to_nothing_is_not_healthy_whatever_the_cause() -> None:
    found = Examination("run", (), ("nothing",), Plot("training loss"), learned=0.06)
    assert not found.healthy
    assert "not healthy   6% of what there is to learn was learned" in shown(found)
    assert found.to_dict()["verdict"]
    assert Examination("run", (), ("nothing",), Plot("training loss"), learned=0.3).healthy


def shown(found: Examination) -> str:
    """The report as a terminal shows it."""
    console = Console(file=io.StringIO(), width=100)
    console.print(report(found))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_what_the_audit_finds_is_a_cause(tmp_path: Path) -> None:
    sources, targets = sentences(600)
    shifted = write_pairs(tmp_path / "a.tsv", sources, [*targets[:200], *targets[201:], "."])
    copied = write_pairs(tmp_path / "b.tsv", sources, [*sources[:200], *targets[200:]])
    for path, cause in ((shifted, "misaligned data"), (copied, "copying the source")):
        told = {AUDITED[each.kind][0]: AUDITED[each.kind][1](each) for each in audit(str(path)).findings
                if each.kind in AUDITED}  # fmt: skip
        assert told[cause] > 0.9
    clean = write_pairs(tmp_path / "c.tsv", sources, targets)
    told = {each.kind: AUDITED[each.kind][1](each) for each in audit(str(clean)).findings if each.kind in AUDITED}
    assert all(confidence < 0.5 for confidence in told.values())


def test_a_run_of_pairs_in_memory_with_chosen_columns_is_cured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)
    rows = [{"word": source, "said": target, "of": "x"} for source, target in words(80)]
    given = {**QUICK, "training.steps": 8, "training.validate_every": 4, "data.columns": ("word", "said", "of")}
    held_out = "".join("\t".join(row.values()) + "\n" for row in rows[:8])
    (tmp_path / "valid.tsv").write_text("word\tsaid\tof\n" + held_out)
    fit(rows, valid=tmp_path / "valid.tsv", out=tmp_path / "run", assignments=given)
    finding = Finding("rate too low", 0.9, "", (Evidence(""),), "", {"training.rate": 0.01})
    result = curing.cure(tmp_path / "run", finding, tmp_path / "cured")
    assert load(result.out).config.training.rate == 0.01


def test_what_followed_from_a_fault_is_proposed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)
    given = {**QUICK, "training.steps": 2, "task": "data-to-text", "model.attention": "none", "model.dropout": 0.25}
    assert load(fit(words(40), out=tmp_path / "run", assignments=given).out).config.model.head == "vocabulary"
    finding = Finding("no attention", 0.9, "", (Evidence(""),), "", {"model.attention": "multihead"})
    model = load(curing.cure(tmp_path / "run", finding, tmp_path / "cured").out).config.model
    assert (model.attention, model.head, model.dropout) == ("multihead", "copy", 0.25)
    record = Record.open(tmp_path / "run")
    record = replace(record, config=override(record.config, {"training.likelihood": 0.3}))  # as older runs may have it
    assert "training.likelihood" not in curing.settings(record, {})
    assert curing.settings(record, {"training.objective": "minimum-risk"})["training.likelihood"] == 0.3


def test_experiments_are_for_fresh_weights(slow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)
    fit(words(40), out=tmp_path / "on", assignments={**QUICK, "training.steps": 2}, start=slow)
    with pytest.raises(ConfigError, match="this run went on from a model"):
        Case.open(tmp_path / "on")


def test_a_cure_that_is_no_better_says_which_run_is(
    well: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = Finding("rate too high", 0.9, "", (Evidence(""),), "", {"training.rate": 1e-6, "training.epochs": 1})
    monkeypatch.setattr("antiphon.cli.doctor._chosen", lambda *given: worse)
    monkeypatch.setattr(curing, "following", lambda run, cured: None)
    code, out, _ = call("doctor", well, "--cure", "--out", tmp_path / "cured")
    assert code == 0
    assert f"that is no better: the best is {well}" in out


def test_an_experiment_that_loses_its_numbers_tells_nothing(slow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Trial("shuffled targets", "held-out loss inf", {"right": math.inf, "shuffled": 2.0}, {"rate too low": 4.0})
    for name in EXPERIMENTS.keys() - {"rates"}:
        monkeypatch.delitem(EXPERIMENTS, name)
    monkeypatch.setitem(EXPERIMENTS, "rates", (("rate too low",), lambda run: lost))
    found = examine(slow, answers=False).findings
    [trial] = tried(slow, found)
    assert (dict(trial.figures), dict(trial.odds)) == ({"shuffled": 2.0}, {})
    assert trial.text == "held-out loss inf: it lost its numbers"
    assert [each.confidence for each in weighed(found, [trial])] == [each.confidence for each in found]


def test_a_cure_changes_something(well: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"training.rate": load(well / "best").config.training.rate, "training.epochs": 50, "decoding.beam": 5}
    finding = Finding("ended early", 0.9, "", (Evidence(""),), "", same)
    monkeypatch.setattr("antiphon.diagnosis.doctor.optimization.broke", lambda patient: iter([finding]))
    [found] = [each for each in examine(well, answers=False).findings if each.confidence == 0.9]
    assert dict(found.cure) == {"training.epochs": 50, "decoding.beam": 5}


def test_a_cure_goes_where_there_is_nothing(
    well: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Finding("length penalty", 0.9, "", (Evidence(""),), "", {"decoding.length_penalty": 1.0})
    shutil.copytree(well / "best", tmp_path / "other")
    before = listing(tmp_path / "other")
    with pytest.raises(TrainingError, match="there is something already"):
        curing.with_search(well, search, tmp_path / "other")
    assert listing(tmp_path / "other") == before
    (tmp_path / "out-2").mkdir()
    (tmp_path / "out-2/x").touch()
    assert curing.folders(tmp_path / "out", 1) == [tmp_path / "out"]
    with pytest.raises(TrainingError, match="further training is not empty"):
        curing.folders(tmp_path / "out")
    assert "--cure has no --json" in refused(call, "doctor", well, "--cure", "--json")
    shutil.copytree(well, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setattr("antiphon.cli.doctor._chosen", lambda *given: search)
    assert call("doctor", ".", "--cure")[0] == 0
    assert load(tmp_path / "run-cured").config.decoding.length_penalty == 1.0
