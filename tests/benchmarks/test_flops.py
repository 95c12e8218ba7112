"""The least work of a training step: counted by hand, and against the matrix products that our side computes."""

from pathlib import Path
from typing import Any

import pytest
from peers.flops import Shape, linear_flops, positions_of, shape_of, shared_tokens, useful_flops
from torch.utils._python_dispatch import TorchDispatchMode

from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Example, StepCollator
from guardreasoner.model.lora import LoRA
from guardreasoner.model.packing import packed

STEP = [
    {"prompt": [5, 6], "completions": [[7, 8, 9], [4]]},
    {"prompt": [5, 1, 2], "completions": [[3, 3]]},
]
SIZES = {"hidden": 2, "queries": 2, "keys": 1, "inner": 3, "layers": 2, "vocabulary": 10}
ATTENTION = 3 * 4 * 2 * (19 + 16)


class MatrixProducts(TorchDispatchMode):
    """Adds up the FLOP of products of two matrices; attention multiplies more than two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket.__name__ in ("mm", "addmm", "addmm_"):
            left, right = args[-2:]
            self.flops += 2 * left.shape[0] * left.shape[1] * right.shape[1]
        return function(*args, **(kwargs or {}))


def test_the_start_that_all_prompts_share_counts_once() -> None:
    assert shared_tokens([[5, 6], [5, 1, 2]]) == 1
    assert shared_tokens([[5, 6], [5, 6]]) == 1  # a last token predicts
    assert shared_tokens([[1, 2], [2, 2]]) == 0
    positions = positions_of(STEP)
    assert (positions.tokens, positions.predicting) == (1 + 3 + 3, 3 + 2)
    # the shared token sees 1; then 2, 3, 4 in the first example, and 2, 3, 4 in the second
    assert (positions.visible, positions.visible_to_predicting) == (1 + 9 + 9, 9 + 7)


def test_useful_flops_by_hand() -> None:
    first = 7 * (8 + 22)  # queries, keys and values; then the output of attention and the MLP
    last = 7 * 4 + 5 * (4 + 22)
    head = 5 * 2 * 10
    assert useful_flops(STEP, Shape(**SIZES)) == 3 * 2 * (first + last + head) + ATTENTION


def test_a_step_of_an_adapter_needs_no_gradient_of_frozen_weights() -> None:
    frozen = 7 * 8 + 2 * (7 * 22 + 7 * 4 + 5 * (4 + 22) + 5 * 2 * 10)
    first = 7 * ((2 * 2 + 3 * 2) + 2 * (2 * 2 + 3 * 1) + 3 * 4 + 3 * 15)  # queries to values: no gradient of the input
    last = 7 * 2 * 3 * 3 + 5 * 3 * (4 + 4 + 15)
    assert useful_flops(STEP, Shape(**SIZES, rank=1)) == 2 * (frozen + first + last) + ATTENTION


@pytest.mark.parametrize("rank", [0, 2])
def test_our_step_computes_little_more_than_the_least(tiny_base: Path, tmp_path: Path, rank: int) -> None:
    lora = LoRA(r=rank, alpha=4, dropout=0.0) if rank else None
    backbone = Backbone(str(tiny_base), lora=lora)
    backbone.load()
    backbone.save(tmp_path / "model")
    shared = list(range(20, 52))
    step = [
        {"prompt": [*shared, 60 + number, 70], "completions": [list(range(80, 110)), list(range(120, 150 + number))]}
        for number in range(4)
    ]
    examples = [Example(str(row), tuple(row["prompt"]), tuple(map(tuple, row["completions"]))) for row in step]
    (batch,) = StepCollator(0, len(examples), packed)(examples).batches
    with MatrixProducts() as products:
        backbone.completion_logps(batch).sum().backward()
    shape = shape_of(str(tiny_base), str(tmp_path / "model"))
    assert shape.rank == rank
    assert 0.95 < linear_flops(positions_of(step), shape) / products.flops <= 1
