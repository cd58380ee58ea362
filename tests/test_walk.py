"""The walk: one pair followed from its text to the optimizer step, short enough to be read in one sitting.

`WRITE_WALK=1 pytest tests/test_walk.py` writes docs/the-walk.md anew.
"""

import os
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import antiphon
from antiphon.training.start import fit

ROOT = Path(antiphon.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "the-walk.md"

LEGS = {
    "Task.encode": "A pair becomes ids",
    "plan": "The epoch becomes batches",
    "Loader.batch": "Rows become one padded batch",
    "Trainer._step": "A batch becomes a step of the optimizer",
}
"""The functions where a leg of the walk begins."""

SIZE = 4
"""Lines of work from which on a function is a station; shorter ones are passed through."""
PASSED = re.compile(r"(core|metrics)/|models/(functional|linear|positions)|training/(budget|observers|probes/)")
"""Types, arithmetic and bookkeeping: passed through as well, and so are private helpers."""

MOST_FUNCTIONS, MOST_FILES, MOST_DEPTH = 34, 17, 9

SETTINGS = {
    "training.steps": 1,
    "training.threads": 1,
    "training.probes": False,
    "model.encoder.kind": "lstm",
    "model.decoder.kind": "lstm",
    "data.source.tokenizer": "char",
    "data.target.tokenizer": "char",
}


@dataclass(frozen=True)
class Station:
    """A function on the walk: its leg, how deep it is nested among stations, and what it says of itself."""

    leg: str
    depth: int
    file: str
    name: str
    purpose: str


class Tracer:
    """Notes each function of this package that is entered below the beginning of a leg."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Station] = {}
        self.local = threading.local()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(str(ROOT)):
            return
        stack: list[CodeType] = self.local.__dict__.setdefault("stack", [])
        if event == "call":
            stack.append(code)
            self._note(stack)
        elif event == "return" and stack and stack[-1] is code:
            stack.pop()

    def _note(self, stack: list[CodeType]) -> None:
        begin = next((place for place, code in enumerate(stack) if code.co_qualname in LEGS), None)
        if begin is None or not is_station(stack[-1]):
            return
        code, depth = stack[-1], sum(is_station(above) for above in stack[begin:])
        file = str(Path(code.co_filename).relative_to(ROOT))
        documented = code.co_consts and isinstance(code.co_consts[0], str)
        purpose = code.co_consts[0].strip().split("\n")[0] if documented else ""
        station = Station(stack[begin].co_qualname, depth, file, code.co_qualname, purpose)
        self.found.setdefault((file, code.co_qualname), station)


def is_station(code: CodeType) -> bool:
    name = code.co_qualname.split(".")[-1]
    if code.co_qualname in LEGS:
        return True
    private = name.startswith("_") and not name.endswith("__")
    helper = private or "<" in code.co_qualname or PASSED.match(str(Path(code.co_filename).relative_to(ROOT)))
    lines = {line for _, _, line in code.co_lines() if line is not None}
    return not helper and len(lines) - 1 >= SIZE


def walk(folder: Path) -> list[Station]:
    pairs = [(f"{number} a b", f"b a {number}") for number in range(60)]
    tracer = Tracer()
    threading.setprofile(tracer)
    sys.setprofile(tracer)
    try:
        fit(pairs, out=folder / "run", assignments=SETTINGS)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    order = list(LEGS)
    return sorted(tracer.found.values(), key=lambda station: order.index(station.leg))


def page(stations: list[Station]) -> str:
    files = sorted({station.file for station in stations})
    depth = max(station.depth for station in stations)
    lines = [
        "# The walk",
        "",
        f"One pair to the optimizer step: {len(stations)} functions in {len(files)} files, {depth} deep.",
        "",
        "Traced from a real step of an LSTM model by `tests/test_walk.py`, which also writes this page",
        "(`WRITE_WALK=1 make test ARGS=tests/test_walk.py`). Passed through without a word: functions of fewer than",
        "four lines, private helpers, and what only computes or keeps books (`core`, `models/functional.py` and",
        "`models/linear.py`).",
    ]
    leg = ""
    for station in stations:
        if station.leg != leg:
            leg = station.leg
            lines += ["", f"## {LEGS[leg]}", ""]
        purpose = f": {station.purpose}" if station.purpose else ""
        lines.append(f"{'    ' * (station.depth - 1)}- `{station.file}` **{station.name}**{purpose}")
    return "\n".join(lines) + "\n"


def structure(text: str) -> list[str]:
    return re.findall(r"^ *- `[^`]+` \*\*[^*]+\*\*", text, flags=re.M)


def test_walk_is_short_and_its_page_up_to_date(tmp_path: Path) -> None:
    stations = walk(tmp_path)
    if os.environ.get("WRITE_WALK"):
        PAGE.write_text(page(stations), encoding="utf-8")
    assert {station.leg for station in stations} == set(LEGS)
    assert len(stations) <= MOST_FUNCTIONS
    assert len({station.file for station in stations}) <= MOST_FILES
    assert max(station.depth for station in stations) <= MOST_DEPTH
    assert structure(PAGE.read_text(encoding="utf-8")) == structure(page(stations)), "WRITE_WALK=1 writes it anew"
