"""Log-probabilities of completions from hidden states, without materializing all logits.

Shapes: N completion tokens, B completions, H hidden size, V vocabulary. Log-probabilities are in nats.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from guardreasoner.errors import InputError
from guardreasoner.model.linear_layer import linear, product, subtract_summed_product


@dataclass(frozen=True)
class CompletionLogps:
    """Log-probabilities of whole completions, the input of every objective.

    Args:
        policy: (B,) log π(y | x), summed over the completion's tokens, in nats.
        lengths: (B,) tokens of each completion, including its end token if it has one.
        reference: (B,) log π_ref(y | x), or None for objectives without a reference.
    """

    policy: Tensor
    lengths: Tensor
    reference: Tensor | None = None

    def select(self, index: Tensor) -> "CompletionLogps":
        """Return the completions at ``index``, (b,) int64 or (B,) bool."""
        reference = None if self.reference is None else self.reference[index]
        return CompletionLogps(self.policy[index], self.lengths[index], reference)

    @property
    def log_ratio(self) -> Tensor:
        """(B,) log π(y | x) − log π_ref(y | x); raises ``InputError`` without a reference."""
        if self.reference is None:
            raise InputError("model.objective: a reference-free objective has no log_ratio", "use policy or per_token")
        return self.policy - self.reference

    @property
    def per_token(self) -> Tensor:
        """(B,) mean log-probability per token."""
        return self.policy / self.lengths


def token_logps(hidden: Tensor, head: Tensor, targets: Tensor, chunk: int | None = None) -> Tensor:
    """Return log π(target | preceding tokens) of each target, without materializing all N × V logits.

    Args:
        hidden: (N, H) last hidden state at the position before each target.
        head: (V, H) weight of the output layer.
        targets: (N,) int64 token ids.
        chunk: number of targets whose logits exist at the same time; None chooses it so that there are 2²⁷ logits.

    Returns:
        (N,) in float32, or in float64 if ``hidden`` is float64.
    """
    logps: Tensor = _TokenLogps.apply(hidden, head, targets, chunk or max(1, _LOGITS // len(head)))
    return logps


_LOGITS = 2**27
"""Most logits that exist at the same time: 0.5 GB in float32."""


class _TokenLogps(torch.autograd.Function):
    """log p_target with p = softmax(Wx); ∂/∂x = W_target − pW and ∂/∂W = (e_target − p) xᵀ.

    With a frozen head (LoRA), the forward pass computes the direction of x's gradient and saves no probabilities. With
    a trained head, the probabilities are saved if there is one chunk and recomputed in the backward pass otherwise.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, chunk: int) -> Tensor:
        trained, ctx.chunk = ctx.needs_input_grad[1], chunk
        logps, directions, kept = [], [], None
        for x, target in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = _log_softmax(x, head)
            logps.append(logits.gather(1, target[:, None])[:, 0])
            if trained and len(targets) <= chunk:
                kept = logits.exp_().to(head.dtype)
            elif not trained and ctx.needs_input_grad[0]:
                directions.append(head[target] - product(logits.exp_().to(head.dtype), head))
        if trained:
            ctx.save_for_backward(hidden, head, targets, kept)
        elif directions:
            ctx.save_for_backward(torch.cat(directions))
        return torch.cat(logps) if logps else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.needs_input_grad[1]:
            (direction,) = ctx.saved_tensors
            return direction * gradient[:, None].to(direction), None, None, None
        hidden, head, targets, kept = ctx.saved_tensors
        scale = gradient[:, None].to(hidden)
        to_head = torch.zeros_like(head).index_add_(0, targets, hidden * scale)
        to_hidden = []
        parts = (tensor.split(ctx.chunk) for tensor in (hidden, targets, scale))
        for x, target, weight in zip(*parts, strict=True):
            probabilities = kept if kept is not None else _log_softmax(x, head).exp_().to(head.dtype)
            to_hidden.append((head[target] - product(probabilities, head)) * weight)
            subtract_summed_product(to_head, probabilities, x * weight)
        return torch.cat(to_hidden), to_head, None, None


def _log_softmax(hidden: Tensor, head: Tensor) -> Tensor:
    logits = product(hidden, head.T)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.log_softmax(logits, dim=-1, out=logits)  # in place, because a second (N, V) tensor costs as much again


def sequence_logps(token_logps: Tensor, sequence: Tensor, sequences: int) -> Tensor:
    """Return log π(y | x) = Σ_t log π(y_t | x, y_<t) of each completion.

    Args:
        token_logps: (N,) in nats.
        sequence: (N,) int64, the completion that each token belongs to.
        sequences: B.

    Returns:
        (B,) sums in nats; 0 for a completion without tokens.
    """
    return token_logps.new_zeros(sequences).index_add(0, sequence, token_logps)


def sequence_nll(token_logps: Tensor, sequence: Tensor, sequences: int) -> Tensor:
    """Return the negative log-likelihood of each completion, (B,), in nats per token; arguments as above."""
    tokens = sequence_logps(torch.ones_like(token_logps), sequence, sequences)
    return -sequence_logps(token_logps, sequence, sequences) / tokens


class OutputLayer(nn.Linear):
    """The output layer of a causal language model, which can also score targets without materializing all logits.

    Its weight is only used inside ``forward``, so that sharded weights (FSDP2) are gathered when they are needed.
    """

    def forward(self, hidden: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the logits (N, V), or, given (N,) int64 targets, their log-probabilities (N,) in nats."""
        if targets is None:
            return linear(hidden.to(self.weight.dtype), self.weight)
        return token_logps(hidden, self.weight, targets)


def adopt_output_layer(network: Any) -> None:
    """Make the output layer of a transformers model an :class:`OutputLayer`, in place.

    Only the class changes: the parameter, its name and its tie to the input embedding stay as they are.

    Raises:
        InputError: the output layer is not a plain ``nn.Linear`` without bias.
    """
    head = network.get_output_embeddings()
    if type(head) not in (nn.Linear, OutputLayer) or head.bias is not None:
        raise InputError(f"{type(network).__name__}: an output layer of type {type(head).__name__} is not supported")
    head.__class__ = OutputLayer
