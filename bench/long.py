"""Long sources: memory and speed by length, and which positions work beyond the lengths seen in training.

    python bench/long.py [--lengths 500,1000,2000,4000] [--only window,lstm]
    python bench/long.py --positions [--only rotary,alibi] [--seeds 2]

Without `--positions`, each line is a fresh process that trains on one source and answers it; peaks are what it holds
more than before. With it, small Transformers learn to find one marked span in 20 to 60 words, or two in their order,
and answer sources of up to sixteen times that. A table on standard error, JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peers.install import last_line

from antiphon.core.batch import EOS, Batch, pad
from antiphon.core.config import Decoder, Decoding, Encoder, Model
from antiphon.inference.search import search
from antiphon.models.seq2seq import build

VOCABULARY, TARGET, STEPS = 8000, 60, 3
FAMILIES: dict[str, dict[str, Any]] = {
    "full": {"kind": "transformer"},
    "window": {"kind": "transformer", "window": 128},
    "window-global": {"kind": "transformer", "window": 128, "global_tokens": 4},
    "window-alibi": {"kind": "transformer", "window": 128, "positions": "alibi"},
    "window-additive": {"kind": "transformer", "window": 128, "attention": "additive"},
    "window-coverage": {"kind": "transformer", "window": 128, "attention": "coverage", "head": "copy"},
    "window-copy": {"kind": "transformer", "window": 128, "head": "copy"},
    "lstm": {"kind": "lstm"},
    "gru": {"kind": "gru"},
    "conv": {"kind": "conv"},
}
LEARNED = (20, 60)
BEYOND = (60, 120, 240, 480, 960)
PLACES: dict[str, dict[str, Any]] = {
    f"{positions}{'-window' if window else ''}": {"model.positions": positions, "model.encoder.window": window}
    for positions in ("sinusoidal", "t5", "rotary", "alibi") for window in (0, 16)
}  # fmt: skip


def peak() -> float:
    """The most memory this process held so far, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)


def network(family: str) -> Model:
    """Three layers of width 128, and a recurrent decoder of one so that what grows is the encoder and the attention."""
    given = dict(FAMILIES[family])
    outer = {name: given.pop(name) for name in ("positions", "attention", "head") if name in given}
    both = {"positions": "rotary", "attention": "multihead", "head": "vocabulary", **outer}
    return Model(
        encoder=Encoder(layers=3, **given), decoder=Decoder(kind="lstm", layers=1), width=128, feedforward=256,
        norm="pre", activation="relu", residual=True, tie="target", dropout=0.1, **both,
    )  # fmt: skip


def long_batch(length: int) -> Batch:
    """One source of so many tokens."""
    draw = torch.Generator().manual_seed(1)
    source, target = (
        [*torch.randint(4, VOCABULARY, (many - 1,), generator=draw).tolist(), EOS] for many in (length, TARGET)
    )
    return Batch(pad([source]), pad([target]), {"copy": pad([source])})


def measure(family: str, length: int, what: str) -> dict[str, Any]:
    """Peak memory above what stood before, and source tokens a CPU second."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    config = network(family)
    model = build(config, VOCABULARY, VOCABULARY).train(what == "training")
    work = train_on if what == "training" else answer
    work(model, long_batch(32))
    batch, before, begun = long_batch(length), peak(), time.process_time()
    work(model, batch)
    seconds = (time.process_time() - begun) / (STEPS if what == "training" else 1)
    return {"family": family, "length": length, "what": what, "mb": round(peak() - before, 1),
            "tokens_per_second": round(length / seconds)}  # fmt: skip


def train_on(model: Any, batch: Batch) -> None:
    """A few losses and their gradients."""
    for _ in range(STEPS):
        model.zero_grad()
        model.loss(batch, smoothing=0.1, coverage=float(model.config.attention == "coverage")).total.backward()


def answer(model: Any, batch: Batch) -> None:
    """A beam of five."""
    context = batch.context if model.config.head == "copy" else None
    search([model], batch.source, Decoding(beam=5, min_length=TARGET), max_lengths=[TARGET], context=context)


def in_a_process(*words: str) -> dict[str, Any]:
    """What another process of this file prints."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, env={**os.environ})
    if done.returncode:
        raise SystemExit(last_line(done.stderr))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def by_length(chosen: list[str], lengths: list[int]) -> Iterator[dict[str, Any]]:
    """All families at all lengths, and how memory grows from the last length but one to the last."""
    for family in chosen or FAMILIES:
        for what in ("training", "decoding"):
            rows = [in_a_process("--measure", family, str(length), what) for length in lengths]
            cells = ", ".join(f"{row['length']}: {row['mb']:.0f} MB {row['tokens_per_second']:,}/s" for row in rows)
            growth = round(rows[-1]["mb"] / max(1.0, rows[-2]["mb"]), 2) if len(rows) > 1 else None
            print(f"{family:16} {what:9} {cells}  growth {growth}", file=sys.stderr, flush=True)
            yield {"family": family, "what": what, "growth": growth, "rows": rows}


