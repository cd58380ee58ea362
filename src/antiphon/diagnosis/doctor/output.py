"""What is wrong with answers as such: they repeat, say the same to all, copy, stop short, or drift from their start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from antiphon.diagnosis.doctor.answers import Answers, repeating
from antiphon.diagnosis.doctor.findings import Evidence, Finding, Plot
from antiphon.diagnosis.doctor.patient import Patient
from antiphon.diagnosis.doctor.weighing import both, sure

OWN = 0.7
"""What a fault of answers counts for that the targets of training do not have: models that know little have it too."""


def dull_answers(patient: Patient, answers: Answers) -> Iterator[Finding]:
    """One answer to very much (Li et al. 2016)."""
    said, wanted = answers.by(answers.usual), [pair.target for pair in answers.pairs]
    if len(said) < 10:
        return
    (text, times), (_, usual) = Counter(said).most_common(1)[0], Counter(wanted).most_common(1)[0]
    share, due, taught = times / len(said), usual / len(wanted), _taught(answers)
    own = OWN if taught.count(text) < 0.1 * len(taught) else 1.0
    yield Finding(
        "dull answers", both(sure(share, 0.15, 0.5), sure(share / due, 2, 6)) * own,
        f"{share:.0%} of the sources have the same answer: {text[:60]!r}",
        (Evidence(f"{len(set(said))} different answers to {len(said)} sources, whose references are "
                  f"{len(set(wanted))} different texts", {"share": share, "of references": due}),),
        "not the search: it is the usual one; the data has far more to say than the model",
        {"training.objective": "unlikelihood"},
        "decoding.risk=chrf, or a backward model (antiphon predict --backward), asks for what belongs to the source",
        "different answers to different sources",
    )  # fmt: skip


def copying(patient: Patient, answers: Answers) -> Iterator[Finding]:
    """Answers are their sources, where references are not."""
    said = answers.by(answers.usual)
    if len(said) < 10:
        return
    copied = sum(answer == pair.source for answer, pair in zip(said, answers.pairs, strict=True)) / len(said)
    due = sum(pair.source in (pair.references or (pair.target,)) for pair in answers.pairs) / len(said)
    yield Finding(
        "copying the source", sure(max(0.0, copied - due), 0.1, 0.3),
        f"{copied:.0%} of the answers are their source; of the references {due:.0%}",
        (Evidence("the answers of the usual search to held-out sources", {"copied": copied, "due": due}),),
        "not a source in the wrong place: the references of the same sources are no copies",
        {}, "antiphon audit DATA --fix CLEAN takes out pairs whose target is their source (Khayrallah and Koehn 2018)",
        "answers in place of copies",
    )  # fmt: skip


def repetition(patient: Patient, answers: Answers) -> Iterator[Finding]:
    """Answers go round in circles (Holtzman et al. 2020)."""
    said, wanted = answers.by(answers.own), [pair.target for pair in answers.pairs]
    share, due = repeating(said), repeating(wanted)
    taught = repeating(_taught(answers)) - due > 0.1
    yield Finding(
        "repetition", sure(max(0.0, share - due), 0.15, 0.5) * (0.9 if taught else 0.9 * OWN),
        f"{share:.0%} of the answers say a thing again and again; of the references {due:.0%}",
        (Evidence("a word three times in a row, or four words twice", {"answers": share, "references": due}),),
        "the targets of training repeat as much: it was taught" if taught else
        "not the data: neither references nor targets of training repeat as much",
        {"training.objective": "unlikelihood", "decoding.no_repeat": 3}, expect="answers that come to an end",
    )  # fmt: skip


def length_collapse(patient: Patient, answers: Answers) -> Iterator[Finding]:
    """Answers are far shorter than references, by whatever search (Murray and Chiang 2018)."""
    ratio = answers.lengths(answers.usual)
    empty = sum(not answer.strip() for answer in answers.by(answers.usual)) / max(1, len(answers.pairs))
    length, due = (sum(map(len, texts)) / max(1, len(texts)) for texts in
                   (_taught(answers), [pair.target for pair in answers.pairs]))  # fmt: skip
    short = sure(ratio, 0.6, 0.3) * (1.0 if length < 0.7 * due else OWN)
    yield Finding(
        "length collapse", max(short, sure(empty, 0.2, 0.6)),
        f"answers are {ratio:.0%} as long as references" + (f", {empty:.0%} are empty" if empty else ""),
        (Evidence("characters of answers over those of references, by the usual search",
                  {"ratio": ratio, "empty": empty}),),
        "not the length penalty of this run: by the usual one it is the same",
        {"decoding.min_length": 1, "decoding.length_penalty": patient.advised("decoding.length_penalty") or 1.0},
        "see whether targets of training are cut", "answers as long as references",
    )  # fmt: skip


def _taught(answers: Answers) -> list[str]:
    """Some targets of training."""
    train = answers.material.parts[0]
    return [pair.target for pair in train[:: -(-len(train) // 1000)]]


def exposure_bias(patient: Patient) -> Iterator[Finding]:
    """Right after a right beginning, lost after its own (Ranzato et al. 2016)."""
    forced, free = (patient.record.last("answers", name) for name in ("forced_accuracy", "free_accuracy"))
    if not forced or free is None or not patient.record.config.model:
        return
    forced, free = (value / 100 if value > 1 else value for value in (forced, free))
    yield Finding(
        "exposure bias", both(sure(free / forced, 0.5, 0.15), sure(forced, 0.7, 0.95)) * 0.8,
        f"after right beginnings {forced:.0%} of the tokens are right, after its own {free:.0%}",
        (Evidence("greedy answers against references, token by token", {"forced": forced, "free": free}),),
        "not too little learned: with right beginnings it knows what comes; not several good answers, if there is one",
        {"training.scheduled_sampling": 0.25},
        expect="answers that hold their course to the end",
        plot=Plot("free against forced", "step", tuple((float(step), value) for step, value in
                                                       patient.record.probed("answers", "free_accuracy"))),
    )  # fmt: skip


def metric_against_loss(patient: Patient) -> Iterator[Finding]:
    """The loss says one thing, the answers another, and the run was judged by the loss."""
    record, name = patient.record, patient.record.config.training.metric or "loss"
    other = next((key for event in record.validations for key in (event.get("scores") or {})
                  if key not in ("loss", "perplexity", name)), "")  # fmt: skip
    judged = record.scores(other)
    if name not in ("loss", "perplexity") or len(judged) < 4:
        return
    kept = dict(judged).get(min(record.validation_losses, key=lambda each: each[1])[0], judged[-1][1])
    best_step, best = max(judged, key=lambda each: each[1])
    missed = (best - kept) / max(1e-9, abs(best))
    yield Finding(
        "metric against loss", sure(missed, 0.05, 0.2) * 0.9,
        f"the weights with the lowest loss do not answer best: {other} {kept:.3g}, at step {best_step:,} {best:.3g}",
        (Evidence(f"judged by {name}; {other} went on rising", {"kept": kept, "best": best}, best_step),),
        "not overfitting: what gets worse is the loss of what is rare, not what is said",
        {"training.metric": patient.advised("training.metric") or "chrf"}, expect="the best answers are kept",
        plot=Plot(other, "step", tuple((float(step), score) for step, score in judged)),
    )  # fmt: skip
