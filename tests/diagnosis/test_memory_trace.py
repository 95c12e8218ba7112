"""Live and peak bytes of computations on meta tensors, derived by hand."""

import torch
import torch.nn.functional as F

from guardreasoner.diagnosis.memory_trace import MemoryTrace, efficient_attention


def test_bytes_live_as_long_as_their_tensors() -> None:
    with MemoryTrace(lambda shape: "rows" if len(shape) == 2 else "sums") as trace:
        first = torch.empty(10, 100, device="meta", requires_grad=True)  # 4,000 bytes
        doubled = first * 2
        total = doubled.exp().sum()  # exp keeps its result for the backward pass
        assert trace.live == {"rows": 12_000, "sums": 4}
        total.backward()
        del doubled, total
        assert trace.live == {"rows": 8_000}  # the tensor and its gradient
        assert trace.peak["rows"] == 16_000


def test_a_view_has_no_bytes_and_a_kind_can_be_given_later() -> None:
    with MemoryTrace(lambda shape: "other") as trace:
        weight = torch.empty(8, 8, dtype=torch.bfloat16, device="meta")
        view = weight.T
        trace.hold([view], "weights")
        assert trace.live == {"weights": 128}


def test_attention_saves_no_scores() -> None:
    query, key = torch.empty(1, 4, 1000, 16, device="meta"), torch.empty(1, 2, 1000, 16, device="meta")
    states, sums = 4 * 1000 * 16 * 4, 4 * 1000 * 4
    with efficient_attention(), MemoryTrace(lambda shape: "all") as trace:
        F.scaled_dot_product_attention(query.requires_grad_(), key, key, is_causal=True, enable_gqa=True)
    assert trace.peak["all"] == states + sums  # with scores: another 16 MB


def test_attention_saves_its_mask_in_the_data_type_of_the_query() -> None:
    query = torch.empty(1, 1, 10, 16, dtype=torch.bfloat16, device="meta", requires_grad=True)
    mask = torch.empty(10, 30, dtype=torch.bool, device="meta")
    key = torch.empty(1, 1, 30, 16, dtype=torch.bfloat16, device="meta")
    with efficient_attention(), MemoryTrace(lambda shape: "mask" if shape == (10, 30) else "other") as trace:
        output = F.scaled_dot_product_attention(query, key, key, attn_mask=mask)
        assert trace.live["mask"] == 10 * 30 * 2
        del output
