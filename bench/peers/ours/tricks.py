"""Each of our tricks beside what it replaces: switched off in turn for the ladder, and all at once for the parity."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.core import machine
from antiphon.core.batch import PAD, Loss
from antiphon.data import batching
from antiphon.models import functional, heads, linear
from antiphon.training import optimizers

Measure = Callable[..., dict[str, Any]]


def replace(module: Any, name: str, other: Any) -> None:
    """Put `other` wherever a module of Antiphon uses what `module` calls `name`; `AttributeError` if there is none."""
    original = getattr(module, name)
    for place in [place for key, place in sys.modules.items() if key.split(".")[0] == "antiphon"]:
        for key in [key for key, value in vars(place).items() if value is original]:
            setattr(place, key, other)


def dropout() -> None:
    """PyTorch's dropout."""
    replace(functional, "dropout", F.dropout)
    if hasattr(functional, "add_dropout"):
        replace(functional, "add_dropout", lambda x, y, share, training: x + F.dropout(y, share, training))


def attention() -> None:
    """Heads by views, and attention as one writes it down."""
    for name in ("split_heads", "attend"):
        replace(functional, name, getattr(functional, f"{name}_plainly"))
    replace(functional, "join_heads", lambda x_BHTD, dtype: x_BHTD.transpose(1, 2).flatten(2).to(dtype))


def sdpa() -> None:
    """PyTorch's fused attention, which gives no weights to look at."""

    def attend(query: Tensor, keys: Tensor, values: Tensor, added: Tensor | None, share: float, training: bool) -> Any:
        context = F.scaled_dot_product_attention(query, keys, values, added, share if training else 0.0)
        return context, query.new_zeros(*query.shape[:3], keys.shape[2])

    replace(functional, "attend", attend)


def loss() -> None:
    """Logits of all positions at once, padding too, then PyTorch's cross-entropy."""

    def plain(self: Any, steps: Any, memory: Any, labels_BT: Tensor, smoothing: float) -> Loss:
        logits_BTV = F.linear(steps.hidden_BTD, self.weight, self.bias)
        total = F.cross_entropy(
            logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=PAD, reduction="sum", label_smoothing=smoothing
        )
        return Loss(total, int((labels_BT != PAD).sum()))

    heads.VocabularyHead.loss = plain  # type: ignore[method-assign]


