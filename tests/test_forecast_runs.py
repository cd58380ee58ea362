"""Numbers from the file to the answer: training, exact resume, bundles, the commands, and forecasts that are good."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon import Seq2Seq, load
from antiphon.core.config import Config
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.core.numbers import parse, spell
from antiphon.data.corpus import Pair, open_pairs
from antiphon.inference.predictor import Predictor
from antiphon.serving import models
from antiphon.serving.refusals import Refusal
from antiphon.serving.settings import Settings
from antiphon.serving.worker import practice
from antiphon.training.distillation import Teachers
from antiphon.training.recipes import propose
from antiphon.training.start import fit
from antiphon.training.statistics import Statistics
from antiphon.training.trainer import train
from commands import Call, calling, refused  # noqa: F401
from forecasts import settings, waves
from runs import Recorder, light, outcome, prepared

PAST, AHEAD = 24, 12


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


def run(config: Config, out: Path, *, resume: bool = False, stop: int | None = None) -> None:
    task, store, valid = prepared(config, waves(48, past=9, ahead=5, ragged=bool(config.model.ends)))
    train(config, task, store, valid, out, resume=resume, observers=[Recorder(stop)])


@pytest.mark.parametrize("stop", [3, 8], ids=["mid-epoch", "validated"])
@pytest.mark.parametrize(
    "more",
    [
        {"training__metric": "mase"},
        {"model__head": "quantile", "model__ends": True, "training__metric": "crps"},
        {"training__scheduled_sampling": 0.5, "data__frames__normalize": "all"},
    ],
    ids=["gaussian", "quantile", "sampling"],
)
def test_a_stopped_run_ends_with_the_same_bits(more: dict[str, Any], stop: int, tmp_path: Path) -> None:
    config = settings(**more, training__steps=14, training__validate_every=4)
    run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", stop=stop)
    run(config, tmp_path / "parts", resume=True)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


SHORT = {"training.threads": 1, "training.seed": 2, "training.steps": 30, "training.validate_every": 10}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table of waves, and a run on it that was told nothing."""
    folder = tmp_path_factory.mktemp("numbers")
    for name, count, seed in (("train", 60, 1), ("test", 8, 2)):
        lines = "".join(f"{source}\t{target}\n" for source, target in waves(count, seed=seed))
        (folder / f"{name}.tsv").write_text(lines)
    fit(folder / "train.tsv", out=folder / "run", assignments=SHORT)
    return folder


def test_the_recipe_sees_numbers(trained: Path) -> None:
    config = load(trained / "run").config
    assert (config.data.source.kind, config.data.target.kind) == ("numbers", "numbers")
    assert (config.model.head, config.model.ends, config.data.frames.normalize) == ("gaussian", False, "each")
    assert (config.training.metric, config.training.precision, config.decoding.beam) == ("mase", "fp32", 1)


def proposed(pairs: list[tuple[Any, Any]], **more: Any) -> Config:
    kinds = {"data.source.kind": "numbers", "data.target.kind": "numbers"}
    config = override(Config(), {**kinds, **{key.replace("__", "."): value for key, value in more.items()}})
    return propose(config, Statistics.of(open_pairs(pairs, config.data), None, config.data))[0]


def rhythm(start: int) -> np.ndarray:
    """A trend, and a season of four steps, with a little noise."""
    place = np.arange(start, start + 30)
    noise = np.random.default_rng(start).normal(0, 0.1, len(place))
    return (np.array([3.0, -1.0, 0.0, 1.0])[place % 4] + 0.5 * place + noise)[:, None]


def test_what_the_recipe_proposes_follows_from_the_pairs() -> None:
    assert proposed(waves(20, ragged=True)).model.ends
    levels = [(f"{n % 3} {n % 5}", f"{100 * (n % 7)}.5") for n in range(40)]
    assert proposed(levels).data.frames.normalize == "all"
    assert proposed(levels).training.metric == "mae"
    assert proposed([("1 2", "3,4"), ("2 3", "4,5")]).data.frames.normalize == "all"
    walks = [(f"{n * n} {n * n + 1} {n * n + 5}", f"{n * n + 5.5} {n * n + 6}") for n in range(40)]
    assert proposed(walks).data.frames.normalize == "last"
    assert proposed(walks).training.metric == "mase"
    season = [(spell(values[:24]), spell(values[24:])) for values in (rhythm(start) for start in range(40))]
    assert (proposed(season).data.frames.normalize, proposed(season).data.frames.season) == ("season", 4)
    words = proposed([("go left", "1.5 2"), ("go right", "2.5 3 4")], data__source__kind="text")
    assert words.data.source.tokenizer
    assert words.data.frames.normalize == "all"


def test_a_saved_model_says_the_same(trained: Path, tmp_path: Path) -> None:
    model = Seq2Seq.load(trained / "run")
    model.save(tmp_path / "model.zip")
    again = Seq2Seq.load(tmp_path / "model.zip")
    sources = [source for source, _ in waves(4, seed=3)]
    assert again.predict(sources) == model.predict(sources)
    assert [len(answer.split()) for answer in model.predict(sources)] == [AHEAD] * 4
    arrays = [parse(source)[:, 0].astype(float) for source in sources]
    assert model.predict(arrays) == model.predict([array.tolist() for array in arrays]) == model.predict(sources)


