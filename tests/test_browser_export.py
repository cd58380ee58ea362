"""A model in a page: the browser's tokens and answers are those of Python, and nothing is fetched from elsewhere."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exports
from antiphon.core.config import Decoding, Side
from antiphon.core.errors import AntiphonError, BundleError, ConfigError
from antiphon.data.corpus import Pair
from antiphon.data.modalities import Text
from antiphon.export import browser as pages
from antiphon.export.writing import Plan, export_page
from antiphon.inference import light
from antiphon.inference.hypothesis import Constraint
from antiphon.inference.predictor import Predictor
from antiphon.inference.task import Task
from commands import Call, calling, refused  # noqa: F401
from runs import configured

PLACES = (os.environ.get("ANTIPHON_ONNXRUNTIME_WEB", ""), Path(__file__).parents[1] / pages.RUNTIME)
QUICKER = "--js-flags=--liftoff-only"
"""Code for a test need not be fast, and making it so takes seconds."""


def runtime() -> Path:
    """The npm package; skips the test where there is none."""
    found = next((Path(place) for place in PLACES if place and Path(place).exists()), None)
    if found is None:
        pytest.skip(f"there is no onnxruntime-web; type: npm install --no-save onnxruntime-web@{pages.VERSION}")
    return found


# Text, under node

AWKWARD = [
    "", " ", "  a  b ", "a\tb\u3000c\x1cd\x85e\ufefff", "▁x ▁▁", "\ue000\ue001\ue002▁￭", "￭ ￭a￭", "İstanbul ΑΣ ΣΑ ΌΣΟΣ",
    "é e\u0301 \u1e9b\u0323", "नमस्ते दुनिया", "don't it’s 'x' 1,234.5abc 1.2.3. _a_b", "👩‍👩‍👧 🇩🇪!", "你好，世界。",
    "ﬁ ½ ² Ⅷ ٣", "a\u200db\u200c", "<unk> <s> <0xE4>", "\U0001ccf9\U00016eaf1\u0378A\u0301",
]  # fmt: skip
KINDS = ("char", "whitespace", "word", "byte", "label", "bpe", "unigram")
NODE = """import { readFileSync } from "node:fs";
import { Search } from "./search.js";
import { Task, Text } from "./text.js";
const { sides = [], texts = [], tasks = [], searches = [] } = JSON.parse(readFileSync(process.argv[2]));
const cut = sides.map((side) => {
  const made = new Text(side);
  return texts.map((text) => {
    const tokens = made.cut(text);
    return [tokens, made.ids(tokens), made.tokenizer.decode(tokens), made.spelled(tokens, text)];
  });
});
const read = tasks.map(({ about, inputs }) => {
  const task = new Task(about);
  return inputs.map(([text, context]) => {
    const { tokens, ids, copy, extra } = task.read(text, context);
    return [tokens, ids, copy, extra, task.limit(ids.length), task.target.text([...copy, 3, 5], extra)];
  });
});
/** Chances by the step and the last token, out of a table. */
class Walk {
  constructor(chances, looks) {
    Object.assign(this, { chances, looks, at: 0, places: looks[0].length, known: looks.length, most: looks.length });
  }

