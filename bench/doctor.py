"""Faults that somebody could have made, planted in small trainings on real data, and what `antiphon doctor` finds.

    ANTIPHON_DATA=... python bench/doctor.py [--faults 40] [--healthy 20] [--seed 1] [--only NAME,..] [--cure] [--out F]

A third of the faults are drawn by the seed from families with free parameters: which set, which model, how strong. Each
run is one `antiphon train` of half a CPU minute in a process of its own, and then one `antiphon doctor --json`. Told
are the share of faults whose cause comes first and among the first three, the healthy runs in which a cause is held to
be sure (0.7 or more), and which cause is taken for which. With `--cure` the doctor's cures are applied to each fault,
and the best score compared with that of the healthy run of the same set and model: of those that settings cure, how
many come to 90 % of it (of errors in a hundred, by what is right). JSON on standard output, progress on the other.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from _commands import antiphon, data_sets, kept
from _faults import FAMILIES, FIXED, SETS, Fault, Pairs, healthy, seen

from antiphon.core.config import Data
from antiphon.data.corpus import open_pairs

SURE, HELD_OUT, BACK = 0.7, 200, 0.9
MACHINE = ["training.threads=1", "training.processes=1", "training.precision=fp32"]
SMALL = {"model.width": 64, "model.encoder.layers": 1, "model.decoder.layers": 1}
"""What keeps a run short: half the width that recipes propose, which is a healthy choice."""


def main() -> None:
    """Plant, train, examine, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--healthy", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="names, or parts of them, with commas between")
    parser.add_argument("--cure", action="store_true")
    parser.add_argument("--out", type=Path, default=None, help="keep the runs there")
    options = parser.parse_args()
    root = data_sets()
    if root is None:
        return
    with kept(options.out) as folder:
        cases = [case for case in chosen(options) if not options.only or any(
            part in case.name for part in options.only.split(","))]  # fmt: skip
        told = [tell(case, root, folder, options) for case in cases]
    print(json.dumps({**summary(told), "runs": told}, indent=1))


def chosen(options: argparse.Namespace) -> Iterator[Fault]:
    """The fixed faults, evenly thinned to two thirds of all, those drawn, and healthy runs."""
    draw = random.Random(options.seed)
    many = round(options.faults * 2 / 3)
    places = range(len(FIXED)) if many >= len(FIXED) else sorted(draw.sample(range(len(FIXED)), many))
    yield from (FIXED[place] for place in places)
    families = list(FAMILIES)
    draw.shuffle(families)
    for number in range(options.faults - many):
        yield families[number % len(families)](draw)
    for number in range(options.healthy):
        yield healthy(draw, number)


