"""Recordings to log-mel frames: read, mixed to one channel, brought to one rate, and heard as an ear would."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from antiphon.core.config import Frames as Settings
from antiphon.core.errors import DataError, require
from antiphon.data.arrays import INLINE, read_array, shown
from antiphon.data.formats import open_bytes
from antiphon.data.report import Report

if TYPE_CHECKING:
    import torch

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au")
FLOOR = 1e-10
"""Power below which all is silence: -100 dB of full scale."""
LOUD = 0.999
"""Of full scale: samples beyond this are clipped."""


class Recording(NamedTuple):
    """Samples of one channel from -1 to 1, and how many there are a second."""

    samples: np.ndarray
    rate: int


SILENT = "recording of nothing but silence"
OGG_PAGE, OGG_END = 65_307, 4
"""Most bytes of a page, and the flag of the last one."""


class Heading(NamedTuple):
    """What a file says of itself without being read."""

    rate: int
    seconds: float
    channels: int


def heading(value: str, rate: int) -> Heading:
    """What a recording is like; an array has the rate that is given."""
    if value.startswith(INLINE):
        return Heading(rate, len(read_array(value)) / rate, 1)
    open_bytes(Path(value)).close()
    library = _soundfile()
    try:
        about = library.info(value)
    except library.LibsndfileError as error:
        raise _unreadable(value, error) from None
    return Heading(about.samplerate, about.frames / about.samplerate, about.channels)


class Piece(str):
    """Samples out of a longer recording, which was looked at as a whole."""

    __slots__ = ()


def count_rate(recording: Recording, rate: int, value: str, report: Report) -> None:
    """Count a recording whose rate will be changed."""
    if recording.rate != rate:
        report.add(f"recorded at {recording.rate:,} Hz, brought to {rate:,}", example=shown(value))


def record(value: str, rate: int, report: Report | None = None) -> Recording:
    """A recording as it is, but with its channels mixed; an array of samples has the rate that is given.

    Counts in `report` what was mixed or clipped. Raises `DataError` for a file that is no recording, is cut off, has no
    sample, or one that is no number.
    """
    if value.startswith(INLINE):
        samples = read_array(value)
        if samples.ndim != 1:
            what = "samples of a recording are one row of numbers"
            raise DataError(what, where=shown(value), got=f"an array of shape {samples.shape}")
    else:
        samples, rate = _read(value)
    if samples.ndim == 2:
        if samples.shape[1] > 1 and report is not None:
            report.add("recording with several channels, mixed to one", example=value)
        samples = samples.mean(axis=1)
    if not len(samples):
        raise DataError("the recording has no sample", where=shown(value), do="remove it from the data")
    if not np.isfinite(samples).all():
        place = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise DataError("a sample is not a number", where=shown(value), got=f"{samples[place]} at sample {place + 1}")
    if report is not None and (np.abs(samples) >= LOUD).mean() > 1e-3:
        report.add("recording that is clipped (one sample in a thousand at full scale, or more)", example=value)
    return Recording(samples, rate)


def _read(value: str) -> tuple[np.ndarray, int]:
    open_bytes(Path(value)).close()
    library = _soundfile()
    try:
        with library.SoundFile(value) as file:
            samples, frames, rate = file.read(dtype="float32", always_2d=True), file.frames, file.samplerate
    except library.LibsndfileError as error:
        raise _unreadable(value, error) from None
    if len(samples) < frames or (len(samples) and _lacks_its_end(Path(value))):
        got = f"{len(samples):,} samples" + (f" of {frames:,}" if frames > len(samples) else "")
        raise DataError("the recording is cut off", where=value, got=got, do="record or copy it again, or remove it")
    return samples, rate


def _lacks_its_end(path: Path) -> bool:
    """Whether a WAV is shorter than it says, or an Ogg has no last page: the library reads what is there."""
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(12)
        if begin[:4] == b"OggS":
            file.seek(max(0, size - OGG_PAGE))
            last = (rest := file.read()).rfind(b"OggS")
            return last < 0 or len(rest) < last + 6 or not rest[last + 5] & OGG_END
        if begin[:4] != b"RIFF" or begin[8:] != b"WAVE":
            return False
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":  # what is written as it comes may not know its length
                return length not in (0, (1 << 32) - 1) and file.tell() + length > size
            file.seek(length + length % 2, 1)
    return False


def _unreadable(value: str, error: Exception) -> DataError:
    reason = str(error).rpartition(": ")[2]
    return DataError(f"is no recording that can be read: {reason}", where=value, do=f"give {', '.join(SUFFIXES[:4])}")


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError:
        raise require("speech", "soundfile") from None
    return soundfile


def at_rate(recording: Recording, rate: int, speed: float = 1.0) -> np.ndarray:
    """The samples at another rate, and played at another speed (Ko et al. 2015)."""
    if recording.rate == rate and speed == 1.0:
        return recording.samples
    try:
        import soxr
    except ImportError:
        raise require("speech", "soxr") from None
    changed: np.ndarray = soxr.resample(recording.samples, recording.rate * speed, rate)
    return changed


def log_mel(samples: np.ndarray, settings: Settings) -> np.ndarray:
    """Samples at `settings.rate` to the natural logarithm of the power in mel bands, `[frames, mels]`.

    A frame stands every `step` milliseconds, the first one around the first sample; its Hann window is `window` long.
    """
    import torch

    rate, mels = settings.rate or 16_000, settings.mels or 80
    length, step = round(rate * settings.window / 1000), round(rate * settings.step / 1000)
    size = 1 << (length - 1).bit_length()
    spectrum = torch.stft(
        torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)), size, step, length,
        torch.hann_window(length), center=True, pad_mode="constant", return_complex=True,
    )  # fmt: skip
    power = spectrum.real.square() + spectrum.imag.square()
    return (mel_filters(rate, size, mels) @ power).clamp_min(FLOOR).log().T.contiguous().numpy()


@cache
def mel_filters(rate: int, size: int, mels: int) -> torch.Tensor:
    """Triangles of equal area, evenly spaced in mel (Slaney 1998) from 0 to half the rate, `[mels, size / 2 + 1]`."""
    import torch

    edges = _hertz(np.linspace(_mel(0.0), _mel(rate / 2), mels + 2))
    away = edges[:, None] - np.linspace(0, rate / 2, size // 2 + 1)
    width = np.diff(edges)[:, None]
    triangles = np.maximum(0, np.minimum(-away[:-2] / width[:-1], away[2:] / width[1:]))
    return torch.from_numpy((triangles * 2 / (edges[2:] - edges[:-2])[:, None]).astype(np.float32))


def _mel(hertz: float) -> float:
    """Linear below 1,000 Hz, logarithmic above."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * float(np.log(hertz / 1000) / np.log(6.4))


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))


def pieces(recording: Recording, longest: float) -> list[slice]:
    """Stretches of at most `longest` seconds that a recording is made of, cut where it is quietest.

    A cut is sought in the later half of what may be a piece; quiet is the least power over a fifth of a second.
    """
    samples, rate = recording
    step, most, cuts = max(1, rate // 100), int(longest * rate), [0]
    power = np.square(samples[: len(samples) // step * step].reshape(-1, step)).mean(axis=1)
    quiet = np.convolve(power, np.ones(20) / 20, mode="same")
    while len(samples) - cuts[-1] > most:
        first, last = (cuts[-1] + most // 2) // step, (cuts[-1] + most) // step
        cuts.append((first + int(np.argmin(quiet[first:last]))) * step)
    return [slice(start, end) for start, end in pairwise([*cuts, len(samples)])]
