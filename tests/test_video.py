"""Films: what is read of each format, at which times, made square and small; odd files refused or counted; learning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

import films
from antiphon.core.config import Config, Data, Frames, Frontend, Side
from antiphon.core.errors import ConfigError, DataError
from antiphon.core.keys import override
from antiphon.data import video
from antiphon.data.arrays import written
from antiphon.data.report import Report
from antiphon.data.signals import Overview, Signal, kind_of
from antiphon.inference.bundle import load
from antiphon.inference.predictor import Predictor
from antiphon.inference.recordings import Pieces
from antiphon.models.frontends import FramesFrontend
from antiphon.models.seq2seq import build
from antiphon.training.recipes import propose
from antiphon.training.start import fit, resume
from antiphon.training.statistics import Statistics
from commands import Call, calling, refused
from conformance import model
from runs import Recorder, outcome

__all__ = ["calling"]

FORMATS = {"a.mp4": "libx264", "a.mkv": "libx264", "a.mov": "mpeg4", "a.avi": "mpeg4", "a.webm": "libvpx-vp9",
           "a.gif": "gif"}  # fmt: skip
SMALL = Frames(per_second=4, size=8)
PLAIN = Data(source=Side(kind="video"), frames=replace(SMALL, normalize="none"))


def stairs(frames: int = 24, height: int = 32, width: int = 32) -> np.ndarray:
    """Grey pictures, each brighter than the one before."""
    levels = np.linspace(20, 230, frames).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (frames, height, width, 3)).copy()


def levels(found: np.ndarray) -> np.ndarray:
    """The mean brightness of each picture, from 0 to 255."""
    return (found.mean(axis=1) + 1) * 127.5


def halves(height: int, width: int) -> np.ndarray:
    """Twelve pictures, red in their left half and blue in the right one, green in all of the top fifth."""
    pictures = np.zeros((12, height, width, 3), np.uint8)
    pictures[:, :, : width // 2, 0] = 255
    pictures[:, :, width // 2 :, 2] = 255
    pictures[:, : height // 5] = (0, 255, 0)
    return pictures


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_seen_as_it_was_painted(name: str, tmp_path: Path) -> None:
    path = films.encode(tmp_path / name, stairs(), rate=12, codec=FORMATS[name])
    found = video.pictures(str(path), SMALL)
    assert found.shape == (8, 8 * 8 * 3)
    assert found.dtype == np.float32
    wanted = stairs()[::3, 0, 0, 0]  # two seconds, four pictures in each: every third of twelve
    np.testing.assert_allclose(levels(found), wanted, atol=20 if name == "a.gif" else 6)
    assert video.heading(str(path)) == pytest.approx((2.0, 12.0, 32, 32), abs=0.5)  # hundredths of a second in a GIF


def test_places_and_colours_are_kept(tmp_path: Path) -> None:
    path = films.encode(tmp_path / "a.mp4", halves(40, 40))
    [picture, *_] = video.pictures(str(path), Frames(per_second=2, size=10)).reshape(-1, 10, 10, 3)
    np.testing.assert_allclose(picture[0, 5], [-1, 1, -1], atol=0.3)
    np.testing.assert_allclose(picture[8, 1], [1, -1, -1], atol=0.3)
    np.testing.assert_allclose(picture[8, 8], [-1, -1, 1], atol=0.3)


@pytest.mark.parametrize("rate", [3, 10, 30])
@pytest.mark.parametrize("per_second", [2, 4, 12])
def test_the_films_own_rate_changes_nothing(rate: int, per_second: int, tmp_path: Path) -> None:
    path = films.encode(tmp_path / "a.mp4", stairs(2 * rate), rate=rate)
    found = levels(video.pictures(str(path), replace(SMALL, per_second=per_second)))
    assert len(found) == 2 * per_second
    seen = np.arange(2 * per_second) * rate // per_second  # the one that is there at the time
    np.testing.assert_allclose(found, stairs(2 * rate)[seen, 0, 0, 0], atol=6)


def test_uneven_films_are_read_by_their_times(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height = stream.width = 32
        frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in stairs(4)]
        for frame, time in zip(frames, (0, 1, 2, 19), strict=True):  # tenths of a second
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = levels(video.pictures(str(path), replace(SMALL, per_second=10)))
    assert len(found) == 20
    np.testing.assert_allclose(found, stairs(4)[[0, 1, *[2] * 17, 3], 0, 0, 0], atol=6)


def test_a_film_shorter_than_a_picture_has_one(tmp_path: Path) -> None:
    path = films.encode(tmp_path / "a.mp4", stairs(1), rate=30)
    assert len(video.pictures(str(path), replace(SMALL, per_second=1))) == 1


def test_the_middle_is_kept_or_all_is_squeezed(tmp_path: Path) -> None:
    wide = np.zeros((6, 32, 96, 3), np.uint8)
    wide[:, :, :32] = 255  # white at the left end, which the middle has not
    path = str(films.encode(tmp_path / "a.mp4", wide))
    assert video.pictures(path, SMALL).max() < -0.8
    squeezed = video.pictures(path, replace(SMALL, crop=False)).reshape(-1, 8, 8, 3)
    assert squeezed[:, :, 0].min() > 0.7
    assert squeezed[:, :, 4:].max() < -0.7


def test_grey_is_brightness_alone(tmp_path: Path) -> None:
    path = str(films.encode(tmp_path / "a.mp4", stairs()))
    found = video.pictures(path, replace(SMALL, grey=True))
    assert found.shape == (8, 64)
    np.testing.assert_allclose(levels(found), stairs()[::3, 0, 0, 0], atol=6)


def test_a_film_that_says_so_is_turned(tmp_path: Path) -> None:
    path = films.encode(tmp_path / "a.mp4", halves(40, 40))
    upright = video.pictures(str(path), SMALL).reshape(-1, 8, 8, 3)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # the matrix, after the version and nine fields
    turn = [0, 1 << 16, 0, -(1 << 16), 0, 0, 40 << 16, 0, 1 << 30]  # a quarter to the right
    content[start : start + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in turn)
    path.write_bytes(content)
    found = video.pictures(str(path), SMALL).reshape(-1, 8, 8, 3)
    np.testing.assert_allclose(found, np.rot90(upright, -1, (1, 2)), atol=0.02)


def cut(path: Path, share: float = 0.6) -> Path:
    """The first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def noisy(frames: int = 48) -> np.ndarray:
    """Pictures that do not get small."""
    return np.random.default_rng(0).integers(0, 255, (frames, 64, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", [*FORMATS, "fast.mp4"])
def test_a_cut_film_is_refused(name: str, tmp_path: Path) -> None:
    options = {"movflags": "faststart"} if name == "fast.mp4" else {}
    path = films.encode(tmp_path / name, noisy(), codec=FORMATS.get(name, "libx264"), options=options)
    assert len(video.pictures(str(path), SMALL)) == 16
    with pytest.raises(DataError, match=r"ends too early|no film that can be read") as caught:
        video.pictures(str(cut(path)), SMALL)
    assert str(path) in str(caught.value)
    assert caught.value.do


@pytest.mark.parametrize(("name", "size"), [("a.mp4", 4000), ("a.mkv", 40)])
def test_damaged_pictures_are_counted_and_their_time_is_kept(name: str, size: int, tmp_path: Path) -> None:
    path = films.encode(tmp_path / name, noisy())
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + size] = bytes(byte ^ 0x5A for byte in content[middle : middle + size])
    path.write_bytes(content)
    found = video.pictures(str(path), SMALL, report := Report())
    assert len(found) == 16
    assert list(report.counts) == ["damaged picture of a film"]


def test_a_film_without_a_whole_picture_is_refused(tmp_path: Path) -> None:
    import av

    whole, path = films.encode(tmp_path / "whole.mp4", stairs()), tmp_path / "a.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[1:-1]:  # all the others say how they differ from the first
            packet.stream = stream
            container.mux(packet)
    with pytest.raises(DataError, match="has no picture that can be read"):
        video.pictures(str(path), SMALL)


def test_a_film_of_one_colour_is_counted(tmp_path: Path) -> None:
    path = films.encode(tmp_path / "a.mp4", np.zeros((12, 32, 32, 3), np.uint8))
    video.pictures(str(path), SMALL, report := Report())
    assert report.counts == {"film of nothing but one colour": 1}


def test_what_is_no_film_is_refused(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    (tmp_path / "text.mp4").write_text("not a film")
    (tmp_path / "none.mp4").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    films.encode(tmp_path / "whole.mp4", stairs())
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\nwhole.mp4\n")
    (tmp_path / "join.mp4").write_text("ffconcat version 1.0\nfile whole.mp4\n")
    soundfile.write(tmp_path / "sound.wav", np.zeros(800), 8000)
    (tmp_path / "sound.wav").rename(tmp_path / "sound.mp4")
    names = ("text", "none", "folder", "list", "join", "sound", "missing")
    for path in (str(tmp_path / f"{name}.mp4") for name in names):
        for look in (video.heading, lambda value: video.pictures(value, SMALL)):
            with pytest.raises(DataError) as caught:
                look(path)
            assert path in str(caught.value)
    with pytest.raises(DataError, match=r"is an array.*set data\.source\.kind=frames"):
        video.pictures(written(np.zeros((2, 3))), SMALL)


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(DataError, match=r"has no pictures.*kind=speech"):
        video.pictures(str(path), SMALL)


def test_without_the_package_the_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = films.encode(tmp_path / "a.mp4", stairs())
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(Exception, match=r"pip install 'antiphon\[video\]'"):
        video.pictures(str(path), SMALL)


def test_what_a_source_looks_like() -> None:
    assert [kind_of(f"x.{name}") for name in ("mp4", "MKV", "avi", "mov", "webm", "gif", "mp3", "mp")] == [
        *["video"] * 6, "speech", "text"
    ]  # fmt: skip


def test_a_signal_reads_films_and_knows_their_times(tmp_path: Path) -> None:
    path = str(films.encode(tmp_path / "a.mp4", stairs()))
    signal = Signal.learn([path], PLAIN, 2)
    assert signal.features == 192
    np.testing.assert_array_equal(signal.frames(path), video.pictures(path, SMALL))
    assert signal.places(8) == ["0.00s", "0.50s", "1.00s", "1.50s"]
    again = Signal.load(signal.files("source"), "source", PLAIN, 2)
    np.testing.assert_array_equal(again.frames(path), signal.frames(path))
    assert Overview.of([path], PLAIN) == Overview(8.0, 2.0, 0, 12, 32)


def test_pixels_may_be_normalized(tmp_path: Path) -> None:
    path = str(films.encode(tmp_path / "a.mp4", stairs()))
    found = Signal.learn([path], replace(PLAIN, frames=replace(SMALL, normalize="all"))).frames(path)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-4)


def test_the_recipe_looks_at_films(tmp_path: Path) -> None:
    from antiphon.data.corpus import Pair

    path = str(films.encode(tmp_path / "a.mp4", stairs(72, 48, 64), rate=12))
    pairs = [Pair(path, f"a {colour} circle moves") for colour in films.COLOURS] * 100
    config = override(Config(task="captioning"), {"data.source.kind": "video"})
    config, choices = propose(config, Statistics.of(pairs, None, config.data))
    frames, frontend = config.data.frames, config.model.frontend
    assert (frames.per_second, frames.size, frames.normalize) == (4, 32, "none")
    assert (frontend.kind, frontend.reduce, frontend.time_masks) == ("pictures", 2, 0)
    assert all(choice.reason for choice in choices)
    build(config.model, 32 * 32 * 3, 50)
    small = override(Config(), {"data.source.kind": "video", "data.frames.per_second": 1.0})
    one, _ = propose(small, Statistics.of(pairs, None, small.data))
    assert one.model.frontend.reduce == 1


@pytest.mark.parametrize("features", [2, 6, 50, 3 * 7])
def test_pictures_must_be_square(features: int) -> None:
    with pytest.raises(ConfigError, match=r"needs square ones.*got"):
        build(model("gru", "gru", frontend=Frontend(kind="pictures", reduce=1)), features, 20)


@pytest.mark.parametrize("features", [1, 3, 16, 3 * 33**2])
def test_of_any_size_and_in_grey(features: int) -> None:
    import torch

    from antiphon.core.batch import Padded

    settings = Frontend(kind="pictures", reduce=2)
    network = FramesFrontend(features, 16, settings, positions="none", longest=9, share=0.0)
    x_BSD, mask_BS = network.read(Padded(torch.randn(2, 5, features), torch.tensor([5, 2])))
    assert x_BSD.shape == (2, 3, 16)
    assert mask_BS.tolist() == [[True] * 3, [True, False, False]]


def test_settings_of_films_have_limits() -> None:
    for key, value in (("data.frames.per_second", 0), ("data.frames.size", 0), ("data.shared", True)):
        with pytest.raises(ConfigError, match=key):
            override(Config(), {"data.source.kind": "video", key: value})


TINY = {
    "data.frames.size": 8, "data.frames.per_second": 2.0, "model.width": 16, "model.encoder.kind": "gru",
    "model.decoder.kind": "gru", "model.encoder.layers": 1, "model.decoder.layers": 1, "data.batch_tokens": 60,
    "training.steps": 8, "training.validate_every": 4, "training.threads": 1, "training.processes": 1,
    "training.metric": "loss", "decoding.beam": 1, "model.frontend.reduce": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of a few films."""
    return films.write(tmp_path_factory.mktemp("films"), "train", 12, seed=1)


def test_a_stopped_run_ends_with_the_same_bits_and_answers(table: Path, tmp_path: Path, call: Call) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(str(table), out=whole, assignments=TINY)
    fit(str(table), out=parts, assignments=TINY, observers=[Recorder(5)])
    resume(parts)
    assert outcome(parts) == outcome(whole)
    paths = [str(table.parent / "train" / f"{number:05}.mp4") for number in range(2)]
    answers = [found[0] for found in Predictor(load(whole)).predict(paths)]
    code, out, err = call("predict", whole, *paths)
    assert code == 0, err
    assert out.splitlines() == [answer.text for answer in answers]
    code, out, _ = call("predict", whole, paths[0], "--jsonl")
    assert json.loads(out)["source_tokens"][:2] == ["0.00s", "0.50s"]
    code, out, _ = call("info", whole)
    assert "video at 2 pictures a second, 8 pixels a side, 192 features a frame" in " ".join(out.split())
    assert Pieces.wanted(load(whole).task) is None  # only recordings are cut where they are quiet
    assert "there is no such file" in refused(call, "predict", whole, tmp_path / "missing.mp4")


def test_a_film_that_is_missing_is_told_with_its_line(tmp_path: Path, call: Call) -> None:
    (tmp_path / "a.tsv").write_text("gone.mp4\ta red circle\n")
    assert "a.tsv:1: there is no file" in refused(call, "train", tmp_path / "a.tsv", "--out", tmp_path / "run")


def test_what_is_to_be_new_is_in_no_film_of_training() -> None:
    known = list(films.stories("train", 2000, seed=1))
    events = {event for story in known for event in story}
    assert len(events) == 48
    for part, new in (("valid", 6), ("test", 18)):
        stories = list(films.stories(part, 500, seed=2))
        assert len({event for story in stories for event in story} - events) == new
        assert not {films.caption(story) for story in stories} & {films.caption(story) for story in known}
        orders = {(before.colour, after.colour) for story in known for before, after in [story] * (len(story) == 2)}
        for story in (story for story in stories if set(story) <= events):
            assert (story[0].colour, story[1].colour) not in orders
    pairs = {(event[first], event[second]) for event in events for first, second in ((0, 1), (0, 2), (1, 2))}
    assert len(pairs) == 3 * 6 + 3 * 4 + 6 * 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_captions_of_events_and_orders_that_training_never_had(tmp_path: Path) -> None:
    found = films.learn(tmp_path)
    assert found.scores["exact"].value >= 95, found.lines()
    assert {group.value for group in found.by_group} == {"order", "event, 1 of them", "event, 2 of them"}