def tell(case: Fault, root: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train, examine, and what came of it."""
    made = f"{plant(case, root, options.seed)} {case.settings} {case.vectors}"
    place = folder / case.name.replace("/", "-") / str(zlib.crc32(made.encode()))
    place.mkdir(parents=True, exist_ok=True)
    run = place / "run"
    error = "" if (run / "best").exists() else trained(case, root, place, options.seed)
    if error and not (run / "log.jsonl").exists():
        return {"name": case.name, "cause": case.cause, "settings": shown(case), "error": error, "found": []}
    done = subprocess.run([sys.executable, "-m", "antiphon", "doctor", str(run), "--json"], stdout=subprocess.PIPE)
    told = json.loads(done.stdout)
    found = [(each["cause"], each["confidence"]) for each in told["findings"]]
    result = {"name": case.name, "cause": case.cause, "settings": shown(case), "found": found, "score": best(run),
              "doctor_cpu_seconds": told["cpu_seconds"]}  # fmt: skip
    if options.cure and curable(case):
        result |= cured(case, run, root, folder, options)
    print(
        case.name,
        *(f"{cause} {confidence:.2f}" for cause, confidence in found[:3]),
        sep="  ",
        file=sys.stderr,
        flush=True,
    )
    return result


def shown(case: Fault) -> dict[str, Any]:
    """The settings of the patch, as they are typed."""
    return {key: str(value) for key, value in case.settings.items()}


def trained(case: Fault, root: Path, place: Path, seed: int) -> str:
    """One run; what it says where it fails."""
    files, held = [place / "train.tsv", place / "valid.tsv"], SETS[case.on]
    for path, pairs in zip(files, plant(case, root, seed), strict=True):
        rows = "".join(f"{source}\t{target}\n" for source, target in pairs)
        path.write_text(rows, encoding="utf-8", newline="\n")
    kinds = [f"model.{side}.kind={case.model}" for side in ("encoder", "decoder")]
    own = {"training.steps", "training.epochs"} & set(case.settings)
    budget: dict[str, Any] = {} if own else {"training.epochs": held.epochs[case.model]}
    if case.vectors:
        budget["data.source.vectors"] = vectors(case.vectors, place, read(root, held.train)[: held.size], seed)
    words = [f"{key}={value}" for key, value in {**SMALL, **budget, **case.settings}.items()]
    given = [str(files[0]), "--valid", str(files[1]), "--out", str(place / "run"), "--task", held.task]
    command = [sys.executable, "-m", "antiphon", "train", *given, *MACHINE, *kinds, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


def plant(case: Fault, root: Path, seed: int) -> tuple[Pairs, Pairs]:
    """Training and held-out pairs, with what is wrong in them."""
    held, draw = SETS[case.on], random.Random(seed)
    pairs = read(root, held.train)
    file = case.valid_of or held.valid
    valid = read(root, file)[:HELD_OUT] if file else pairs[held.size : held.size + HELD_OUT]
    pairs = pairs[: held.size]
    if case.spoil is not None:
        pairs = case.spoil(pairs, draw)
        valid = case.spoil(valid, draw) if case.cause == "label leak" else valid
    if case.spoil_valid is not None:
        valid = pairs[:HELD_OUT] if case.spoil_valid is seen else case.spoil_valid(valid, draw)
    return pairs, valid


def vectors(size: float, place: Path, pairs: Pairs, seed: int) -> Path:
    """A file of word vectors of the sources that say nothing, in numbers of this size."""
    draw, path = random.Random(seed), place / "vectors.txt"
    known = sorted({word for source, _ in pairs for word in source.split()})
    rows = (" ".join([word, *(f"{draw.gauss(0, size):.4f}" for _ in range(SMALL["model.width"]))]) for word in known)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def read(root: Path, files: str) -> Pairs:
    """Pairs of a set, shuffled in the same way each time; of inflection the features go with the lemma."""
    if "inflection" in files:
        rows = [line.split("\t") for line in (root / files).read_text(encoding="utf-8").splitlines()]
        pairs = [(f"{lemma} {features}", form) for lemma, form, features in rows]
    else:
        data = Data(empty="skip", columns=("mr", "refs") if files.endswith(".jsonl") else ())
        found = open_pairs(",".join(str(root / name) for name in files.split(",")), data)
        pairs = [(pair.source.replace("\t", " "), pair.target.replace("\t", " ")) for pair in found]
    random.Random(0).shuffle(pairs)
    return pairs


def best(run: Path) -> dict[str, float]:
    """The scores of the best weights."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [event for event in events if event["event"] == "validation" and event["best"]]
    return {name: score["value"] for name, score in kept[-1]["scores"].items()} if kept else {}


def curable(case: Fault) -> bool:
    """Whether settings alone can make the run a healthy one: its pairs are sound, or harm by their gradients alone."""
    sound = case.spoil is None and case.spoil_valid is None and not case.valid_of
    return case.cause == "poisonous batch" or (case.cause != "healthy" and sound)


def cured(case: Fault, run: Path, root: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The doctor's cures applied, and the best score beside that of the healthy run."""
    out, well = run.parent / "cured", folder / f"well-{case.on}-{case.model}"
    if not out.exists():
        words = ["doctor", str(run), "--cure", "--out", str(out)]
        subprocess.run([sys.executable, "-m", "antiphon", *words], capture_output=True)
    if not (well / "run/best").exists():
        well.mkdir(parents=True, exist_ok=True)
        trained(Fault("healthy", case.on, case.model), root, well, options.seed)
    metric = json.loads((run / "config.json").read_bytes())["training"]["metric"]
    places = sorted(run.parent.glob("cured*"))
    scores = [found[metric] for place in places if metric in (found := after(place, metric))]
    wanted = best(well / "run")
    return {"metric": metric, "cured": scores, "well": wanted.get(metric),
            "back": round(max((share(metric, score, wanted) for score in scores), default=0.0), 3)}  # fmt: skip


def after(place: Path, metric: str) -> dict[str, float]:
    """The best scores of a run; of a model with another search those of its answers."""
    if (place / "log.jsonl").exists():
        return best(place)
    told = antiphon("evaluate", str(place), str(place.parent / "valid.tsv"), "--metrics", metric, "--json")
    return {name: score["value"] for name, score in json.loads(told.output)["scores"].items()}


def share(metric: str, score: float, well: dict[str, float]) -> float:
    """How much of the healthy run's score this is."""
    if metric in ("error", "wer"):
        return (100 - score) / max(1e-9, 100 - well[metric])
    return well[metric] / score if metric == "loss" else score / well[metric]


def summary(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares over all faults, and which cause was taken for which."""
    faults = [each for each in told if each["cause"] != "healthy"]
    well = [each for each in told if each["cause"] == "healthy"]
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    for each in told:
        confusion[each["cause"]][each["found"][0][0] if each["found"] else "nothing"] += 1
    return {
        "faults": len(faults), "failed to train": sum("error" in each for each in told),
        "first": sum(each["cause"] in [cause for cause, _ in each["found"][:1]] for each in faults),
        "in the first three": sum(each["cause"] in [cause for cause, _ in each["found"][:3]] for each in faults),
        "healthy": len(well),
        "false alarms": sum(any(confidence >= SURE for _, confidence in each["found"]) for each in well),
        "cured": sum(each.get("back", 0) >= BACK for each in faults), "curable": sum("back" in each for each in faults),
        "confusion": {cause: dict(found) for cause, found in sorted(confusion.items())},
    }  # fmt: skip


if __name__ == "__main__":
    main()
