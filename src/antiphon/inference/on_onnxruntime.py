"""onnxruntime as an engine: every architecture, its encoder and its step as ONNX graphs, without PyTorch.

Axes: B sentences, N hypotheses, L those that live, S source, C candidates.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from antiphon.core.config import Decoding
from antiphon.core.errors import AntiphonError, BundleError, ConfigError, require
from antiphon.core.marks import PAD
from antiphon.inference.hearing import align
from antiphon.inference.hypothesis import BEAM, MARGIN, Hypothesis, check
from antiphon.inference.light import Search, Task
from antiphon.inference.onnx_files import check as check_graph
from antiphon.inference.strict_json import load_json

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue

    from antiphon.inference.bundle import Bundle
    from antiphon.inference.engines import Asked

FOLDER, EXTRA, PACKAGE, NAME = "onnx", "onnx", "onnxruntime", "onnxruntime"
FILES = {"encoder.onnx", "step.onnx", "shared.onnx", "about.json"}
FORMAT = 1
ROWS, SAID = 160, 1_600_000
"""Hypotheses that go through a step together, and more where they have fewer log probabilities between them than that:
so much stays in the cache of a core."""
ROOM = 48
"""Columns of the caches of self-attention from which on those that are no hypothesis' own any more are dropped."""
GRAPH = ("facts", "fact_node", "fact_subject", "fact_object")


