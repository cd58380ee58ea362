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
            lines.append(f"{name} word vectors: {_load(side, text, embedding)}")
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
def _load(side: Side, text: Text, embedding: nn.Embedding) -> str:
    matrix, covered, line = read_vectors(Path(side.vectors), text.vocabulary, embedding.embedding_dim)
    rows = torch.as_tensor(covered)
    embedding.weight[rows] = torch.as_tensor(matrix)[rows].to(embedding.weight.dtype)
    return str(line)
