"""Which objective gives the better dialogue, at which variety: likelihood, adversarial, unlikelihood, MMI, temperature.

    ANTIPHON_DATA=... python bench/dialogue.py [--out FOLDER] [--share 1.0] [--test 1000]

DailyDialog (Li et al. 2017), each utterance an answer to the one before it. Every model goes on from the same one by
likelihood, for the same minutes, likelihood itself too; `antiphon sweep` compares all of them along temperature, since
one decoding of each would say nothing (Caccia et al. 2020). About half an hour on two quiet cores; --share 0.05 is a
quick look. JSON on standard output; with --out the runs, the plot (sweep.html) and its numbers are kept, and what is
there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from _commands import data_sets

MINUTES = {"likelihood": 7.0, "backward": 3.0, "adversarial": 5.0, "unlikelihood": 5.0, "longer": 5.0}
NETWORK = [
    "model.encoder.kind=lstm", "model.decoder.kind=lstm", "model.width=192", "model.encoder.layers=1",
    "model.decoder.layers=2", "data.source.vocabulary=4000", "data.target.vocabulary=4000", "data.shared=true",
    "data.target.max_length=40", "data.too_long=skip", "training.patience=0",
]  # fmt: skip
GOING_ON = [
    "training.metric=bleu:2", "training.patience=0", "training.rate=0.0003", "training.label_smoothing=0.1",
    "data.too_long=skip",
]  # fmt: skip
VALID = 1500
"""Held-out pairs: more would take a large share of so few minutes."""
OBJECTIVES = {
    "adversarial": ["training.objective=adversarial", "training.likelihood=0.3", "data.batch_tokens=2048"],
    "unlikelihood": ["training.objective=unlikelihood"],
    "longer": [],
}
"""What goes on from the likelihood model; `longer` is its control."""


def main() -> None:
    """Train, sweep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the runs and the plot in this folder")
    parser.add_argument("--share", type=float, default=1.0, help="of the minutes of each training")
    parser.add_argument("--test", type=int, default=1000, help="test pairs to answer")
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        prepare(root / "dailydialog", out, options.test)
        print(json.dumps(measure(out, options.share), indent=1))


def prepare(folder: Path, out: Path, test: int) -> None:
    """Pairs of neighbouring utterances, of those not trained on an even sample."""
    out.mkdir(parents=True, exist_ok=True)
    for part in ("train", "valid", "test"):
        pairs = list(neighbours(folder / f"{part}.dialogues.tsv"))
        if part != "train":
            most = test if part == "test" else VALID
            pairs = pairs[:: max(1, len(pairs) // most)][:most]
        for name, columns in ((part, ("source", "target")), (f"{part}.backward", ("target", "source"))):
            lines = (json.dumps(dict(zip(columns, pair, strict=True)), ensure_ascii=False) for pair in pairs)
            (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def neighbours(path: Path) -> Iterator[tuple[str, str]]:
    """Each utterance and the next one."""
    for line in path.read_text(encoding="utf-8").splitlines():
        turns = [turn.strip() for turn in line.split("\t") if turn.strip()]
        yield from pairwise(turns)


def antiphon(*words: str) -> None:
    """Run a command as a user would; what it says goes to standard error."""
    subprocess.run([sys.executable, "-m", "antiphon", *words], stdout=sys.stderr, check=True)


def measure(out: Path, share: float) -> dict[str, Any]:
    """Train all models and compare them."""

    def train(name: str, *words: str, back: str = "") -> None:
        if (out / name / "best").exists():
            return
        files = [str(out / f"train{back}.jsonl"), "--valid", str(out / f"valid{back}.jsonl")]
        minutes = f"training.minutes={MINUTES[name] * share:g}"
        antiphon("train", *files, "--task", "dialogue", "--out", str(out / name), minutes, *words)

    train("likelihood", *NETWORK)
    train("backward", *NETWORK, back=".backward")
    for name, words in OBJECTIVES.items():
        train(name, "--from", str(out / "likelihood"), *GOING_ON, *words)
    models = [str(out / name) for name in ("likelihood", *OBJECTIVES)]
    antiphon("sweep", *models, str(out / "test.jsonl"), "--backward", str(out / "backward"), "--out",
             str(out / "sweep.html"), "beam=10")  # fmt: skip
    return {"minutes": {name: minutes * share for name, minutes in MINUTES.items()}, **told(out / "sweep.json")}


def told(path: Path) -> dict[str, Any]:
    """The numbers of a sweep without the answers."""
    values = json.loads(path.read_text(encoding="utf-8"))
    kept = []
    for point in values["points"]:
        scores = {name: {key: score[key] for key in ("value", "interval")} for name, score in point["scores"].items()}
        kept.append({**{key: point[key] for key in ("model", "how", "temperature")}, "scores": scores})
    return {"command": values["command"], "points": kept}


if __name__ == "__main__":
    main()
