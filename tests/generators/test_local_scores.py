"""Scores of given continuations equal those of the full logits of one row each, for every architecture."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.generators import Generator, ScoreRequest, local_scores
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.plain import PlainGenerator
from guardreasoner.model.backbone import Backbone
from tests.support.architectures import ARCHITECTURES, folders
from tests.support.micro_batches import some
from tests.support.scoring import label_requests, naive_scores
from tests.support.tiny import Scripted, load

__all__ = ["folders"]  # a fixture

TOLERANCE = 1e-5
"""Nats by which two sums may differ through rounding in float32."""


@pytest.fixture(params=[LocalGenerator, PlainGenerator])
def engine(request: pytest.FixtureRequest) -> Callable[[Backbone], Generator]:
    return request.param  # type: ignore[no-any-return]


def require_scores(engine: Generator, requests: Sequence[ScoreRequest], expected: Sequence[Sequence[float]]) -> None:
    found = list(engine.score(iter(requests)))
    assert [scores.record_id for scores in found] == [request.record_id for request in requests]
    for scores, logps in zip(found, expected, strict=True):
        assert scores.logps == pytest.approx(logps, abs=TOLERANCE, rel=1e-6)  # sums reach some hundred nats


def edge_cases() -> list[ScoreRequest]:
    """Requests with a shared prefix, whose continuations are short, long, equal, nested or empty."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 300, (count,), generator=generator).tolist())

    prefix, reasoning, block = draw(20), draw(30), draw(3)
    return [
        ScoreRequest("nested", (*prefix, 9), ((5,), (5, 6), (5, 6, 7), (5, 8), (5, 6, 7, 8, 9), (4,))),
        ScoreRequest("long", prefix + draw(90), (reasoning + block, (*reasoning, 5, *block), (*reasoning, 5, 6))),
        ScoreRequest("empty", prefix + draw(2), ((), (7, 8), ())),
        ScoreRequest("none", prefix + draw(2), ()),
        ScoreRequest("only empty", prefix + draw(2), ((),)),
        ScoreRequest("equal", prefix + draw(4), (block, block)),
        ScoreRequest("one", (*prefix, 3), (draw(50),)),
    ]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_are_those_of_full_logits(name: str, folders: Callable[[str], Path]) -> None:
    backbone, requests = load(folders(name)), edge_cases()
    expected = [naive_scores(backbone, request) for request in requests]
    for engine in (LocalGenerator(backbone), PlainGenerator(backbone)):
        require_scores(engine, requests, expected)
        require_scores(engine, requests[:1], expected[:1])  # alone, no prefix is shared


def test_large_trees_attend_segment_by_segment(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, requests = load(tiny_base), edge_cases()
    expected = [scores.logps for scores in LocalGenerator(backbone).score(requests)]
    monkeypatch.setattr("guardreasoner.model.packed_attention._MAX_MASKED", 0)
    require_scores(LocalGenerator(backbone), requests, expected)


def test_an_adapter_takes_part(tiny_adapter: Path, tiny_base: Path) -> None:
    adapted, base = load(tiny_adapter), load(tiny_base)
    requests = label_requests(adapted, 4)
    expected = [naive_scores(adapted, request) for request in requests]
    for engine in (LocalGenerator(adapted), PlainGenerator(adapted)):
        require_scores(engine, requests, expected)
    assert expected[0] != pytest.approx(naive_scores(base, requests[0]), abs=0.1)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    prompts=st.lists(some, min_size=1, max_size=3),
    continuations=st.lists(st.lists(st.integers(3, 5), max_size=6).map(tuple), max_size=5),
)
def test_any_tree_of_continuations(
    tiny_base: Path, prompts: list[tuple[int, ...]], continuations: list[tuple[int, ...]]
) -> None:
    if "tiny" not in _LOADED:
        _LOADED["tiny"] = load(tiny_base)
    requests = [ScoreRequest(str(n), ids, tuple(continuations[n:])) for n, ids in enumerate(prompts)]
    expected = [naive_scores(_LOADED["tiny"], request) for request in requests]
    require_scores(LocalGenerator(_LOADED["tiny"]), requests, expected)


_LOADED: dict[str, Backbone] = {}


def test_scores_do_not_depend_on_the_batch(
    tiny_base: Path, engine: Callable[[Backbone], Generator], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = engine(load(tiny_base))
    requests = label_requests(generator.backbone, 9)  # type: ignore[attr-defined]
    together = [scores.logps for scores in generator.score(requests)]
    alone = [next(generator.score([request])).logps for request in requests]
    monkeypatch.setattr(local_scores, "_WINDOW", 4)
    monkeypatch.setattr(local_scores, "_MAX_TOKENS", 300)
    in_parts = [scores.logps for scores in generator.score(reversed(requests))][::-1]
    for logps, others, split in zip(together, alone, in_parts, strict=True):
        assert logps == pytest.approx(others, abs=TOLERANCE)
        assert logps == pytest.approx(split, abs=TOLERANCE)


def test_each_distinct_token_is_computed_once(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load(tiny_base)
    widths: list[int] = []
    heads: list[int] = []
    backbone._decoder().register_forward_pre_hook(
        lambda _, __, named: widths.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    backbone.network.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: heads.append(len(inputs[0])))
    prefix, reasoning = tuple(range(20, 40)), tuple(range(100, 150))
    requests = [
        ScoreRequest(str(n), (*prefix, n), ((*reasoning, 5, 7, 8), (*reasoning, 6, 7, 8), (*reasoning, 6, 7, 9)))
        for n in range(3, 6)
    ]
    list(LocalGenerator(backbone, workers=1).score(requests))
    # the prefix, then each prompt with its reasoning and two runs after the two labels, without the last tokens
    assert widths == [20, 3 * (1 + 50 + 2 + 2)]
    assert heads == [3 * (50 + 2 + 2 + 3)]
    monkeypatch.setattr(local_scores, "_MAX_TOKENS", 60)
    widths.clear()
    list(LocalGenerator(backbone, workers=1).score(requests))
    assert widths == [20, 55, 55, 55]


def test_requests_are_read_a_window_at_a_time(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load(tiny_base)
    monkeypatch.setattr(local_scores, "_WINDOW", 2)
    read: list[str] = []

    def requests() -> Iterator[ScoreRequest]:
        for request in label_requests(backbone, 5):
            read.append(request.record_id)
            yield request

    next(LocalGenerator(backbone).score(requests()))
    assert len(read) == 2


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="record x: the prompt has no tokens"):
        ScoreRequest("x", (), ((1,),))


def test_an_engine_that_cannot_score_says_which_can() -> None:
    generator = Scripted([], lambda record, index: "")
    assert not generator.can_score
    with pytest.raises(InputError, match="Scripted cannot score continuations") as caught:
        generator.score([])
    assert "VLLMGenerator" in (caught.value.hint or "")


def test_a_network_without_packed_rows_gets_plain_rows(tiny_base: Path) -> None:
    backbone = load(tiny_base)
    requests = label_requests(backbone, 3)
    packed = [scores.logps for scores in LocalGenerator(backbone).score(requests)]
    backbone.supports_packing = False
    plain = [scores.logps for scores in LocalGenerator(backbone).score(requests)]
    for logps, others in zip(packed, plain, strict=True):
        assert logps == pytest.approx(others, abs=TOLERANCE)
