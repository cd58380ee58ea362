"""Models that read facts, from the pair to the answer: tasks, runs, bundles, rewards, evaluation and commands."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon import Seq2Seq
from antiphon.core.batch import PAD, UNK, Batch
from antiphon.core.config import Data
from antiphon.core.errors import BundleError, ConfigError, DataError
from antiphon.core.keys import override
from antiphon.data.batching import collate
from antiphon.data.columns import Pair
from antiphon.data.corpus import open_pairs
from antiphon.data.facts import MARKS, Finder
from antiphon.data.knowledge import Base, Fact
from antiphon.data.report import Report
from antiphon.data.store import prepare
from antiphon.export.lighten import _Folder
from antiphon.export.pruning import pruned
from antiphon.inference import bundle
from antiphon.inference.evaluate import compare, evaluate
from antiphon.inference.knowing import by_entities, coverage
from antiphon.inference.predictor import Predictor, as_trained
from antiphon.inference.task import ENTITIES_FILE, Task
from antiphon.models.seq2seq import build
from antiphon.training.reinforcement import Reward
from antiphon.training.start import fit, resume
from commands import Call, calling, refused  # noqa: F401
from runs import Recorder, configured, light, outcome

NAMES = ("ada", "bea", "cyd", "dan", "eve")
KINDS = pytest.mark.parametrize("kind", ["linear", "graph"])


def rows(count: int = 40, seed: int = 1) -> list[dict[str, Any]]:
    """Who knows whom, and the sentence of it; every fifth pair has no fact."""
    draw, made = random.Random(seed), []
    for number in range(count):
        one, other = draw.sample(NAMES, 2)
        facts = [] if number % 5 == 4 else [[one, "knows", other], [other, "likes", one]][: draw.randint(1, 2)]
        made.append({"source": f"{one} {number % 7}", "target": f"{one} knows {other}", "facts": facts})
    return made


def settings(kind: str, **more: Any) -> dict[str, Any]:
    config = configured("gru", model__knowledge__kind=kind, model__head="copy", decoding__max_length=16, **more)
    given = {"model.knowledge.kind": kind, "model.head": "copy", "decoding.max_length": 16}
    keys = ("data.source.tokenizer", "data.target.tokenizer", "model.width", "model.encoder.kind", "model.decoder.kind")
    keys += ("model.encoder.layers", "model.decoder.layers", "model.heads", "data.batch_tokens", "training.threads")
    from antiphon.core.keys import get

    return (
        {key: get(config, key) for key in keys}
        | given
        | {name.replace("__", "."): value for name, value in more.items()}
    )


def task_of(kind: str, **more: Any) -> Task:
    config = configured("gru", model__knowledge__kind=kind, **more)
    return Task.learn(open_pairs(rows(), config.data), config)


def saved(folder: Path, kind: str, *, seed: int = 5, **more: Any) -> Path:
    """A bundle that nobody trained."""
    config = configured("gru", model__knowledge__kind=kind, **more)
    task = Task.learn(open_pairs(rows(), config.data), config)
    model = build(config.model, len(task.source.vocabulary), len(task.target.vocabulary), seed=seed)
    bundle.save(folder, model=model, task=task, config=config, card={})
    return folder


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    light(monkeypatch)


PAIR = Pair("ada?", "bea", (), {"facts": "ada | knows | zoë && bea | likes | ada"})


def test_facts_are_joined_to_the_source_with_marks_that_are_not_copied() -> None:
    task = task_of("linear", model__head="copy")
    source = task.read(PAIR)
    assert "".join(source.tokens[:4]) == "ada?"
    assert [token for token in source.tokens if token in MARKS] == [*MARKS, *MARKS]
    assert "".join(token for token in source.tokens if token not in MARKS) == "ada?adaknowszoëbealikesada"
    assert UNK not in [number for token, number in zip(source.tokens, source.ids, strict=False) if token in MARKS]
    copies = source.context["copy"]
    assert [copies[place] == PAD for place in range(len(copies))] == [token in MARKS for token in source.tokens] + [
        False
    ]
    assert "ë" in source.extra
    assert source.length == len(source.tokens) + 1


def test_a_graph_stands_beside_the_source() -> None:
    task = task_of("graph", model__head="copy")
    example, source = task.encode(PAIR), task.read(PAIR)
    assert source.tokens == list("ada?")
    assert "".join(source.facts) == "adazoëknowsbealikes"
    assert {
        len(example.context[name]) for name in ("facts", "fact_node", "fact_subject", "fact_object", "fact_copy")
    } == {19}
    assert len(example.context["copy"]) == len(example.source)
    size = len(task.target.vocabulary)
    assert [source.extra[number - size] for number in example.context["fact_copy"] if number >= size] == list("zëli")
    swapped = replace(PAIR, context={"facts": "bea | likes | ada && ada | knows | zoë"})
    assert task.encode(swapped).context == example.context
    assert source.length == len(example.source) + 19


def test_what_does_not_fit_is_counted_or_refused() -> None:
    for kind in ("linear", "graph"):
        report, task = Report(), task_of(kind, data__source__max_length=16)
        read = task.read(PAIR, report=report)
        assert len(read.ids) <= 16
        assert len(read.facts) < 16
        assert [reason for reason in report.counts if "fact left out: no room" in reason]
        with pytest.raises(DataError, match="source is longer than max_length=16"):
            task_of(kind, data__source__max_length=16, data__too_long="error").read(PAIR)


def test_a_task_wants_its_facts() -> None:
    with pytest.raises(DataError, match="the facts that the model wants are missing"):
        task_of("linear").read("ada?")
    found = replace(task_of("graph"), find=Finder(3, Base.of([Fact("ada", "knows", "bea")]))).read("Ada?")
    assert "".join(found.facts) == "adabeaknows"
    assert task_of("none").read("ada?").context == {}


@KINDS
def test_a_store_keeps_facts_exactly(kind: str, tmp_path: Path) -> None:
    task = task_of(kind, model__head="copy")
    pairs = list(open_pairs(rows(), Data()))
    small, spilled = prepare(pairs, task.encode), prepare(pairs, task.encode, tmp_path, spill=10)
    plain = [task.encode(pair) for pair in pairs]
    assert [spilled[number] for number in range(len(pairs))] == [small[number] for number in range(len(pairs))] == plain
    assert isinstance(spilled.context["copy"].row(0), np.memmap)
    chosen = np.array([7, 4, 9, 11])  # pair 4 has no facts
    ours, theirs = spilled.batch(chosen), collate([plain[number] for number in chosen])
    assert ours.context.keys() == theirs.context.keys()
    for name, padded in ours.context.items():
        assert np.array_equal(padded.values, theirs.context[name].values), name
        assert np.array_equal(padded.lengths_B, theirs.context[name].lengths_B), name
    assert spilled.source_lengths.tolist() == [task.read(pair).length for pair in pairs]


@KINDS
def test_a_run_is_resumed_to_the_bit(kind: str, tmp_path: Path) -> None:
    given = settings(kind, training__steps=10, training__validate_every=4, model__dropout=0.1)
    fit(rows(), out=tmp_path / "whole", assignments=given)
    fit(rows(), out=tmp_path / "cut", assignments=given, observers=[Recorder(stop_at=6)])
    resume(tmp_path / "cut")
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_a_changed_knowledge_base_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "base.tsv"
    path.write_text("ada\tknows\tbea\n", encoding="utf-8")
    given = settings("graph", training__steps=10, data__knowledge=str(path))
    fit(rows(), out=tmp_path / "run", assignments=given, observers=[Recorder(stop_at=3)])
    path.write_text("ada\tknows\tcyd\n", encoding="utf-8")
    with pytest.raises(DataError, match="the knowledge data has changed"):
        resume(tmp_path / "run")


def test_what_is_looked_up_goes_along_with_an_export(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    Path("base.tsv").write_text("ada\tknows\tbea\ncyd\tknows\tdan\n", encoding="utf-8")
    Path("pairs.tsv").write_text("".join(f"ada {n}\tbea {n}\n" for n in range(20)), encoding="utf-8")
    given = settings("linear", training__steps=2, data__knowledge="base.tsv")
    fit("pairs.tsv", valid="pairs.tsv", out="run", assignments=given)
    code, _, err = call("export", "run", "onnx", "--data", "pairs.tsv", "--to", "onnx", "--quantize", "none")
    assert code == 0, err
    Path("base.tsv").rename("moved.tsv")
    code, _, err = call("export", "run", "again", "--data", "pairs.tsv", "--to", "onnx", "--quantize", "none",
                        "--knowledge", "moved.tsv")  # fmt: skip
    assert code == 0, err
    fit([("a", "b"), ("c", "d")] * 5, out="plain", assignments=settings("none", training__steps=2))
    told = refused(call, "export", "plain", "no", "--data", "pairs.tsv", "--to", "onnx", "--knowledge", "moved.tsv")
    assert "--knowledge: the model reads no facts (got moved.tsv)" in told
    parts = _Folder(Path("light")).begin(bundle.load(Path("run")), "pairs.tsv", "pairs.tsv", {}, "moved.tsv")
    for part in parts:
        assert json.loads(json.loads(part.read_text().splitlines()[0])["facts"]) == [["ada", "knows", "bea"]]


@KINDS
def test_a_bundle_keeps_what_was_known(kind: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "m", kind)
    loaded = bundle.load(path)
    assert loaded.task.knowledge == kind
    assert loaded.task.entities == task_of(kind).entities
    assert len(loaded.task.entities or ()) == len(NAMES)
    files = loaded.task.files()
    del files[ENTITIES_FILE]
    assert Task.load(files, loaded.config).entities is None
    for bad in (b"{}", b'["xyz"]', b'["00"]', b"[1]"):
        with pytest.raises(BundleError, match="entities"):
            Task.load({**files, ENTITIES_FILE: bad}, loaded.config)


@KINDS
def test_answers_do_not_depend_on_what_else_is_asked(kind: str, tmp_path: Path) -> None:
    guesser = Predictor(bundle.load(saved(tmp_path / "m", kind, model__head="copy")), processes=1)
    pairs = [replace(pair, target="", references=()) for pair in open_pairs(rows(), Data())]
    together = [found[0] for found in guesser.predict(pairs, window=40)]
    alone = [next(guesser.predict([pair]))[0] for pair in pairs]
    assert [each.text for each in together] == [each.text for each in alone]
    for each in together:
        assert each.weights.shape == (len(each.tokens), len(each.source_tokens) + 1)
        assert np.allclose(each.weights.sum(1), 1, atol=1e-4)


def test_models_that_read_facts_otherwise_do_not_answer_together(tmp_path: Path) -> None:
    # with no facts in training the vocabularies are equal
    ways = [bundle.load(saved(tmp_path / kind, kind)) for kind in ("graph", "none")]
    ways[1] = replace(ways[1], task=replace(ways[0].task, knowledge="none"))
    with pytest.raises(ConfigError, match="the same vocabularies"):
        Predictor(ways)
    with pytest.raises(ConfigError, match="the model reads no facts"):
        Predictor(ways[1], knowledge="base.tsv")


def test_a_reward_reads_what_was_copied_from_a_fact() -> None:
    task = task_of("graph", model__head="copy")
    batch: Batch = task.batch([replace(PAIR, target="zoe", references=("zoe",))])
    letters = Reward("exact", task).extra(batch, 0)
    assert task.read(PAIR).extra == list("?zëli")
    assert letters[3:] == ["l", "i"]  # the others are not in the source's vocabulary either
    assert len(set(letters)) == 5


def test_entities_in_answers_are_counted() -> None:
    facts = [[Fact("São_Paulo", "in", "Brazil"), Fact("São_Paulo", "by", "Tietê")], []]
    tables = coverage(facts, ["Sao Paulo is in brazil.", "x"], [["Brazil has São Paulo on the Tietê"], ["y"]])
    assert tables["entity_coverage"].tolist() == [[2, 3], [0, 0]]
    tables = coverage(facts, ["Brazil", ""], [["Brazil", "Tietê"], [""]])
    assert tables["entity_coverage"].tolist() == [[1, 3], [0, 0]]
    assert tables["entity_recall"].tolist() == [[1, 2], [0, 0]]


def test_scores_are_split_by_what_was_known(tmp_path: Path) -> None:
    guesser = Predictor(bundle.load(saved(tmp_path / "m", "graph")))
    facts = ["ada | knows | bea", "ada | knows | zoë", "yan | knows | zoë", "Ada | likes | EVE", ""]
    pairs = [Pair("ada", "bea", (), {"facts": fact}) for fact in facts]
    found = evaluate(guesser, pairs, ["exact"], bootstrap=10)
    counts = {each.label: each.count for each in found.by_entities}
    assert counts == {"all entities seen": 2, "some unseen": 1, "none seen": 1, "no facts": 1}
    assert found.scores["entity_coverage"].interval is not None
    assert "by entities of the facts in training:" in found.lines()
    assert json.loads(found.to_json())["by_entities"][0]["count"] == 2
    assert {each.name for each in compare(found, found)} >= {"exact", "entity_coverage"}
    guesser.task = replace(guesser.task, entities=None)
    assert evaluate(guesser, pairs, ["exact"], bootstrap=0).by_entities == []
    assert by_entities([], {}, [[Fact("ada", "knows", "zoë")]], frozenset())[0].label == "none seen"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model that reads facts, with its pairs and a knowledge base beside it."""
    folder = tmp_path_factory.mktemp("knowing")
    lines = [json.dumps(row) + "\n" for row in rows()]
    (folder / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "base.tsv").write_text("ada\tknows\tbea\nada\tknows\tbea\n", encoding="utf-8")
    fit(folder / "pairs.jsonl", out=folder / "run", assignments=settings("graph", training__steps=2))
    return folder


