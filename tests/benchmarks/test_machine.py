"""What benchmarks measure of the machine itself."""

import time

import pytest
import torch
from peers.machine import matrix_peak


@pytest.mark.parametrize(("seconds", "sizes"), [(0.002, {1024}), (2.0, {1024, 2048})])
def test_slow_products_are_not_followed_by_larger_ones(
    seconds: float, sizes: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    multiplied = set()

    def product(left: torch.Tensor, _: torch.Tensor) -> None:
        multiplied.add(len(left))
        time.sleep(0.01)

    monkeypatch.setattr("torch.matmul", product)
    monkeypatch.setattr("guardreasoner.model.linear_layer.product", product)
    assert 0 < matrix_peak("fp32", "cpu", seconds=seconds) < 2 * 2048**3 / 0.01
    assert multiplied == sizes
