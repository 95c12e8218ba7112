"""Memory of weights that several processes share (FSDP2): each one's share, and what is whole for a while."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from guardreasoner.diagnosis.memory_trace import Kind
from guardreasoner.diagnosis.step_memory import GRADIENTS, WEIGHTS
from guardreasoner.model.backbone import Backbone

GATHERED, UNREDUCED = "gathered weights", "whole gradients"

_REDUCED = 4
"""Bytes per gradient while it is added up over the processes, in float32."""


def sharded_bytes(backbone: Backbone, processes: int, compute_dtype: torch.dtype) -> Mapping[Kind, float]:
    """Return the bytes by kind of the weights and gradients that a process holds in a training step.

    The units are those of :func:`guardreasoner.training.sharding.shard`: each decoder layer, and all other weights
    together. Those of the last unit stay gathered from its forward pass to the end of the backward pass; beside them
    are the layer that computes and the next one, which is gathered meanwhile. In the backward pass, the gradients of
    the last unit are complete at the end; beside them are those of a layer and the float32 copy of the layer before,
    which is added up over the processes.

    Args:
        backbone: backbone on meta tensors, in the data type of the shares.
        processes: number of processes.
        compute_dtype: data type of gathered weights and of gradients before they are added up.
    """
    weights = list(backbone.network.parameters())
    layers = [list(layer.parameters()) for layer in backbone.layers()]
    in_layers = {id(weight) for layer in layers for weight in layer}
    others = [weight for weight in weights if id(weight) not in in_layers]
    size = compute_dtype.itemsize
    trained_layer = max(_count(layer, trained=True) for layer in layers)
    trained_others = _count(others, trained=True)
    reduced = max(trained_layer * (size + _REDUCED), trained_others * _REDUCED)
    return {
        WEIGHTS: _bytes(weights) / processes,
        GRADIENTS: _bytes(weight for weight in weights if weight.requires_grad) / processes,
        GATHERED: size * (_count(others) + 2 * max(map(_count, layers))),
        UNREDUCED: size * trained_others + reduced,
    }


def _count(weights: Iterable[Tensor], trained: bool = False) -> int:
    return sum(weight.numel() for weight in weights if weight.requires_grad or not trained)


def _bytes(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)
