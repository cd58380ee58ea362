"""The estimator: scikit-learn's manners, real answers, and nothing left behind."""

import copy
import io
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from antiphon import AntiphonError, Seq2Seq
from antiphon.core.config import Data
from antiphon.core.errors import ConfigError, DataError
from antiphon.data.corpus import open_pairs
from antiphon.estimator import DEFAULTS, _on_disk

PAIRS = [(" ".join(str(number)), " ".join(reversed(str(number)))) for number in range(100, 400)]
SETTINGS = {
    "training.threads": 1,
    "training.steps": 250,
    "training.rate": 0.01,
    "training.warmup": 1,
    "training.patience": 0,
    "training.validate_every": 50,
    "training.label_smoothing": 0.0,
    "model.width": 32,
    "model.encoder.layers": 1,
    "model.dropout": 0.0,
}


@pytest.fixture(scope="module")
def fitted() -> Seq2Seq:
    return Seq2Seq(settings=SETTINGS, verbose=False).fit(PAIRS)


def clone(estimator: Seq2Seq) -> Seq2Seq:
    """What sklearn.base.clone does, and the identity of parameters that it insists on."""
    parameters = estimator.get_params(deep=False)
    copy = type(estimator)(**parameters)
    assert all(copy.get_params(deep=False)[name] is value for name, value in parameters.items())
    return copy


def test_parameters_follow_scikit_learn() -> None:
    estimator = Seq2Seq("translation", minutes=2, settings={"model.width": 64})
    assert set(estimator.get_params()) == set(DEFAULTS)
    assert estimator.set_params(minutes=3, seed=5) is estimator
    assert (estimator.minutes, estimator.seed) == (3, 5)
    assert repr(clone(estimator)) == "Seq2Seq(task='translation', minutes=3, seed=5, settings={'model.width': 64})"
    assert repr(Seq2Seq()) == "Seq2Seq()"
    with pytest.raises(ConfigError, match="did you mean minutes"):
        estimator.set_params(minuts=3)


def test_defaults_are_those_of_the_constructor() -> None:
    assert Seq2Seq().get_params() == DEFAULTS


def test_fit_predict_score(fitted: Seq2Seq) -> None:
    assert fitted.predict(["1 2 3", "", "3 1 2"]) == ["3 2 1", "", "2 1 3"]
    assert -20 < fitted.score(PAIRS) <= 0
    assert 80 < fitted.score(PAIRS, "exact") <= 100
    assert fitted.score(PAIRS, "exact") == pytest.approx(100 + fitted.score(PAIRS, "error"))
    assert fitted.result_ is not None
    assert fitted.result_.step == 250


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = Seq2Seq(settings=SETTINGS | {"training.steps": 1}, verbose=False).fit(PAIRS)
    assert list(tmp_path.iterdir()) == []
    assert len(model.predict(["1"])) == 1


def test_out_keeps_the_run(tmp_path: Path) -> None:
    model = Seq2Seq(out=tmp_path / "run", settings=SETTINGS | {"training.steps": 1}, verbose=False).fit(PAIRS)
    assert (tmp_path / "run" / "best" / "manifest.json").exists()
    assert Seq2Seq.load(tmp_path / "run").predict(["1 2"]) == model.predict(["1 2"])


@pytest.mark.parametrize("name", ["model", "model.zip"])
def test_saved_and_loaded_it_answers_the_same(fitted: Seq2Seq, tmp_path: Path, name: str) -> None:
    fitted.save(tmp_path / name)
    loaded = Seq2Seq.load(tmp_path / name)
    sources = [source for source, _ in PAIRS[::20]]
    assert loaded.predict(sources) == fitted.predict(sources)
    assert loaded.score(PAIRS[:50]) == fitted.score(PAIRS[:50])


def test_the_seed_decides_everything() -> None:
    def answers(seed: int) -> list[str]:
        model = Seq2Seq(seed=seed, settings=SETTINGS | {"training.steps": 8}, verbose=False).fit(PAIRS)
        return [*model.predict(["1 2 3", "2 3 1", "3 3 2"]), str(model.score(PAIRS[:50], "per"))]

    assert answers(1) == answers(1) != answers(2)


def test_validation_pairs_and_other_shapes_of_data() -> None:
    rows: Any = iter([{"source": source, "target": target} for source, target in PAIRS])
    model = Seq2Seq(settings=SETTINGS | {"training.steps": 2}, verbose=False).fit(rows, valid=PAIRS[:7])
    assert model.result_ is not None
    assert model.result_.bundle is not None
    frame = pandas.DataFrame(PAIRS[:20], columns=["source", "target"])
    assert Seq2Seq(settings=SETTINGS | {"training.steps": 2}, verbose=False).fit(frame, frame).result_ is not None


def test_verbose_shows_the_recipe_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    Seq2Seq(settings=SETTINGS | {"training.steps": 1}).fit(PAIRS)
    out = capsys.readouterr().out
    assert out.index("reason") < out.index("parameters on") < out.index("ended after 1 steps")
    Seq2Seq(settings=SETTINGS | {"training.steps": 1}, verbose=False).fit(PAIRS)
    assert capsys.readouterr().out == ""


