"""The report as one HTML file that fetches nothing: style and pictures are in it, and there is no script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import antiphon
from antiphon.core.keys import to_dict
from antiphon.diagnosis.report import drawing, learning, scores
from antiphon.diagnosis.report.drawing import Line
from antiphon.diagnosis.report.judging import Judged, Judgement
from antiphon.diagnosis.report.reading import Run, finite, settings
from antiphon.diagnosis.report.writing import key, scored, section, table

Found = Mapping[str, Any]
"""What a doctor found of a run, as JSON has it."""


def page(runs: Sequence[Run], found: Judgement, findings: Sequence[Found | None], command: str = "") -> str:
    """The whole report of runs: `findings` are a doctor's, one a run, None where nobody looked."""
    names = [run.name for run in runs]
    sections = [
        scores.results(runs, found), scores.differences(runs, found), learning.curves(runs),
        doctor(runs, findings), scores.weaknesses(runs, found), scores.examples(runs, found),
        scores.looked(runs, found), learning.inside(runs), data(runs), configuration(runs), again(runs, command),
    ]  # fmt: skip
    kept = [each for each in sections if each]
    links = " ".join(f'<a href="#{_id(each)}">{_title(each)}</a>' for each in kept)
    style = (resources.files(__package__) / "page.css").read_text(encoding="utf-8")
    title = " · ".join(names)
    head = (f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
            f"<style>{style}</style>")  # fmt: skip
    top = f"<header><h1>{headline(names)}</h1>{_lead(runs, found)}{key(names)}<nav>{links}</nav></header>"
    foot = f"<footer>Made by antiphon {escape(antiphon.__version__)}. Nothing here is fetched from elsewhere.</footer>"
    body = f"<body>{top}<main>{''.join(kept)}</main>{foot}</body>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>{body}</html>\n'


def headline(names: Sequence[str]) -> str:
    """The names of the runs, the first in colour where there are several."""
    first, *others = map(escape, names)
    return f"<i>{first}</i> {' '.join(f'<small>and</small> {each}' for each in others)}" if others else first


def _id(part: str) -> str:
    return part.partition('id="')[2].partition('"')[0]


def _title(part: str) -> str:
    return part.partition('">')[2].partition("</h2>")[0]


def _lead(runs: Sequence[Run], found: Judgement) -> str:
    """What it all comes to, in a sentence a run."""
    sentences = [f'<p class="lead">{lead(run, judged)}</p>' for run, judged in zip(runs, found.judged, strict=True)]
    return "".join(sentences)


def lead(run: Run, judged: Judged) -> str:
    """What a run is, how long it was and what came of it, in a sentence of HTML."""
    model = run.config.model
    kinds = list(dict.fromkeys(kind for kind in (model.encoder.kind, model.decoder.kind) if kind))
    network = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "ssru": "SSRU", "conv": "convolution"}
    named = " and ".join(network.get(kind, kind.capitalize()) for kind in kinds) or "network"
    article = "An" if named[0] in "LRS" and named.isupper() else "A"
    size = f" of {drawing.short(judged.parameters)} parameters" if judged.parameters else ""
    took = ""
    if run.steps:
        last = run.steps[-1]
        took = f", trained for {int(last['step']):,} steps ({int(last.get('epoch') or 0) + 1} epochs begun)"
    metric = scores.main_metric(judged)
    score = ""
    if metric is not None and judged.evaluation is not None:
        score = f": <b>{escape(metric)} {scored(judged.evaluation.scores[metric])}</b>"
    return f"{article} {escape(named)}{size} for {escape(run.config.task)}{took}{score}."


def doctor(runs: Sequence[Run], findings: Sequence[Found | None]) -> str:
    """What the doctor says of each run."""
    parts = []
    for run, found in zip(runs, findings, strict=True):
        if found is None:
            continue
        parts += [f"<h3>{escape(run.name)}</h3>"] if len(runs) > 1 else []
        each = found.get("findings") or []
        parts += [_finding(finding) for finding in each if isinstance(finding, Mapping)]
        if verdict := str(found.get("verdict") or ""):
            parts.append(f"<p>{escape(verdict[0].upper() + verdict[1:])}.</p>")
        if looked := found.get("looked_at"):
            parts.append(f'<p class="note">Looked at: {escape(", ".join(map(str, looked)))}.</p>')
    return section("doctor", "What the doctor says", *parts)


