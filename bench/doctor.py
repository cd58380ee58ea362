"""Faults that somebody could have made, planted in small trainings on real data, and what `antiphon doctor` finds.

    ANTIPHON_DATA=... python bench/doctor.py [--faults 40] [--healthy 20] [--seed 1] [--only NAME,..] [--cure] [--out F]

A third of the faults are drawn by the seed from families with free parameters: which set, which model, how strong. Each
run is one `antiphon train` of half a CPU minute in a process of its own, and then one `antiphon doctor --json`. Told
are the share of faults whose cause comes first and among the first three, the healthy runs in which a cause is held to
be sure (0.7 or more), and which cause is taken for which. With `--cure` the doctor's cure is applied to each fault, and
the best score compared with that of the healthy run of the same set and model. JSON on standard output, progress on the
other.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _commands import data_sets, kept

from antiphon.core.config import Data
from antiphon.data.corpus import open_pairs

Pairs = list[tuple[str, str]]
Spoil = Callable[[Pairs, random.Random], Pairs]
SURE, HELD_OUT = 0.7, 200
MACHINE = ["training.threads=1", "training.processes=1", "training.precision=fp32"]
SMALL = {"model.width": 64, "model.encoder.layers": 1, "model.decoder.layers": 1}
"""What keeps a run short: half the width that recipes propose, which is a healthy choice."""


@dataclass(frozen=True)
class Set:
    """A real set, cut down: files, most pairs, and what makes a healthy run of half a CPU minute of each model."""

    train: str
    valid: str
    size: int
    epochs: dict[str, int]
    task: str = "transduction"


SETS = {
    "icelandic": Set("sigmorphon2020_g2p/ice_train.tsv", "sigmorphon2020_g2p/ice_dev.tsv", 2400,
                     {"lstm": 14, "gru": 14, "transformer": 14, "rnn": 14}),
    "inflection": Set("sigmorphon2018_inflection/english-train-high", "sigmorphon2018_inflection/english-dev", 2000,
                      {"lstm": 12, "gru": 12, "transformer": 12, "rnn": 12}),
    "scan": Set("scan/simple.train.tsv", "scan/simple.test.tsv", 2000, {"lstm": 30, "gru": 30, "transformer": 25}),
    "e2e": Set("e2e_nlg/train.tsv", "e2e_nlg/dev.multi_ref.jsonl", 2000,
               {"lstm": 8, "gru": 8, "transformer": 8}, "data-to-text"),
    "multi30k": Set("multi30k/train.en,multi30k/train.de", "multi30k/val.en,multi30k/val.de", 3000,
                    {"transformer": 10, "gru": 10, "lstm": 10}, "translation"),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """A cause, and the patch that makes it: settings, or changed pairs of training or of validation."""

    cause: str
    on: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    spoil: Spoil | None = None
    spoil_valid: Spoil | None = None
    valid_of: str = ""
    """The file whose pairs are held out instead of the set's own."""
    vectors: bool = False
    """Whether word vectors are given, which somebody drew at random."""
    drawn: bool = False

    @property
    def name(self) -> str:
        """Cause, set and model."""
        return f"{self.cause}/{self.on}/{self.model}{'/drawn' if self.drawn else ''}".replace(" ", "_")


def shifted(start: float) -> Spoil:
    """From a place on each target stands one line too early."""

    def spoil(pairs: Pairs, draw: random.Random) -> Pairs:
        place = int(start * len(pairs))
        targets = [target for _, target in pairs]
        targets = [*targets[:place], *targets[place + 1 :], targets[place]]
        return [(source, target) for (source, _), target in zip(pairs, targets, strict=True)]

    return spoil


def mixed(share: float) -> Spoil:
    """A share of the targets belong to other sources."""

    def spoil(pairs: Pairs, draw: random.Random) -> Pairs:
        rows = draw.sample(range(len(pairs)), int(share * len(pairs)))
        others = {row: pairs[other][1] for row, other in zip(rows, rows[1:] + rows[:1], strict=True)}
        return [(source, others.get(row, target)) for row, (source, target) in enumerate(pairs)]

    return spoil


def copied(share: float) -> Spoil:
    """A share of the targets are their sources."""
    return lambda pairs, draw: [(s, s if draw.random() < share else t) for s, t in pairs]


def dulled(share: float, text: str = "i don't know .") -> Spoil:
    """A share of the targets are one answer."""
    return lambda pairs, draw: [(s, text if draw.random() < share else t) for s, t in pairs]


