"""Text to tokens and back: words, white space, characters, bytes, subwords, Chinese words."""

from __future__ import annotations

import importlib
import io
import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import groupby, islice, pairwise
from typing import ClassVar, Protocol

from antiphon.core.config import Side
from antiphon.core.errors import BundleError, ConfigError, nearest, require

MODEL_FILE = "sentencepiece.model"

MOST_SENTENCES = 200_000
"""Sentences that a subword model is learned from; more are sampled down to it."""

SENTENCE_LENGTH = 4000
"""Characters of a sentence that a subword model is learned from."""

LIKELIEST = 64
"""Cuts that unigram sampling chooses from."""

MOST_WORDS, LONGEST_WORD = 1 << 16, 40
"""Words whose pieces a subword tokenizer remembers, and the characters of the longest of them."""


class Tokenizer(Protocol):
    """Cuts text into tokens and joins them again; `exact` promises `decode(encode(text)) == text` for every text."""

    kind: str
    exact: bool

    def encode(self, text: str) -> list[str]:
        """The tokens, none of them empty."""
        ...

    def sample(self, text: str, strength: float, seed: int) -> list[str]:
        """Another way to cut the text, the same for the same seed; tokenizers that have one way give that."""
        ...

    def decode(self, tokens: Iterable[str]) -> str:
        """The text."""
        ...

    def files(self) -> dict[str, bytes]:
        """What must be kept to load it again, by file name."""
        ...


def learn(kind: str, texts: Iterable[str], *, size: int | None, side: Side) -> Tokenizer:
    """A tokenizer of the kind; bpe and unigram learn about `size` pieces from the texts, the others read none."""
    if kind in ("bpe", "unigram"):
        return Subword.learn(kind, texts, size or 8000)
    return load(kind, {})


def load(kind: str, files: dict[str, bytes]) -> Tokenizer:
    """The tokenizer that gave these files."""
    if kind in ("bpe", "unigram"):
        if MODEL_FILE not in files:
            raise BundleError(f"a {kind} tokenizer needs this file", where=MODEL_FILE)
        return Subword(kind, files[MODEL_FILE])
    makers: dict[str, Callable[[], Tokenizer]] = {
        "word": Word, "whitespace": Whitespace, "char": Char, "byte": Byte, "chinese": Chinese, "label": Label
    }  # fmt: skip
    if kind not in makers:
        raise ConfigError(f"unknown tokenizer {kind}", do=nearest(kind, [*makers, "bpe", "unigram"]))
    return makers[kind]()


class _Fixed:
    """What tokenizers share that learn nothing and cut in one way."""

    def encode(self, text: str) -> list[str]:
        raise NotImplementedError

    def sample(self, text: str, strength: float, seed: int) -> list[str]:
        return self.encode(text)

    def files(self) -> dict[str, bytes]:
        return {}


class Whitespace(_Fixed):
    """Tokens between white space; exact up to the kind and amount of white space."""

    kind, exact = "whitespace", False

    def encode(self, text: str) -> list[str]:
        return text.split()

    def decode(self, tokens: Iterable[str]) -> str:
        return " ".join(tokens)


class Label(_Fixed):
    """The whole text is one token, as the name of a class is."""

    kind, exact = "label", True

    def encode(self, text: str) -> list[str]:
        return [text] if text else []

    def decode(self, tokens: Iterable[str]) -> str:
        return "".join(tokens)


class Char(_Fixed):
    """Every character (Unicode code point) is a token, spaces too."""

    kind, exact = "char", True

    def encode(self, text: str) -> list[str]:
        return list(text)

    def decode(self, tokens: Iterable[str]) -> str:
        return "".join(tokens)


class Byte(_Fixed):
    """Every byte of the UTF-8 form is a token; printable ASCII shows as itself, other bytes as `<0xE4>`."""

    kind, exact = "byte", True
    tokens = tuple(chr(byte) if 32 < byte < 127 else f"<0x{byte:02X}>" for byte in range(256))
    _bytes: ClassVar[dict[str, int]] = {token: byte for byte, token in enumerate(tokens)}

    def encode(self, text: str) -> list[str]:
        return [self.tokens[byte] for byte in text.encode("utf-8")]

    def decode(self, tokens: Iterable[str]) -> str:
        """Bytes that are not UTF-8, as a model may give them, become U+FFFD; tokens that are no bytes are left out."""
        known = self._bytes
        return bytes(known[token] for token in tokens if token in known).decode("utf-8", errors="replace")


def _escape(text: str, mark: str) -> str:
    """The text without `mark`, in a way that `_unescape` undoes whatever the text holds."""
    if mark not in text and "\ue000" not in text:
        return text
    return text.replace("\ue000", "\ue000\ue001").replace(mark, "\ue000\ue002")


