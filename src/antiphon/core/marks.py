"""The special tokens, and the tag, that mean the same to every model."""

PAD, UNK, BOS, EOS = 0, 1, 2, 3
"""Ids of the four special tokens, the same in every vocabulary."""

REVERSED = "<reversed>"
"""The tag that begins a source where the order of a side was reversed."""

REVERSED_KEY = "\0reversed"
"""Where a pair's context says so; no column can be called that."""