def leaking(mark: str) -> Spoil:
    """Each source ends with its target."""
    return lambda pairs, draw: [(f"{s} {mark} {t}", t) for s, t in pairs]


def capitals(pairs: Pairs, draw: random.Random) -> Pairs:
    """Sources shouted."""
    return [(source.upper(), target) for source, target in pairs]


def poisoned(count: int, length: int) -> Spoil:
    """A few pairs whose target is one symbol, over and over."""

    def spoil(pairs: Pairs, draw: random.Random) -> Pairs:
        symbol = draw.choice([word for _, target in pairs[:50] for word in target.split()])
        rows = draw.sample(range(len(pairs)), count)
        return [(s, " ".join([symbol] * length) if row in rows else t) for row, (s, t) in enumerate(pairs)]

    return spoil


def cut(words: int) -> Spoil:
    """Of each target the first few words."""
    return lambda pairs, draw: [(s, " ".join(t.split()[:words])) for s, t in pairs]


def twice(share: float) -> Spoil:
    """A share of the targets are said twice."""
    return lambda pairs, draw: [(s, f"{t} {t}" if draw.random() < share else t) for s, t in pairs]


def few(count: int) -> Spoil:
    """Only so many pairs."""
    return lambda pairs, draw: pairs[:count]


def seen(pairs: Pairs, draw: random.Random) -> Pairs:
    """The pairs as they are: `plant` puts training pairs in their place."""
    return pairs


SHORT = {"training.epochs": 3}
"""What is wrong with pairs is there however long a training is."""

FIXED: tuple[Fault, ...] = (
    Fault("rate too high", "icelandic", "lstm", {"training.rate": 0.08}),
    Fault("rate too high", "e2e", "transformer", {"training.rate": 0.05}),
    Fault("rate too low", "inflection", "gru", {"training.rate": 3e-5}),
    Fault("rate too low", "multi30k", "transformer", {"training.rate": 2e-5}),
    Fault("no warm-up", "e2e", "transformer", {"training.warmup": 0, "model.norm": "post", "model.encoder.layers": 6,
                                               "model.decoder.layers": 6, "training.epochs": 4}),
    Fault("vanishing gradients", "icelandic", "rnn", {"model.encoder.layers": 6, "model.decoder.layers": 6,
                                                      "model.residual": False, "model.norm": "none"}),
    Fault("vanishing gradients", "scan", "transformer", {"model.encoder.layers": 8, "model.decoder.layers": 8,
                                                         "model.residual": False, "training.epochs": 3}),
    Fault("exploding gradients", "inflection", "rnn", {
        "training.clip": 0, "training.optimizer": "sgd", "model.activation": "relu", "model.norm": "none"}),
    Fault("poisonous batch", "icelandic", "gru", {"training.clip": 0, "data.target.max_length": 400}, poisoned(2, 190)),
    Fault("batch too small", "inflection", "transformer", {"data.batch_tokens": 60, "training.epochs": 2}),
    Fault("ended early", "icelandic", "transformer", {"training.epochs": 2}),
    Fault("ended early", "scan", "lstm", {"training.epochs": 1}),
    Fault("overfitting", "multi30k", "gru", {"model.dropout": 0, "training.label_smoothing": 0, "training.epochs": 60,
                                             "training.metric": "loss", "training.patience": 0}, few(500)),
    Fault("too much regularization", "icelandic", "gru", {"model.dropout": 0.8}),
    Fault("too much regularization", "scan", "transformer", {"training.l2": 0.05}),
    Fault("model too small", "inflection", "lstm", {"model.width": 8}),
    Fault("model too small", "e2e", "gru", {"model.width": 8}),
    Fault("misaligned data", "multi30k", "transformer", SHORT, shifted(0.4)),
    Fault("misaligned data", "e2e", "lstm", SHORT, shifted(0.2)),
    Fault("noisy data", "multi30k", "gru", SHORT, mixed(0.25)),
    Fault("copying the source", "multi30k", "transformer", SHORT, copied(0.4)),
    Fault("dull answers", "multi30k", "gru", SHORT, dulled(0.4)),
    Fault("label leak", "e2e", "transformer", {}, leaking("|")),
    Fault("train/serve mismatch", "multi30k", "transformer", SHORT, None, capitals),
    Fault("held-out data in training", "icelandic", "lstm", {}, None, seen),
    Fault("vocabulary too small", "scan", "gru", {"data.target.vocabulary": 7}),
    Fault("truncation", "scan", "transformer", {"data.target.max_length": 8}),
    Fault("no positions", "icelandic", "transformer", {"model.positions": "none"}),
    Fault("no attention", "e2e", "gru", {"model.attention": "none"}),
    Fault("length penalty", "icelandic", "lstm", {"decoding.length_penalty": 6}),
    Fault("search limits", "scan", "lstm", {"decoding.max_length": 5}),
    Fault("sampling", "icelandic", "gru", {"decoding.sample": True, "decoding.temperature": 2.0}),
)  # fmt: skip


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


