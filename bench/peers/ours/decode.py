"""Decodes with Antiphon's `Predictor`, as its users do; a task may ask for a `profile` and not for speed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

import torch
from meter import Stopwatch, operations, read_task
from torch.profiler import ProfilerActivity, profile

from antiphon.core.keys import override
from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor


def main() -> None:
    """Decode the test part once to warm up and once on the clock."""
    task = read_task()
    torch.set_num_threads(task["threads"])
    predictor = Predictor(load(Path(task["run"])), processes=task["threads"])
    length = task.get("length")
    limits = {"decoding.min_length": length, "decoding.max_length": length} if length else {}
    thorough = task["engine"] == "ours-thorough"
    settings = override(
        predictor.config, {"decoding.beam": task.get("beam", 5), "decoding.thorough": thorough, **limits}
    ).decoding
    lines = Path(task["source"]).read_text(encoding="utf-8").split("\n")[:-1]
    list(predictor.predict(lines[:: len(lines) // 64], settings=settings, batch_size=task["batch"]))

    def answers() -> list[str]:
        told = predictor.predict(lines, settings=settings, batch_size=task["batch"], details=False)
        return [found[0].text for found in told]

    if task.get("profile"):
        profiled(answers)
    else:
        watch = Stopwatch()
        watch.report(answers())


def profiled(answers: Callable[[], list[str]]) -> None:
    """Print what time went into, by operation."""
    begun = time.process_time()
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiler:
        count = len(answers())
    print("\n" + json.dumps({"operations": operations(profiler), "rate": count / (time.process_time() - begun)}))


if __name__ == "__main__":
    main()
