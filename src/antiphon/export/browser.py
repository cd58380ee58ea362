"""A model as static files: a page that answers in the browser by ONNX graphs, and fetches nothing from elsewhere.

What reads text and searches there is JavaScript in `page/`, beside parts of the server's page.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import antiphon
from antiphon.core.config import Decoding
from antiphon.core.errors import AntiphonError, ConfigError
from antiphon.data.modalities import Text
from antiphon.data.tokenizers import ACCENTS, Subword
from antiphon.export import placing
from antiphon.inference.bundle import Bundle
from antiphon.inference.hypothesis import BEAM
from antiphon.inference.tags import values_of

VERSION = "1.30.0"
"""Of onnxruntime-web: the one that the tests run."""
PACKAGE = "onnxruntime-web"
RUNTIME = Path("node_modules") / PACKAGE
"""Where npm puts it."""
NEEDED = ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm", "package.json")
MODEL = "model/model.json"

HERE = Path(__file__).parent / "page"
THERE = Path(antiphon.__file__).parent / "serving" / "page"
SHARED = (
    "alignment.js", "answer.js", "dom.js", "heat.js", "icon.svg", "inside.css", "knobs.js", "lines.js", "look.js",
    "looks.js", "source.js", "state.js", "style.css", "theme.js", "words.js",
)  # fmt: skip
"""Parts of the server's page that this one has too."""
SETTINGS = (
    "beam", "length_penalty", "coverage_penalty", "n_best", "thorough", "no_repeat", "min_length", "max_length"
)  # fmt: skip
"""Settings that it knows."""


def refuse(bundle: Bundle, place: str = "a browser") -> None:
    """`ConfigError` with the names of all that a browser, or another place without Python, cannot do."""
    config, task = bundle.config, bundle.task
    data, decoding = config.data, config.decoding
    wrong = {
        f"data.source.kind={data.source.kind}": not isinstance(task.source, Text),
        f"data.target.kind={data.target.kind}": not isinstance(task.target, Text),
        "data.source.tokenizer=chinese": data.source.tokenizer == "chinese",
        f"model.knowledge.kind={task.knowledge}": task.knowledge != "none",
        "dialogues": bool(task.turns),
        **_unsearchable(decoding),
    }
    if found := [name for name, is_so in wrong.items() if is_so]:
        do = "change these, or export it --to onnx and let `antiphon serve` answer"
        raise ConfigError(f"there is nothing in {place} for this", where="export", got=", ".join(found), do=do)


def _unsearchable(decoding: Decoding) -> dict[str, bool]:
    return {
        "decoding.sample": decoding.sample,
        "decoding.groups": decoding.groups > 1,
        "decoding.ctc": bool(decoding.ctc),
        "decoding.refill": decoding.refill and (decoding.beam or BEAM) > 1,
        "decoding.risk": bool(decoding.risk),
        "decoding.abstain": bool(decoding.abstain),
    }


def runtime(folder: Path) -> dict[str, bytes]:
    """What the page needs of onnxruntime-web, from its npm package.

    Raises `AntiphonError` with the command that installs it where it is not there, or is of another version.
    """
    do = f"type: npm install {PACKAGE}@{VERSION}, or name its folder with --runtime"
    try:
        about = json.loads((folder / "package.json").read_bytes())
        files = {f"onnxruntime/{Path(name).name}": (folder / name).read_bytes() for name in NEEDED}
    except (OSError, ValueError):
        raise AntiphonError(f"this needs the npm package {PACKAGE}", where=folder, do=do) from None
    found = [about.get(name) if isinstance(about, dict) else None for name in ("name", "version")]
    if found != [PACKAGE, VERSION]:
        got = " ".join(str(each) for each in found)
        raise AntiphonError(f"this needs {PACKAGE} {VERSION}", where=folder, got=got, do=do)
    return files


def room(out: Path | str) -> Path:
    """The path of a page that is to be written. Raises `BundleError` where anything but a page would be lost."""
    return placing.room(
        out, "a page", MODEL, {*SHARED, *(path.name for path in HERE.glob("*.*")), "model", "onnxruntime"}
    )