def test_answers_are_in_units_of_their_sources(trained: Path) -> None:
    predictor, (source, _) = Predictor(load(trained / "run")), waves(1, seed=4)[0]
    moved = " ".join(f"{100 * value + 5000:.4f}" for value in parse(source)[:, 0])
    [[plain], [far]] = predictor.predict([source, moved])
    assert plain.forecast is not None
    assert far.forecast is not None
    np.testing.assert_allclose(far.forecast.values_TF, 100 * plain.forecast.values_TF + 5000, rtol=1e-3)
    assert far.forecast.deviation_TF is not None
    np.testing.assert_allclose(far.forecast.deviation_TF, 100 * plain.forecast.deviation_TF, rtol=1e-2)
    np.testing.assert_allclose(far.forecast.quantiles_TFQ, 100 * plain.forecast.quantiles_TFQ + 5000, rtol=1e-3)
    np.testing.assert_allclose(parse(plain.text), plain.forecast.values_TF, rtol=1e-6)
    np.testing.assert_allclose(plain.forecast.history_SF, parse(source))


def test_the_commands(trained: Path, call: Call) -> None:
    sources = [source for source, _ in waves(3, seed=3)]
    code, out, _ = call("predict", trained / "run", text="\n".join(sources) + "\n")
    assert code == 0
    assert out.splitlines() == Seq2Seq.load(trained / "run").predict(sources)
    code, out, _ = call("predict", trained / "run", "-", "--jsonl", "sample=true", "samples=5", text=sources[0] + "\n")
    [answer] = json.loads(out)["answers"]
    assert answer["text"].split() == [f"{value:.7g}" for [value] in answer["values"]]
    assert len(answer["paths"]) == 5
    assert answer["quantiles"]["0.5"] == answer["values"]
    assert all(
        low[0] <= high[0] for low, high in zip(answer["quantiles"]["0.1"], answer["quantiles"]["0.9"], strict=True)
    )
    code, out, _ = call("evaluate", trained / "run", trained / "test.tsv", "--json", "--metrics", "mase:12,crps")
    found = json.loads(out)
    assert set(found["scores"]) == {"loss", "mase:12", "crps"}
    assert found["sentences"] == 8
    code, out, _ = call("evaluate", trained / "run", trained / "test.tsv")
    assert "words by frequency" not in out
    code, out, _ = call("info", trained / "run")
    assert "numbers, 1 features a step, 12 steps" in out


def test_mistakes_are_one_line(trained: Path, call: Call, tmp_path: Path) -> None:
    run = trained / "run"
    line = refused(call, "predict", run, text="1 2 3\n1 two 3\n")
    assert "input 2: step 2 is no number (got 'two')" in line
    assert "has 2 features a frame, the model reads 1" in refused(call, "predict", run, text="1,2 3,4\n")
    assert "decoding.n_best is for targets of text" in refused(call, "predict", run, "-", "n_best=2", text="1 2\n")
    assert "exact is for text" in refused(call, "evaluate", run, trained / "test.tsv", "--metrics", "exact")
    assert "a model of numbers has no confidence" in refused(call, "calibrate", run, trained / "test.tsv")
    (tmp_path / "bad.tsv").write_text("1.5 2.5\t3.5\n1.5 2.5\tNaN\n")
    words = "train", tmp_path / "bad.tsv", "--task", "forecasting", "--out", tmp_path / "run"
    assert f"{tmp_path}/bad.tsv:2: target: step 1 is no number (got 'NaN'" in refused(call, *words)


def test_constraints_are_for_text(trained: Path) -> None:
    predictor = Predictor(load(trained / "run"))
    with pytest.raises(ConfigError, match="are for answers of text"):
        next(predictor.predict(["1 2 3"], prefixes=["1"]))
    with pytest.raises(DataError, match=r"input 1: step 1 is no number"):
        next(predictor.predict([Pair("what", "")]))


def test_digits_are_numbers_where_the_task_says_so(tmp_path: Path) -> None:
    pairs = [(f"{n} {n + 1} {n + 2}", f"{n + 3} {n + 4}") for n in range(40)]
    fit(pairs, out=tmp_path / "numbers", task="forecasting", assignments={**SHORT, "training.steps": 2})
    assert load(tmp_path / "numbers").config.data.target.kind == "numbers"
    fit(pairs, out=tmp_path / "text", assignments={**SHORT, "training.steps": 2})
    assert load(tmp_path / "text").config.data.target.kind == "text"


