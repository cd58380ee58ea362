"""Forecasts of real series beside a seasonal naive forecast and ARIMA (statsmodels), by rolling origin.

    python bench/forecasting.py [--sets sunspots,co2,macro] [--seeds 1,2,3] [--threads 1] [--out FOLDER] [key=value ...]

Sunspots a year (11 steps ahead), CO2 at Mauna Loa a month (12), and twelve quarterly series of the economy (4): they
come with statsmodels, which is installed into an environment of its own the first time. For each set `antiphon train`
makes one model, with no settings but `--task forecasting`, of windows that end before the first origin, the latest of
them held out; from each of the last origins it then forecasts with `antiphon predict`, by 200 drawn paths. ARIMA is one
model a series, its order chosen by AIC; it is fitted before the first origin too, and then told what came. Errors and
CRPS of each series are divided by its mean seasonal naive error before the first origin, which makes the first MASE.
JSON on standard output: the mean over series, origins and steps, for each seed, and of all seeds as an ensemble.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _commands import antiphon

from antiphon.core.numbers import Forecast, spell
from antiphon.metrics import get

PEER = Path(__file__).parent / "peers" / "statsmodels"
PATHS = 200


@dataclass(frozen=True)
class Plan:
    """A set's steps of a season, ahead and to read, its origins and how far apart they are, and orders of ARIMA."""

    season: int
    horizon: int
    context: int
    origins: int
    apart: int = 1
    orders: list[list[int]] = field(default_factory=list)


PLANS = {
    "sunspots": Plan(11, 11, 44, 40, 1, [[p, d, q, 0, 0, 0, 0] for p in (2, 3, 9) for d in (0, 1) for q in (0, 1)]),
    "co2": Plan(12, 12, 60, 48, 2, [[p, 1, 1, P, 1, 1, 12] for p in (0, 1) for P in (0, 1)]),
    "macro": Plan(1, 4, 24, 32, 1, [[p, 1, q, 0, 0, 0, 0] for p in (0, 1, 2) for q in (0, 1)]),
}


