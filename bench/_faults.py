"""Faults that somebody could have made: fixed ones, families that a seed draws from, and healthy runs beside them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Pairs = list[tuple[str, str]]
Spoil = Callable[[Pairs, random.Random], Pairs]


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
    "scan": Set("scan/simple.train.tsv", "scan/simple.test.tsv", 2000, {"lstm": 30, "gru": 30, "transformer": 60}),
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
    vectors: float = 0.0
    """The size of the numbers in word vectors that are given, which somebody drew at random; 0 for none."""
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
    lambda draw: Fault("frozen weights", **pick(draw, ANY, ("multi30k", "e2e")), vectors=0.1,
                       settings={"data.source.tokenizer": "word", "data.source.freeze": True, "data.shared": False,
                                 "model.tie": draw.choice(("target", "none")), "training.epochs": 3}),
    lambda draw: Fault("domain gap", **(place := pick(draw, ANY, ("multi30k", "e2e", "inflection"))),
                       settings={"training.epochs": draw.randint(3, 6)}, valid_of=ELSEWHERE[place["on"]]),
    lambda draw: Fault("diffuse attention", **pick(draw, ("transformer",), ("icelandic", "inflection")),
                       settings={"model.heads": draw.choice((32, 64))}),
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