def spans(count: int, lengths: tuple[int, int], marks: int, seed: int) -> list[tuple[str, str]]:
    """Words of which some are marked: `a ( b c d ) e` is answered by `b c d`; two marked spans in their order."""
    draw, pairs = random.Random(seed), []
    for _ in range(count):
        words = draw.choices("abcdefghijklmnop", k=draw.randint(*lengths) - 5 * marks)
        places = sorted(draw.sample(range(len(words) + 1), marks), reverse=True)
        said: list[str] = []
        for place in places:
            span = draw.choices("abcdefghijklmnop", k=3)
            words[place:place] = ["(", *span, ")"]
            said = span + said
        pairs.append((" ".join(words), " ".join(said)))
    return pairs


def beyond(name: str, seed: int, marks: int) -> dict[str, Any]:
    """Trains on short sources, and gives the share of right answers to longer ones."""
    from antiphon.inference.bundle import load
    from antiphon.inference.predictor import Predictor
    from antiphon.training.start import fit

    settings = {
        **PLACES[name], "data.source.tokenizer": "whitespace", "data.target.tokenizer": "whitespace",
        "data.source.max_length": 2000, "data.batch_tokens": 4096, "data.shared": False, "model.width": 64,
        "model.feedforward": 128, "model.encoder.kind": "transformer", "model.decoder.kind": "transformer",
        "model.encoder.layers": 2, "model.decoder.layers": 1, "model.dropout": 0.0, "training.label_smoothing": 0.0,
        "training.rate": 0.003, "training.epochs": 20, "training.metric": "loss", "training.seed": seed,
        "training.precision": "fp32", "training.processes": 1, "training.threads": 1, "decoding.beam": 1,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as folder:
        run = Path(folder) / "run"
        fit(spans(3000, LEARNED, marks, 1), valid=spans(100, LEARNED, marks, 2), out=run, assignments=settings)
        predictor = Predictor(load(run), processes=1)
    right = {}
    for length in BEYOND:
        pairs = spans(100, (length, length), marks, length)
        said = [answers[0].text for answers in predictor.predict([source for source, _ in pairs])]
        right[str(length)] = sum(text == target for text, (_, target) in zip(said, pairs, strict=True))
    return {"positions": name, "marks": marks, "seed": seed, "exact": right}


def by_positions(chosen: list[str], seeds: int) -> Iterator[dict[str, Any]]:
    """All kinds of positions on both tasks, for several seeds."""
    for marks in (1, 2):
        for name in chosen or PLACES:
            for seed in range(1, seeds + 1):
                row = in_a_process("--beyond", name, str(seed), str(marks))
                print(f"{marks} marked  {name:18} seed {seed}  {row['exact']}", file=sys.stderr, flush=True)
                yield row


def main() -> int:
    """Prints the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="500,1000,2000,4000")
    parser.add_argument("--only", default="")
    parser.add_argument("--positions", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--beyond", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name]
    if options.measure:
        family, length, what = options.measure
        result: Any = measure(family, int(length), what)
    elif options.beyond:
        name, seed, marks = options.beyond
        result = beyond(name, int(seed), int(marks))
    elif options.positions:
        result = list(by_positions(chosen, options.seeds))
    else:
        result = list(by_length(chosen, [int(length) for length in options.lengths.split(",")]))
    print(json.dumps(result, indent=None if options.measure or options.beyond else 2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
