"""How far a score falls when sources are written as people write them: capitals, typing errors, strange signs.

Every perturbation answers the same sources again, changed, and is compared with the answers to them as they are, pair
by pair (after Belinkov and Bisk 2018, and Heigold et al. 2018).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import numpy as np

from antiphon.core.config import Config, Decoding
from antiphon.core.errors import ConfigError
from antiphon.data import noise
from antiphon.data.corpus import Pair
from antiphon.data.turns import Newest, has_mark
from antiphon.inference import tasks
from antiphon.inference.evaluate import Answering, Evaluation, said
from antiphon.metrics import Pooled, scoring
from antiphon.metrics.base import Stats, digits_of
from antiphon.metrics.significance import Comparison, paired
from antiphon.metrics.words import words

TYPOS = 0.05
"""The rate at which letters are mistyped: about every fifth word."""

Written = Callable[[str, Random], str]


@dataclass(frozen=True)
class Perturbation:
    """One way to write sources otherwise; `kind` is of `antiphon.data.noise`, and tells which tasks it suits."""

    name: str
    kind: str
    what: str


PERTURBATIONS = (
    Perturbation("lower case", "casing", "no capital letters"),
    Perturbation("CAPITALS", "casing", "capital letters alone"),
    Perturbation("Title Case", "casing", "a capital at each word"),
    Perturbation("typing errors", "typos", f"{TYPOS:.0%} of the letters mistyped"),
    Perturbation("no full stop", "punctuation", "no punctuation at the end"),
    Perturbation("double spaces", "spaces", "each space twice"),
    Perturbation("an emoji", "symbols", "an emoji at the end"),
    Perturbation("a foreign word", "symbols", "a word of another script between two others"),
    Perturbation("single words", "single", "a word alone: the share of the answer that the target has"),
    Perturbation("twice as long", "joined", "two sources as one, against their answers as one"),
)


@dataclass(frozen=True)
class Asked:
    """What is asked under a perturbation: sources with targets, and the answers to them as they were (`before`)."""

    pairs: list[Pair]
    before: list[str]
    originals: list[str]


@dataclass(frozen=True)
class Drop:
    """What a perturbation did: `changed` of `pairs` sources, each metric before and after with its interval, and the
    source that it hurt most, before and after, with both answers and a reference; nothing where none got worse."""

    name: str
    what: str
    pairs: int
    changed: int
    scores: dict[str, Comparison]
    example: dict[str, str]


@dataclass(frozen=True)
class Robustness:
    """All perturbations of one test set, and by name those that were left out, with the reason."""

    drops: list[Drop]
    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def metrics(self) -> list[str]:
        """The metrics that perturbations share, in order."""
        counted = Counter(name for drop in self.drops for name in drop.scores)
        return [name for name in counted if name != Found.name]


@dataclass(frozen=True)
class Found:
    """The share of an answer's words that one reference has, per cent, from statistics `[found, said]`."""

    name: str = "found"
    higher_is_better: bool = True
    signature: str = "unit:word|case:lc|refs:best|version:1"

    def stats(self, hypothesis: str, references: Sequence[str]) -> Stats:
        """Of one answer; an empty one has said one wrong word."""
        mine = Counter(words(hypothesis))
        best = max((mine & Counter(words(reference))).total() for reference in references)
        return np.array([best, max(1, mine.total())], dtype=np.float64)

    def score(self, stats: Stats) -> float:
        """The share of summed statistics."""
        return float(100.0 * stats[0] / stats[1])


def robustness(
    predictor: Answering, pairs: Sequence[Pair], clean: Evaluation, *, decoding: Decoding | None = None, seed: int = 1
) -> Robustness:
    """Answer the pairs of an evaluation again under every perturbation that suits the task.

    `clean` is the evaluation of the same pairs by the same predictor. Raises `ConfigError` where sources are no text.
    """
    config = predictor.config
    check(config, list(clean.scores))
    drops, left_out = list[Drop](), dict[str, str]()
    for each in PERTURBATIONS:
        why = unsuited(each, config)
        asked = None if why else perturbed(each, pairs, clean.answers, seed)
        if asked is None:
            left_out[each.name] = why or "it changes no source here"
        else:
            drops.append(_dropped(each, asked, predictor, clean, decoding, seed))
    return Robustness(drops, left_out)


