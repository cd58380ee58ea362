"""What comes of the data: pairs that do not go together, leaks, and held-out pairs that are of another kind."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from antiphon.data.columns import Pair
from antiphon.diagnosis.doctor.findings import Cause, Evidence, Finding
from antiphon.diagnosis.doctor.patient import Patient
from antiphon.diagnosis.doctor.weighing import both, sure
from antiphon.diagnosis.findings import Finding as Remark

Judge = Callable[[Remark], float]


def _figure(name: str, doubtful: float, clear: float) -> Judge:
    """By a figure of the remark, such as the share of all pairs."""
    return lambda remark: sure(float(remark.figures.get(name, 0.0)), doubtful, clear)


AUDITED: dict[str, tuple[Cause, Judge]] = {
    "misaligned": ("misaligned data", _figure("share", 0.005, 0.1)),
    "unrelated": ("misaligned data", _figure("share", 0.02, 0.2)),
    "turned round": ("misaligned data", _figure("share", 0.05, 0.25)),
    "noise": ("noisy data", _figure("noise", 0.06, 0.2)),
    "target script": ("noisy data", _figure("share", 0.05, 0.2)),
    "target language": ("noisy data", _figure("share", 0.05, 0.2)),
    "encoding: double-encoded": ("noisy data", _figure("share", 0.05, 0.2)),
    "encoding: lost": ("noisy data", _figure("share", 0.05, 0.2)),
    "copied": ("copying the source", _figure("share", 0.1, 0.25)),
    "one answer to much": ("dull answers", _figure("share", 0.05, 0.2)),
    "valid in training": ("held-out data in training", _figure("share", 0.15, 0.5)),
    "written otherwise": ("train/serve mismatch", lambda remark: 0.93),
}  # fmt: skip
"""Findings of the audit that are the cause of what is seen in training, and how sure that is."""

EXPECT = {
    "misaligned data": "a loss well below what it was: each source then has its own target",
    "noisy data": "a lower loss at once, and answers that no longer drift",
    "copying the source": "answers in place of copies",
    "dull answers": "answers that say something of their source",
    "held-out data in training": "lower scores, and true ones",
    "train/serve mismatch": "scores on new text like those on text of training",
}


def audited(patient: Patient) -> Iterator[Finding]:
    """What the audit of the files has to say."""
    for remark in patient.material.remarks if patient.material else ():
        if remark.kind not in AUDITED:
            continue
        cause, judge = AUDITED[remark.kind]
        weigh = WEIGHED.get(cause)
        confidence = judge(remark) * (weigh(patient) if weigh else 1.0)
        figures = {name: float(value) for name, value in remark.figures.items() if isinstance(value, int | float)}
        lines = f"line {remark.lines[0]:,} first" if remark.lines else ""
        mends = remark.remedy != "" and cause != "held-out data in training"
        yield Finding(
            cause, confidence, remark.symptom,
            (Evidence(f"the audit: {remark.kind}, {remark.sure}", figures, where=f"{remark.file} {lines}".strip()),
             *(Evidence(f"{example.source} → {example.target}", where=f"line {example.line:,}")
               for example in remark.examples[:2])),
            _apart(patient, cause), {},
            f"antiphon audit {remark.file} --fix CLEAN mends the file; train on it" if mends else remark.cure,
            EXPECT.get(cause, ""), in_files=True,
        )  # fmt: skip


def _copies(patient: Patient) -> float:
    """What copies among the pairs count for: all, where held-out pairs have few; else half, where the model does not
    copy. Of numbers and names many are their own answer."""
    assert patient.material is not None
    shares = [sum(pair.source == pair.target for pair in part) / max(1, len(part)) for part in patient.material.parts]
    if shares[1] < shares[0] / 5:
        return 1.0
    copied = patient.record.last("answers", "copied")
    return 1.0 if copied is None else 0.5 + 0.5 * sure(copied, 0.02, 0.1)


def _alike(patient: Patient) -> float:
    """What another way to write counts for: half, where held-out texts are of another kind however they are written."""
    if patient.material is None or not patient.material.textual:
        return 1.0
    parts = patient.material.parts
    apart = max(
        distance(*([_plain(getattr(pair, side)) for pair in part] for part in parts)) for side in ("source", "target")
    )
    return 1 - 0.5 * sure(apart, 0.35, 1.0)


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() else " " for letter in text.lower())


WEIGHED: dict[Cause, Callable[[Patient], float]] = {"copying the source": _copies, "train/serve mismatch": _alike}
"""What else than the audit's figures is asked of a cause that it names."""


