"""`antiphon resume`: goes on with an interrupted training, exactly where it stopped."""

from __future__ import annotations

from pathlib import Path

from antiphon.cli.console import Console


def resume(run: Path, /) -> int:
    """Go on with an interrupted training, exactly where it stopped; the data must be as it was.

    Parameters
    ----------
    run
        The folder that was given to train as --out.
    """
    from antiphon.cli.display import ending, watching
    from antiphon.cli.train import concluded
    from antiphon.training.start import resume as go_on

    console = Console()
    with watching(console) as observer:
        result = go_on(run, [observer])
    if result.reason == "finished":
        console.print(ending(result), highlight=False)
    return concluded(console, result)
