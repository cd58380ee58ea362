"""Kill -9 at random moments of training, resume, and compare every bit with a run that was left alone.

python bench/kill.py [--kills 20] [--families rnn lstm ...] [--precision fp32] [--steps 60] [--seed 1]

Kills are tied to what a save does (each sync and each rename), plus a few random milliseconds, so that they fall
inside saves as often as between them. Dropout, subword sampling and early stopping are on. Prints JSON; exit code 1 if
any run ended otherwise than its twin.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import torch._dynamo  # noqa: F401  (an optimizer imports it; here once for all children)

from antiphon.core.machine import probe
from antiphon.training.start import fit, resume
from runs import SMALL, outcome, words

FAMILIES = ("rnn", "lstm", "gru", "conv", "transformer", "ssru")
EVENTS = 90
"""A kill comes after at most so many events; a step with its save has about fifteen."""


def settings(family: str, precision: str, steps: int) -> dict[str, Any]:
    """A short run with everything on that draws random numbers or counts."""
    encoder = "gru" if family == "ssru" else family
    return {
        **SMALL, "model.encoder.kind": encoder, "model.decoder.kind": family, "training.precision": precision,
        "model.attention": "multihead" if family in ("transformer", "ssru") else "additive",
        "model.dropout": 0.2, "model.dropout_word": 0.05, "data.source.tokenizer": "bpe", "data.source.vocabulary": 30,
        "data.source.sampling": 0.2, "training.metric": "cer", "training.patience": 4, "training.validate_every": 6,
        "training.ema": 0.9, "training.steps": steps, "training.schedule": "cosine", "training.accumulate": 2,
    }  # fmt: skip


def tell_events(pipe: int) -> None:
    """Write a byte at each sync and rename of this process."""
    for name in ("fsync", "rename"):
        original = getattr(os, name)

        def told(*arguments: Any, original: Callable[..., Any] = original) -> Any:
            os.write(pipe, b".")
            return original(*arguments)

        setattr(os, name, told)


def train(run: Path, assignments: dict[str, Any]) -> None:
    """Begin, or go on; a checkpoint after every step."""
    if (run / "config.json").exists():
        resume(run, save_seconds=0.0)
    else:
        fit(words(60), out=run, assignments=assignments, save_seconds=0.0)


def child(run: Path, assignments: dict[str, Any]) -> tuple[int, int]:
    """A process that trains; its number, and the reading end of its events."""
    reading, writing = os.pipe()
    number = os.fork()
    if number:
        os.close(writing)
        return number, reading
    code = 1
    try:
        os.close(reading)
        tell_events(writing)
        train(run, assignments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def kill_after(number: int, reading: int, events: int, delay: float) -> int | None:
    """Kill the child after so many events; its exit code if it ended before that, else None."""
    seen = 0
    while seen < events:
        got = len(os.read(reading, events - seen))
        if not got:
            break
        seen += got
    else:
        time.sleep(delay)
    os.kill(number, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(number, 0)
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def torment(family: str, given: argparse.Namespace, draw: random.Random, folder: Path) -> dict[str, Any]:
    """Twin runs of a family: one whole, others killed again and again until there were enough kills."""
    kills, assignments = given.kills, settings(family, given.precision, given.steps)
    whole = folder / "whole"
    number, reading = child(whole, assignments)
    code = kill_after(number, reading, 10**9, 0)
    if code != 0:
        return {"family": family, "error": f"the whole run ended with {code}"}
    expected, counts = outcome(whole), {"kills": 0, "runs": 0, "unloadable": 0, "different": 0}
    while counts["kills"] < kills:
        run = folder / f"run-{counts['runs']}"
        code = None
        while code is None:
            enough = counts["kills"] >= kills
            number, reading = child(run, assignments)
            events = 10**9 if enough else draw.randint(1, EVENTS)
            code = kill_after(number, reading, events, draw.random() * 0.03)
            counts["kills"] += code is None
        counts["runs"] += 1
        counts["unloadable"] += code != 0
        counts["different"] += code == 0 and outcome(run) != expected
    same = not counts["unloadable"] and not counts["different"]
    return {"family": family, "precision": given.precision, **counts, "identical": same}


def main() -> int:
    """All families."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each family")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=60, help="of each run")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    probe()  # once for all children: a run that is killed before its first save measures the machine anew
    draw, begun, results = random.Random(given.seed), time.monotonic(), []
    for family in given.families:
        folder = Path(tempfile.mkdtemp(prefix="antiphon-kill-"))
        try:
            results.append(torment(family, given, draw, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    good = all(result.get("identical") for result in results)
    seconds = round(time.monotonic() - begun, 1)
    print(json.dumps({"seed": given.seed, "identical": good, "seconds": seconds, "families": results}, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
