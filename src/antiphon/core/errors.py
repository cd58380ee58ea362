"""Errors a person can act on: where it is, what is wrong, what was found, what to do."""

import difflib
from collections.abc import Iterable

MANY = 40
"""More names than a line of advice should hold."""


class AntiphonError(Exception):
    """An expected failure; commands print it in one line and exit with code 2.

    >>> str(DataError("target is empty", where="train.tsv:1841", do="remove the line or pass data.empty=skip"))
    'train.tsv:1841: target is empty; remove the line or pass data.empty=skip'
    """

    def __init__(self, what: str, *, where: object = "", got: object = "", do: str = "") -> None:
        self.what, self.where, self.got, self.do = what, str(where), str(got), do
        parts = [f"{self.where}: " if self.where else "", what]
        parts += [f" (got {self.got})" if self.got else "", f"; {do}" if do else ""]
        # A path may hold bytes that are no UTF-8, which could not be printed.
        super().__init__("".join(parts).encode("utf-8", "backslashreplace").decode())


class DataError(AntiphonError):
    """Input data cannot be used as it is."""


class ConfigError(AntiphonError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class BundleError(AntiphonError):
    """A saved model or checkpoint is missing, damaged, hostile or of another version."""


class TrainingError(AntiphonError):
    """Training cannot go on: no memory, no disk, or a loss that stays non-finite."""


class UntrainableError(TrainingError):
    """The settings are to blame: a loss that stays non-finite, or a model or batch too large for the memory."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The advice for an unknown name: the closest known one, first that of another group, or the list of all."""
    known = sorted(known)
    moved = [each for each in known if "." in name and each.rpartition(".")[2] == name.rpartition(".")[2]]
    close = difflib.get_close_matches(name, moved or known, n=1, cutoff=0.0 if moved else 0.5)
    if not close and len(known) > MANY:
        return "`antiphon info` lists all"
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def require(extra: str, package: str) -> AntiphonError:
    """The error for an optional package that is not installed, with the command that installs it."""
    return AntiphonError(f"this needs the package {package}", do=f"type: pip install 'antiphon[{extra}]'")
