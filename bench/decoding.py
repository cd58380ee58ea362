"""Decoding speed beside Hugging Face's `generate` and CTranslate2, all with the very same weights.

    ANTIPHON_DATA=... python bench/decoding.py [--engines ours,generate] [--rounds 3] [--sentences 1000]

Antiphon trains a Transformer of 4+4 layers of width 128 on Multi30k once (kept in `bench/.work`); Marian's classes
and CTranslate2 get its weights. Beam 5 on the pieces of test_2016_flickr, each engine at the batch size that suits it
best: to each answer's own end, and at a forced length of 15. `ours-student`, of four layers and one SSRU layer, has
learned from that model and searches greedily. Interleaved, each run a process of its own that decodes some sentences
before it measures. A table on standard error, JSON on standard output (or `--json FILE`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from peers.corpus import WORK, available, prepare
from peers.install import PEERS, drive, spread, tell
from training import MODELS

ENGINES: dict[str, tuple[str, int]] = {
    "ours": ("ours", 128), "ours-thorough": ("ours", 128), "generate": ("transformers", 32),
    "ct2-fp32": ("transformers", 32), "ct2-int8": ("transformers", 32),
    "ours-student": ("ours", 128),
    **{f"{who}-{kind}": ("ours", 128 if who == "ours" else 32) for kind in ("fp32", "int8", "shortlist")
       for who in ("ours", "bare")},
}  # fmt: skip
"""Each engine's environment, and its best batch size here; `ours-thorough` with `decoding.thorough=true`, `ours-fp32`,
`ours-int8` and `ours-shortlist` (int8 too) with the model exported, and `bare-` what these are called bare;
`ours-student` for onnxruntime in int8."""
STUDENT = ["model.encoder.layers=4", "model.width=128", "model.feedforward=256", "data.batch_tokens=4096",
           "training.patience=0", "training.metric=chrf", "training.epochs=8"]  # fmt: skip
"""What `bench/distillation.py` trains its students with."""
LENGTHS = {"own length": None, "forced length 15": 15}


def trained(steps: int) -> Path:
    """The run folder of the model, trained the first time."""
    run = WORK / f"decoder-{steps}"
    if not (run / "best").exists():
        print(f"training a model for {steps} steps into {run}", file=sys.stderr, flush=True)
        task = {"model": MODELS["t128"], "data": str(prepare()), "run": str(run), "train_steps": steps}
        path = WORK / "decoder.json"
        path.write_text(json.dumps(task))
        subprocess.run([sys.executable, str(PEERS / "ours" / "prepare_model.py"), str(path)], check=True)
    return run


def taught(steps: int, pairs: str, valid: str) -> Path:
    """The run folder of the student, trained the first time."""
    run = WORK / f"decoder-{steps}-taught"
    if not (run / "best").exists():
        words = [str(trained(steps)), pairs, "--valid", valid, "--out", str(run), "--level", "both", *STUDENT]
        subprocess.run([sys.executable, "-m", "antiphon", "distill", *words], check=True, stdout=sys.stderr)
    return run


def exported(steps: int, kind: str) -> Path:
    """The model for CTranslate2, or its student for onnxruntime, exported the first time."""
    out, data = WORK / f"decoder-{steps}-{kind}", prepare()
    if not out.exists():
        pairs, valid = (f"{data / part}.en,{data / part}.de" for part in ("train", "valid"))
        more = {"fp32": ["--quantize", "none"], "shortlist": ["--shortlist", pairs], "student": ["--to", "onnx"]}
        model = taught(steps, pairs, valid) if kind == "student" else trained(steps)
        words = [str(model), str(out), "--data", valid, *more.get(kind, [])]
        subprocess.run([sys.executable, "-m", "antiphon", "export", *words], check=True, stdout=sys.stderr)
    return out


def run(engine: str, length: int | None, threads: int, given: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a fresh process: rates and answers, or `error`."""
    (place, batch), (who, _, kind) = ENGINES[engine], engine.partition("-")
    another = who in ("ours", "bare") and kind not in ("", "thorough")
    model = exported(given.steps, kind) if another else trained(given.steps)
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as folder:
        lines = (prepare() / "test.en").read_text(encoding="utf-8").split("\n")[: given.sentences]
        source = Path(folder) / "source"
        source.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        task = {
            "engine": engine, "run": str(model), "folder": folder, "source": str(source),
            "threads": threads, "batch": given.batch or batch, "length": length,
            "beam": 1 if kind == "student" else 5,
        }  # fmt: skip
        found = drive(place, "bare.py" if who == "bare" else "decode.py", task)
    if "error" in found:
        return found
    count = len(found["answers"])
    return {**found, "wall_rate": count / found["wall"], "cpu_rate": count / found["cpu"]}


