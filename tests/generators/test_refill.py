"""Outputs leave and enter one by one: tokens as transformers gives them, rows never idle for long."""

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

from guardreasoner.generators import Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.plain import PlainGenerator
from guardreasoner.model.backbone import Backbone
from tests.generators.test_local import chi_square_of, nucleus, requests, texts
from tests.model.test_packed_attention import ARCHITECTURES, SHAPE, double, folders
from tests.support.tiny import load

__all__ = ["folders"]  # a fixture

NEW = 20
Key = tuple[str, int]


class Recorded(LocalGenerator):
    """Keeps the tokens of every output, and ends it at a length of its own where one is given."""

    def __init__(self, *arguments: Any, lengths: dict[Key, int] | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.lengths = lengths
        self.tokens: dict[Key, list[int]] = defaultdict(list)

    def _is_end(self, key: Key, count: int, token: int) -> bool:
        self.tokens[key].append(token)
        assert len(self.tokens[key]) == count
        return super()._is_end(key, count, token) if self.lengths is None else count == self.lengths[key]


def asked_of(lengths: Sequence[int], shared: int = 0, k: int = 1) -> list[Request]:
    """Return requests whose prompts have random tokens, the first ``shared`` of them the same."""
    generator = torch.Generator().manual_seed(sum(lengths) + shared)

    def drawn(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 300, (count,), generator=generator).tolist())

    first = drawn(shared)
    return [Request(f"r{n}", first + drawn(length), "", (0,) * k) for n, length in enumerate(lengths)]


def greedy_tokens(backbone: Backbone, request: Request, new: int = NEW) -> list[int]:
    ids = torch.tensor([request.prompt])
    output = backbone.network.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, pad_token_id=0
    )
    return output[0, ids.shape[1] :].tolist()


@contextmanager
def forwards(backbone: Backbone) -> Iterator[list[tuple[int, int]]]:
    """Give the shape (rows, tokens) of every forward pass."""
    shapes: list[tuple[int, int]] = []
    decoder = backbone._decoder()
    handle = decoder.register_forward_pre_hook(
        lambda _, __, named: shapes.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    yield shapes
    handle.remove()


_LOADED: dict[str, Backbone] = {}


def loaded(name: str, folders: Callable[[str], Path]) -> Backbone:
    """Return the backbone of an architecture in float64; a token in six ends a text."""
    if name not in _LOADED:
        backbone = double(load(folders(name)))
        backbone.network.generation_config.eos_token_id = [2, *range(250, 300)]
        _LOADED[name] = backbone
    return _LOADED[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9),
    shared=st.sampled_from([0, 16, 40]),
    rows=st.integers(1, 5),
)
def test_greedy_tokens_are_those_of_transformers(
    name: str, folders: Callable[[str], Path], lengths: list[int], shared: int, rows: int
) -> None:
    backbone, asked = loaded(name, folders), asked_of(lengths, shared)
    generator = Recorded(backbone, NEW, temperature=0.0, batch_size=rows)
    list(generator.generate(asked))
    assert generator.tokens == {(r.record_id, 0): greedy_tokens(backbone, r) for r in asked}


def test_outputs_longer_than_a_block_of_room(folders: Callable[[str], Path]) -> None:
    backbone, (request, *_) = loaded("llama", folders), asked_of([250, 1], 20)
    generator = Recorded(backbone, 270, temperature=0.0, lengths={("r0", 0): 270})
    list(generator.generate([request]))
    backbone.network.generation_config.eos_token_id, ends = None, backbone.network.generation_config.eos_token_id
    expected = greedy_tokens(backbone, request, 270)
    backbone.network.generation_config.eos_token_id = ends
    assert generator.tokens["r0", 0] == expected


@pytest.mark.parametrize("name", ["llama", "mistral-window"])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    shared=st.sampled_from([0, 20]),
    k=st.integers(1, 5),
    rows=st.integers(1, 7),
    chunk=st.integers(1, 6),
    workers=st.integers(1, 3),
    top_p=st.sampled_from([1.0, 0.9]),
)
def test_nothing_around_an_output_changes_it(
    name: str,
    folders: Callable[[str], Path],
    lengths: list[int],
    shared: int,
    k: int,
    rows: int,
    chunk: int,
    workers: int,
    top_p: float,
) -> None:
    backbone, asked = loaded(name, folders), asked_of(lengths, shared, k)
    alone = Recorded(backbone, NEW, top_p=top_p, batch_size=1)
    for request in asked:
        list(alone.generate([request]))
    together = Recorded(backbone, NEW, top_p=top_p, batch_size=rows, chunk=chunk, workers=workers)
    order = [(done.record_id, done.index) for done in together.generate(asked)]
    assert order == [(request.record_id, index) for request in asked for index in range(k)]
    assert together.tokens == alone.tokens
    plain = {(c.record_id, c.index): c.text for c in PlainGenerator(backbone, NEW, top_p=top_p).generate(asked)}
    assert plain == texts(LocalGenerator(backbone, NEW, top_p=top_p), asked)


