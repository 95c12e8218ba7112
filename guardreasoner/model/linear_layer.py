"""Float32 matrix products with oneDNN, on processors whose AVX-512 MKL does not use.

PyTorch computes them with MKL, which keeps to AVX2 on processors that are not from Intel. oneDNN, another library that
is part of PyTorch, uses AVX-512 there and takes about half the time. It generates code for each size of a product, so
the number of rows is rounded up to a multiple of 128, or of 32 up to 128.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_BLOCK, _SMALL_BLOCK = 128, 32
_LEAST_WIDTH = 32
"""Least size of each side of a product; adapters of small rank are left to MKL."""
_LEAST_WORK = 2**23
"""Least multiplications of a product that gains more than its padding and the call cost."""


class OneDNNLinear(nn.Linear):
    """A linear layer that computes its larger products with oneDNN, equal to those of ``nn.Linear`` up to rounding."""

    def forward(self, x: Tensor) -> Tensor:
        """Return Wx + b, (..., out), for (..., in)."""
        return linear(x, self.weight, self.bias)


@cache
def gains_from_onednn() -> bool:
    """Return whether the processor has AVX-512 that MKL does not use, and PyTorch has oneDNN."""
    cpu = Path("/proc/cpuinfo")
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and cpu.is_file()
        and "GenuineIntel" not in cpu.read_text(errors="replace")
    )


def use_onednn(network: nn.Module) -> None:
    """Make the plain linear layers of a network :class:`OneDNNLinear` if that gains; only their class changes."""
    if gains_from_onednn():
        for module in network.modules():
            if type(module) is nn.Linear:
                module.__class__ = OneDNNLinear


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return Wx + b.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,) or None.
    """
    rows = x.numel() // max(1, x.shape[-1])
    if torch.compiler.is_compiling() or not _suits(x, weight, rows * weight.numel()):
        return F.linear(x, weight, bias)
    flat = x.reshape(rows, -1)
    output: Tensor = _Product.apply(flat, weight)
    output = output if x.dim() == 2 else output.view(*x.shape[:-1], len(weight))
    return output if bias is None else output + bias


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` of two matrices without a gradient; see :func:`linear` for one with gradients."""
    return _padded(a, b) if _suits(a, b, len(a) * b.numel()) else a @ b


class _Product(torch.autograd.Function):
    """y = xWᵀ; ∂/∂x = gW and ∂/∂W = gᵀx, saving what ``F.linear`` saves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        trains_x, trains_weight = ctx.needs_input_grad
        ctx.save_for_backward(x if trains_weight else None, weight if trains_x else None)
        return _padded(x, weight.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        to_x = None if weight is None else product(gradient, weight)
        return to_x, None if x is None else summed_product(gradient, x)


def summed_product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``aᵀ @ b``, the sum over the rows of two matrices, without a gradient."""
    whole = _whole_rows(a, b)
    if not whole:
        return a.T @ b
    output = _sum_over_rows(a[:whole], b[:whole])
    return output if whole == len(a) else output.addmm_(a[whole:].T, b[whole:])


def subtract_summed_product(target: Tensor, a: Tensor, b: Tensor) -> None:
    """Subtract ``aᵀ @ b`` from a matrix in place; see :func:`summed_product`."""
    whole = _whole_rows(a, b)
    if whole:
        target -= _sum_over_rows(a[:whole], b[:whole])
    if whole < len(a):
        target.addmm_(a[whole:].T, b[whole:], alpha=-1)


def _sum_over_rows(a: Tensor, b: Tensor) -> Tensor:
    """Return ``aᵀ @ b``; oneDNN copies its first operand, which is therefore the smaller one."""
    return _onednn(a.T, b.T) if a.shape[1] <= b.shape[1] else _onednn(b.T, a.T).T


def _whole_rows(a: Tensor, b: Tensor) -> int:
    """Return how many first rows oneDNN sums over, a multiple of 128; the others are left to MKL."""
    whole = len(a) - len(a) % _BLOCK
    return whole if _suits(a, b, whole * a.shape[1] * b.shape[1]) else 0


def _suits(a: Tensor, b: Tensor, work: int) -> bool:
    """Return whether the product of two tensors of float32 on a CPU gains from oneDNN."""
    return (
        work >= _LEAST_WORK
        and bool(torch.backends.mkldnn.enabled)  # the user may turn it off
        and a.device.type == b.device.type == "cpu"
        and a.dtype == b.dtype == torch.float32
        and min(a.shape[-1], *b.shape) >= _LEAST_WIDTH
        and gains_from_onednn()
        and not torch.is_autocast_enabled("cpu")
    )


def _padded(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b``, computed with more rows, so that there are few sizes for which oneDNN generates code."""
    rows = len(a)
    whole = rows - rows % _BLOCK
    if 0 < whole < rows and a.shape[1] > b.shape[1]:  # then the product is smaller than a padded copy of its input
        return torch.cat([_onednn(a[:whole], b.T), _padded(a[whole:], b)])
    block = _BLOCK if rows > _BLOCK else _SMALL_BLOCK
    if missing := -rows % block:
        output = _onednn(F.pad(a, (0, 0, 0, missing)), b.T)
        # not a view, so that the caller may change it in place
        return output.new_empty(0).set_(output.untyped_storage(), 0, (rows, b.shape[1]), (b.shape[1], 1))
    return _onednn(a, b.T)


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    """Return xWᵀ of contiguous or transposed matrices."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return output