def bleu(answers: list[str]) -> float:
    """Of the answers as text, against the references as pieces put together."""
    import sacrebleu

    def text(pieces: str) -> str:
        return pieces.replace(" ", "").replace("▁", " ").strip()

    references = (prepare() / "test.de").read_text(encoding="utf-8").split("\n")[: len(answers)]
    return sacrebleu.corpus_bleu([text(line) for line in answers], [[text(line) for line in references]]).score


def compare(place: str, threads: int, given: argparse.Namespace) -> dict[str, Any]:
    """All engines in turn, so many rounds."""
    engines = given.engines.split(",")
    runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    failed: dict[str, str] = {}
    for _ in range(given.rounds):
        for engine in [engine for engine in engines if engine not in failed]:
            found = run(engine, LENGTHS[place], threads, given)
            if "error" in found:
                failed[engine] = found["error"]
            else:
                runs[engine].append(found)
            told = found.get("error") or f"{found['wall_rate']:.0f} a second, {found['cpu_rate']:.0f} per CPU-s"
            print(f"  {place}, {threads} threads, {engine}: {told}", file=sys.stderr, flush=True)
    whole = {engine: found for engine, found in runs.items() if engine not in failed}
    ours = whole.get("ours", [])
    rows = {engine: summary(found, ours) for engine, found in whole.items()}
    return {"answers": place, "threads": threads, "missing": failed, "results": rows}


def summary(runs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    """Best and median rates, how good and how like ours the answers are, and how many times as fast ours is."""
    answers = runs[0]["answers"]
    words = sum(len(line.split()) + 1 for line in answers) / len(answers)
    told: dict[str, Any] = {"bleu": round(bleu(answers), 1), "tokens": round(words, 1)}
    told |= spread(runs)
    if ours:
        for rate in ("wall_rate", "cpu_rate"):
            told[f"ours_{rate}"] = round(median(a[rate] / b[rate] for a, b in zip(ours, runs, strict=True)), 2)
        same = sum(a == b for a, b in zip(answers, ours[0]["answers"], strict=True))
        told["same_as_ours"] = round(same / len(answers), 3)
    return told


def table(results: list[dict[str, Any]]) -> str:
    """For people, in Markdown."""
    lines = []
    for result in results:
        lines += [
            f"\n{result['answers']}, {'both cores' if result['threads'] > 1 else 'one core'}", "",
            "| | sentences/s, median (best) | per CPU-s, median (best) | BLEU | tokens | as ours | peak MB | "
            "ours is x times as fast: wall | CPU |", "|---|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for engine, told in result["results"].items():
            rates = [f"{told[f'{rate}_median']:,} ({told[f'{rate}_best']:,})" for rate in ("wall_rate", "cpu_rate")]
            cells = [*rates, told["bleu"], told["tokens"], told.get("same_as_ours", ""), told["peak_mb"],
                     told.get("ours_wall_rate", ""), told.get("ours_cpu_rate", "")]  # fmt: skip
            lines.append(f"| {engine} | " + " | ".join(str(cell) for cell in cells) + " |")
        lines += [f"| {engine} | failed: {why} | | | | | | | |" for engine, why in result["missing"].items()]
    return "\n".join(lines)


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1200, help="that the model is trained for")
    parser.add_argument("--batch", type=int, help="sentences a batch, instead of each engine's best")
    parser.add_argument("--json", type=Path, help="write the JSON here and not to standard output")
    given = parser.parse_args()
    if not available():
        return 0
    threads = [int(count) for count in given.threads.split(",")]
    results = [compare(place, count, given) for count in threads for place in LENGTHS]
    tell({"rounds": given.rounds, "sentences": given.sentences, "comparisons": results}, table(results), given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
