"""Training spends its time on matrix products: relative to products of the same shapes on the same machine."""

import random
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, mm_flop

sys.path += [str(Path(__file__).parent.parent / folder) for folder in ("bench", "bench/peers")]

from limits import Product, products, training_flops
from ours import tricks
from training import MODELS

from antiphon.core.batch import Batch, pad
from antiphon.core.config import Config
from antiphon.core.keys import override
from antiphon.models.heads import VocabularyHead
from antiphon.models.seq2seq import build
from antiphon.training.observers import Observer, StepEvent
from antiphon.training.start import fit

WORDS, LENGTH, FLOOR = 6000, 14, 0.35
"""Here Antiphon reaches 0.51 to 0.56, and a plain PyTorch loop about 0.15."""


def settings(model):
    recurrent = model["kind"] != "transformer"
    return {
        "model.encoder.kind": model["kind"], "model.decoder.kind": model["kind"], "model.width": model["width"],
        "model.encoder.layers": model["layers"], "model.decoder.layers": model["layers"], "model.dropout": 0.1,
        "model.feedforward": model["feedforward"], "model.heads": model["heads"], "model.tie": "all",
        "model.residual": not recurrent, "model.norm": "none" if recurrent else "pre", "model.activation": "relu",
        "model.attention": "general" if recurrent else "multihead", "model.positions": "sinusoidal",
        "data.shared": True,
    }  # fmt: skip


class Pace(Observer):
    """The best CPU time of a step and, taken between steps, of its matrix products alone, both a token."""

    def __init__(self, forward, tokens):
        self.forward, self.tokens = forward, tokens
        self.step_best = self.products_best = float("inf")

    def step(self, event: StepEvent):
        self.step_best = min(self.step_best, event.cpu_seconds / event.tokens)
        self.products_best = min(self.products_best, seconds(self.forward) / self.tokens)
        return "stop" if event.step >= 12 else None

    @property
    def share(self):
        return self.products_best / self.step_best


def seconds(forward):
    """CPU time of products of these shapes and of both gradients, each by the faster of the two routes."""
    before = torch.get_float32_matmul_precision()
    total = 0.0
    for product in set(forward):
        a, b = (torch.randn(product.count, *shape) for shape in (product[1:3], product[2:4]))
        times, out = [], torch.bmm(a, b)
        for route in ("highest", "medium"):
            torch.set_float32_matmul_precision(route)
            begun = time.process_time()
            torch.bmm(a, b, out=out)
            times.append(time.process_time() - begun)
        total += 3 * min(times) * forward.count(product)
    torch.set_float32_matmul_precision(before)
    return total


def corpus(pairs):
    draw = random.Random(1)
    return [tuple(" ".join(f"w{draw.randrange(WORDS)}" for _ in range(LENGTH - 1)) for _ in "st") for _ in range(pairs)]


def pace(folder):
    """How training goes on a corpus of sentences of one length."""
    model, pairs = MODELS["t128"], 128
    forward = products(model, WORDS, pairs, LENGTH, LENGTH)
    watch = Pace(forward, 2 * pairs * LENGTH)
    fit(corpus(2500), valid=corpus(4), out=folder, observers=[watch], assignments={
        **settings(model), "data.source.tokenizer": "whitespace", "data.target.tokenizer": "whitespace",
        "data.batch_tokens": 2 * pairs * LENGTH, "training.processes": 1, "training.threads": 1,
        "training.precision": "fp32", "training.metric": "loss", "training.steps": 1000,
        "training.validate_every": 1000,
    })  # fmt: skip
    return watch


def test_training_is_mostly_matrix_products(tmp_path):
    """CPU time, the best of several steps, and again if something came between."""
    shares = []
    for number in range(3):
        shares.append(pace(tmp_path / str(number)).share)
        if shares[-1] > FLOOR:
            return
    raise AssertionError(f"matrix products are {', '.join(f'{share:.0%}' for share in shares)} of the time")


@pytest.mark.parametrize("size", [(16, 4, 8), (8, 16, 8)])
def test_flops_are_what_pytorch_counts(size):
    """Rows in multiples of 64, for small products are filled up to that."""
    pairs, source, target = size
    model = {**MODELS["t128"], "layers": 2}
    network = build(override(Config(), settings(model)).model, 50, 50)
    rows = [pad([[5] * (length - 1) + [3]] * pairs) for length in (source, target)]
    more = {torch.ops.aten.addmm_: lambda into, left, right, **_: mm_flop(left, right)}
    with FlopCounterMode(display=False, custom_mapping=more) as counter:
        network.loss(Batch(*rows)).total.backward()
    assert counter.get_total_flops() == training_flops(products(model, 50, pairs, source, target))


def test_product():
    assert Product(2, 3, 4, 5).flops == 240


def test_every_trick_has_something_to_replace(monkeypatch):
    replaced = []
    monkeypatch.setattr(VocabularyHead, "loss", VocabularyHead.loss)
    monkeypatch.setattr(tricks, "replace", lambda module, name, other: replaced.append(getattr(module, name)))
    tricks.switch_off(list(tricks.OFF))
    assert len(replaced) >= len(tricks.OFF) - 1
