"""Sources that are no text: their frames, normalization, limits, files, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antiphon.core.config import Data, Frames, Side
from antiphon.core.errors import BundleError, DataError
from antiphon.data.arrays import written
from antiphon.data.modalities import TooLong
from antiphon.data.report import Report
from antiphon.data.signals import Overview, Signal, kind_of
from test_speech import RATE, tone

ARRAYS = [written(np.array([[1.0, 10], [3, 10], [5, 10]])), written(np.array([[7.0, 10]]))]
PLAIN = Data(source=Side(kind="frames"), frames=Frames(normalize="all"))
HEARD = Data(source=Side(kind="speech"), frames=Frames(rate=RATE, mels=20, normalize="each"))


def test_features_get_mean_0_and_deviation_1_over_training() -> None:
    signal = Signal.learn(ARRAYS, PLAIN)
    assert signal.features == signal.size == 2
    found = np.concatenate([signal.frames(value) for value in ARRAYS])
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(found[:, 0].std(), 1, atol=1e-6)
    assert not found[:, 1].any()  # what never changes is not made larger


def test_or_over_each_source_or_not_at_all() -> None:
    each = Signal.learn(ARRAYS, replace(PLAIN, frames=Frames(normalize="each"))).frames(ARRAYS[0])
    np.testing.assert_allclose(each[:, 0], np.array([-1, 0, 1]) * 1.5**0.5, atol=1e-6)
    none = Signal.learn(ARRAYS, replace(PLAIN, frames=Frames(normalize="none"))).frames(ARRAYS[0])
    np.testing.assert_array_equal(none, [[1, 10], [3, 10], [5, 10]])


def test_one_row_of_numbers_and_joints_become_features() -> None:
    assert Signal.learn([written([1, 2, 3])], PLAIN).frames(written([1, 2, 3])).shape == (3, 1)
    joints = written(np.ones((4, 15, 2)))
    assert Signal.learn([joints], PLAIN).features == 30


def test_too_long_sources_are_cut_and_counted_or_refused() -> None:
    signal = Signal.learn(ARRAYS, PLAIN)
    assert len(signal.limited(2, "truncate").frames(ARRAYS[0], report=(report := Report()))) == 2
    assert list(report.counts) == ["source cut to max_length=2 frames"]
    with pytest.raises(TooLong) as caught:
        signal.limited(2, "skip").frames(ARRAYS[0])
    assert caught.value.skip


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (written(np.ones((3, 5))), "has 5 features a frame, the model reads 2"),
        (written(np.array([[1.0, np.nan]])), r"not a number \(got nan at frame 1, feature 2\)"),
        (written(np.zeros((0, 2))), "no frame"),
    ],
)
def test_odd_arrays_are_refused(value: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        Signal.learn(ARRAYS, PLAIN).frames(value)


def test_sources_must_have_the_same_features() -> None:
    with pytest.raises(DataError, match=r"has 1 features a frame, \(an array\) has 2"):
        Signal.learn([*ARRAYS, written([1.0])], PLAIN)


def test_a_recording_of_another_rate_is_brought_to_it_and_counted(tmp_path: Path) -> None:
    usual, other = str(tmp_path / "8.wav"), str(tmp_path / "16.wav")
    soundfile.write(usual, tone(0.5), RATE)
    soundfile.write(other, tone(0.5, rate=2 * RATE), 2 * RATE)
    signal, report = Signal.learn([usual], HEARD), Report()
    found = [signal.frames(path, report=report) for path in (usual, other)]
    assert report.counts == {"recorded at 16,000 Hz, brought to 8,000": 1}
    assert found[0].shape == found[1].shape
    assert signal.places(5) == ["0.00s", "0.01s", "0.02s", "0.03s", "0.04s"]
    assert replace(signal, reduced=4).places(5) == ["0.00s", "0.04s"]


def test_silence_is_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "a.wav")
    soundfile.write(path, 0 * tone(), RATE)
    Signal.learn([path], HEARD).frames(path, report=(report := Report()))
    assert list(report.counts) == ["recording of nothing but silence"]


def test_recordings_are_played_at_other_speeds_by_their_seed(tmp_path: Path) -> None:
    path = str(tmp_path / "a.wav")
    soundfile.write(path, tone(), RATE)
    signal = replace(Signal.learn([path], HEARD), speed=0.1)
    lengths = [len(signal.frames(path, seed=seed)) for seed in range(20)]
    assert len(set(lengths)) == 3
    assert lengths == [len(signal.frames(path, seed=seed)) for seed in range(20)]
    assert len(signal.frames(path)) == sorted(set(lengths))[1]


def test_files_bring_it_back_and_others_are_refused() -> None:
    signal = Signal.learn(ARRAYS, PLAIN, 4)
    files = signal.files("source")
    again = Signal.load(files, "source", PLAIN, 4)
    np.testing.assert_array_equal(again.frames(ARRAYS[0]), signal.frames(ARRAYS[0]))
    about = json.loads(files["source.signal.json"])
    for odd in ({**about, "mean": [1]}, {**about, "features": "2"}, {**about, "mean": [1, None]}, [], {}):
        with pytest.raises(BundleError):
            Signal.load({"source.signal.json": json.dumps(odd).encode()}, "source", PLAIN)
    with pytest.raises(BundleError, match="no such file"):
        Signal.load({}, "source", PLAIN)


def test_what_a_source_looks_like() -> None:
    names = ["a.wav", "b.FLAC", "c.npy", "d.npz#x", written([1.0]), "a sentence.", "wav"]
    assert [kind_of(name) for name in names] == ["speech", "speech", "frames", "frames", "frames", "text", "text"]


def test_an_overview_is_of_headings(tmp_path: Path) -> None:
    path = str(tmp_path / "a.wav")
    soundfile.write(path, tone(0.5), RATE)
    assert Overview.of([path], HEARD) == Overview(50.0, 0.5, 0, RATE, short=0.5)
    assert Overview.of(ARRAYS, PLAIN) == Overview(2.0, features=2)
