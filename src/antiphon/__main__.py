"""The program `antiphon`: runs a command and turns every expected failure into one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

from antiphon.core.errors import AntiphonError

USAGE, INTERRUPTED, PIPE_CLOSED = 2, 130, 141
NO_MEMORY = "not enough memory; lower data.*.max_length, data.batch_tokens or decoding.max_length"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 2 (a mistake, said in one line), or 128 and a signal (130: Ctrl-C)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as daemons have them
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        _outspoken(stream)
    sys.exit(_run(list(sys.argv[1:] if words is None else words)))


def _outspoken(stream: object) -> None:
    """Answers may be in any script: files and pipes get UTF-8; what a terminal, or an encoding that somebody asked for,
    cannot show is spelled out."""
    if isinstance(stream, io.TextIOWrapper):
        asked = stream.isatty() or "PYTHONIOENCODING" in os.environ
        stream.reconfigure(encoding=stream.encoding if asked else "utf-8", errors="backslashreplace")


def _run(words: list[str]) -> int:
    from cyclopts import CycloptsError

    from antiphon.cli import app

    try:
        code = app(words, print_error=False, exit_on_error=False, result_action="return_value") or 0
        sys.stdout.flush()
        return code
    except AntiphonError as error:
        return _fail(str(error))
    except CycloptsError as error:
        return _fail(f"{_usage(error)}; see: antiphon {_command(words)}--help")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit: give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except MemoryError:
        return _fail(NO_MEMORY)
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):  # PyTorch's way to say that there is no memory
            raise
        return _fail(NO_MEMORY)
    except OSError as error:
        text = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        return _fail(text + ("; make room, or choose another place" if error.errno in NO_ROOM else ""))


def _fail(message: str) -> int:
    print("error: " + " ".join(message.splitlines()), file=sys.stderr)
    return USAGE


def _usage(error: Exception) -> str:
    """What the parser has to say, in a line and in our words."""
    from cyclopts import UnusedCliTokensError

    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"one word too many (got {error.unused_tokens[0]})"
    return " ".join(str(error).split()).partition(" Available commands:")[0].rstrip(".")


def _command(words: list[str]) -> str:
    from antiphon.cli import COMMANDS

    return f"{words[0]} " if words and words[0] in COMMANDS else ""


if __name__ == "__main__":
    main()
