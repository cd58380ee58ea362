"""Products by blocks and by the quick call equal the plain ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from antiphon.models.linear import BLOCKS, Linear, blocks, linear, whole


@pytest.fixture(params=["highest", "medium"])
def route(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both routes of fp32 products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("shape", [(1, 24), (64, 24), (40, 3, 24), (0, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_without_gradients_it_is_the_plain_product(shape: tuple[int, ...], bias: bool, route: str) -> None:
    torch.manual_seed(1)
    layer, x = Linear(24, 1000, bias=bias), torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=0, atol=1e-5)
    layer.double()
    with torch.no_grad():
        torch.testing.assert_close(layer(x.double()), F.linear(x.double(), layer.weight, layer.bias))


@pytest.mark.parametrize("shape", [(1, 24), (5, 13, 24), (64, 24), (3, 700, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_by_blocks_it_is_the_plain_product_with_its_gradients(shape: tuple[int, ...], bias: bool, route: str) -> None:
    torch.manual_seed(1)
    layer, x = Linear(24, 40, bias=bias), torch.randn(shape, requires_grad=True)
    slope = torch.randn(*shape[:-1], 40)
    results = []
    for work in (layer, lambda x: F.linear(x, layer.weight, layer.bias)):
        y = work(x)
        results.append([y, *torch.autograd.grad((y * slope).sum(), [x, *layer.parameters()])])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-4)


def test_the_gradient_is_right_in_double_precision() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        torch.manual_seed(1)
        leaves = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((3, 2, 4), (5, 4), (5,))]
        assert torch.autograd.gradcheck(linear, leaves)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1984, 5000])
def test_blocks_cover_every_row_once_in_few_sizes(count: int) -> None:
    parts = list(blocks(count))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(count))
    assert {part.stop - part.start for part in parts[:-1]} <= set(BLOCKS)
    assert all(len(whole(torch.zeros(count, 2)[part])) in BLOCKS for part in parts)
