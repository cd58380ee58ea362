"""Decoding by PyTorch and by onnxruntime, fp32 and int8: the same models, search and answers, one thread.

    ANTIPHON_DATA=... python bench/engines.py [--models lstm,transformer] [--rounds 3] [--sentences 200]

A model of each kind is trained on Multi30k for some steps once (kept in `bench/.work`), or given as a run or a bundle
(`--models path/to/run`). Beam 5 on the pieces of test_2016_flickr, to each answer's own end, at several batch sizes,
all engines in turn; sentences per second of CPU time, the share of answers that are PyTorch's, BLEU, and the size of
all that answers need but the settings (weights, vocabulary, tokenizer). A table on standard error, JSON on standard
output (or `--json FILE`).
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from decoding import bleu
from peers.corpus import WORK, available, prepare
from peers.install import tell

SIZES = {
    "lstm": {"model.width": 256, "model.encoder.layers": 2, "model.decoder.layers": 2},
    "transformer": {"model.width": 128, "model.encoder.layers": 4, "model.decoder.layers": 4},
}
ENGINES = ("PyTorch", "onnxruntime", "onnxruntime int8")


def trained(kind: str, steps: int) -> Path:
    """The run folder of the model, trained the first time."""
    from antiphon.training.start import fit

    if kind not in SIZES:
        return Path(kind)
    run = WORK / f"engine-{kind}-{steps}"
    if not (run / "best").exists():
        print(f"training a {kind} for {steps} steps into {run}", file=sys.stderr, flush=True)
        settings = {
            "model.encoder.kind": kind, "model.decoder.kind": kind, "model.tie": "all", "data.shared": True,
            "data.source.tokenizer": "whitespace", "data.target.tokenizer": "whitespace", "data.batch_tokens": 4096,
            "training.rate": 2e-3, "training.warmup": 100, "training.steps": steps, "training.metric": "loss",
            "training.validate_every": steps, "training.schedule": "cosine", "decoding.beam": 5, **SIZES[kind],
        }  # fmt: skip
        pairs, valid = ((prepare() / f"{part}.en", prepare() / f"{part}.de") for part in ("train", "valid"))
        fit(pairs, valid=valid, out=run, task="translation", assignments=settings)
    return run


def engines(run: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A predictor for each engine, and bytes of what it needs besides the settings."""
    from antiphon.export.onnx import convert
    from antiphon.inference.bundle import Stored, bundle_files, engines_of, load
    from antiphon.inference.predictor import Predictor

    bundle = load(run)
    files = bundle_files(model=bundle.model, task=bundle.task, config=bundle.config, card={})
    rest = sum(len(content) for name, content in files.items() if name.startswith(("shared", "source", "target")))
    predictors = {"PyTorch": Predictor(bundle, processes=1)}
    sizes = {"PyTorch": rest + len(files["model.safetensors"])}
    nothing = Stored(None, bundle.config, (bundle.task.source.size, bundle.task.target.size), bundle.path)
    for quantize in ("none", "int8"):
        graphs = convert(bundle, quantize=quantize)
        predictor = Predictor(replace(bundle, network=nothing, engines=engines_of(graphs)), processes=1)
        predictors[predictor.engine.name] = predictor
        sizes[predictor.engine.name] = rest + sum(map(len, graphs.values()))
    return predictors, sizes


def compare(kind: str, batch: int, predictors: dict[str, Any], sizes: dict[str, int], given: Any) -> dict[str, Any]:
    """All engines in turn, so many rounds; medians, and ratios of the rounds."""
    count = given.sentences if batch > 1 else min(given.sentences, 50)
    lines = (prepare() / "test.en").read_text(encoding="utf-8").split("\n")[:count]
    rates: dict[str, list[float]] = {name: [] for name in predictors}
    answers: dict[str, list[str]] = {}
    for number in range(given.rounds + 1):
        for name, predictor in predictors.items():
            settings = replace(predictor.config.decoding, beam=given.beam, n_best=1)
            begun = time.process_time()
            found = [mine[0].text for mine in predictor.predict(lines, settings=settings, batch_size=batch)]
            if number:  # the first round warms up
                rates[name].append(count / (time.process_time() - begun))
                answers[name] = found
    rows = {}
    for name in predictors:
        ratio = median(a / b for a, b in zip(rates[name], rates["PyTorch"], strict=True))
        same = sum(a == b for a, b in zip(answers[name], answers["PyTorch"], strict=True)) / count
        rows[name] = {
            "cpu_rate": round(median(rates[name]), 1), "times": round(ratio, 2), "same": round(same, 3),
            "bleu": round(bleu(answers[name]), 1), "mb": round(sizes[name] / 1e6, 2),
        }  # fmt: skip
        print(f"  {kind}, batch {batch}, {name}: {rows[name]}", file=sys.stderr, flush=True)
    return {"model": kind, "batch": batch, "beam": given.beam, "sentences": count, "results": rows}


def table(results: list[dict[str, Any]]) -> str:
    """For people, in Markdown."""
    lines = ["| model | batch | engine | sentences per CPU-s | times PyTorch | same answers | BLEU | MB |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for result in results:
        for name, row in result["results"].items():
            cells = [result["model"], result["batch"], name, row["cpu_rate"], row["times"], f"{row['same']:.1%}"]
            lines.append("| " + " | ".join(map(str, [*cells, row["bleu"], row["mb"]])) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="lstm,transformer", help="kinds, runs or bundles")
    parser.add_argument("--batches", default="1,8,128")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--steps", type=int, default=400, help="that a model is trained for")
    parser.add_argument("--json", type=Path, help="write the JSON here and not to standard output")
    given = parser.parse_args()
    if not available():
        return 0
    results = []
    for kind in given.models.split(","):
        predictors, sizes = engines(trained(kind, given.steps))
        for batch in map(int, given.batches.split(",")):
            results.append(compare(kind, batch, predictors, sizes, given))
    tell({"rounds": given.rounds, "comparisons": results}, table(results), given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
