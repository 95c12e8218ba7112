"""Continuous batching: tokens equal those of transformers, and free rows are refilled."""

import logging
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Gemma2Config

from guardreasoner.generators import Request, local, paged_states
from guardreasoner.generators.decode_cache import DecodeCache
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.plain import PlainGenerator
from guardreasoner.model.backbone import Backbone
from tests.support.architectures import ARCHITECTURES, SHAPE, double, folders
from tests.support.sampling import chi_square, greedy_ids, nucleus, record_requests, texts_by_key
from tests.support.tiny import load

__all__ = ["folders"]  # a fixture

NEW = 20
Key = tuple[str, int]


class Recorder(LocalGenerator):
    """Records the tokens of every output; if lengths are given, each output ends at its length."""

    def __init__(self, *arguments: Any, lengths: dict[Key, int] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lengths = lengths
        self.tokens: dict[Key, list[int]] = defaultdict(list)

    def _is_end(self, key: Key, count: int, token: int) -> bool:
        self.tokens[key].append(token)
        assert len(self.tokens[key]) == count
        return super()._is_end(key, count, token) if self.lengths is None else count == self.lengths[key]


def random_requests(lengths: Sequence[int], shared: int = 0, k: int = 1) -> list[Request]:
    """Return requests with random prompts that share a prefix.

    Args:
        lengths: tokens of each prompt after the prefix.
        shared: tokens of the prefix.
        k: outputs per request.
    """
    generator = torch.Generator().manual_seed(sum(lengths) + shared)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 300, (count,), generator=generator).tolist())

    prefix = tokens(shared)
    return [Request(f"r{n}", prefix + tokens(length), "", (0,) * k) for n, length in enumerate(lengths)]


@contextmanager
def recorded_passes(backbone: Backbone) -> Iterator[list[tuple[int, int]]]:
    """Yield a list that receives the shape (rows, tokens) of every forward pass."""
    shapes: list[tuple[int, int]] = []
    decoder = backbone._decoder()
    handle = decoder.register_forward_pre_hook(
        lambda _, __, named: shapes.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    yield shapes
    handle.remove()


_BACKBONES: dict[str, Backbone] = {}


def loaded(name: str, folders: Callable[[str], Path]) -> Backbone:
    """Return the backbone of an architecture in float64; one token in six ends a text."""
    if name not in _BACKBONES:
        backbone = double(load(folders(name)))
        backbone.network.generation_config.eos_token_id = [2, *range(250, 300)]
        _BACKBONES[name] = backbone
    return _BACKBONES[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9),
    shared=st.sampled_from([0, 16, 40]),
    rows=st.integers(1, 5),
)
def test_greedy_tokens_equal_those_of_transformers(
    name: str, folders: Callable[[str], Path], lengths: list[int], shared: int, rows: int
) -> None:
    backbone, requests = loaded(name, folders), random_requests(lengths, shared)
    generator = Recorder(backbone, NEW, temperature=0.0, batch_size=rows)
    list(generator.generate(requests))
    assert generator.tokens == {(r.record_id, 0): greedy_ids(backbone, r, NEW) for r in requests}


def test_outputs_may_outgrow_the_first_block_of_the_cache(folders: Callable[[str], Path]) -> None:
    backbone, (request, *_) = loaded("llama", folders), random_requests([250, 1], 20)
    generator = Recorder(backbone, 270, temperature=0.0, lengths={("r0", 0): 270})
    list(generator.generate([request]))
    backbone.network.generation_config.eos_token_id, ends = None, backbone.network.generation_config.eos_token_id
    expected = greedy_ids(backbone, request, 270)
    backbone.network.generation_config.eos_token_id = ends
    assert generator.tokens["r0", 0] == expected


@pytest.mark.parametrize("name", ["llama", "mistral-window"])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    shared=st.sampled_from([0, 20]),
    k=st.integers(1, 5),
    rows=st.integers(1, 7),
    tokens=st.none() | st.integers(1, 300),
    chunk=st.integers(1, 6),
    workers=st.integers(1, 3),
    top_p=st.sampled_from([1.0, 0.9]),
)
def test_batching_does_not_change_an_output(
    name: str,
    folders: Callable[[str], Path],
    lengths: list[int],
    shared: int,
    k: int,
    rows: int,
    tokens: int | None,
    chunk: int,
    workers: int,
    top_p: float,
) -> None:
    backbone, requests = loaded(name, folders), random_requests(lengths, shared, k)
    separate = Recorder(backbone, NEW, top_p=top_p, batch_size=1)
    for request in requests:
        list(separate.generate([request]))
    together = Recorder(
        backbone, NEW, top_p=top_p, batch_size=rows, chunk=chunk, workers=workers, max_cache_tokens=tokens
    )
    order = [(c.record_id, c.index) for c in together.generate(requests)]
    assert order == [(request.record_id, index) for request in requests for index in range(k)]
    assert together.tokens == separate.tokens
    plain = texts_by_key(PlainGenerator(backbone, NEW, top_p=top_p), requests)
    assert plain == texts_by_key(LocalGenerator(backbone, NEW, top_p=top_p), requests)


