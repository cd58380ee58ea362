"""How near training comes to what this machine's matrix products allow.

    ANTIPHON_DATA=... python bench/limits.py [--models t128,t256,lstm,gru] [--seconds 10]

The bound is the speed at which a model would train if it did nothing but its matrix products, all at the machine's
peak. Three products are counted for each in the forward pass: itself, and the gradients of both factors. The peak is
the best of several large products by every route that is exact to fp32 (as in `antiphon.core.machine.probe`), and in
bf16. One core, by CPU time; all cores, by wall time. On standard error each figure as it is found, then a table; JSON
on standard output.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from peers.corpus import available, prepare, read_ids
from peers.install import tell
from training import MODELS, run

ROUTES = {"fp32 MKL": ("highest", torch.float32), "fp32 oneDNN": ("medium", torch.float32),
          "bf16": ("highest", torch.bfloat16)}  # fmt: skip
SHAPES = ((2048, 512, 512), (2048, 1024, 1024), (4096, 256, 1024), (1024, 2048, 2048))
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


class Product(NamedTuple):
    """`count` products of `[rows, inner]` with `[inner, columns]`."""

    count: int
    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """Floating-point operations, a multiplication and an addition being two."""
        return 2 * self.count * self.rows * self.inner * self.columns


def products(model: dict[str, Any], vocabulary: int, pairs: int, source: int, target: int) -> list[Product]:
    """The matrix products of one forward pass over `pairs` pairs of `source` and `target` tokens, padding left out."""
    width, layers, sources, targets = model["width"], model["layers"], pairs * source, pairs * target
    output = Product(1, targets, width, vocabulary)
    if model["kind"] != "transformer":
        return [*_recurrent(model, pairs, source, target), output]
    heads, inner = model["heads"], model["feedforward"]

    def attention(queries: int, keys: int) -> list[Product]:
        each = width // heads
        return [Product(pairs * heads, queries, each, keys), Product(pairs * heads, queries, keys, each)]

    def feedforward(rows: int) -> list[Product]:
        return [Product(1, rows, width, inner), Product(1, rows, inner, width)]

    def itself(rows: int, length: int) -> list[Product]:
        return [Product(1, rows, width, 3 * width), *attention(length, length), Product(1, rows, width, width)]

    encoder = [*itself(sources, source), *feedforward(sources)]
    across = [Product(1, targets, width, width), Product(1, sources, width, 2 * width), *attention(target, source)]
    decoder = [*itself(targets, target), *across, Product(1, targets, width, width), *feedforward(targets)]
    return [*encoder * layers, *decoder * layers, output]


def _recurrent(model: dict[str, Any], pairs: int, source: int, target: int) -> list[Product]:
    """Both directions of the encoder, each half as wide; the decoder; one look at the source with scores q W k."""
    width, gates, sources, targets = model["width"], GATES[model["kind"]], pairs * source, pairs * target
    half = width // 2
    encoder = [Product(2, sources, width, gates * half), Product(2 * source, pairs, half, gates * half)]
    decoder = [Product(1, targets, width, gates * width), Product(target, pairs, width, gates * width)]
    look = [Product(1, sources, width, width), Product(pairs, target, width, source),
            Product(pairs, target, source, width), Product(1, targets, 2 * width, width)]  # fmt: skip
    return [*encoder * model["layers"], *decoder * model["layers"], *look]


def training_flops(forward: Iterable[Product]) -> int:
    """Of the forward pass and of both gradients."""
    return 3 * sum(product.flops for product in forward)


def peak(route: str, threads: int, clock: Callable[[], float], seconds: float = 2.0) -> float:
    """The most floating-point operations a second by a route; 0 where it does not give what it should."""
    precision, kind = ROUTES[route]
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)
    try:
        return 0.0 if kind == torch.float32 and not _exact() else max(
            _rate(Product(1, *shape), kind, clock, seconds / len(SHAPES)) for shape in SHAPES
        )  # fmt: skip
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.set_num_threads(before[1])


def _exact() -> bool:
    a, b = torch.randn(256, 512), torch.randn(512, 256)
    return float((a @ b - a.double() @ b.double()).abs().max()) < 1e-3


def _rate(product: Product, kind: torch.dtype, clock: Callable[[], float], seconds: float) -> float:
    a, b = torch.randn(product.rows, product.inner, dtype=kind), torch.randn(product.inner, product.columns, dtype=kind)
    out = a @ b
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = clock()
        for _ in range(3):
            torch.mm(a, b, out=out)
        best = max(best, 3 * product.flops / max(1e-9, clock() - begun))
    return best


def peaks(threads: int, clock: Callable[[], float]) -> dict[str, float]:
    """By each route, and of fp32 the best."""
    found = {}
    for route in ROUTES:
        found[route] = peak(route, threads, clock)
        progress(f"{threads} threads, {route}: {found[route] / 1e9:.1f} GFLOP/s")
    return {**found, "fp32": max(value for route, value in found.items() if route.startswith("fp32"))}


def progress(text: str) -> None:
    """For people who wait, and whatever comes in between."""
    print(f"  {text}", file=sys.stderr, flush=True)


def lengths() -> tuple[int, int, int]:
    """The vocabulary's size and the mean source and target of Multi30k, end marks included, rounded."""
    folder = prepare()
    rows = read_ids(folder, "train")
    words = (folder / "vocabulary.txt").read_text(encoding="utf-8").count("\n")
    return words, *(round(sum(len(row[side]) for row in rows) / len(rows)) for side in (0, 1))


