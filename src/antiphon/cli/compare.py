"""`antiphon compare`: whether two models really differ on the same pairs."""

from __future__ import annotations

from antiphon.cli.evaluate import MetricNames


def compare(a: str, b: str, data: str, /, *settings: str, metrics: MetricNames = None) -> None:
    """Score two models on the same pairs, and test each difference (paired bootstrap, approximate randomization).

    Parameters
    ----------
    a
        A bundle or a run.
    b
        Another.
    data
        A file of pairs, or source.txt,target.txt. Lines with the same source are references of one another.
    settings
        How to search, as key=value: beam=5 and so on.
    """
    from antiphon.cli.models import metric_names, predictor, scored_pairs, searching
    from antiphon.inference.evaluate import compare as test
    from antiphon.inference.evaluate import evaluate

    first, second = predictor(a), predictor(b)
    pairs, names = scored_pairs(data, first.config), metric_names(metrics)
    found = [evaluate(each, pairs, names, decoding=searching(each.config, settings)) for each in (first, second)]
    print(f"{a} -> {b} on {len(pairs):,} pairs of {data}, sha256 {found[0].data[:12]}")
    for name, each in zip((a, b), found, strict=True):
        for note in each.notes:
            print(f"{name}: {note}")
    for comparison in test(found[0], found[1]):
        print(f"{comparison}  ({comparison.signature})")
