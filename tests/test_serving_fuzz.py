"""Requests that nobody would send, made from the server's own description and out of thin air: none breaks it."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from served import Served, model, served

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SHORT, LONG = 120, 10_000
"""Requests of each test, in the default suite and before a release."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("fuzzed")
    path = model(folder / "small")
    with served(f"en-de={path}", "--processes", "1", "--timeout", "20", "--patience", "3", folder=folder) as found:
        yield found
        assert found.events("process lost") == []
        assert found.events("error") == []
        assert found.ask("ba du").status_code == 200


def described(server: Served, requests: int) -> None:
    """So many requests over all routes, most of them wrong in one way or another."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    reading, asked = sum(bool(operation.body) for operation in operations), 0
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    for operation in operations:
        each = -(-requests // reading // len(modes))
        for mode in modes:
            cases = operation.as_strategy(generation_mode=mode)

            @settings(max_examples=each, deadline=None, database=None, phases=[Phase.generate], derandomize=True,
                      suppress_health_check=list(HealthCheck))  # fmt: skip
            @given(case=cases)
            def ask(case: schemathesis.Case) -> None:
                nonlocal asked
                asked += 1
                response = case.call(base_url=server.url, timeout=30)
                case.validate_response(response, checks=CHECKS)

            # some routes read nothing, so that there is no wrong way to ask them
            with contextlib.suppress(Unsatisfiable):
                ask()
    assert asked >= requests


def raw(server: Served, requests: int) -> None:
    """Bytes that are no HTTP, or nearly; the server goes on, and answers with 4xx or closes the connection."""
    draw = random.Random(1)
    good = b'POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 18\r\n\r\n{"inputs": ["ba"]}'
    for _ in range(requests):
        content = bytearray(good)
        for _ in range(draw.randint(1, 8)):
            place = draw.randrange(len(content))
            content[place : place + draw.choice([0, 1, 1, 20])] = draw.choice(
                [bytes([draw.randrange(256)]), b"\r\n", b"\0", b"content-length: 99999999999999999999\r\n",
                 draw.randbytes(3), b"transfer-encoding: chunked\r\n",
                 b"x: " + b"y" * draw.choice([10, 9000, 70_000]) + b"\r\n"]
            )  # fmt: skip
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            patient, answer = draw.random() < 0.1, b""
            # it may close the connection at any time, and may wait for more where that could come
            with contextlib.suppress(ConnectionError, OSError if patient else ConnectionError):
                connection.sendall(content)
                if patient:
                    connection.settimeout(0.2)
                else:
                    _finish(connection)
                while part := connection.recv(1 << 16):
                    answer += part
        assert not answer or answer.split(b" ")[1][:1] in (b"2", b"4"), (bytes(content), answer)


def _finish(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has been closed
        connection.shutdown(socket.SHUT_WR)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_described_request_breaks_it(server: Served) -> None:
    described(server, SHORT)


def test_no_bytes_break_it(server: Served) -> None:
    raw(server, SHORT)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_described_request_of_very_many_breaks_it(server: Served) -> None:
    before = memory(server)
    described(server, LONG)
    assert memory(server) - before < 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_bytes_of_very_many_break_it(server: Served) -> None:
    raw(server, LONG)


def test_files_of_anything_are_refused_or_read(server: Served) -> None:
    draw = random.Random(2)
    for suffix in (".wav", ".npy", ".npz", "", ".tar.gz", ".\u202e"):
        files = {"file": (f"a{suffix}", draw.randbytes(draw.randint(0, 200)))}
        assert httpx.post(f"{server.url}/v1/files", files=files).status_code == 422


def memory(server: Served) -> float:
    """Resident megabytes of the server process."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
