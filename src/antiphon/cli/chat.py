"""`antiphon chat`: a conversation with a trained model, in the terminal or through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from antiphon.cli.models import AdapterName, Knowledge
from antiphon.core.errors import AntiphonError, ConfigError, nearest

if TYPE_CHECKING:
    from antiphon.inference.chat import Chat

COMMANDS = {
    "/reset": "forget what was said",
    "/history": "show what was said",
    "/help": "list these commands",
    "/quit": "end, as does Ctrl-D",
}


def chat(
    model: str,
    /,
    *settings: str,
    speaker: Annotated[str, Parameter(help="who you are, where the model knows speakers")] = "",
    partner: Annotated[str, Parameter(help="who the model is, where it knows speakers")] = "",
    knowledge: Knowledge = None,
    adapter: AdapterName = None,
) -> None:
    """Talk with a trained model: a line in, its answer out, with what was said before as history.

    /reset forgets what was said, /history shows it, /quit (or Ctrl-D) ends. A model that was not trained on dialogues
    answers each line alone. Blank lines are passed over.

    Parameters
    ----------
    model
        A bundle or a run; several with commas between them answer together, as an ensemble.
    settings
        How to search, as for predict: beam=5, sample=true and so on; and name=value for each context column that the
        model was trained with.
    """
    from antiphon.cli.models import idle, predictor, searching
    from antiphon.data.corpus import read_lines
    from antiphon.inference.chat import Chat

    guesser = predictor(model, knowledge=knowledge, adapter=adapter)
    columns = dict(word.split("=", 1) for word in settings if word.partition("=")[0] in guesser.task.context)
    words = [word for word in settings if word.partition("=")[0] not in columns]
    chosen = searching(guesser.config, words, ())
    idle(chosen, words)
    if chosen.n_best > 1:
        raise ConfigError("a chat gives one answer", where="chat", got=f"n_best={chosen.n_best}", do="leave n_best out")
    if guesser.task.knowledge != "none" and knowledge is None:
        do = "give a file of facts: --knowledge FILE"
        raise ConfigError("this model reads facts, and a chat has none", where="chat", do=do)
    talk = Chat(guesser, settings=chosen, speaker=speaker, partner=partner, context=columns)
    live = sys.stdin.isatty()
    _tell(beginning(talk), live)
    notes = set[str]()
    for line in _typed(talk.speaker or "you") if live else read_lines(sys.stdin):
        if line.strip() == "/quit":
            return
        if line.strip():
            _reply(talk, line.strip(), live, notes)


def beginning(talk: Chat) -> str:
    """What there is to know before the first line."""
    if talk.predictor.task.turns:
        sees = f"it sees the latest {talk.remembered} turns"
    else:
        sees = "it was trained without history, so it answers each line alone"
    roles = f"; you are {talk.speaker}, it is {talk.partner}" if talk.speaker else ""
    return f"a model for {talk.predictor.task.name}: {sees}{roles}; /help lists the commands"


def _typed(name: str) -> Iterator[str]:
    """Lines as a person types them, after a prompt; Ctrl-D ends them."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, lines can then be edited and called back
    while True:
        try:
            yield input(f"{name}> ")
        except (EOFError, KeyboardInterrupt) as end:
            print()
            if isinstance(end, KeyboardInterrupt):
                raise
            return


def _reply(talk: Chat, line: str, live: bool, notes: set[str]) -> None:
    """What a line leads to: an answer, with each kind of oddity told once in `notes`, or what a command does."""
    try:
        if not line.startswith("/"):
            print(f"{talk.partner or 'it'}> " * live + talk.say(line).replace("\n", " "), flush=True)
            for reason in talk.predictor.report.counts.keys() - notes:
                _tell(f"note: {reason}", live)
                notes.add(reason)
        elif line == "/reset":
            talk.reset()
            _tell("forgotten", live)
        elif line == "/history":
            for turn in talk.history:
                print(f"{turn.speaker}: {turn.text}" if turn.speaker else turn.text, flush=True)
        elif line == "/help":
            _tell("\n".join(f"{name:9} {what}" for name, what in COMMANDS.items()), live)
        else:
            _tell(f"error: unknown command {line}; {nearest(line, COMMANDS)}", live)
    except AntiphonError as error:
        _tell(f"error: {error}", live)


def _tell(text: str, live: bool) -> None:
    """Something that is no answer: on the terminal, or on standard error where answers go through a pipe."""
    print(text, file=sys.stdout if live else sys.stderr, flush=True)
