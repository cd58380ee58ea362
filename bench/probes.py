"""What probes cost a run: CPU time with and without them, in interleaved runs, and what each kind takes of it.

    ANTIPHON_DATA=... python bench/probes.py [--models t128,lstm] [--pairs 29000] [--steps 410] [--rounds 3]

Multi30k English to German, one process of one thread, fp32, a validation each epoch. Each run is a process of its own;
CPU seconds are those from the first step to the end, validation included. `share` is the CPU time inside probes over
that of the rest of the same run, which one run tells to a tenth of a percent; `ratio` compares runs with probes to
those without in turn, which the noise of a shared machine blurs. A table on standard error, JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

MODELS = {
    "t128": {"kind": "transformer", "layers": 4, "width": 128, "feedforward": 256},
    "lstm": {"kind": "lstm", "layers": 1, "width": 256, "feedforward": 0},
}
TINY = {"kind": "gru", "layers": 1, "width": 32, "feedforward": 32}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--pairs", type=int, default=29_000)
    parser.add_argument("--steps", type=int, default=410)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "ON"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], options.one[1] == "on", options.pairs, options.steps)))
        return
    results = [compared(model, options) for model in options.models.split(",")]
    print(table(results), file=sys.stderr)
    print(json.dumps({"pairs": options.pairs, "steps": options.steps, "results": results}, indent=1))


def compared(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs with and without in turn."""
    runs: dict[str, list[dict[str, Any]]] = {"on": [], "off": []}
    for number in range(options.rounds):
        for how in ("on", "off") if number % 2 else ("off", "on"):
            command = [sys.executable, __file__, "--one", model, how,
                       "--pairs", str(options.pairs), "--steps", str(options.steps)]  # fmt: skip
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            runs[how].append(json.loads(done.stdout))
            print(f"  {model} {how}: {runs[how][-1]}", file=sys.stderr, flush=True)
    seconds = {how: [run["cpu"] for run in each] for how, each in runs.items()}
    ratios = [on / off for on, off in zip(seconds["on"], seconds["off"], strict=True)]
    return {
        "model": model, "cpu_best": {how: min(each) for how, each in seconds.items()},
        "cpu_median": {how: median(each) for how, each in seconds.items()},
        "ratio_of_best": round(min(seconds["on"]) / min(seconds["off"]), 4), "ratio_median": round(median(ratios), 4),
        "share_median": round(median(run["share"] for run in runs["on"]), 4), "runs": runs,
    }  # fmt: skip


def one(model: str, probes: bool, pairs: int, steps: int) -> dict[str, Any]:
    """One run: CPU seconds, and which part of them went into what of the probes."""
    from antiphon.training.observers import Observer
    from antiphon.training.start import fit

    folder, spent = Path(os.environ.get("ANTIPHON_DATA", "data"), "multi30k"), measured()
    lines = [folder.joinpath(f"train.{side}").read_text(encoding="utf-8").split("\n")[:pairs] for side in ("en", "de")]
    held = [folder.joinpath(f"val.{side}").read_text(encoding="utf-8").split("\n")[:-1] for side in ("en", "de")]

    class Clock(Observer):
        """CPU time from the first step to the end."""

        def started(self, event: Any) -> None:
            self.begun = time.process_time()

        def finished(self, event: Any) -> None:
            self.cpu = time.process_time() - self.begun

    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as run:
        fit(list(zip(*lines, strict=True)), valid=list(zip(*held, strict=True)), out=Path(run, "run"),
            observers=[clock := Clock()], assignments={**settings(model), "training.steps": steps,
                                                       "training.probes": probes})  # fmt: skip
    inside = sum(spent.values())
    share = inside / (clock.cpu - inside)
    return {
        "cpu": round(clock.cpu, 2),
        "share": share,
        "spent": {name: round(value, 3) for name, value in spent.items()},
    }


def settings(model: str) -> dict[str, Any]:
    """Of a translation model of that size."""
    sizes = {**MODELS, "tiny": TINY}[model]
    halves = {f"model.{half}.{key}": sizes[key] for half in ("encoder", "decoder") for key in ("kind", "layers")}
    return {**halves, "model.width": sizes["width"], "model.feedforward": sizes["feedforward"],
            "data.source.vocabulary": 8000, "data.target.vocabulary": 8000, "data.batch_tokens": 4096,
            "training.processes": 1, "training.threads": 1, "training.precision": "fp32", "training.patience": 0,
            "training.metric": "loss"}  # fmt: skip


def measured() -> dict[str, float]:
    """CPU seconds inside each part of the probes, from now on. What is inside another part counts there alone."""
    from antiphon.training.probes.activations import Activations
    from antiphon.training.probes.watch import Probes

    spent: dict[str, float] = {}

    def timed(kind: type, name: str) -> None:
        right: Callable[..., Any] = getattr(kind, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            begun, before = time.process_time(), sum(spent.values())
            found = right(*arguments, **named)
            within = sum(spent.values()) - before
            spent[name] = spent.get(name, 0.0) + time.process_time() - begun - within
            return found

        setattr(kind, name, wrapped)

    for name in ("_worth", "step", "validated", "_layers", "_again", "_held_out", "_copied"):
        timed(Probes, name)
    for name in ("__init__", "_see"):
        timed(Activations, name)
    return spent


def table(results: list[dict[str, Any]]) -> str:
    """For people, in Markdown."""
    lines = ["| model | CPU s off, best (median) | on, best (median) | on / off, best (median) | inside probes |",
             "|---|---|---|---|---|"]  # fmt: skip
    for each in results:
        off, on = (f"{each['cpu_best'][how]:.1f} ({each['cpu_median'][how]:.1f})" for how in ("off", "on"))
        ratio = f"{each['ratio_of_best']:.3f} ({each['ratio_median']:.3f})"
        lines.append(f"| {each['model']} | {off} | {on} | {ratio} | {each['share_median']:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
