"""Sources that are no text: recordings, films and arrays become frames, normalized by what was learned of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from antiphon.core.config import Data, Kind, Side
from antiphon.core.config import Frames as Settings
from antiphon.core.errors import BundleError, DataError
from antiphon.core.numbers import is_plain
from antiphon.data import speech, video
from antiphon.data.arrays import INLINE, described, path_of, read_array, read_numbers, shown
from antiphon.data.modalities import TooLong
from antiphon.data.numbers import Scale, Season
from antiphon.data.report import Report

SIGNAL_FILE = "signal.json"
ARRAYS = (".npy", ".npz")
SMALLEST = 1e-3
"""Deviation below which a feature is taken for constant, and is not made larger."""

RATE = 16_000
"""Samples a second where nothing says otherwise; speech has little above half of it."""

SPEEDS = 3
"""Speeds that a recording is played at: slower, as it is, faster."""


def kind_of(value: str) -> Kind:
    """What a source looks like it is: text, frames, speech or video."""
    if value.startswith(INLINE):
        return "frames"
    suffix = path_of(value).suffix.lower()
    if suffix in video.SUFFIXES:
        return "video"
    return "speech" if suffix in speech.SUFFIXES else "frames" if suffix in ARRAYS else "text"


def kinds_of(pairs: Sequence[tuple[str, str]], data: Data) -> tuple[Kind, Kind]:
    """What sources and targets are: as set, or what the first pairs look like.

    Text is taken for numbers only where nothing else makes sense of it: arrays; both sides of every pair with a decimal
    point in each number, two steps or more to read; or sources that can be read so where targets are set to be numbers.
    """
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    source, target = data.source.kind, data.target.kind
    if target is None:
        arrays = bool(targets) and all(value.startswith(INLINE) for value in targets)
        plain = source in (None, "numbers") and all(_plain(value, 1) for value in targets)
        plain = plain and bool(pairs) and all(_plain(value, 2) for value in sources)
        target = "numbers" if arrays or plain else "text"
    if source is None and target == "numbers" and all(map(_readable, sources)):
        source = "numbers"
    return source or (kind_of(sources[0]) if sources else "text"), target


def _plain(value: str, least: int) -> bool:
    return value.startswith(INLINE) or is_plain(value, least)


def _readable(value: str) -> bool:
    try:
        return len(read_numbers(value)) > 0
    except DataError:
        return False


@dataclass(frozen=True)
class Signal:
    """Recordings, films or arrays in, frames `[L, F]` out. `features` is F; `mean` and `deviation` `[F]` are those of
    training; `reduced` frames become a position of the memory. With a seed, recordings are played at other speeds by
    up to `speed` (Ko et al. 2015)."""

    kind: str
    side: Side
    settings: Settings
    features: int
    mean: np.ndarray
    deviation: np.ndarray
    reduced: int = 1
    too_long: str = "truncate"
    speed: float = 0.0
    name: str = "source"

    def limited(self, max_length: int | None, too_long: str) -> Signal:
        """The same with another longest length, and what to do with what is longer."""
        return replace(self, side=replace(self.side, max_length=max_length), too_long=too_long)

    def frames(self, value: str, *, seed: int | None = None, report: Report | None = None) -> np.ndarray:
        """A source as normalized frames `[L, F]`, never more than `max_length`.

        Counts in `report` what was cut or brought to another rate. Raises `DataError` for what cannot be read or has
        other features than training had, `TooLong` where cutting is not allowed.
        """
        return self.normalize(self.raw(value, seed=seed, report=report))

    def raw(self, value: str, *, seed: int | None = None, report: Report | None = None) -> np.ndarray:
        """The same frames as they are, in units of their own."""
        speed = 1.0
        if seed is not None and self.speed:
            speed += self.speed * float(np.random.default_rng(seed).integers(SPEEDS) - SPEEDS // 2)
        frames = raw_frames(value, self.kind, self.settings, speed, report)
        if frames.shape[1] != self.features:
            what = f"has {frames.shape[1]} features a frame, the model reads {self.features}"
            raise DataError(what, where=shown(value), do="give all sources the same features")
        return self._fit(frames, value, report)

    def normalize(self, frames: np.ndarray) -> np.ndarray:
        """Mean 0 and deviation 1 in each feature: over the sequence itself, or over all of training."""
        return self.scaled(frames)[1]

    def scaled(self, frames: np.ndarray) -> tuple[Scale | Season, np.ndarray]:
        """What brings steps that go on from a source to mean 0 and deviation 1 in each feature, and the source so."""
        if self.settings.normalize == "season":
            return Season.of(frames, self.settings.season or 1, self.deviation)
        scale = self._scale(frames)
        return scale, scale.to(frames)

    def _scale(self, frames: np.ndarray) -> Scale:
        if self.settings.normalize == "none":
            return Scale(np.zeros(self.features), np.ones(self.features))
        mean, deviation = self.mean, self.deviation
        if self.settings.normalize in ("each", "last"):
            exact = frames.astype(np.float64) if self.kind == "numbers" else frames  # whose squares may be beyond fp32
            mean, deviation = exact.mean(axis=0), exact.std(axis=0)
        if self.kind == "numbers":
            found = Scale.of(mean.astype(np.float64), deviation, self.deviation)
            last = self.settings.normalize == "last"
            return found._replace(mean_F=frames[-1].astype(np.float64)) if last else found
        return Scale(mean, np.maximum(deviation, SMALLEST))

    def _fit(self, frames: np.ndarray, value: str, report: Report | None) -> np.ndarray:
        limit = self.side.max_length
        if limit is None or len(frames) <= limit:
            return frames
        what = f"{self.name} is longer than max_length={limit} frames"
        if self.too_long != "truncate":
            error = TooLong(
                what, where=shown(value), got=len(frames), do="raise data.source.max_length, or allow cutting"
            )
            error.skip = self.too_long == "skip"
            raise error
        if report is not None:
            report.add(f"{self.name} cut to max_length={limit} frames", example=shown(value))
        return frames[-limit:] if self.kind == "numbers" else frames[:limit]

    @property
    def seconds(self) -> float | None:
        """Seconds from one frame to the next, where that is known."""
        if self.kind == "video":
            return 1 / (self.settings.per_second or video.PER_SECOND)
        return self.settings.step / 1000 if self.kind == "speech" else None

    @property
    def size(self) -> int:
        """Features of a frame."""
        return self.features

    def places(self, count: int) -> list[str]:
        """What to call each position that stands for some of so many frames: its time, or its first frame."""
        if self.seconds is None:
            return [str(place) for place in range(0, count, self.reduced)]
        return [f"{place * self.seconds:.2f}s" for place in range(0, count, self.reduced)]

    def files(self, prefix: str) -> dict[str, bytes]:
        """What `load` needs, by file names that begin with `prefix.`."""
        about = {"kind": self.kind, "features": self.features, "mean": self.mean.tolist(),
                 "deviation": self.deviation.tolist()}  # fmt: skip
        return {f"{prefix}.{SIGNAL_FILE}": json.dumps(about).encode()}

    @classmethod
    def load(cls, files: dict[str, bytes], prefix: str, data: Data, reduced: int = 1) -> Signal:
        """Reads what `files` gave; anything else is a `BundleError`."""
        where = f"{prefix}.{SIGNAL_FILE}"
        if where not in files:
            raise BundleError("there is no such file", where=where)
        kind, features, mean, deviation = _about(files[where], where)
        if kind != data.source.kind:
            raise BundleError("is of another kind than its settings", where=where, got=kind)
        return cls(kind, data.source, data.frames, features, mean, deviation, reduced, data.too_long,
                   data.augment.speed or 0.0)  # fmt: skip

    @classmethod
    def learn(cls, values: Iterable[str], data: Data, reduced: int = 1) -> Signal:
        """Learns how many features there are, their means and deviations; goes through the sources once, or reads only
        the first where these are left as they are."""
        values = islice(values, 1) if data.frames.normalize == "none" else values
        kind, first, count = str(data.source.kind), "", 0
        total = squares = np.zeros(0)
        for value in values:
            frames = raw_frames(value, kind, data.frames)
            if not count:
                first, total, squares = value, np.zeros(frames.shape[1]), np.zeros(frames.shape[1])
            if frames.shape[1] != len(total):
                what = f"has {frames.shape[1]} features a frame, {shown(first)} has {len(total)}"
                raise DataError(what, where=shown(value), do="give all sources the same features")
            count += len(frames)
            total, squares = total + frames.sum(axis=0), squares + np.square(frames, dtype=np.float64).sum(axis=0)
        if not count:
            raise DataError("there is no source to learn from")
        mean = total / count
        deviation = np.sqrt(np.maximum(0.0, squares / count - mean**2))
        return cls(kind, data.source, data.frames, len(mean), mean.astype(np.float32),
                   deviation.astype(np.float32), reduced, data.too_long, data.augment.speed or 0.0)  # fmt: skip


@dataclass(frozen=True)
class Overview:
    """What some sources are like without being read whole: mean frames, seconds (0 where these have none) and features
    of each, the rate that most recordings or films have, the shortest side of a film in pixels, and the seconds that
    all but a tenth of the recordings last."""

    frames: float
    seconds: float = 0.0
    features: int = 0
    rate: int = 0
    side: int = 0
    short: float = 0.0

    @staticmethod
    def of(values: Sequence[str], data: Data) -> Overview:
        """Looks at the headings of recordings and films, and at arrays themselves."""
        if data.source.kind == "video":
            return _of_films(values, data.frames)
        if data.source.kind == "speech":
            headings = [speech.heading(value, data.frames.rate or RATE) for value in values]
            seconds = sum(each.seconds for each in headings) / len(headings)
            [(rate, _)] = Counter(each.rate for each in headings).most_common(1)
            short = sorted(each.seconds for each in headings)[len(headings) // 10]
            return Overview(1000 * seconds / data.frames.step, seconds, 0, rate, short=short)
        arrays = [raw_frames(value, str(data.source.kind), data.frames) for value in values]
        return Overview(sum(map(len, arrays)) / len(arrays), features=arrays[0].shape[1])


def _of_films(values: Sequence[str], settings: Settings) -> Overview:
    films = [video.heading(value) for value in values]
    seconds = sum(film.seconds for film in films) / len(films)
    side = min(min(film.width, film.height) for film in films)
    [(rate, _)] = Counter(round(film.rate) for film in films).most_common(1)
    return Overview(seconds * (settings.per_second or video.PER_SECOND), seconds, 0, rate, side)


def raw_frames(
    value: str, kind: str, settings: Settings, speed: float = 1.0, report: Report | None = None
) -> np.ndarray:
    """A source as frames `[L, F]` as they are; `DataError` where there are none, or one is no number."""
    if kind == "speech":
        return _heard(value, settings, speed, report)
    if kind == "video":
        return video.pictures(value, settings, report)
    frames = read_numbers(value) if kind == "numbers" else read_array(value)
    if frames.ndim == 0 or not frames.size:
        raise DataError("there is no frame in it", where=shown(value), do="remove it from the data")
    frames = frames.reshape(len(frames), -1)
    if not np.isfinite(frames).all():
        frame, feature = map(int, np.argwhere(~np.isfinite(frames))[0])
        where = f"frame {frame + 1}, feature {feature + 1}"
        raise DataError(
            "a frame holds what is not a number", where=shown(value), got=f"{frames[frame, feature]} at {where}"
        )
    return frames


def _heard(value: str, settings: Settings, speed: float, report: Report | None) -> np.ndarray:
    rate, report = settings.rate or RATE, None if isinstance(value, speech.Piece) else report
    recording = speech.record(value, rate, report)
    if report is not None:
        speech.count_rate(recording, rate, value, report)
    frames = speech.log_mel(speech.at_rate(recording, rate, speed), settings)
    if report is not None and np.ptp(frames) < 1e-6:
        report.add(speech.SILENT, example=shown(value))
    return frames


def _about(content: bytes, where: str) -> tuple[str, int, np.ndarray, np.ndarray]:
    [kind], mean, deviation = described(content, where, "frames", ["kind"])
    if not isinstance(kind, str):
        raise BundleError("is not a description of frames", where=where)
    return kind, len(mean), mean.astype(np.float32), deviation.astype(np.float32)