@pytest.mark.parametrize("name", ["llama", "mistral-window"])
def test_the_size_of_pages_and_of_groups_of_rows_does_not_change_an_output(
    name: str, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for shared in (0, 20):
        backbone, requests = loaded(name, folders), random_requests([90, *range(1, 30)], shared)
        options: dict[str, Any] = {"temperature": 0.0, "batch_size": 30}
        one_page = Recorder(backbone, NEW, **options)
        list(one_page.generate(requests))
        monkeypatch.setattr(paged_states, "page_tokens", lambda on_cpu: 16)
        monkeypatch.setattr(paged_states, "_GROUP", 4)
        monkeypatch.setattr(local, "prefill_tokens", lambda on_cpu: 50)
        pages = Recorder(backbone, NEW, **options)
        list(pages.generate(requests))
        assert pages.tokens == one_page.tokens
        monkeypatch.undo()


def test_free_rows_are_refilled(folders: Callable[[str], Path]) -> None:
    backbone, requests = loaded("llama", folders), random_requests([5 + n % 3 for n in range(20)], 30, k=2)
    lengths = {(r.record_id, n): 1 + (7 * number + 3 * n) % 19 for number, r in enumerate(requests) for n in range(2)}
    generator = Recorder(backbone, NEW, batch_size=8, lengths=lengths)
    with recorded_passes(backbone) as shapes:
        list(generator.generate(requests))
    assert {key: len(tokens) for key, tokens in generator.tokens.items()} == lengths
    steps = [rows for rows, tokens in shapes if tokens == 1]
    # the first token of an output comes from the prefill; each row of each step gives one of the other tokens
    assert sum(steps) == sum(lengths.values()) - len(lengths)
    assert max(steps) == 8
    # batches that wait for their longest output would take more steps
    static = [max(lengths[r.record_id, n] for r in requests[i : i + 4] for n in range(2)) - 1 for i in range(0, 20, 4)]
    assert len(steps) < 0.85 * sum(static)
    # the shared prefix is computed once, and each prompt once for its outputs
    prefills = [tokens for rows, tokens in shapes if tokens > 1]
    assert prefills[0] == 30
    assert sum(prefills) == sum(len(r.prompt) - 30 for r in requests) + 30


@pytest.mark.parametrize(("limit", "lengths"), [(1, None), (4, (1, 1, 1)), (4, (9, 9, 9)), (4, (1, 9, 2))])
def test_outputs_of_one_token_and_at_the_limit(
    folders: Callable[[str], Path], limit: int, lengths: tuple[int, ...] | None
) -> None:
    backbone, requests = loaded("llama", folders), random_requests([3, 9, 4])
    requested = {(f"r{n}", 0): length for n, length in enumerate(lengths or (9, 9, 9))}
    generator = Recorder(backbone, limit, batch_size=2, lengths=requested)
    with recorded_passes(backbone) as shapes:
        completions = list(generator.generate(requests))
    assert len(completions) == 3
    assert {key: len(tokens) for key, tokens in generator.tokens.items()} == {
        key: min(length, limit) for key, length in requested.items()
    }
    assert all(c.text == "" for c in completions if requested[c.record_id, c.index] == 1 <= limit)
    if limit == 1 or set(requested.values()) == {1}:
        assert all(tokens > 1 for _, tokens in shapes)  # the prefill suffices


def test_the_outputs_of_one_request_run_together_even_if_they_exceed_the_batch(
    folders: Callable[[str], Path],
) -> None:
    backbone, requests = loaded("llama", folders), random_requests([5, 8], k=7)
    generator = Recorder(backbone, NEW, batch_size=3, lengths={(f"r{n}", i): NEW for n in range(2) for i in range(7)})
    with recorded_passes(backbone) as shapes:
        list(generator.generate(requests))
    assert {rows for rows, tokens in shapes if tokens == 1} == {7}


def test_a_long_prompt_does_not_lengthen_the_rows_of_short_ones(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, requests = loaded("llama", folders), random_requests([1500, *[20] * 40])
    cached: list[int] = []
    advance = DecodeCache.advance

    def counted(cache: DecodeCache) -> torch.Tensor:
        positions = advance(cache)
        cached.append(cache.allocated_tokens)
        longest = 1500 if max(cache.lengths) >= 1500 else 20
        assert cache.prompts * longest + len(cache.lengths) * NEW <= 2000
        return positions

    monkeypatch.setattr(DecodeCache, "advance", counted)
    options: dict[str, Any] = {"temperature": 0.0, "batch_size": 32}
    bounded = Recorder(backbone, NEW, max_cache_tokens=2000, **options)
    list(bounded.generate(requests))
    assert max(cached) <= 32 * 128  # at least one page of 64 tokens for a prompt and one for an output
    cached.clear()
    monkeypatch.setattr(DecodeCache, "advance", advance)
    unbounded = Recorder(backbone, NEW, **options)
    list(unbounded.generate(requests))
    assert bounded.tokens == unbounded.tokens


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.9)])
def test_later_tokens_follow_the_distribution(folders: Callable[[str], Path], temperature: float, top_p: float) -> None:
    backbone, (request, *_) = loaded("llama", folders), random_requests([9, 2], 16, k=4000)
    generator = Recorder(backbone, 2, temperature, top_p, lengths={("r0", n): 2 for n in range(4000)})
    list(generator.generate([request]))
    first, _ = Counter(tokens[0] for tokens in generator.tokens.values()).most_common(1)[0]
    observed = Counter(tokens[1] for tokens in generator.tokens.values() if tokens[0] == first)
    with torch.no_grad():
        logits = backbone.network(input_ids=torch.tensor([[*request.prompt, first]])).logits[0, -1]
    expected = nucleus((logits / temperature).softmax(-1), top_p)
    assert observed.total() > 100
    statistic, freedom = chi_square(dict(enumerate((expected * observed.total()).tolist())), observed)
    # the statistic has mean f and variance 2 f; the seed is fixed, so the test does not fail by chance
    assert freedom >= 2
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5


