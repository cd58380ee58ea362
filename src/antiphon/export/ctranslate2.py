"""Transformers in the format of CTranslate2: the same weights under its names, in fp32 or int8."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from antiphon.core.config import Model
from antiphon.core.errors import ConfigError, require
from antiphon.inference.bundle import Bundle
from antiphon.inference.ctranslate2_model import MODEL, TABLED, described, obstacles, positions
from antiphon.inference.on_ctranslate2 import EXTRA, FOLDER, PACKAGE, present

Quantize = Literal["none", "int8"]
Weights = dict[str, np.ndarray]


def convert(bundle: Bundle, *, quantize: Quantize = "int8") -> dict[str, bytes]:
    """The files of the model for CTranslate2, by their names in a bundle.

    int8 is symmetric with one scale a row of each matrix; products are of integers, all else stays fp32. Raises
    `ConfigError` that names the settings for which CTranslate2 has nothing.
    """
    if not present():
        raise require(EXTRA, PACKAGE)
    if found := obstacles(bundle.config):
        do = "let PyTorch answer, or export it --to onnx"
        raise ConfigError("CTranslate2 has no such network", where="export", got=", ".join(found), do=do)
    # quantization writes into the arrays that it is given
    weights = {name: tensor.cpu().numpy().copy() for name, tensor in bundle.model.state_dict().items()}
    spec = _network(bundle.config.model, weights, *positions(bundle.config, bundle.task))
    spec.register_source_vocabulary([str(number) for number in range(bundle.task.source.size)])
    spec.register_target_vocabulary([str(number) for number in range(bundle.task.target.size)])
    spec.validate()
    spec.optimize(None if quantize == "none" else quantize)
    with tempfile.TemporaryDirectory(prefix="antiphon-") as folder:
        path = Path(folder) / "model.bin"
        spec._serialize(str(path))
        files = {MODEL: path.read_bytes(), **described(bundle.config, bundle.task)}
    return {f"{FOLDER}/{name}": content for name, content in files.items()}


def _network(model: Model, weights: Weights, source: int, target: int) -> Any:
    """The whole network; `source` and `target` are the positions that are tabled for each side."""
    from ctranslate2.specs import TransformerSpec
    from ctranslate2.specs.common_spec import Activation
    from ctranslate2.specs.transformer_spec import TransformerDecoderSpec, TransformerEncoderSpec

    kinds = {"relu": Activation.RELU, "gelu": Activation.GELU, "tanh": Activation.Tanh, "swiglu": Activation.SWISH}
    assert model.width is not None
    common = {
        "num_heads": model.heads, "pre_norm": model.norm == "pre", "activation": kinds[str(model.activation)],
        "relative_attention_bias": model.positions == "t5", "ffn_glu": model.activation == "swiglu",
        "rms_norm": model.norm_kind == "rms", "rotary_interleave": False,
        "rotary_dim": model.width // model.heads if model.positions == "rotary" else None,
    }  # fmt: skip
    encoder = TransformerEncoderSpec(model.encoder.layers, **common)
    decoder = TransformerDecoderSpec(model.decoder.layers, **common, alignment_layer=-1, alignment_heads=model.heads)
    for spec, side, length in ((encoder.embeddings[0], "source", source), (decoder.embeddings, "target", target)):
        stack = encoder if side == "source" else decoder
        spec.weight = weights[f"{side}.embedding.weight"]
        if model.positions in TABLED:
            stack.position_encodings.encodings = _places(model, weights, side, length)
    _stack(encoder, "encoder", model, weights)
    _stack(decoder, "decoder", model, weights)
    _linear(decoder.projection, "head", weights)
    return TransformerSpec(encoder, decoder)


def _places(model: Model, weights: Weights, side: str, length: int) -> np.ndarray:
    """What is added to embeddings, `[length, D]`."""
    assert model.width is not None
    if model.positions == "none":
        return np.zeros((length, model.width), np.float32)
    if model.positions == "learned":
        return weights[f"{side}.positions.table.weight"]
    import torch

    from antiphon.models.positions import sinusoids

    return sinusoids(torch.arange(length), model.width).numpy()


def _stack(spec: Any, side: str, model: Model, weights: Weights) -> None:
    """All layers of the encoder or the decoder."""
    if model.norm == "pre":
        _norm(spec.layer_norm, f"{side}.last", weights)
    for number, layer in enumerate(spec.layer):
        ours = f"{side}.layers.{number}."
        mixer = layer.self_attention
        _linear(mixer.linear[0], f"{ours}mix.attention.inputs", weights)
        _linear(mixer.linear[1], f"{ours}mix.attention.output", weights)
        _norm(mixer.layer_norm, f"{ours}around_mix.norm", weights)
        if model.positions == "t5":
            mixer.relative_attention_bias = weights[f"{ours}mix.attention.bias.table.weight"]
            mixer.relative_attention_max_distance = np.dtype("int32").type(128)
        if side == "decoder":
            for place, name in enumerate(("query", "keys_values", "output")):
                _linear(layer.attention.linear[place], f"{ours}attention.{name}", weights)
            _norm(layer.attention.layer_norm, f"{ours}around_attention.norm", weights)
        _feedforward(layer.ffn, ours, model, weights)


def _feedforward(spec: Any, ours: str, model: Model, weights: Weights) -> None:
    _norm(spec.layer_norm, f"{ours}around_feedforward.norm", weights)
    _linear(spec.linear_1, f"{ours}feedforward.output", weights)
    if model.activation != "swiglu":
        _linear(spec.linear_0, f"{ours}feedforward.input", weights)
        return
    for kind in ("weight", "bias"):
        gate, inner = np.split(weights[f"{ours}feedforward.input.{kind}"], 2)
        setattr(spec.linear_0, kind, gate)
        setattr(spec.linear_0_noact, kind, inner)


def _linear(spec: Any, name: str, weights: Weights) -> None:
    spec.weight, spec.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]


def _norm(spec: Any, name: str, weights: Weights) -> None:
    spec.gamma = weights[f"{name}.weight"]
    if hasattr(spec, "beta"):
        spec.beta = weights[f"{name}.bias"]
