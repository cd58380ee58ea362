"""What people do to a text without meaning anything by it: capitals, typing errors, lost full stops, spaces, symbols.

The same changes serve training (`data.augment.robust` and the settings beside it) and the test (`evaluate --robust`),
but for the symbols: a test has others, so that they are unseen there.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from random import Random

from antiphon.data import synonyms
from antiphon.data.columns import Pair

Range = tuple[int, int]
"""The first and the last code point of some letters."""

LETTERS: tuple[Range, ...] = (
    (0x3B1, 0x3C9), (0x430, 0x44F), (0x5D0, 0x5EA), (0x627, 0x64A), (0x905, 0x939), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
)  # fmt: skip
"""Of scripts in training: Greek, Cyrillic, Hebrew, Arabic, Devanagari, Han, Hangul."""
SIGNS: tuple[Range, ...] = ((0x1F300, 0x1F4FF), (0x2190, 0x21FF), (0x25A0, 0x25FF))
"""Signs in training: pictures, arrows, shapes."""
OTHER_LETTERS: tuple[Range, ...] = ((0xE01, 0xE2E), (0x561, 0x586), (0x10D0, 0x10F0), (0x3042, 0x3093))
"""Of scripts in a test: Thai, Armenian, Georgian, Hiragana."""
OTHER_SIGNS: tuple[Range, ...] = ((0x1F600, 0x1F64F),)
"""Signs in a test: faces."""

MOST_JOINED = 100_000
"""Pairs that are held to be joined."""

Chosen = Callable[[str, Random], str]


def with_texts(pair: Pair, source: str, target: str) -> Pair:
    """The pair with other texts, or as it is where they are blank."""
    return Pair(source if source.strip() else pair.source, target if target.strip() else pair.target, (), pair.context)


def unpunctuated(text: str, draw: Random | None = None) -> str:
    """The text without the punctuation at its end."""
    end = len(text.rstrip())
    while end and unicodedata.category(text[end - 1]).startswith("P"):
        end -= 1
    return text[:end].rstrip() if end < len(text.rstrip()) else text


def titled(text: str) -> str:
    """The text with a capital at each word, and nowhere else."""
    return "".join(piece.capitalize() for piece in synonyms.words_of(text))


def recased(text: str, draw: Random) -> str:
    """The text in lower case, in capitals, or with a capital at each word, whichever it is not already."""
    others = sorted({text.lower(), text.upper(), titled(text)} - {text})
    return draw.choice(others) if others else text


def spread(text: str, draw: Random | None = None) -> str:
    """The text with all its spaces doubled."""
    return text.replace(" ", "  ")


@dataclass(frozen=True)
class Strange:
    """Puts a word of strange letters between two words, or a sign at the end; in a text without spaces anything
    comes at the end."""

    letters: tuple[Range, ...]
    signs: tuple[Range, ...]

    @classmethod
    def to(cls, known: Collection[str], letters: Sequence[Range], signs: Sequence[Range]) -> Strange:
        """Of these, what has no letter that is `known`."""
        codes = [ord(letter) for letter in known]
        return cls(tuple(each for each in letters if not any(each[0] <= code <= each[1] for code in codes)),
                   tuple(signs))  # fmt: skip

    def __call__(self, text: str, draw: Random) -> str:
        kinds = [self.word, self.sign] if self.letters and self.signs else [self.word] if self.letters else [self.sign]
        return draw.choice(kinds)(text, draw)

    def word(self, text: str, draw: Random) -> str:
        """With a word of two to six letters of a script."""
        first, last = draw.choice(self.letters)
        made = "".join(chr(draw.randint(first, last)) for _ in range(draw.randint(2, 6)))
        words = text.split(" ")
        place = draw.randint(1, len(words))
        return " ".join([*words[:place], made, *words[place:]]) if len(words) > 1 else text + made

    def sign(self, text: str, draw: Random) -> str:
        """With a sign at the end."""
        return f"{text}{' ' if ' ' in text else ''}{chr(draw.randint(*draw.choice(self.signs)))}"


KEYS = ("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75)
_PLACES = {key: (row, start + column) for row, (keys, start) in enumerate(KEYS) for column, key in enumerate(keys)}
BESIDE = {
    key: [other for other, (r, c) in _PLACES.items() if other != key and abs(r - row) <= 1 and abs(c - column) <= 1]
    for key, (row, column) in _PLACES.items()
}
"""The letters around each on a keyboard."""


@dataclass(frozen=True)
class Typos:
    """Each letter or digit of the source, at a rate, is left out, doubled, changed with the next, or hit beside: a
    neighbour on the keyboard, of other scripts any letter (Belinkov and Bisk 2018)."""

    rate: float
    letters: tuple[str, ...]

    def __call__(self, pair: Pair, draw: Random) -> Pair:
        return with_texts(pair, self.mistyped(pair.source, draw, self.rate), pair.target)

    def mistyped(self, text: str, draw: Random, rate: float) -> str:
        """A text with such errors at any rate."""
        place, found = 0, list[str]()
        while place < len(text):
            here, after = text[place], text[place + 1 : place + 2]
            if here.isalnum() and draw.random() < rate:
                kind = draw.randrange(4)
                if kind == 2 and after.isalnum():
                    here, place = after + here, place + 1
                else:
                    here = ("", here + here, self._beside(here, draw), self._beside(here, draw))[kind]
            found.append(here)
            place += 1
        return "".join(found)

    def _beside(self, letter: str, draw: Random) -> str:
        near: Sequence[str] = BESIDE.get(letter.lower()) or self.letters or letter
        hit = draw.choice(near)
        return hit.upper() if letter.isupper() else hit


# What tokenizers learn besides


RECASED = 0.1
"""The share of the pairs that they see once more: enough for capitals to have subwords, else each would be a letter."""


@dataclass(frozen=True)
class Recased:
    """A share of the pairs, of their sources two thirds in capitals and one with a capital at each word."""

    pairs: Iterable[Pair]
    share: float = RECASED

    def __iter__(self) -> Iterator[Pair]:
        draw = Random("recased")
        for pair in self.pairs:
            if draw.random() < self.share:
                source = pair.source.upper() if draw.random() < 2 / 3 else titled(pair.source)
                yield Pair(source, pair.target, (), pair.context)


# Sources of other lengths


LONGER, WORDS = 0.05, 0.05
"""For each training pair so many that are two; and at most so many that are a word."""
OFTEN, SURE, LOOKED_AT = 5, 0.5, 20_000
"""Least pairs that have a word, least Dice coefficient of a word and its translation, and pairs that are looked at."""
CLOSE = 2500
"""Most pairs of words, one of each side: in long texts too many keep each other company, and fill the memory."""
MARKS = ".,;:!?\"'()[]«»“”„…"
"""What a word alone does not keep at its ends."""


def joined(first: Pair, second: Pair) -> Pair:
    """Two pairs as one, with the context of the first; of references, each with the other's of the same number."""
    references = tuple(together(*both) for both in zip(first.references, second.references, strict=False))
    return Pair(together(first.source, second.source), together(first.target, second.target), references,
                first.context)  # fmt: skip


