"""How one side of a pair becomes ids: for text a normalization, a tokenizer and a vocabulary."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from antiphon.core.config import Side
from antiphon.core.errors import BundleError, ConfigError, DataError
from antiphon.core.marks import BOS, EOS, PAD
from antiphon.data import tokenizers
from antiphon.data.formats import fault
from antiphon.data.report import Report
from antiphon.data.tokenizers import Byte, Subword, Tokenizer
from antiphon.data.vocabulary import Vocabulary

VOCABULARY_FILE = "vocabulary.json"
TOKENIZER_FILE = "tokenizer.json"

_MANY, _TOGETHER = 1 << 20, 1 << 14
"""Distinct tokens beyond which counting drops the rare ones, so that it fits in memory on any corpus."""


class TooLong(DataError):
    """A sequence over `max_length` that is not to be cut; `skip` says that its pair is to be left out and counted."""

    skip = False


@dataclass(frozen=True)
class Text:
    """Text in, ids out, and back. `name` (source or target) is what reports and errors call it."""

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    side: Side
    name: str = ""
    too_long: str = "truncate"

    @property
    def size(self) -> int:
        """Tokens of the vocabulary."""
        return len(self.vocabulary)

    def limited(self, max_length: int | None, too_long: str) -> Text:
        """The same with another longest length, and what to do with what is longer."""
        return replace(self, side=replace(self.side, max_length=max_length), too_long=too_long)

    def normalize(self, text: str) -> str:
        """The text lowercased, in the Unicode form and with the spaces that the settings ask for."""
        return normalize(text, self.side)

    def cut(self, text: str, *, seed: int | None = None) -> list[str]:
        """The text as tokens; with a seed, and where the settings ask for subword sampling, cut at random.

        Raises `DataError` for a NUL or a lone surrogate in the text.
        """
        problem = fault(text)
        if problem:
            raise DataError(f"{self.name or 'text'} {problem}", where=ascii(text[:60]))
        text = normalize(text, self.side)
        if seed is None or not self.side.sampling:
            return self.tokenizer.encode(text)
        return self.tokenizer.sample(text, self.side.sampling, seed)

    def ids(
        self, text: str, *, seed: int | None = None, report: Report | None = None, tags: Sequence[str] = ()
    ) -> list[int]:
        """Ids of the tags and of the text's tokens, then `EOS`; never longer than `max_length`.

        Counts cut sequences in `report`. Raises `TooLong` where cutting is not allowed.
        """
        tokens = self.fit(self.cut(text, seed=seed), report=report, tags=tags, example=text)
        ids = self.vocabulary.ids(tokens)
        ids.append(EOS)
        return ids

    def fit(
        self, tokens: list[str], *, report: Report | None = None, tags: Sequence[str] = (), example: str = ""
    ) -> list[str]:
        """Tags and tokens with room left for the end mark: cut, or refused, by `max_length` and `too_long`."""
        tokens = [*tags, *tokens] if tags else tokens
        limit = self.side.max_length
        if limit is None or len(tokens) < limit:
            return tokens
        if self.too_long != "truncate":
            what = f"{self.name} is longer than max_length={limit}"
            error = TooLong(what, where=repr(example[:60]), got=len(tokens) + 1, do="raise max_length or allow cutting")
            error.skip = self.too_long == "skip"
            raise error
        if report is not None:
            report.add(f"{self.name} cut to max_length={limit}", example=example)
        return tokens[: limit - 1]

    def spelled(self, tokens: Sequence[str], text: str) -> list[str]:
        """The tokens of this text with its capital letters, which `data.*.lowercase` took away."""
        if not self.side.lowercase or self.tokenizer.kind == "byte":
            return list(tokens)
        plain = normalize(text, replace(self.side, lowercase=False))
        origin = [letter if place == 0 else "" for letter in plain for place in range(len(letter.lower()))]
        lower = list(zip(plain.lower(), origin, strict=True))
        found, at = [], 0
        for token in tokens:
            made = ""
            for letter in token:
                after = at
                while after < len(lower) and lower[after][0] != letter and lower[after][0].isspace():
                    after += 1
                same = after < len(lower) and lower[after][0] == letter  # else it is a mark of the tokenizer
                made += lower[after][1] if same else letter
                at = after + 1 if same else at
            found.append(made)
        return found

    def tokens(self, ids: Iterable[int], extra: Sequence[str] = ()) -> list[str]:
        """The tokens up to the end mark, without padding; ids past the vocabulary are read from `extra` (copying)."""
        size, found = len(self.vocabulary), []
        for number in ids:
            if number == EOS:
                break
            if number not in (PAD, BOS):
                found.append(self.vocabulary.tokens[number] if number < size else extra[number - size])
        return found

    def text(self, ids: Iterable[int], extra: Sequence[str] = ()) -> str:
        """The text up to the end mark; an unknown token reads `<unk>`."""
        return self.tokenizer.decode(self.tokens(ids, extra))

    def extended(self, texts: Iterable[str], size: int | None = None, tags: Iterable[str] = ()) -> Text:
        """The same cuts and ids, and after these the tokens of the texts that the vocabulary lacks, and the tags.

        `min_count` and `size` limit them as in learning. A subword tokenizer learns no new pieces: what it lacks are
        pieces that it knew but never saw, and runs of characters that it does not know, each as one token.
        """
        counts = count_tokens(self.tokenizer, _Cleaned(texts, self.side))
        return replace(self, vocabulary=self.vocabulary.extended(counts, size, self.side.min_count or 1, tags))

    def files(self, prefix: str) -> dict[str, bytes]:
        """What `load` needs, by file names that begin with `prefix.`."""
        about = json.dumps({"kind": self.tokenizer.kind, "name": self.name, "too_long": self.too_long}).encode()
        files = {TOKENIZER_FILE: about, VOCABULARY_FILE: self.vocabulary.to_json().encode(), **self.tokenizer.files()}
        return {f"{prefix}.{name}": content for name, content in files.items()}

    @classmethod
    def load(cls, files: dict[str, bytes], prefix: str, side: Side) -> Text:
        """Reads what `files` gave; anything else is a `BundleError`."""
        own = {name.removeprefix(f"{prefix}."): data for name, data in files.items() if name.startswith(f"{prefix}.")}
        for name in (TOKENIZER_FILE, VOCABULARY_FILE):
            if name not in own:
                raise BundleError("there is no such file", where=f"{prefix}.{name}")
        kind, name, too_long = _about(own[TOKENIZER_FILE], f"{prefix}.{TOKENIZER_FILE}")
        vocabulary = Vocabulary.from_json(own[VOCABULARY_FILE], f"{prefix}.{VOCABULARY_FILE}")
        return cls(tokenizers.load(kind, own), vocabulary, side, name, too_long)

    @classmethod
    def learn(
        cls, texts: Iterable[str], side: Side, *, name: str = "", too_long: str = "truncate", tags: Iterable[str] = ()
    ) -> Text:
        """Learns the tokenizer and the vocabulary; goes through `texts` once or twice (an iterator is held in memory).

        `tags` are tokens that are always in the vocabulary, whatever their count.
        """
        if side.tokenizer is None:
            raise ConfigError(f"data.{name or 'source'}.tokenizer is not chosen", do="set it, or call recipes.propose")
        check_sampling(side, name)
        cleaned = _Cleaned(list(texts) if isinstance(texts, Iterator) else texts, side)
        tokenizer = tokenizers.learn(side.tokenizer, cleaned, size=side.vocabulary, side=side)
        counts = count_tokens(tokenizer, cleaned)
        always = [*tags, *(Byte.tokens if tokenizer.kind == "byte" else ())]
        vocabulary = Vocabulary.build(counts, side.vocabulary, side.min_count or 1, always)
        return cls(tokenizer, vocabulary, side, name, too_long)


def check_sampling(side: Side, name: str) -> None:
    """Refuse subword sampling with a tokenizer that has one way to cut, and a strength that is out of range."""
    setting = f"data.{name or 'source'}.sampling"
    if side.sampling and side.tokenizer not in ("bpe", "unigram"):
        raise ConfigError(f"{setting} needs a bpe or unigram tokenizer", got=side.tokenizer, do="set it to 0")
    if not 0 <= side.sampling <= 1:
        raise ConfigError(f"{setting} must be from 0 to 1", got=side.sampling)


def normalize(text: str, side: Side) -> str:
    """The text lowercased, in the Unicode form and with the spaces that the settings ask for."""
    if side.lowercase:
        text = text.lower()
    if side.spaces == "single":
        text = " ".join(text.split())
    if side.normalize == "none" or text.isascii():
        return text
    return unicodedata.normalize(side.normalize.upper(), text)  # type: ignore[arg-type]


def _counted(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    return Counter(token for text in texts for token in tokenizer.encode(text))


def count_tokens(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each token occurs; past a million distinct ones, the rarest are forgotten as in lossy counting."""
    counts: Counter[str] = Counter()
    stream, floor = iter(texts), 1
    while some := list(islice(stream, _TOGETHER)):
        counts.update(tokenizer.count(some) if isinstance(tokenizer, Subword) else _counted(tokenizer, some))
        if len(counts) > _MANY:
            counts = Counter({token: count for token, count in counts.items() if count > floor})
            floor += 1
    return counts


@dataclass(frozen=True)
class _Cleaned:
    """Texts, normalized, as often as they are gone through."""

    texts: Iterable[str]
    side: Side

    def __iter__(self) -> Iterator[str]:
        return (normalize(text, self.side) for text in self.texts)


def _about(data: bytes, where: str) -> tuple[str, str, str]:
    try:
        about = json.loads(data)
        kind, name, too_long = about["kind"], about["name"], about["too_long"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BundleError("is not a tokenizer description", where=where) from None
    if not all(isinstance(value, str) for value in (kind, name, too_long)):
        raise BundleError("is not a tokenizer description", where=where)
    return kind, name, too_long
