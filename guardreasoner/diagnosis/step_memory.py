"""Memory of a training step, traced: the real code runs on meta tensors of the real shapes, without weights or data."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from guardreasoner.diagnosis.memory_trace import Kind, MemoryTrace, efficient_attention, mixed_precision
from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch
from guardreasoner.model.loading import LOADING_ERRORS
from guardreasoner.model.log_probs import adopt_output_layer
from guardreasoner.model.lora import LoRA, add_adapter, prepared

WEIGHTS, GRADIENTS, OPTIMIZER = "weights", "gradients", "optimizer"
ACTIVATIONS, OUTPUT, REFERENCE, CACHE = "activations", "output layer", "reference", "KV cache"

_SAMPLED_SHAPE = (64, 128)
"""Shape of the parameter whose optimizer state is measured; some optimizers keep smaller ones in 32 bits."""
_ADAM = 8


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters.

    Args:
        base: of the base model.
        adapter: of the adapter.
        trained: that are trained.
        trained_bytes: bytes of those that are trained.
        saved_bytes: bytes of the weights that a fit saves.
    """

    base: int
    adapter: int
    trained: int
    trained_bytes: int
    saved_bytes: int


class _FourBitLinear(nn.Linear):
    """Shapes of a bitsandbytes layer with NF4 weights and double quantization.

    Its weight is one row of bytes: half a byte per weight, one byte per 64 weights, four bytes per 64 × 256 weights.
    """

    def __init__(self, layer: nn.Linear, compute_dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.compute_dtype = compute_dtype
        size = four_bit_bytes(layer.weight.numel())
        self.weight = nn.Parameter(torch.empty(size, dtype=torch.uint8, device="meta"), requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        shape = self.out_features, self.in_features
        return _FourBitProduct.apply(x.to(self.compute_dtype), shape).to(x.dtype)


class _FourBitProduct(torch.autograd.Function):
    """Product with a weight that is dequantized for the call and not saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.shape = shape
        weight = x.new_empty(shape)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0] @ gradients[0].new_empty(ctx.shape), None


def four_bit_bytes(weights: int) -> int:
    """Return the bytes of NF4 weights with double quantization."""
    return weights // 2 + weights // 64 + 4 * -(-weights // (64 * 256))


def put_on_meta(backbone: Backbone, config: Any, lora: LoRA | None) -> Parameters:
    """Give a backbone its network without weights.

    Args:
        backbone: a backbone that is not loaded.
        config: configuration of the base model.
        lora: the adapter that is added or continued; None trains all weights.

    Raises:
        InputError: transformers has no network for the configuration, or it does not support packed rows.
    """
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    dtype = getattr(torch, backbone.dtype)
    try:
        with torch.device("meta"), no_init_weights():
            network = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
            network.tie_weights()
    except LOADING_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{backbone.path}: its config.json cannot be used: {reason}") from error
    base = sum(weight.numel() for weight in network.parameters())
    if backbone.quantization:
        _quantize(network, dtype)
    adopt_output_layer(network)
    if lora is not None:
        with torch.device("meta"):
            network = add_adapter(prepared(network, bool(backbone.quantization)), lora)
    backbone.use(network)
    if not backbone.supports_packing:
        raise InputError(f"{backbone.path}: the plan only knows networks that support packed rows")
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    count = sum(weight.numel() for weight in trained)
    saved = trained if lora else list(network.parameters())
    return Parameters(base, count if lora else 0, count, _bytes(trained), _bytes(saved))


def _quantize(network: Any, dtype: torch.dtype) -> None:
    network.is_loaded_in_4bit = True  # what peft asks
    output = network.get_output_embeddings()
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and layer is not output:
                setattr(parent, name, _FourBitLinear(layer, dtype))


def trace_step(
    backbone: Backbone,
    batches: Sequence[Batch],
    trains: bool = True,
    frozen: str | None = None,
    mixed: torch.dtype | None = None,
    keeps_gradients: bool = True,
) -> Mapping[Kind, int]:
    """Return the bytes by kind when most are live during the forward and backward passes of a step.

    Args:
        backbone: backbone on meta tensors.
        batches: micro-batches of the step, in order; without training, each is a step of its own.
        trains: whether gradients are computed.
        frozen: the reference of HS-DPO that is in memory: "FrozenCopy", "FrozenAdapter" or None.
        mixed: data type of matrix products with mixed precision; None without it.
        keeps_gradients: whether the gradient of a weight stays; else it is freed as soon as it is complete.
    """
    if mixed is not None and backbone.has_adapter:
        from guardreasoner.model.lora_layer import unfuse_lora_layers  # imports peft

        unfuse_lora_layers(backbone.network)
    with _traced(backbone, mixed) as trace:
        reference = 0
        if frozen == "FrozenCopy":
            reference = _bytes(backbone.network.parameters())
        elif frozen == "FrozenAdapter":
            reference = _bytes(weight for weight in backbone.network.parameters() if weight.requires_grad)
        if trains:
            _run_backward(backbone, batches, trace, frozen is not None, keeps_gradients)
        else:
            with torch.no_grad():
                for batch in batches:
                    backbone(batch.to(torch.device("meta")))
    return Counter(trace.peak) + Counter({REFERENCE: reference})


def _run_backward(
    backbone: Backbone, batches: Sequence[Batch], trace: MemoryTrace, with_reference: bool, keeps_gradients: bool
) -> None:
    """Run the passes of :func:`guardreasoner.training.step.take_step`."""

    def completed(weight: Tensor) -> None:
        assert weight.grad is not None
        if keeps_gradients:
            trace.hold([weight.grad], GRADIENTS)
        else:
            weight.grad = None

    hooks = [
        weight.register_post_accumulate_grad_hook(completed)
        for weight in backbone.network.parameters()
        if weight.requires_grad
    ]
    moved = [batch.to(torch.device("meta")) for batch in batches]
    prefix = backbone.encode_prefix(moved[0].prefix_ids) if len(moved) > 1 else None
    copy = prefix and prefix.detached()
    for index, batch in enumerate(moved):
        last = index + 1 == len(moved)
        loss = backbone(batch, prefix if last else copy).sum()
        if with_reference:
            with torch.no_grad():
                backbone(batch)
        if last and prefix and copy:
            loss = loss + prefix.surrogate_loss(copy)
        loss.backward()
    for hook in hooks:
        hook.remove()
    backbone.zero_grad()


@contextmanager
def _traced(backbone: Backbone, mixed: torch.dtype | None) -> Iterator[MemoryTrace]:
    vocabulary = backbone.network.get_output_embeddings().weight.shape[0]
    trace = MemoryTrace(lambda shape: OUTPUT if vocabulary in shape and len(shape) > 1 else ACTIVATIONS, mixed)
    trace.hold([*backbone.network.parameters(), *backbone.network.buffers()], WEIGHTS)
    with efficient_attention(mixed), mixed_precision(trace), trace:
        yield trace


def set_mode(backbone: Backbone, dropout: bool) -> None:
    """Set the mode of the network as the training modules do.

    Args:
        backbone: the backbone.
        dropout: whether dropout is on (R-SFT); layers that checkpoint their activations do so either way.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    backbone.train(dropout)
    for layer in backbone.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True


def optimizer_bytes(optimizer: Callable[[Any], Optimizer], dtype: torch.dtype) -> float:
    """Return the bytes of an optimizer's state per trained parameter, measured on a small parameter.

    An optimizer that does not run here (:func:`optimizer_runs`) is taken for Adam with 32-bit moments.

    Args:
        optimizer: function of the parameters.
        dtype: data type of the trained weights.
    """
    state = _optimizer_state(optimizer, dtype)
    return _ADAM if state is None else _bytes(state) / math.prod(_SAMPLED_SHAPE)


def optimizer_runs(optimizer: Callable[[Any], Optimizer], dtype: torch.dtype) -> bool:
    """Return whether an optimizer can make a step on this machine, which optimizers for GPUs cannot without one."""
    return _optimizer_state(optimizer, dtype) is not None


def _optimizer_state(optimizer: Callable[[Any], Optimizer], dtype: torch.dtype) -> list[Tensor] | None:
    """Return the tensors that an optimizer keeps for a small parameter; None if it does not run here."""
    weight = nn.Parameter(torch.zeros(_SAMPLED_SHAPE, dtype=dtype))
    weight.grad = torch.zeros_like(weight)
    try:
        sample = optimizer([weight])
        sample.step()
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError):
        return None
    return [value for value in sample.state[weight].values() if isinstance(value, Tensor) and value.numel() > 1]


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
