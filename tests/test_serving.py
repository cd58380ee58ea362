"""The server over a real socket: answers as `predict` gives them, in every form, and errors that say what is wrong."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

from antiphon import Predictor, load
from antiphon.core.keys import override
from antiphon.data.corpus import Pair
from antiphon.export.writing import Plan, export
from antiphon.inference.explore import explore
from antiphon.serving.edge import swallowed
from antiphon.training.start import fit
from served import RATE, SOURCES, Served, listener, model, served, tones

CANARY = "xylophonecanary"
SLOW = 600
"""Tokens of an answer of the model that is slow."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def server(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    limits = ["--processes", "1", "--characters", "3000", "--tokens", "2800", "--inputs", "40", "--body", "200000"]
    limits += ["--work", "100000", "--watch", "0"]
    folder = tmp_path_factory.mktemp("log")
    slow = model(folder / "slow", least=SLOW)
    heard = listener(folder / "heard")
    with served(f"en-de={path}", f"other={path}", slow, heard, *limits, folder=folder) as found:
        yield found


@pytest.fixture(scope="module")
def predictor(path: Path) -> Predictor:
    return Predictor(load(path), processes=1)


def error(reply: httpx.Response, status: int) -> dict[str, str]:
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["where", "what", "got", "do"]
    assert "x-request-id" in reply.headers
    return body["error"]


def test_answers_are_those_of_predict_whoever_else_asks(server: Served, predictor: Predictor) -> None:
    wanted = [answers[0] for answers in predictor.predict(SOURCES)]
    with ThreadPoolExecutor(16) as pool:
        alone = list(pool.map(lambda source: server.ask(source).json()["answers"][0], SOURCES))
    together = server.ask(*SOURCES).json()
    assert together["model"] == "en-de"
    assert len({answer.text for answer in wanted}) > 15
    for answers in (alone, together["answers"]):
        assert [answer["text"] for answer in answers] == [answer.text for answer in wanted]
        for answer, want in zip(answers, wanted, strict=True):
            assert answer["score"] == pytest.approx(want.score, abs=1e-4)
            assert (answer["finished"], answer["reason"]) == (want.finished, want.reason)
    assert b"antiphon_batch_inputs_bucket" in server.client.get("/metrics").content


