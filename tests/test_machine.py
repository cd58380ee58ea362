"""The probe of matrix products chooses what is fast and right."""

from __future__ import annotations

import torch

from antiphon.core.machine import probe


def test_the_chosen_product_is_exact_to_fp32() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(probe().fp32)
        a, b = torch.randn(300, 700), torch.randn(700, 200)
        assert (a @ b - (a.double() @ b.double())).abs().max() < 1e-3
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_probe_leaves_no_trace_and_is_asked_once() -> None:
    before = torch.get_float32_matmul_precision()
    assert probe() is probe()
    assert torch.get_float32_matmul_precision() == before
    assert probe().rates["bf16"] > 0
    assert "GFLOP/s" in str(probe())
