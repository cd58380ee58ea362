"""A server with tiny models and Debian's Chromium, for tests of the web page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest

from antiphon import Seq2Seq

sync_api = pytest.importorskip("playwright.sync_api", reason="type: pip install playwright")
pytest.importorskip("fastapi", reason="type: pip install '.[serve]'")
pytest.importorskip("soundfile", reason="type: pip install '.[speech]'")
Page = Any
Open = Callable[..., Page]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "media-src blob:; require-trusted-types-for 'script'"
)
FLAGS = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--disable-gpu"]
BAD, REFUSED = ("error", "warning"), "responded with a status of 4"
"""What browsers say of every answer that refuses is no mistake."""

QUICK = {
    "training.steps": 150, "training.threads": 1, "training.processes": 1, "training.rate": 0.01, "model.width": 32,
    "training.validate_every": 150, "data.batch_tokens": 300, "model.dropout": 0.0, "model.encoder.kind": "gru",
    "model.decoder.kind": "gru", "model.encoder.layers": 1, "model.decoder.layers": 1,
}  # fmt: skip
WORDS = {"data.source.tokenizer": "whitespace", "data.target.tokenizer": "whitespace"}
SHORT = {"training.steps": 2, "training.validate_every": 2}
COUNTED = ("one", "two", "three", "four", "five", "six")
TURNED = dict(zip(COUNTED, ("eins", "zwei", "drei", "vier", "fünf", "sechs"), strict=True))
RATE, SECONDS = 8000, 4


def chromium() -> str:
    """The path of a browser; skips the test where there is none."""
    given = os.environ.get("ANTIPHON_CHROMIUM")
    found = given or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium; type: make browser")
    return found


def make_models(folder: Path) -> dict[str, Path]:
    """Numbers in other words, a dialogue, facts, waves and recordings: one tiny model of each."""
    draw = np.random.default_rng(1)
    lines = [" ".join(draw.choice(COUNTED, draw.integers(2, 6))) for _ in range(200)]
    data: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "numbers": ("translation", [(x, " ".join(TURNED[w] for w in x.split())) for x in lines], WORDS),
        "talk": ("dialogue", [{"turns": [x, "why", x.split()[0]]} for x in lines], WORDS | SHORT),
        "facts": ("data-to-text", [{"source": x, "target": x, "facts": [["a", "knows", x]]} for x in lines],
                  WORDS | SHORT),
        "waves": ("forecasting", waves(), SHORT),
        "digits": ("speech", recordings(folder), SHORT | {"data.frames.rate": RATE}),
    }  # fmt: skip
    for name, (task, pairs, settings) in data.items():
        Seq2Seq(task, settings={**QUICK, **settings}, verbose=False).fit(pairs).save(folder / name)
    return {name: folder / name for name in data}


def waves() -> list[tuple[str, str]]:
    """Sines of several phases, and how they go on."""
    rows = [np.sin(phase + np.arange(20) / 2) for phase in range(40)]
    return [(" ".join(f"{x:.2f}" for x in row[:14]), " ".join(f"{x:.2f}" for x in row[14:])) for row in rows]


def recordings(folder: Path) -> list[tuple[str, str]]:
    """Tones of two heights, and what they are called."""
    import soundfile

    made = []
    for number in range(24):
        path = folder / f"{number}.wav"
        tone = np.sin(2 * np.pi * (300, 900)[number % 2] * np.arange(SECONDS * RATE) / RATE)
        soundfile.write(path, 0.4 * tone, RATE)
        made.append((str(path), ("low", "high")[number % 2]))
    return made


@contextmanager
def serving(models: dict[str, Path]) -> Iterator[str]:
    """The address of a server that is ready."""
    words = [f"{name}={path}" for name, path in models.items()]
    command = [sys.executable, "-m", "antiphon", "serve", *words, "--port", "0", "--processes", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        address = ""
        for line in process.stderr:
            event = json.loads(line)
            address = event.get("url", address)
            if event["event"] == "ready":
                break
        # its log is read on, so that it never waits for a reader
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield address + "/"
    finally:
        process.terminate()
        process.wait(20)
        process.stderr.close()


def until(page: Page, true: str) -> None:
    """Waits until an expression is true; Playwright's own way to wait would need `eval`, which the policy forbids."""
    end = time.monotonic() + 10
    while not page.evaluate(true):
        assert time.monotonic() < end, true
        page.wait_for_timeout(20)


@pytest.fixture(name="address", scope="module")
def addressing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    chromium()
    with serving(make_models(tmp_path_factory.mktemp("page"))) as found:
        yield found


@pytest.fixture(name="browser", scope="module")
def browsing() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=FLAGS, chromium_sandbox=False)
        yield made
        made.close()


@pytest.fixture(name="open_page")
def opening(browser: Any, address: str) -> Iterator[Open]:
    """Opens the page under a strict policy; in the end nothing must have gone wrong, or to another machine."""
    wrong: list[str] = []
    contexts = []

    def strictly(route: Any) -> None:
        response = route.fetch()
        route.fulfill(response=response, headers={**response.headers, "content-security-policy": POLICY})

    def watched(request: Any) -> None:
        if urlparse(request.url).hostname not in ("127.0.0.1", None):
            wrong.append(f"asked elsewhere: {request.url}")

    def open_it(hash: str = "", **settings: Any) -> Page:
        context = browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1200, "height": 800}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.route(address, strictly)
        page.on("request", watched)
        page.on("pageerror", lambda error: wrong.append(f"thrown: {error}"))
        page.on(
            "console", lambda said: wrong.append(said.text) if said.type in BAD and REFUSED not in said.text else None
        )
        page.goto(address + hash)
        until(page, "document.querySelector('#model').value")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not wrong
