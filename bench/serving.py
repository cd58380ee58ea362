"""How a server holds: speed beside offline batches, overload, memory, and health while it works.

    ANTIPHON_DATA=... python bench/serving.py [--parts speed,overload,memory] [--engines pytorch,int8] [--rounds 3]

`speed` answers sentences of Multi30k with the model of `bench/decoding.py`, by `Predictor.predict` and by a server with
64 clients that ask for one or four at a time and wait for the answer, both with one decoding process, for each engine:
`pytorch`, or what the model is exported to there, such as `fp32` and `int8` for CTranslate2. `overload` asks
four times as much as the server can answer, from clients that do not wait for each other, and watches its health.
`memory` is that of all processes at rest, after 1,000 and after 100,000 requests. A table on standard error, JSON on
standard output (or `--json FILE`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

from _clients import Client, Reply, Server, serving
from decoding import exported, trained
from peers.corpus import available, prepare
from peers.install import tell

CLIENTS, TIMES, QUIET = 64, 4, 8
OFFLINE = """
import json, sys, time
from pathlib import Path
from antiphon import Predictor, load
guesser = Predictor(load(sys.argv[1]), processes=1)
lines = Path(sys.argv[2]).read_text(encoding="utf-8").split("\\n")
list(guesser.predict(lines[:128]))
wall, cpu = time.perf_counter(), time.process_time()
count = len(list(guesser.predict(lines, batch_size=int(sys.argv[3]), window=int(sys.argv[4]))))
print(json.dumps({"rate": count / (time.perf_counter() - wall), "cpu_rate": count / (time.process_time() - cpu)}))
"""


def offline(model: Path, lines: list[str], batch: int, window: int) -> dict[str, float]:
    """Sentences a second in such batches, sorted within a window, in a fresh process with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.write_text("\n".join(lines), encoding="utf-8")
        command = [sys.executable, "-c", OFFLINE, str(model), str(source), str(batch), str(window)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found: dict[str, float] = json.loads(done.stdout)
    return found


async def closed(port: int, lines: Iterator[str], count: int, inputs: int = 1, **more: Any) -> list[Reply]:
    """So many requests by clients that each wait for their answer before they ask again."""
    replies: list[Reply] = []
    left = iter(range(count))

    async def one() -> None:
        client = Client(port)
        for _ in left:
            replies.append(await client.post("/v1/predict", {"inputs": list(islice(lines, inputs)), **more}))
        client.close()

    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    return replies


def online(server: Server, lines: list[str], inputs: int) -> dict[str, float]:
    """Sentences a second that clients are answered, and for each CPU second of the decoding process."""
    asyncio.run(closed(server.port, cycle(lines), 2 * CLIENTS))
    front, behind, begun = *server.cpu(), time.perf_counter()
    replies = asyncio.run(closed(server.port, cycle(lines), len(lines) // inputs, inputs))
    seconds, after = time.perf_counter() - begun, server.cpu()
    assert all(reply.status == 200 for reply in replies), Counter(reply.status for reply in replies)
    return {
        "rate": inputs * len(replies) / seconds, "cpu_rate": inputs * len(replies) / (after[1] - behind),
        "server_cpu_ms_a_request": 1000 * (after[0] - front) / len(replies),
        "p50": _quantile(replies, 0.5), "p99": _quantile(replies, 0.99),
    }  # fmt: skip


def speed(model: Path, lines: list[str], rounds: int, log: Path) -> dict[str, Any]:
    """All ways in turn; the share of offline is that of batches sorted by length, and of batches as they come."""
    runs: dict[str, list[dict[str, float]]] = {}

    def note(way: str, found: dict[str, float]) -> None:
        runs.setdefault(way, []).append(found)
        print(f"  {way}: {json.dumps(found)}", file=sys.stderr, flush=True)

    with serving(f"model={model}", "--processes", "1", log=log) as server:
        for _ in range(rounds):
            note("offline, sorted batches of 128", offline(model, lines, 128, 1024))
            note("server, 1 sentence a request", online(server, lines, 1))
            note("offline, batches of 64 as they come", offline(model, lines, 64, 64))
            note("server, 4 sentences a request", online(server, lines, 4))
    told: dict[str, Any] = {}
    for way, each in runs.items():
        told[way] = {name: _spread([run[name] for run in each]) for name in each[0]}
        for other in runs:
            if way.startswith("server") and other.startswith("offline"):
                pairs = list(zip(each, runs[other], strict=True))
                shares = {name: _spread([a[name] / b[name] for a, b in pairs]) for name in ("rate", "cpu_rate")}
                told[way][f"share of {other}"] = shares
    return told


def overload(model: Path, lines: list[str], seconds: float, log: Path) -> dict[str, Any]:
    """More than can be answered, from clients that come at their time whether or not others have been answered."""
    timeout = 10.0
    with serving(f"model={model}", "--processes", "1", "--timeout", str(timeout), log=log) as server:
        capacity = online(server, lines, 1)["rate"]
        print(f"  capacity {capacity:.0f} a second", file=sys.stderr, flush=True)
        replies, health = asyncio.run(_flood(server.port, lines, TIMES * capacity, seconds))
    statuses = Counter(reply.status for reply in replies)
    accepted = [reply for reply in replies if reply.status != 429]
    refused = [reply for reply in replies if reply.status == 429]
    answered = [reply for reply in replies if reply.status == 200]
    return {
        "seconds": seconds, "capacity": round(capacity), "asked": len(replies), "deadline": timeout,
        "statuses": dict(sorted(statuses.items())), "lost": statuses[0],
        "server_errors": sum(count for status, count in statuses.items() if status >= 500),
        "answered_share_of_capacity": round(len(answered) / seconds / capacity, 3),
        "accepted_p50": _quantile(accepted, 0.5), "accepted_p99": _quantile(accepted, 0.99),
        "refused_p50": _quantile(refused, 0.5), "refused_p99": _quantile(refused, 0.99),
        "with_retry_after": all("retry-after" in reply.headers for reply in refused),
        "health_p99": _quantile(health, 0.99), "health_max": _quantile(health, 1.0),
    }  # fmt: skip


async def _flood(port: int, lines: list[str], rate: float, seconds: float) -> tuple[list[Reply], list[Reply]]:
    """Requests at this rate, and the health that is asked for each tenth of a second meanwhile."""
    replies, health, free, tasks = list[Reply](), list[Reply](), list[Client](), set[asyncio.Task[None]]()
    source, begun = cycle(lines), time.perf_counter()

    async def one() -> None:
        client = free.pop() if free else Client(port)
        replies.append(await client.post("/v1/predict", {"inputs": [next(source)]}))
        free.append(client)

    async def look() -> None:
        client = Client(port)
        while time.perf_counter() - begun < seconds:
            health.append(await client.get("/healthz"))
            await asyncio.sleep(0.1)
        client.close()

    looking = asyncio.create_task(look())
    sent = 0
    while (passed := time.perf_counter() - begun) < seconds:
        for _ in range(int(passed * rate) - sent):
            tasks.add(asyncio.create_task(one()))
            sent += 1
        await asyncio.sleep(0.005)
    await asyncio.gather(looking, *tasks)
    for client in free:
        client.close()
    return replies, health


def memory(model: Path, lines: list[str], requests: int, log: Path) -> dict[str, Any]:
    """Megabytes after the first thousand requests, and after all of them, some seconds after the last answer."""

    def at_rest() -> float:
        time.sleep(QUIET)
        return round(server.memory(), 1)

    with serving(f"model={model}", "--processes", "1", log=log) as server:
        asyncio.run(closed(server.port, cycle(lines), 1000, beam=1))
        course = {1000: at_rest()}
        while max(course) < requests:
            more = min(9000 if max(course) < 10_000 else 10_000, requests - max(course))
            asyncio.run(closed(server.port, cycle(lines), more, beam=1))
            course[max(course) + more] = at_rest()
            print(f"  {max(course):,} requests: {course[max(course)]} MB", file=sys.stderr, flush=True)
    growth = 100 * (course[max(course)] / course[1000] - 1)
    return {"megabytes": course, "growth_percent": round(growth, 2)}


def _quantile(replies: list[Reply], share: float) -> float:
    ordered = sorted(reply.seconds for reply in replies)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4) if ordered else 0.0


def _spread(values: list[float]) -> dict[str, float]:
    return {"best": round(max(values), 3), "median": round(median(values), 3)}


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="speed,overload,memory")
    parser.add_argument("--engines", default="pytorch,int8", help="of the part on speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--requests", type=int, default=100_000, help="of the part on memory")
    parser.add_argument("--steps", type=int, default=1200, help="that the model is trained for")
    parser.add_argument("--json", type=Path, help="write the JSON here and not to standard output")
    given = parser.parse_args()
    if not available():
        return 0
    model = trained(given.steps)
    lines = (prepare() / "test.en").read_text(encoding="utf-8").split("\n")[: given.sentences]
    lines = [line for line in lines if line]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in given.parts.split(","):
            log = Path(folder) / f"{part}.log"
            if part == "speed":
                engines = {name: model if name == "pytorch" else exported(given.steps, name)
                           for name in given.engines.split(",")}  # fmt: skip
                found[part] = {name: speed(path, lines, given.rounds, log) for name, path in engines.items()}
            elif part == "overload":
                found[part] = overload(model, lines, given.seconds, log)
            else:
                short = sorted(lines, key=len)[: len(lines) // 4]
                found[part] = memory(model, short, given.requests, log)
    tell(found, "\n".join(f"{part}: {json.dumps(told)}" for part, told in found.items()), given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
