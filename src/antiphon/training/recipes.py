"""Good settings with no settings: looks at the pairs, proposes everything left open, and gives each reason."""

from __future__ import annotations

import math
from typing import Any

from antiphon.core.config import Config
from antiphon.core.keys import get, override
from antiphon.inference import tasks
from antiphon.inference.tasks import Choice
from antiphon.training.statistics import FAR, SideStatistics, Statistics

BUDGET = 900.0
"""CPU seconds that a default run should take, ten minutes on two cores; see `Plan.seconds_per_token`."""

MANY = 5000
"""Pairs that can do without their rare words, where these can be copied."""

DRAWN = {"self-critical", "minimum-risk", "adversarial", "sequence-unlikelihood"}
"""Objectives that learn from answers which the model draws."""
SUBWORDS = (1000, 2000, 4000, 8000, 16000, 32000)
"""Sizes of vocabularies of subwords."""
ROOM = 1.25
"""Subwords to each kind of character: every character is one, and there is to be room for more."""
FEW, BRIEF = 1_500_000, 60
"""Tokens of an epoch, and of a pair, up to which an LSTM learns running text faster than a Transformer on a CPU."""
LONG, READ, WINDOW = 512, 8192, 128
"""Tokens: sources beyond this are long, what is read of them, and how far a position then looks to either side."""


def propose(config: Config, statistics: Statistics, *, trained: bool = False) -> tuple[Config, list[Choice]]:
    """The configuration with every open field filled, and the choices made, in order. What is set stays.

    With `trained` the weights are those of a trained model, which is to get used to these pairs. With teachers they are
    those of a student, which is to be light.
    """
    kind: type[Plan] = Student if config.training.teachers and not trained else Plan
    if statistics.signal is not None:
        from antiphon.training.sensing import Hearing, Watching

        kind = Watching if config.data.source.kind == "video" else Hearing
    if statistics.numbers is not None:
        from antiphon.training.forecasting import Forecasting

        kind = Forecasting
    if trained:
        kind = type("Tuned", (FineTuning, kind), {})
    plan = kind(config, statistics)
    for step in (
        plan.task,
        plan.asked,
        plan.tokenizers,
        plan.network,
        plan.regularization,
        plan.batches,
        plan.schedule,
        plan.judging,
    ):
        step()
    return plan.config, plan.choices