def check(config: Config, names: Sequence[str] | None = None) -> None:
    """Refuse what has no noise of these kinds, with `ConfigError`: to be known before anything is answered; and metrics
    that have no score of single answers, where none of these `names` has one."""
    known = [scoring.get(name) for name in names or () if name.partition(":")[0] in scoring.NAMES]
    if known and all(isinstance(metric, Pooled) for metric in known):
        do = "add one of single answers, such as accuracy, chrf or bleu"
        got = ", ".join(metric.name for metric in known)
        raise ConfigError("--robust compares answer by answer, which metrics of all together cannot", got=got, do=do)
    if config.data.source.kind not in (None, "text") or config.data.target.kind == "numbers":
        do = "leave it out: recordings, films, arrays and numbers have noise of other kinds"
        raise ConfigError("--robust is for sources and targets of text", got=config.data.source.kind, do=do)


def unsuited(each: Perturbation, config: Config) -> str:
    """Why a perturbation makes no sense for a model; nothing where it does."""
    if each.kind not in tasks.PRESETS.get(config.task, tasks.TRANSDUCTION).noise:
        return f"it may change what the right answer is: {config.task}"
    return "the model reads all in lower case" if each.kind == "casing" and config.data.source.lowercase else ""


def perturbed(each: Perturbation, pairs: Sequence[Pair], answers: Sequence[str], seed: int = 1) -> Asked | None:
    """The pairs under a perturbation, with the answers to them as they were; None where it changes nothing."""
    if each.kind == "joined":
        return _joined(pairs, answers)
    if each.kind == "single":
        return _single(pairs, answers, seed)
    change = _on_pair(_written(each, pairs))
    made = [(Newest(change) if has_mark(pair.source) else change)(pair, Random(f"{each.name} {seed} {row}")).source
            for row, pair in enumerate(pairs)]  # fmt: skip
    if all(text == pair.source for text, pair in zip(made, pairs, strict=True)):
        return None
    asked = [Pair(text, pair.target, pair.references, pair.context) for text, pair in zip(made, pairs, strict=True)]
    return Asked(asked, list(answers), [pair.source for pair in pairs])


def _on_pair(written: Written) -> Callable[[Pair, Random], Pair]:
    return lambda pair, draw: noise.with_texts(pair, written(pair.source, draw), pair.target)


def _written(each: Perturbation, pairs: Sequence[Pair]) -> Written:
    """What the perturbation does to one text."""
    known = sorted({letter for pair in pairs for letter in pair.source if letter.isalpha()})
    strange = noise.Strange.to(known, noise.OTHER_LETTERS, noise.OTHER_SIGNS)
    typos = noise.Typos(TYPOS, tuple(known))
    ways: dict[str, Written] = {
        "lower case": lambda text, draw: text.lower(),
        "CAPITALS": lambda text, draw: text.upper(),
        "Title Case": lambda text, draw: noise.titled(text),
        "typing errors": lambda text, draw: typos.mistyped(text, draw, TYPOS),
        "no full stop": noise.unpunctuated,
        "double spaces": noise.spread,
        "an emoji": strange.sign,
        "a foreign word": strange.word if strange.letters else strange.sign,
    }
    return ways[each.name]


def _joined(pairs: Sequence[Pair], answers: Sequence[str]) -> Asked | None:
    """Each pair with the next, of which it has none in common."""
    rows = [row for row in range(0, len(pairs) - 1, 2) if pairs[row].context == pairs[row + 1].context]
    made = [noise.joined(pairs[row], pairs[row + 1]) for row in rows]
    before = [noise.together(answers[row], answers[row + 1]) for row in rows]
    return Asked(made, before, [f"{pairs[row].source} | {pairs[row + 1].source}" for row in rows]) if rows else None


