"""A conversation with a model: each answer follows from what was said before, as it did in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError, DataError, nearest
from antiphon.data import turns
from antiphon.data.corpus import Pair
from antiphon.data.signals import Signal
from antiphon.data.turns import Turn
from antiphon.inference.predictor import Predictor
from antiphon.inference.task import Task


class Chat:
    """Says what the model answers, and remembers both sides.

    A model that was trained on dialogues (`antiphon.data.turns`) sees as many of the latest turns as the longest source
    of training had; any other sees the latest alone. `speaker` is who talks to the model and `partner` who the model
    is, for models that know speakers; where they know two, the first by alphabet talks and the other answers unless
    told otherwise. `settings` is how to search, as in `Predictor.predict`; `context` has the columns that the model
    was trained with.

    `history` is all that was said. The predictor's `report` tells what was odd in the latest answer.
    """

    def __init__(
        self, predictor: Predictor, *, settings: Decoding | None = None, speaker: str = "", partner: str = "",
        context: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.predictor, self.context = predictor, dict(context or {})
        self.settings = settings or predictor.config.decoding
        self.remembered: int = max(1, predictor.task.turns)
        """The most turns that the model sees."""
        self.history: list[Turn] = []
        self.speaker, self.partner = _roles(speakers(predictor.task), speaker, partner)
        missing = [name for name in predictor.task.context if name not in self.context]
        if missing:
            do = f"give {', '.join(f'{name}=...' for name in missing)}"
            raise ConfigError("the model was trained with context columns", got=f"no {', '.join(missing)}", do=do)

    def say(self, text: str) -> str:
        """The answer to a text, both of which become part of the history.

        Raises `DataError` for a text that is blank or holds the mark that parts turns; it is then not remembered.
        """
        text = _sayable(text)
        said = [*self.history, Turn(text, self.speaker)]
        pair = _heard(self.predictor.task, said, self.partner, self.context)
        # Each answer is drawn anew where answers are drawn.
        settings = replace(self.settings, seed=self.settings.seed + len(self.history) // 2)
        [answers] = self.predictor.predict([pair], settings=settings, window=1)
        self.history = [*said, Turn(answers[0].text, self.partner)]
        return answers[0].text

    def reset(self) -> None:
        """Forget what was said."""
        self.history = []


def conversation(task: Task, texts: Sequence[str], speaker: str = "", partner: str = "") -> Pair:
    """What a model reads of turns that two took in turn, the last of which it is to answer; where it knows two
    speakers and none is named, it is the second by alphabet. Raises as `Chat` does."""
    speaker, partner = _roles(speakers(task), speaker, partner)
    said = [Turn(_sayable(text), (speaker, partner)[n % 2]) for n, text in enumerate(texts[::-1])][::-1]
    return _heard(task, said, partner, {})


def _sayable(text: str) -> str:
    text = text.strip()
    if not text or turns.has_mark(text):
        do = "say something" if not text else f"leave {turns.mark()} out: it is what parts turns"
        raise DataError("this cannot be said", got=repr(text[:60]), do=do)
    return text


def _heard(task: Task, said: Sequence[Turn], partner: str, context: Mapping[str, str]) -> Pair:
    """As many of the latest turns as the model saw in training."""
    return Pair(turns.join(said[-max(1, task.turns) :], partner), "", (), dict(context))


def speakers(task: Task) -> list[str]:
    """The speakers that a model knows, by alphabet; none where turns are not named."""
    if not task.turns or isinstance(task.source, Signal):
        return []
    begin = turns.mark("\0").partition("\0")[0]
    found = (token for token in task.source.vocabulary.index if turns.is_mark(token))
    return sorted(token[len(begin) : -1] for token in found if token.startswith(begin))


def _roles(known: list[str], speaker: str, partner: str) -> tuple[str, str]:
    """Who talks and who answers, one of the speakers that the model knows each."""
    for name, role in ((speaker, "speaker"), (partner, "partner")):
        if name and not known:
            raise ConfigError(f"the model knows no speakers, so there is no {role} to name", got=name)
        if name and name not in known:
            raise ConfigError(f"the model does not know this {role}", got=name, do=nearest(name, known))
    if len(known) == 2:
        speaker = speaker or next(name for name in known if name != partner)
        partner = partner or next(name for name in known if name != speaker)
    if known and not (speaker and partner):
        got = f"{len(known):,} that it knows: {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}"
        raise ConfigError("the model knows speakers; say who talks and who answers", got=got,
                          do="give speaker and partner")  # fmt: skip
    return speaker, partner
