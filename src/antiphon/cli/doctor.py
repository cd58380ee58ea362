"""`antiphon doctor`: what went wrong in a training, by what evidence, and the cure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from antiphon.cli.console import Console
    from antiphon.diagnosis.doctor import Examination, Finding


def doctor(
    run: Path,
    /,
    *,
    try_: Annotated[
        bool, Parameter(name="--try", help="make short experiments that tell the likely causes apart")
    ] = False,
    cure: Annotated[
        bool, Parameter(help="train anew with the settings of one finding after the other, and compare")
    ] = False,
    cause: Annotated[str, Parameter(help="with --cure: the one finding to cure, by its cause")] = "",
    out: Annotated[Path | None, Parameter(help="with --cure: the new folder; RUN-cured where not given")] = None,
    answers: Annotated[bool, Parameter(negative="--no-answers", help="ask the model for answers too")] = True,
    all_: Annotated[bool, Parameter(name="--all", help="show unlikely findings as fully as likely ones")] = False,
    json: Annotated[bool, Parameter(help="write everything as JSON")] = False,
) -> int:
    """Say what is wrong with a training: the likeliest cause first, with its evidence, its cure and what to expect.

    Reads the run's log, its settings, its data and its model. Exit code 1 where a cause is likelier than not.

    Parameters
    ----------
    run
        The folder that was given to train as --out.
    """
    from antiphon.cli.console import Console
    from antiphon.cli.prescription import report
    from antiphon.core.errors import ConfigError
    from antiphon.diagnosis.doctor import examine
    from antiphon.inference.strict_json import dump_json

    if not cure and (alone := "--cause" if cause else "--out" if out else ""):
        raise ConfigError(f"{alone} is for --cure", where="doctor", do=f"add --cure, or leave out {alone}")
    if json and cure:
        raise ConfigError("--cure has no --json", where="doctor", do="leave out one")
    console = Console()
    found = examine(run, answers=answers)
    if try_ and found.findings:
        found = _tried(console, run, found, quiet=json)
    if json:
        print(dump_json(found.to_dict()).decode())
        return 0 if found.healthy else 1
    console.print(report(found, full=all_))
    if cure:
        out = out or run.absolute().with_name(f"{run.absolute().name}-cured")
        return _cure(console, run, _chosen(found.findings, cause, run), out, once=bool(cause))
    return 0 if found.healthy else 1


def _tried(console: Console, run: Path, found: Examination, *, quiet: bool) -> Examination:
    """The same after experiments, each told as it is made."""
    import dataclasses

    from antiphon.cli.prescription import trial
    from antiphon.diagnosis.doctor.trying import tried, weighed

    trials = []
    for each in tried(run, found.findings):
        trials.append(each)
        if not quiet:
            console.print(trial(each))
    return dataclasses.replace(found, findings=weighed(found.findings, trials))


def _chosen(findings: tuple[Finding, ...], cause: str, run: Path) -> Finding:
    """The finding of a cause, or the first that settings cure."""
    from antiphon.core.errors import ConfigError

    known = {finding.cause: finding for finding in findings if not cause or finding.cause == cause}
    chosen = next((each for each in known.values() if cause or each.cure), None)
    if chosen is None:
        have = ", ".join(finding.cause for finding in findings) or "none"
        what = f"there is nothing to cure{f' called {cause}' if cause else ''}"
        raise ConfigError(what, where=run, got=f"findings: {have}", do="see them with --all, and name one by --cause")
    return chosen


def _cure(console: Console, run: Path, finding: Finding, out: Path, *, once: bool) -> int:
    """Apply the cure and say what it did; unless `once`, go on with what is then very likely wrong."""
    import shlex
    import sys

    from antiphon.cli.display import watching
    from antiphon.cli.prescription import outcome
    from antiphon.diagnosis.doctor import curing

    curing.curable(finding)
    cured, best = list[str](), run
    for place in curing.folders(out, 1 if once else curing.TRAININGS):
        if curing.search_alone(finding):
            curing.with_search(run, finding, place)
            console.print(f"the same weights with the other search are in {place}", highlight=False, soft_wrap=True)
            return 0
        with watching(console, dict(finding.cure)) as observer:
            command = shlex.join(["antiphon", *sys.argv[1:]])
            result = curing.cure(run, finding, place, observers=[observer], command=command)
        if result.bundle is None or result.interrupted:
            return result.exit_code
        before, after = curing.Best.of(run), curing.Best.of(place)
        console.print(outcome(before, after, place))
        best = place if after.above(curing.Best.of(best)) else best
        run, cured = place, [*cured, finding.cause]
        left = None if once or len(cured) == curing.TRAININGS else curing.following(run, cured)
        if left is None:
            break
        finding = left
        console.print(f"very likely now: {finding.cause}; its cure is next", highlight=False, soft_wrap=True)
    if best != run:
        console.print(f"that is no better: the best is {best}", highlight=False, soft_wrap=True)
    return 0