def test_the_command_predicts_with_facts_after_the_source(run: Path, call: Call) -> None:
    def ask(text: str, *words: str | Path) -> tuple[int, str, str]:
        return call("predict", run / "run", *words, "beam=2", text=text)

    code, out, _ = ask('ada\tada | knows | bea\nada\t[["ada", "knows", "bea"]]\n\tada | knows | bea\nada\t\n')
    assert code == 0
    assert len(out.splitlines()) == 4
    assert len(set(out.splitlines()[:3])) == 1
    code, out, error = ask("ada\nzoë\n", "--knowledge", run / "base.tsv")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert "1 x repeated fact left out" in error
    code, _, error = ask("ada\n")
    assert code == 2
    assert "write source<tab>facts, or give --knowledge FILE" in error
    code, _, error = ask("ada\tada | bea\n")
    assert code == 2
    assert "fact 1 is not subject | relation | object" in error


def test_a_chat_answers_from_a_file_of_facts(run: Path, call: Call) -> None:
    code, out, error = call("chat", run / "run", "--knowledge", run / "base.tsv", text="ada\n")
    assert (code, len(out.splitlines()), "error" in error) == (0, 1, False)
    code, out, error = call("chat", run / "run", text="ada\n")
    assert (code, out) == (2, "")
    assert "a chat has none; give a file of facts: --knowledge FILE" in error


