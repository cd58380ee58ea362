"""Good settings where sources are recordings, films or arrays: how they become frames, and what reads them."""

from __future__ import annotations

from dataclasses import replace

from antiphon.data.signals import RATE, Overview
from antiphon.data.video import SIZE
from antiphon.training.recipes import Plan, mean_length, step_down

SPOKEN = 20_000
"""Pairs of a recording and its text from which pieces of words can be learned."""

FRAMES = {"conv2d": 3e-5}
"""CPU seconds of training on a frame by frontends that cost much (`bench/signals.py`)."""

BRIEF = 1.0
"""Seconds below which a recording says little of its own level and noise: normalized by itself alone, each of its
features has some twenty numbers to go by (`docs/decisions/0006-more-than-text.md`)."""

PICTURE = 2e-4
"""CPU seconds of training on a picture of 32 x 32 pixels: about two thirds of what `bench/films.py` takes."""


class Hearing(Plan):
    """The plan for sources that are recordings or arrays: they are long, and there are few of them."""

    def tokenizers(self) -> None:
        """How targets are cut, and sources become frames."""
        self.propose("data.shared", False, "sources are no text")
        kind, reason = self._tokenizer("target")
        if kind == "bpe" and self.statistics.pairs < SPOKEN:
            kind, reason = "char", f"spelled out: {self.statistics.pairs:,} pairs are few to know words by their sound"
        self.propose("data.target.tokenizer", kind, reason)
        size, reason = self._size("target")
        self.propose("data.target.vocabulary", size, reason)
        self.propose("data.target.min_count", 1, "every token counts")
        self._longest("target")
        self._frames()

    def _frames(self) -> None:
        signal, speech = self.signal, self.config.data.source.kind == "speech"
        if speech:
            rate = min(signal.rate, RATE)
            self.propose("data.frames.rate", rate, f"as most are recorded at {signal.rate:,}, and speech needs no more")
            rate = self.config.data.frames.rate or RATE
            self.propose("data.frames.mels", 80 if rate >= RATE else 40, f"{rate / 2:,.0f} Hz to divide")
        how = ("each", "whatever the voice and the room") if speech else ("all", "levels may say something")
        if speech and signal.short < BRIEF:
            how = ("all", f"a tenth last no longer than {signal.short:.1f} s, too short for a level of their own")
        self.propose("data.frames.normalize", *how)
        self.propose("model.frontend.kind", "conv2d" if speech else "conv", "neighbours say much the same")
        room = signal.frames / (1 + mean_length(self.statistics.target, self.config.data.target.tokenizer))
        reduce = step_down(room / 2, (1, 2, 4))
        self.propose("model.frontend.reduce", reduce, f"about {room:,.0f} frames a token of the target")
        self._longest_source(max(3000, 100 * round(signal.frames / 10)))
        heard = speech or self.preset.name == "speech"
        heard = heard and self.config.training.ctc != 0
        self.propose("model.ctc", heard, "words are heard in their order" if heard else "no order is to be learned")
        share = 0.3 if self.config.model.ctc and self.config.training.ctc != 0 else 0.0
        self.propose("training.ctc", share, "attention finds its way sooner" if share else "there is no CTC head")
        self.propose("decoding.ctc", share, "attention alone may skip or repeat" if share else "there is no CTC head")

    def _longest_source(self, frames: int, reason: str = "longer ones are cut, and counted") -> None:
        model = self.config.model
        if model.positions == "learned":
            frames = min(frames, (model.frontend.reduce or 1) * model.max_positions)
        self.propose("data.source.max_length", frames, reason)

    @property
    def signal(self) -> Overview:
        """What sources are like."""
        assert self.statistics.signal is not None
        return self.statistics.signal

    def network(self) -> None:
        """LSTMs, where words are heard in their order: they learn it in a fraction of the time."""
        if self.config.model.ctc:
            for half in ("encoder", "decoder"):
                self.propose(f"model.{half}.kind", "lstm", "hears in minutes what self-attention takes hours for")
            if self.config.model.decoder.kind == "lstm":
                self.propose("model.decoder.layers", 1, "what was heard is mostly what is to be said")
                self.propose("model.attention", "location", "sees where it looked before, and goes on from there")
        super().network()

    def regularization(self) -> None:
        """What keeps few recordings from being learned by heart."""
        speech = self.config.data.source.kind == "speech"
        self.propose("model.dropout", 0.2 if self._tokens() < 200_000 else 0.1, "sources are changed at random as well")
        hours = self.signal.seconds * self.statistics.pairs / 3600
        self.propose("model.frontend.time_masks", 2, "no sound can be relied on (SpecAugment)")
        masks = 2 if speech else 0
        reason = "no pitch can be relied on" if speech else "features may be few, and each may be needed"
        self.propose("model.frontend.feature_masks", masks, reason)
        fast = 0.1 if speech and hours < 20 else 0.0
        reason = f"{hours:.1f} hours are few: each is heard slower and faster too" if fast else "there is enough"
        self.propose("data.augment.speed", fast, reason if speech else "only recordings have a speed")
        super().regularization()

    def batches(self) -> None:
        """How much goes into a step: frames are many."""
        size = min(4096, max(1024, 256 * round(self._tokens() / 200 / 256))) * (self.config.model.frontend.reduce or 1)
        self.propose("data.batch_tokens", size, "many steps an epoch, and full ones")

    def _batch(self) -> float:
        return super()._batch() / (self.config.model.frontend.reduce or 1)

    def seconds_per_token(self) -> float:
        """Those of other models, and what frames cost before they are few."""
        frontend = self.config.model.frontend
        return super().seconds_per_token() + FRAMES.get(frontend.kind or "", 0.0) * (frontend.reduce or 1)

    def judging(self) -> None:
        """By words, where there are some."""
        if self.statistics.target.words > 1.5 or self.preset.name == "speech":
            self.propose("training.metric", "wer", "judged on real answers")
        super().judging()

    def _lengths(self) -> tuple[float, float]:
        """Positions of the memory, and target tokens."""
        return self.signal.frames / (self.config.model.frontend.reduce or 1), super()._lengths()[1]

    def _learned_from(self) -> float:
        return self._tokens()  # a recording is long whatever is said in it

    def _long(self) -> float:
        return 0.0


