"""The two-way table between tokens and ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from antiphon.core.errors import BundleError
from antiphon.core.marks import UNK

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
"""The tokens of ids 0 to 3. Text that happens to spell one of them never becomes that id."""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id; the first four are the special ones."""

    tokens: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def index(self) -> dict[str, int]:
        """Ids by token, without the special ones."""
        return {token: number for number, token in enumerate(self.tokens) if number >= len(SPECIAL)}

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """The tokens' ids, `UNK` for an unknown one."""
        find = self.index.get
        return [find(token, UNK) for token in tokens]

    def tokens_of(self, ids: Iterable[int]) -> list[str]:
        """The ids' tokens."""
        return [self.tokens[number] for number in ids]

    def coverage(self, counts: Mapping[str, int]) -> float:
        """The share of running tokens that are known."""
        known = sum(count for token, count in counts.items() if token in self.index)
        return known / max(1, sum(counts.values()))

    def extended(
        self, counts: Mapping[str, int], size: int | None = None, min_count: int = 1, always: Iterable[str] = ()
    ) -> Vocabulary:
        """The same ids, and after them the tokens it lacks, as `build` chooses them, up to `size` tokens in all."""
        lacking = {token: count for token, count in counts.items() if token not in self.index}
        new = Vocabulary.build(lacking, None, min_count, (token for token in always if token not in self.index))
        room = None if size is None else max(0, size - len(self))
        return Vocabulary((*self.tokens, *new.tokens[len(SPECIAL) :][:room]))

    def to_json(self) -> str:
        """The vocabulary as a JSON list, one token a line."""
        return json.dumps(list(self.tokens), ensure_ascii=False, indent=0)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "vocabulary.json") -> Vocabulary:
        """Reads what `to_json` wrote; anything else is a `BundleError`."""
        try:
            tokens = json.loads(text)
        except (ValueError, RecursionError):
            raise BundleError("is not a JSON list of tokens", where=where) from None
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise BundleError("is not a JSON list of tokens", where=where)
        if tuple(tokens[: len(SPECIAL)]) != SPECIAL:
            raise BundleError("does not begin with the special tokens", where=where, got=tokens[: len(SPECIAL)])
        if len(set(tokens[len(SPECIAL) :])) != len(tokens) - len(SPECIAL):
            raise BundleError("lists a token twice", where=where)
        return cls(tuple(tokens))

    @classmethod
    def build(
        cls, counts: Mapping[str, int], size: int | None = None, min_count: int = 1, always: Iterable[str] = ()
    ) -> Vocabulary:
        """The special tokens, those of `always`, then the most frequent ones up to `size` tokens in all."""
        fixed = [*SPECIAL, *dict.fromkeys(always)]
        taken = set(fixed[len(SPECIAL) :])
        ranked = sorted((item for item in counts.items() if item[1] >= min_count), key=lambda item: (-item[1], item[0]))
        rest = [token for token, _ in ranked if token not in taken]
        room = len(rest) if size is None else max(0, size - len(fixed))
        return cls((*fixed, *rest[:room]))


def copy_ids(source_tokens: Sequence[str], target: Vocabulary) -> tuple[list[int], list[str]]:
    """Source tokens as ids of the target vocabulary; the k-th distinct unknown one is `len(target) + k`.

    Also gives those unknown tokens, in order (See et al. 2017).
    """
    extra: dict[str, int] = {}
    find = target.index.get
    ids = []
    for token in source_tokens:
        number = find(token)
        ids.append(len(target) + extra.setdefault(token, len(extra)) if number is None else number)
    return ids, list(extra)


def extended_ids(tokens: Sequence[str], target: Vocabulary, extra: Sequence[str]) -> list[int]:
    """Target tokens as ids, where an unknown one that the source has gets the source's extended id."""
    places = {token: len(target) + k for k, token in enumerate(extra)}
    find = target.index.get
    return [find(token, places.get(token, UNK)) for token in tokens]
