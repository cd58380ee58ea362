"""What every driver shares: how speed and memory are measured. Standard library alone, for it runs in each peer's venv.

A driver is a script that reads a task (one JSON file, see `bench/training.py`), trains as the peer's users would, and
calls `Meter.step` after every optimizer step. After a warm-up it measures for a while, prints a line of JSON and ends.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

TICKS = os.sysconf("SC_CLK_TCK")


def read_task() -> dict[str, Any]:
    """The task named on the command line."""
    return json.loads(Path(sys.argv[1]).read_text())


class Meter:
    """Tokens, wall and CPU seconds from the end of the warm-up on, for this process and all under it."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.warmup, self.seconds, self.most = task["warmup"], task["seconds"], task.get("steps") or 10**9
        self.steps = self.tokens = self.words = 0
        self.loss = 0.0
        self.begun = self.cpu = 0.0

    def step(self, tokens: int, loss: float = 0.0, words: int = 1) -> None:
        """An optimizer step over so many real tokens (source and target); its loss a target token, and how many."""
        self.steps += 1
        if self.steps > self.warmup:
            self.tokens, self.words, self.loss = self.tokens + tokens, self.words + words, self.loss + loss * words
            if time.perf_counter() - self.begun >= self.seconds or self.steps - self.warmup >= self.most:
                self.report()
        elif self.steps == self.warmup:
            self.begun, self.cpu = time.perf_counter(), cpu_seconds()

    def report(self) -> NoReturn:
        """Print what was measured, and end this process at once with all under it."""
        wall, cpu = time.perf_counter() - self.begun, cpu_seconds() - self.cpu
        result = {
            "tokens": self.tokens, "wall": wall, "cpu": cpu, "steps": self.steps - self.warmup,
            "loss": self.loss / max(1, self.words), **memory(),
        }  # fmt: skip
        print("\n" + json.dumps(result), flush=True)
        for child in family()[1:]:
            os.kill(child, 9)
        os._exit(0)


def watch_statistics(trainer: Any, meter: Meter, words: str, sources: str) -> None:
    """Tell the meter of each step of a trainer such as OpenNMT's, from the statistics that it reports.

    `words` and `sources` are what it calls the tokens of both sides; an end mark a source is counted as for all.
    """
    seen = {words: 0, sources: 0, "loss": 0.0}

    def report(self: Any, step: int, steps: int, rate: float, stats: Any) -> Any:
        now = {words: getattr(stats, words), sources: getattr(stats, sources) + stats.n_sents, "loss": stats.loss}
        targets, others, loss = (now[name] - seen[name] for name in seen)
        seen.update(now)
        meter.step(int(targets + others), loss / max(1, targets), int(targets))
        return stats

    trainer._maybe_report_training = report


class Stopwatch:
    """Wall and CPU seconds of decoding, from its making on."""

    def __init__(self) -> None:
        self.begun, self.cpu = time.perf_counter(), cpu_seconds()

    def report(self, answers: list[str]) -> None:
        """Print what was measured, and the answers as pieces between spaces."""
        wall, cpu = time.perf_counter() - self.begun, cpu_seconds() - self.cpu
        print("\n" + json.dumps({"wall": wall, "cpu": cpu, **memory(), "answers": answers}), flush=True)


def operations(profiler: Any) -> dict[str, Any]:
    """Of each operation that PyTorch's profiler saw the seconds that it took by itself, its calls and FLOPs."""
    return {
        row.key: {"seconds": row.self_cpu_time_total / 1e6, "calls": row.count, "flops": row.flops}
        for row in profiler.key_averages()
    }


def family() -> list[int]:
    """This process and all that it began, directly or not."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        fields = _fields(path)
        if fields:
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [os.getpid()]
    for process in found:
        found += parents.get(process, [])
    return found


def cpu_seconds() -> float:
    """User and system time of the family, its dead members included."""
    if not Path("/proc/self/stat").exists():
        return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    fields = (_fields(Path(f"/proc/{process}/stat")) for process in family())
    return sum(sum(map(int, each[11:15])) for each in fields if each) / TICKS


def memory() -> dict[str, float]:
    """`peak_mb`: the most that each process held, summed; pages of files and shared ones count in the first alone."""
    if not Path("/proc/self/status").exists():
        return {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20), "processes": 1}
    found = [held for process in family() if (held := _held(process))]
    peak = sum(held["VmHWM"] for held in found)
    twice = sum(held["RssFile"] + held["RssShmem"] for held in found[1:])
    return {"peak_mb": round((peak - twice) / 1024), "processes": len(found)}


def _fields(path: Path) -> list[str]:
    """The fields of a stat file from the state on; nothing if the process has gone."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _held(process: int) -> dict[str, int]:
    """Kilobytes of memory by kind; nothing if the process has gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmHWM", "Rss"))}
