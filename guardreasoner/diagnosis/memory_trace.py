"""Memory of a computation on meta tensors, which have shapes and no data: live bytes by kind, and their peak."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Kind = str
"""What bytes are for, such as "weights" or "activations"."""

COPIES: Kind = "16-bit copies"
"""Copies of weights that mixed precision makes for matrix products."""

_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.bmm.default)


class MemoryTrace(TorchDispatchMode):
    """Follows the tensors of a computation from their creation until they are freed.

    Args:
        kind_of: returns the kind of a new tensor from its shape.
        mixed: data type of matrix products with mixed precision (:func:`mixed_precision`); None without it.

    Attributes:
        peak: bytes by kind at the moment when most bytes were live.
    """

    def __init__(self, kind_of: Callable[[tuple[int, ...]], Kind], mixed: torch.dtype | None = None) -> None:
        super().__init__()
        self.kind_of = kind_of
        self.mixed = mixed
        self.peak: Counter[Kind] = Counter()
        self._live: Counter[Kind] = Counter()
        self._kinds: dict[int, tuple[Kind, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.mixed is not None and func in _PRODUCTS:
            args = [self._converted(argument, self.mixed) for argument in args]
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self._add(tensor, self.kind_of(tuple(tensor.shape)))
        return output

    def hold(self, tensors: Iterable[Tensor], kind: Kind) -> None:
        """Count tensors that exist already, such as weights; those that are counted change their kind."""
        for tensor in tensors:
            self._add(tensor, kind)
            key = tensor.untyped_storage()._cdata
            before, size = self._kinds[key]
            self._kinds[key] = kind, size
            self._live[before] -= size
            self._live[kind] += size

    @property
    def live(self) -> Counter[Kind]:
        """Bytes by kind now."""
        return +self._live

    def _add(self, tensor: Tensor, kind: Kind) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._kinds:
            return
        self._kinds[key] = kind, storage.nbytes()
        self._live[kind] += storage.nbytes()
        finalize(storage, self._free, key)
        if self._live.total() > self.peak.total():
            self.peak = +self._live

    def _converted(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        copy = tensor.to(dtype)
        self._add(copy, self.kind_of(tuple(copy.shape)))
        return copy

    def _free(self, key: int) -> None:
        kind, size = self._kinds.pop(key)
        self._live[kind] -= size


class _Attention(torch.autograd.Function):
    """Shapes of a memory-efficient attention.

    For the backward pass it saves its inputs, its output, one float32 number per query and head, and the mask, which
    PyTorch converts to the data type of the query.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        output = torch.empty_like(query)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, sums, None if mask is None else mask.to(query.dtype))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


@contextmanager
def efficient_attention(mixed: torch.dtype | None = None) -> Iterator[None]:
    """Replace PyTorch's attention: on meta tensors, it would take the path that stores every score.

    A ``TorchFunctionMode`` would not do, because it is off while a backward pass computes checkpointed layers again.

    Args:
        mixed: data type of the attention with mixed precision; None without it.
    """

    def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **others: Any) -> Tensor:
        if mixed is not None:
            query, key, value = query.to(mixed), key.to(mixed), value.to(mixed)
        output: Tensor = _Attention.apply(query, key, value, attn_mask)
        return output

    own = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = own


@contextmanager
def mixed_precision(trace: MemoryTrace) -> Iterator[None]:
    """Do what ``torch.autocast`` does, which leaves meta tensors as they are: convert the inputs of matrix products.

    Lightning turns the cache of autocast off, so each call of a layer has a copy of its weight, which is freed with the
    call unless its backward pass needs it. Products inside autograd functions are converted by the trace.

    Args:
        trace: the trace, which counts the copies of weights apart; without ``mixed`` nothing is changed.
    """
    own, dtype = F.linear, trace.mixed

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if dtype is None:
            return own(x, weight, bias)
        copy = weight.to(dtype)
        if copy is not weight:
            trace.hold([copy], COPIES)
        return own(x.to(dtype), copy, None if bias is None else bias.to(dtype))

    F.linear = linear  # type: ignore[assignment]
    try:
        yield
    finally:
        F.linear = own
