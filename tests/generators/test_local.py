"""Local generation: greedy texts, independence of outputs, sampled distributions."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.generators import Generator, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.plain import PlainGenerator
from guardreasoner.model.backbone import Backbone
from tests.support.architectures import make_model_folder
from tests.support.sampling import chi_square, greedy_ids, nucleus, record_requests, texts_by_key
from tests.support.tiny import load

NEW = 24


@pytest.fixture(scope="module")
def backbone(tiny_base: Path) -> Backbone:
    """In float64, so that rounding does not decide between two tokens; one token in six ends a text."""
    backbone = load(tiny_base, double=True)
    backbone.network.generation_config.eos_token_id = list(range(250, 300))
    return backbone


def all_end_tokens(backbone: Backbone) -> set[int]:
    return {backbone.prompt_tokenizer.end, *backbone.network.generation_config.eos_token_id}


def greedy_text(backbone: Backbone, request: Request) -> str:
    ids = greedy_ids(backbone, request, NEW)
    stop = next((position for position, token in enumerate(ids) if token in all_end_tokens(backbone)), len(ids))
    return backbone.prompt_tokenizer.decode(ids[:stop])


def test_greedy_texts_equal_those_of_transformers(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = record_requests(backbone)
    assert len({len(request.prompt) for request in requests}) > 2
    # the sixth token of one text becomes an end token, so that some texts end early
    ends = [*backbone.network.generation_config.eos_token_id, greedy_ids(backbone, requests[2], NEW)[5]]
    monkeypatch.setattr(backbone.network.generation_config, "eos_token_id", ends)
    texts = texts_by_key(LocalGenerator(backbone, NEW, temperature=0.0), requests)
    assert texts == {(r.record_id, 0): greedy_text(backbone, r) for r in requests}
    assert len({len(text) for text in texts.values()}) > 1


def test_greedy_texts_with_a_sliding_window(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(make_model_folder("Mistral", tiny_base, tmp_path / "m", sliding_window=16), double=True)
    backbone.network.generation_config.eos_token_id = [2, 3]
    requests = record_requests(backbone, 4)
    texts = texts_by_key(LocalGenerator(backbone, NEW, temperature=0.0), requests)
    assert texts == {(r.record_id, 0): greedy_text(backbone, r) for r in requests}


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_an_output_does_not_depend_on_other_outputs(backbone: Backbone, top_p: float) -> None:
    requests = record_requests(backbone, seeds=(0, 0, 7))

    def generator(batch_size: int) -> LocalGenerator:
        return LocalGenerator(backbone, NEW, temperature=1.0, top_p=top_p, batch_size=batch_size)

    together = texts_by_key(generator(128), requests)
    assert together == texts_by_key(generator(7), requests)
    assert together == texts_by_key(generator(128), requests[::-1])
    separate = [texts_by_key(generator(1), [request]) for request in requests]
    assert together == {key: text for texts in separate for key, text in texts.items()}


def test_without_most_end_tokens_texts_only_grow(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = record_requests(backbone, seeds=range(4))
    texts = texts_by_key(LocalGenerator(backbone, NEW), requests)
    monkeypatch.setattr(backbone.network.generation_config, "eos_token_id", [2])
    longer = texts_by_key(LocalGenerator(backbone, NEW), requests)
    assert all(longer[key].startswith(text.rstrip("\ufffd")) for key, text in texts.items())
    assert sum(map(len, longer.values())) > 2 * sum(map(len, texts.values()))


def test_texts_are_determined_by_seed_and_index(backbone: Backbone) -> None:
    generator = LocalGenerator(backbone, NEW)
    first, again, other = (texts_by_key(generator, record_requests(backbone, 4, (seed, seed))) for seed in (3, 3, 4))
    assert first == again
    assert all(first[key] != other[key] for key in first)
    assert all(first[f"train/0{n}", 0] != first[f"train/0{n}", 1] for n in range(4))


def test_every_request_gets_one_output_per_seed(backbone: Backbone) -> None:
    requests = record_requests(backbone, 5, (1, 2, 3))
    for batch_size in (1, 4, 100):
        completions = list(LocalGenerator(backbone, 4, batch_size=batch_size).generate(iter(requests)))
        assert sorted((c.record_id, c.index) for c in completions) == [
            (request.record_id, index) for request in requests for index in range(3)
        ]
    assert texts_by_key(LocalGenerator(backbone, 4), []) == {}


@pytest.mark.parametrize("engine", [LocalGenerator, PlainGenerator])
def test_an_output_says_whether_it_has_ended_by_itself(engine: type[Generator], backbone: Backbone) -> None:
    completions = list(engine(backbone, 6).generate(record_requests(backbone, seeds=range(4))))
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        has_ended = completion.ids[-1] in all_end_tokens(backbone)
        assert completion.finish_reason == ("stop" if has_ended else "length")
        assert completion.completion_tokens == len(completion.ids) - has_ended


@pytest.mark.parametrize(("chunk", "sizes"), [(None, [3, 2]), (4, [4, 1]), (1, [1] * 5)])
def test_a_few_requests_are_divided_among_the_workers_unless_a_size_is_set(
    backbone: Backbone, chunk: int | None, sizes: list[int]
) -> None:
    engine = LocalGenerator(backbone, 2, temperature=0.0, workers=2, chunk=chunk)
    assert [len(group) for group in engine.generate_groups(record_requests(backbone, 5))] == sizes


def test_max_new_tokens_limits_forward_passes(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = record_requests(backbone, 1)
    monkeypatch.setattr(backbone.network.generation_config, "eos_token_id", None)
    passes: list[int] = []
    handle = backbone.network.model.register_forward_hook(lambda *arguments: passes.append(1))
    for limit in (1, 5):
        passes.clear()
        texts_by_key(LocalGenerator(backbone, limit, temperature=0.0), requests)
        assert len(passes) == limit
    handle.remove()


def first_token_probabilities(backbone: Backbone, request: Request, temperature: float) -> Tensor:
    with torch.no_grad():
        logits = backbone.network(input_ids=torch.tensor([request.prompt])).logits[0, -1]
    return (logits.double() / temperature).softmax(-1)


def text_chi_square(backbone: Backbone, probabilities: Tensor, observed: Counter[str]) -> tuple[float, int]:
    """Return the statistic and degrees of freedom of one-token texts; end tokens give the empty text."""
    expected: Counter[str] = Counter()
    for token, probability in enumerate(probabilities.tolist()):
        text = "" if token in all_end_tokens(backbone) else backbone.prompt_tokenizer.decode([token])
        expected[text] += probability * observed.total()
    return chi_square(expected, observed)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.9), (0.7, 0.5)])
def test_samples_follow_the_distribution(backbone: Backbone, temperature: float, top_p: float) -> None:
    (request,) = record_requests(backbone, 1, [0] * 2000)
    generator = LocalGenerator(backbone, 1, temperature=temperature, top_p=top_p)
    observed = Counter(completion.text for completion in generator.generate([request]))
    probabilities = nucleus(first_token_probabilities(backbone, request, temperature), top_p)
    statistic, freedom = text_chi_square(backbone, probabilities, observed)
    # the statistic has mean f and variance 2 f; the seed is fixed, so the test does not fail by chance
    assert freedom >= 5
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5
    # the same samples do not follow the distribution at another temperature
    hotter = first_token_probabilities(backbone, request, 1.6 * temperature)
    statistic, freedom = text_chi_square(backbone, hotter, observed)
    assert statistic > freedom + 8 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("size", [1, 2, 12, 60])
def test_the_nucleus_includes_the_token_that_reaches_top_p(backbone: Backbone, size: int) -> None:
    (request,) = record_requests(backbone, 1, [0] * 2000)
    ordered = first_token_probabilities(backbone, request, 1.0).sort(descending=True)
    top_p = (ordered.values[: size - 1].sum() + ordered.values[size - 1] / 2).item()
    generator = LocalGenerator(backbone, 1, top_p=top_p)
    texts = {completion.text for completion in generator.generate([request])}
    # 2,000 samples contain every token of the nucleus
    ends = all_end_tokens(backbone)
    assert texts == {
        "" if token in ends else backbone.prompt_tokenizer.decode([token]) for token in ordered.indices[:size].tolist()
    }


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"batch_size": 0}, "batch_size"),
        ({"workers": 0}, "workers"),
        ({"chunk": 0}, "chunk"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
    ],
)
def test_numbers_out_of_range_are_refused(backbone: Backbone, arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=name):
        LocalGenerator(backbone, **arguments)


def test_threads_that_start_later_keep_the_number_of_torch_threads(backbone: Backbone) -> None:
    former = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        list(LocalGenerator(backbone, 2, workers=2, chunk=1).generate(record_requests(backbone, 2)))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(former)


def test_mixed_precision_decodes(tiny_base: Path) -> None:
    backbone = load(tiny_base)  # float32: autocast leaves float64 as it is
    with torch.autocast("cpu", dtype=torch.bfloat16):
        engine = LocalGenerator(backbone, 4, temperature=0.0, workers=1)  # autocast is set per thread
        completions = list(engine.generate(record_requests(backbone, 2)))
    assert len(completions) == 2