def _single(pairs: Sequence[Pair], answers: Sequence[str], seed: int) -> Asked | None:
    """A word of each source that has several, drawn at random."""
    draw, asked = Random(f"single {seed}"), Asked([], [], [])
    for pair, answer in zip(pairs, answers, strict=True):
        choices = noise.bare(pair.source)
        if len(choices) > 1:
            asked.pairs.append(Pair(draw.choice(choices), pair.target, pair.references, pair.context))
            asked.before.append(answer)
            asked.originals.append(pair.source)
    return asked if asked.pairs else None


def _dropped(
    each: Perturbation, asked: Asked, predictor: Answering, clean: Evaluation, decoding: Decoding | None, seed: int
) -> Drop:
    answers = [said(found[0]) for found in predictor.predict(asked.pairs, settings=decoding)]
    references = [pair.references or (pair.target,) for pair in asked.pairs]
    metrics: list[Any] = [Found()] if each.kind == "single" else [scoring.get(name) for name in additive(clean)]
    scores, hurt = {}, None
    for metric in metrics:
        before, after = (_table(metric, texts, references) for texts in (asked.before, answers))
        scores[metric.name] = paired(metric, before, after, trials=1000, seed=seed)
        hurt = _most_hurt(metric, before, after) if hurt is None else hurt
    example = {} if hurt is None else {
        "before": asked.originals[hurt], "after": asked.pairs[hurt].source, "answer before": asked.before[hurt],
        "answer after": str(answers[hurt]), "reference": references[hurt][0]}  # fmt: skip
    changed = sum(pair.source != old for pair, old in zip(asked.pairs, asked.originals, strict=True))
    return Drop(each.name, each.what, len(asked.pairs), changed, scores, example)


def additive(clean: Evaluation) -> list[str]:
    """The scores of an evaluation that are metrics of answers, sentence by sentence."""
    return [name for name in clean.scores if name.partition(":")[0] in scoring.NAMES and name in clean.tables]


def _table(metric: Any, texts: Sequence[Any], references: Sequence[Sequence[str]]) -> Stats:
    if isinstance(metric, Found):
        return np.array([metric.stats(*both) for both in zip(texts, references, strict=True)])
    return scoring.table(metric, texts, references)


def _most_hurt(metric: Any, before: Stats, after: Stats) -> int | None:
    """The sentence whose score fell most; None where that of none did."""
    sentence = getattr(metric, "sentence", metric.score)
    fall = [sentence(one) - sentence(other) for one, other in zip(before, after, strict=True)]
    falls = np.array(fall if metric.higher_is_better else [-value for value in fall])
    return int(falls.argmax()) if falls.max() > 0 else None


def table(found: Robustness) -> Iterator[tuple[str, ...]]:
    """Rows for a table: the perturbation, how many sources it changed, and before, after and difference by metric."""
    shared = found.metrics()[:1]
    for drop in found.drops:
        names = [name for name in drop.scores if name in shared] or list(drop.scores)[:1]
        score = drop.scores[names[0]]
        digits = digits_of(score.name)
        interval = "" if score.interval is None else " [{0:+.{2}f}, {1:+.{2}f}]".format(*score.interval, digits)
        yield (drop.name, drop.what, f"{drop.changed:,} of {drop.pairs:,}", score.name, f"{score.first:.{digits}f}",
               f"{score.second:.{digits}f}", f"{score.difference:+.{digits}f}{interval}")  # fmt: skip


def to_json(found: Robustness, clean: Evaluation, about: Mapping[str, Any]) -> str:
    """The evaluation with all that perturbations did, as JSON."""
    values = json.loads(clean.to_json(about))
    return json.dumps({**values, "robustness": found.to_dict()}, ensure_ascii=False, indent=2)
