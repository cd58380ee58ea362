"""`antiphon demo`: learns to pronounce English from 110,000 words, and shows how well it does on words it never saw."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from antiphon.cli.console import Console
from antiphon.core.errors import ConfigError

QUICK, FULL = 4.6, 15.0
"""Minutes of training."""

RECIPE: dict[str, Any] = {
    "task": "transduction",
    "data.source.tokenizer": "char",
    "data.target.tokenizer": "whitespace",
    "training.metric": "error",
    "training.patience": 0,
    "training.validate_every": 300,
}


def demo(
    *,
    full: Annotated[bool, Parameter(help="train for 15 minutes instead of 5")] = False,
    out: Annotated[Path, Parameter(help="folder for data, run and learning curve")] = Path("antiphon-demo"),
    fresh: Annotated[bool, Parameter(help="train anew even where this folder has a run")] = False,
    minutes: Annotated[float | None, Parameter(show=False)] = None,
) -> int:
    """Learn to pronounce English from the CMU Pronouncing Dictionary, and show how well it does on unseen words.

    Run it again to see the results again, or to go on with what was interrupted.
    """
    from antiphon.cli import pronunciations

    console = Console()
    run = out / ("run-full" if full else "run")
    if out.exists() and not (out.is_dir() and ((out / pronunciations.LICENSE).exists() or not any(out.iterdir()))):
        raise ConfigError("something else is here already", where=out, do="choose another folder with --out")
    if fresh:
        shutil.rmtree(run, ignore_errors=True)
    console.print("Learning to pronounce English, from the CMU Pronouncing Dictionary\n", style="bold")
    paths = pronunciations.prepare(out)
    code = _train(console, paths, run, minutes or (FULL if full else QUICK))
    if code == 0:
        _show(console, paths, run, full)
    return code


def _train(console: Console, paths: dict[str, Path], run: Path, minutes: float) -> int:
    """A new run; or an interrupted one to its end; or nothing, where it is finished."""
    from antiphon.cli.display import watching
    from antiphon.training.start import fit, resume

    given = {**RECIPE, "training.minutes": minutes}
    with watching(console, given) as observer:
        if (run / "config.json").exists():
            result = resume(run, [observer])
        else:
            command = f"antiphon demo --minutes {minutes:g}"
            result = fit(
                paths["train"], out=run, valid=paths["valid"], assignments=given, observers=[observer], command=command
            )
    if result.reason == "finished":
        console.print(f"{run} is already trained; --fresh trains it anew", style="dim", highlight=False)
    return result.exit_code


def _show(console: Console, paths: dict[str, Path], run: Path, full: bool) -> None:
    """Scores, pronunciations, the curve, and what to try next."""
    from antiphon.cli import demo_report as report
    from antiphon.cli.models import predictor, scored_pairs
    from antiphon.inference.evaluate import evaluate
    from antiphon.training.observers import read_log

    guesser = predictor(str(run))
    test = scored_pairs(str(paths["test"]), guesser.config)
    with console.status(f"pronouncing {len(test):,} words it has never seen"):
        found = evaluate(guesser, test, ["error", "per"])
        shown = report.chosen(test)
        answers = [answers[0] for answers in guesser.predict(shown)]
    console.print()
    console.print(report.score_table(len(test), found.scores["error"], found.scores["per"]))
    console.print(
        "WER: words that equal no pronunciation in the dictionary. PER: wrong phones. With 95 % intervals.", style="dim"
    )
    console.print("The published figures are for another split of the same dictionary.\n", style="dim")
    console.print(report.pronunciations(shown, answers, console.width))
    report.curves(console, read_log(run / "log.jsonl"), run.with_name(f"{run.name}-curve.html"))
    report.print_commands(console, report.next_commands(run, paths, full))
