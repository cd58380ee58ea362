"""What a model for CTranslate2 consists of: which networks can be one, what it must know, and whether a file is one.

`model.bin` is a table of named arrays. It is read by code in C++, so all of it is checked first: every name, type,
size and number that the configuration makes is there, and nothing else.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from antiphon.core.config import SIGNALS, Config
from antiphon.core.errors import BundleError
from antiphon.core.marks import BOS, EOS, UNK
from antiphon.inference.task import Task

MODEL, SHORTLIST = "model.bin", "vmap.txt"
TABLED = ("none", "sinusoidal", "learned")
"""Kinds of positions that are a table of vectors to add; nothing but zeros where there are none."""
POSITIONS = 1024
"""Fewest positions that are tabled where nothing says how long a source can be."""


def obstacles(config: Config) -> list[str]:
    """The settings of a network that CTranslate2 has nothing for."""
    model, data = config.model, config.data
    wrong = {
        f"data.source.kind={data.source.kind}": data.source.kind in SIGNALS,
        f"data.target.kind={data.target.kind}": data.target.kind == "numbers",
        f"model.encoder.kind={model.encoder.kind}": model.encoder.kind != "transformer",
        f"model.decoder.kind={model.decoder.kind}": model.decoder.kind != "transformer",
        f"model.attention={model.attention}": model.attention != "multihead",
        f"model.head={model.head}": model.head not in (None, "vocabulary"),
        f"model.encoder.window={model.encoder.window}": bool(model.encoder.window),
        f"model.knowledge.kind={model.knowledge.kind}": model.knowledge.kind == "graph",
        "model.ctc=true": bool(model.ctc),
        "model.residual=false": not model.residual,
        "model.feedforward=0": not model.feedforward,
        f"model.norm={model.norm}": model.norm not in ("pre", "post"),
        f"model.activation={model.activation}": model.activation not in ("relu", "gelu", "tanh", "swiglu"),
        "model.positions=alibi": model.positions == "alibi",
        f"model.positions=rotary with heads of {(model.width or 0) // model.heads} features":
            model.positions == "rotary" and (model.width or 0) // model.heads % 2 == 1,
    }  # fmt: skip
    return [name for name, found in wrong.items() if found]


def positions(config: Config, task: Task) -> tuple[int, int]:
    """The longest source and answer, begin or end mark included, whose positions are tabled."""
    if config.model.positions == "learned":
        return config.model.max_positions, config.model.max_positions
    source = config.data.source.max_length or max(POSITIONS, 2 * task.length.longest)
    return source, max(POSITIONS, task.limit(source) + 1)


def described(config: Config, task: Task) -> dict[str, bytes]:
    """What CTranslate2 must know besides the weights. Tokens are ids in decimal, so none can be taken for another."""
    about = {"bos_token": str(BOS), "eos_token": str(EOS), "unk_token": str(UNK), "decoder_start_token": str(BOS),
             "add_source_bos": False, "add_source_eos": False,
             "layer_norm_epsilon": 1e-6 if config.model.norm_kind == "rms" else 1e-5}  # fmt: skip
    words = {f"{side}_vocabulary.json": [str(number) for number in range(size)]
             for side, size in (("source", task.source.size), ("target", task.target.size))}  # fmt: skip
    return {"config.json": json.dumps(about).encode(), **{name: json.dumps(w).encode() for name, w in words.items()}}


@dataclass(frozen=True)
class Variable:
    """One array of a model: its shape, type (an index of `TYPES`), if it is a single number that, and whether it is
    another name of an array that is there already."""

    shape: tuple[int, ...]
    kind: int
    number: float | None = None
    again: bool = False


TYPES = (("f", 4), ("b", 1), ("h", 2), ("i", 4), ("e", 2), ("H", 2))
"""Formats and bytes of fp32, int8, int16, int32, fp16 and bf16."""


class _Reader:
    """Goes through the bytes of a file, and never beyond its end."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def bytes(self, size: int) -> memoryview:
        if size > len(self.content) - self.at:
            raise BundleError("is cut off", where=MODEL)
        self.at += size
        return memoryview(self.content)[self.at - size : self.at]

    def number(self, kind: str) -> int:
        return int.from_bytes(self.bytes(struct.calcsize(kind)), "little")

    def name(self) -> str:
        return bytes(self.bytes(self.number("H"))).rstrip(b"\0").decode("ascii", "replace")


def variables(content: bytes) -> dict[str, Variable]:
    """All arrays of a model by name, aliases resolved; a `BundleError` where they do not fill the file exactly."""
    reader = _Reader(content)
    if (reader.number("I"), reader.name()) != (6, "TransformerSpec"):
        raise BundleError("is no Transformer of CTranslate2, or of another version of its format", where=MODEL)
    reader.number("I")
    found: dict[str, Variable] = {}
    for _ in range(reader.number("I")):
        name, rank = reader.name(), reader.number("B")
        shape = tuple(reader.number("I") for _ in range(rank))
        kind, size = reader.number("B"), reader.number("I")
        if name in found or kind >= len(TYPES) or size != math.prod(shape) * TYPES[kind][1]:
            raise BundleError("describes an array in a way that cannot be", where=MODEL, got=repr(name[:60]))
        values = reader.bytes(size)
        found[name] = Variable(shape, kind, None if shape else struct.unpack("<" + TYPES[kind][0], values)[0])
    for _ in range(reader.number("I")):
        alias, name = reader.name(), reader.name()
        if alias in found or name not in found:
            raise BundleError("names an array in a way that cannot be", where=MODEL, got=repr(alias[:60]))
        found[alias] = replace(found[name], again=True)
    if reader.at != len(content):
        raise BundleError("has something after its end", where=MODEL)
    return found


