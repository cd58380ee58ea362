"""What `antiphon audit` finds, what it leaves in peace, and what it costs, on real data.

    ANTIPHON_DATA=... python bench/audit.py [--draws 100] [--parts shifts,clean,leaks,noise,cost,start]

shifts: a line goes missing, on either side at a random place of Multi30k, how often that is found, and how far from it.
clean: the verdict on sets that people train on. leaks: the dialogues of SAMSum's test part that training has too.
noise: 5 % of Multi30k's targets are mixed up; how many of these are found, and how many good ones with them.
cost: CPU seconds of the whole command for 100,000 pairs. start: the quick part's share of a training's start.
JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from _commands import antiphon, data_sets, kept
from dialogue import neighbours

from antiphon.core.config import Data
from antiphon.data.corpus import open_pairs
from antiphon.diagnosis import stretches
from antiphon.diagnosis.data import audit
from antiphon.diagnosis.lexical import Association, Content
from antiphon.diagnosis.quick import quick
from antiphon.diagnosis.stretches import WINDOW
from antiphon.diagnosis.words import cut

MULTI30K = "multi30k/train.en,multi30k/train.de"
CLEAN = {
    "multi30k": MULTI30K, "tatoeba": "tatoeba_cmn_eng/train.tsv", "samsum": "samsum/train.tsv",
    "e2e": "e2e_nlg/train.tsv", "webnlg": "webnlg/train.jsonl", "django": "django_code/train.tsv",
    "icelandic": "sigmorphon2020_g2p/ice_train.tsv", "korean": "sigmorphon2020_g2p/kor_train.tsv",
    "scan": "scan/simple.train.tsv", "scan length": "scan/length.train.tsv", "csl": "csl_zh/title.dev.tsv",
    "cmudict": "cmudict_g2p/train.tsv", "finnish": "sigmorphon2018_inflection/finnish-train-high",
    "couplets": "zh_poetry_couplets/dev.tsv", "dailydialog": "dailydialog/train.dialogues.tsv",
}  # fmt: skip


def main() -> None:
    """Measure the parts asked for."""
    parts: dict[str, Callable[[Path, argparse.Namespace], Any]] = {
        "shifts": shifts, "clean": clean, "leaks": leaks, "noise": noise, "cost": cost, "start": start,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--parts", default=",".join(parts))
    options = parser.parse_args()
    if (root := data_sets()) is not None:
        print(json.dumps({name: parts[name](root, options) for name in options.parts.split(",")}, indent=1))


def sides(root: Path, files: str) -> tuple[list[str], list[str]]:
    """The texts of both sides."""
    pairs = list(open_pairs(",".join(str(root / name) for name in files.split(",")), Data()))
    return [pair.source for pair in pairs], [pair.target for pair in pairs]


def shifts(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One line of one side is taken out at a random place, so that all after it are shifted by one."""
    texts, draw = sides(root, MULTI30K), random.Random(1)
    distances, lost = list[int](), list[int]()
    for number in range(options.draws):
        changed, place = [list(side) for side in texts], draw.randrange(len(texts[0]) - 1)
        del changed[number % 2][place]
        changed[number % 2].append("")
        found = look(*changed)
        first = next((stretch.start for stretch in found if stretch.offset in (-1, 1)), None)
        if first is None:
            lost.append(place)
        else:
            distances.append(abs(first - place))
    within = sum(distance <= 20 for distance in distances)
    return {"draws": options.draws, "found": len(distances), "found within 20 lines": within, "not found": lost,
            "of lines": len(texts[0]), "median distance": sorted(distances)[len(distances) // 2],
            "largest distance": max(distances)}  # fmt: skip


def look(sources: Sequence[str], targets: Sequence[str]) -> list[stretches.Stretch]:
    """The part of an audit that looks for misaligned stretches."""
    words = Content.of(cut(sources)), Content.of(cut(targets))
    return stretches.find(sources, targets, *words, Association.learn(*words, range(-WINDOW, WINDOW + 1)))


def clean(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The verdict and the findings, notes left out, on each set; dialogues as each utterance and the next."""
    found: dict[str, Any] = {}
    with kept(None) as folder:
        for name, files in CLEAN.items():
            data = ",".join(str(root / file) for file in files.split(","))
            if name == "dailydialog":
                data = written(folder / "dialogue.tsv", neighbours(root / files))
            result = audit(data)
            told = {finding.kind: len(finding.lines) for finding in result.findings if finding.level != "note"}
            found[name] = {"verdict": result.to_dict()["verdict"], "findings": told, "pairs": len(result.data),
                           "cpu_seconds": round(result.seconds, 1)}  # fmt: skip
    return {"sets": len(found), "stops": sum(each["verdict"] == "stop" for each in found.values()), "each": found}


def written(path: Path, pairs: Iterator[tuple[str, str]]) -> str:
    """A file of pairs with a tab between."""
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8", newline="\n")
    return str(path)


def leaks(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What SAMSum's other parts share with training."""
    folder = root / "samsum"
    result = audit(str(folder / "train.tsv"), valid=str(folder / "valid.tsv"), test=str(folder / "test.tsv"))
    return {finding.kind: dict(finding.figures) for finding in result.findings if "in training" in finding.kind}


def noise(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One target in twenty belongs to another source."""
    sources, targets = sides(root, MULTI30K)
    rows = random.Random(1).sample(range(len(sources)), len(sources) // 20)
    mixed = [targets[row] for row in rows[1:] + rows[:1]]
    for row, target in zip(rows, mixed, strict=True):
        targets[row] = target
    with kept(None) as folder:
        result = audit(written(folder / "noise.tsv", clean_tabs(sources, targets)))
    [finding] = [finding for finding in result.findings if finding.kind == "noise"]
    right = len({*finding.lines} & {row + 1 for row in rows})
    return {
        "estimate": finding.figures["noise"],
        "listed": len(finding.lines),
        "of these wrong": right,
        "wrong": len(rows),
    }


def clean_tabs(sources: Sequence[str], targets: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs without tabs in their texts."""
    for source, target in zip(sources, targets, strict=True):
        yield source.replace("\t", " "), target.replace("\t", " ")


def cost(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The whole command on 100,000 pairs: those of Multi30k several times, with other numbers in each."""
    with kept(None) as folder:
        path = Path(written(folder / "pairs.tsv", many(*sides(root, MULTI30K), 100_000)))
        done = antiphon("audit", str(path), "--json", threads=1)
        return {"pairs": 100_000, "megabytes": round(path.stat().st_size / 1e6, 1),
                "cpu_seconds": round(done.cpu_seconds, 1), "verdict": json.loads(done.output)["verdict"]}  # fmt: skip


def many(sources: Sequence[str], targets: Sequence[str], count: int) -> Iterator[tuple[str, str]]:
    """So many pairs, none of them twice."""
    pairs = list(clean_tabs(sources, targets))
    for number in range(count):
        source, target = pairs[number % len(pairs)]
        yield f"{source.rstrip('.')} {number}.", f"{target.rstrip('.')} {number}."


def start(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of a training of one step, and of the quick part on the same pairs held in memory."""
    files = ",".join(str(root / name) for name in MULTI30K.split(","))
    with kept(None) as folder:
        words = ["train", files, "--task", "translation", "--out", str(folder / "run"), "training.steps=1"]
        done = antiphon(*words, "training.threads=1", "training.processes=1", threads=1)
    pairs = list(open_pairs(files, Data()))
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        quick(pairs)
        seconds.append(time.process_time() - begun)
    said = re.findall("warning", done.output)
    return {"start": round(done.cpu_seconds, 1), "quick part": round(min(seconds), 3), "warnings": len(said),
            "share": round(min(seconds) / done.cpu_seconds, 4)}  # fmt: skip


if __name__ == "__main__":
    main()
