"""The least work of a training step, in FLOP. Over time and rate of matrix products it is the share of the limit."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder with a gated MLP, and of the adapter on all its linear layers.

    Args:
        hidden: Hidden size.
        queries: Size of a token's queries, over all heads.
        keys: Size of its keys, over all key heads, and of its values.
        inner: Inner size of the MLP.
        layers: Number of layers.
        vocabulary: Rows of the output layer, which has no adapter.
        rank: Rank of the adapter, or 0 if all weights are trained.
    """

    hidden: int
    queries: int
    keys: int
    inner: int
    layers: int
    vocabulary: int
    rank: int = 0


def shape_of(base: str, model: str) -> Shape:
    """Return the sizes in the configs of a base model and of the trained model, which is the same or an adapter."""
    config = json.loads(Path(base, "config.json").read_text())
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_size = config.get("head_dim") or hidden // heads
    adapter = Path(model, "adapter_config.json")
    return Shape(
        hidden,
        heads * head_size,
        config["num_key_value_heads"] * head_size,
        config["intermediate_size"],
        config["num_hidden_layers"],
        config["vocab_size"],
        json.loads(adapter.read_text())["r"] if adapter.is_file() else 0,
    )


@dataclass(frozen=True)
class Positions:
    """The positions of an optimizer step that the loss needs, each counted once.

    Args:
        tokens: Positions.
        visible: Pairs of them that the causal mask leaves, as query and key.
        predicting: Positions from which a completion token is predicted.
        visible_to_predicting: Pairs with one of these as query.
    """

    tokens: int
    visible: int
    predicting: int
    visible_to_predicting: int


def positions_of(step: Sequence[dict[str, Any]]) -> Positions:
    """Return the positions of the examples of a step.

    The tokens with which all prompts start count once, the rest of a prompt once for its example, and completions
    without their last token, from which nothing is predicted.
    """
    shared = shared_tokens([example["prompt"] for example in step])
    tokens, visible, predicting, visible_to_predicting = shared, _visible(0, shared), 0, 0
    for example in step:
        prompt = len(example["prompt"])
        tokens += prompt - shared
        visible += _visible(shared, prompt)
        predicting += 1  # the last token of the prompt
        visible_to_predicting += prompt
        for completion in example["completions"]:
            inputs = len(completion) - 1
            tokens += inputs
            visible += _visible(prompt, prompt + inputs)
            predicting += inputs
            visible_to_predicting += _visible(prompt, prompt + inputs)
    return Positions(tokens, visible, predicting, visible_to_predicting)


def shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Return the number of tokens with which all prompts start; the last token of a prompt is never shared."""
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def useful_flops(step: Sequence[dict[str, Any]], shape: Shape) -> int:
    """Return the least FLOP of an optimizer step, which is the same for all sides: only matrix products count.

    Every position that the loss needs counts once (:func:`positions_of`), above all the instruction that the prompts of
    a step share. Of the last layer, positions that predict nothing need keys and values alone.

    Args:
        step: Token ids of the examples.
        shape: Sizes of the model.
    """
    positions = positions_of(step)
    return linear_flops(positions, shape) + attention_flops(positions, shape)


def attention_flops(positions: Positions, shape: Shape) -> int:
    """Return the FLOP of attention: two products forward, and twice as much backward."""
    pairs = (shape.layers - 1) * positions.visible + positions.visible_to_predicting
    return 3 * 2 * 2 * shape.queries * pairs


def linear_flops(positions: Positions, shape: Shape) -> int:
    """Return the FLOP of the linear layers.

    One costs its forward pass, as much again for the gradient of its input, and as much again for that of its weights.
    With an adapter, frozen weights have no gradient, nor has the input of the first layer, below which nothing is
    trained; the products of the adapter count in addition.
    """
    total = (2 if shape.rank else 3) * 2 * positions.predicting * shape.hidden * shape.vocabulary
    for layer in range(shape.layers):
        needed = positions.predicting if layer == shape.layers - 1 else positions.tokens
        has_gradient = layer > 0 or not shape.rank
        total += (
            _linear(needed, shape.hidden, shape.queries, shape.rank, has_gradient)
            + 2 * _linear(positions.tokens, shape.hidden, shape.keys, shape.rank, has_gradient)
            + _linear(needed, shape.queries, shape.hidden, shape.rank)
            + 2 * _linear(needed, shape.hidden, shape.inner, shape.rank)
            + _linear(needed, shape.inner, shape.hidden, shape.rank)
        )
    return total


def _linear(tokens: int, inputs: int, outputs: int, rank: int, has_gradient: bool = True) -> int:
    """Return the FLOP of a linear layer, forward and backward.

    Args:
        tokens: Number of tokens.
        inputs: Size of the input.
        outputs: Size of the output.
        rank: Rank of the adapter, or 0 if the weights are trained.
        has_gradient: Whether the gradient of the input is needed.
    """
    if not rank:
        return (2 + has_gradient) * 2 * tokens * inputs * outputs
    frozen = (1 + has_gradient) * inputs * outputs
    down, up = (2 + has_gradient) * inputs * rank, 3 * rank * outputs
    return 2 * tokens * (frozen + down + up)


def _visible(start: int, end: int) -> int:
    """Return the pairs of query and key whose query is at a position from ``start`` to before ``end``."""
    return (end * (end + 1) - start * (start + 1)) // 2
