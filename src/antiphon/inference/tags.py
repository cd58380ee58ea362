"""Tags before a source: one token each, from columns of its pair, or a pair's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from antiphon.core.errors import DataError
from antiphon.core.marks import REVERSED, REVERSED_KEY
from antiphon.data.corpus import Pair

TAG_KEY = "\0tag"
"""Where a pair's context holds a tag of its own; no column can be called that."""


def tags_of(pair: Pair, context: Sequence[str]) -> list[str]:
    """`<name:value>` for every context column; a tag is one token, whatever the tokenizer."""
    missing = [name for name in context if name not in pair.context]
    if missing:
        what = f"the context column {missing[0]} is missing"
        raise DataError(
            what, where=repr(pair.source[:60]), do="give it with every input, in a table or as Pair.context"
        )
    own = [
        tag for key, tag in ((REVERSED_KEY, REVERSED), (TAG_KEY, pair.context.get(TAG_KEY, ""))) if key in pair.context
    ]
    return own + [f"<{name}:{pair.context[name]}>" for name in context]


def tag_of(name: str) -> str:
    """A tag's token."""
    return f"<{name}>"


def tagged(pair: Pair, name: str) -> Pair:
    """The pair with a tag before its source, which is as it stands in no text."""
    return replace(pair, context={**pair.context, TAG_KEY: tag_of(name)})


def values_of(tokens: Iterable[str], context: Sequence[str]) -> dict[str, list[str]]:
    """The values of each context column that have a tag among these tokens of a vocabulary."""
    known = list(tokens)
    return {
        name: [token[len(name) + 2 : -1] for token in known if token.startswith(f"<{name}:") and token.endswith(">")]
        for name in context
    }
