"""What each trick of ours pays by itself: small measurements beside what it replaces, on one thread.

    python bench/pieces.py [--only products,softmax] [--rounds 5]

CPU time and the best of several rounds, unless a line says otherwise. A table on standard error, JSON on standard
output. What the tricks pay in whole trainings is told by `python bench/training.py --ladder`.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from peers.install import last_line, tell
from torch import Tensor

from antiphon.core.machine import probe
from antiphon.models import distillation, functional
from antiphon.models.copying import mixture_cross_entropy, mixture_cross_entropy_plainly
from antiphon.models.linear import linear

WIDTH, INNER, HEADS, LENGTH, WORDS = 128, 256, 4, 14, 9648
"""As t128 of `bench/training.py` and Multi30k have them."""
SHARE, SMOOTHING, TOKENS, WEIGHTS = 0.3, 0.1, 2000, (2_600_000, 15_000_000)
Row = dict[str, Any]


def best(work: Callable[[], object], rounds: int, repeats: int = 10) -> float:
    """CPU milliseconds of `work`, the fewest of several rounds."""
    for _ in range(3):
        work()
    found = []
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(repeats):
            work()
        found.append(1000 * (time.process_time() - begun) / repeats)
    return min(found)


def beside(what: str, unit: str, ours: float, others: dict[str, float]) -> Row:
    """A line of the table."""
    told = {name: round(value, 3) for name, value in others.items()}
    times = {name: round(value / ours, 2) if ours > 0 else None for name, value in others.items()}
    return {"what": what, "unit": unit, "ours": round(ours, 3), "others": told, "times": times}


def products(rounds: int) -> Iterator[Row]:
    """A linear layer forward and backward, which is three products, in batches that differ in size or do not."""
    for kind in (torch.float32, torch.bfloat16):
        weight, bias = (torch.randn(shape, dtype=kind, requires_grad=True) for shape in ((INNER, WIDTH), (INNER,)))
        for where, sizes in (("ever-new", fresh), ("shared by four layers, ever-new", four_times), ("equal", equal)):
            ours, theirs = (best(layer(kind, each, weight, bias, sizes()), rounds, 40) for each in (linear, F.linear))
            yield beside(f"linear layer in {str(kind)[6:]}, {where} sizes", "ms", ours, {"F.linear": theirs})


def layer(
    kind: torch.dtype, product: Callable[..., Tensor], weight: Tensor, bias: Tensor, sizes: Iterator[int]
) -> Callable[[], None]:
    """One pass through it and back, over the next number of rows."""

    def work() -> None:
        y = product(torch.ones(next(sizes), WIDTH, dtype=kind, requires_grad=True), weight, bias)
        y.backward(torch.ones_like(y))

    return work


def fresh() -> Iterator[int]:
    """Numbers of rows, a thousand in the mean; one comes again when it has long been forgotten."""
    while True:
        yield from random.Random(1).sample(range(500, 1500), 1000)


def four_times() -> Iterator[int]:
    """The same for a model of four layers, which share their sizes."""
    return (size for size in fresh() for _ in range(4))


def equal() -> Iterator[int]:
    """That many rows, always."""
    while True:
        yield 1000


def softmax(rounds: int) -> Iterator[Row]:
    """In place, on rows shorter than a register is wide and longer ones."""
    for length in (8, 12, 15, 16, 32):
        scores = torch.randn(200_000 // length, length)
        ours = best(lambda scores=scores: functional.softmax_(scores), rounds)  # type: ignore[misc]
        theirs = best(lambda scores=scores: torch._softmax(scores, 1, False, out=scores), rounds)  # type: ignore[misc]
        a_number = 1e6 / scores.numel()
        yield beside(f"softmax of rows of {length}", "ns a number", ours * a_number, {"PyTorch": theirs * a_number})


def masks(rounds: int) -> Iterator[Row]:
    """A dropout mask for the states of a batch from random bytes, and the whole of dropout."""
    x = torch.randn(TOKENS, WIDTH)
    chances, mask = torch.randint(0, 256, x.shape, dtype=torch.uint8), torch.empty_like(x)
    ours = best(lambda: torch.ge(chances, 77, out=mask), rounds)
    yield beside("a mask as floats", "ms", ours, {"by way of booleans": best(lambda: (chances >= 77).float(), rounds)})
    ours, theirs = (best(lambda drop=drop: drop(x, SHARE, True), rounds)  # type: ignore[misc]
                    for drop in (functional.dropout, F.dropout))  # fmt: skip
    yield beside("dropout", "ms", ours, {"F.dropout": theirs})


def attention(rounds: int) -> Iterator[Row]:
    """Forward and backward over short sentences, with dropout and without."""
    pairs = TOKENS // LENGTH
    query, keys, values = (torch.randn(pairs, HEADS, LENGTH, WIDTH // HEADS, requires_grad=True) for _ in range(3))
    added = functional.hide(torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(), torch.float32)
    slope = torch.ones_like(query)
    for share in (0.0, SHARE):

        def ours(share: float = share) -> None:
            functional.attend(query, keys, values, added, share, True)[0].backward(slope)

        def plain(share: float = share) -> None:
            functional.attend_plainly(query, keys, values, added, share, True)[0].backward(slope)

        def fused(share: float = share) -> None:
            F.scaled_dot_product_attention(query, keys, values, added, share).backward(slope)

        others = {"as written down": best(plain, rounds), "PyTorch's fused": best(fused, rounds)}
        yield beside(f"attention, dropout {share}", "ms", best(ours, rounds), others)


def loss(rounds: int) -> Iterator[Row]:
    """From hidden states to the gradients, forward and backward."""
    hidden, weight = (torch.randn(count, WIDTH, requires_grad=True) for count in (TOKENS, WORDS))
    bias, labels = torch.zeros(WORDS, requires_grad=True), torch.randint(0, WORDS, (TOKENS,))

    def ours() -> None:
        functional.linear_cross_entropy(hidden, weight, bias, labels, smoothing=SMOOTHING).backward()

    def theirs() -> None:
        logits = F.linear(hidden, weight, bias)
        F.cross_entropy(logits, labels, reduction="sum", label_smoothing=SMOOTHING).backward()

    found = best(theirs, rounds, 3)
    yield beside(f"loss over {WORDS:,} words", "ms", best(ours, rounds, 3), {"F.cross_entropy": found})
    student = distillation.Projection(hidden, weight, bias)
    teacher = distillation.Projection(*(torch.randn_like(part) for part in student))

    def taught() -> None:
        distillation.soft_cross_entropy(student, [teacher]).backward()

    def plainly() -> None:
        distillation.soft_cross_entropy_plainly(student, [teacher]).backward()

    found = best(plainly, rounds, 3)
    yield beside(f"loss against a teacher over {WORDS:,} words", "ms", best(taught, rounds, 3), {"plainly": found})


def copying(rounds: int) -> Iterator[Row]:
    """The loss of a copy head beside its plain version, and beside the loss without copying."""
    for kind in (torch.float32, torch.bfloat16):
        hidden, weight = (torch.randn(count, WIDTH, dtype=kind, requires_grad=True) for count in (TOKENS, WORDS))
        bias, labels = torch.zeros(WORDS, dtype=kind, requires_grad=True), torch.randint(0, WORDS, (TOKENS,))
        gate, copied = (torch.rand(TOKENS, requires_grad=True) for _ in range(2))

        plain, mixed = (hidden, weight, bias), (gate, copied, labels)

        def mix(mixture: Callable[..., Tensor], parts: tuple[Tensor, ...] = (*plain, *mixed)) -> None:
            mixture(*parts, smoothing=SMOOTHING).backward()

        def without(parts: tuple[Tensor, ...] = (*plain, labels)) -> None:
            functional.linear_cross_entropy(*parts, smoothing=SMOOTHING).backward()

        ours, written = (best(partial(mix, way), rounds, 3) for way in
                         (mixture_cross_entropy, mixture_cross_entropy_plainly))  # fmt: skip
        found = {"as written down": written, "without copying": best(without, rounds, 3)}
        yield beside(f"loss with copying, {str(kind)[6:]}", "ms", ours, found)


HELD = """
import resource, sys, time
held = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1024
seconds = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
"""
COMPILED = """
import torch
torch.set_float32_matmul_precision("medium")
a, b, out = torch.ones(1500, 128), torch.ones(128, 256), torch.ones(1500, 256)
multiply = lambda rows: torch.mm(a[:rows], b, out=out[:rows])
[multiply(rows) for rows in range(1300, 1500)]
before = held()
[multiply(rows) for rows in range(500, 1000)]
print((held() - before) / 500)
"""
STARTED = """
import torch
from antiphon.training import optimizers
weights = torch.nn.Parameter(torch.zeros(8))
before, begun = held(), seconds()
{make}
print(1000 * (seconds() - begun), (held() - before) / 1024)
"""
CLASS = "torch.optim.AdamW([weights])"
FUNCTION = """
from antiphon.core.config import Training
optimizers.make(optimizers.Flat(torch.nn.Linear(2, 2)), Training())
"""


def fresh_process(script: str, **environment: str) -> list[float]:
    """The numbers that a script prints."""
    command = [sys.executable, "-c", HELD + script]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(last_line(done.stderr))
    return [float(word) for word in done.stdout.split()]


def memory(rounds: int) -> Iterator[Row]:
    """What stays of 500 products of new sizes by oneDNN: with our limit of compiled products, and without."""
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    ours, theirs = (fresh_process(COMPILED, **dict(zip(names, most, strict=True)))[0]
                    for most in (("96", "1"), ("1024", "1024")))  # fmt: skip
    yield beside("memory of products of new sizes", "kB a size", max(0.0, ours), {"as it comes": theirs})


def start(rounds: int) -> Iterator[Row]:
    """Making the first optimizer: CPU time, and memory."""
    ours, theirs = (fresh_process(STARTED.format(make=make)) for make in (FUNCTION, CLASS))
    yield beside("the first optimizer", "ms", ours[0], {"PyTorch's class": theirs[0]})
    yield beside("its memory", "MB", ours[1], {"PyTorch's class": theirs[1]})


def exchange(rounds: int) -> Iterator[Row]:
    """Two processes add their gradients: wall time, the median of many."""
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as folder:
        memories = [torch.zeros(count).share_memory_() for count in WEIGHTS]
        context = torch.multiprocessing.get_context("spawn")
        other = context.Process(target=meet, args=(1, folder, memories, 8 * rounds))
        other.start()
        found = meet(0, folder, memories, 8 * rounds)
        other.join()
    for count, (ours, theirs) in zip(WEIGHTS, found, strict=True):
        yield beside(f"adding gradients of {count:,} numbers", "ms, wall", ours, {"all-reduce of gloo": theirs})


def meet(rank: int, folder: str, memories: list[Tensor], times: int) -> list[tuple[float, float]]:
    """One of the two; gives the medians by shared memory, to which the other writes in between, and by gloo."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(Path(folder) / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = []
    for shared in memories:
        gradient, by_memory, by_gloo = torch.ones(len(shared)), list[float](), list[float]()
        for _ in range(times):
            if rank:
                shared.copy_(gradient)
            torch.distributed.barrier()
            begun = time.perf_counter()
            if not rank:
                gradient.add_(shared)
            by_memory.append(time.perf_counter() - begun)
            torch.distributed.barrier()
            begun = time.perf_counter()
            torch.distributed.all_reduce(gradient)
            by_gloo.append(time.perf_counter() - begun)
            gradient.fill_(1)
        found.append((1000 * median(by_memory), 1000 * median(by_gloo)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return found


PIECES: dict[str, Callable[[int], Iterator[Row]]] = {
    "products": products, "memory": memory, "softmax": softmax, "masks": masks, "attention": attention, "loss": loss,
    "copying": copying,
    "start": start, "exchange": exchange,
}  # fmt: skip


def table(rows: list[Row]) -> str:
    """For people, in Markdown."""
    lines = ["", "| | ours | what it replaces |", "|---|---|---|"]
    for row in rows:
        others = ", ".join(
            f"{name} {value}" + (f" ({row['times'][name]}x)" if row["times"][name] else "")
            for name, value in row["others"].items()
        )
        lines.append(f"| {row['what']}, {row['unit']} | {row['ours']} | {others} |")
    return "\n".join(lines)


def main() -> int:
    """Measure the pieces asked for, fp32 products by the fastest route of this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PIECES))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(probe().fp32)
    rows: list[Row] = []
    for name in given.only.split(","):
        print(f"  {name}", file=sys.stderr, flush=True)
        rows += PIECES[name](given.rounds)
    tell({"products": str(probe()), "pieces": rows}, table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