def check_model(files: Mapping[str, bytes], config: Config, task: Task) -> str:
    """The precision of a model, fp32 or int8, once it is known to be what the configuration makes."""
    if wrong := obstacles(config):
        raise BundleError("a network that CTranslate2 does not have", where=MODEL, got=", ".join(wrong))
    if strange := set(files) - {MODEL, SHORTLIST, *described(config, task)}:
        raise BundleError("a file that no model for CTranslate2 has", got=min(strange))
    if MODEL not in files:
        raise BundleError("the file is missing", where=MODEL)
    found, expected = variables(files[MODEL]), dict(_expected(config, task))
    int8 = any(name.endswith("/weight_scale") for name in found)
    if int8:
        own = {name: each.shape for name, each in found.items() if name.endswith("/weight") and not each.again}
        expected |= {f"{name}_scale": shape[:1] for name, shape in own.items()}
    told = {name: each.shape or (each.number or 0) for name, each in found.items()}
    if told != expected:
        name = min(name for name in told.keys() | expected.keys() if told.get(name) != expected.get(name))
        got = f"{name[:60]}: {told.get(name)}, the configuration makes {expected.get(name)}"
        raise BundleError("does not fit the configuration", where=MODEL, got=got)
    for name, each in found.items():
        if each.shape and each.kind != (1 if int8 and name.endswith("/weight") else 0):
            raise BundleError("has numbers of the wrong type", where=MODEL, got=name)
    return "int8" if int8 else "fp32"


_Shapes = Iterator[tuple[str, tuple[int, ...] | float]]


def _expected(config: Config, task: Task) -> _Shapes:
    """The shape of every array, and the value of every single number."""
    model = config.model
    width = model.width or 0
    yield "decoder/projection/weight", (task.target.size, width)
    yield "decoder/projection/bias", (task.target.size,)
    yield "encoder/embeddings_0/weight", (task.source.size, width)
    yield "decoder/embeddings/weight", (task.target.size, width)
    for name in ("alibi", "alibi_use_positive_positions", "scale_alibi", "start_from_zero_embedding"):
        yield f"decoder/{name}", 0
    yield from (("decoder/alignment_layer", -1), ("decoder/alignment_heads", model.heads))
    yield from (("encoder/embeddings_merge", 0), ("encoder/multi_query_attention", 0))
    activation = {"relu": 0, "swiglu": 2, "gelu": 3, "tanh": 5}[str(model.activation)]
    for side, layers, longest in zip(
        ("encoder", "decoder"), (model.encoder.layers, model.decoder.layers), positions(config, task), strict=True
    ):
        yield from ((f"{side}/activation", activation), (f"{side}/num_heads", model.heads))
        yield from ((f"{side}/pre_norm", int(model.norm == "pre")), (f"{side}/scale_embeddings", 1))
        if model.positions in TABLED:
            yield f"{side}/position_encodings/encodings", (longest, width)
        if model.norm == "pre":
            yield from _norm(f"{side}/layer_norm", config)
        for number in range(layers or 0):
            yield from _layer(f"{side}/layer_{number}", config, side == "decoder")


def _layer(name: str, config: Config, looks: bool) -> _Shapes:
    model = config.model
    width, inner = model.width or 0, model.feedforward or 0
    mixer, gates = f"{name}/self_attention", ("linear_0", "linear_0_noact")
    products = {f"{mixer}/linear_0": (3 * width, width), f"{mixer}/linear_1": (width, width)}
    products |= {f"{name}/ffn/{gate}": (inner, width) for gate in gates[: 1 + (model.activation == "swiglu")]}
    products[f"{name}/ffn/linear_1"] = (width, inner)
    norms = [mixer, f"{name}/ffn"]
    if looks:
        for number, rows in enumerate((width, 2 * width, width)):
            products[f"{name}/attention/linear_{number}"] = (rows, width)
        norms.append(f"{name}/attention")
    for product, shape in products.items():
        yield from ((f"{product}/weight", shape), (f"{product}/bias", shape[:1]))
    for block in norms:
        yield from _norm(f"{block}/layer_norm", config)
    if model.positions == "t5":
        yield from ((f"{mixer}/relative_attention_bias", (32, model.heads)),
                    (f"{mixer}/relative_attention_max_distance", 128))  # fmt: skip
    if model.positions == "rotary":
        yield from ((f"{mixer}/rotary_dim", width // model.heads), (f"{mixer}/rotary_interleave", 0),
                    (f"{mixer}/rotary_base", 10000))  # fmt: skip


def _norm(name: str, config: Config) -> _Shapes:
    yield f"{name}/gamma", (config.model.width or 0,)
    if config.model.norm_kind == "layer":
        yield f"{name}/beta", (config.model.width or 0,)
