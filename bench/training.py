"""Training speed beside the peers, on the same data with models of the same sizes, in interleaved runs.

    ANTIPHON_DATA=... python bench/training.py [--models t128,lstm] [--peers opennmt,eole] [--rounds 3] [--seconds 10]
    ANTIPHON_DATA=... python bench/training.py --ladder       what each of our tricks pays
    ANTIPHON_DATA=... python bench/training.py --parity       the same loss as the plain reference, and as fp32

Multi30k English to German in the pieces of one joint BPE; dropout 0.3, label smoothing 0.1, tied embeddings, Adam,
about 4,096 target tokens a batch, or what is faster for a peer. Each run is a process of its own that trains some steps
before it measures. Tokens are those of source and target with one end mark a side, padding left out; CPU seconds are
those of the process and all under it. A table on standard error, JSON on standard output (or in a file, `--json`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from peers.corpus import available, prepare
from peers.install import drive, spread, tell

MODELS: dict[str, dict[str, Any]] = {
    "t128": {"kind": "transformer", "layers": 4, "width": 128, "feedforward": 256, "heads": 4},
    "t256": {"kind": "transformer", "layers": 3, "width": 256, "feedforward": 1024, "heads": 4},
    **{
        f"{kind}{layers if layers > 1 else ''}": {
            "kind": kind, "layers": layers, "width": 256, "feedforward": 0, "heads": 4,
        }
        for layers in (1, 2) for kind in ("lstm", "gru")
    },
}  # fmt: skip
WITHOUT_RECURRENT = ("transformers", "sockeye")
CONTENDERS = ("transformers", "opennmt", "eole", "joeynmt", "sockeye", "yoyodyne", "fairseq")
ONE_PROCESS = {"training.processes": 1, "training.threads": 2}
OURS: dict[str, dict[str, Any]] = {
    "ours": {"precision": "fp32"}, "ours-bf16": {"precision": "bf16"},
    "ours-threads": {"precision": "fp32", "settings": ONE_PROCESS},
}  # fmt: skip
"""As chosen, in bf16, and in one process of two threads, which takes less memory."""
TASK = {"batch_tokens": 4096, "dropout": 0.3, "smoothing": 0.1, "rate": 1e-3}
PATIENCE = 600
"""Seconds that a run may take beyond what it measures."""


def run(name: str, model: str, threads: int, given: argparse.Namespace, **extra: Any) -> dict[str, Any]:
    """One measurement in a fresh process: what the driver printed and the rates, or `error`."""
    place = "ours" if name in OURS else name
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as folder:
        task = {
            **TASK, **OURS.get(name, {}), "data": str(prepare()), "folder": folder, "model": MODELS[model],
            "threads": threads, "warmup": given.warmup, "seconds": given.seconds, **extra,
        }  # fmt: skip
        found = drive(place, "drive.py", task, given.seconds + PATIENCE)
    if "error" in found:
        return found
    return {**found, "wall_rate": found["tokens"] / found["wall"], "cpu_rate": found["tokens"] / found["cpu"]}


def contenders(model: str, given: argparse.Namespace) -> list[str]:
    """Who takes part, those without such a model left out."""
    asked = [*given.ours.split(","), *given.peers.split(",")]
    transformer = MODELS[model]["kind"] == "transformer"
    return [name for name in asked if name and (transformer or name not in WITHOUT_RECURRENT)]


def compare(model: str, threads: int, given: argparse.Namespace) -> dict[str, Any]:
    """Everybody in turn, so many rounds; who failed once is not tried again."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders(model, given)}
    failed: dict[str, str] = {}
    for _ in range(given.rounds):
        for name in [name for name in runs if name not in failed]:
            found = run(name, model, threads, given)
            if "error" in found:
                failed[name] = found["error"]
            else:
                runs[name].append(found)
            told = found.get("error") or f"{found['wall_rate']:,.0f} tok/s, {found['cpu_rate']:,.0f} per CPU-s"
            print(f"  {model}, {threads} threads, {name}: {told}", file=sys.stderr, flush=True)
    whole = {name: found for name, found in runs.items() if name not in failed}
    return {
        "model": model, "threads": threads, "missing": failed,
        "results": {name: spread(found) for name, found in whole.items()}, "ratios": ratios(whole), "runs": whole,
    }  # fmt: skip


def ratios(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """How many times as fast as each peer, and as the fastest peer of each round: the median of the rounds."""
    ours, peers = [name for name in runs if name in OURS], [name for name in runs if name not in OURS]
    told: dict[str, Any] = {}
    for name in ours:
        for rate in ("wall_rate", "cpu_rate"):
            mine = [run[rate] for run in runs[name]]
            rivals = {peer: [run[rate] for run in runs[peer]] for peer in peers}
            if rivals:
                rivals["fastest"] = [max(each) for each in zip(*rivals.values(), strict=True)]
            told.setdefault(name, {})[rate] = {
                peer: round(median(a / b for a, b in zip(mine, theirs, strict=True)), 2)
                for peer, theirs in rivals.items()
            }
    return told


def table(results: list[dict[str, Any]]) -> str:
    """For people, in Markdown."""
    lines = []
    for result in results:
        lines += [
            f"\n{result['model']}, {'both cores' if result['threads'] > 1 else 'one core'}", "",
            "| | tok/s, median (best) | per CPU-s, median (best) | peak MB | ours is x times as fast: wall | CPU |",
            "|---|---|---|---|---|---|",
        ]  # fmt: skip
        mine = result["ratios"].get("ours", {})
        for name, told in result["results"].items():
            rates = [f"{told[f'{rate}_median']:,} ({told[f'{rate}_best']:,})" for rate in ("wall_rate", "cpu_rate")]
            times = [str(mine.get(rate, {}).get(name, "")) for rate in ("wall_rate", "cpu_rate")]
            lines.append(f"| {name} | {rates[0]} | {rates[1]} | {told['peak_mb']:,} | {times[0]} | {times[1]} |")
        lines += [f"| {name} | failed: {why} | | | | |" for name, why in result["missing"].items()]
        for name, told in result["ratios"].items():
            fastest = [told[rate].get("fastest", "-") for rate in ("wall_rate", "cpu_rate")]
            lines.append(f"\n{name} against the fastest peer of each round: wall {fastest[0]}x, CPU {fastest[1]}x")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--peers", default=",".join(CONTENDERS), help="those to compare with; empty for none")
    parser.add_argument("--ours", default=",".join(OURS))
    parser.add_argument("--threads", default="2,1", help="CPU threads; more than one leaves their use to us")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=8, help="steps before measuring")
    parser.add_argument("--seconds", type=float, default=10, help="of wall time that each run measures")
    parser.add_argument("--json", type=Path, help="write the JSON here and not to standard output")
    parser.add_argument("--ladder", action="store_true", help="our t128 with each trick switched off in turn")
    parser.add_argument("--parity", action="store_true", help="losses beside those of the plain reference and of bf16")
    parser.add_argument("--steps", type=int, help="of --parity; one epoch where not given")
    return parser.parse_args()


def main() -> int:
    """Measure what was asked for."""
    given = arguments()
    if not available():
        return 0
    if given.ladder or given.parity:
        from peers.ours import tricks

        result, text = (tricks.ladder if given.ladder else tricks.parity)(given, run)
    else:
        threads = [int(count) for count in given.threads.split(",")]
        results = [compare(model, count, given) for count in threads for model in given.models.split(",")]
        result, text = {"rounds": given.rounds, "seconds": given.seconds, "comparisons": results}, table(results)
    tell(result, text, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