def measure(models: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """Peaks, bounds, and the share that training reaches."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings = {"one core": (1, "cpu", time.process_time)}
    if cores > 1:
        settings["all cores"] = (cores, "wall", time.perf_counter)
    words, source, target = lengths()
    told: dict[str, Any] = {"cores": cores, "settings": {}}
    for place, (threads, kind, clock) in settings.items():
        found = peaks(threads, clock)
        rows = {
            model: share(model, threads, kind, found, training_flops(products(MODELS[model], words, 64, source, target))
                         / (64 * (source + target)), given)
            for model in models
        }  # fmt: skip
        told["settings"][place] = {"gflops": {name: round(value / 1e9, 1) for name, value in found.items()}, **rows}
    return told


def share(
    model: str, threads: int, kind: str, found: dict[str, float], flops: float, given: argparse.Namespace
) -> dict[str, Any]:
    """A model's bound in tokens a second, and how much of it training reaches, in fp32 and in bf16."""
    told: dict[str, Any] = {"flops_per_token": round(flops)}
    for name, route in (("ours", "fp32"), ("ours-bf16", "bf16")):
        runs = [run(name, model, threads, given) for _ in range(given.rounds)]
        rates = [each[f"{kind}_rate"] for each in runs if "error" not in each]
        bound, rate = found[route] / flops, max(rates, default=0.0)
        told[route] = {"bound": round(bound), "reached": round(rate), "share": round(rate / bound, 3) if bound else 0}
        progress(f"{threads} threads, {model}, {route}: {rate:,.0f} of {bound:,.0f} tokens a second")
        if errors := [each["error"] for each in runs if "error" in each]:
            told[route]["errors"] = errors
    return told


def table(result: dict[str, Any]) -> str:
    """For people, in Markdown."""
    lines = []
    for place, told in result["settings"].items():
        gflops = ", ".join(f"{name} {value}" for name, value in told["gflops"].items() if name != "fp32")
        lines += [f"\n{place}: {gflops} GFLOP/s", "", "| | MFLOP a token | fp32: bound, reached, share | bf16 |"]
        lines.append("|---|---|---|---|")
        for model, row in told.items():
            if model in MODELS:
                cells = [
                    f"{row[kind]['bound']:,}, {row[kind]['reached']:,}, {row[kind]['share']:.0%}"
                    if "errors" not in row[kind] else f"failed: {row[kind]['errors'][0]}"
                    for kind in ("fp32", "bf16")
                ]  # fmt: skip
                lines.append(f"| {model} | {row['flops_per_token'] / 1e6:.2f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> int:
    """Measure the models asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    if not available():
        return 0
    result = measure(given.models.split(","), given)
    tell(result, table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
