"""Changes to ONNX graphs after they were traced: short names, matrices of integers, weights that two graphs share."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

LEAST = 1024
"""Numbers in the smallest matrix that is worth being made of integers, or that is worth being shared."""
LEVELS = 127
"""Of an integer weight, to either side of zero."""
ROUNDED = 63
"""Of what it is multiplied with: so two products always fit into the 16 bits that older processors add them up in."""
MIDDLE = 64
"""What stands for zero there, because products are fastest of unsigned with signed numbers."""
TINY = 1e-9
OWN = "com.microsoft"
SMALL = 8
"""Numbers of the largest tensor that is taken for one of sizes."""
ARITHMETIC = {
    "Add",
    "Cast",
    "Concat",
    "Div",
    "Gather",
    "Mod",
    "Mul",
    "Pow",
    "Reshape",
    "Slice",
    "Squeeze",
    "Sub",
    "Unsqueeze",
}


def settle(model: ModelProto, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Numbers that a graph would make of sizes, as constants where they are the same for all these inputs, which differ
    in all sizes that can; a third of the nodes are no more than that."""
    graph = model.graph
    made, known = _sizes(graph), {node.output[0] for node in graph.node if node.op_type == "Constant"}
    shaped = [node for node in graph.node if node.op_type == "Reshape" and node.input[1] in made]
    runs = [run(model, feed, [*made, *(node.input[0] for node in shaped)]) for feed in feeds]
    for node in graph.node:
        values = [values[node.output[0]] for values in runs] if node.output[0] in made - known else []
        if values and all(np.array_equal(values[0], other) for other in values):
            _become(node, values[0])
    for number, node in enumerate(shaped):
        found = _reshaped(node, runs) if node.op_type == "Reshape" else None
        if found is not None:
            node.input[1] = f"reshaped{number}"
            graph.initializer.append(numpy_helper.from_array(found, node.input[1]))
    alive(model)


def _sizes(graph: GraphProto) -> set[str]:
    """What is made of shapes and constants alone."""
    made: set[str] = set()
    constants = {tensor.name for tensor in graph.initializer if np.prod(tensor.dims) <= SMALL}
    for node in graph.node:
        small = node.op_type == "Constant" and np.prod(node.attribute[0].t.dims) <= SMALL
        derived = bool(node.input) and all(name in made | constants for name in node.input)
        if len(node.output) == 1 and (node.op_type == "Shape" or small or (derived and node.op_type in ARITHMETIC)):
            made.add(node.output[0])
    return made


