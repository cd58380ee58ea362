"""What this machine has to offer: cores, and the products it is fast at."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much CPU time a container may use in how long."""


def cores(environment: Mapping[str, str], quota: Path = QUOTA) -> int:
    """The cores that this process may use: no more than its container has, nor than `OMP_NUM_THREADS` says."""
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    if (wanted := environment.get("OMP_NUM_THREADS", "")).isdecimal():
        limits.append(int(wanted))
    with suppress(OSError, ValueError):
        allowed, period = quota.read_text().split()
        limits.append(math.ceil(int(allowed) / int(period)))
    return max(1, min(limits))


@dataclass(frozen=True)
class Products:
    """How this machine multiplies matrices fastest: the route for fp32 (an argument of
    `torch.set_float32_matmul_precision`), whether bf16 is faster still, and GFLOP/s by route."""

    fp32: str
    bf16: bool
    rates: Mapping[str, float]

    def __str__(self) -> str:
        return ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in self.rates.items())


@cache
def probe(size: int = 512) -> Products:
    """Time one product by each route, in a twentieth of a second.

    PyTorch multiplies by MKL under "highest" and by oneDNN under "medium". oneDNN is over twice as fast where MKL
    declines AVX-512, but where the processor has AMX it may round to bf16; that is seen here and refused.
    """
    import torch

    noise, before = torch.Generator().manual_seed(1), torch.get_float32_matmul_precision()
    a, b = (torch.randn(size, size, generator=noise) for _ in range(2))
    exact, rates = a.double() @ b.double().T, {}
    for mode, name in (("highest", "fp32"), ("medium", "fp32 by oneDNN")):
        torch.set_float32_matmul_precision(mode)
        # bf16 is off by 0.1 here, fp32 by 0.0001.
        if (a @ b.T - exact).abs().max() < 1e-3:
            rates[name] = _rate(a, b)
    torch.set_float32_matmul_precision(before)
    # Only where it clearly pays, so that two runs on one machine choose alike.
    fp32 = "medium" if rates.get("fp32 by oneDNN", 0) > 1.2 * rates.get("fp32", 0) else "highest"
    fastest = max(rates.values())
    rates["bf16"] = _rate(a.bfloat16(), b.bfloat16())
    return Products(fp32, rates["bf16"] > 1.4 * fastest, rates)


def _rate(a: Tensor, b: Tensor) -> float:
    """GFLOP/s of the best of some products."""
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        a @ b.T
        seconds.append(time.perf_counter() - start)
    return 2 * len(a) ** 3 / min(seconds) / 1e9
