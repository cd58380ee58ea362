"""Which values settings may have, beyond what their types say."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING

from antiphon.core.errors import ConfigError

if TYPE_CHECKING:
    from antiphon.core.config import Config, Decoding, Model


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
    *_in("data", "source.sampling target.sampling"),
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
    *_in("data.frames", "season"),
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


_ROOM = [*_in("model", "width max_positions"), *_in("model.encoder", "kernel"), *_in("model.decoder", "kernel")]
_DEPTHS = _in("model", "encoder.layers decoder.layers knowledge.layers")
_RANGES: list[tuple[list[str], Callable[[float], bool], str, str]] = [
    (_SHARES, lambda value: 0 <= value < 1, "be at least 0 and below 1", "set it to 0 or 0.1"),
    (_RATES, lambda value: 0 <= value <= 1, "be from 0 to 1", "set it to 0 or 0.1"),
    (_COUNTS, lambda value: value >= 1, "be at least 1", "take a whole number above 0"),
    (_POSITIVE, lambda value: 0 < value < math.inf, "be above 0", "take a number above 0"),
    (_NATURAL, lambda value: 0 <= value < math.inf, "not be negative", "take 0 or more"),
    (["decoding.length_reward"], math.isfinite, "be a finite number", "take 0 for none"),
    (_ROOM, lambda value: value <= 10**6, "be at most 1,000,000", "take a smaller number"),
    (_DEPTHS, lambda value: value <= 1000, "be at most 1,000", "take fewer layers"),
]


def check(config: Config, where: str) -> None:
    """Ranges and contradictions that types cannot say."""
    for keys, fits, what, do in _RANGES:
        for key in keys:
            value = attrgetter(key)(config)
            if value is not None and not fits(value):
                raise ConfigError(f"{key} must {what}", where=where, got=value, do=do)
    for key in ("training.seed", "decoding.seed"):
        value = attrgetter(key)(config)
        if not -(1 << 63) <= value < 1 << 63:
            raise ConfigError(f"{key} must have 64 bits at most", where=where, got=value, do="take a smaller number")
    for key in ("data.source.vocabulary", "data.target.vocabulary"):
        value = attrgetter(key)(config)
        if value is not None and value < 5:
            what, do = f"{key} must be at least 5: four special tokens and one more", "take 1000 or more"
            raise ConfigError(what, where=where, got=value, do=do)
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
    if config.decoding.coverage_penalty and model.attention == "none":
        what = "decoding.coverage_penalty does nothing without attention"
        raise ConfigError(what, where=where, got=config.decoding.coverage_penalty, do="leave it out")
    for side in ("source", "target"):
        if attrgetter(f"data.{side}.freeze")(config) and not attrgetter(f"data.{side}.vectors")(config):
            do = f"set data.{side}.vectors, or leave it out"
            raise ConfigError(
                f"data.{side}.freeze keeps word vectors as they are, and there are none", where=where, do=do
            )
    _check_network(model, where)
    _check_signals(config, where)
    _check_search(config.decoding, where)


def _check_network(model: Model, where: str) -> None:
    """What layers cannot be built of."""
    width, encoder = model.width, model.encoder
    attends = {encoder.kind, model.decoder.kind} & {None, "transformer", "conformer"}
    headed = attends or model.attention in (None, "multihead") or model.knowledge.kind == "graph"
    if width is not None and width % model.heads and headed:
        what, got = "model.width must be a multiple of model.heads", f"{width} and {model.heads}"
        do = f"take model.width={-(-width // model.heads) * model.heads}, or model.heads=1"
        raise ConfigError(what, where=where, got=got, do=do)
    if width is not None and attends and model.positions == "rotary" and width < 2 * model.heads:
        what, got = (
            "model.positions=rotary needs two features a head",
            f"model.width={width}, model.heads={model.heads}",
        )
        raise ConfigError(what, where=where, got=got, do=f"take model.width={2 * model.heads} or more")
    if width == 1 and encoder.kind in ("rnn", "lstm", "gru") and encoder.bidirectional:
        what, do = "a bidirectional encoder needs a width of 2", "take model.width=2 or more"
        raise ConfigError(what, where=where, got="model.width=1", do=do)
    if encoder.kernel % 2 == 0:
        do = f"take {encoder.kernel + 1}"
        raise ConfigError("model.encoder.kernel must be odd", where=where, got=encoder.kernel, do=do)
    if encoder.global_tokens and encoder.window == 0:
        what, do = "model.encoder.global_tokens needs model.encoder.window", "set model.encoder.window=128 too"
        raise ConfigError(what, where=where, got=encoder.global_tokens, do=do)
    for name in ("window", "global_tokens"):
        if getattr(encoder, name) and encoder.kind not in (None, "transformer", "conformer"):
            what = f"model.encoder.{name} needs model.encoder.kind=transformer or conformer"
            do = "leave it out: the memory of the others grows with the length alone"
            raise ConfigError(what, where=where, got=encoder.kind, do=do)


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
        what, do = (
            "decoding.beam must be a multiple of decoding.groups",
            f"take decoding.beam={-(-beam // groups) * groups}",
        )
        raise ConfigError(what, where=where, got=f"{beam} and {groups}", do=do)


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
    for name in ("kind", "reduce", "time_masks", "feature_masks"):
        if data.source.kind == "text" and getattr(model.frontend, name):
            do = "leave it out, or set data.source.kind"
            raise ConfigError(f"model.frontend.{name} is for frames, and sources are text", where=where, do=do)
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
    if model.ctc and config.training.ctc == 0 and config.decoding.ctc:
        what, do = "decoding.ctc asks a CTC head that is not trained", "set training.ctc=0.3, or decoding.ctc=0"
        raise ConfigError(what, where=where, got="training.ctc=0", do=do)


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
        "model.dropout_word": bool(model.dropout_word) and data.source.kind not in (None, "text"),
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