def run(model: ModelProto, feed: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """These outputs, or whatever else a graph makes by that name, for an input."""
    import onnxruntime

    watched = ModelProto()
    watched.CopyFrom(model)
    there = {port.name for port in model.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted({*names} - there))
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.graph_optimization_level = 3, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    taken = {port.name: feed[port.name] for port in session.get_inputs()}
    names = list(dict.fromkeys(names))
    return dict(zip(names, session.run(names, taken), strict=True))


def _become(node: NodeProto, value: np.ndarray) -> None:
    node.CopyFrom(helper.make_node("Constant", [], list(node.output), value=numpy_helper.from_array(value)))


def _reshaped(node: NodeProto, runs: Sequence[dict[str, np.ndarray]]) -> np.ndarray | None:
    """The shape that a tensor is brought into, with 0 for sizes that stay, and -1 for one that follows from the others;
    None where that cannot be said for all inputs at once."""
    wanted = [values[node.input[1]] for values in runs]
    shapes = [values[node.input[0]].shape for values in runs]
    found = []
    for axis in range(len(wanted[0])):
        sizes = [int(each[axis]) for each in wanted]
        stays = all(axis < len(shape) and shape[axis] == size for shape, size in zip(shapes, sizes, strict=True))
        found.append(sizes[0] if len(set(sizes)) == 1 else 0 if stays else -1)
    return np.array(found) if found.count(-1) <= 1 else None


def alive(model: ModelProto) -> None:
    """Without nodes and weights that no output needs."""
    wanted = {port.name for port in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if wanted & {*node.output}:
            kept.append(node)
            wanted |= {name for each in _nodes([node]) for name in each.input}
    _replace(model.graph.node, kept[::-1])
    _replace(model.graph.initializer, [tensor for tensor in model.graph.initializer if tensor.name in wanted])


def tidy(model: ModelProto) -> None:
    """Short names, no notes of where a node came from, each weight once."""
    graph = model.graph
    kept = {port.name: port.name for port in (*graph.input, *graph.output)}
    names = {"": "", **kept}
    seen: dict[bytes, str] = {}
    weights = []
    for number, tensor in enumerate(graph.initializer):
        key = _key(tensor)
        if key not in seen:
            seen[key] = f"w{number}"
            weights.append(tensor)
        names[tensor.name] = seen[key]
    for tensor in weights:
        tensor.name = names[tensor.name]
    for node in _nodes(graph.node):
        node.ClearField("name")
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        for side in (node.input, node.output):
            for place, name in enumerate(side):
                side[place] = names.setdefault(name, f"v{len(names)}")
    _replace(graph.initializer, weights)
    graph.ClearField("value_info")
    graph.name, model.producer_name, model.producer_version = "antiphon", "antiphon", ""


def _nodes(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those within them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g.node)


def _key(tensor: TensorProto) -> bytes:
    """Equal for equal contents."""
    about = f"{tensor.data_type} {list(tensor.dims)}".encode()
    return hashlib.sha256(about + numpy_helper.to_array(tensor).tobytes()).digest()


def _replace(field: Any, items: Sequence[Any]) -> None:
    items = [*items]
    del field[:]
    field.extend(items)


def integers(model: ModelProto) -> None:
    """Large weights as int8 with a scale for each row; what multiplies by them multiplies integers."""
    Rewriting(model).run()


class Rewriting:
    """One graph while its weights become integers.

    A product x W' + b becomes (q Q') * scale_W * scale_x + b, with q the numbers of each row of x as shares of the
    largest of that row. So every row is rounded by itself: what else is in the batch changes nothing, unlike with one
    scale for all (`DynamicQuantizeLinear`).
    """

    def __init__(self, model: ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.nodes: list[NodeProto] = []
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.users: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                self.users[name].append(node)
        self.rounded: dict[str, tuple[str, str]] = {}
        self.turned: dict[str, tuple[str, str]] = {}
        self.turns: dict[str, str] = {}
        self.matrices: set[str] = set()
        self.whole: set[str] = set()
        self.count = 0

    def run(self) -> None:
        """Rewrite every node that reads a large weight."""
        large = [tensor for tensor in self.graph.initializer if self._is_large(tensor)]
        if not large:
            return
        names = {tensor.name for tensor in large}
        self.turns = {node.output[0]: node.input[0] for node in self.graph.node
                      if node.op_type == "Transpose" and node.input[0] in names}  # fmt: skip
        self._constants()
        for tensor in large:
            self._round(tensor)
            del self.weights[tensor.name]
        for node in self.graph.node:
            self._rewrite(node)
        _replace(self.graph.node, self.nodes)
        _replace(self.graph.initializer, list(self.weights.values()))
        alive(self.model)
        self.model.opset_import.append(helper.make_opsetid(OWN, 1))

    def _is_large(self, tensor: TensorProto) -> bool:
        return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2 and np.prod(tensor.dims) >= LEAST

    def _put(self, name: str, values: np.ndarray) -> str:
        self.weights[name] = numpy_helper.from_array(values, name)
        return name

    def _constants(self) -> None:
        self._put("tiny", np.array(TINY, np.float32))
        self._put("unit", np.array(1 / ROUNDED, np.float32))
        self._put("middle", np.array(MIDDLE, np.uint8))
        self._put("last", np.array([1]))

    def _round(self, tensor: TensorProto) -> None:
        """The weight as integers and a scale a row: all that is not the last axis, or of a convolution the first."""
        values = numpy_helper.to_array(tensor)
        convolution = any(node.op_type == "Conv" for node in self.users[tensor.name])
        axes = tuple(range(1, values.ndim)) if convolution else (values.ndim - 1,)
        scale = np.maximum(np.abs(values).max(axis=axes, keepdims=True), TINY) / LEVELS
        self._put(f"{tensor.name}.int", np.round(values / scale).astype(np.int8))
        self._put(f"{tensor.name}.scale", scale.astype(np.float32))
        if values.ndim == 2:
            self.matrices.add(tensor.name)

    def _add(self, kind: str, inputs: Sequence[str], output: str = "", domain: str = "", **attributes: Any) -> str:
        self.count += 1
        output = output or f"i{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def _rewrite(self, node: NodeProto) -> None:
        matrix = self._matrix(node)
        if matrix:
            self._multiply(node, matrix)
        elif node.op_type == "Gather" and node.input[0] in self.matrices and not _axis(node):
            self._look_up(node)
        else:
            for place, name in enumerate(node.input):
                if f"{name}.int" in self.weights:
                    node.input[place] = self._as_it_was(name)
            self.nodes.append(node)

    def _matrix(self, node: NodeProto) -> str:
        """The weight that a node multiplies by from the right, `[out, in]`; "" if there is none."""
        if node.op_type == "MatMul":
            name = self.turns.get(node.input[1], "")
            return name if name in self.matrices else ""
        plain = _attribute(node, "transB", 0) and _attribute(node, "alpha", 1) == _attribute(node, "beta", 1) == 1
        return str(node.input[1]) if node.op_type == "Gemm" and plain and node.input[1] in self.matrices else ""

    def _multiply(self, node: NodeProto, matrix: str) -> None:
        rounded, largest = self._rows(node.input[0])
        if matrix not in self.turned:
            turned = self._add("Transpose", [f"{matrix}.int"], perm=[1, 0])
            self.turned[matrix] = turned, self._add("Squeeze", [f"{matrix}.scale", "last"])
        turned, scale = self.turned[matrix]
        inputs = [rounded, turned, "unit", scale, "middle"]
        made = self._add("MatMulIntegerToFloat", inputs, domain=OWN)
        if node.op_type == "MatMul" or len(node.input) < 3:
            self._add("Mul", [made, largest], node.output[0])
        else:
            self._add("Add", [self._add("Mul", [made, largest]), node.input[2]], node.output[0])

    def _rows(self, name: str) -> tuple[str, str]:
        """A tensor as integers, and the largest number of each of its rows."""
        if name not in self.rounded:
            largest = self._add("ReduceMax", [self._add("Abs", [name])], axes=[-1], keepdims=1)
            largest = self._add("Max", [largest, "tiny"])
            share = self._add("Div", [name, largest])
            self.rounded[name] = self._add("QuantizeLinear", [share, "unit", "middle"]), largest
        return self.rounded[name]

    def _look_up(self, node: NodeProto) -> None:
        table, places = node.input
        rows = self._add("Cast", [self._add("Gather", [f"{table}.int", places])], to=TensorProto.FLOAT)
        self._add("Mul", [rows, self._add("Gather", [f"{table}.scale", places])], node.output[0])

    def _as_it_was(self, name: str) -> str:
        """The weight in floating point again, which an engine makes once when it loads the graph."""
        if name not in self.whole:
            self.whole.add(name)
            self._add("Mul", [self._add("Cast", [f"{name}.int"], to=TensorProto.FLOAT), f"{name}.scale"], name)
        return name


def _attribute(node: NodeProto, name: str, default: float) -> float:
    found = [helper.get_attribute_value(each) for each in node.attribute if each.name == name]
    return found[0] if found else default


def _axis(node: NodeProto) -> int:
    return int(_attribute(node, "axis", 0))


def shared(graphs: Sequence[ModelProto]) -> ModelProto:
    """What is in both graphs, taken out of them: a model of weights alone. Put behind the bytes of either it is part of
    that, for in the format of ONNX (protocol buffers) messages in a row are one, their lists joined."""
    first, second = ({_key(tensor): tensor for tensor in graph.graph.initializer} for graph in graphs)
    both = [key for key, tensor in first.items() if key in second and np.prod(tensor.dims) >= LEAST]
    names = {key: f"shared{number}" for number, key in enumerate(both)}
    result = ModelProto()
    for key, name in names.items():
        tensor = TensorProto()
        tensor.CopyFrom(first[key])
        tensor.name = name
        result.graph.initializer.append(tensor)
    for graph, mine in zip(graphs, (first, second), strict=True):
        _rename(graph, {mine[key].name: name for key, name in names.items()})
    return result


def _rename(model: ModelProto, names: dict[str, str]) -> None:
    """Initializers by their new names, and without these as they are elsewhere."""
    for node in _nodes(model.graph.node):
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
    _replace(model.graph.initializer, [tensor for tensor in model.graph.initializer if tensor.name not in names])


def joined(graph: bytes, weights: bytes) -> ModelProto:
    """A graph with its shared weights, checked by ONNX."""
    model = onnx.load_from_string(graph + weights)
    onnx.checker.check_model(model)
    return model
