"""A model as ONNX graphs: `encoder.onnx` reads a source, `step.onnx` says the next token, `shared.onnx` has the weights
that are in both. A graph is loaded as its file with that of the shared weights behind it: such is the format."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from antiphon.core.errors import ConfigError, require
from antiphon.export.graphs import FACTS, EncoderGraph, StepGraph, example, exportable, most, plainly, state_names
from antiphon.inference.bundle import Bundle
from antiphon.inference.onnx_files import check
from antiphon.models.frontends import TextFrontend
from antiphon.models.heads import CopyHead, VocabularyHead
from antiphon.models.positions import Learned
from antiphon.models.seq2seq import Seq2Seq

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 17
STEP = ("tokens", "parents", "living", "ranks", "mask")
COPIES = ("copies", "more")
SAID = ("values", "ids", "weights", "log_probs")
READ = ("source", "lengths")
NEAR = 1e-3
"""By how much, and by what share of it, a number of a graph may be off."""


def convert(bundle: Bundle, *, quantize: Literal["none", "int8"] = "none") -> dict[str, bytes]:
    """The files of a model, by their names within a bundle; `ConfigError` where it cannot work.

    With int8 the matrices are integers with a scale for each row, and what they are multiplied with is rounded likewise
    for each hypothesis by itself, so that none changes what is said of another.
    """
    model = bundle.model
    _refuse(model)
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise require("onnx", "onnx") from None
    from antiphon.export.rewriting import integers, shared, tidy

    graphs = traced(exportable(model))
    for graph in graphs:
        tidy(graph)
        if quantize == "int8":
            integers(graph)
    both = shared(graphs)
    names = ("encoder", "step", "shared")
    files = {f"onnx/{name}.onnx": each.SerializeToString() for name, each in zip(names, (*graphs, both), strict=True)}
    for name, content in files.items():
        check(content, name)
    return {**files, "onnx/about.json": about(model, quantize)}


def _refuse(model: Seq2Seq) -> None:
    """What no graph is made of, by name."""
    if not isinstance(model.head, VocabularyHead):
        raise ConfigError("there is no ONNX export of answers that are numbers", got=f"model.head={model.config.head}")


def about(model: Seq2Seq, quantize: str) -> bytes:
    """What an engine must know besides the graphs."""
    told = {
        "format": 1, "quantize": quantize, "vocabulary": model.target_size, "candidates": most(exportable(model)),
        "copies": isinstance(model.head, CopyHead), "facts": model.graph is not None,
        "sources": _places(model.source) if isinstance(model.source, TextFrontend) else 0,
        "answers": _places(model.target),
    }  # fmt: skip
    return (json.dumps(told, indent=1, sort_keys=True) + "\n").encode()


def _places(frontend: nn.Module) -> int:
    table = getattr(frontend, "positions", None)
    return table.table.num_embeddings if isinstance(table, Learned) else 0


def traced(model: Seq2Seq) -> tuple[ModelProto, ModelProto]:
    """Both graphs of an exportable model; every size that differs between two examples is free in them."""
    with plainly():
        names = list(state_names(model))
        more = model.config.encoder.global_tokens  # a source is longer than what of it is looked at from everywhere
        first, second = example(model, 3, 7 + more, 2, 4), example(model, 2, 10 + more, 4, 6)
        moving = [name for name in names if not name.startswith("memory.")]
        copying = COPIES if isinstance(model.head, CopyHead) else ()
        read = (
            [*READ, *((*FACTS, "fact_lengths") if model.graph is not None else ())],
            ["mask", *([] if model.ctc is None else ["heard"]), *names],
        )
        say = [*STEP, *copying, *names], [*SAID, *(f"{name}.after" for name in moving)]
        several = first, second, example(model, 1, 4, 1, 1), example(model, 4, 19 + more, 3, 5)
        parts = (EncoderGraph(model).eval(), *read), (StepGraph(model, names).eval(), *say)
        encoder, step = (_traced(*part, [each[place] for each in several]) for place, part in enumerate(parts))
        return encoder, step


def _traced(
    module: nn.Module, inputs: Sequence[str], outputs: Sequence[str], several: Sequence[Sequence[Tensor]]
) -> Any:
    """A graph, tried on inputs of several sizes. Only the first two show which sizes are free."""
    from antiphon.export.rewriting import settle

    feeds = [{name: value.numpy() for name, value in zip(inputs, each, strict=True)} for each in several]
    try:
        graph = _trace(module, several[0], several[1], inputs, outputs)
        settle(graph, feeds)
        for feed, given in zip(feeds, several, strict=True):
            _verify(graph, feed, dict(zip(outputs, module(*given), strict=True)))
    except ConfigError:
        raise
    except Exception as error:  # of an exporter and an engine that have many, all of which say: not this network
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigError("there is no ONNX graph of this network that holds for all sizes", got=got) from None
    return graph


def _verify(graph: ModelProto, feed: Mapping[str, np.ndarray], right: Mapping[str, Tensor]) -> None:
    """Refuse a graph that says something else than what it was made of."""
    from antiphon.export.rewriting import run

    found = run(graph, feed, list(right))
    for name, values in right.items():
        same = name == "ids" or np.allclose(found[name], values.numpy(), rtol=NEAR, atol=NEAR)
        if found[name].shape != values.shape or not same:
            raise ConfigError("the graph of this network does not hold for inputs of other sizes", got=name)


def _trace(
    graph: nn.Module, first: Sequence[Tensor], second: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str]
) -> Any:
    import onnx

    pairs = [*zip(inputs, first, second, strict=True), *zip(outputs, graph(*first), graph(*second), strict=True)]
    free = {name: {axis: f"{name}_{axis}" for axis, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if a != b}
            for name, x, y in pairs}  # fmt: skip
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="antiphon-onnx-") as folder:
        path = Path(folder) / "graph.onnx"
        warnings.simplefilter("ignore")  # of what other sizes would change; `verify` tries these
        torch.onnx.export(
            graph, tuple(first), path, dynamo=False, input_names=list(inputs), output_names=list(outputs),
            dynamic_axes=free, opset_version=OPSET, do_constant_folding=False,
        )  # fmt: skip
        return onnx.load(path)
