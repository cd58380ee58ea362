"""A model as one ExecuTorch program for phones: its method `encode` reads a source, `step` says the next token.

One sentence at a time. Axes: N hypotheses, L those that live, S source, V vocabulary, C candidates.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from antiphon.core.config import Decoding
from antiphon.core.errors import ConfigError, require
from antiphon.export import browser, placing
from antiphon.export.graphs import EncoderGraph, StepGraph, example, exportable, most, plainly, state_names
from antiphon.export.onnx import COPIES, READ, SAID, STEP, about
from antiphon.inference.bundle import Bundle
from antiphon.inference.hypothesis import BEAM, Constraint, Hypothesis, check
from antiphon.inference.light import Search, Task
from antiphon.inference.on_onnxruntime import ROOM
from antiphon.models.frontends import TextFrontend
from antiphon.models.heads import CopyHead
from antiphon.models.linear import Linear
from antiphon.models.seq2seq import Seq2Seq

if TYPE_CHECKING:
    from antiphon.inference.engines import Asked

PROGRAM, MODEL = "model.pte", "model.json"
MOST, CANDIDATES, SOURCE = 8, 64, 256
"""Most hypotheses, candidates of a step, and tokens of a source where a model says nothing of it: a program's memory is
planned for these."""
OTHERS = "others"
"""Sizes that nothing else is said of are columns of a cache."""
FIRST, SECOND = (8, 3, 4), (11, 5, 6)
"""Two examples, by source tokens, hypotheses and steps: the sizes that differ between them are free in a program."""
TINY = 1e-9
LEVELS = 127


def refuse(bundle: Bundle) -> None:
    """`ConfigError` with the names of all that has no program."""
    browser.refuse(bundle, "an ExecuTorch program")
    model, beam = bundle.config.model, bundle.config.decoding.beam or BEAM
    kinds = {"encoder": model.encoder.kind, "decoder": model.decoder.kind}
    if recurrent := [f"model.{side}.kind={kind}" for side, kind in kinds.items() if kind in ("rnn", "lstm", "gru")]:
        do = "lighten it, or train layers of another kind, or export it --to onnx"
        raise ConfigError("an ExecuTorch program has no recurrent layers", got=", ".join(recurrent), do=do)
    if beam > MOST:
        do = f"set decoding.beam to {MOST} or less"
        raise ConfigError("an ExecuTorch program has room for fewer hypotheses", got=f"decoding.beam={beam}", do=do)


def room(out: Path | str) -> Path:
    """The path that is to be written. Raises `BundleError` where anything but an earlier export would be lost."""
    return placing.room(out, "an export for phones", PROGRAM, (PROGRAM, MODEL))


def write(bundle: Bundle, program: Program, out: Path) -> int:
    """Write the program and its description; the bytes of both."""
    graphs = json.loads(about(bundle.model, "none"))
    limits = {"source": program.longest, "beam": MOST, "answer": program.answer, "columns": columns(program.answer)}
    told = browser.described(bundle, graphs | {"candidates": min(CANDIDATES, graphs["candidates"])}) | {
        "inputs": program.inputs,
        "outputs": program.outputs,
        "limits": limits,
    }
    text = json.dumps(told, ensure_ascii=False, indent=1) + "\n"
    return placing.write({PROGRAM: program.content, MODEL: text.encode()}, out)


@dataclass(frozen=True)
class Program:
    """A `.pte` file, and for each of its methods the names of what goes in and comes out, in order."""

    content: bytes
    inputs: Mapping[str, Sequence[str]]
    outputs: Mapping[str, Sequence[str]]
    longest: int
    """Tokens of the longest source."""
    answer: int
    """Tokens of the longest answer, its end mark included."""


def convert(bundle: Bundle, *, quantize: Literal["none", "int8"] = "none") -> Program:
    """The program of a model; `ConfigError` where it cannot work.

    With int8 the matrices are integers with a scale for each row, and what they are multiplied with is rounded row by
    row as well, so that no hypothesis changes what is said of another.
    """
    refuse(bundle)
    try:
        with _quiet():
            import executorch.exir  # noqa: F401
    except ImportError:
        raise require("mobile", "executorch") from None
    model = exportable(bundle.model)
    model.ctc = None  # what a program says is searched for without
    names, longest = list(state_names(model)), bundle.config.data.source.max_length or SOURCE
    answer = 1 + (bundle.config.decoding.max_length or bundle.task.limit(longest))
    says = [*STEP, *(COPIES if isinstance(model.head, CopyHead) else ()), *names]
    moved = [f"{name}.after" for name in names if not name.startswith("memory.")]
    inputs = {"encode": list(READ), "step": says}
    outputs = {"encode": ["mask", *names], "step": [*SAID, *moved]}
    with plainly(), _quiet():
        more = model.config.encoder.global_tokens
        several = [example(model, 1, length + more, beam, steps) for length, beam, steps in (FIRST, SECOND)]
        if quantize == "int8":
            round_off(model)
        methods = {"encode": EncoderGraph(model).eval(), "step": StepGraph(model, names).eval()}
        sizes = _bounds(longest + 1, more, most(model), columns(answer))
        try:
            content = _lowered(
                {name: _exported(method, inputs[name], [each[place] for each in several], sizes)
                 for place, (name, method) in enumerate(methods.items())}
            )  # fmt: skip
        except Exception as error:  # of an exporter that has many, all of which say: not this network
            got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ConfigError("there is no ExecuTorch program of this network", where="export", got=got) from None
    return Program(content, inputs, outputs, longest, answer)


def columns(answer: int) -> int:
    """Most columns of a cache, for answers of so many tokens."""
    return MOST * answer + ROOM


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells its own makers."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _bounds(longest: int, more: int, candidates: int, columns: int) -> dict[Any, int]:
    """The largest that a size may be, by its two values in the examples, or by what it is of."""
    (length, beam, _), (other, wide, _) = FIRST, SECOND
    sizes = {(length + more, other + more): longest, (beam, wide): MOST, (beam - 1, wide - 1): MOST}
    return {**sizes, "ranks": min(CANDIDATES, candidates), "more": longest, OTHERS: columns}


def _exported(
    module: nn.Module, names: Sequence[str], several: Sequence[Sequence[Tensor]], sizes: Mapping[Any, int]
) -> Any:
    """The graph of a method, with every size free that differs, and the number of candidates."""
    from torch.export import Dim, export

    def free(name: str, one: Tensor, other: Tensor) -> dict[int, Any]:
        pairs = enumerate(zip(one.shape, other.shape, strict=True))
        moving = {axis: pair for axis, pair in pairs if pair[0] != pair[1] or name == "ranks"}
        return {
            axis: Dim.AUTO(min=1, max=sizes.get(name, sizes.get(pair, sizes[OTHERS]))) for axis, pair in moving.items()
        }

    first, second = several
    shapes = [free(*each) for each in zip(names, first, second, strict=True)]
    own = len(READ) if isinstance(module, EncoderGraph) else len(STEP)
    dynamic = (*shapes[:own], tuple(shapes[own:])) if len(shapes) > own else tuple(shapes)
    return export(module, tuple(first), dynamic_shapes=dynamic, strict=False)


def _lowered(methods: Mapping[str, Any]) -> bytes:
    """One program of several graphs, their matrix products by XNNPACK."""
    from executorch.backends.xnnpack.partition.config.gemm_configs import AddmmConfig, LinearConfig, MMConfig
    from executorch.backends.xnnpack.partition.config.generic_node_configs import BMMConfig
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    # Products alone: given a softmax too, the partitioner makes parts that hand on what they were given, and fails.
    products = [LinearConfig, AddmmConfig, MMConfig, BMMConfig]
    partitioner = {name: [XnnpackPartitioner(configs=products)] for name in methods}
    lowered = to_edge_transform_and_lower(dict(methods), partitioner=partitioner)
    return bytes(lowered.to_executorch().buffer)


# Rounding


class Bytes(nn.Module):
    """An embedding whose rows are bytes with a scale each."""

    table: Tensor
    scale: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.num_embeddings = embedding.num_embeddings
        weight = embedding.weight.detach()
        scale = weight.abs().amax(1, keepdim=True).clamp_min(TINY) / LEVELS
        self.register_buffer("table", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of these ids, one axis more than they have."""
        rows = ids.reshape(-1)
        found = self.table.index_select(0, rows).float() * self.scale.index_select(0, rows)
        return found.view(*ids.shape, -1)


