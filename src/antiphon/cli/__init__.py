"""The commands: each is one thin module that is imported when it is called, so that `--help` is instant."""

from __future__ import annotations

from cyclopts import App, Parameter

import antiphon

COMMANDS = {
    "demo": "Learn to pronounce English in a few minutes, and show it.",
    "audit": "Look for what is wrong with pairs, before anything is trained.",
    "train": "Train a model on a file of pairs.",
    "doctor": "Say what is wrong with a training, and the cure.",
    "resume": "Go on with an interrupted training, exactly where it stopped.",
    "tune": "Search for settings that beat the recipe's, and say whether they do.",
    "distill": "Train a light student on what slower models answer.",
    "synthesize": "Make training pairs of text by a model's answers.",
    "predict": "Answer lines of text with a trained model.",
    "chat": "Talk with a trained model; it remembers what was said.",
    "serve": "Serve trained models over HTTP, with a web page.",
    "evaluate": "Score a model on pairs, with 95 % intervals.",
    "report": "Show a run, or several beside each other, on a page or in the terminal.",
    "compare": "Score two models on the same pairs and test whether they differ.",
    "export": "Write a model for an engine that answers faster than PyTorch.",
    "lighten": "Make small fast versions of a model, and show which is worth what.",
    "sweep": "Draw quality against variety of models over temperatures.",
    "calibrate": "Learn from pairs how far a model's answers can be trusted.",
    "tasks": "List what pairs can be for, and what each task brings.",
    "info": "Show what a model is; without a model, list every setting.",
}

app = App(
    name="antiphon",
    help="Learn to answer one sequence with another: train small encoder-decoder models, and use them.",
    version=antiphon.__version__,
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=lambda value: value or None),
    suppress_keyboard_interrupt=False,
)
for _order, (_name, _help) in enumerate(COMMANDS.items()):
    app.command(f"antiphon.cli.{_name}:{_name}", name=_name, help=_help, sort_key=_order)
app["--help"].sort_key = app["--version"].sort_key = len(COMMANDS)
