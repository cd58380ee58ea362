"""An exported model as a bundle: converted, checked against PyTorch, measured, and written with a card that says so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from antiphon.core.errors import ConfigError
from antiphon.data.corpus import Pair
from antiphon.export import browser, checking, ctranslate2, executorch, onnx
from antiphon.export.checking import Checked
from antiphon.export.shortlist import shortlist
from antiphon.inference import on_ctranslate2, on_onnxruntime
from antiphon.inference.bundle import (
    CONFIDENCE_FILE,
    WEIGHTS_FILE,
    Bundle,
    Stored,
    bundle_files,
    engines_of,
    facts,
    load,
    room,
    write,
)
from antiphon.inference.ctranslate2_model import SHORTLIST
from antiphon.inference.predictor import Predictor

Target = Literal["ctranslate2", "onnx", "browser", "executorch"]
Quantize = Literal["none", "int8"]


@dataclass(frozen=True)
class Plan:
    """What to export to, with rounded weights or not, with PyTorch's weights beside or without, and the pairs that a
    shortlist is learned from, where there is to be one. A page for browsers needs the npm package `runtime`."""

    to: Target = "ctranslate2"
    quantize: Quantize = "int8"
    keep: bool = False
    candidates: Iterable[Pair] | None = None
    runtime: Path = browser.RUNTIME


def export(bundle: Bundle, out: Path | str, pairs: Sequence[Pair], plan: Plan = Plan()) -> Checked:
    """Write the model for another engine to a folder or a `.zip`, checked and measured on these pairs.

    Raises `ConfigError` where the engine has no such network, or does not answer as PyTorch does, and writes nothing.
    """
    path = room(out)
    if plan.to not in ("ctranslate2", "onnx"):
        do = "call export_page or export_program"
        raise ConfigError("this export is no bundle", where="export", got=plan.to, do=do)
    if plan.candidates is not None and plan.to != "ctranslate2":
        raise ConfigError("a shortlist is for CTranslate2", where="export", got=plan.to, do="leave it out")
    made, files, found = _converted(bundle, path, pairs, plan)
    card = {**(bundle.manifest.get("card") or {}), "export": asdict(found)}
    rest = bundle_files(model=bundle.model, task=bundle.task, config=made.config, card=card)
    if not plan.keep:
        del rest[WEIGHTS_FILE]
    if bundle.confidence is not None:
        rest[CONFIDENCE_FILE] = bundle.confidence.to_bytes()
    write(path, {**rest, **files}, facts(card))
    load(path)
    return found


def export_page(bundle: Bundle, out: Path | str, pairs: Sequence[Pair], plan: Plan) -> tuple[Checked, int]:
    """Write the model as a page for browsers to a folder, checked likewise; what was found, and the bytes of it all.

    Raises `AntiphonError` where the npm package is not there, and `ConfigError` for what a browser cannot do.
    """
    path = browser.room(out)
    if plan.keep or plan.candidates is not None:
        raise ConfigError("a page has neither PyTorch's weights nor a shortlist", where="export", do="leave them out")
    browser.refuse(bundle)
    engine = browser.runtime(plan.runtime)
    _, files, found = _converted(bundle, path, pairs, plan)
    return found, browser.write(bundle, files, engine, path)


def export_program(bundle: Bundle, out: Path | str, pairs: Sequence[Pair], plan: Plan) -> tuple[Checked, int]:
    """Write the model as a program for phones to a folder, checked likewise; what was found, and the bytes of it all.

    Raises `AntiphonError` where ExecuTorch is not installed, and `ConfigError` for what it cannot do.
    """
    path = executorch.room(out)
    if plan.keep or plan.candidates is not None:
        do = "leave them out"
        raise ConfigError("a program has neither PyTorch's weights beside it nor a shortlist", where="export", do=do)
    program = executorch.convert(bundle, quantize=plan.quantize)
    made = Predictor(bundle, processes=1)
    made.engine = executorch.ExecuTorch(program, bundle, plan.quantize)
    found = checking.check(bundle, made, len(program.content), pairs, exact=plan.quantize == "none")
    return found, executorch.write(bundle, program, path)


def _converted(
    bundle: Bundle, path: Path, pairs: Sequence[Pair], plan: Plan
) -> tuple[Bundle, dict[str, bytes], Checked]:
    """The bundle as it answers by the other engine, the files of that, and what was measured."""
    converter = ctranslate2 if plan.to == "ctranslate2" else onnx
    files = converter.convert(bundle, quantize=plan.quantize)
    if plan.candidates is not None:
        examples = (bundle.task.encode(pair) for pair in plan.candidates)
        text = shortlist(examples, bundle.task.source.size, bundle.task.target.size)
        files[f"{plan.to}/{SHORTLIST}"] = text.encode()
    config = bundle.config
    if plan.to == "ctranslate2":  # whose search is another
        config = replace(config, decoding=replace(config.decoding, refill=True, thorough=False))
    engine = on_ctranslate2 if plan.to == "ctranslate2" else on_onnxruntime
    if lack := engine.lacking(config.decoding):
        key = lack.removeprefix("decoding.").partition("=")[0]
        do = "give the export another search, as KEY=VALUE behind the command"
        do += ": ctc=0 goes by the decoder alone" if key == "ctc" else ""
        other = plan.to == "ctranslate2" and not on_onnxruntime.lacking(bundle.config.decoding)
        do += ", or export it --to onnx" if other else ""
        raise ConfigError("this engine does not search as the model does", where="export", got=lack, do=do)
    nothing = Stored(None, config, (bundle.task.source.size, bundle.task.target.size), path)
    made = replace(bundle, network=nothing, config=config, path=path, adapters={}, engines=engines_of(files))
    size = sum(map(len, files.values()))
    exact = plan.quantize == "none" and plan.candidates is None
    found = checking.check(bundle, Predictor(made, processes=1), size, pairs, exact=exact)
    return made, files, found