def statsmodels(request: dict[str, Any]) -> Any:
    """What its script answers, in an environment that is made the first time."""
    python, pins = PEER / ".venv/bin/python", PEER / "requirements.txt"
    if not python.exists():
        print(f"installing statsmodels into {PEER / '.venv'}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(PEER / ".venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-qq", "-r", str(pins)], check=True)
    done = subprocess.run([str(python), str(PEER / "run.py")], input=json.dumps(request), text=True, check=True,
                          stdout=subprocess.PIPE)  # fmt: skip
    return json.loads(done.stdout)


def origins(plan: Plan, length: int) -> list[int]:
    """Where forecasts begin, the last one a horizon before the end."""
    last = length - plan.horizon
    return [last - plan.apart * back for back in reversed(range(plan.origins))]


def windows(plan: Plan, values: np.ndarray, first: int) -> tuple[list[str], list[str]]:
    """Pairs of all windows before the first origin: those to train on, and the latest, whose targets these do not reach
    into."""
    held = max(plan.horizon, (first - plan.context) // 8)
    train, valid = [], []
    for start in range(first - plan.context - plan.horizon + 1):
        middle, end = start + plan.context, start + plan.context + plan.horizon
        line = "\t".join(spell(values[a:b, None]) for a, b in ((start, middle), (middle, end)))
        if end <= first - held:
            train.append(line)
        elif middle >= first - held:
            valid.append(line)
    return train, valid


def judged(plan: Plan, known: np.ndarray, forecasts: Sequence[Forecast], actual: Sequence[np.ndarray]) -> np.ndarray:
    """Mean absolute error and CRPS by the size of the seasonal naive error, summed over steps; and the steps."""
    size = np.abs(known[plan.season :] - known[: -plan.season]).mean()
    both = [get("mae"), get("crps")]
    return np.array([
        [(metric.stats(said, [spell(right[:, None])]) / [size, 1]) for metric in both]  # type: ignore[arg-type]
        for said, right in zip(forecasts, actual, strict=True)
    ]).sum(axis=0)  # fmt: skip


def naive(plan: Plan, values: np.ndarray, begins: Sequence[int]) -> Iterator[Forecast]:
    """What was a season before, its deviation growing with the seasons between (Hyndman and Athanasopoulos 2021)."""
    known = values[: begins[0]]
    deviation = (known[plan.season :] - known[: -plan.season]).std()
    step = np.arange(plan.horizon)
    for begin in begins:
        said = values[begin - plan.season : begin][step % plan.season]
        yield Forecast(said[:, None], deviation_TF=(deviation * (1 + step // plan.season) ** 0.5)[:, None])


def arima(plan: Plan, values: np.ndarray, begins: list[int]) -> tuple[list[Forecast], list[int]]:
    """Its forecasts, and the order that was chosen."""
    found = statsmodels({"values": values.tolist(), "origins": begins, "horizon": plan.horizon, "orders": plan.orders})
    both = [[np.array(each)[:, None] for each in row] for row in found["forecasts"]]
    return [Forecast(mean, deviation_TF=deviation) for mean, deviation in both], found["order"]


def ours(model: str, sources: Path, threads: int) -> list[Forecast]:
    """What a model, or several with commas between, says of each line of a file."""
    words = ["predict", model, str(sources), "--jsonl", "sample=true", f"samples={PATHS}"]
    rows = [json.loads(line)["answers"][0] for line in antiphon(*words, threads=threads).output.splitlines()]
    return [Forecast(np.array(row["values"]), paths=[np.array(path) for path in row["paths"]]) for row in rows]


def mean(parts: Sequence[np.ndarray]) -> dict[str, float]:
    """MASE and scaled CRPS over all series."""
    (error, steps), (crps, _) = np.sum(parts, axis=0)
    return {"mase": round(error / steps, 3), "crps": round(crps / steps, 3)}


def measure(name: str, series: dict[str, list[float]], out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All contenders on one set."""
    plan, files = PLANS[name], {part: out / f"{name}.{part}" for part in ("train.tsv", "valid.tsv", "sources.txt")}
    values = {key: np.asarray(numbers) for key, numbers in series.items()}
    begins = {key: origins(plan, len(each)) for key, each in values.items()}
    pairs = [windows(plan, each, begins[key][0]) for key, each in values.items()]
    lines = {part: [line for each in pairs for line in each[place]] for place, part in enumerate(files) if place < 2}
    lines["sources.txt"] = [spell(each[begin - plan.context : begin, None]) for key, each in values.items()
                            for begin in begins[key]]  # fmt: skip
    for part, path in files.items():
        path.write_text("\n".join(lines[part]) + "\n", encoding="utf-8")

    def judge(said: dict[str, Sequence[Forecast]]) -> dict[str, float]:
        return mean([judged(plan, values[key][: begins[key][0]], said[key],
                            [values[key][begin : begin + plan.horizon] for begin in begins[key]])
                     for key in values])  # fmt: skip

    found: dict[str, Any] = {"series": len(values), "windows": len(lines["train.tsv"]), "horizon": plan.horizon,
                             "origins": plan.origins}  # fmt: skip
    found["seasonal naive"] = judge({key: list(naive(plan, each, begins[key])) for key, each in values.items()})
    chosen = {key: arima(plan, each, begins[key]) for key, each in values.items()}
    found["arima"] = judge({key: said for key, (said, _) in chosen.items()})
    found["arima"]["orders"] = {key: "".join(map(str, order)) for key, (_, order) in chosen.items()}
    runs = []
    for seed in options.seeds.split(","):
        begun, run = time.monotonic(), str(out / f"{name}.{seed}")
        words = ["train", str(files["train.tsv"]), "--valid", str(files["valid.tsv"]), "--task", "forecasting"]
        done = antiphon(*words, "--out", run, f"training.seed={seed}", *options.settings, threads=options.threads)
        runs.append(run)
        found[f"seed {seed}"] = judge(shared(ours(run, files["sources.txt"], options.threads), begins))
        found[f"seed {seed}"] |= {"cpu_seconds": round(done.cpu_seconds), "seconds": round(time.monotonic() - begun)}
    if len(runs) > 1:
        found["together"] = judge(shared(ours(",".join(runs), files["sources.txt"], options.threads), begins))
    return found


def shared(said: list[Forecast], begins: dict[str, list[int]]) -> dict[str, Sequence[Forecast]]:
    """The answers by series, in the order of the sources."""
    rest = iter(said)
    return {key: [next(rest) for _ in mine] for key, mine in begins.items()}


def main() -> None:
    """Measure the sets asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(PLANS))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the runs in this folder")
    parser.add_argument("settings", nargs="*", help="settings of the training, such as model.width=64")
    options = parser.parse_args()
    known = statsmodels({"series": True})
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        print(
            json.dumps({name: measure(name, known[name], out, options) for name in options.sets.split(",")}, indent=1)
        )


if __name__ == "__main__":
    main()