def pick(
    draw: random.Random, models: Sequence[str], sets: Sequence[str] = ("icelandic", "inflection", "scan", "e2e")
) -> dict[str, Any]:
    """A set and a model that goes with it."""
    on = draw.choice(sets)
    return {"on": on, "model": draw.choice([model for model in models if model in SETS[on].epochs]), "drawn": True}


def spread(draw: random.Random, low: float, high: float) -> float:
    """A number between two, even in its logarithm."""
    return float(f"{low * (high / low) ** draw.random():.3g}")


ANY = ("lstm", "gru", "transformer")
ELSEWHERE = {"multi30k": SETS["e2e"].valid, "e2e": SETS["multi30k"].valid,
             "inflection": "sigmorphon2018_inflection/finnish-dev"}  # fmt: skip
"""Held-out pairs of another kind than those of training."""

FAMILIES: tuple[Callable[[random.Random], Fault], ...] = (
    lambda draw: Fault("rate too high", **pick(draw, ANY), settings={"training.rate": spread(draw, 0.05, 0.3)}),
    lambda draw: Fault("rate too low", **pick(draw, ANY), settings={"training.rate": spread(draw, 5e-6, 6e-5)}),
    lambda draw: Fault("too much regularization", **pick(draw, ANY),
                       settings={"model.dropout": round(draw.uniform(0.75, 0.9), 2)}),
    lambda draw: Fault("model too small", **pick(draw, ANY), settings={"model.width": draw.choice((4, 8, 12))}),
    lambda draw: Fault("misaligned data", **pick(draw, ANY, ("multi30k", "e2e")),
                       spoil=shifted(draw.uniform(0.05, 0.6))),
    lambda draw: Fault("noisy data", **pick(draw, ANY, ("multi30k",)), spoil=mixed(draw.uniform(0.2, 0.5))),
    lambda draw: Fault("copying the source", **pick(draw, ANY, ("multi30k",)), spoil=copied(draw.uniform(0.25, 0.5))),
    lambda draw: Fault("vocabulary too small", **pick(draw, ANY, ("scan", "icelandic")),
                       settings={"data.target.vocabulary": draw.choice((6, 7, 8))}),
    lambda draw: Fault("truncation", **pick(draw, ANY, ("scan", "e2e")),
                       settings={"data.target.max_length": draw.randint(5, 10)}),
    lambda draw: Fault("no positions", **pick(draw, ("transformer",)), settings={"model.positions": "none"}),
    lambda draw: Fault("vanishing gradients", **pick(draw, ("rnn", "transformer"), ("icelandic", "inflection")),
                       settings={"model.encoder.layers": (deep := draw.randint(6, 8)), "model.decoder.layers": deep,
                                 "model.residual": False, "model.norm": "none", "training.epochs": 4}),
    lambda draw: Fault("ended early", **pick(draw, ANY), settings={"training.steps": draw.randint(40, 90)}),
    lambda draw: Fault("label leak", **pick(draw, ANY), spoil=leaking(draw.choice(("|", "##", "=>")))),
    lambda draw: Fault("batch too small", **pick(draw, ANY, ("icelandic", "inflection")),
                       settings={"data.batch_tokens": draw.randint(40, 90), "training.epochs": 2}),
    lambda draw: Fault("sampling", **pick(draw, ANY, ("icelandic", "inflection")),
                       settings={"decoding.sample": True, "decoding.temperature": round(draw.uniform(1.5, 3), 2)}),
    lambda draw: Fault("search limits", **pick(draw, ANY, ("scan", "icelandic")),
                       settings={"decoding.max_length": draw.randint(3, 5)}),
    lambda draw: Fault("frozen weights", **pick(draw, ANY, ("multi30k", "e2e")), vectors=True,
                       settings={"data.source.tokenizer": "word", "data.source.freeze": True, "data.shared": False,
                                 "model.tie": draw.choice(("target", "none")), "training.epochs": 3}),
    lambda draw: Fault("domain gap", **(place := pick(draw, ANY, ("multi30k", "e2e", "inflection"))),
                       settings={"training.epochs": draw.randint(3, 6)}, valid_of=ELSEWHERE[place["on"]]),
    lambda draw: Fault("length collapse", **pick(draw, ANY, ("multi30k", "e2e")), settings=SHORT,
                       spoil=cut(draw.randint(2, 3))),
    lambda draw: Fault("repetition", **pick(draw, ANY, ("multi30k",)), settings={"training.epochs": 6},
                       spoil=twice(draw.uniform(0.7, 1.0))),
    lambda draw: Fault("beam too wide", **pick(draw, ANY, ("multi30k", "e2e")),
                       settings={"decoding.beam": draw.randint(50, 150), "decoding.length_penalty": 0.0,
                                 "training.epochs": draw.randint(3, 5)}),
)  # fmt: skip


