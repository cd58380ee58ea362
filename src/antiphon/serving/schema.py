"""What is asked and what is answered, as JSON."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Phrase = Annotated[str, Field(min_length=1, max_length=64)]
Token = Annotated[str, Field(min_length=1, max_length=64)]


class Strict(BaseModel):
    """Unknown fields, other types and numbers that are none are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Given(Strict):
    """An input with what stands beside it."""

    source: str
    context: dict[str, str] = Field(
        default={}, max_length=32, description="values of the columns that the model was trained with"
    )
    facts: list[Annotated[list[str], Field(min_length=3, max_length=3)]] = Field(
        default=[], max_length=100, description="facts, as subject, relation and object"
    )


class Search(Strict):
    """Which model answers, and how it searches."""

    model: str | None = Field(default=None, description="a name from /v1/models; the first where it is left out")
    adapter: str | None = Field(default=None, description="one of the model's adapters")
    beam: int | None = Field(default=None, ge=1, le=1024, description="hypotheses kept")
    best: int | None = Field(default=None, ge=1, le=1024, description="answers given")
    sample: bool = Field(default=False, description="draw answers at random")
    temperature: float | None = Field(default=None, gt=0, le=100, description="of what is drawn")
    seed: int | None = Field(default=None, ge=0, lt=1 << 63, description="the same seed draws the same answers")
    prefix: str | None = Field(default=None, max_length=2000, description="what answers begin with")
    required: list[Phrase] = Field(default=[], max_length=8, description="words that answers hold")
    banned: list[Phrase] = Field(default=[], max_length=16, description="words that answers do not hold")
    details: bool = Field(default=False, description="pieces, their scores, and where the model looked")


class Predict(Search):
    """Inputs to be answered."""

    inputs: list[str | Given] = Field(min_length=1)


class Stream(Search):
    """One input to be answered as the answer grows."""

    inputs: list[str | Given] = Field(min_length=1, max_length=1)


class Explore(Strict):
    """A source and the beginning of an answer, as text or as the pieces chosen so far."""

    model: str | None = None
    adapter: str | None = None
    source: str | Given
    prefix: str = Field(default="", max_length=2000)
    pieces: list[Token] = Field(default=[], max_length=512)
    width: int = Field(default=5, ge=1, le=50)


class Chat(Strict):
    """What two have said in turn, the other one last."""

    model: str | None = None
    adapter: str | None = None
    turns: list[str] = Field(min_length=1, max_length=200)
    speaker: str = Field(default="", max_length=64, description="who says the last turn, where the model knows several")
    partner: str = Field(default="", max_length=64, description="who answers")
    context: dict[str, str] = Field(
        default={}, max_length=32, description="values of the columns that the model was trained with"
    )
    stream: bool = Field(default=False, description="as events, as the answer grows")


class Translate(Strict):
    """As LibreTranslate has it."""

    q: str | list[str]
    source: str
    target: str
    format: str = "text"
    alternatives: int = Field(default=0, ge=0, le=100)
    api_key: str | None = None


class Alternative(BaseModel):
    """Another answer."""

    text: str
    score: float | None


class Details(BaseModel):
    """Pieces of source and target, log probabilities of the latter and the end, and attention, a row a target piece."""

    source: list[str]
    target: list[str]
    scores: list[float | None]
    attention: list[list[float | None]]


class Word(BaseModel):
    """A word, and the seconds in the recording where it is."""

    text: str
    start: float
    end: float


class Answered(BaseModel):
    """An answer; `reason` says what is unusual about it."""

    text: str
    score: float | None
    confidence: float | None
    probability: float | None
    reason: str
    finished: bool
    alternatives: list[Alternative]
    words: list[Word] | None = None
    numbers: dict[str, Any] | None = None
    details: Details | None = None


class Predicted(BaseModel):
    """The answers, in the order of the inputs."""

    model: str
    answers: list[Answered]


class Way(BaseModel):
    """A piece that may come next: `piece` to be handed back, `text` to be shown, and the text that it leads to."""

    piece: str
    text: str
    probability: float | None
    end: bool
    ahead: str


class ExploredAnswer(BaseModel):
    """A beginning and what may follow."""

    prefix: str
    pieces: list[str]
    next: list[Way]


class Model(BaseModel):
    """A model that is served."""

    model_config = ConfigDict(extra="allow")

    name: str
    task: str
    source: str
    target: str


class Models(BaseModel):
    """All models."""

    models: list[Model]


class Error(BaseModel):
    """What went wrong: where, what, what was found, and what to do."""

    where: str
    what: str
    got: str
    do: str


class Failed(BaseModel):
    """The body of every answer that is none."""

    error: Error


class Translated(BaseModel):
    """As LibreTranslate has it."""

    translatedText: str | list[str]
    alternatives: list[str] | list[list[str]] | None = None
    detectedLanguage: dict[str, Any] | None = None


class Language(BaseModel):
    """As LibreTranslate has it."""

    code: str
    name: str
    targets: list[str]


class FailedTranslation(BaseModel):
    """As LibreTranslate has it."""

    error: str