def write(bundle: Bundle, graphs: Mapping[str, bytes], engine: Mapping[str, bytes], out: Path) -> int:
    """Write the page: graphs and their description by their names in a bundle, what runs them, and all that is around.

    Returns the bytes of all files. Raises `BundleError` where something else is there, or the disk fails.
    """
    room(out)
    models = {f"model/{Path(name).name}": content for name, content in graphs.items() if name.endswith(".onnx")}
    about = described(bundle, json.loads(graphs["onnx/about.json"]))
    about["files"] = {Path(name).name: len(content) for name, content in models.items()}
    page = {path.name: path.read_bytes() for path in sorted(HERE.glob("*.*"))}
    page |= {name: (THERE / name).read_bytes() for name in SHARED}
    return placing.write({**page, **models, **engine, MODEL: json.dumps(about, ensure_ascii=False).encode()}, out)


def described(bundle: Bundle, graphs: Mapping[str, Any]) -> dict[str, Any]:
    """All that the page must know of a model besides its graphs (`graphs` is what an engine is told of them)."""
    task = bundle.task
    card = bundle.manifest.get("card") or {}
    assert isinstance(task.source, Text)
    source, target = side(task.source), side(task.words)
    if task.shared:  # what is the same is there once
        target = {name: value for name, value in target.items() if source[name] != value}
    return {
        "format": 1,
        "antiphon": antiphon.__version__,
        "name": str(card.get("name", bundle.config.task)),
        "source": source,
        "target": target,
        "shared": task.shared,
        "copy": task.copy,
        "context": list(task.context),
        "values": values_of(task.source.vocabulary.tokens, task.context),
        "length": asdict(task.length),
        "decoding": how(bundle.config.decoding),
        "graphs": {name: graphs[name] for name in ("vocabulary", "candidates", "copies", "sources", "answers")},
    }


def how(decoding: Decoding) -> dict[str, Any]:
    """What the search in the browser is told."""
    return {name: getattr(decoding, name) for name in SETTINGS} | {"length_penalty": decoding.penalty}


def side(text: Text) -> dict[str, Any]:
    """How one side becomes ids."""
    found: dict[str, Any] = {
        "kind": text.tokenizer.kind,
        "normalize": text.side.normalize,
        "lowercase": text.side.lowercase,
        "spaces": text.side.spaces,
        "max_length": text.side.max_length,
        "too_long": text.too_long,
        "strange": strange(),
        "vocabulary": list(text.vocabulary.tokens),
    }
    if isinstance(text.tokenizer, Subword):
        scores = text.tokenizer.scores
        found |= {"pieces": list(scores), "scores": [float(str(np.float32(score))) for score in scores.values()]}
    if text.tokenizer.kind == "word":
        found["classes"] = classes()
    return found


@cache
def strange() -> str:
    """The characters that this Python does not know, and so leaves as they are."""
    return ranges(lambda one: unicodedata.category(one) == "Cn")


@cache
def classes() -> dict[str, str]:
    """What this Python takes for letters, digits and so on: browsers know other versions of Unicode."""
    tests: dict[str, Callable[[str], bool]] = {
        "letters": str.isalpha,
        "digits": str.isdecimal,
        "others": lambda one: one.isalnum() and not one.isalpha() and not one.isdecimal(),
        "accents": set(ACCENTS).__contains__,
    }
    return {name: ranges(test) for name, test in tests.items()}


def ranges(test: Callable[[str], bool]) -> str:
    """The characters of which this is true, as they stand between the brackets of a regular expression."""
    found: list[tuple[int, int]] = []
    for code in filter(lambda code: test(chr(code)), range(sys.maxunicode + 1)):
        if found and found[-1][1] == code - 1:
            found[-1] = found[-1][0], code
        else:
            found.append((code, code))
    return "".join(f"\\u{{{first:x}}}" + (f"-\\u{{{last:x}}}" if last > first else "") for first, last in found)
