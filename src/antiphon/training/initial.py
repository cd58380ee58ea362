"""The weights that training begins with: fresh ones, and word vectors where the settings name a file of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from antiphon.core.config import Config, Side
from antiphon.data.modalities import Text
from antiphon.data.vectors import read_vectors
from antiphon.inference.task import Task
from antiphon.models.seq2seq import Seq2Seq, build


def make_model(config: Config, task: Task, *, fresh: bool) -> tuple[Seq2Seq, list[str]]:
    """The model of a configuration, and what is to be told about its word vectors.

    Without `fresh` no vector file is read, since a checkpoint has the weights; what is frozen is so either way.
    """
    sizes = len(task.source.vocabulary), len(task.target.vocabulary)
    model = build(config.model, *sizes, seed=config.training.seed)
    sides = [("source", config.data.source, task.source, model.source.embedding)]
    sides += [("target", config.data.target, task.target, model.target.embedding)]
    lines = []
    for name, side, text, embedding in sides:
        if side.vectors and fresh:
            lines.append(f"{name} word vectors: {_load(side, text, embedding)}")
        if side.vectors and side.freeze:
            embedding.weight.requires_grad_(False)
    return model, lines


@torch.no_grad()
def _load(side: Side, text: Text, embedding: nn.Embedding) -> str:
    matrix, covered, line = read_vectors(Path(side.vectors), text.vocabulary, embedding.embedding_dim)
    rows = torch.as_tensor(covered)
    embedding.weight[rows] = torch.as_tensor(matrix)[rows].to(embedding.weight.dtype)
    return str(line)