def test_an_adapter_is_applied(tiny_base: Path, tiny_adapter: Path) -> None:
    adapted, base = load(tiny_adapter, double=True), load(tiny_base, double=True)
    requests = record_requests(adapted, 5)
    with_adapter, without = (Recorder(b, NEW, temperature=0.0, batch_size=2) for b in (adapted, base))
    list(with_adapter.generate(requests))
    list(without.generate(requests))
    assert with_adapter.tokens == {(r.record_id, 0): greedy_ids(adapted, r, NEW) for r in requests}
    assert with_adapter.tokens != without.tokens


def test_bfloat16(tiny_base: Path) -> None:
    backbone = load(tiny_base, dtype="bfloat16")
    texts = texts_by_key(LocalGenerator(backbone, NEW, batch_size=4), record_requests(backbone, 6, (0, 0)))
    assert len(texts) == 12


def test_a_network_without_packed_attention_is_run_by_the_plain_generator(
    tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "gemma2"))
    config = Gemma2Config(**SHAPE, head_dim=8, attn_logit_softcapping=50.0, final_logit_softcapping=None)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    backbone = load(folder)
    generator, requests = LocalGenerator(backbone, 5), record_requests(backbone, 3, (1, 2))
    with caplog.at_level(logging.INFO, "guardreasoner"):
        texts = [texts_by_key(generator, requests) for _ in range(2)]
    plain = texts_by_key(PlainGenerator(backbone, 5), requests)
    assert texts == [plain, plain]
    (message,) = caplog.messages
    assert "generating in padded batches" in message


def test_finished_rows_leave_a_plain_batch(tiny_base: Path) -> None:
    backbone = load(tiny_base, double=True)
    backbone.network.generation_config.eos_token_id = list(range(250, 300))
    with recorded_passes(backbone) as shapes:
        list(PlainGenerator(backbone, NEW).generate(record_requests(backbone, seeds=range(4))))
    sizes = [rows for rows, _ in shapes]
    assert sizes[:2] == [6, 24]  # a prompt is computed once for its four outputs
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert len(set(sizes[1:])) > 3
