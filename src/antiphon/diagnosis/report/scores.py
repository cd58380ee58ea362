"""Sections on answers: scores, differences between runs, where they err, examples, and where the model looked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from antiphon.diagnosis.report import drawing
from antiphon.diagnosis.report.judging import Judged, Judgement
from antiphon.diagnosis.report.reading import Run
from antiphon.diagnosis.report.writing import differing, pair, scored, section, table
from antiphon.inference.breakdown import Bucket, Group, Worst
from antiphon.inference.evaluate import Evaluation
from antiphon.metrics.base import Score, digits_of
from antiphon.metrics.significance import Comparison

SHOWN = 5
"""Examples of a kind."""


def main_metric(judged: Judged) -> str | None:
    """The first metric of answers of a run, else its loss."""
    if judged.evaluation is None:
        return None
    names = list(judged.evaluation.scores)
    forced = ("loss", "perplexity", "forced_accuracy")
    return next((name for name in names if name not in forced), names[0] if names else None)


def results(runs: Sequence[Run], found: Judgement) -> str:
    """All scores of all runs, with intervals."""
    rows = [judged.evaluation.scores if judged.evaluation else {} for judged in found.judged]
    names = list(dict.fromkeys(name for scores in rows for name in scores))
    cells = [[escape(name), *(scored(scores[name]) if name in scores else "" for scores in rows),
              better(next(scores[name] for scores in rows if name in scores))] for name in names]  # fmt: skip
    heads = ["", *(run.name for run in runs), "better"] if len(runs) > 1 else ["", "score", "better"]
    parts = [table(heads, cells, range(1, len(runs) + 1))] if names else []
    parts += [drawing.joined(_against(runs, rows, name) for name in names[:6])] if len(runs) > 1 else []
    parts += [f'<p class="note">{escape(run.name)}: {escape(judged.why)}.</p>'
              for run, judged in zip(runs, found.judged, strict=True) if judged.why]  # fmt: skip
    about = f"On {found.about}. Intervals: where 95 % of other samples of such pairs would fall."
    return section("scores", "Scores", *parts, about=about if names else "")


def better(score: Score) -> str:
    """Which way is better."""
    return f"<small>{'↑' if score.higher_is_better else '↓'}</small>"


def _against(runs: Sequence[Run], rows: Sequence[dict[str, Score]], name: str) -> str:
    """One metric of all runs, with intervals."""
    drawn = [(run.name, scores[name].value, *(scores[name].interval or (None, None)), min(place, 3))
             for place, (run, scores) in enumerate(zip(runs, rows, strict=True)) if name in scores]  # fmt: skip
    return f"<figure><figcaption>{escape(name)}</figcaption>{drawing.intervals(drawn)}</figure>"


def differences(runs: Sequence[Run], found: Judgement) -> str:
    """Paired tests of each later run against the first."""
    parts = []
    for run, tests in zip(runs[1:], found.tests, strict=False):
        if tests:
            rows = [_tested(each) for each in tests]
            parts.append(f"<h3>{escape(run.name)} against {escape(runs[0].name)}</h3>")
            parts.append(table(["", "before", "after", "difference", "p", ""], rows, (1, 2, 3, 4)))
    about = "The same pairs, both answers to each: bootstrap (Koehn 2004) and randomization (Riezler and Maxwell 2005)."
    return section("differences", "Is the difference real?", *parts, about=about)


def _tested(each: Comparison) -> list[str]:
    digits = digits_of(each.name)
    interval = "" if each.interval is None else " <small>[{0:+.{2}f}, {1:+.{2}f}]</small>".format(
        *each.interval, digits)  # fmt: skip
    p = "" if each.p_randomization is None else f"{each.p_randomization:.4f}"
    return [escape(each.name), f"{each.first:.{digits}f}", f"{each.second:.{digits}f}",
            f"{each.difference:+.{digits}f}{interval}", p, verdict(each)]  # fmt: skip


def verdict(each: Comparison) -> str:
    """In a word."""
    if not each.significant:
        return '<span class="plain">may be chance</span>'
    return '<span class="big">better</span>' if (each.difference > 0) == each.higher_is_better else "worse"


def weaknesses(runs: Sequence[Run], found: Judgement) -> str:
    """Scores by length, by frequency of words, by what facts were taught, and by domain."""
    parts = []
    for run, judged in zip(runs, found.judged, strict=True):
        if (each := judged.evaluation) is not None:
            parts += [f"<h3>{escape(run.name)}</h3>"] if len(runs) > 1 else []
            parts += list(_of_one(each, main_metric(judged)))
    return section("weak", "Where it errs", *parts)


def _of_one(found: Evaluation, metric: str | None) -> Iterator[str]:
    views = [_buckets("by length of the source", found.by_length, metric),
             _buckets(f"words, by how often {found.counted} have them" if found.counted.startswith("these")
                      else f"words, by how often {found.counted} has them", found.by_frequency, "f1"),
             _buckets("by how many entities of the facts were taught", found.by_entities, metric)]  # fmt: skip
    yield drawing.joined(views)
    for column in dict.fromkeys(group.column for group in found.by_group):
        groups = [group for group in found.by_group if group.column == column]
        yield _groups(column, groups, metric)


def _buckets(title: str, buckets: Sequence[Bucket], metric: str | None) -> str:
    """One score of each part, as bars."""
    have = [bucket for bucket in buckets if metric in bucket.scores]
    if metric is None or not have:
        return ""
    top = max(bucket.scores[metric] for bucket in have)
    rows = [[escape(bucket.label), f"{bucket.count:,}", f"{bucket.scores[metric]:.{digits_of(metric)}f}",
             drawing.bar(bucket.scores[metric] / top if top else 0.0)] for bucket in have]  # fmt: skip
    heads = ["", "words" if metric == "f1" else "pairs", metric, ""]
    return f"<figure><figcaption>{escape(title)}</figcaption>{table(heads, rows, (1, 2))}</figure>"


def _groups(column: str, groups: Sequence[Group], metric: str | None) -> str:
    drawn = [(group.value, group.scores[metric].value, *(group.scores[metric].interval or (None, None)), 0)
             for group in groups if metric is not None and metric in group.scores]  # fmt: skip
    caption = f"<figcaption>{escape(metric or '')} by {escape(column)}</figcaption>"
    return f"<figure>{caption}{drawing.intervals(drawn)}</figure>" if drawn else ""


def examples(runs: Sequence[Run], found: Judgement) -> str:
    """The worst and the best answers of the first run, with what the others said."""
    first = found.judged[0]
    if first.evaluation is None:
        return ""
    parts = []
    for title, chosen in (("The worst answers", first.evaluation.worst), ("The best answers", first.best)):
        shown = "".join(_example(runs, found, each) for each in chosen[:SHOWN])
        more = "".join(_example(runs, found, each) for each in chosen[SHOWN:])
        folded = f"<details><summary>{len(chosen) - SHOWN} more</summary>{more}</details>" if more else ""
        parts.append(f"<h3>{title}</h3>{shown}{folded}" if shown else "")
    about = f"By {main_metric(first)}, pair by pair; what the reference has not in this order is underlined."
    return section("examples", "Examples", *parts, about=about)


def _example(runs: Sequence[Run], found: Judgement, each: Worst) -> str:
    rows = [("source", escape(each.source)), ("reference", escape(" | ".join(each.references)))]
    for run, judged in zip(runs, found.judged, strict=True):
        if judged.evaluation is not None:
            answer = judged.evaluation.answers[each.number - 1]
            rows.append((drawing.fit(run.name, 12) if len(runs) > 1 else "answer",
                         differing(answer, each.references[0])))  # fmt: skip
    rows.append(("", f"<small>pair {each.number:,}, score {each.score:.2f}</small>"))
    return pair(rows)


def looked(runs: Sequence[Run], found: Judgement) -> str:
    """Attention maps of each run."""
    parts = []
    for run, judged in zip(runs, found.judged, strict=True):
        maps = [
            drawing.attention([*map(plain, look.source)], [*map(plain, look.answer)], look.weights_TS)
            for look in judged.looks
        ]
        if maps:
            parts += [f"<h3>{escape(run.name)}</h3>"] if len(runs) > 1 else []
            parts.append(drawing.joined(f"<figure>{each}</figure>" for each in maps))
    about = "Each row is a token of an answer; the fuller a square, the more of it comes from that token of the source."
    return section("attention", "Where it looked", *parts, about=about)


def plain(token: str) -> str:
    """A token without the mark of a space."""
    return token.replace("▁", "") or "␣"
