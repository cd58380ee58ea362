"""The weights that training begins with: fresh ones, word vectors from a file, or those of a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from antiphon.core.config import Config, Side
from antiphon.core.errors import BundleError
from antiphon.data.modalities import Text
from antiphon.data.vectors import read_vectors
from antiphon.inference.bundle import WEIGHTS_FILE, tensors
from antiphon.inference.task import Task
from antiphon.models.adapters import freeze
from antiphon.models.frontends import TextFrontend
from antiphon.models.seq2seq import Seq2Seq, build

SCALE = {"source": 1.0, "target": 0.5}
"""The root mean square of word vectors as the model reads them; those of the target are its output too."""


def make_model(
    config: Config, task: Task, *, fresh: bool, start: Mapping[str, Tensor] | None = None
) -> tuple[Seq2Seq, list[str]]:
    """The model of a configuration, and what is to be told about its word vectors.

    With `start` its weights are those of a trained model, by name. Without `fresh` nothing is read, since a checkpoint
    has the weights; what is frozen is so either way: word vectors, and all that an adapter to be trained leaves alone.
    """
    sizes = task.source.size, task.target.size
    model = build(config.model, *sizes, seed=config.training.seed)
    sides = []
    if isinstance(task.target, Text) and isinstance(model.target, TextFrontend):
        sides.append(("target", config.data.target, task.target, model.target.embedding))
    if isinstance(task.source, Text) and isinstance(model.source, TextFrontend):
        sides.insert(0, ("source", config.data.source, task.source, model.source.embedding))
    lines = []
    if fresh and start is not None:
        adopt(model, start)
    for name, side, text, embedding in sides:
        if side.vectors and fresh and start is None:
            lines.append(f"{name} word vectors: {_load(side, text, embedding, SCALE[name])}")
        if side.vectors and side.freeze:
            embedding.weight.requires_grad_(False)
    if config.model.adapter.name:
        freeze(model, embeddings=config.model.adapter.embeddings)
    return model, lines


@torch.no_grad()
def adopt(model: Seq2Seq, start: Mapping[str, Tensor]) -> None:
    """Give the model these weights. Where a vocabulary has grown, the rows of its new tokens stay as they are."""
    for name, tensor in tensors(model).items():
        old = start.get(name)
        if old is None or old.shape[1:] != tensor.shape[1:] or old.shape[:1] > tensor.shape[:1]:
            raise BundleError("the start's weights do not fit the model", where=WEIGHTS_FILE, got=name)
        tensor[slice(len(old)) if old.ndim else ...].copy_(old)


@torch.no_grad()
def _load(side: Side, text: Text, embedding: nn.Embedding, wanted: float) -> str:
    """Files have numbers of any size. Those far larger than what stands beside them drown positions and shut gates, so
    all are scaled alike."""
    matrix, covered, line = read_vectors(Path(side.vectors), text.vocabulary, embedding.embedding_dim)
    rows = torch.as_tensor(covered)
    values = torch.as_tensor(matrix)[rows].double()
    size = float(values.square().mean().sqrt()) if rows.any() else 0.0
    scale = wanted * embedding.embedding_dim**-0.5 / size if size else 1.0
    embedding.weight[rows] = (values * scale).to(embedding.weight.dtype)
    return f"{line}, scaled by {scale:.3g}"