def test_it_works_off_the_main_thread() -> None:
    answers: list[list[str]] = []

    def work() -> None:
        model = Seq2Seq(settings=SETTINGS | {"training.steps": 2}, verbose=False).fit(PAIRS)
        answers.append(model.predict(["1 2 3"]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(answers[0]) == 1


def test_a_notebook_gets_plain_lines() -> None:
    from rich.console import Console

    from antiphon.cli.display import Lines, watching

    with watching(Console(file=io.StringIO(), force_jupyter=True)) as observer:
        assert isinstance(observer, Lines)


def test_mistakes_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AntiphonError, match="call fit"):
        Seq2Seq().predict(["1"])
    with pytest.raises(AntiphonError, match="call fit"):
        Seq2Seq().save(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"did you mean model\.width"):
        Seq2Seq(settings={"model.widht": 3}, verbose=False).fit(PAIRS)
    with pytest.raises(DataError, match="no pair"):
        Seq2Seq(verbose=False).fit([])


@pytest.mark.parametrize(("wrong", "said"), [
    (lambda one: one.predict(3), "predict takes a list of sources .got 3"),
    (lambda one: one.predict(np.array("1")), "predict takes a list of sources"),
    (lambda one: one.fit(PAIRS, teacher=5), "fit: is no path .got 5"),
    (lambda one: one.fit(PAIRS, start=5), "fit: is no path .got 5"),
    (lambda one: Seq2Seq(out=5).fit(PAIRS), "out: is no path .got 5"),
    (lambda one: one.save(None), "save: is no path .got None"),
    (lambda one: Seq2Seq.load(None), "load: is no path .got None"),
    (lambda one: Seq2Seq(settings={5: 1}).fit(PAIRS), "settings go by their names .got 5"),
    (lambda one: one.fit(np.array(["a", "b", "c"]), np.array(["x", "y", "z"])), "fit takes pairs"),
    (lambda one: one.fit(pandas.Series(["a", "b", "c"]), pandas.Series(["x", "y", "z"])), "fit takes pairs"),
    (lambda one: Seq2Seq(settings={"model": {"widht": 8}}).fit(PAIRS), "did you mean model.width"),
])  # fmt: skip
def test_what_is_no_path_no_list_and_no_pair_is_said(wrong: Any, said: str, fitted: Seq2Seq) -> None:
    with pytest.raises(AntiphonError, match=said):
        wrong(copy.copy(fitted))


@pytest.mark.parametrize("labels", [[1, 0], [0.5, 1.5], np.array([1, 0]), np.array([0.5, 1.5], np.float32)])
def test_numbers_beside_texts_are_labels_however_they_come(labels: Any, tmp_path: Path) -> None:
    texts = ["good day", "bad day"]
    table = pandas.DataFrame({"source": texts, "target": labels})
    table.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    pairs = list(zip(texts, labels, strict=True))
    ways = (table, pairs, [{"source": source, "target": target} for source, target in pairs])
    found = [[pair.target for pair in open_pairs(way, Data())] for way in (*ways, tmp_path / "a.jsonl")]
    assert found == [[str(label) for label in labels]] * 4


def test_rows_of_a_frame_are_answered_and_what_is_no_source_is_said(fitted: Seq2Seq) -> None:
    sources = [source for source, _ in PAIRS[:5]]
    assert fitted.predict(pandas.DataFrame({"source": sources, "other": "x"})) == fitted.predict(sources)
    for wrong in ([("1 2", "2 1")], [{"source": "1 2"}], [float("nan")], {"source": "1 2"}):
        with pytest.raises(ConfigError, match=r"is no source|a list of sources"):
            fitted.predict(wrong)


def test_facts_that_no_model_reads_do_not_cost_the_training(tmp_path: Path) -> None:
    (tmp_path / "facts.tsv").write_text("a\tis\tb\n")
    facts = {"data.knowledge": str(tmp_path / "facts.tsv"), "model.knowledge.kind": "none"}
    given = {**SETTINGS, **facts, "training.steps": 2}
    assert Seq2Seq(settings=given, verbose=False).fit(PAIRS[:40]).predict(["1 0 2"])
    nested = {**SETTINGS, "data": {"knowledge": facts["data.knowledge"]}, "training.steps": 2, "task": "data-to-text"}
    assert Seq2Seq(settings=nested, verbose=False).fit(PAIRS[:40]).predict(["1 0 2"])


@pytest.mark.parametrize("name", [{"model.adapter.name": "law"}, {"model": {"adapter": {"name": "law"}}}])
def test_an_adapter_answers_and_teaches_whichever_way_it_was_named(name: dict[str, Any], tmp_path: Path) -> None:
    quick = {**SETTINGS, "training.steps": 4, "training.validate_every": 4}
    base = Seq2Seq(settings=quick, verbose=False).fit(PAIRS[:60])
    given = {**quick, "training.rate": 0.3, **name}
    model = Seq2Seq(settings=given, verbose=False).fit(PAIRS[60:120], start=base)
    model.save(tmp_path / "both")
    sources = [source for source, _ in PAIRS[:20]]
    assert model.predict(sources) == Seq2Seq.load(tmp_path / "both", adapter="law").predict(sources)
    assert model.predict(sources) != base.predict(sources)
    _on_disk(model, tmp_path / "adapted", whole=False)
    assert Seq2Seq.load(tmp_path / "adapted").predict(sources) == model.predict(sources)
    with pytest.raises(ConfigError, match="confidence is fitted to the model alone"):
        model.calibrate(PAIRS[:20])
