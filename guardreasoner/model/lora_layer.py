"""The forward pass of a LoRA layer with its scale and sum inside the second product."""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from guardreasoner.model.linear_layer import OneDNNLinear


class FusedLoraLinear(Linear):
    """A LoRA layer of peft that computes Wx + s·B(Ax) without a scaled copy of B(Ax) and a pass that adds it.

    Cases other than one active adapter on an ``nn.Linear`` or ``OneDNNLinear`` of the same data type use peft's own
    forward pass.
    """

    def forward(self, x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        """Return Wx + s·B(A·dropout(x)), (..., out), for (..., in)."""
        name = self.active_adapters[0] if len(self.active_adapters) == 1 else ""
        if arguments or keywords or not self._is_plain(name, x):
            return super().forward(x, *arguments, **keywords)
        low_rank = self.lora_A[name](self.lora_dropout[name](x)).flatten(0, -2)
        up: Any = self.lora_B[name].weight
        output: Tensor = self.base_layer(x.flatten(0, -2))
        output.addmm_(low_rank, up.T, alpha=self.scaling[name])
        return output.unflatten(0, x.shape[:-1])

    def _is_plain(self, name: str, x: Tensor) -> bool:
        return (
            name in self.lora_A
            and name not in self.lora_variant
            and self.lora_B[name].bias is None
            and type(self.base_layer) in (nn.Linear, OneDNNLinear)
            and x.dtype == self.base_layer.weight.dtype == self.lora_A[name].weight.dtype
            and not (self.disable_adapters or self.merged)
            and not (torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type))
        )


def fuse_lora_layers(network: Any) -> None:
    """Make the plain LoRA layers of a network :class:`FusedLoraLinear`, in place; only their class changes."""
    for module in network.modules():
        if type(module) is Linear:
            module.__class__ = FusedLoraLinear


def unfuse_lora_layers(network: Any) -> None:
    """Undo :func:`fuse_lora_layers`, in place: the layers compute as they do with mixed precision."""
    for module in network.modules():
        if type(module) is FusedLoraLinear:
            module.__class__ = Linear  # type: ignore[assignment]
