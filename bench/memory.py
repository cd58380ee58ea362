"""Peak memory of preparing a large generated corpus and going through one epoch of its batches.

`python bench/memory.py --pairs 5000000` prints JSON; the promise is a peak below 1.5 GB for five million pairs.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from antiphon.core.config import Data, Side
from antiphon.data.batching import Example, Loader, padding, plan, prepare
from antiphon.data.corpus import Texts, open_pairs, split
from antiphon.data.modalities import Text

LIMIT = 1_500_000_000
WORDS, CHUNK = 50_000, 100_000


def generate(path: Path, pairs: int) -> None:
    """Sentences of 3 to 14 words whose frequencies fall as in real text; the target repeats the words reversed."""
    draw = np.random.default_rng(1)
    words = np.array([f"w{number:x}" for number in range(WORDS)])
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for start in range(0, pairs, CHUNK):
            lengths = draw.integers(3, 15, min(CHUNK, pairs - start))
            ids = np.minimum(draw.zipf(1.3, int(lengths.sum())) - 1, WORDS - 1)
            for row in np.split(words[ids], np.cumsum(lengths)[:-1]):
                file.write(" ".join(row) + "\t" + " ".join(row[::-1]) + "\n")


def peak() -> int:
    """The most memory this process held so far, in bytes, pages of mapped files included."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def measure(pairs: int, folder: Path) -> dict[str, object]:
    """Runs all steps and tells the time and the peak memory after each."""
    path = folder / "pairs.tsv"
    steps: dict[str, dict[str, float]] = {}
    clock = time.perf_counter()

    def done(step: str) -> None:
        nonlocal clock
        steps[step] = {"seconds": round(time.perf_counter() - clock, 1), "peak_mb": round(peak() / 1e6)}
        clock = time.perf_counter()

    done("import")
    generate(path, pairs)
    done("generate")
    train, valid = split(open_pairs(path, Data()), 0.01, 1)
    done("split")
    side = Side("word", 8000, max_length=100)
    source = Text.learn(Texts(train, ["source"]), side, name="source")
    target = Text.learn(Texts(train, ["target"]), side, name="target")
    done("learn vocabularies")
    store = prepare(
        train, lambda pair: Example(source.ids(pair.source), target.ids(pair.target)), folder / "ids", ids_below=8000
    )
    done("prepare")
    batches = plan(store.source_lengths, store.target_lengths, 8192, seed=1, epoch=0)
    done("plan")
    tokens = sum(batch.tokens for _, batch in Loader(store, batches))
    done("epoch")
    return {
        "pairs": pairs,
        "trained_on": len(store),
        "held_out": sum(1 for _ in valid),
        "tokens": tokens,
        "batches": len(batches),
        "padding": round(padding(store.source_lengths, store.target_lengths, batches), 4),
        "steps": steps,
        "peak_bytes": peak(),
        "limit_bytes": LIMIT,
        "within_limit": peak() < LIMIT,
    }


def main() -> int:
    """Prints the measurement; exit code 1 where the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path, help="where the corpus is generated; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(options.pairs, Path(folder))
    print(json.dumps(result, indent=2))
    return 0 if result["within_limit"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