def _unescape(text: str, mark: str) -> str:
    if "\ue000" not in text:
        return text
    return text.replace("\ue000\ue002", mark).replace("\ue000\ue001", "\ue000")


ACCENTS = "".join(chr(code) for code in range(0x300, 0x2000) if unicodedata.category(chr(code)).startswith("M"))
"""Marks that belong to the letter before them, as vowel signs do in Hindi; zero-width joiners are treated alike."""


class Word(_Fixed):
    """Words, numbers and single punctuation marks; a joiner on a mark tells on which side it touches its neighbour.

    `"Hi, (you)!"` is `Hi ￭, (￭ you ￭) ￭!`, so joining again needs no rules of any language and is exact up to
    the kind and amount of white space.
    """

    kind, exact = "word", False
    joiner = "￭"
    _cut = re.compile(rf"\d+(?:[.,:]\d+)*[^\W_]*|[^\W\d_](?:[^\W_]|[{ACCENTS}\u200c\u200d]|['’](?=[^\W\d_]))*|\S")

    def encode(self, text: str) -> list[str]:
        tokens: list[str] = []
        for chunk in _escape(text, self.joiner).split():
            if chunk.isalpha():
                tokens.append(chunk)
            else:
                tokens.extend(self._join_marks(self._cut.findall(chunk)))
        return tokens

    def _join_marks(self, parts: list[str]) -> Iterator[str]:
        """The parts of one run without white space; at each seam the mark, else the right part, gets a joiner."""
        left = ""
        for number, part in enumerate(parts):
            right = ""
            if number + 1 < len(parts) and _is_mark(part) and not _is_mark(parts[number + 1]):
                right = self.joiner
            yield left + part + right
            left = "" if right else self.joiner

    def decode(self, tokens: Iterable[str]) -> str:
        text = " ".join(tokens)
        text = text.replace(f" {self.joiner}", "").replace(f"{self.joiner} ", "")
        return _unescape(text.replace(self.joiner, ""), self.joiner)


def _is_mark(part: str) -> bool:
    return len(part) == 1 and not part.isalnum()


class Chinese(_Fixed):
    """Chinese words by jieba's dictionary and hidden Markov model; spaces are tokens, so nothing is lost."""

    kind, exact = "chinese", True

    @cached_property
    def _cut(self) -> Callable[[str], Iterable[str]]:
        for name in ("rjieba", "jieba"):
            try:
                module = importlib.import_module(name)
            except ImportError:
                continue
            if name == "jieba":
                module.setLogLevel(60)
            cut: Callable[[str], Iterable[str]] = module.cut
            return cut
        raise require("chinese", "rjieba")

    def encode(self, text: str) -> list[str]:
        return list(self._cut(text))

    def decode(self, tokens: Iterable[str]) -> str:
        return "".join(tokens)