def test_rows_are_filled_again(folders: Callable[[str], Path]) -> None:
    backbone, asked = loaded("llama", folders), asked_of([5 + n % 3 for n in range(20)], 30, k=2)
    lengths = {(r.record_id, n): 1 + (7 * place + 3 * n) % 19 for place, r in enumerate(asked) for n in range(2)}
    generator = Recorded(backbone, NEW, batch_size=8, lengths=lengths)
    with forwards(backbone) as shapes:
        list(generator.generate(asked))
    assert {key: len(tokens) for key, tokens in generator.tokens.items()} == lengths
    steps = [rows for rows, tokens in shapes if tokens == 1]
    # The first token of an output comes from its prompt; every row of every step gives one of the others.
    assert sum(steps) == sum(lengths.values()) - len(lengths)
    assert max(steps) == 8
    # Batches that wait for their longest output take more steps than rows that are filled again.
    batches = [max(lengths[r.record_id, n] for r in asked[i : i + 4] for n in range(2)) - 1 for i in range(0, 20, 4)]
    assert len(steps) < 0.85 * sum(batches)
    # A prompt is computed once for its outputs, and what all begin with is computed once.
    prompts = [tokens for rows, tokens in shapes if tokens > 1]
    assert prompts[0] == 30
    assert sum(prompts) == sum(len(r.prompt) - 30 for r in asked) + 30


@pytest.mark.parametrize(("limit", "lengths"), [(1, None), (4, (1, 1, 1)), (4, (9, 9, 9)), (4, (1, 9, 2))])
def test_short_outputs_and_the_limit(
    folders: Callable[[str], Path], limit: int, lengths: tuple[int, ...] | None
) -> None:
    backbone, asked = loaded("llama", folders), asked_of([3, 9, 4])
    wanted = {(f"r{n}", 0): one for n, one in enumerate(lengths or (9, 9, 9))}
    generator = Recorded(backbone, limit, batch_size=2, lengths=wanted)
    with forwards(backbone) as shapes:
        found = list(generator.generate(asked))
    assert len(found) == 3
    assert {key: len(tokens) for key, tokens in generator.tokens.items()} == {
        key: min(one, limit) for key, one in wanted.items()
    }
    assert all(done.text == "" for done in found if wanted[done.record_id, done.index] == 1 <= limit)
    if limit == 1 or set(wanted.values()) == {1}:
        assert all(tokens > 1 for _, tokens in shapes)  # no step at all


def test_a_request_with_more_outputs_than_rows_runs_whole(folders: Callable[[str], Path]) -> None:
    backbone, asked = loaded("llama", folders), asked_of([5, 8], k=7)
    generator = Recorded(backbone, NEW, batch_size=3, lengths={(f"r{n}", i): NEW for n in range(2) for i in range(7)})
    with forwards(backbone) as shapes:
        list(generator.generate(asked))
    assert {rows for rows, tokens in shapes if tokens == 1} == {7}


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.9)])
def test_later_tokens_follow_the_distribution(folders: Callable[[str], Path], temperature: float, top_p: float) -> None:
    backbone, (request, *_) = loaded("llama", folders), asked_of([9, 2], 16, k=4000)
    generator = Recorded(backbone, 2, temperature, top_p, lengths={("r0", n): 2 for n in range(4000)})
    list(generator.generate([request]))
    first, _ = Counter(tokens[0] for tokens in generator.tokens.values()).most_common(1)[0]
    found = Counter(tokens[1] for tokens in generator.tokens.values() if tokens[0] == first)
    with torch.no_grad():
        logits = backbone.network(input_ids=torch.tensor([[*request.prompt, first]])).logits[0, -1]
    expected = nucleus((logits / temperature).softmax(-1), top_p)
    assert found.total() > 100
    statistic, freedom = chi_square_of(dict(enumerate((expected * found.total()).tolist())), found)
    # The statistic has mean f and variance 2 f; the seed is fixed, so this never fails by chance.
    assert freedom >= 2
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5


def test_an_adapter_is_part_of_the_network(tiny_base: Path, tiny_adapter: Path) -> None:
    adapted, base = load(tiny_adapter, double=True), load(tiny_base, double=True)
    asked = requests(adapted, 5)
    generator, other = (Recorded(one, NEW, temperature=0.0, batch_size=2) for one in (adapted, base))
    list(generator.generate(asked))
    list(other.generate(asked))
    assert generator.tokens == {(r.record_id, 0): greedy_tokens(adapted, r) for r in asked}
    assert generator.tokens != other.tokens


def test_bfloat16(tiny_base: Path) -> None:
    backbone = load(tiny_base, dtype="bfloat16")
    found = texts(LocalGenerator(backbone, NEW, batch_size=4), requests(backbone, 6, (0, 0)))
    assert len(found) == 12


def test_a_network_that_takes_no_contexts_is_left_to_the_plain_generator(
    tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "gemma2"))
    config = Gemma2Config(**SHAPE, head_dim=8, attn_logit_softcapping=50.0, final_logit_softcapping=None)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    backbone = load(folder)
    generator, asked = LocalGenerator(backbone, 5), requests(backbone, 3, (1, 2))
    with caplog.at_level(logging.INFO, "guardreasoner"):
        found = [texts(generator, asked) for _ in range(2)]
    plain = {(c.record_id, c.index): c.text for c in PlainGenerator(backbone, 5).generate(asked)}
    assert found == [plain, plain]
    said = "this network generates in padded batches: its attention cannot be told what a token sees"
    assert caplog.messages == [said]


def test_finished_rows_leave_a_plain_batch(tiny_base: Path) -> None:
    backbone = load(tiny_base, double=True)
    backbone.network.generation_config.eos_token_id = list(range(250, 300))
    with forwards(backbone) as shapes:
        list(PlainGenerator(backbone, NEW).generate(requests(backbone, seeds=range(4))))
    sizes = [rows for rows, _ in shapes]
    assert sizes[:2] == [6, 24]  # a prompt is computed once for its four outputs
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert len(set(sizes[1:])) > 3
