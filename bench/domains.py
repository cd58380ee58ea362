"""A translator of single sentences meets dialogue: what each way of going on gains there, and forgets of the old.

    ANTIPHON_DATA=... python bench/domains.py [--base 7] [--each 2.5] [--ways full,adapter] [--out FOLDER]

Chinese to English: Tatoeba, then 1,000 dialogues of XDailyDialog, utterance by utterance; tests are Tatoeba's and every
sixth utterance of XDailyDialog's. `--base` and `--each` are minutes of training. Runs `antiphon train` and `antiphon
compare` as a user would. JSON on standard output: for each way both models' scores on both test sets with intervals,
their paired difference, minutes, and the bytes that are new.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _commands import TRANSFORMER, antiphon, data_sets, kept

OLD, NEW = "tatoeba_cmn_eng", "xdailydialog_zh_en"
METRICS = "chrf,bleu"
SIXTH = 6
"""Of the new test set every so manieth pair."""

WAYS: dict[str, list[str]] = {
    "full": [],
    "mixed": ["--mix", "OLD"],
    "l2_start": ["training.l2_start=0.001"],
    "adapter": ["--adapter", "dialogue"],
    "adapter-64": ["--adapter", "dialogue", "model.adapter.rank=64"],
}
"""The ways to go on, as words of the command; OLD is the old training data."""


def swapped(source: Path, target: Path) -> str:
    """Tatoeba from Chinese to English."""
    lines = [line.split("\t") for line in source.read_text(encoding="utf-8").splitlines()]
    return write(target, [(chinese, english) for english, chinese in lines])


def utterances(folder: Path, part: str, target: Path, step: int = 1) -> str:
    """The utterances of dialogues that have as many in both languages."""
    both = [(folder / f"{part}.{name}.dialogues.tsv").read_text(encoding="utf-8").splitlines() for name in ("zh", "en")]
    dialogues = [[each.split("\t") for each in pair] for pair in zip(*both, strict=True)]
    pairs = [pair for zh, en in dialogues if len(zh) == len(en) for pair in zip(zh, en, strict=True) if all(pair)]
    return write(target, pairs[::step])


def write(path: Path, pairs: list[tuple[str, str]]) -> str:
    """The pairs as a table; gives its path."""
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return str(path)


def prepared(root: Path, out: Path) -> dict[str, str]:
    """All files of pairs by name."""
    old = {f"old-{part}": swapped(root / OLD / f"{part}.tsv", out / f"old-{part}.tsv")
           for part in ("train", "dev", "test")}  # fmt: skip
    parts = (("train", "part1k", 1), ("dev", "dev", SIXTH), ("test", "test", SIXTH))
    return old | {
        f"new-{name}": utterances(root / NEW, part, out / f"new-{name}.tsv", step) for name, part, step in parts
    }


def measure(way: str, files: dict[str, str], out: Path, minutes: float) -> dict[str, Any]:
    """Go on in this way; gives gain and forgetting."""
    words = [files["old-train"] if word == "OLD" else word for word in WAYS[way]]
    run, base = str(out / way), str(out / "base")
    trained = antiphon("train", files["new-train"], "--valid", files["new-dev"], "--from", base, "--out", run,
                       *words, f"training.minutes={minutes}")  # fmt: skip
    adapter = ["--adapter", "dialogue"] if "--adapter" in words else []
    told = antiphon("compare", base, run, files["new-test"], "--old", files["old-test"], *adapter, "--json",
                    "--metrics", METRICS)  # fmt: skip
    found = json.loads(told.output)
    kinds = {side: {part: {metric: found[side][part][metric] for metric in METRICS.split(",")}
                    for part in ("before", "after", "difference")} for side in ("new", "old")}  # fmt: skip
    added = Path(run, "best/adapters/dialogue.safetensors" if adapter else "best/model.safetensors").stat().st_size
    return {**kinds, "minutes": round(trained.wall_seconds / 60, 2), "new_bytes": added}


def main() -> None:
    """Measure the ways asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=float, default=7, help="minutes of training on the old data")
    parser.add_argument("--each", type=float, default=2.5, help="minutes of training on the new data, for each way")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--out", type=Path, help="keep data and runs in this folder, and use the base that is there")
    options = parser.parse_args()
    if (root := data_sets()) is None:
        return
    with kept(options.out) as out:
        files = prepared(root, out)
        if not (out / "base/best").exists():
            antiphon("train", files["old-train"], "--valid", files["old-dev"], "--task", "translation", "--out",
                     str(out / "base"), *TRANSFORMER, f"training.minutes={options.base}")  # fmt: skip
        ways = {way: measure(way, files, out, options.each) for way in options.ways.split(",")}
        card = json.loads((out / "base/best/manifest.json").read_bytes())["card"]
    about = {"base": {name: card[name] for name in ("steps", "minutes", "pairs")}, "each_minutes": options.each}
    print(json.dumps({**about, "ways": ways}, indent=1))


if __name__ == "__main__":
    main()