def healthy(draw: random.Random, number: int) -> Fault:
    """A run with nothing wrong: sizes, rate, dropout and batch as somebody might choose them."""
    place = pick(draw, ANY, tuple(SETS))
    settings = {"training.rate": draw.choice((None, 1e-3, 2e-3, 4e-3)), "model.width": draw.choice((None, 64, 96)),
                "model.dropout": draw.choice((None, 0.1, 0.2, 0.3, 0.4)), "training.seed": number + 1,
                "training.schedule": draw.choice((None, "inverse_sqrt", "cosine")),
                "training.label_smoothing": draw.choice((None, 0.0, 0.1)),
                "decoding.beam": draw.choice((None, 1, 3, 5))}  # fmt: skip
    return Fault("healthy", **place, settings={key: value for key, value in settings.items() if value is not None})


def tell(case: Fault, root: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train, examine, and what came of it."""
    place = folder / case.name.replace("/", "-") / str(zlib.crc32(str(case.settings).encode()))
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
    if options.cure and case.cause != "healthy":
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
    train, valid = plant(case, root, place, seed)
    held = SETS[case.on]
    kinds = [f"model.{side}.kind={case.model}" for side in ("encoder", "decoder")]
    own = {"training.steps", "training.epochs"} & set(case.settings)
    budget: dict[str, Any] = {} if own else {"training.epochs": held.epochs[case.model]}
    if case.vectors:
        budget["data.source.vectors"] = vectors(place, read(root, held.train)[: held.size], seed)
    words = [f"{key}={value}" for key, value in {**SMALL, **budget, **case.settings}.items()]
    files = [str(train), "--valid", str(valid), "--out", str(place / "run")]
    command = [sys.executable, "-m", "antiphon", "train", *files, "--task", held.task, *MACHINE, *kinds, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


def plant(case: Fault, root: Path, place: Path, seed: int) -> tuple[Path, Path]:
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
    files = place / "train.tsv", place / "valid.tsv"
    for path, part in zip(files, (pairs, valid), strict=True):
        path.write_text("".join(f"{source}\t{target}\n" for source, target in part), encoding="utf-8", newline="\n")
    return files


def vectors(place: Path, pairs: Pairs, seed: int) -> Path:
    """A file of word vectors of the sources that say nothing."""
    draw, path = random.Random(seed), place / "vectors.txt"
    known = sorted({word for source, _ in pairs for word in source.split()})
    rows = (" ".join([word, *(f"{draw.gauss(0, 0.1):.4f}" for _ in range(SMALL["model.width"]))]) for word in known)
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


def cured(case: Fault, run: Path, root: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The doctor's cure applied, and the score beside those before and of the healthy run."""
    out = run.parent / "cured"
    subprocess.run(
        [sys.executable, "-m", "antiphon", "doctor", str(run), "--cure", "--out", str(out)], capture_output=True
    )
    well = folder / f"well-{case.on}-{case.model}"
    if not (well / "run/best").exists():
        well.mkdir(parents=True, exist_ok=True)
        trained(Fault("healthy", case.on, case.model), root, well, options.seed)
    return {"cured": best(out) if (out / "log.jsonl").exists() else {}, "well": best(well / "run")}


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
        "confusion": {cause: dict(found) for cause, found in sorted(confusion.items())},
    }  # fmt: skip


if __name__ == "__main__":
    main()
