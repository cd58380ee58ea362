"""Films of moving shapes with captions, to learn from: some events and orders are in the test alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from antiphon.inference.evaluate import Evaluation

SHAPES = ("circle", "square", "triangle")
COLOURS = {"red": (220, 50, 50), "green": (50, 190, 70), "blue": (60, 90, 230), "yellow": (225, 205, 50),
           "purple": (180, 60, 200), "white": (240, 240, 240)}  # fmt: skip
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SIDE, RATE, SECONDS = 64, 12, 1.0
"""Pixels of a side, pictures a second, and seconds of an event."""


SETS = (("train", 2400, 1), ("valid", 200, 2), ("test", 400, 3))
"""Films of each part, and the seed that they are drawn by."""


SETTINGS = {
    "model.width": 64, "model.encoder.layers": 1, "model.decoder.layers": 1, "model.dropout": 0.1,
    "training.label_smoothing": 0.0, "training.rate": 0.003, "training.steps": 2000, "training.validate_every": 400,
    "training.metric": "exact", "training.processes": 1, "decoding.beam": 1,
}  # fmt: skip
"""What is asked of the training besides what its recipe proposes: chosen by validation."""


class Event(NamedTuple):
    """A shape of a colour that moves."""

    shape: str
    colour: str
    direction: str

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape} moves {self.direction}"


EVENTS = [Event(*each) for each in itertools.product(SHAPES, COLOURS, DIRECTIONS)]


def part_of(event: Event) -> str:
    """Where an event is: 18 of 72 in the test alone, 6 in validation alone; each two of its words go together in
    training too."""
    shape, colour = SHAPES.index(event.shape), list(COLOURS).index(event.colour)
    place = (shape + colour + list(DIRECTIONS).index(event.direction)) % 4
    return "test" if place == 0 else "valid" if place == 2 and shape == colour % 3 else "train"


def order_of(events: Sequence[Event]) -> str:
    """Where an order of colours is: one in six in the test alone (green after red, blue after green and so on), one in
    validation alone."""
    first, *second = (list(COLOURS).index(event.colour) for event in events)
    return {1: "test", 2: "valid"}.get((second[0] - first) % 6, "train") if second else "train"


def stories(part: str, count: int, seed: int) -> Iterator[list[Event]]:
    """One event or two, in order. In training all are known; in validation and the test one at least is not, or the
    order of colours is not."""
    draw = np.random.default_rng(seed)
    known = [event for event in EVENTS if part_of(event) == "train"]
    new = [event for event in EVENTS if part_of(event) == part]
    while count:
        order = part != "train" and draw.random() < 0.5
        pool = known if order else new
        events = [pool[draw.integers(len(pool))]]
        if order or draw.random() < 0.75:
            events.append(known[draw.integers(len(known))])
        if draw.random() < 0.5:
            events.reverse()
        if order_of(events) == (part if order else "train") and (len(events) == 1 or events[0] != events[1]):
            count -= 1
            yield events


def caption(events: Sequence[Event]) -> str:
    """What is seen, in order."""
    return " then ".join(map(str, events))


def film(events: Sequence[Event], draw: np.random.Generator) -> np.ndarray:
    """Pictures `[frames, SIDE, SIDE, 3]`: each shape has its own size, way and pace before a grey wall with some
    noise."""
    wall = draw.integers(20, 90) + draw.normal(0, 4, (SIDE, SIDE, 1))
    return np.concatenate([_moving(event, wall, draw) for event in events])


def _moving(event: Event, wall: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    size, way = draw.uniform(12, 16), draw.uniform(20, 30)
    step = np.array(DIRECTIONS[event.direction])
    middle = SIDE / 2 + draw.uniform(-6, 6, 2)
    frames = round(RATE * SECONDS)
    paint = np.array(COLOURS[event.colour]) + draw.normal(0, 8, 3)
    pictures = []
    for moment in np.linspace(-0.5, 0.5, frames):
        share = FORMS[event.shape](*_away(middle + step * way * moment), size)[..., None]
        pictures.append(share * paint + (1 - share) * wall)
    return np.clip(np.stack(pictures), 0, 255).astype(np.uint8)


def _away(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each pixel is to the right of a place, and below it."""
    down, right = np.mgrid[:SIDE, :SIDE]
    return right - place[0], down - place[1]


def _circle(right: np.ndarray, down: np.ndarray, size: float) -> np.ndarray:
    return np.clip(size - np.hypot(right, down) + 0.5, 0, 1)


def _box(right: np.ndarray, down: np.ndarray, size: float) -> np.ndarray:
    return np.clip(0.9 * size - np.maximum(abs(right), abs(down)) + 0.5, 0, 1)


def _triangle(right: np.ndarray, down: np.ndarray, size: float) -> np.ndarray:
    """On its side, which is below."""
    return np.clip(np.minimum(size - down, (down + size - 2 * abs(right)) / 5**0.5) + 0.5, 0, 1)


FORMS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "circle": _circle,
    "square": _box,
    "triangle": _triangle,
}


def encode(
    path: Path, pictures: np.ndarray, rate: int = RATE, codec: str = "libx264", options: dict[str, str] | None = None
) -> Path:
    """Writes pictures as a film; its format is that of the name, and `options` are of its container."""
    import av

    kind = {"gif": "rgb8", "libx264": "yuv420p", "libvpx-vp9": "yuv420p", "mpeg4": "yuv420p"}[codec]
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], kind
        stream.options = {"preset": "ultrafast"} if codec == "libx264" else {}
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write(folder: Path, part: str, count: int, seed: int) -> Path:
    """So many films, and the table of them with their captions and what is new in each."""
    draw, lines = np.random.default_rng(seed + 1), ["source\ttarget\tnew"]
    (folder / part).mkdir(parents=True)
    for number, events in enumerate(stories(part, count, seed)):
        path = encode(folder / part / f"{number:05}.mp4", film(events, draw))
        new = "order" if order_of(events) != "train" else f"event, {len(events)} of them" if part != "train" else ""
        lines.append(f"{path.relative_to(folder)}\t{caption(events)}\t{new}")
    table = folder / f"{part}.tsv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def learn(folder: Path) -> Evaluation:
    """Trains with the settings of the bench, and judges by the test, in all and by what is new."""
    from antiphon.data.corpus import open_pairs
    from antiphon.inference.bundle import load
    from antiphon.inference.evaluate import evaluate
    from antiphon.inference.predictor import Predictor
    from antiphon.training.start import fit

    train, valid, test = (str(write(folder, part, count, seed)) for part, count, seed in SETS)
    fit(train, valid=valid, out=folder / "run", task="captioning", assignments=SETTINGS)
    predictor = Predictor(load(folder / "run"))
    return evaluate(predictor, open_pairs(test, predictor.config.data), ["exact"], columns=["new"])