def _finding(finding: Mapping[str, Any]) -> str:
    """Cause, symptom, evidence, how it was told apart, cure and what to expect."""
    evidence = "".join(f"<li>{_evidence(each)}</li>" for each in finding.get("evidence") or ())
    cure = prescribed(finding)
    sure = finding.get("confidence")
    told = f" <small>{float(sure):.0%} sure</small>" if isinstance(sure, int | float) else ""
    lines = [("Not something else", finding.get("told_apart")), ("Do", finding.get("action")),
             ("Expect", finding.get("expect"))]  # fmt: skip
    more = "".join(f"<p><small>{name}.</small> {escape(str(text))}</p>" for name, text in lines if text)
    plot = finding.get("plot") or {}
    picture = drawing.chart([Line("", finite(map(tuple, plot.get("points") or ())), 0)], name=str(plot.get("name", "")),
                            over=str(plot.get("over", "step")))  # fmt: skip
    return (f'<div class="finding"><h3>{escape(str(finding.get("cause", "")).capitalize())}{told}</h3>'
            f"<p>{escape(str(finding.get('symptom', '')))}</p><ul>{evidence}</ul>{more}"
            f"{f'<p><small>Cure.</small> <code>{escape(cure)}</code></p>' if cure else ''}"
            f"{drawing.joined([picture])}</div>")  # fmt: skip


def prescribed(finding: Mapping[str, Any]) -> str:
    """The settings of a cure as they are typed; nothing where no setting cures."""
    return " ".join(f"{name}={shown(value)}" for name, value in (finding.get("cure") or {}).items())


def _evidence(each: Any) -> str:
    if not isinstance(each, Mapping):
        return escape(str(each))
    where = [f"step {each['step']:,}" if isinstance(each.get("step"), int) else "", str(each.get("where") or "")]
    told = ", ".join(filter(None, where))
    return f"{escape(str(each.get('text', '')))}{f' <small>({escape(told)})</small>' if told else ''}"


def data(runs: Sequence[Run]) -> str:
    """What the audit and the report of the data said when training began, and what happened on the way."""
    parts = []
    for run in runs:
        parts += [f"<h3>{escape(run.name)}</h3>"] if len(runs) > 1 else []
        files = run.facts.get("data")
        hashed = f" <small>sha256 {escape(str(run.facts.get('train', ''))[:12])}</small>" if files else ""
        parts.append(f"<p>{escape(str(files))}{hashed}</p>" if files else "")
        for title, kinds in (("", ("audit", "data", "split")), ("On the way", ("skip", "rollback", "save", "stop"))):
            lines = "".join(f"<li>{escape(drawing.fit(line, 400))}</li>" for line in run.told(*kinds))
            parts.append(f"{f'<h3>{title}</h3>' if title else ''}<ul class='notes'>{lines}</ul>" if lines else "")
    return section("data", "The data", *parts)


def configuration(runs: Sequence[Run]) -> str:
    """Settings that were chosen or differ between runs; all others folded away."""
    rows: list[list[str]] = []
    usual: list[list[str]] = []
    for name, values, why, same in settings(runs):
        differ = any(value != values[0] for value in values[1:])
        cells = [f"<code>{escape(name)}</code>", *(escape(shown(value)) for value in values), escape(why)]
        if differ:
            cells[1:-1] = [f'<span class="big">{cell}</span>' for cell in cells[1:-1]]
        (usual if same and not differ else rows).append(cells)
    heads = ["setting", *([run.name for run in runs] if len(runs) > 1 else ["value"]), "why"]
    told = f"{len(usual)} that are as they always are"
    folded = f"<details><summary>{told}</summary>{table(heads, usual)}</details>"
    return section("settings", "Settings", table(heads, rows) if rows else "", folded)


def shown(value: Any) -> str:
    """A setting as people type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "auto"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def again(runs: Sequence[Run], command: str) -> str:
    """How to repeat each run, and this report."""
    parts = []
    for run in runs:
        parts += [f"<h3>{escape(run.name)}</h3>"] if len(runs) > 1 else []
        typed = run.facts.get("command")
        parts.append(f"<pre>{escape(str(typed))}</pre>" if typed else "")
        whole = json.dumps(to_dict(run.config), indent=1, ensure_ascii=False)
        parts.append(f"<details><summary>config.json</summary><pre>{escape(whole)}</pre></details>")
    parts.append(f"<h3>This report</h3><pre>{escape(command)}</pre>" if command else "")
    about = "The same command, data and version of antiphon give the same run; every random choice follows the seed."
    return section("again", "How to repeat it", *parts, about=about)