def round_off(model: Seq2Seq) -> None:
    """In place: matrices as int8 with a scale a row, what is multiplied with them rounded row by row when it is."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerAxis

    how = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0))
    head, tables = model.words, dict[int, Bytes]()
    for frontend in (model.source, model.target):
        if isinstance(frontend, TextFrontend):
            table = tables.setdefault(id(frontend.embedding), Bytes(frontend.embedding))
            frontend.embedding = table  # type: ignore[assignment]
    product = Linear(head.weight.shape[1], len(head.weight))
    product.weight = nn.Parameter(head.weight.detach(), requires_grad=False)
    whole = nn.ModuleList([product])
    quantize_(whole, how)
    head.weight = whole[0].weight  # type: ignore[assignment]
    quantize_(model, how, filter_fn=lambda module, _: isinstance(module, nn.Linear))


# Answering, to see that it is right


class ExecuTorch:
    """Answers by a program, a sentence at a time."""

    whole = False

    def __init__(self, program: Program, bundle: Bundle, quantize: str) -> None:
        self.program = program
        self.name = "ExecuTorch int8" if quantize == "int8" else "ExecuTorch"
        told = json.loads(about(bundle.model, quantize))
        self.vocabulary, self.copies, self.positions = told["vocabulary"], told["copies"], told["answers"]
        self.candidates = min(CANDIDATES, told["candidates"])

    @cached_property
    def methods(self) -> dict[str, Any]:
        """The methods of the program, ready to run on one thread, as other engines are measured."""
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        with _quiet():
            portable_lib._unsafe_reset_threadpool(1)
            loaded = Runtime.get().load_program(self.program.content)
            return {name: loaded.load_method(name) for name in self.program.inputs}

    def run(self, method: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a method makes of named inputs, by its names."""
        given = [inputs[name].contiguous() for name in self.program.inputs[method]]
        try:
            found = self.methods[method].execute(given)
        except RuntimeError as error:
            do = "export it --to onnx, and report this"
            raise ConfigError("the program does not hold for all sizes", where="export", got=error, do=do) from None
        return dict(zip(self.program.outputs[method], found, strict=True))

    def lacks(self, settings: Decoding, asked: Asked) -> str:
        """Nothing that it was not refused for."""
        return ""

    def search(
        self, asked: Sequence[Asked], settings: Decoding, *, batch_size: int, details: bool
    ) -> list[list[Hypothesis]]:
        """The answers to each input, best first."""
        check(settings)
        return [self._alone(each, settings) for each in asked]

    def _alone(self, asked: Asked, settings: Decoding) -> list[Hypothesis]:
        most = self.program.answer - 1
        limit = min(asked.limit, most, self.positions - 1 if self.positions else most)
        task = Task(settings, [max(1, limit)], [Constraint()], [asked.number])
        return Search(Walk(self, asked), task).run()[0][0]