def test_the_command_reports_entities(run: Path, call: Call) -> None:
    code, out, _ = call("evaluate", run / "run", run / "pairs.jsonl", "--metrics", "exact", "beam=1")
    assert code == 0
    assert "entity_coverage" in out
    assert "all entities seen" in out
    code, out, _ = call("evaluate", run / "run", run / "pairs.jsonl", "--json", "--knowledge", run / "base.tsv")
    assert json.loads(out)["knowledge"].endswith("base.tsv")


def test_the_recipe_reads_the_facts_of_a_file(run: Path, call: Call) -> None:
    code, out, _ = call("train", run / "pairs.jsonl", "--out", run / "no", "--show")
    assert code == 0
    assert "model.knowledge.kind" in out
    assert "pairs have facts" in out
    assert not (run / "no").exists()


def test_the_estimator_looks_facts_up(run: Path) -> None:
    given = settings("linear", training__steps=2, data__knowledge=str(run / "base.tsv"))
    model = Seq2Seq(settings=given, verbose=False).fit([(row["source"], row["target"]) for row in rows()])
    assert len(model.predict(["ada?", "zoë?"])) == 2
    model.save(run / "saved")
    again = Seq2Seq.load(run / "saved", knowledge=run / "base.tsv")
    assert again.predict(["ada?"]) == model.predict(["ada?"])
    with pytest.raises(DataError, match="facts that the model wants are missing"):
        Seq2Seq.load(run / "saved").predict(["ada?"])


