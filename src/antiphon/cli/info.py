"""`antiphon info`: what a model is; without a model, every setting with its default and meaning."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from antiphon.cli.console import Console
from antiphon.core.config import Config
from antiphon.core.keys import get, leaves

if TYPE_CHECKING:
    from antiphon.data.modalities import Text as Words
    from antiphon.data.numbers import Numbers
    from antiphon.data.signals import Signal
    from antiphon.inference.adapters import Adapter
    from antiphon.inference.bundle import Bundle

KINDS = {int: "number", float: "number", bool: "true, false", str: "text"}


def info(model: Path | None = None, /) -> None:
    """Show what a model is; without a model, list every setting.

    Parameters
    ----------
    model
        A bundle (folder or zip) or a run.
    """
    console = Console()
    if model is None:
        console.print(settings_table())
        console.print(
            "\nWrite them as key=value after `antiphon train DATA --out RUN`; (auto) is proposed from the data."
        )
        return
    from antiphon.inference.bundle import load

    found = list(facts(load(model)))
    width = max(len(title) for title, _ in found)
    for title, value in found:
        console.print(Text.assemble((f"{title:<{width}}   ", "dim"), value), soft_wrap=True)


def facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """What a bundle is, was made from and can do, as titles and values."""
    model, task, card = bundle.config.model, bundle.task, bundle.manifest.get("card") or {}
    yield "model", str(bundle.path)
    yield "task", task.name + (f", context {', '.join(task.context)}" if task.context else "")
    yield "encoder", f"{model.encoder.kind}, {model.encoder.layers} layers, width {model.width}"
    yield "decoder", f"{model.decoder.kind}, {model.decoder.layers} layers, attention {model.attention}"
    if bundle.complete:
        yield "parameters", f"{sum(parameter.numel() for parameter in bundle.model.parameters()):,}"
    yield from _exported(card.get("export")) if bundle.engines else ()
    for name, side in (("source", task.source), ("target", task.target)):
        yield name, _about(side)
    for name in ("data", "data_hash", "pairs", "trained_from", "steps", "minutes", "command"):
        if name in card:
            yield name.replace("_", " "), f"{card[name]:,}" if isinstance(card[name], int) else str(card[name])
    for score in card.get("scores") or ():
        low_high = f" [{score['interval'][0]:.2f}, {score['interval'][1]:.2f}]" if score.get("interval") else ""
        yield score["name"], f"{score['value']:.4g}{low_high}  on validation data"
    if found := bundle.confidence:
        known = f"in {found.metric}, from {found.pairs:,} answers, calibration error {found.error:.3f}"
        yield "confidence", known
    for adapter in bundle.adapters.values():
        yield f"adapter {adapter.name}", "; ".join(adapter_facts(adapter))
    yield "made by", f"antiphon {bundle.manifest.get('antiphon', '?')}"


def _exported(made: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """What was measured when the model was exported."""
    if made is None:
        return
    for row in made["rows"]:
        speed = f"{row['size'] / 1e6:,.2f} MB, {row['rate']:,.0f} answers per CPU second"
        yield row["engine"], f"{speed}, {made['metric']} {row['score']:.2f}, {row['same']:.1%} as PyTorch's"


def _about(side: Words | Signal | Numbers) -> str:
    """What one side of a pair is."""
    from antiphon.data.numbers import Numbers
    from antiphon.data.signals import Signal

    if isinstance(side, Signal):
        rate = f" at {side.settings.rate:,} Hz" if side.kind == "speech" else ""
        if side.kind == "video":
            rate = f" at {side.settings.per_second:g} pictures a second, {side.settings.size} pixels a side"
        return f"{side.kind}{rate}, {side.features:,} features a frame"
    if isinstance(side, Numbers):
        steps = f"{side.horizon} steps" if side.horizon else "ends by itself"
        return f"numbers, {side.features} features a step, {steps}"
    return f"{side.side.tokenizer}, {len(side.vocabulary):,} tokens"


def adapter_facts(adapter: Adapter) -> Iterator[str]:
    """What an adapter is and was made from."""
    own = adapter.config.model.adapter
    without = "" if own.embeddings else ", without embeddings"
    yield f"rank {own.rank}, scale {own.scale:g}{without}, {adapter.size:,} bytes"
    data, pairs = adapter.card.get("data", "unknown data"), adapter.card.get("pairs")
    yield f"data {data} (sha256 {str(adapter.card.get('data_hash', 'unknown'))[:12]})"
    if isinstance(pairs, int):
        yield f"{pairs:,} pairs"
    for score in adapter.card.get("scores") or ():
        if score["name"] == adapter.config.training.metric:
            yield f"{score['name']} {score['value']:.4g} on validation data"


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Name, kind or choices, default and meaning of every setting."""
    for key, item in leaves().items():
        default = get(Config(), key)
        shown = "(auto)" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
        yield key, _choices(key), "(none)" if default in ("", ()) else shown, item.metadata["doc"]


def _choices(key: str) -> str:
    """`int`, or the choices of a setting with commas between."""
    kind: Any = Config
    for name in key.split("."):
        kind = typing.get_type_hints(kind)[name]
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(typing.get_args(kind))
    return "names" if typing.get_origin(kind) is tuple else KINDS[kind]


def settings_table() -> Table:
    """Every setting for the terminal."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title, style in (("setting", "cyan"), ("default", "bold"), ("meaning", "")):
        table.add_column(title, style=style, no_wrap=title == "setting")
    for key, choices, default, doc in rows():
        meaning = Text(doc)
        if choices.count(",") > 1:
            meaning.append(f"  ({choices})", "dim")
        table.add_row(key, default, meaning)
    return table


def settings_page() -> str:
    """Every setting as a page of the documentation."""
    lines = ["# Settings", "", "Made by `antiphon.cli.info.settings_page`; *(auto)* is proposed from the data.", ""]
    lines += ["| setting | kind or choices | default | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{key}` | {choices} | {default} | {doc.replace('<', '&lt;')} |" for key, choices, default, doc in rows()
    ]
    return "\n".join(lines) + "\n"
