"""Recordings: what is read, mixed and brought to a rate; log-mel frames beside librosa's; odd files refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from antiphon.core.config import Frames
from antiphon.core.errors import DataError
from antiphon.data import speech
from antiphon.data.arrays import written
from antiphon.data.report import Report

RATE = 8000
GOLDEN = Path(__file__).parent / "golden/mel.npz"
"""Made by `golden/make_mel.py`."""


def tone(seconds: float = 0.5, hertz: float = 440, rate: int = RATE) -> np.ndarray:
    """A sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_every_format_is_heard(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / name)
    soundfile.write(path, tone(), RATE)
    samples, rate = speech.record(path, 16_000)
    assert rate == RATE
    assert abs(len(samples) - len(tone())) < 3000  # mp3 adds silence
    assert np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples) == pytest.approx(440, abs=2)
    assert speech.heading(path, 1).rate == RATE


def test_channels_are_mixed_and_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.stack([tone(), 0 * tone()], 1), RATE, "FLOAT")
    found = speech.record(path, RATE, report := Report())
    np.testing.assert_allclose(found.samples, tone() / 2, atol=1e-6)
    assert list(report.counts) == ["recording with several channels, mixed to one"]


def test_clipping_is_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.clip(4 * tone(), -1, 1), RATE)
    speech.record(path, RATE, report := Report())
    assert any("clipped" in reason for reason in report.counts)


def test_samples_in_a_line_have_the_rate_of_the_settings() -> None:
    found = speech.record(written(tone()), RATE)
    assert found.rate == RATE
    np.testing.assert_array_equal(found.samples, tone())


def test_a_cut_file_and_odd_samples_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.wav"
    soundfile.write(whole, tone(), RATE)
    (tmp_path / "empty.wav").write_bytes(whole.read_bytes()[:44])
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), RATE)
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan], np.float32), RATE, "FLOAT")
    (tmp_path / "text.wav").write_text("not a recording")
    soundfile.write(tmp_path / "whole.flac", tone(), RATE)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "whole.flac").read_bytes()[:600])
    for name in ("empty.wav", "none.wav", "nan.wav", "text.wav", "cut.flac", "missing.wav"):
        with pytest.raises(DataError) as caught:
            speech.record(str(tmp_path / name), RATE)
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["a.wav", "a.ogg"])
def test_a_file_that_ends_too_early_is_refused(name: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / name, tone(20.0), RATE)
    whole = (tmp_path / name).read_bytes()
    speech.record(str(tmp_path / name), RATE)
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match="cut off"):
        speech.record(str(tmp_path / name), RATE)
    if name == "a.wav":  # which may not know its length, where it was written as it came
        place = whole.index(b"data") + 4
        (tmp_path / name).write_bytes(whole[:place] + b"\xff" * 4 + whole[place + 4 :])
        assert len(speech.record(str(tmp_path / name), RATE).samples) == len(tone(20.0))


def test_another_rate_and_speed() -> None:
    slow = speech.at_rate(speech.Recording(tone(), RATE), 2 * RATE)
    assert len(slow) == 2 * len(tone())
    assert np.abs(np.fft.rfft(slow)).argmax() * 2 * RATE / len(slow) == pytest.approx(440, abs=3)
    fast = speech.at_rate(speech.Recording(tone(), RATE), RATE, 1.1)
    assert len(fast) == pytest.approx(len(tone()) / 1.1, abs=2)
    assert np.abs(np.fft.rfft(fast)).argmax() * RATE / len(fast) == pytest.approx(484, abs=3)


@pytest.mark.parametrize(("rate", "mels"), [(8000, 40), (16_000, 80), (22_050, 64)])
def test_frames_equal_those_of_librosa(rate: int, mels: int) -> None:
    with np.load(GOLDEN) as made:
        found = speech.log_mel(made["samples"], Frames(rate=rate, mels=mels))
        np.testing.assert_allclose(found, made[f"{rate}-{mels}"], atol=2e-3)


def test_a_frame_stands_every_step() -> None:
    assert speech.log_mel(tone(1.0), Frames(rate=RATE, mels=40)).shape == (101, 40)
    assert len(speech.log_mel(tone(0.001), Frames(rate=RATE, mels=40))) == 1
