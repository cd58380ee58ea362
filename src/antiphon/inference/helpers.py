"""Copies of this process that decode batches beside each other, forked so that they share the model's memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from antiphon.core.stopping import ending

T = TypeVar("T")
R = TypeVar("R")


def possible() -> bool:
    """Whether this process can be copied: not where it has threads, whose locks would stay shut in the copy."""
    return sys.platform == "linux" and hasattr(os, "fork") and threading.active_count() == 1


class Helpers(Generic[T, R]):
    """Processes that do one kind of work. What none of them can do, this process does, so nothing is ever lost.

    A helper ends when told so, and when the main process has gone. Close them in the end.
    """

    def __init__(self, work: Callable[[T], R], count: int) -> None:
        self.work, self.lost = work, 0
        self.pipes: dict[Connection, BaseProcess] = {}
        context = multiprocessing.get_context("fork")
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(work, theirs, [*self.pipes, ours]), daemon=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # idle threads of OpenMP hold no locks
                process.start()
            theirs.close()
            self.pipes[ours] = process

    def map(self, tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """The number and the result of every task, as they come."""
        waiting = list(enumerate(tasks))[::-1]
        busy: dict[Connection, tuple[int, T]] = {}
        while waiting or busy:
            for pipe in [pipe for pipe in self.pipes if pipe not in busy][: len(waiting)]:
                busy[pipe] = waiting.pop()
                with suppress(OSError):  # it has ended, which `wait` will show
                    pipe.send(busy[pipe][1])
            if not busy:
                number, task = waiting.pop()
                yield number, self.work(task)
            for pipe in [pipe for pipe in wait(list(busy)) if isinstance(pipe, Connection)] if busy else []:
                number, task = busy.pop(pipe)
                done, result = self._hear(pipe)
                yield number, result if done else self.work(task)

    def _hear(self, pipe: Connection) -> tuple[bool, Any]:
        try:
            return pipe.recv()
        except (EOFError, OSError):
            self._end(pipe)
            self.lost += 1
            return False, None

    def _end(self, pipe: Connection) -> None:
        process = self.pipes.pop(pipe)
        pipe.close()
        process.join(1)
        if process.is_alive():
            process.kill()
            process.join()

    def close(self) -> None:
        """Let them go, whatever they are at."""
        for pipe, process in list(self.pipes.items()):
            process.kill()
            self._end(pipe)


def _serve(work: Callable[[T], R], pipe: Connection, others: list[Connection]) -> None:
    """A helper's life. The ends of other pipes are closed, or it would not see the main process go."""
    for number in ending():
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in others:
        other.close()
    with suppress(EOFError, OSError):
        while True:
            task = pipe.recv()
            try:
                pipe.send((True, work(task)))
            except Exception:  # the main process does it again, and says what is wrong
                pipe.send((False, None))