def test_going_on_adds_the_new_entities(run: Path, tmp_path: Path) -> None:
    new = [{**row, "facts": [["Oslo", "in", "Norway"]]} for row in rows()]
    fit(new, out=tmp_path / "more", assignments={"training.steps": 1, "training.threads": 1}, start=run / "run")
    before, after = (bundle.load(path).task.entities for path in (run / "run", tmp_path / "more"))
    assert before is not None
    assert after is not None
    assert before < after
    assert len(after - before) == 2


def test_two_processes_are_as_one(tmp_path: Path) -> None:
    given = settings("graph", training__steps=4, training__optimizer="sgd", model__dropout=0.0)
    given |= {"training.precision": "fp32", "training.rate": 0.1}
    fit(rows(), out=tmp_path / "one", assignments={**given, "training.processes": 1})
    fit(rows(), out=tmp_path / "two", assignments={**given, "training.processes": 2})
    one, two = (bundle.tensors(bundle.load(tmp_path / name).model) for name in ("one", "two"))
    assert all(np.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_a_run_is_judged_with_the_facts_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "base.tsv"
    path.write_text("ada\tknows\tbea\n", encoding="utf-8")
    for kind in ("graph", "none"):
        found = bundle.load(saved(tmp_path / kind, kind))
        config = override(found.config, {"data.knowledge": str(path)})
        read = as_trained(found, config, processes=1).task.read(Pair("ada", "")).context
        assert len(read.get("facts", "")) == (len("adaknowsbea") if kind == "graph" else 0)


def test_a_smaller_vocabulary_keeps_the_words_of_facts(tmp_path: Path) -> None:
    whole = bundle.load(saved(tmp_path / "m", "graph", data__source__tokenizer="whitespace"))
    pairs = [pair for pair in open_pairs(rows(), Data()) if pair.context.get("facts", "[]") != "[]"][:4]
    small = pruned(whole, pairs)
    for pair in pairs:
        facts = [each.task.read(pair).context["facts"] for each in (whole, small)]
        words = [[each.task.source.vocabulary.tokens[number] for number in row]
                 for each, row in zip((whole, small), facts, strict=True)]  # fmt: skip
        assert words[0] == words[1]
    assert small.task.source.size < whole.task.source.size


def test_models_are_compared_drawn_and_asked_for_pairs_with_a_file_of_facts(
    run: Path, tmp_path: Path, call: Call
) -> None:
    pairs, texts = tmp_path / "pairs.tsv", tmp_path / "texts.txt"
    pairs.write_text("ada\tada knows bea\nada?\tbea\n", encoding="utf-8")
    texts.write_text("ada\nada?\n", encoding="utf-8")
    plain, facts = saved(tmp_path / "plain", "none"), ("--knowledge", run / "base.tsv")
    assert call("compare", run / "run", plain, pairs, *facts, "--metrics", "chrf")[0] == 0
    code, _, error = call("compare", plain, plain, pairs, *facts)
    assert (code, "no model here reads facts" in error) == (2, True)
    assert "facts that the model wants are missing" in call("compare", run / "run", plain, pairs)[2]
    words = ("--out", tmp_path / "sweep.json.html", "--temperatures", "1", "beam=1")
    assert call("sweep", run / "run", plain, pairs, *facts, *words)[0] == 0
    made = ("synthesize", run / "run", texts, "--out", tmp_path / "made.jsonl")
    assert "facts that the model wants are missing" in call(*made)[2]
    assert "2 x answer without an end" in call(*made, *facts)[2], "it is hardly trained, but it was asked with facts"
