"""Live and peak bytes of computations on meta tensors, derived by hand."""

import torch
import torch.nn.functional as F
from torch import nn

from guardreasoner.diagnosis.memory_trace import COPIES, MemoryTrace, efficient_attention, mixed_precision
from guardreasoner.model.log_probs import token_logps


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


def test_mixed_precision_copies_the_weight_in_each_call_and_keeps_it_for_the_backward_pass() -> None:
    layer = nn.Linear(30, 20, bias=False, device="meta")
    x = torch.empty(10, 30, device="meta", requires_grad=True)
    with MemoryTrace(lambda shape: "other", torch.bfloat16) as trace, mixed_precision(trace):
        first = layer(x)
        assert first.dtype == torch.bfloat16
        assert trace.live[COPIES] == 2 * 30 * 20
        second = layer(x)
        assert trace.live[COPIES] == 2 * 2 * 30 * 20
        (first.sum() + second.sum()).backward()
        del first, second
        assert trace.live[COPIES] == 0
        with torch.no_grad():
            layer(x)
        assert trace.live[COPIES] == 0
    assert layer(x).dtype == torch.float32


def test_mixed_precision_copies_no_weight_that_has_16_bits() -> None:
    layer = nn.Linear(30, 20, bias=False, device="meta", dtype=torch.bfloat16)
    x = torch.empty(10, 30, device="meta", requires_grad=True)
    with MemoryTrace(lambda shape: "other", torch.bfloat16) as trace, mixed_precision(trace):
        output = layer(x)
        assert trace.live[COPIES] == 0
        assert output.dtype == torch.bfloat16


def test_mixed_precision_has_the_logits_in_16_bits_and_in_float32() -> None:
    hidden, head = torch.empty(40, 8, device="meta"), torch.empty(50, 8, device="meta")
    targets = torch.empty(40, dtype=torch.int64, device="meta")
    for mixed, size in ((None, 4), (torch.bfloat16, 2 + 4)):
        with MemoryTrace(lambda shape: "logits" if 50 in shape else "other", mixed) as trace:
            trace.hold([head], "weights")
            assert token_logps(hidden, head, targets).dtype == torch.float32
        assert trace.peak["logits"] == 40 * 50 * size


def test_mixed_precision_attends_in_16_bits() -> None:
    states = torch.empty(1, 4, 100, 16, device="meta", requires_grad=True)
    with efficient_attention(torch.bfloat16):
        assert F.scaled_dot_product_attention(states, states, states).dtype == torch.bfloat16


def test_mixed_precision_keeps_for_the_backward_pass_what_autocast_keeps() -> None:
    network = nn.Sequential(nn.Linear(30, 40), nn.SiLU(), nn.RMSNorm(40), nn.Linear(40, 20))
    saved: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    x = torch.zeros(10, 30, requires_grad=True)
    # as Lightning does
    autocast = torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        saved.append(network(x))
    given = {tensor.data_ptr() for tensor in (x, *network.parameters())}
    sizes = {tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in saved}
    expected = sum(size for place, size in sizes.items() if place not in given)

    network, x = network.to("meta"), torch.zeros(10, 30, device="meta", requires_grad=True)
    with MemoryTrace(lambda shape: "kept", torch.bfloat16) as trace, mixed_precision(trace):
        trace.hold([x, *network.parameters()], "given")
        output = network(x)
        assert trace.live["kept"] + trace.live[COPIES] == expected
        del output