def test_waves_are_learned(tmp_path: Path) -> None:
    """Far better than what was last, or what was one usual period before."""
    steps = {"training.threads": 1, "training.steps": 500, "training.validate_every": 250, "training.rate": 0.005}
    fit(waves(500, seed=5), valid=waves(30, seed=6), out=tmp_path / "run", assignments=steps)
    tests = waves(60, seed=7)
    found = Seq2Seq.load(tmp_path / "run").predict([source for source, _ in tests])
    errors = []
    for (source, target), answer in zip(tests, found, strict=True):
        past, actual = parse(source), parse(target)
        size = np.abs(np.diff(past, axis=0)).mean()
        naive = past[-1:], past[-AHEAD:]
        errors.append([np.abs(said - actual).mean() / size for said in (parse(answer), *naive)])
    ours, last, period = np.mean(errors, axis=0)
    assert ours < 0.4 * min(last, period)


def test_the_end_is_learned(tmp_path: Path) -> None:
    """Lengths that follow from the source: a ramp that goes on to 10, by the step that it has."""
    ramps = [(f"{a:.2f} {a + b:.2f}", " ".join(f"{a + b * n:.2f}" for n in range(2, 99) if a + b * n < 10))
             for a in np.linspace(0, 3, 12) for b in np.linspace(1.01, 2.51, 16)]  # fmt: skip
    config = {"training.threads": 1, "training.steps": 600, "training.validate_every": 300, "training.rate": 0.005,
              "data.frames.normalize": "all", "training.metric": "loss"}  # fmt: skip
    fit(ramps[::2], valid=ramps[1::8], out=tmp_path / "run", assignments=config)
    tests = ramps[3::8]
    found = Seq2Seq.load(tmp_path / "run").predict([source for source, _ in tests])
    off = [abs(len(answer.split()) - len(target.split())) for answer, (_, target) in zip(found, tests, strict=True)]
    assert np.mean(off) < 0.5


def test_a_longer_horizon_is_learned_from_a_shorter_one(trained: Path, tmp_path: Path) -> None:
    further = [*waves(30, ahead=20, seed=3), *waves(2, ahead=60, seed=4)]
    given = {"training.threads": 1, "training.steps": 2, "training.validate_every": 2, "data.too_long": "skip",
             "data.target.max_length": 30}  # fmt: skip
    fit(further, out=tmp_path / "further", assignments=given, start=trained / "run")
    found = Seq2Seq.load(tmp_path / "further").predict([further[0][0]])
    assert len(found[0].split()) == 20


def test_numbers_are_not_distilled(trained: Path) -> None:
    with pytest.raises(ConfigError, match="are not distilled"):
        Teachers.open([str(trained / "run")])


def test_a_server_practises_on_more_than_a_season(trained: Path) -> None:
    task = load(trained / "run").task
    task = replace(task, source=replace(task.source, settings=replace(task.source.settings, season=48)))
    example = practice(task)
    assert example is not None
    assert len(task.source.raw(example.source)) > 48  # type: ignore[union-attr]


def test_files_of_arrays_are_forecast_with_what_is_known_ahead(tmp_path: Path, call: Call) -> None:
    draw, rows = np.random.default_rng(0), list[list[str]]()
    for number in range(24):
        np.save(tmp_path / f"{number}.npy", array := draw.normal(0, 1, (6, 1)).astype(np.float32))
        fair = draw.integers(0, 2, 3)
        rows.append([f"{number}.npy", spell(array[-1] + 2 * fair[:, None]), spell(fair[:, None]), "shop"[number % 3 :]])
    data, titles = tmp_path / "data.tsv", ["source", "target", "fair", "shop"]
    data.write_text("\n".join("\t".join(row) for row in [titles, *rows]) + "\n")
    words = [f"{key}={value}" for key, value in SHORT.items()]
    code, _, err = call(
        "train", data, "--task", "forecasting", "--out", tmp_path / "run", "data.context=fair,shop", *words
    )
    assert code == 0, err
    code, said, err = call("predict", tmp_path / "run", data)
    assert (code, len(said.splitlines())) == (0, len(rows)), err
    other, bare = tmp_path / "other.tsv", tmp_path / "bare.tsv"
    other.write_text("\n".join("\t".join((row[0], row[3], row[2])) for row in [titles, *rows]) + "\n")
    bare.write_text("\n".join("\t".join((row[0], row[2], row[3])) for row in rows) + "\n")
    assert call("predict", tmp_path / "run", other)[1] == call("predict", tmp_path / "run", bare)[1] == said
    wanted = "write source<tab>fair<tab>shop"
    assert wanted in refused(call, "predict", tmp_path / "run", tmp_path / "1.npy")
    other.write_text("source\tfair\n1.npy\t1\n")
    assert wanted in refused(call, "predict", tmp_path / "run", other)
    served = models.read("sales", (tmp_path / "run",), tmp_path)
    assert served.heard(tmp_path / "1.npy", {"fair": "1 0 1", "shop": "shop"}, Settings()) >= 6
    for context, what in (({"fair": "1"}, "column shop is missing"), ({"fair": "1", "price": "1"}, "no such context")):
        with pytest.raises(Refusal, match=what):
            served.heard(tmp_path / "1.npy", context, Settings())
    code, told, err = call("evaluate", tmp_path / "run", data, "--json")
    assert (code, list(json.loads(told)["scores"])[-3:]) == (0, ["mae", "rmse", "crps"]), err