def together(first: str, second: str) -> str:
    """Two texts as one, with a space between unless they meet in letters of full width, as Chinese ones are."""
    wide = any(unicodedata.east_asian_width(letter) in "WF" for letter in first[-1:] + second[:1])
    return f"{first}{'' if wide else ' '}{second}"


def two_as_one(pairs: Iterable[Pair], draw: Random, share: float) -> list[Pair]:
    """A `share` of the pairs, each with another of the same context behind it, drawn from all; at most 100,000."""
    kept = list[Pair]()
    for number, pair in enumerate(pairs):  # a sample of all of them, whose number is not known before
        place = number if number < MOST_JOINED else draw.randrange(number + 1)
        if number < MOST_JOINED:
            kept.append(pair)
        elif place < MOST_JOINED:
            kept[place] = pair
    found = (tuple(draw.choices(kept, k=2)) for _ in range(round(share * len(kept))))
    return [joined(first, second) for first, second in found if first.context == second.context]


def bare(text: str) -> list[str]:
    """The words of a text between white space, without punctuation at their ends; none where they are not spaced."""
    found = text.split()
    return [word.strip(MARKS) for word in found if any(map(str.isalpha, word))] if len(found) > 1 else []


def dictionary(pairs: Iterable[Pair]) -> list[Pair]:
    """Words of sources, each with the word of targets that keeps it company most closely, where it is so the other way
    too: the Dice coefficient (Smadja et al. 1996) of being in the same pairs. The surest come first."""
    both, mine, theirs = Counter[tuple[str, str]](), Counter[str](), Counter[str]()
    for pair in islice(pairs, LOOKED_AT):
        source, target = set(bare(pair.source)), set(bare(pair.target))
        mine.update(source)
        theirs.update(target)
        if len(source) * len(target) <= CLOSE:
            both.update(product(sorted(source), sorted(target)))
    scores = {(one, other): 2 * many / (mine[one] + theirs[other]) for (one, other), many in both.items()
              if many >= OFTEN}  # fmt: skip
    ranked = sorted(scores, key=lambda entry: (-scores[entry], entry))
    found, seen = list[Pair](), (set[str](), set[str]())
    for one, other in ranked:
        if scores[one, other] >= SURE and one not in seen[0] and other not in seen[1]:
            found.append(Pair(one, other))
        seen[0].add(one)
        seen[1].add(other)
    return found


# The mix for training

NOISE = ("casing", "typos", "punctuation", "spaces", "symbols", "single", "joined")
"""Kinds of noise; the last two, single words and two sources as one, have targets of their own."""

WEIGHTS = {"casing": 6, "typos": 6, "punctuation": 3, "symbols": 3, "spaces": 1}
"""How often each kind is drawn."""
TWICE, MISTYPED = 0.3, 0.1
"""The share of changed pairs with two kinds, and the highest rate of typing errors."""


@dataclass(frozen=True)
class Mixed:
    """One kind of noise for a source, or two, drawn by `WEIGHTS` from those that suit the task."""

    kinds: tuple[str, ...]
    typos: Typos
    strange: Strange

    @classmethod
    def learn(cls, kinds: Collection[str], letters: tuple[str, ...]) -> Mixed:
        """The kinds of `WEIGHTS` among `kinds`; `letters` are those of the training sources."""
        return cls(
            tuple(kind for kind in WEIGHTS if kind in kinds), Typos(MISTYPED, letters),
            Strange.to(letters, LETTERS, SIGNS),
        )  # fmt: skip

    def __call__(self, pair: Pair, draw: Random) -> Pair:
        left = list(self.kinds)
        text = pair.source
        for _ in range(min(len(left), 1 + (draw.random() < TWICE))):
            kind = draw.choices(left, [WEIGHTS[each] for each in left])[0]
            left.remove(kind)
            text = self._changed(kind, text, draw)
        return with_texts(pair, text, pair.target)

    def _changed(self, kind: str, text: str, draw: Random) -> str:
        if kind == "typos":
            return self.typos.mistyped(text, draw, draw.random() * MISTYPED)
        changes: dict[str, Chosen] = {"casing": recased, "punctuation": unpunctuated, "symbols": self.strange,
                                      "spaces": spread}  # fmt: skip
        return changes[kind](text, draw)