@pytest.fixture(scope="module")
def others(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of an exported model, of the one it was made of, and of that with an adapter."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("others")
    pairs = [Pair(source, " ".join(reversed(source.split()))) for source in SOURCES]
    export(load(path), folder / "fast", pairs, Plan("onnx", "none"))
    own = {"model.adapter.name": "law", "decoding.beam": 1, "decoding.max_length": 5, "decoding.min_length": 2}
    quick = {"training.steps": 1, "training.threads": 1, "training.processes": 1}
    fit(pairs, valid=pairs[:4], out=folder / "run", assignments={**own, **quick}, start=path)
    with served(folder / "fast", path, folder / "run", "--processes", "1", "--watch", "0", folder=folder) as found:
        yield found


def test_an_exported_model_is_served_and_says_what_it_cannot_do(others: Served, path: Path) -> None:
    assert others.texts(*SOURCES[:9], model="fast") == others.texts(*SOURCES[:9], model=path.name)
    reply = others.client.post("/v1/explore", json={"source": SOURCES[0], "model": "fast"})
    assert "without PyTorch's weights" in error(reply, 422)["what"]
    assert others.client.get("/v1/models").json()["models"][0]["parameters"] == 0


def test_an_adapter_answers_by_its_own_search(others: Served) -> None:
    guesser = Predictor(load(others.file.parent / "run"), adapter="law")
    wanted = [best[0].text for best in guesser.predict(SOURCES[:9])]
    by = {"model": "run", "adapter": "law"}
    assert others.texts(*SOURCES[:9], **by) == wanted != others.texts(*SOURCES[:9], model="run")
    said = others.client.post("/v1/chat", json={"turns": [SOURCES[3]], **by}).json()["answers"][0]
    assert len(said["text"].split()) <= 5
    reply = others.client.post("/v1/chat", json={"turns": [SOURCES[3]], "context": {"to": "x"}})
    assert "no such context" in error(reply, 422)["what"]


def test_searches_are_as_asked_for(server: Served, predictor: Predictor) -> None:
    source, settings = SOURCES[13], predictor.config
    several = override(settings, {"decoding.beam": 6, "decoding.n_best": 4}).decoding
    [found] = predictor.predict([source], settings=several)
    [answer] = server.ask(source, beam=6, best=4, details=True).json()["answers"]
    assert [answer["text"], *(each["text"] for each in answer["alternatives"])] == [each.text for each in found]
    details = answer["details"]
    assert "".join(details["source"]) == source
    assert details["target"] == found[0].tokens
    assert len(details["scores"]) == len(found[0].log_probs)
    assert [len(row) for row in details["attention"]] == [len(source)] * len(details["target"])
    drawn = override(settings, {"decoding.sample": True, "decoding.seed": 7, "decoding.temperature": 2.0}).decoding
    wanted = [answers[0].text for answers in predictor.predict(SOURCES[:5], settings=drawn)]
    assert server.texts(*SOURCES[:5], sample=True, seed=7, temperature=2.0) == wanted
    with ThreadPoolExecutor(12) as pool:  # what is drawn does not depend on who else draws
        draws = pool.map(lambda _: server.texts(*SOURCES[:5], sample=True, seed=7, temperature=2.0), range(24))
        assert all(texts == wanted for texts in draws)
    assert server.texts(source, prefix="tu tu")[0].startswith("tu tu")
    assert "lo" in server.texts(source, required=["lo"])[0].split()
    assert "ba" not in server.texts(source, banned=["ba"], beam=4)[0].split()


def test_blank_inputs_have_the_empty_answer(server: Served) -> None:
    answers = server.ask("", " \t", "ba").json()["answers"]
    assert [answer["text"] for answer in answers[:2]] == ["", ""]
    assert answers[0]["reason"] == "empty input"
    assert answers[2]["text"]


def test_plain_text_goes_in_and_out_line_by_line(server: Served) -> None:
    plain = {"content-type": "text/plain; charset=utf-8"}
    body = "\n".join([*SOURCES[:3], "", "ba\u2028ba\r"]) + "\n"
    reply = server.client.post("/v1/predict?model=other", content=body.encode(), headers=plain)
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.text == "\n".join([*server.texts(*SOURCES[:3]), "", *server.texts("ba\u2028ba")]) + "\n"
    error(server.client.post("/v1/predict", content=b"\xff", headers=plain), 422)


def events(reply: httpx.Response) -> list[tuple[str, dict[str, object]]]:
    parts = [part.split("\n") for part in reply.text.split("\n\n") if part]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


def test_a_stream_grows_and_ends_as_the_answer(server: Served) -> None:
    source = max(SOURCES, key=len)
    reply = server.client.post("/v1/stream", json={"inputs": [source]})
    assert reply.headers["content-type"].startswith("text/event-stream")
    *partials, (last, answer) = events(reply)
    assert last == "answer"
    assert answer == server.ask(source).json()["answers"][0]
    assert len(partials) > 3
    assert {name for name, _ in partials} == {"partial"}
    texts = [str(content["text"]) for _, content in partials]
    assert [len(text.split()) for text in texts] == sorted({len(text.split()) for text in texts})
    error(server.client.post("/v1/stream", json={"inputs": [source, source]}), 422)


def test_exploring_goes_where_the_model_would(server: Served, predictor: Predictor) -> None:
    source = SOURCES[20]
    asked = {"source": source, "width": 3}
    first = server.client.post("/v1/explore", json=asked).json()
    wanted = explore(predictor, source, width=3)
    assert [way["piece"] for way in first["next"]] == [way.token for way in wanted.following]
    best = next(way for way in first["next"] if not way["end"])
    second = server.client.post("/v1/explore", json={**asked, "pieces": [*first["pieces"], best["piece"]]}).json()
    assert (second["prefix"], second["pieces"]) == (best["piece"], [best["piece"]])
    assert second["next"][0]["probability"] <= 1
    error(server.client.post("/v1/explore", json={**asked, "prefix": "zzz"}), 422)
    error(server.client.post("/v1/explore", json={"source": " "}), 422)


def test_models_say_what_they_are(server: Served) -> None:
    first, other, *_ = server.client.get("/v1/models").json()["models"]
    assert (first["name"], other["name"]) == ("en-de", "other")
    assert (first["source"], first["target"], first["beam"], first["chat"]) == ("text", "text", 3, False)
    assert first["limits"] == {"characters": 3000, "batch": 40, "tokens": 2800, "hypotheses": 32}
    assert first["parameters"] > 1000
    found = error(server.ask("ba", model="othe"), 404)
    assert found["do"] == "did you mean other?"


def test_chat_answers_the_last_turn(server: Served) -> None:
    reply = server.client.post("/v1/chat", json={"turns": ["ba du", "ki", SOURCES[9]]})
    assert [answer["text"] for answer in reply.json()["answers"]] == server.texts(SOURCES[9])
    error(server.client.post("/v1/chat", json={"turns": ["a <turn> b"]}), 422)
    *partials, last = events(
        server.client.post("/v1/chat", json={"turns": ["ba du", "ki", SOURCES[9]], "stream": True})
    )
    assert {name for name, _ in partials} == {"partial"}
    assert last == ("answer", reply.json()["answers"][0])
    error(server.client.post("/v1/chat", json={"turns": ["a <turn> b"], "stream": True}), 422)


def test_it_translates_as_libretranslate_does(server: Served) -> None:
    post, wanted = server.client.post, server.texts(*SOURCES[:2])
    both = {"source": "en", "target": "de"}
    assert server.client.get("/languages").json() == [{"code": "en", "name": "English", "targets": ["de"]}]
    assert post("/translate", json={"q": SOURCES[0], **both}).json() == {"translatedText": wanted[0]}
    assert post("/translate", json={"q": SOURCES[:2], **both, "format": "text"}).json() == {"translatedText": wanted}
    assert post("/translate", data={"q": SOURCES[0], **both, "alternatives": "0"}).json()["translatedText"] == wanted[0]
    auto = post("/translate", json={"q": SOURCES[0], "source": "auto", "target": "de", "alternatives": 2}).json()
    assert auto["detectedLanguage"]["language"] == "en"
    assert len(auto["alternatives"]) == 2
    several = {"q": SOURCES[:2], **both, "alternatives": ""}
    assert post("/translate", data=several).json() == {"translatedText": wanted}
    assert post("/translate", data=both).json()["error"].startswith("q: ")
    assert post("/translate", json={"q": "ba", **both}, headers={"X-Timeout": "0.000001"}).status_code == 504
    for wrong in ({"target": "fr"}, {"format": "html"}, {"q": []}):
        reply = post("/translate", json={"q": "ba", **both, **wrong})
        assert reply.status_code == 400
        assert isinstance(reply.json()["error"], str)


def test_a_recording_is_sent_as_a_file(server: Served, tmp_path: Path) -> None:
    def send(seconds: float, **fields: object) -> httpx.Response:
        soundfile.write(tmp_path / "own name.wav", tones(seconds), RATE)
        with (tmp_path / "own name.wav").open("rb") as file:
            return server.client.post("/v1/files", data={"model": "heard", **fields}, files={"file": file})

    guesser = Predictor(load(server.file.parent / "heard"), processes=1)
    for seconds in (0.3, 1.0):  # the second is longer than any in training, and cut
        reply = send(seconds)
        assert reply.status_code == 200, reply.text
        [[wanted]] = guesser.predict([str(tmp_path / "own name.wav")])
        assert (reply.json()["text"], reply.json()["reason"]) == (wanted.text, wanted.reason)
        assert [word["text"] for word in reply.json()["words"]] == wanted.text.split()
    assert "at most 2,800 tokens" in error(send(120.0), 422)["what"]
    assert "beam is at most" in error(send(0.3, beam=99), 422)["what"]
    assert "no such field" in error(send(0.3, sample="true"), 422)["what"]
    assert "no such adapter" in error(send(0.3, adapter="law"), 422)["what"]
    assert "no such context" in error(send(0.3, context='{"shop": "north"}'), 422)["what"]
    assert "no object of texts" in error(send(0.3, context='["north"]'), 422)["what"]
    assert error(server.ask(str(tmp_path / "own name.wav"), model="heard"), 422)["do"] == "POST a file to /v1/files"
    (tmp_path / "no.wav").write_bytes(b"RIFF" + b"x" * 50)
    with (tmp_path / "no.wav").open("rb") as file:
        reply = server.client.post("/v1/files", data={"model": "heard"}, files={"file": file})
    assert "no recording that can be read" in error(reply, 422)["what"]
    assert not list(Path(server.file.parent).glob("**/file.wav"))


@pytest.mark.parametrize(
    ("body", "status", "what"),
    [
        (b'{"inputs": ["a\\ud800"]}', 400, "JSON"),
        (b'{"inputs": ["a\\u0000"]}', 422, "NUL"),
        (b'{"inputs": ["a"], "temperature": NaN}', 422, "finite"),
        (b'{"inputs": ["a"], "temperature": 1e400}', 422, "finite"),
        (b'{"inputs": ["a"], "temperature": -1}', 422, "greater than 0"),
        (b'{"inputs": ["a"], "beam": 1000000000}', 422, "less than"),
        (b'{"inputs": ["a"], "beam": 33}', 422, "beam is at most 32"),
        (b'{"inputs": ["a"], "best": -1}', 422, "greater than"),
        (b'{"inputs": ["a"], "best": 4, "beam": 3}', 422, "larger than beam"),
        (b'{"inputs": ["a"], "beam": "3"}', 422, "integer"),
        (b'{"inputs": ["a"], "seed": 18446744073709551616}', 422, ""),
        (b'{"inputs": []}', 422, "at least 1"),
        (b'{"inputs": "a"}', 422, "array"),
        (b'{"inputs": [{"source": "a", "facts": [["b", "c", "d"]]}]}', 422, "reads no facts"),
        (b'{"inputs": [{"source": "a", "context": {"to": "de"}}]}', 422, "no such context"),
        (b'{"inputs": ["a"], "adapter": "law"}', 422, "no such adapter"),
        (b'{"inputs": ["a"], "prefix": "never"}', 422, "cannot write"),
        (b'{"inputs": ["a"], "required": ["ba"], "banned": ["ba"]}', 422, "both banned and asked"),
        (b'{"inputs": ["a"], "required": ["ba"], "sample": true}', 422, "required words"),
        (b"[" * 100_000, 400, "JSON"),
        (b'{"inputs": ["a"], "model": 1' + b"0" * 10_000 + b"}", 400, ""),
        (b"", 400, "JSON"),
        (b"\xff\xfe", 400, "JSON"),
    ],
)
def test_mistakes_are_named_and_not_quoted(server: Served, body: bytes, status: int, what: str) -> None:
    found = error(server.client.post("/v1/predict", content=body), status)
    assert what in found["what"]


def test_limits_hold_at_their_edge(server: Served) -> None:
    assert server.texts(*["ba"] * 40)
    assert "at most 40 inputs" in error(server.ask(*["ba"] * 41), 422)["what"]
    assert "at most 3,000 characters" in error(server.ask("b" * 3001), 422)["what"]
    assert "at most 2,800 tokens" in error(server.ask("b" * 2800), 422)["what"]  # and the end mark
    assert server.ask("b" * 2799, beam=1, prefix="ba").status_code == 200
    found = error(server.ask(*["b" * 1500] * 23, beam=3), 422)
    assert "at most 100,000 tokens times hypotheses" in found["what"]
    assert found["got"] == f"{1501 * 23 * 3:,}"


def test_a_body_is_refused_while_it_is_read(server: Served) -> None:
    fit = b'{"inputs": ["ba"]}'
    assert server.client.post("/v1/predict", content=fit + b" " * (200_000 - len(fit))).status_code == 200
    for content in (fit + b" " * 200_001, iter([fit, b" " * 150_000, b" " * 150_000])):
        assert "at most 200,000 bytes" in error(server.client.post("/v1/predict", content=content), 413)["what"]
    assert server.texts("ba")


def test_who_asks_before_sending_is_told_at_once_that_it_is_too_much(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        lines = ("POST /v1/predict HTTP/1.1", "Host: here", "Content-Length: 300000", "Expect: 100-continue", "", "")
        client.sendall("\r\n".join(lines).encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_what_is_not_wanted_is_read_on_to_its_end_or_to_a_limit() -> None:
    """What stays unread resets the connection, and the answer is lost with it."""

    def left(parts: list[bytes], most: int) -> int:
        messages = [{"body": part, "more_body": number < len(parts) - 1} for number, part in enumerate(parts)]

        async def receive() -> dict[str, Any]:
            return messages.pop(0) if messages else await asyncio.sleep(60, {})

        asyncio.run(swallowed(receive, most))
        return len(messages)

    assert left([b"x" * 100] * 5, 1000) == 0
    assert left([b"x" * 100] * 50, 1000) == 40


def test_what_is_not_there_is_said_as_json(server: Served) -> None:
    assert all(server.client.get(path).text.startswith("<!doctype html>") for path in ("/", "/page", "/page/"))
    error(server.client.get("/nothing"), 404)
    error(server.client.post("/v1/predict/", json={"inputs": ["ba"]}), 404)  # no redirect to what Host says
    error(server.client.get("/v1/predict"), 405)
    error(server.client.get("/page/../../app.py"), 404)
    error(server.client.get("/docs/%2e%2e/app.py"), 404)
    error(server.client.post("/v1/files", files={"file": ("a.wav", b"RIFF")}), 422)
    error(server.client.post("/v1/files"), 422)
    error(server.client.post("/v1/predict", json={"inputs": ["a"]}, headers={"X-Timeout": "soon"}), 422)


def test_documentation_comes_from_here_alone(server: Served) -> None:
    page = server.client.get("/docs")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for text in (page.text, server.client.get("/docs/docs.js").text):
        assert "//" not in text.replace("// ", "")
    about = server.client.get("/openapi.json").json()
    assert set(about["paths"]) == {
        "/healthz", "/readyz", "/metrics", "/v1/predict", "/v1/stream", "/v1/chat", "/v1/models", "/v1/explore",
        "/v1/files", "/translate", "/languages",
    }  # fmt: skip
    assert "inputs" in about["components"]["schemas"]["Predict"]["properties"]


def test_an_answer_that_takes_too_long_is_given_up(server: Served) -> None:
    for seconds in (0.05, 0.3):
        reply = server.client.post(
            "/v1/predict", json={"inputs": ["ba"], "model": "slow"}, headers={"X-Timeout": str(seconds)}
        )
        assert "no answer in time" in error(reply, 504)["what"]
        assert seconds <= reply.elapsed.total_seconds() < seconds + 0.4
    assert server.client.post("/v1/predict", json={"inputs": ["ba"]}, headers={"X-Timeout": "3"}).status_code == 200


def test_a_client_that_leaves_frees_its_place(server: Served) -> None:
    asked = {"inputs": ["ba"], "model": "slow", "beam": 30}
    begun = time.perf_counter()
    assert server.client.post("/v1/predict", json=asked).status_code == 200
    whole = time.perf_counter() - begun
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/v1/predict", json=asked, timeout=0.1)
    assert server.ask("ba").elapsed.total_seconds() < whole / 2
    with server.client.stream("POST", "/v1/stream", json=asked) as reply:
        assert next(reply.iter_lines()) == "event: partial"
    assert server.ask("ba").elapsed.total_seconds() < whole / 2
    server.until(lambda: [each.get("cause") for each in server.events("request")].count("left") == 2, 5)


def test_a_query_that_nobody_reads_is_refused(server: Served) -> None:
    for path in ("/v1/predict?modle=x", "/v1/stream?model=x"):
        reply = server.client.post(path, json={"inputs": ["ba"]})
        assert "no such parameter" in error(reply, 422)["what"]
    for path in ("/", "/healthz", "/readyz", "/docs", "/docs/"):
        assert server.client.head(path).status_code == 200


def test_health_answers_while_the_model_works(server: Served) -> None:
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(server.ask, *SOURCES[:4], model="slow")
        times = []
        while not work.done():
            times.append(httpx.get(f"{server.url}/healthz").elapsed.total_seconds())
        assert work.result().status_code == 200
    assert len(times) > 3
    assert sorted(times)[len(times) // 2] < 0.1


def test_metrics_tell_of_drift_and_load(server: Served) -> None:
    def figures() -> dict[str, float]:
        lines = server.client.get("/metrics").text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    before = figures()
    server.texts(*SOURCES[:10])
    server.ask("b" * 3001)
    after = figures()
    grown = {name for name in after if after[name] > before.get(name, 0)}
    for name in (
        'antiphon_requests_total{route="/v1/predict",status="200"}', 'antiphon_refused_total{cause="too-long"}',
        'antiphon_source_tokens_total{model="en-de"}', 'antiphon_target_tokens_total{model="en-de"}',
        'antiphon_length_ratio_count{model="en-de"}', 'antiphon_probability_count{model="en-de"}',
        "antiphon_batch_inputs_sum", "antiphon_queue_seconds_count",
        'antiphon_request_seconds_count{route="/v1/predict"}',
    ):  # fmt: skip
        assert name in grown, name
    assert after["antiphon_ready"] == 1
    assert after["antiphon_queue_tokens"] == 0


def test_nothing_that_is_asked_is_logged(server: Served) -> None:
    server.ask(CANARY, prefix=CANARY)
    server.ask(CANARY)
    server.client.get(f"/{CANARY}?q={CANARY}", headers={"x-a": CANARY})
    server.client.post("/v1/predict", content=CANARY.encode())
    reply = server.ask("ba", **{CANARY: 1, "prefix": f"\0{CANARY}"})
    server.until(lambda: len(server.events("request")) > 5, 5)
    assert CANARY not in server.file.read_text()
    assert str(Path.cwd()) not in reply.text
    assert {"time", "level", "event", "id", "route", "status", "seconds"} <= set(server.events("request")[-1])
