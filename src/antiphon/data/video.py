"""Films to pictures: read, so many a second by their times, made square and small, with values from -1 to 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from antiphon.core.config import Frames as Settings
from antiphon.core.errors import DataError, require
from antiphon.data.arrays import INLINE, shown
from antiphon.data.formats import open_bytes
from antiphon.data.report import Report

SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".gif")
READERS = "mov,matroska,avi,gif"
"""What FFmpeg may take a file for; others of its formats, such as playlists, name further files and addresses."""

PER_SECOND, SIZE = 4.0, 32
"""Pictures a second, and pixels of a side, where nothing says otherwise."""

USUAL = 25
"""Pictures a second of a film that does not say how many it has."""

SLACK = 0.25
"""Seconds, besides two pictures, that a whole film may end before the time it tells: sound may be longer."""

GIF_END = b";"

TINY = 1e-6


class Heading(NamedTuple):
    """What a film says of itself without being read: seconds (0 where it does not say), pictures a second, pixels."""

    seconds: float
    rate: float
    width: int
    height: int


class _Shown(NamedTuple):
    """A decoded picture, and the seconds from and until which it is seen."""

    frame: Any
    start: float
    end: float


def heading(value: str) -> Heading:
    """What a film is like."""
    with _opened(value) as film:
        stream = _stream(film, value)
        size = stream.codec_context.width, stream.codec_context.height
        return Heading((film.duration or 0) / 1e6, _rate(stream), *size)


def pictures(value: str, settings: Settings, report: Report | None = None) -> np.ndarray:
    """A film as pictures `[L, size * size * channels]`, rows of pixels from the top, values from -1 to 1.

    `settings.per_second` of them stand for each second, whatever the film's own rate: each is the one that is seen at
    its time. Counts in `report` damaged pictures, in whose place the one before is seen, and films of one colour.
    Raises `DataError` for what is no film, has no picture, or is cut off.
    """
    with _opened(value) as film:
        found = np.stack(list(_sampled(_read(film, value, report), settings)))
    if report is not None and not np.ptp(found):
        report.add("film of nothing but one colour", example=value)
    return found.reshape(len(found), -1).astype(np.float32) / 127.5 - 1


@contextmanager
def _opened(value: str) -> Iterator[Any]:
    """The film, open; what FFmpeg says is wrong with it becomes a `DataError`."""
    if value.startswith(INLINE):
        do = "set data.source.kind=frames, and model.frontend.kind=pictures"
        raise DataError("is an array, and not the name of a film", where=shown(value), do=do)
    open_bytes(Path(value)).close()
    try:
        import av
    except ImportError:
        raise require("video", "av") from None
    with open(value, "rb") as file:
        try:
            with av.open(file, options={"format_whitelist": READERS}) as film:
                yield film
        except (av.error.FFmpegError, ValueError, OSError) as error:
            reason = str(getattr(error, "strerror", None) or error)
            do = f"give a whole film, {', '.join(SUFFIXES)}"
            raise DataError(f"is no film that can be read: {reason}", where=value, do=do) from None


def _stream(film: Any, value: str) -> Any:
    stream = film.streams.best("video")
    if stream is None or stream.codec_context is None:
        do = "for recordings set data.source.kind=speech" if film.streams.audio else "give another file"
        raise DataError("has no pictures that can be read", where=value, do=do)
    return stream


def _rate(stream: Any) -> float:
    return float(stream.average_rate or stream.guessed_rate or USUAL)


def _read(film: Any, value: str, report: Report | None) -> Iterator[_Shown]:
    """All pictures in order; the last one is seen until the film ends."""
    from av.error import FFmpegError

    stream = _stream(film, value)
    damaged, until, last = 0, 0.0, None
    for packet in film.demux():
        if packet.pts is not None:
            until = max(until, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != stream.index:
            continue
        try:
            frames = packet.decode()
        except FFmpegError:
            damaged += 1
            continue
        for frame in frames:
            damaged += frame.is_corrupt
            following = _timed(frame, last, stream)
            if last is not None:
                yield last._replace(end=following.start)
            last = following
    if last is None:
        raise DataError("has no picture that can be read", where=value, got=f"{damaged:,} damaged ones")
    _check_whole(film, value, max(until, last.end), 2 / _rate(stream))
    yield last
    if damaged and report is not None:
        report.add("damaged picture of a film", example=value, times=damaged)


def _timed(frame: Any, last: _Shown | None, stream: Any) -> _Shown:
    """A picture with its times; one that has none follows the one before."""
    known = frame.time is not None and (last is None or frame.time >= last.start)
    start = frame.time if known else last.end if last else 0.0
    seconds = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1 / _rate(stream)
    return _Shown(frame, start, start + seconds)


def _check_whole(film: Any, value: str, until: float, slack: float) -> None:
    """`DataError` where the film ends before the time that it tells, or a GIF, which tells none, without its end."""
    told = ((film.duration or 0) + min(0, film.start_time or 0)) / 1e6
    what, do = "the film ends too early: it is cut off or damaged", "give a whole one, or cut it anew"
    if until < told - SLACK - slack:
        raise DataError(what, where=value, got=f"{until:.1f} of {told:.1f} seconds", do=do)
    if film.format.name == "gif" and not Path(value).read_bytes().endswith(GIF_END):
        raise DataError(what, where=value, got="no end mark", do=do)


def _sampled(shown: Iterator[_Shown], settings: Settings) -> Iterator[np.ndarray]:
    """Pictures `[size, size, channels]` at even times from the first one on, at least one."""
    count, begun, step, frame = 0, None, 1 / (settings.per_second or PER_SECOND), None
    for frame, start, end in shown:
        begun, picture = start if begun is None else begun, None
        while begun + count * step < end - TINY:
            picture = _square(frame, settings) if picture is None else picture
            yield picture
            count += 1
    if not count:
        yield _square(frame, settings)


def _square(frame: Any, settings: Settings) -> np.ndarray:
    """A picture made small, its middle square kept (or all of it, made square), turned as the film asks."""
    size = settings.size or SIZE
    sides = frame.height, frame.width
    high, wide = (max(size, round(size * side / min(sides))) if settings.crop else size for side in sides)
    kind = "gray" if settings.grey else "rgb24"
    array = frame.reformat(wide, high, format=kind, interpolation="AREA").to_ndarray()
    top, left = (high - size) // 2, (wide - size) // 2
    cut: np.ndarray = np.rot90(array[top : top + size, left : left + size], round(frame.rotation / 90))
    return cut
