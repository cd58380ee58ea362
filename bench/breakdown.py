"""Where the time of training, or of answering, goes: by kind of operation, and how fast the matrix products are.

    ANTIPHON_DATA=... python bench/breakdown.py [--models t128,lstm,answers] [--steps 20]

The models, data and settings of `bench/training.py`, and as `answers` the search of `bench/decoding.py`; in fp32 on one
core, watched by PyTorch's profiler, which itself costs some percent. Shares are of the sum of the operations' own wall
time: nothing else should run. A table on standard error, JSON on standard output.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from typing import Any

from decoding import trained
from peers.corpus import available, prepare
from peers.install import drive, tell
from training import MODELS, run

ANSWERS, TRAINED = "answers", 1200
"""What the search is called among the models, and the steps that its model was trained for."""

KINDS = {
    "matrix products": ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "linear", "mkldnn_rnn_layer",
                        "mkldnn_rnn_layer_backward", "_linear_pointwise"),
    "softmax, exponentials": ("_softmax", "exp", "exp_", "logsumexp", "_log_softmax", "softmax", "amax", "max"),
    "copies": ("copy_", "clone", "contiguous", "cat", "stack", "index", "index_select", "gather", "fill_", "zero_",
               "_to_copy", "index_put_", "_index_put_impl_", "embedding_dense_backward", "index_add_", "new_zeros"),
    "sums": ("sum", "mean", "norm", "linalg_vector_norm", "native_layer_norm", "native_layer_norm_backward"),
    "element by element": ("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "relu", "relu_", "where",
                           "threshold_backward", "masked_fill_", "masked_fill", "lt", "ge", "le", "gt", "ne", "eq",
                           "sigmoid", "tanh", "tanh_backward", "sigmoid_backward", "neg", "addcmul_", "clamp_"),
    "random numbers": ("random_", "bernoulli_", "uniform_", "native_dropout", "normal_", "randint"),
    "the optimizer": ("_fused_adam_", "_fused_adamw_", "_fused_sgd_"),
}  # fmt: skip
"""Operations of PyTorch by their names; what is named nowhere is Python, views and small things."""
REST = "the rest"


def kind(operation: str) -> str:
    """The kind that an operation belongs to."""
    name = operation.rpartition("::")[2]
    return next((kind for kind, names in KINDS.items() if name in names), REST)


def answering() -> dict[str, Any]:
    """What `run` gives of a training, of a search with a beam of 5; the rate is of sentences."""
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as folder:
        task = {"engine": "ours", "run": str(trained(TRAINED)), "source": str(prepare() / "test.en"), "threads": 1,
                "batch": 128, "profile": True, "folder": folder}  # fmt: skip
        found = drive("ours", "decode.py", task)
    return found if "error" in found else {**found, "cpu_rate": found["rate"]}


def measure(model: str, given: argparse.Namespace) -> dict[str, Any]:
    """Shares of the time by kind, the most expensive operations, and the speed of the products."""
    found = answering() if model == ANSWERS else run("ours", model, 1, given, profile=given.steps)
    if "error" in found:
        return found
    rows = found["operations"]
    whole = sum(row["seconds"] for row in rows.values())
    shares = dict.fromkeys([*KINDS, REST], 0.0)
    for name, row in rows.items():
        shares[kind(name)] += row["seconds"] / whole
    products = [row for name, row in rows.items() if kind(name) == "matrix products"]
    counted, seconds = [row for row in products if row["flops"]], sum(row["seconds"] for row in products)
    known = sum(row["seconds"] for row in counted)
    speed = sum(row["flops"] for row in counted) / known / 1e9 if known > seconds / 2 else None
    most = sorted(rows.items(), key=lambda item: -item[1]["seconds"])[: given.top]
    return {
        "tokens_or_sentences_per_cpu_second": round(found["cpu_rate"]),
        "shares": {name: round(share, 3) for name, share in shares.items()},
        "gflops_of_products": speed and round(speed, 1),
        "operations": {name: {"share": round(row["seconds"] / whole, 3), "calls": row["calls"]} for name, row in most},
    }


def table(results: dict[str, Any]) -> str:
    """For people, in Markdown."""
    whole = {model: told for model, told in results.items() if "error" not in told}
    lines = [f"| share of a step | {' | '.join(whole)} |", "|---|" + "---|" * len(whole)]
    for name in [*KINDS, REST]:
        cells = [f"{told['shares'][name]:.0%}" for told in whole.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    speeds = [str(told["gflops_of_products"] or "not counted") for told in whole.values()]
    lines.append(f"| GFLOP/s of the products | {' | '.join(speeds)} |")
    return "\n".join(
        [*lines, *(f"{model} failed: {told['error']}" for model, told in results.items() if "error" in told)]
    )


def main() -> int:
    """Profile the models asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join([*MODELS, ANSWERS]))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=8, help="steps before it watches")
    parser.add_argument("--top", type=int, default=12, help="operations that are named in the JSON")
    given = parser.parse_args()
    given.seconds = 0
    if not available():
        return 0
    results = {model: measure(model, given) for model in given.models.split(",")}
    tell(results, table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