class Walk:
    """One source on its way through a program (see `antiphon.inference.light.Walk`)."""

    def __init__(self, engine: ExecuTorch, asked: Asked) -> None:
        self.engine = engine
        ids = torch.as_tensor(asked.source.ids)[None]
        self.state = engine.run("encode", {"source": ids, "lengths": torch.tensor([ids.shape[1]])})
        self.mask_BS = self.state["mask"].numpy()
        known, self.most = engine.vocabulary, engine.candidates
        if engine.copies:
            copies = torch.as_tensor(asked.source.context["copy"])[None]
            known = max(known, int(copies.max()) + 1)
            self.state |= {"copies": copies, "more": torch.zeros(1, known - engine.vocabulary)}
        self.known_B = np.array([known])

    def step(
        self, tokens_N: np.ndarray, parents_N: np.ndarray, living_L: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The candidates, and where hypotheses looked."""
        ports = {"tokens": tokens_N, "parents": parents_N, "living": living_L, "ranks": np.arange(max(1, count))}
        found = self.engine.run("step", self.state | {name: torch.as_tensor(port) for name, port in ports.items()})
        self.state |= {name.removesuffix(".after"): each for name, each in found.items() if name.endswith(".after")}
        self._drop()
        if count >= 0:
            return found["values"].numpy(), found["ids"].numpy(), found["weights"].numpy()
        values = found["log_probs"].numpy()[:, : int(self.known_B[0])]
        return values, np.broadcast_to(np.arange(values.shape[1]), values.shape), found["weights"].numpy()

    def keep(self, sentences: np.ndarray) -> None:
        """There is one."""

    def _drop(self) -> None:
        """Leave out columns of the caches that no hypothesis has in its past, once there are many."""
        if "places" not in self.state or self.state["places"].shape[1] <= ROOM:
            return
        needed = (self.state["places"] >= 0).any(0).nonzero().squeeze(1)
        for name, value in self.state.items():
            if name == "places" or ".shared." in name:
                self.state[name] = value.index_select(1 if name == "places" else 2, needed)