def present() -> bool:
    """Whether the engine is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


@dataclass(frozen=True)
class About:
    """What is known of the graphs: how they were rounded, tokens of the vocabulary, the most candidates of a step, if
    they copy and read facts, and how many positions of `sources` of text and of answers were learned (0: any)."""

    quantize: str
    vocabulary: int
    candidates: int
    copies: bool
    facts: bool
    sources: int
    answers: int

    @staticmethod
    def read(content: bytes) -> About:
        """From a file, checked."""
        told = load_json(content, where="onnx/about.json")
        kinds = {"format": int, "quantize": str, "vocabulary": int, "candidates": int, "copies": bool, "facts": bool,
                 "sources": int, "answers": int}  # fmt: skip
        if not isinstance(told, dict) or {name: type(value) for name, value in told.items()} != kinds:
            raise BundleError("does not describe graphs", where="onnx/about.json")
        if told.pop("format") != FORMAT or told["quantize"] not in ("none", "int8") or told["candidates"] < 1:
            raise BundleError("describes graphs of another version", where="onnx/about.json", do="upgrade antiphon")
        return About(**told)


def open_files(files: Mapping[str, bytes], bundle: Bundle, workers: int) -> OnnxRuntime:
    """The engine of an exported model, from verified files; `BundleError` where these are not of that model."""
    if set(files) != FILES:
        raise BundleError("other files than graphs have", where="onnx", got=", ".join(sorted(set(files) ^ FILES)))
    about = About.read(files["about.json"])
    if about.vocabulary != bundle.task.target.size:
        got = f"{about.vocabulary} tokens, and {bundle.task.target.size} in the vocabulary"
        raise BundleError("the graphs are those of another model", where="onnx/about.json", got=got)
    for name in FILES - {"about.json"}:
        check_graph(files[name], f"onnx/{name}")
    shared = files["shared.onnx"]
    encoder, step = (_session(files[name] + shared, f"onnx/{name}") for name in ("encoder.onnx", "step.onnx"))
    engine = OnnxRuntime(encoder, step, about)
    engine.check()
    return engine


def _session(content: bytes, where: str) -> InferenceSession:
    if not present():
        raise require(EXTRA, PACKAGE)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # a graph does not use all weights that another shares with it
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        line = " ".join(str(error).partition("\n")[0].split())[:300]
        raise BundleError(f"is no graph that can run: {line}", where=where) from None


class OnnxRuntime:
    """Answers by two graphs: one reads sources, the other makes a step of all hypotheses."""

    whole = False

    def __init__(self, encoder: InferenceSession, step: InferenceSession, about: About) -> None:
        self.encoder, self.stepper, self.about = encoder, step, about
        self.name = "onnxruntime int8" if about.quantize == "int8" else "onnxruntime"
        self.read = [port.name for port in encoder.get_outputs()]
        self.takes = {port.name for port in step.get_inputs()}
        self.gives = [port.name for port in step.get_outputs()]
        self.inputs = {port.name for port in encoder.get_inputs()}

    def check(self) -> None:
        """Refuse graphs that do not fit each other, or no search."""
        state = {*self.read} - {"mask", "heard"}
        known = state | {"tokens", "parents", "living", "ranks", "mask", "copies", "more"}
        after = {name.removesuffix(".after") for name in self.gives} - {"values", "ids", "weights", "log_probs"}
        there = {"source", "lengths"} <= self.inputs and {"tokens", "ranks"} <= self.takes and "mask" in self.read
        if (
            not there
            or not {"values", "ids", "weights", "log_probs"} <= {*self.gives}
            or after - state
            or self.takes - known
        ):
            raise BundleError("the graphs are none of a model", where="onnx")

    def lacks(self, settings: Decoding, asked: Asked) -> str:
        """What it cannot do."""
        return lacking(settings) or ("required words" if asked.constraint.required else "")

    def search(
        self, asked: Sequence[Asked], settings: Decoding, *, batch_size: int, details: bool
    ) -> list[list[Hypothesis]]:
        """The answers to each input, best first; one with a decision so close that float error could turn it is
        searched again alone (docs/decisions/0001-near-ties.md)."""
        check(settings)
        rows = max(ROWS, SAID // self.about.vocabulary)
        together = max(1, min(batch_size, rows // (settings.beam or BEAM)))
        found = []
        for start in range(0, len(asked), together):
            found += self._batch(asked[start : start + together], settings, details)
        return found

    def _batch(self, asked: Sequence[Asked], settings: Decoding, details: bool) -> list[list[Hypothesis]]:
        answers, gaps = self._search(asked, settings, details)
        for row in (gaps < MARGIN).nonzero()[0].tolist():
            if len(asked) > 1:  # else this was the search alone
                alone, _ = self._search([asked[row]], settings, details)
                answers[row] = [replace(hypothesis, repeated=True) for hypothesis in alone[0]]
        return answers

    def _search(
        self, asked: Sequence[Asked], settings: Decoding, details: bool
    ) -> tuple[list[list[Hypothesis]], np.ndarray]:
        limits = [max(1, min(each.limit, self._longest), each.constraint.needed) for each in asked]
        walk = Walk(self, asked, details or bool(settings.coverage_penalty))
        task = Task(settings, limits, [each.constraint for each in asked], [each.number for each in asked])
        answers, gaps = Search(walk, task).run()
        if walk.heard is not None:
            answers = [[replace(each, heard=align(said_SV[real_S], each.tokens)) for each in mine]
                       for said_SV, real_S, mine in zip(walk.heard, walk.mask_BS, answers, strict=True)]  # fmt: skip
        return answers, gaps

    @property
    def _longest(self) -> int:
        """Learned positions end somewhere."""
        return self.about.answers - 1 if self.about.answers else 1 << 20

    def run(self, session: InferenceSession, outputs: list[str], inputs: Mapping[str, OrtValue]) -> list[OrtValue]:
        """One run of a graph. An onnxruntime error says something of the input, for the graph is the same for all."""
        try:
            found: list[OrtValue] = session.run_with_ort_values(outputs, inputs)
            return found
        except Exception as error:
            raise AntiphonError(f"onnxruntime failed: {' '.join(str(error).split())[:300]}") from None


class Walk:
    """Some sources on their way through the graphs; what depends on rows stays within onnxruntime."""

    def __init__(self, engine: OnnxRuntime, asked: Sequence[Asked], looks: bool) -> None:
        from onnxruntime import OrtValue

        self.engine, self.wrap = engine, OrtValue.ortvalue_from_numpy
        self.most, self.room = engine.about.candidates, ROOM
        inputs = {name: value for name, value in self._sources(asked).items() if name in engine.inputs}
        wanted = [name for name in engine.read if looks or name != "heard"]
        values = engine.run(engine.encoder, wanted, {name: self.wrap(value) for name, value in inputs.items()})
        self.state: dict[str, OrtValue] = dict(zip(wanted, values, strict=True))
        self.heard = self.state.pop("heard").numpy() if "heard" in self.state else None
        mask_BS = self.state["mask"].numpy()
        self.known_B = np.full(len(asked), engine.about.vocabulary)
        if engine.about.copies:
            self._copy(asked, mask_BS.shape[1])
        self.looks, self.mask_BS = looks, mask_BS if looks else mask_BS[:, :0]
        self.said = ["values", "ids", *(["weights"] if looks else [])]
        self.moving = [name for name in engine.gives if name.endswith(".after")]

    def _sources(self, asked: Sequence[Asked]) -> dict[str, np.ndarray]:
        """All that the encoder reads."""
        sources = [each.source for each in asked]
        lengths = np.array([len(source.ids) for source in sources])
        if isinstance(sources[0].ids, np.ndarray):
            values = np.zeros((len(sources), lengths.max(), sources[0].ids.shape[1]), np.float32)
            for row, source in enumerate(sources):
                values[row, : len(source.ids)] = source.ids
        else:
            values = padded([source.ids for source in sources])
            self._placed(values.shape[1])
        found = {"source": values, "lengths": lengths}
        if self.engine.about.facts:
            found |= {name: padded([each.context.get(name, []) for each in sources]) for name in GRAPH}
            found["fact_lengths"] = np.array([len(each.context.get("facts", [])) for each in sources])
        return found

    def _placed(self, length: int) -> None:
        if 0 < self.engine.about.sources < length:
            do = "raise model.max_positions or choose other model.positions"
            raise ConfigError(f"learned positions end at {self.engine.about.sources}", got=length, do=do)

    def _copy(self, asked: Sequence[Asked], size: int) -> None:
        """What each position of the memory would say, and how many ids that takes."""
        copies = padded([each.source.context["copy"] for each in asked])
        if self.engine.about.facts:
            copies = np.concatenate([copies, padded([each.source.context.get("fact_copy", []) for each in asked])], 1)
        self.known_B = np.maximum(self.known_B, copies.max(1) + 1)
        more = int(self.known_B.max()) - self.engine.about.vocabulary
        self.most = self.engine.about.candidates + more
        self.state["copies"] = self.wrap(copies)
        self.state["more"] = self.wrap(np.zeros((1, more), np.float32))

    def step(
        self, tokens_N: np.ndarray, parents_N: np.ndarray, living_L: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `antiphon.inference.light.Walk`."""
        said = ["log_probs", *self.said[2:]] if count < 0 else self.said
        ports = {"tokens": tokens_N, "parents": parents_N, "living": living_L, "ranks": np.arange(max(1, count))}
        inputs = self.state | {name: self.wrap(np.ascontiguousarray(value)) for name, value in ports.items()}
        inputs = {name: value for name, value in inputs.items() if name in self.engine.takes}
        found = self.engine.run(self.engine.stepper, [*said, *self.moving], inputs)
        for name, value in zip(self.moving, found[len(said) :], strict=True):
            self.state[name.removesuffix(".after")] = value
        self._drop()
        parts = [value.numpy() for value in found[: len(said)]]
        weights_NS = parts.pop() if self.looks else np.zeros((len(tokens_N), 0), np.float32)
        if count < 0:
            values = parts[0][:, : int(self.known_B.max())]
            return values, np.broadcast_to(np.arange(values.shape[1]), values.shape), weights_NS
        return parts[0], parts[1], weights_NS

    def keep(self, sentences: np.ndarray) -> None:
        """See `antiphon.inference.light.Walk`."""
        self.known_B = self.known_B[sentences]
        self._change(lambda name: name in ("mask", "copies") or _of_sentence(name), lambda each: each[sentences])

    def _change(self, which: Any, how: Any) -> None:
        for name in [name for name in self.state if which(name)]:
            self.state[name] = self.wrap(np.ascontiguousarray(how(self.state[name].numpy())))

    def _drop(self) -> None:
        """Leave out columns of the caches that no hypothesis has in its past, once there are many."""
        if "places" not in self.state or self.state["places"].shape()[1] <= self.room:
            return
        places_NC = self.state["places"].numpy()
        sentences = self.state["mask"].shape()[0]
        needed_BC = (places_NC >= 0).reshape(sentences, -1, places_NC.shape[1]).any(1)
        most = int(needed_BC.sum(1).max())
        index_BC = np.argsort(~needed_BC, axis=1, kind="stable")[:, :most]
        rows_NC = np.repeat(index_BC, len(places_NC) // sentences, 0)
        self.state["places"] = self.wrap(np.take_along_axis(places_NC, rows_NC, 1))
        index = index_BC[:, None, :, None]
        self._change(lambda name: ".shared." in name, lambda each: np.take_along_axis(each, index, 2))
        self.room = max(ROOM, 2 * most)


def _of_sentence(name: str) -> bool:
    """As `antiphon.core.batch.of_sentence`."""
    return name.startswith("memory.") or ".shared." in name


def padded(rows: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Ids as one table, at least one column wide."""
    values = np.full((len(rows), max(1, *(len(row) for row in rows))), PAD)
    for row, ids in enumerate(rows):
        values[row, : len(ids)] = ids
    return values


def lacking(settings: Decoding) -> str:
    """The first of the settings that it cannot search by; nothing where it can."""
    wrong = {
        "decoding.sample": settings.sample,
        "decoding.groups": settings.groups > 1,
        "decoding.ctc": bool(settings.ctc),
        "decoding.refill": settings.refill and (settings.beam or BEAM) > 1,
    }
    return next((name for name, found in wrong.items() if found), "")
