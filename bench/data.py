"""How fast the data side is against what training takes: every stage from the files to a padded batch, in CPU seconds.

    ANTIPHON_DATA=... python bench/data.py [--rounds 3] [--training 40000]

Multi30k with the settings that the recipe proposes. Tokens are source and target subwords with their end marks, as
training counts them; `times` is how often a stage feeds training at the given speed on one core. JSON on standard
output: best of several rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from antiphon.core.config import Config
from antiphon.data.batching import Loader, plan
from antiphon.data.corpus import open_pairs
from antiphon.data.report import Report
from antiphon.data.store import prepare
from antiphon.inference.task import Task
from antiphon.training.recipes import propose
from antiphon.training.statistics import Statistics

RATE, SAMPLED_BATCHES = 0.1, 60
"""The rate of BPE dropout, and the batches it is measured on."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--training", type=float, default=40_000, help="tokens a second that training takes")
    options = parser.parse_args()
    folder = Path(os.environ.get("ANTIPHON_DATA", "data"), "multi30k")
    print(json.dumps(measure(folder, options.rounds, options.training), indent=1))


def measure(folder: Path, rounds: int, training: float) -> dict[str, Any]:
    """Tokens a CPU second of each stage."""
    corpus = open_pairs(f"{folder}/train.en,{folder}/train.de", Config().data)
    pairs = list(corpus)
    config, _ = propose(Config(task="translation"), Statistics.of(pairs))
    task, report = Task.learn(corpus, config), Report()
    encode = partial(task.encode, report=report)
    store = prepare(pairs, encode, ids_below=1 << 16, keep_text=True)
    lengths = store.source_lengths, store.target_lengths
    batches = plan(*lengths, config.data.batch_tokens or 4096, 1, 0)
    some = batches[:SAMPLED_BATCHES]
    tokens = int(lengths[0].sum() + lengths[1].sum())
    few = int(sum(store.source_lengths[rows].sum() + store.target_lengths[rows].sum() for rows in some))
    stages: dict[str, tuple[Callable[[], object], int]] = {
        "read and check": (lambda: list(corpus), tokens),
        "encode": (lambda: [encode(pair) for pair in pairs], tokens),
        "read, check, encode and store": (lambda: prepare(corpus, encode, ids_below=1 << 16), tokens),
        "plan an epoch": (lambda: plan(*lengths, config.data.batch_tokens or 4096, 1, 0), tokens),
        "make batches": (lambda: list(Loader(store, batches)), tokens),
        "make batches, BPE dropout": (lambda: list(Loader(store, some, encode=sampling(task).sampled)), few),
    }
    speeds = {name: count / best(stage, rounds) for name, (stage, count) in stages.items()}
    return {
        "pairs": len(pairs), "tokens": tokens, "training": training,
        "stages": {name: {"tokens_per_cpu_second": round(speed), "times": round(speed / training, 1)}
                   for name, speed in speeds.items()},
    }  # fmt: skip


def sampling(task: Task) -> Task:
    """The task with subword sampling on both sides."""
    source, target = (replace(text, side=replace(text.side, sampling=RATE)) for text in (task.source, task.target))
    return replace(task, source=source, target=target)


def best(stage: Callable[[], object], rounds: int) -> float:
    """The fewest CPU seconds of several."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        stage()
        seconds.append(time.process_time() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
