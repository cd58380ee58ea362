"""Decodes with Antiphon's `Predictor`, as its users do."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

import torch
from meter import Stopwatch, read_task

from antiphon.core.config import override
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
    settings = override(predictor.config, {"decoding.beam": 5, "decoding.thorough": thorough, **limits}).decoding
    lines = Path(task["source"]).read_text(encoding="utf-8").split("\n")[:-1]
    list(predictor.predict(lines[:: len(lines) // 64], settings=settings, batch_size=task["batch"]))
    watch = Stopwatch()
    told = predictor.predict(lines, settings=settings, batch_size=task["batch"], details=False)
    found = [answers[0].text for answers in told]
    watch.report(found)


if __name__ == "__main__":
    main()
