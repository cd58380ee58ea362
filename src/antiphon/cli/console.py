"""The console of all commands: text is said as it is, whatever brackets are in it, and a reader who has left is no
success."""

from __future__ import annotations

from typing import Any, NoReturn

from rich import console


class Console(console.Console):
    """Rich's, for text that is no markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> NoReturn:
        """Rich would exit with 1, which means other things here."""
        raise BrokenPipeError
