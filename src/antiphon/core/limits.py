"""Which values settings may have, beyond what their types say."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import TYPE_CHECKING

from antiphon.core.errors import ConfigError

if TYPE_CHECKING:
    from antiphon.core.config import Config, Decoding


def _in(part: str, names: str) -> list[str]:
    """Settings of a part by their dotted names."""
    return [f"{part}.{name}" for name in names.split(" ")]


_SHARES = [
    *_in("data", "valid mix"),
    *_in("data.augment", "speed"),
    *_in("model", "dropout dropout_embedding dropout_attention dropout_recurrent dropout_word"),
    *_in("training", "label_smoothing ema scheduled_sampling beta1 beta2 likelihood collapse"),
]
_RATES = [
    *_in("data.augment", "share names stems drop swap replace mask insert typos casing punctuation"),
    *_in("data.augment", "synonym_rate reverse_rate"),
    *_in("model.frontend", "time_share feature_share"),
    *_in("training", "ctc"),
    *_in("decoding", "abstain ctc"),
]
_POSITIVE = [
    *_in("data", "temperature"),
    *_in("data.frames", "window step per_second"),
    *_in("model", "max_positions"),
    *_in("model.adapter", "scale"),
    *_in("training", "rate minutes risk_sharpness unlikelihood temperature discriminator_rate"),
    *_in("decoding", "temperature"),
]
_NATURAL = [
    *_in("data.augment", "switchout"),
    *_in("model.frontend", "time_masks feature_masks"),
    *_in("model", "feedforward covariates"),
    *_in("model.encoder", "window global_tokens"),
    *_in("training", "momentum weight_decay l1 l2 l2_start clip warmup coverage r_drop average patience rollouts"),
    *_in("decoding", "min_length length_penalty coverage_penalty diversity top_k no_repeat backward_weight"),
]
_COUNTS = [
    *_in("data", "batch_tokens facts history"),
    *_in("data.source", "max_length min_count"),
    *_in("data.frames", "rate mels size"),
    *_in("data.target", "max_length min_count"),
    *_in("model", "width heads"),
    *_in("model.encoder", "layers kernel"),
    *_in("model.decoder", "layers kernel"),
    *_in("model.knowledge", "layers"),
    *_in("model.adapter", "rank"),
    *_in("training", "accumulate validate_every epochs steps processes threads samples discriminator_width"),
    *_in("training", "discriminator_turns"),
    *_in("decoding", "beam n_best groups max_length samples"),
]


def check(config: Config, where: str) -> None:
    """Ranges and contradictions that types cannot say."""
    for key in _SHARES:
        value = attrgetter(key)(config)
        if value is not None and not 0 <= value < 1:
            raise ConfigError(f"{key} must be at least 0 and below 1", where=where, got=value)
    for key in _RATES:
        value = attrgetter(key)(config)
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"{key} must be from 0 to 1", where=where, got=value, do="set it to 0 or 0.1")
    for key in _COUNTS:
        value = attrgetter(key)(config)
        if value is not None and value < 1:
            raise ConfigError(f"{key} must be at least 1", where=where, got=value)
    for key in _POSITIVE:
        value = attrgetter(key)(config)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{key} must be above 0", where=where, got=value)
    for key in _NATURAL:
        value = attrgetter(key)(config)
        if value is not None and not 0 <= value < math.inf:
            raise ConfigError(f"{key} must not be negative", where=where, got=value)
    for key in ("training.seed", "decoding.seed"):
        value = attrgetter(key)(config)
        if not -(1 << 63) <= value < 1 << 63:
            raise ConfigError(f"{key} must have 64 bits at most", where=where, got=value, do="take a smaller number")
    for key in ("data.source.vocabulary", "data.target.vocabulary"):
        value = attrgetter(key)(config)
        if value is not None and value < 5:
            raise ConfigError(f"{key} must be at least 5: four special tokens and one more", where=where, got=value)
    model = config.model
    if model.tie == "all" and config.data.shared is False:
        do = "set data.shared=true or model.tie=target"
        raise ConfigError("model.tie=all needs one vocabulary for both sides", where=where, do=do)
    if model.head == "copy" and model.attention == "none":
        raise ConfigError("model.head=copy needs attention", where=where, do="choose another model.attention")
    if config.training.coverage and model.attention == "none":
        do = "choose another model.attention, or leave it out"
        raise ConfigError("training.coverage needs attention", where=where, do=do)
    _check_order(config, where)
    _check_ctc(config, where)
    if model.width is not None and model.width % model.heads:
        raise ConfigError(
            "model.width must be a multiple of model.heads", where=where, got=f"{model.width} and {model.heads}"
        )
    if model.encoder.kernel % 2 == 0:
        raise ConfigError("model.encoder.kernel must be odd", where=where, got=model.encoder.kernel)
    if model.encoder.global_tokens and model.encoder.window == 0:
        got = model.encoder.global_tokens
        raise ConfigError("model.encoder.global_tokens needs model.encoder.window", where=where, got=got)
    if model.encoder.window and model.encoder.kind not in (None, "transformer", "conformer"):
        do = "leave it out: the memory of the others grows with the length alone"
        raise ConfigError("model.encoder.window needs model.encoder.kind=transformer or conformer", where=where,
                          got=model.encoder.kind, do=do)  # fmt: skip
    _check_signals(config, where)
    _check_search(config.decoding, where)


def _check_search(search: Decoding, where: str) -> None:
    """What a search cannot be."""
    least, most, beam, groups = search.min_length, search.max_length, search.beam, search.groups
    if least is not None and most is not None and least > most:
        what, do = "decoding.min_length is above decoding.max_length", "lower the one, or raise the other"
        raise ConfigError(what, where=where, got=f"{least} and {most}", do=do)
    if not 0 < search.top_p <= 1:
        what, do = "decoding.top_p must be above 0, and 1 at most", "take 1 for all tokens, or 0.9"
        raise ConfigError(what, where=where, got=search.top_p, do=do)
    if beam is not None and beam % groups:
        what = "decoding.beam must be a multiple of decoding.groups"
        raise ConfigError(what, where=where, got=f"{beam} and {groups}")


def _check_signals(config: Config, where: str) -> None:
    """What only text, or only recordings, films and arrays, can have."""
    model, data = config.model, config.data
    signal = data.source.kind in ("frames", "speech", "video", "numbers")
    if data.target.kind not in (None, "text", "numbers"):
        raise ConfigError("data.target.kind must be text or numbers", where=where, got=data.target.kind)
    if data.target.kind == "numbers":
        _check_numbers(config, where)
    elif data.target.kind == "text" and (model.head in _OF_NUMBERS or model.ends is not None):
        name = "model.ends" if model.ends is not None else f"model.head={model.head}"
        do = "leave it out, or set data.target.kind=numbers"
        raise ConfigError(f"{name} is for targets of numbers, and these are text", where=where, do=do)
    if data.frames.normalize in ("last", "season") and data.source.kind in ("text", "frames", "speech"):
        what = f"data.frames.normalize={data.frames.normalize} is for sources of numbers"
        raise ConfigError(what, where=where, got=data.source.kind, do="take each")
    if model.frontend.reduce not in (None, 1, 2, 4, 8):
        raise ConfigError("model.frontend.reduce must be 1, 2, 4 or 8", where=where, got=model.frontend.reduce)
    if data.source.kind == "text" and model.frontend.kind:
        do = "leave it out, or set data.source.kind"
        raise ConfigError("model.frontend is for frames, and sources are text", where=where, do=do)
    texts = {
        "data.shared": data.shared, "model.head=copy": model.head == "copy", "model.tie=all": model.tie == "all",
        "data.context": bool(data.context) and data.target.kind != "numbers", "data.knowledge": bool(data.knowledge),
        "data.source.sampling": bool(data.source.sampling), "data.source.vectors": bool(data.source.vectors),
        "model.knowledge": model.knowledge.kind not in (None, "none"), "data.mix_tag": bool(data.mix_tag),
        "training.objective=adversarial": config.training.objective == "adversarial",
        "data.augment.reverse": data.augment.reverse != "none",
        **{f"data.augment.{name}": bool(getattr(data.augment, name)) for name in _OF_TEXT},
    }  # fmt: skip
    for name in (name for name, given in texts.items() if signal and given):
        raise ConfigError(f"{name} is for sources of text", where=where, got=f"data.source.kind={data.source.kind}")


def _check_ctc(config: Config, where: str) -> None:
    """What goes with a CTC head, and what needs one."""
    model = config.model
    if model.ctc and model.head == "copy":
        do = "set model.head=vocabulary, or leave out model.ctc"
        raise ConfigError("a CTC head cannot copy", where=where, got="model.ctc=true and model.head=copy", do=do)
    open_yet = model.ctc is None and config.data.source.kind != "text"  # the recipe may choose it
    for name in ("training", "decoding"):
        share = attrgetter(f"{name}.ctc")(config)
        if share and not model.ctc and not open_yet:
            do = "train with model.ctc=true and training.ctc=0.3, or leave it out"
            raise ConfigError(f"{name}.ctc needs model.ctc=true", where=where, got=share, do=do)


def _check_order(config: Config, where: str) -> None:
    """What goes along the source in its order."""
    model = config.model
    for what, there in (("model.ctc", model.ctc), ("model.attention=location", model.attention == "location")):
        if there and model.knowledge.kind == "graph":
            do, got = f"set model.knowledge.kind=linear, or leave out {what}", "model.knowledge.kind=graph"
            raise ConfigError(f"{what} needs a source in order, and a graph has none", where=where, got=got, do=do)


def _check_numbers(config: Config, where: str) -> None:
    """What targets of numbers cannot have: there are no tokens to choose among, to smooth, to copy or to change."""
    model, data, training, decoding = config.model, config.data, config.training, config.decoding
    augmented = [name for name in _OF_TEXT if getattr(data.augment, name)]
    no_text = {
        f"model.head={model.head}": model.head not in (None, *_OF_NUMBERS),
        f"model.tie={model.tie}": model.tie not in (None, "none"), "data.shared": bool(data.shared),
        "data.knowledge": bool(data.knowledge), "data.extend": data.extend, "data.mix_tag": bool(data.mix_tag),
        "data.target.sampling": bool(data.target.sampling), "data.target.vectors": bool(data.target.vectors),
        "data.target.tokenizer": data.target.tokenizer is not None,
        "data.augment.reverse": data.augment.reverse != "none",
        **{f"data.augment.{name}": True for name in augmented},
        f"training.objective={training.objective}": training.objective != "likelihood",
        "training.teachers": bool(training.teachers), "training.label_smoothing": bool(training.label_smoothing),
        "model.ctc": bool(model.ctc), "training.ctc": bool(training.ctc), "decoding.ctc": bool(decoding.ctc),
        "training.r_drop": bool(training.r_drop), "training.coverage": bool(training.coverage),
        "model.adapter.name": bool(model.adapter.name), "decoding.n_best": decoding.n_best > 1,
        "decoding.beam": (decoding.beam or 1) > 1, "decoding.groups": decoding.groups > 1,
        "decoding.risk": bool(decoding.risk), "decoding.no_repeat": bool(decoding.no_repeat),
        "decoding.abstain": bool(decoding.abstain), "decoding.top_k": bool(decoding.top_k),
        "decoding.top_p": decoding.top_p < 1, "decoding.coverage_penalty": bool(decoding.coverage_penalty),
    }  # fmt: skip
    for name in (name for name, given in no_text.items() if given):
        do = "leave it out, or set data.target.kind=text"
        raise ConfigError(f"{name} is for targets of text, and these are numbers", where=where, do=do)


_OF_NUMBERS = ("gaussian", "quantile")

_OF_TEXT = ("drop", "swap", "replace", "mask", "insert", "typos", "casing", "punctuation", "synonyms", "names", "stems",
            "switchout", "robust")  # fmt: skip
"""Kinds of augmentation that change words."""