def _apart(patient: Patient, cause: Cause) -> str:
    if cause in ("misaligned data", "noisy data"):
        return ("the pairs themselves say so, whatever the model: not the rate, the size or the length of training "
                f"({patient.learned:.0%} was learned)")  # fmt: skip
    return "it is in the files, before anything is trained"


def domain_gap(patient: Patient) -> Iterator[Finding]:
    """Held-out sources are of another kind than those of training: other words, or other ones often."""
    if patient.material is None or not patient.material.textual:
        return
    train, valid = patient.material.parts
    if len(train) < 200 or len(valid) < 20:
        return
    apart = {side: distance([getattr(pair, side) for pair in train], [getattr(pair, side) for pair in valid])
             for side in ("source", "target")}  # fmt: skip
    side = max(apart, key=lambda name: apart[name])
    unknown = [part.unknown[0] if part else 0.0 for part in (patient.material.train, patient.material.held_out)]
    yield Finding(
        "domain gap", sure(apart[side], 0.35, 1.0) * (0.7 if patient.gap < 1.2 else 1.0),
        f"held-out {side}s are unlike those of training, and their loss is {patient.gap:.1f} times that of training",
        (Evidence(f"a word of a held-out {side} is {math.exp(apart[side]):.1f} times as surprising as one of training",
                  {"nats a word": apart[side]}),
         Evidence(f"unknown source tokens {unknown[0]:.1%} in training, {unknown[1]:.1%} held out",
                  {"training": unknown[0], "held out": unknown[1]})),
        "not overfitting: pairs of training that were left out of the count are no more surprising than the others; "
        "not a mismatch of casing or marks, which the audit would tell",
        {}, "train on pairs like those it is to answer: --mix FILE, or go on --from this model with some of them",
        "scores on held-out pairs near those on training",
    )  # fmt: skip


def distance(train: Sequence[str], other: Sequence[str]) -> float:
    """Nats a token by which texts surprise a unigram model of training more than texts of training that it did not see.

    Tokens are words, or characters where texts are single words. Half a count for each token there might be.
    """
    spelled = sum(" " in text for text in train[:1000]) < 0.5 * min(1000, len(train))
    cut: Callable[[str], Sequence[str]] = list if spelled else str.split
    size = max(1, len(train) // 10)
    counts = Counter(token for row, text in enumerate(train) if row % 10 for token in cut(text))
    kinds, total = len(counts) + 1, counts.total()

    def surprise(texts: Sequence[str]) -> float:
        tokens = [token for text in texts for token in cut(text)]
        chances = [(counts[token] + 0.5) / (total + 0.5 * kinds) for token in tokens]
        return -sum(map(math.log, chances)) / max(1, len(tokens))

    return surprise(other) - surprise(train[::10][:size])


def label_leak(patient: Patient) -> Iterator[Finding]:
    """The source has its target in it, which no new source will."""
    if patient.material is None or not patient.material.textual:
        return
    train = patient.material.parts[0]
    some = [pair for pair in train[:: -(-len(train) // 2000)] if len(pair.target) >= 3]
    leaks = [pair for pair in some if leaked(pair)]
    share = len(leaks) / max(1, len(some))
    fast = sure(1 - patient.learned, 0.2, 0.05)
    first = leaks[0] if leaks else Pair("", "")
    yield Finding(
        "label leak", both(sure(share, 0.45, 0.8), max(0.85, fast)),
        f"{share:.0%} of the training sources have the whole target in them",
        (Evidence(f"{len(leaks):,} of {len(some):,} pairs looked at; {patient.learned:.0%} was learned",
                  {"share": share, "learned": patient.learned}),
         Evidence(f"{first.source[:80]} → {first.target[:80]}")),
        "not a task of copying: the source has more than its target in it, and at the same place",
        {}, "take the answer out of the sources, and train again", "higher loss, and answers that are worth something",
    )  # fmt: skip


def leaked(pair: Pair) -> bool:
    """Whether a source begins or ends with its target, and has more besides; beyond what words alike share."""
    source, target = pair.source.strip(), pair.target.strip()
    whole = len(target) >= 3 and source != target and len(source) > len(target)
    ends, begins = source.endswith(target), source.startswith(target)
    border = source[-len(target) - 1] if ends and whole else source[len(target)] if begins and whole else ""
    return whole and (ends or begins) and not border.isalnum()


RULES = (audited, domain_gap, label_leak)
