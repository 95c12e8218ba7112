"""Memory of sharded weights by part, with numbers derived by hand."""

import torch

from guardreasoner.diagnosis.sharded_memory import GATHERED, UNREDUCED, sharded_bytes
from guardreasoner.diagnosis.step_memory import GRADIENTS, WEIGHTS, put_on_meta
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.lora import LoRA
from tests.support.planned import LAYER, SHAPE

OTHERS = 100 * 32 + 32
"""Weights outside the layers: the embedding, which is the output layer too, and the last norm."""


def test_a_process_has_its_share_and_three_whole_units() -> None:
    backbone = Backbone("x")
    put_on_meta(backbone, SHAPE, None)
    assert sharded_bytes(backbone, 8, torch.bfloat16) == {
        WEIGHTS: 4 * (4 * LAYER + OTHERS) / 8,
        GRADIENTS: 4 * (4 * LAYER + OTHERS) / 8,
        GATHERED: 2 * (OTHERS + 2 * LAYER),
        UNREDUCED: 2 * OTHERS + LAYER * (2 + 4),
    }


def test_only_adapters_have_gradients() -> None:
    backbone = Backbone("x")
    adapter = put_on_meta(backbone, SHAPE, LoRA()).adapter
    parts = sharded_bytes(backbone, 2, torch.float32)
    assert parts[WEIGHTS] == 4 * (4 * LAYER + OTHERS + adapter) / 2
    assert parts[GRADIENTS] == 4 * adapter / 2
    assert parts[GATHERED] == 4 * (OTHERS + 2 * (LAYER + adapter / 4))
    assert parts[UNREDUCED] == adapter / 4 * (4 + 4)
