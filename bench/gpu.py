"""How fast training is on a GPU, and how near to what its matrix products allow.

    ANTIPHON_DATA=... python bench/gpu.py [--models w128,w512,w1024] [--ways bf16,bf16-compiled,fp32] [--tokens 32768]

Transformers of widths 128, 512 and 1024 (4+4, 6+6 and 6+6 layers) on Multi30k English to German in the pieces of one
joint BPE, trained by `fit` as by a user; `--tokens` are source and target tokens of a batch. Model FLOP utilisation:
the operations of the model's matrix products, forward and both gradients, padding left out, over those of the best
large bf16 product that was timed on the same card in the same run. A table on standard error, JSON on standard output.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch
from limits import lengths, products, progress, training_flops
from peers.corpus import available
from peers.install import tell
from training import MODELS, OURS, run

SIZES = {"w128": (4, 128, 256, 4), "w512": (6, 512, 2048, 8), "w1024": (6, 1024, 4096, 16)}
"""Layers on each side, width, feedforward width, heads."""
WAYS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "bf16-compiled": {"precision": "bf16", "settings": {"training.compile": True}},
    "fp32": {"precision": "fp32"},
}
LARGE = 8192
"""Rows and columns of the product that the peak is measured with."""


def peak(seconds: float = 1.0) -> float:
    """Floating-point operations a second of a large bf16 product, the best of several."""
    a, b = (torch.randn(LARGE, LARGE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(10):
            a @ b
        torch.cuda.synchronize()
        best = max(best, 10 * 2 * LARGE**3 / (time.perf_counter() - begun))
    return best


def measure(name: str, way: str, flops: float, most: float, given: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of one model trained in one way, and its share of the peak."""
    layers, width, feedforward, heads = SIZES[name]
    MODELS[name] = {"kind": "transformer", "layers": layers, "width": width, "feedforward": feedforward, "heads": heads}
    OURS["ours"] = WAYS[way]
    found = run("ours", name, 1, given, batch_tokens=given.tokens // 2)
    if "error" in found:
        return {"error": found["error"]}
    rate = found["wall_rate"]
    return {"tokens_per_second": round(rate), "utilisation": round(rate * flops / most, 4), "steps": found["steps"]}


def main() -> int:
    """Measure the models asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(SIZES))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--tokens", type=int, default=32768, help="source and target tokens of a batch")
    parser.add_argument("--warmup", type=int, default=20, help="steps before measuring")
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    if not available():
        return 0
    if not torch.cuda.is_available():
        print("skipped: there is no GPU here")
        return 0
    most, (words, source, target) = peak(), lengths()
    rows, lines = {}, ["", "| | | tokens/s | model FLOP utilisation |", "|---|---|---|---|"]
    for name in given.models.split(","):
        layers, width, feedforward, heads = SIZES[name]
        model = {"kind": "transformer", "layers": layers, "width": width, "feedforward": feedforward, "heads": heads}
        flops = training_flops(products(model, words, 64, source, target)) / (64 * (source + target))
        for way in given.ways.split(","):
            found = rows[f"{name} {way}"] = measure(name, way, flops, most, given)
            progress(f"{name}, {way}: {found}")
            told = found.get("error") or f"{found['tokens_per_second']:,} | {found['utilisation']:.1%}"
            lines.append(f"| {name} | {way} | {told} |")
    result = {"device": torch.cuda.get_device_name(), "peak_tflops": round(most / 1e12), "tokens": given.tokens}
    tell({**result, "runs": rows}, f"{result}\n" + "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
