"""The first call of MKL's vector functions, on one thread.

PyTorch computes cosines, exponentials and the like of large float tensors with MKL, each thread a part. MKL chooses the
code of a function at its first call. If several threads make that call at once, one of them may compute its part with
code of lower accuracy: now and then, the first forward pass of a process used cosines that were wrong by 1.5e-4 for
half of the positions (https://github.com/pytorch/pytorch/issues/188792).
"""

from functools import cache

import torch

FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "expm1", "log", "log10", "log1p", "log2"),
    *("sin", "sqrt", "tan", "tanh"),
)
"""Names of PyTorch's functions that MKL computes."""


@cache
def prepare_vector_functions() -> None:
    """Call each function with one number, which one thread computes; later calls of this do nothing."""
    for dtype in (torch.float32, torch.float64):
        one = torch.ones(1, dtype=dtype, device="cpu")  # also where another device is the default
        for name in FUNCTIONS:
            getattr(torch, name)(one)
