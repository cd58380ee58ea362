"""Whether a file is a graph that may be run: known operators on weights that it brings along, and nothing else.

ONNX files are protocol buffers, of which a few fields are read here, so that the package `onnx` need not be installed.
"""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.core.errors import BundleError

GRAPH = 7
"""The field of a model that is its graph; the others that a model of ours has are its version and the operators'."""
MODEL = {1, 2, 3, 4, 5, 6, GRAPH, 8, 14}
NODE, INITIALIZER = 1, 5
PARTS = {NODE, 2, INITIALIZER, 11, 12, 13}
"""Of a graph: nodes, name, weights, inputs, outputs, types. Other fields hold weights of other kinds."""
OPERATOR, ATTRIBUTE, DOMAIN = 4, 5, 7
TENSOR = 5
PLAIN = {1, 2, 3, 4, TENSOR, 7, 8, 9, 20}
"""Of an attribute: what is no graph and no list of tensors."""
HERE = {1, 2, 4, 5, 7, 8, 9, 10, 11}
"""Of a tensor: its shape, type, name and numbers; others say in which file the numbers are."""
DOMAINS = {"", "ai.onnx", "com.microsoft"}
OPERATORS = {
    "Abs", "Add", "And", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "Cos", "Div", "Equal",
    "Erf", "Exp", "Expand", "Flatten", "GRU", "Gather", "GatherElements", "GatherND", "Gemm", "Greater",
    "GreaterOrEqual", "Identity", "InstanceNormalization", "LSTM", "LayerNormalization", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "LogSoftmax", "MatMul", "MatMulIntegerToFloat", "Max", "Min", "Mod", "Mul", "Neg", "Not",
    "OneHot", "Or", "Pad", "Pow", "QuantizeLinear", "RNN", "Range", "Reciprocal", "ReduceMax", "ReduceMean",
    "ReduceSum", "Relu", "Reshape", "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sin", "Slice", "Softmax",
    "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where",
}  # fmt: skip
"""What our graphs are made of."""

Value = int | memoryview


def check(content: bytes, where: str) -> None:
    """Raise `BundleError` unless the file is a graph that may be run."""
    try:
        for number, value in _fields(memoryview(content)):
            _within(number, MODEL, "a model", where)
            if number == GRAPH:
                _check_graph(value, where)
    except (ValueError, TypeError):
        raise BundleError("is damaged, or no graph at all", where=where) from None


def _check_graph(graph: Value, where: str) -> None:
    for number, value in _fields(graph):
        _within(number, PARTS, "a graph", where)
        if number == NODE:
            _check_node(value, where)
        elif number == INITIALIZER:
            _check_tensor(value, where)


def _check_node(node: Value, where: str) -> None:
    for number, value in _fields(node):
        known = {OPERATOR: OPERATORS, DOMAIN: DOMAINS}.get(number)
        if known is not None and _text(value) not in known:
            raise BundleError("has an operator that no graph of ours has", where=where, got=repr(_text(value)[:60]))
        if number == ATTRIBUTE:
            for part, inner in _fields(value):
                _within(part, PLAIN, "an attribute", where)
                if part == TENSOR:
                    _check_tensor(inner, where)


def _check_tensor(tensor: Value, where: str) -> None:
    for number, _ in _fields(tensor):
        _within(number, HERE, "a weight", where)


def _within(number: int, allowed: set[int], what: str, where: str) -> None:
    if number not in allowed:
        raise BundleError(f"has {what} with more to it than a graph may have", where=where, got=f"field {number}")


def _text(value: Value) -> str:
    if isinstance(value, int):
        raise TypeError("not a text")
    return bytes(value).decode("ascii")


def _fields(message: Value) -> Iterator[tuple[int, Value]]:
    """Numbers and values of a protocol buffer; `ValueError` where it is none."""
    if isinstance(message, int):
        raise TypeError("not a message")
    at = 0
    while at < len(message):
        key, at = _number(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _number(message, at)
            yield key >> 3, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError("unknown kind of field")
        size, at = _number(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if size > len(message) - at:
            raise ValueError("cut off")
        yield key >> 3, message[at : at + size]
        at += size


def _number(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("cut off")
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
