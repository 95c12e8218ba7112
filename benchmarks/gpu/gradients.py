"""Compares the gradients of packed rows with those of plain rows in fp32: the error of bf16 and of packing."""

import json
from pathlib import Path
from typing import Any

import torch
from peers.machine import setup_torch
from peers.process import read_job
from torch import Tensor

from gpu.jobs import Gradients
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Example, two_row
from guardreasoner.model.packing import packed

FP32_TOLERANCE = 1e-3
"""Largest error of packed rows in fp32, which differ from plain rows by rounding alone."""
BF16_TOLERANCE = 0.1
"""Largest error of packed rows in bf16, whose numbers have 8 significant bits."""
BF16_RATIO = 1.5
"""Largest error of packed rows in bf16, as a multiple of that of plain rows in bf16."""


def gradients(job: Gradients, layout: Any, dtype: Any) -> tuple[float, dict[str, Tensor]]:
    """Return the mean log-probability of a completion token and its gradient, in fp32 on the device."""
    backbone = Backbone(job.model, dtype=dtype)
    backbone.load()
    backbone.to(job.device).eval()
    rows = json.loads(Path(job.examples).read_text())[: job.count]
    examples = [Example(row["id"], tuple(row["prompt"]), tuple(map(tuple, row["completions"]))) for row in rows]
    batch = layout(examples, backbone.prompt_tokenizer.padding).to(torch.device(job.device))
    value = backbone(batch).mean()
    value.backward()
    found = {name: w.grad.float() for name, w in backbone.named_parameters() if w.grad is not None}
    return float(value), found


def error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return ‖g − g₀‖ / ‖g₀‖ over all weights."""
    assert found.keys() == expected.keys()
    difference = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (difference / sum(float(value.square().sum()) for value in expected.values())) ** 0.5


def measure(job: Gradients) -> dict[str, Any]:
    """Return the errors of gradients and mean log-probabilities, the tolerances, and whether they are met."""
    setup_torch(job.device, job.threads)
    value, expected = gradients(job, two_row, "float32")
    errors, values = {}, {"plain fp32": value}
    for name, layout, dtype in (
        ("packed fp32", packed, "float32"),
        ("plain bf16", two_row, "bfloat16"),
        ("packed bf16", packed, "bfloat16"),
    ):
        values[name], found = gradients(job, layout, dtype)
        errors[name] = error(found, expected)
    within = (
        errors["packed fp32"] <= FP32_TOLERANCE
        and errors["packed bf16"] <= BF16_TOLERANCE
        and errors["packed bf16"] <= BF16_RATIO * errors["plain bf16"]
    )
    tolerances = {"packed fp32": FP32_TOLERANCE, "packed bf16": BF16_TOLERANCE, "packed / plain bf16": BF16_RATIO}
    return {"errors": errors, "mean_logps": values, "tolerances": tolerances, "within": within}


if __name__ == "__main__":
    job, result_path = read_job(Gradients)
    result_path.write_text(json.dumps(measure(job)))