def buckets() -> None:
    """Batches of pairs as they come, of the same size with padding."""

    def plan(sources: np.ndarray, targets: np.ndarray, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        order, batches, start = np.random.default_rng([seed, epoch]).permutation(len(sources)), [], 0
        while start < len(order):
            rows = order[start : start + batch_tokens]
            width = np.maximum.accumulate(sources[rows]) + np.maximum.accumulate(targets[rows])
            count = max(1, int(np.searchsorted(width * np.arange(1, len(rows) + 1), batch_tokens, side="right")))
            batches.append(order[start : start + count])
            start += count
        return batches

    replace(batching, "plan", plan)


def optimizer() -> None:
    """PyTorch's Adam on each parameter by itself."""

    def make(flat: Any, settings: Any) -> torch.optim.Optimizer:
        betas = (settings.beta1, settings.beta2)
        return torch.optim.Adam(flat.parameters, settings.rate or 0.0, betas, foreach=False, fused=False)

    replace(optimizers, "make", make)


def matmul() -> None:
    """Matrix products by the route that PyTorch takes by default."""
    replace(machine, "probe", lambda *_: machine.Products("highest", False, {}))


def blocks() -> None:
    """Each product at once, of whatever size it is."""
    replace(linear, "linear", F.linear)
    replace(linear, "chunks", lambda hidden_ND, rows: [rows])
    replace(linear, "whole", lambda rows_ND, size=0: rows_ND)


OFF: dict[str, Callable[[], None]] = {
    "buckets": buckets, "loss": loss, "matmul": matmul, "dropout": dropout, "attention": attention, "sdpa": sdpa,
    "optimizer": optimizer, "blocks": blocks,
}  # fmt: skip
PLAIN = ("loss", "matmul", "blocks", "dropout", "attention", "optimizer")
"""All that must not change what is learned; batches are part of that, so they stay."""


def switch_off(names: list[str]) -> None:
    """Put the plain version of each in its place."""
    for name in names:
        OFF[name]()


def ladder(given: argparse.Namespace, run: Measure) -> tuple[dict[str, Any], str]:
    """Our t128 as it is, with each trick off, and with all off, on one core; and how both cores are used best."""
    cases: dict[str, tuple[int, dict[str, Any]]] = {"all on": (1, {})}
    cases |= {f"without {name}": (1, {"off": [name]}) for name in (*PLAIN, "buckets")}
    cases["with PyTorch's fused attention"] = (1, {"off": ["sdpa"]})
    cases["all off"] = (1, {"off": [*PLAIN, "buckets"]})
    cases["in bf16"] = (1, {"precision": "bf16"})
    cases["in bf16, without blocks"] = (1, {"precision": "bf16", "off": ["blocks"]})
    cases["both cores, as chosen"] = (2, {})
    cases["both cores, one process"] = (2, {"settings": {"training.processes": 1, "training.threads": 2}})
    cases["both cores, two processes"] = (2, {"settings": {"training.processes": 2, "training.threads": 1}})
    found: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
    for _ in range(given.rounds):
        for case, (threads, extra) in cases.items():
            result = run("ours", "t128", threads, given, **extra)
            print(f"  {case}: {result.get('error') or round(result['cpu_rate'])}", file=sys.stderr, flush=True)
            found[case].append(result)
    rows = {case: _rates(results) for case, results in found.items()}
    lines = ["", "| t128 | tok/s | per CPU-s | of all on | peak MB |", "|---|---|---|---|---|"]
    for case, row in rows.items():
        if "error" in row:
            lines.append(f"| {case} | failed: {row['error']} | | | |")
            continue
        row["share"] = round(row["cpu_rate"] / rows["all on"]["cpu_rate"], 3) if "cpu_rate" in rows["all on"] else 0
        lines.append(f"| {case} | {row['wall_rate']:,} | {row['cpu_rate']:,} | {row['share']:.0%} | {row['peak_mb']} |")
    return {"ladder": rows}, "\n".join(lines)


def _rates(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the rounds."""
    if errors := [result["error"] for result in results if "error" in result]:
        return {"error": errors[0]}
    told = {name: round(median(each[name] for each in results)) for name in ("wall_rate", "cpu_rate")}
    return {**told, "peak_mb": max(each["peak_mb"] for each in results)}


CASES: dict[str, dict[str, Any]] = {
    "ours": {}, "plain reference": {"off": PLAIN}, "bf16": {"precision": "bf16"},
}  # fmt: skip
"""Of the parity; bf16 only where it is fast: elsewhere nobody trains in it, and an epoch takes five times as long."""


def parity(given: argparse.Namespace, run: Measure) -> tuple[dict[str, Any], str]:
    """Losses of training and validation over an epoch, for three seeds; and step by step where nothing is random."""
    steps, cases = given.steps or 0, {case: CASES[case] for case in CASES if case != "bf16" or machine.probe().bf16}
    exact = {case: _curve(run, given, steps, 1, extra, dropout=0.0) for case, extra in cases.items()}
    told: dict[str, Any] = {"without dropout": exact, "with dropout": {}}
    lines = ["", "Without dropout, seed 1, ours against the plain reference on the same batches:"]
    if all("training" in curve for curve in exact.values()):
        lines += [_apart(exact, case) for case in exact if case != "ours"]
    lines += ["", "| seed | " + " | ".join(f"{case}: last tenth, validation" for case in cases) + " |"]
    lines.append("|---" * (len(cases) + 1) + "|")
    for seed in (1, 2, 3):
        curves = {case: _curve(run, given, steps, seed, extra) for case, extra in cases.items()}
        told["with dropout"][seed] = curves
        lines.append(f"| {seed} | " + " | ".join(_ends(curve) for curve in curves.values()) + " |")
    return told, "\n".join(lines)


def _curve(
    run: Measure, given: argparse.Namespace, steps: int, seed: int, extra: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """The losses of one run."""
    settings = {"training.seed": seed, **({"training.steps": steps} if steps else {"training.epochs": 1})}
    result = run("ours", "t128", 1, given, curve=True, settings=settings, **extra, **more)
    told = result.get("error") or _ends(result)
    print(f"  seed {seed}, {extra or 'ours'}, {more}: {told}", file=sys.stderr, flush=True)
    return result


def _ends(curve: dict[str, Any]) -> str:
    if "training" not in curve:
        return curve.get("error", "failed")
    last = curve["training"][-max(1, len(curve["training"]) // 10) :]
    return f"{sum(last) / len(last):.4f}, {curve['validation']:.4f}"


def _apart(curves: dict[str, dict[str, Any]], case: str) -> str:
    """How far a case is from ours."""
    ours, other = curves["ours"]["training"], curves[case]["training"]
    apart = [abs(a - b) for a, b in zip(ours, other, strict=True)]
    ends = abs(curves["ours"]["validation"] - curves[case]["validation"])
    return f"{case}: {max(apart):.1e} at most in {len(apart)} steps, {ends:.1e} in validation"