class Plan:
    """A configuration being filled in, part by part; later parts read what earlier ones chose."""

    most_epochs = 120

    def __init__(self, config: Config, statistics: Statistics) -> None:
        self.config, self.statistics, self.choices = config, statistics, list[Choice]()
        self.preset = tasks.get(config.task)

    def propose(self, key: str, value: Any, reason: str) -> None:
        """Fill a field that is still open."""
        if get(self.config, key) is None:
            self.config = override(self.config, {key: value}, where="recipe")
            self.choices.append(Choice(key, value, reason))

    def replace(self, key: str, value: Any, reason: str) -> None:
        """Fill a field whose default leaves the choice open."""
        self.config = override(self.config, {key: value}, where="recipe")
        self.choices.append(Choice(key, value, reason))

    def task(self) -> None:
        """What the task brings, whatever the data."""
        for choice in self.preset.choices:
            key, value = choice.needs or ("task", self.config.task)
            if get(self.config, key) == value:
                groups = self.config.decoding.groups if choice.key == "decoding.beam" else 1
                self.propose(choice.key, up(choice.value, groups) if groups > 1 else choice.value, choice.reason)
        reason = "names and rare words can be taken from the source" if self._copies() else "answers are of known words"
        self.propose("model.head", "copy" if self._copies() else "vocabulary", reason)

    def asked(self) -> None:
        """What settings that are given cannot do without."""
        encoder = self.config.model.encoder
        if encoder.window or encoder.global_tokens:
            self.propose("model.encoder.kind", "transformer", "it is self-attention that has a window")
        if encoder.global_tokens:
            self.propose("model.encoder.window", WINDOW, "global tokens are for a window")
        if self.config.model.ctc:
            self.propose("training.ctc", 0.3, "what the CTC head learns from")

    def _copies(self) -> bool:
        """Whether to copy: it needs attention, tokens alike, no CTC, and no teacher, which decides that itself."""
        given = {self.config.data.source.tokenizer, self.config.data.target.tokenizer} - {None}
        possible = self.config.model.attention != "none" and len(given) < 2 and not self.config.training.teachers
        possible = possible and not self.config.model.ctc
        return self.preset.copy and possible

    def tokenizers(self) -> None:
        """How each side is cut, and whether both share one vocabulary."""
        found = {side: self._tokenizer(side) for side in ("source", "target")}
        copying = self.config.model.head == "copy"
        kinds = {getattr(self.config.data, side).tokenizer or kind for side, (kind, _) in found.items()}
        if copying and len(kinds) > 1 and kinds & {"bpe", "unigram", "word", "byte"}:
            kind = self.config.data.target.tokenizer or self.config.data.source.tokenizer or found["target"][0]
            found = dict.fromkeys(found, (kind, "what is copied has to fit in"))
        for side, (kind, reason) in found.items():
            self.propose(f"data.{side}.tokenizer", kind, reason)
        data = self.config.data
        subwords = {data.source.tokenizer, data.target.tokenizer} <= {"bpe", "unigram"}
        same = ("tokenizer", "vocabulary", "min_count", "normalize", "lowercase")
        subwords = subwords and all(getattr(data.source, name) == getattr(data.target, name) for name in same)
        shared = subwords and (self.statistics.common > 0.5 or copying)
        reason = "both sides write alike" if shared else "the sides write differently"
        self.propose("data.shared", shared, "what is copied has to fit in" if shared and copying else reason)
        sizes = [self._size(side) for side in ("source", "target")]
        if self.config.data.shared:
            given = self.config.data.source.vocabulary or self.config.data.target.vocabulary
            sizes = [(given, "as the other side has") if given else max(sizes)] * 2
        for side, (size, reason) in zip(("source", "target"), sizes, strict=True):
            self.propose(f"data.{side}.vocabulary", size, reason)
            few = copying and getattr(self.config.data, side).tokenizer == "word" and self.statistics.pairs >= MANY
            reason = "what is rarer is copied, and copying is learned from it" if few else "every token counts"
            self.propose(f"data.{side}.min_count", 3 if few else 1, reason)
            self._longest(side)
        prose = {"casing", "spaces"} <= set(self.preset.noise)
        how = ("single", "how many are typed says nothing") if prose else ("keep", "each may say something")
        self.propose("data.source.spaces", *how)

    def _tokenizer(self, name: str) -> tuple[str, str]:
        side: SideStatistics = getattr(self.statistics, name)
        if side.words >= 1.5 and side.word_kinds <= 1000 and side.new_words < 0.005:
            return "whitespace", f"a closed set of {side.word_kinds} symbols"
        if self.preset.spelled and side.words < 1.5:
            return "char", "single words, spelled out"
        if self.preset.spelled and side.characters < 40:
            return "char", "short strings, spelled out"
        if self.preset.copy and self.config.model.head == "copy" and side.chinese < 0.1:
            return "word", "whole words can be copied, those too that nobody knows"
        if step_down(self._words(name) / 60, SUBWORDS) < ROOM * side.character_kinds:
            return "char", f"{side.character_kinds:,} characters, and too few texts to learn pieces of several from"
        return "bpe", f"running text with {side.new_words:.1%} unseen words"

    def _words(self, side: str) -> float:
        """Words of one side, each Chinese character counted as one."""
        found: SideStatistics = getattr(self.statistics, side)
        words = self.statistics.pairs * (found.words + found.chinese * found.characters)
        return words * (self.statistics.own if side == "source" else 1.0)  # many pairs share a fact, read from once

    def _size(self, side: str) -> tuple[int, str]:
        statistics, kind = getattr(self.statistics, side), getattr(self.config.data, side).tokenizer
        if kind not in ("bpe", "unigram"):
            return 50_000, "more than a closed set needs"
        words = self._words(side)
        size, letters = step_down(words / 60, SUBWORDS), ROOM * statistics.character_kinds
        if size < letters:  # every character is a piece, and there is to be room for more
            return next((each for each in SUBWORDS if each >= letters), SUBWORDS[-1]), "each character, and more"
        return size, f"about {words:,.0f} words to learn them from"

    def _longest(self, side: str) -> None:
        statistics, kind = getattr(self.statistics, side), getattr(self.config.data, side).tokenizer
        letters = 200 if self.preset.spelled else 400
        symbols = max(100, min(2 * statistics.longest_words, max(LONG, round(FAR * statistics.many_words)), READ))
        longest = {"char": letters, "byte": 400, "whitespace": symbols}.get(kind, 256)
        if side == "source":
            longest = max(longest, self.preset.longest_source, 512 if self.statistics.facts else 0)
        reason = "longer ones are cut, and counted"
        model = self.config.model
        if model.positions == "learned" and longest > model.max_positions:
            longest = model.max_positions
        if side == "source" and (tail := self._long()):
            longest, reason = READ, f"one source in twenty has about {tail:,.0f} tokens or more; beyond this {reason}"
        self.propose(f"data.{side}.max_length", longest, reason)

    def _long(self) -> float:
        """Tokens that one source in twenty has, where that is long; 0 where it is not, or the model cannot read it."""
        model, tail = self.config.model, mean_length(self.statistics.source.tail(), self.config.data.source.tokenizer)
        return 0.0 if tail <= LONG or model.positions == "learned" or model.encoder.window == 0 else tail

    def network(self) -> None:
        """Families, sizes and the wiring."""
        text = self._tokens() / max(1, self.statistics.pairs) > 30 or self.config.data.target.tokenizer == "bpe"
        long = text and not self._brief()
        family = "transformer" if long else "lstm"
        reason = "strongest on running text" if long else f"fastest to learn short {'texts' if text else 'strings'}"
        facts = self.statistics.facts
        self.propose("model.knowledge.kind", "linear" if facts else "none", "pairs have facts" if facts else "no facts")
        self.propose("model.encoder.kind", family, reason)
        self.propose("model.decoder.kind", family, reason)
        kinds = {self.config.model.encoder.kind, self.config.model.decoder.kind}
        modern = bool(kinds & {"transformer", "conformer", "ssru", "conv"})
        tokens = self._learned_from()
        width = step_down(tokens / (4000 if modern else 1500), (128, 256) if modern else (128, 192, 256))
        self.propose("model.width", up(width, self.config.model.heads), f"about {tokens:,.0f} tokens to learn from")
        layers = (4 if tokens > 300_000 else 3) if modern else 2
        self.propose("model.encoder.layers", layers, "deep enough for this much data")
        self.propose("model.decoder.layers", (min(layers, 3) if modern else 2), "decoding is paid a layer at a time")
        self.propose("model.feedforward", 2 * (self.config.model.width or 0) if modern else 0,
                     "twice the width" if modern else "recurrent layers do without")  # fmt: skip
        self.propose("model.attention", "multihead", "several looks at the source for the price of one")
        if self._long():
            self._network_for_long_sources()
        self.propose("model.positions", "sinusoidal", "any length, and free")
        self.propose("model.norm", "pre", "trains deep stacks without care")
        plain = "rnn" in kinds
        self.propose("model.activation", "tanh" if plain else "relu", "stays bounded" if plain else "cheap, and enough")
        self.propose("model.residual", True, "gradients reach every layer")
        tie = "all" if self.config.data.shared else "target"
        self.propose("model.tie", tie, "fewer weights, better estimates")

    def _brief(self) -> bool:
        """Whether texts are short and few, and nothing is copied or looked up."""
        tokens, facts = self._tokens(), self.statistics.facts
        short = tokens <= FEW and tokens <= BRIEF * self.statistics.pairs and not self._long()
        return short and self.config.model.head != "copy" and not facts

    def _network_for_long_sources(self) -> None:
        """Attention to neighbours, and positions that are good for more than was seen."""
        if self.config.model.encoder.kind in ("transformer", "conformer"):
            reason = "sources are long: time and memory grow with their length, and not with its square"
            self.propose("model.encoder.window", WINDOW, reason)
            self.propose("model.positions", "alibi", "as good on sources longer than any in training")

    def regularization(self) -> None:
        """Dropout and smoothing by the size of the data."""
        tokens = self._learned_from()
        share = 0.1 if tokens > 600_000 else 0.2 if tokens > 200_000 else 0.3
        self.propose("model.dropout", share, "less data wants more")
        drawn = self.config.training.objective in DRAWN
        reason = (
            "drawn answers would have words that smoothing gives a chance" if drawn else "keeps probabilities honest"
        )
        self.propose("training.label_smoothing", 0.0 if drawn else 0.1, reason)
        names = self.config.model.head == "copy" and self.statistics.taken > 0.05
        reason = "no name is known by heart, so that copying is learned" if names else "there is little to copy"
        self.propose("data.augment.names", 0.3 if names else 0.0, reason)

    def batches(self) -> None:
        """How much goes into a step."""
        size = min(2048, max(1024, 256 * round(self._tokens() / 400 / 256)))
        if self._long() and (several := 256 * round(self._tokens() / max(1, self.statistics.pairs) / 64)) > size:
            self.propose("data.batch_tokens", min(16_384, several), "four pairs a step: sources are long")
        self.propose("data.batch_tokens", size, "many steps an epoch, and full ones")

    def schedule(self) -> None:
        """Rate, warm-up and how long to train."""
        model, training = self.config.model, self.config.training
        rates = {"sgd": 0.5, "rmsprop": 1e-3, "adafactor": 1e-2}
        rate = rates.get(training.optimizer, 2e-3 if self._recurrent() else 3e-3 * (128 / (model.width or 128)) ** 0.5)
        self._rate(rate, f"suits {training.optimizer} at this width")
        self.propose("training.schedule", "cosine", "ends at its best")
        steps = max(1, math.ceil(self._tokens() / (self._batch() * training.accumulate) * 1.05))
        passes = BUDGET / max(1e-9, self.seconds_per_token() * self._tokens())
        if training.steps is None and training.epochs is None and training.minutes is None:
            affordable = max(1, min(self.most_epochs, round(passes)))
            hours = f"about {1 / (6 * passes):.1f} hours on two cores; training.minutes=N stops sooner"
            reason = f"about {affordable * steps:,} steps; "
            reason += "ten minutes on two cores, or less" if passes >= 0.5 else hours
            self.propose("training.epochs", affordable, reason)
        minutes = math.inf if training.minutes is None else training.minutes / 10 * passes  # ten are for all passes
        epochs = min(self.config.training.epochs or math.inf, (training.steps or math.inf) / steps, minutes)
        total = max(1, round(steps * epochs))
        self._warmup(total)
        every = math.ceil(epochs / 40)
        often = max(1, min(steps * every, total // 8, 2000))
        reason = f"every {every} epochs" if every > 1 else "once an epoch"
        self.propose("training.validate_every", often, reason if often == steps * every else "often enough to see")

    def _batch(self) -> float:
        """Tokens of a batch, as `_tokens` counts them."""
        return self.config.data.batch_tokens or 1

    def _rate(self, rate: float, reason: str) -> None:
        self.propose("training.rate", rate, reason)

    def _warmup(self, steps: int) -> None:
        wanted, reason = steps // 20, "a twentieth of the run, at most 1,000 steps"
        if (often := min(500, steps // 5)) > wanted and not self._recurrent():
            wanted, reason = often, "a fifth of the run, or 500 steps, which self-attention needs"
        self.propose("training.warmup", max(1, min(1000, wanted)), reason)

    def _recurrent(self) -> bool:
        """Whether there is no self-attention on either side."""
        model = self.config.model
        return not {"transformer", "conformer"} & {model.encoder.kind, model.decoder.kind}

    def judging(self) -> None:
        """What validation looks at, and the search."""
        kind = self.config.data.target.tokenizer
        subwords = kind in ("bpe", "unigram", "word", "chinese") or (kind == "char" and not self.preset.spelled)
        self.propose("training.metric", "chrf" if subwords else "error", "judged on real answers")
        self.propose("decoding.beam", up(5, self.config.decoding.groups), "a little better than greedy")
        self.propose("decoding.length_penalty", 1.0, "by what a token of it is worth")
        self.propose("decoding.min_length", 0, "the model says where an answer ends")
        length = 0 if self.config.data.target.tokenizer in ("char", "byte") else self.preset.no_repeat
        reason = f"no run of {length} tokens comes twice" if length else "an answer may say a thing again"
        self.propose("decoding.no_repeat", length, reason)

    def _tokens(self) -> float:
        """Source and target tokens of one epoch, estimated."""
        return self.statistics.pairs * sum(self._lengths())

    def _learned_from(self) -> float:
        """Tokens that say how large a model may be: of long sources with short targets, ten times those to answer."""
        source, target = self._lengths()
        return self.statistics.pairs * (min(source, 10 * target) + target)

    def _lengths(self) -> tuple[float, float]:
        """Mean tokens of a source and of a target, with their end marks."""
        data, found = self.config.data, self.statistics
        source = mean_length(found.source, data.source.tokenizer) + 1
        return source, mean_length(found.target, data.target.tokenizer) + 1

    def seconds_per_token(self) -> float:
        """CPU seconds a token: arithmetic at 150 GFLOP/s, and memory traffic by layer (`bench/` measures both)."""
        model = self.config.model
        width, inner = model.width or 0, model.feedforward or 0
        layers = (model.encoder.layers or 0) + (model.decoder.layers or 0)
        target = self.config.data.target
        kinds = self.statistics.target.character_kinds * (1 if target.tokenizer == "char" else 50)
        output = width * min(target.vocabulary or 0, kinds)
        weights = layers * (8 * width**2 + 2 * width * inner) / 2 + output / 2
        if model.encoder.kind == "conformer":
            weights += (model.encoder.layers or 0) * (3 * width**2 + 2 * width * inner) / 2
        return 6 * weights / 150e9 + 7e-6 * layers * (width / 128) ** 0.5


class FineTuning(Plan):
    """The plan for a trained model: it keeps its network and its tokenizers, and needs smaller and fewer steps."""

    most_epochs = 60

    def _rate(self, rate: float, reason: str) -> None:
        if self.config.model.adapter.name:
            self.propose("training.rate", rate, "what fresh weights want: an adapter begins with nothing")
        self.propose("training.rate", rate / 2, "half of what fresh weights want: these are good, and forget")

    def _warmup(self, steps: int) -> None:
        reason = "a fiftieth of the run, at most 200 steps: only the optimizer is new"
        self.propose("training.warmup", max(1, min(200, steps // 50)), reason)


class Student(Plan):
    """The plan for a model that has teachers: it is to answer fast, and learns from what they found out."""

    def network(self) -> None:
        """A light decoder; its encoder, which reads a source once, is as deep as ever."""
        self.propose("model.decoder.kind", "ssru", "a step costs little, and as much however long the answer is")
        self.propose("model.decoder.layers", 1, "the decoder is paid for each token; the encoder knows most")
        super().network()

    def judging(self) -> None:
        """A greedy search."""
        self.propose(
            "decoding.beam",
            self.config.decoding.groups,
            "after a teacher's answers greedy loses little (Kim and Rush 2016)",
        )
        super().judging()


def mean_length(side: SideStatistics, kind: str | None) -> float:
    """Mean tokens of a sequence, end mark not counted."""
    if kind in ("char", "byte"):
        return side.characters
    if kind in ("bpe", "unigram"):
        return max(1.4 * side.words, 0.75 * side.chinese * side.characters)
    return max(side.words, 0.6 * side.chinese * side.characters)


def step_down(wanted: float, sizes: tuple[int, ...]) -> int:
    """The largest of the sizes that is not above what is wanted, or the smallest."""
    return max((size for size in sizes if size <= wanted), default=sizes[0])


def up(number: int, part: int) -> int:
    """The next multiple of the part."""
    return -(-number // part) * part