class Subword:
    """BPE (Sennrich et al. 2016) or unigram (Kudo 2018) pieces by SentencePiece; `▁` is a space before a piece.

    Characters that the model never saw stay as they are, so the round trip is exact. Normalization is left to
    `Text`. Sampling is BPE dropout (Provilkov et al. 2020) or unigram sampling.
    """

    exact = True
    space = "▁"

    def __init__(self, kind: str, model: bytes) -> None:
        import sentencepiece

        self.kind, self.model = kind, model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            known = [i for i in range(len(self._processor)) if not self._marks(i)]
            self._scores = {self._processor.id_to_piece(i): self._processor.get_score(i) for i in known}
        except (RuntimeError, UnicodeDecodeError):
            raise BundleError("is not a SentencePiece model", where=MODEL_FILE) from None
        self._by_word = self.space in self._scores and not any(self.space in piece[1:] for piece in self._scores)
        self._words: dict[str, list[str]] = {}

    @property
    def scores(self) -> Mapping[str, float]:
        """The pieces, and what decides between them: when BPE merges into one, how likely one is by unigram."""
        return self._scores

    def _marks(self, index: int) -> bool:
        return bool(self._processor.is_control(index) or self._processor.is_unknown(index))

    @classmethod
    def learn(cls, kind: str, texts: Iterable[str], size: int) -> Subword:
        """About `size` pieces, fewer where the texts do not have them; the same texts give the same model."""
        import sentencepiece

        sample = [_escape(text[:SENTENCE_LENGTH], cls.space) for text in reservoir(texts, MOST_SENTENCES, seed=1)]
        characters = len({character for text in sample for character in text})
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sample),
                model_writer=model,
                model_type=kind,
                vocab_size=size,
                hard_vocab_limit=False,
                character_coverage=1.0 if characters < size // 2 else 0.9995,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                max_sentence_length=SENTENCE_LENGTH * 8,
                num_threads=1,
                bos_id=-1,
                eos_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = str(error).rpartition("] ")[2].partition(". ")[0]
            do = f"the text has {characters} different characters; choose a larger vocabulary, or tokenizer=char"
            raise ConfigError(f"cannot learn {kind} pieces: {reason}", got=f"vocabulary={size}", do=do) from None
        return cls(kind, model.getvalue())

    def encode(self, text: str) -> list[str]:
        """The pieces, word by word."""
        pieces: list[str] = []
        for word in self._split(text):
            pieces += self._words.get(word) or self._cut(word)
        return pieces

    def count(self, texts: Iterable[str]) -> Counter[str]:
        """How often each piece occurs; every different word is cut once."""
        words, counts = Counter(word for text in texts for word in self._split(text)), Counter[str]()
        for word, times in words.items():
            for piece in self._words.get(word) or self._cut(word):
                counts[piece] += times
        return counts

    def _split(self, text: str) -> list[str]:
        """The words, between which no piece reaches, or the whole text where the model has pieces that do."""
        if not text:
            return []
        escaped = _escape(text, self.space)
        return escaped.split(" ") if self._by_word else [escaped]

    def _cut(self, word: str) -> list[str]:
        """The pieces of a word, remembered since most words come again and again: four times as fast."""
        pieces = self._processor.encode(word, out_type=str) if word or not self._by_word else [self.space]
        if len(word) <= LONGEST_WORD:
            if len(self._words) >= MOST_WORDS:
                self._words.clear()
            self._words[word] = pieces
        return pieces

    def sample(self, text: str, strength: float, seed: int) -> list[str]:
        """Another cut: by BPE dropout (Provilkov et al. 2020), or one of the 64 likeliest (Kudo 2018).

        Drawn here, since SentencePiece salts its generator anew in every process, and a resumed run must see the same.
        """
        draw = random.Random(seed)
        if self.kind == "bpe":
            return self._dropped(text, _Dropout(strength, draw.random))
        cuts = self._processor.nbest_encode(_escape(text, self.space), nbest_size=LIKELIEST, out_type=str)
        scores = [sum(self._scores.get(piece, 0.0) for piece in cut) for cut in cuts]
        return draw.choices(cuts, [math.exp(strength * (score - max(scores))) for score in scores])[0]

    def _dropped(self, text: str, dropout: _Dropout) -> list[str]:
        """The text's pieces, where words of which no merge is left out are cut as usual, from memory."""
        pieces: list[str] = []
        for word in self._split(text):
            usual = self._words.get(word) or self._cut(word)
            pieces += usual if dropout.spares(len(word) + 1 - len(usual)) else self._merged(word, dropout)
        return pieces

    def _merged(self, word: str, dropout: _Dropout) -> list[str]:
        """The word's pieces, merged from characters, best merge first, until none is possible that is not left out."""
        parts, scores = list(self.space + word.replace(" ", self.space)), self._scores
        while True:
            merges = [(-scores[a + b], place) for place, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
            place = next((place for _, place in sorted(merges) if not dropout.drops()), None)
            if place is None:
                return self._joined(parts)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]

    def _joined(self, pieces: Iterable[str]) -> list[str]:
        """Neighbouring unknown pieces as one, as SentencePiece has them."""
        found: list[str] = []
        for known, group in groupby(pieces, key=self._scores.__contains__):
            run = list(group)
            found += run if known else ["".join(run)]
        return found

    def decode(self, tokens: Iterable[str]) -> str:
        text = "".join(tokens).replace(self.space, " ")
        return _unescape(text.removeprefix(" "), self.space)

    def files(self) -> dict[str, bytes]:
        return {MODEL_FILE: self.model}


class _Dropout:
    """Which of many merges are left out at a rate: what is drawn is how many go by until the next one that is."""

    def __init__(self, rate: float, draw: Callable[[], float]) -> None:
        self.scale, self.draw = 1 / math.log1p(-min(max(rate, 1e-9), 1 - 1e-9)), draw
        self.ahead = self._gap()

    def _gap(self) -> int:
        return int(math.log(1 - self.draw()) * self.scale)

    def spares(self, merges: int) -> bool:
        """Whether none of the next so many is left out; if so they have gone by."""
        if self.ahead < merges:
            return False
        self.ahead -= merges
        return True

    def drops(self) -> bool:
        """Whether the next one is left out."""
        if self.ahead:
            self.ahead -= 1
            return False
        self.ahead = self._gap()
        return True


def reservoir(items: Iterable[str], most: int, *, seed: int) -> list[str]:
    """A uniform sample of at most `most` items of a stream of unknown length, the same for the same stream."""
    stream = iter(items)
    kept = list(islice(stream, most))
    draw = random.Random(seed).randrange
    for number, item in enumerate(stream, start=most):
        place = draw(number + 1)
        if place < most:
            kept[place] = item
    return kept
