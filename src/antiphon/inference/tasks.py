"""What pairs can be for: one value a task, read by the recipe, by validation and by evaluation.

A new task is a new value here; it then has `--task`, `Seq2Seq(task=...)`, the list of `antiphon tasks` and its row in
the documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from antiphon.core.config import Kind
from antiphon.core.errors import ConfigError, nearest


@dataclass(frozen=True)
class Choice:
    """One proposed setting and why; `needs` is another, and the value that it must have."""

    key: str
    value: Any
    reason: str
    needs: tuple[str, Any] | None = None


@dataclass(frozen=True)
class Preset:
    """What a task brings.

    `metrics` are what `evaluate` scores by; `choices` are the settings it proposes where they are left open, all others
    follow from the data. `spelled`: short strings are cut into characters. `longest_source`: a source may have so many
    tokens, if the tokenizer does not allow more. `copy`: words of the source can be copied. `no_repeat`: n-grams of
    this length do not recur in an answer, unless it is spelled. `turns`: a source may be a dialogue
    (`antiphon.data.turns`). `noise` are the kinds of it (`antiphon.data.noise`) that leave the meaning of a source, or
    of its target, as it is. `source` and `target`: what they are, where they are not text.
    """

    name: str
    purpose: str
    metrics: tuple[str, ...]
    choices: tuple[Choice, ...] = ()
    spelled: bool = False
    longest_source: int = 0
    copy: bool = False
    no_repeat: int = 0
    turns: bool = False
    noise: tuple[str, ...] = ("casing", "punctuation", "spaces", "symbols")
    source: Kind | None = None
    target: Kind | None = None


_WRITTEN = ("casing", "typos", "punctuation", "spaces", "symbols")
_ANSWERS = "judged on real answers"
_LOSS = "cheap and steady: good answers may share no word with the one that is known"
_SOMETHING = Choice("decoding.min_length", 1, "an empty answer is none")

TRANSDUCTION = Preset(
    "transduction",
    "strings of symbols: pronunciation, inflection, transliteration, spelling, commands",
    metrics=("exact", "error", "per", "cer"),
    spelled=True,
)
TRANSLATION = Preset(
    "translation",
    "sentences into another language or style",
    metrics=("bleu", "chrf"),
    choices=(Choice("training.metric", "chrf", _ANSWERS),),
    noise=(*_WRITTEN, "single", "joined"),
)
SUMMARIZATION = Preset(
    "summarization",
    "long texts into short ones: summaries, headlines, titles",
    metrics=("chrf", "bleu"),
    choices=(
        Choice("training.metric", "loss", _LOSS),
        _SOMETHING,
        Choice("decoding.length_penalty", 2.0, "else summaries come out too short"),
    ),
    longest_source=512,
    copy=True,
    no_repeat=3,
    noise=_WRITTEN,
)
DIALOGUE = Preset(
    "dialogue",
    "an answer to what was said, with the turns before it",
    metrics=("bleu", "distinct1", "distinct2"),
    choices=(Choice("training.metric", "loss", _LOSS), _SOMETHING),
    turns=True,
    noise=_WRITTEN,
)
CODE = Preset(
    "code",
    "descriptions into programs, queries or commands",
    metrics=("exact", "bleu"),
    copy=True,
    noise=("punctuation", "spaces", "symbols"),
)
DATA_TO_TEXT = Preset(
    "data-to-text",
    "facts, tables or records into sentences",
    metrics=("bleu", "chrf"),
    longest_source=512,
    copy=True,
    noise=("spaces", "symbols"),
)
CLASSIFICATION = Preset(
    "classification",
    "one label for a text: sentiment, intent, topic",
    metrics=("accuracy", "macro_f1"),
    choices=(
        Choice("data.target.tokenizer", "label", "the name of a class is one token"),
        Choice("model.decoder.layers", 1, "there is one token to say"),
        Choice("training.label_smoothing", 0.0, "probabilities of few classes say how sure it is"),
        Choice("training.metric", "accuracy", _ANSWERS),
        Choice("decoding.min_length", 1, "the name of a class is one token"),
        Choice("decoding.max_length", 1, "the name of a class is one token", ("data.target.tokenizer", "label")),
        Choice("decoding.beam", 1, "the likeliest class"),
    ),
    noise=_WRITTEN,
)

SPEECH = Preset(
    "speech",
    "recordings into text: what is said in each",
    metrics=("wer", "cer"),
    source="speech",
    choices=(Choice("training.metric", "wer", _ANSWERS),),
    noise=(),
)

CAPTIONING = Preset(
    "captioning",
    "films into text: what is seen in each",
    metrics=("bleu", "chrf"),
    source="video",
    choices=(Choice("training.metric", "chrf", _ANSWERS), _SOMETHING),
    noise=(),
)

FORECASTING = Preset(
    "forecasting",
    "numbers that go on: series, sensors, paths",
    metrics=("mase", "mae", "rmse", "crps"),
    source="numbers",
    target="numbers",
    noise=(),
)

PRESETS = {
    preset.name: preset
    for preset in (
        TRANSLATION,
        SUMMARIZATION,
        DIALOGUE,
        TRANSDUCTION,
        CODE,
        DATA_TO_TEXT,
        CLASSIFICATION,
        SPEECH,
        CAPTIONING,
        FORECASTING,
    )
}


def get(name: str) -> Preset:
    """The task of this name; `ConfigError` with the nearest name for any other."""
    if name not in PRESETS:
        raise ConfigError(f"unknown task {name}", where="task", do=nearest(name, PRESETS))
    return PRESETS[name]
