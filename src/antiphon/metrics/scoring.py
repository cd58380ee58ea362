"""Metrics by name, and their scores on a corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from antiphon.core.errors import ConfigError, DataError, nearest
from antiphon.core.numbers import Forecast
from antiphon.metrics import diversity, edits, forecasts, overlap
from antiphon.metrics.base import Metric, Pooled, Score, Stats, Summed
from antiphon.metrics.significance import FOLDS, bootstrap, jackknife

References = Sequence[str | Sequence[str]]
"""For each sentence its reference, or its references; their number may differ from sentence to sentence."""

_TOKENIZERS = frozenset(overlap.BLEU_TOKENIZERS)
_OPTIONS: dict[str, frozenset[str]] = {
    "bleu": _TOKENIZERS | {"lowercase", "2"},
    "chrf": frozenset({"lowercase", "words"}),
    "ter": frozenset({"cased"}),
    "rouge1": frozenset({"stem"}),
    "rouge2": frozenset({"stem"}),
    "rougeL": frozenset({"stem"}),
    "rougeLsum": frozenset({"stem"}),
    "self_bleu": _TOKENIZERS,
}
_MAKERS: dict[str, Callable[[str, frozenset[str]], Metric | Pooled]] = {
    "bleu": lambda name, on: overlap.bleu(
        name, tokenize=_tokenizer(name, on), lowercase="lowercase" in on, most=2 if "2" in on else 4
    ),
    "chrf": lambda name, on: overlap.chrf(name, lowercase="lowercase" in on, word_order=2 if "words" in on else 0),
    "ter": lambda name, on: overlap.ter(name, cased="cased" in on),
    "rouge1": lambda name, on: overlap.rouge(name, "rouge1", stem="stem" in on),
    "rouge2": lambda name, on: overlap.rouge(name, "rouge2", stem="stem" in on),
    "rougeL": lambda name, on: overlap.rouge(name, "rougeL", stem="stem" in on),
    "rougeLsum": lambda name, on: overlap.rouge(name, "rougeLsum", stem="stem" in on),
    "distinct1": lambda name, on: diversity.Distinct(name, 1),
    "distinct2": lambda name, on: diversity.Distinct(name, 2),
    "self_bleu": lambda name, on: diversity.self_bleu(name, tokenize=_tokenizer(name, on)),
    "wer": lambda name, on: edits.wer(name),
    "cer": lambda name, on: edits.cer(name),
    "per": lambda name, on: edits.per(name),
    "exact": lambda name, on: edits.Exact(name),
    "accuracy": lambda name, on: edits.Exact(name),
    "macro_f1": lambda name, on: edits.MacroF1(name),
    "error": lambda name, on: edits.Exact(name, error=True),
    "token_accuracy": lambda name, on: edits.TokenAccuracy(name),
    "mae": lambda name, on: forecasts.MeanAbsolute(name),
    "rmse": lambda name, on: forecasts.RootMeanSquare(name),
    "mase": lambda name, on: forecasts.Scaled(name, season=_season(name, on)),
    "crps": lambda name, on: forecasts.Ranked(name),
}
NAMES = tuple(_MAKERS)
"""The names that `get` knows."""


def get(name: str) -> Metric | Pooled:
    """A metric by its name, with options after colons: `bleu`, `bleu:zh:lowercase`, `chrf:words`, `rougeL:stem`.

    Options: bleu takes a tokenizer (13a, char, zh, none, intl), lowercase and 2 (BLEU-2); chrf lowercase and words
    (chrF++); ter cased; ROUGE stem; self_bleu a tokenizer; mase a season in steps, `mase:12`. What is unknown is a
    `ConfigError`.
    """
    kind, *options = name.split(":")
    if kind not in _MAKERS:
        raise ConfigError(f"unknown metric {kind}", do=nearest(kind, NAMES))
    known = _OPTIONS.get(kind, frozenset())
    for option in options:
        if option not in known and not (kind == "mase" and option.isdecimal()):
            raise ConfigError(f"unknown option {option} of metric {kind}", do=nearest(option, known) if known else "")
    return _MAKERS[kind](name, frozenset(options))


def of_text(name: str) -> Metric | Pooled:
    """A metric by its name; `ConfigError` where it is one of numbers."""
    metric = get(name)
    if isinstance(metric, forecasts.OfNumbers):
        raise ConfigError(f"{metric.name} is for numbers, and answers are text", do="take another metric")
    return metric


def _tokenizer(name: str, options: frozenset[str]) -> str:
    chosen = sorted(options & _TOKENIZERS)
    if len(chosen) > 1:
        raise ConfigError("a metric has one tokenizer", where=name, got=" and ".join(chosen))
    return chosen[0] if chosen else "13a"


def _season(name: str, options: frozenset[str]) -> int:
    if len(options) > 1 or int(next(iter(options), "1")) < 1:
        raise ConfigError("a metric has one season of a step or more", where=name)
    return int(next(iter(options), "1"))


def table(metric: Metric, hypotheses: Sequence[str | Forecast], references: References) -> Stats:
    """The statistics `[N, K]` of every sentence; those of forecasts want a metric of numbers."""
    lists = listed(hypotheses, references)
    if isinstance(metric, edits.MacroF1):
        metric = metric.over(lists)
    return np.array([_stats(metric, said, refs) for said, refs in zip(hypotheses, lists, strict=True)])


def _stats(metric: Metric, said: str | Forecast, references: Sequence[str]) -> Stats:
    if isinstance(said, str) or isinstance(metric, forecasts.OfNumbers):
        return metric.stats(said, references)  # type: ignore[arg-type]
    raise ConfigError(f"{metric.name} is for text, and these are numbers", do=f"take {', '.join(OF_NUMBERS)}")


OF_NUMBERS = ("mae", "rmse", "mase", "crps")
"""Metrics of numbers."""


def corpus(
    metric: Metric | Pooled, hypotheses: Sequence[str | Forecast], references: References, *, bootstrap: int = 1000,
    seed: int = 1,
) -> Score:  # fmt: skip
    """The score of a corpus with its 95 % interval from `bootstrap` resamples (0: no interval).

    A pooled metric has its interval from the jackknife, whatever the number of resamples.
    """
    if isinstance(metric, Pooled):
        return _pooled(metric, [_text(metric, said) for said in hypotheses], listed(hypotheses, references), bootstrap,
                       seed)  # fmt: skip
    return summed(
        metric, table(metric, hypotheses, references), rounds=bootstrap, seed=seed, nrefs=reference_count(references)
    )


def summed(metric: Summed, stats: Stats, *, rounds: int = 1000, seed: int = 1, nrefs: str = "") -> Score:
    """The score of a corpus from the statistics `[N, K]` of its sentences; `nrefs` goes into the signature."""
    interval = bootstrap(metric, stats, rounds=rounds, seed=seed)
    signature = f"nrefs:{nrefs}|" if nrefs else ""
    signature += "" if interval is None else f"bs:{rounds}|seed:{seed}|"
    value = metric.score(stats.sum(axis=0))
    return Score(metric.name, value, interval, signature + metric.signature, metric.higher_is_better)


def _pooled(
    metric: Pooled, hypotheses: Sequence[str], references: Sequence[Sequence[str]], rounds: int, seed: int
) -> Score:
    interval = None
    if rounds:
        interval = jackknife(lambda rows: metric.whole([hypotheses[row] for row in rows]), len(references), seed=seed)
    how = "" if interval is None else f"jackknife:{FOLDS}|seed:{seed}|"
    return Score(metric.name, metric.whole(hypotheses), interval, how + metric.signature, metric.higher_is_better)


def _text(metric: Pooled, said: str | Forecast) -> str:
    if isinstance(said, str):
        return said
    raise ConfigError(f"{metric.name} is for text, and these are numbers", do=f"take {', '.join(OF_NUMBERS)}")


def listed(hypotheses: Sequence[str | Forecast], references: References) -> list[Sequence[str]]:
    """The references as one sequence a sentence; `DataError` where they do not fit the hypotheses."""
    if len(hypotheses) != len(references):
        found = f"{len(hypotheses)} and {len(references)}"
        raise DataError("there must be as many lists of references as hypotheses", got=found)
    if not hypotheses:
        raise DataError("there is nothing to score", got="0 hypotheses")
    lists = [(each,) if isinstance(each, str) else each for each in references]
    for number, each in enumerate(lists, start=1):
        if not each:
            raise DataError("the sentence has no reference", where=f"sentence {number}")
    return lists


def reference_count(references: References) -> str:
    """How many references a sentence has, `var` where that varies."""
    counts = {1 if isinstance(each, str) else len(each) for each in references}
    return str(counts.pop()) if len(counts) == 1 else "var"