class Watching(Hearing):
    """The plan for sources that are films: there are few pictures of each, and each of them costs."""

    def _frames(self) -> None:
        film, mine = self.signal, self.config.data.frames
        wanted = 4 if film.seconds <= 10 else 2 if film.seconds <= 30 else 1
        reason = f"films have {film.seconds:.1f} seconds, and about {film.rate} pictures in each"
        self.propose("data.frames.per_second", float(min(wanted, max(1, film.rate))), reason)
        side = mine.size or min(SIZE, film.side) or SIZE
        channels = 1 if mine.grey else 3
        self.propose("data.frames.size", side, f"{4 * channels * side**2 / 1000:.0f} KB and little work for a picture")
        self.propose("data.frames.normalize", "none", "pixels have one scale, and need no other")
        count = film.seconds * (self.config.data.frames.per_second or wanted)
        self.propose("model.frontend.kind", "pictures", "the same shape may be seen anywhere, and at any time")
        room = count / (1 + mean_length(self.statistics.target, self.config.data.target.tokenizer))
        reason = f"about {room:,.1f} pictures a token of the target"
        self.propose("model.frontend.reduce", step_down(room / 2, (1, 2, 4)), reason)
        self._longest_source(max(200, 10 * round(count)))

    @property
    def signal(self) -> Overview:
        """What films are like, with as many frames as there are to be pictures of each."""
        film = super().signal
        per_second = self.config.data.frames.per_second
        return replace(film, frames=film.seconds * per_second) if per_second else film

    def regularization(self) -> None:
        """Pictures are few: none is hidden."""
        self.propose("model.frontend.time_masks", 0, "pictures are few, and each may be needed")
        super().regularization()

    def batches(self) -> None:
        """How much goes into a step: its pictures are in memory at every size that the convolutions give them."""
        size = min(2048, max(1024, 256 * round(self._tokens() / 200 / 256))) * (self.config.model.frontend.reduce or 1)
        self.propose("data.batch_tokens", size, "many steps an epoch, and little memory")

    def seconds_per_token(self) -> float:
        """Those of other models, and what it costs to look at a picture."""
        area = (self.config.data.frames.size or SIZE) ** 2
        pictures = self.signal.frames * self.statistics.pairs
        return super().seconds_per_token() + PICTURE * area / 32**2 * pictures / self._tokens()