  step(tokens, parents, living, count) {
    const rows = living.map((row) => {
      const chances = this.chances[this.at][tokens[row]];
      const ids = [...chances.keys()];
      if (count >= 0) ids.sort((a, b) => chances[b] - chances[a]).splice(count);
      return { values: Float32Array.from(ids, (id) => chances[id]), ids };
    });
    this.at += 1;
    return { rows, weights: tokens.map((token) => Float32Array.from(this.looks[token])) };
  }
}
const found = [];
for (const { chances, looks, settings, limit, prefix } of searches) {
  const mine = await new Search(new Walk(chances, looks), settings, limit, prefix).run();
  found.push(mine.map(({ ids, score, finished }) => [ids, score, finished]));
}
console.log(JSON.stringify({ cut, read, found }));
"""


def in_node(folder: Path, asked: dict[str, Any]) -> Any:
    """What the page's own code makes of texts."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    for name in ("search.js", "text.js", "tokenizers.js", "subwords.js"):
        shutil.copy(pages.HERE / name, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "run.js").write_text(NODE)
    (folder / "asked.json").write_text(json.dumps(asked))
    done = subprocess.run([node, "run.js", "asked.json"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def texts() -> list[str]:
    """Awkward ones, random ones, and German: real sentences where the data is there."""
    draw = random.Random(1)
    letters = [*" .,'’_-19aÄßé▁￭\u0301Σσ"]
    ranges = (range(1, 0xD800), range(1, 0x3400), range(0xE000, 0x20000), range(0x110000 - 0x20000, 0x110000))
    known = [chr(draw.choice(draw.choice(ranges))) for _ in range(4000)]
    drawn = ["".join(draw.choices(known, k=draw.randint(1, 30))) for _ in range(100)]
    drawn += ["".join(draw.choice([*letters, draw.choice(known)]) for _ in range(20)) for _ in range(100)]
    path = Path(os.environ.get("ANTIPHON_DATA", "")) / "multi30k" / "test_2016_flickr.de"
    plain = [f"Ein {one} und {other} gehen über die Straße." for one in exports.INPUTS for other in exports.INPUTS[:4]]
    real = path.read_text(encoding="utf-8").splitlines()[:150] if path.is_file() else plain
    return [*AWKWARD, *drawn, *real]


def test_the_page_cuts_text_as_python_does(tmp_path: Path) -> None:
    asked = texts()
    forms = (Side(), Side(lowercase=True, normalize="nfkc", spaces="single"))
    sides = [
        Text.learn(asked[-150:] + AWKWARD, replace(form, tokenizer=kind, vocabulary=400))  # type: ignore[arg-type]
        for kind in KINDS
        for form in forms[: 1 + (kind in ("char", "word", "bpe"))]
    ]
    about = [pages.side(side) for side in sides]
    for side, found in zip(sides, in_node(tmp_path, {"sides": about, "texts": asked})["cut"], strict=True):
        for text, parts in zip(asked, found, strict=True):
            tokens = side.cut(text)
            right = [tokens, side.vocabulary.ids(tokens), side.tokenizer.decode(tokens), side.spelled(tokens, text)]
            assert parts == right, (side.tokenizer.kind, text)


def test_the_page_reads_sources_as_python_does(tmp_path: Path) -> None:
    settings = {"model__head": "copy", "data__context": ["case"], "data__source__max_length": 12}
    pairs = [Pair(word, word, (), {"case": "low" if len(word) % 2 else "high"}) for word in exports.INPUTS]
    inputs = [("Zabz cZa", {"case": "low"}), ("e" * 30 + "Y", {"case": "never"}), ("  ÄbA", {"case": "high"})]
    asked, right = [], []
    for kind, lower, shared in (("char", True, False), ("word", True, True), ("bpe", False, True)):
        side = {f"data__{name}__{key}": value for name in ("source", "target") for key, value in
                (("tokenizer", kind), ("lowercase", lower and (shared or name == "source")))}  # fmt: skip
        config = configured("gru", **settings, **side, data__shared=shared)
        task = Task.learn(pairs, config)
        bundle = replace(exports.made("gru"), task=task, config=config)
        known = dict.fromkeys(("vocabulary", "candidates", "copies", "sources", "answers"), 0)
        asked.append({"about": pages.described(bundle, known), "inputs": inputs})
        mine = []
        for text, context in inputs:
            found = task.read(Pair(text, "", (), context))
            copies = found.context["copy"]
            answer = task.answer([*copies, 3, 5], found.extra)
            mine.append([found.tokens, found.ids, copies, found.extra, task.limit(found.length), answer])
        right.append(mine)
    assert in_node(tmp_path, {"tasks": asked})["read"] == right


class Walk:
    """Chances by the step and the last token, out of a table."""

    def __init__(self, chances: np.ndarray, looks: np.ndarray) -> None:
        self.chances, self.looks, self.at = chances, looks, 0
        self.most, self.known_B, self.mask_BS = len(looks), np.array([len(looks)]), np.ones((1, looks.shape[1]), bool)

    def step(self, tokens_N: np.ndarray, parents_N: np.ndarray, living_L: np.ndarray, count: int) -> Any:
        values = self.chances[self.at][tokens_N[living_L]]
        self.at += 1
        ids = np.broadcast_to(np.arange(values.shape[1]), values.shape)
        if count >= 0:
            ids = np.argsort(-values, axis=1, kind="stable")[:, :count]
            values = np.take_along_axis(values, ids, 1)
        return values.copy(), ids, self.looks[tokens_N]

    def keep(self, sentences: np.ndarray) -> None:
        pass


SETTINGS: list[dict[str, Any]] = [
    {}, {"beam": 1}, {"n_best": 3, "length_penalty": 0.6}, {"thorough": True, "length_penalty": 1.6},
    {"thorough": True, "n_best": 2}, {"coverage_penalty": 0.5, "n_best": 2}, {"no_repeat": 1}, {"no_repeat": 2},
    {"beam": 3, "length_penalty": 0.0}, {"min_length": 4, "n_best": 5}, {"beam": 2, "length_penalty": 2.0},
]  # fmt: skip


def test_the_page_searches_as_python_does(tmp_path: Path) -> None:
    draw, size, limit = np.random.default_rng(1), 14, 9
    asked, right = [], []
    for number in range(20 * len(SETTINGS)):
        logits = draw.normal(0, 2, (limit + 1, size, size))
        logits -= np.log(np.exp(logits).sum(2, keepdims=True))
        chances, looks = logits.astype(np.float32), draw.dirichlet(np.ones(3), size).astype(np.float32)
        settings = Decoding(**SETTINGS[number % len(SETTINGS)])
        prefix = (5, 6) if number % 7 == 0 else ()
        task = light.Task(settings, [limit], [Constraint(prefix)], [0])
        [found], _ = light.Search(Walk(chances, looks), task).run()
        right.append([[each.tokens, pytest.approx(each.score, abs=1e-9), each.finished] for each in found])
        told = pages.how(settings)
        asked.append({"chances": chances.tolist(), "looks": looks.tolist(), "settings": told, "limit": limit,
                      "prefix": prefix})  # fmt: skip
    assert in_node(tmp_path, {"searches": asked})["found"] == right


# The page, in Chromium


class Quiet(SimpleHTTPRequestHandler):
    """What `python -m http.server` is, without its log."""

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture(name="model", scope="module")
def modelling() -> Any:
    pytest.importorskip("onnx", reason="type: pip install '.[onnx]'")
    pytest.importorskip("onnxruntime", reason="type: pip install '.[onnx]'")
    return exports.made("transformer", model__head="copy", data__source__lowercase=True)


@pytest.fixture(name="page", scope="module")
def opening(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page of a model, ready; in the end nothing must have gone wrong, or to another machine."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="type: pip install playwright")
    from browser import BAD, FLAGS, chromium

    out = tmp_path_factory.mktemp("browser") / "page"
    path, plan = chromium(), Plan("browser", "none", runtime=runtime())
    export_page(model, out, exports.pairs(), plan)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(out)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home, wrong = f"http://127.0.0.1:{server.server_port}/", []
    with sync_api.sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=path, args=[*FLAGS, QUICKER], chromium_sandbox=False)
        page = chrome.new_context(locale="en-GB").new_page()
        page.on("request", lambda request: request.url.startswith(home) or wrong.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type in BAD and wrong.append(said.text))
        page.goto(home)
        page.wait_for_selector("html[data-ready]", timeout=150_000)
        yield page
        chrome.close()
    server.shutdown()
    server.server_close()
    assert not wrong


ASKED = """async ([texts, settings]) => {
  const { load } = await import("./engine.js");
  window.model ??= await load();
  const found = [];
  for (const text of texts) found.push(await window.model.answers(text, settings));
  return found;
}"""
INPUTS = [*exports.INPUTS[:10], "Abxyz", "abcde" * 3, "ÄaQQ b"]
SEARCHES: list[dict[str, Any]] = [
    {}, {"n_best": 3}, {"beam": 1}, {"no_repeat": 2, "min_length": 3}, {"thorough": True, "n_best": 2},
    {"n_best": 2, "length_penalty": 0.6, "coverage_penalty": 0.3}, {"max_length": 3, "n_best": 4},
    {"max_length": 30, "min_length": 25},
]  # fmt: skip


def test_the_page_answers_as_the_predictor(page: Any, model: Any) -> None:
    for settings in SEARCHES:
        inputs = INPUTS[-4:] if settings else INPUTS
        right = exports.answers(model, inputs, **settings)
        found = page.evaluate(ASKED, [inputs, settings])
        for text, ours, theirs in zip(inputs, right, found, strict=True):
            assert [each["tokens"] for each in theirs] == [each.tokens for each in ours], (text, settings)
            for each, other in zip(ours, theirs, strict=True):
                assert (other["text"], other["finished"]) == (each.text, each.finished)
                assert other["score"] == pytest.approx(each.score, abs=1e-4)
                assert other["details"]["scores"] == pytest.approx(each.log_probs, abs=1e-3)
                looks = [row[: len(each.source_tokens)] for row in each.weights.tolist()]
                assert [pytest.approx(row, abs=1e-3) for row in looks] == other["details"]["attention"]


def test_an_answer_that_is_begun_goes_on_as_the_predictors(page: Any, model: Any) -> None:
    [right] = Predictor(model, processes=1).predict(["abcde"], prefixes=["cb"])
    [[found]] = page.evaluate(ASKED, [["abcde"], {"prefix": "cb"}])
    assert found["text"].startswith("cb")
    assert (found["text"], found["score"]) == (right[0].text, pytest.approx(right[0].score, abs=1e-4))


def test_what_is_written_is_answered_below_its_others(page: Any, model: Any) -> None:
    from browser import until

    [right] = exports.answers(model, ["badce"], n_best=3)
    page.fill("#source", "badce")
    until(page, "document.querySelector('#answer .word')")
    assert page.inner_text("#answer") == right[0].text
    assert page.locator("#alternatives .text").all_inner_texts() == [each.text for each in right[1:]]
    assert page.locator("#attention .heat").count() == 1
    page.fill("#source", "a\0b")
    page.wait_for_selector("#problem:not([hidden])")
    assert "a character that is none" in page.inner_text("#problem")
    page.fill("#source", "")
    until(page, "document.querySelector('#answer').textContent === ''")


# What is refused


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"decoding__sample": True}, "decoding.sample"),
        ({"decoding__refill": True}, "decoding.refill"),
        ({"decoding__risk": "chrf"}, "decoding.risk"),
        ({"knowledge": "linear"}, "model.knowledge.kind=linear"),
        ({"turns": 3}, "dialogues"),
    ],
)
def test_what_a_browser_cannot_do_is_refused_by_name(change: dict[str, Any], name: str) -> None:
    of_task = {key: value for key, value in change.items() if "__" not in key}
    bundle = exports.made("gru", **{key: value for key, value in change.items() if key not in of_task})
    with pytest.raises(ConfigError, match=name):
        pages.refuse(replace(bundle, task=replace(bundle.task, **of_task)))


def test_a_package_that_is_missing_or_another_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(AntiphonError, match=f"npm install onnxruntime-web@{pages.VERSION}"):
        pages.runtime(tmp_path)
    (tmp_path / "dist").mkdir()
    for name in pages.NEEDED:
        (tmp_path / name).write_text(json.dumps({"name": "onnxruntime-web", "version": "0.9"}))
    with pytest.raises(AntiphonError, match=r"onnxruntime-web 0\.9"):
        pages.runtime(tmp_path)


def test_nothing_else_is_written_over(tmp_path: Path, call: Call) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BundleError, match="not a page"):
        pages.room(tmp_path)
    with pytest.raises(BundleError, match="no archive"):
        pages.room(tmp_path / "page.zip")
    words = ("export", tmp_path / "model", tmp_path / "out", "--data", tmp_path / "pairs.tsv")
    assert "not a page" in refused(call, *words[:2], tmp_path, *words[3:], "--to", "browser")
    assert "--runtime" in refused(call, *words, "--to", "onnx", "--runtime", tmp_path)
