from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.generators import Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from tests.model.test_backbone import made
from tests.support.tiny import TinySource, load

NEW = 24


@pytest.fixture(scope="module")
def backbone(tiny_base: Path) -> Backbone:
    """In float64, so that a batch's shape does not decide between two near tokens; one token in six ends a text."""
    found = load(tiny_base, double=True)
    found.network.generation_config.eos_token_id = list(range(250, 300))
    return found


def requests(backbone: Backbone, count: int = 6, seeds: Sequence[int] = (0,)) -> list[Request]:
    """Prompts of different lengths."""
    prompt_tokenizer = backbone.prompt_tokenizer
    records = TinySource().records("train")[:count]
    return [Request(r.id, tuple(prompt_tokenizer.prompt(r)), prompt_tokenizer.text(r), tuple(seeds)) for r in records]


def texts(generator: LocalGenerator, asked: Sequence[Request]) -> dict[tuple[str, int], str]:
    found = [((done.record_id, done.index), done.text) for done in generator.generate(asked)]
    assert len(dict(found)) == len(found)
    return dict(found)


def greedy_ids(backbone: Backbone, request: Request) -> list[int]:
    ids = torch.tensor([request.prompt])
    output = backbone.network.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, pad_token_id=0
    )
    return output[0, len(request.prompt) :].tolist()


def greedy_text(backbone: Backbone, request: Request) -> str:
    ids = greedy_ids(backbone, request)
    ends = {backbone.prompt_tokenizer.end, *backbone.network.generation_config.eos_token_id}
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return backbone.prompt_tokenizer.decode(ids[:stop])


def test_greedy_is_that_of_transformers(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(backbone)
    assert len({len(request.prompt) for request in asked}) > 2
    # Some texts end early: the sixth token of one of them is made to end a text.
    more = [*backbone.network.generation_config.eos_token_id, greedy_ids(backbone, asked[2])[5]]
    monkeypatch.setattr(backbone.network.generation_config, "eos_token_id", more)
    found = texts(LocalGenerator(backbone, NEW, temperature=0.0), asked)
    assert found == {(r.record_id, 0): greedy_text(backbone, r) for r in asked}
    assert len({len(text) for text in found.values()}) > 1


def test_greedy_with_a_sliding_window(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(made("Mistral", tiny_base, tmp_path / "m", sliding_window=16), double=True)
    backbone.network.generation_config.eos_token_id = [2, 3]
    asked = requests(backbone, 4)
    found = texts(LocalGenerator(backbone, NEW, temperature=0.0), asked)
    assert found == {(r.record_id, 0): greedy_text(backbone, r) for r in asked}


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_an_output_does_not_depend_on_its_neighbours(backbone: Backbone, top_p: float) -> None:
    asked = requests(backbone, seeds=(0, 0, 7))

    def sampler(batch_size: int) -> LocalGenerator:
        return LocalGenerator(backbone, NEW, temperature=1.0, top_p=top_p, batch_size=batch_size)

    together = texts(sampler(128), asked)
    assert together == texts(sampler(7), asked)
    assert together == texts(sampler(128), asked[::-1])
    alone = [texts(sampler(1), [request]) for request in asked]
    assert together == {key: text for one in alone for key, text in one.items()}


def test_ends_that_come_later_leave_a_text_as_it_was(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(backbone, seeds=range(4))
    found = texts(LocalGenerator(backbone, NEW), asked)
    monkeypatch.setattr(backbone.network.generation_config, "eos_token_id", [2])
    longer = texts(LocalGenerator(backbone, NEW), asked)
    assert all(longer[key].startswith(text.rstrip("\ufffd")) for key, text in found.items())
    assert sum(map(len, longer.values())) > 2 * sum(map(len, found.values()))


def test_seeds_decide(backbone: Backbone) -> None:
    generator = LocalGenerator(backbone, NEW)
    first, again, other = (texts(generator, requests(backbone, 4, (seed, seed))) for seed in (3, 3, 4))
    assert first == again
    assert all(first[key] != other[key] for key in first)
    assert all(first[f"train/0{n}", 0] != first[f"train/0{n}", 1] for n in range(4))  # the index is in the key


def test_every_request_gets_one_output_a_seed(backbone: Backbone) -> None:
    asked = requests(backbone, 5, (1, 2, 3))
    for batch_size in (1, 4, 100):
        found = texts(LocalGenerator(backbone, 4, batch_size=batch_size), iter(asked))  # type: ignore[arg-type]
        assert found.keys() == {(request.record_id, index) for request in asked for index in range(3)}
    assert texts(LocalGenerator(backbone, 4), []) == {}


def test_the_limit_counts_tokens(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(backbone, 1)
    monkeypatch.setattr(backbone.network.generation_config, "eos_token_id", None)
    sizes: list[int] = []
    handle = backbone.network.model.register_forward_hook(lambda *arguments: sizes.append(1))
    for limit in (1, 5):
        sizes.clear()
        texts(LocalGenerator(backbone, limit, temperature=0.0), asked)
        assert len(sizes) == limit
    handle.remove()


def first_token(backbone: Backbone, request: Request, temperature: float) -> Tensor:
    with torch.no_grad():
        logits = backbone.network(input_ids=torch.tensor([request.prompt])).logits[0, -1]
    return (logits.double() / temperature).softmax(-1)


def chi_square(backbone: Backbone, probabilities: Tensor, found: Counter[str]) -> tuple[float, int]:
    """Return the statistic and its degrees of freedom, over texts that are expected five times or more."""
    ends = {backbone.prompt_tokenizer.end, *backbone.network.generation_config.eos_token_id}
    expected: Counter[str] = Counter()
    for token, probability in enumerate(probabilities.tolist()):
        expected["" if token in ends else backbone.prompt_tokenizer.decode([token])] += probability * found.total()
    return chi_square_of(expected, found)


def chi_square_of(expected: Mapping[Any, float], found: Counter[Any]) -> tuple[float, int]:
    """Return the statistic and its degrees of freedom, over what is expected five times or more; the rest is one."""
    assert set(found) <= {one for one, count in expected.items() if count > 0}
    cells = {one if count >= 5 else "rare": [0.0, 0.0] for one, count in expected.items()}
    for one, count in expected.items():
        cell = cells[one if count >= 5 else "rare"]
        cell[0] += count
        cell[1] += found[one]
    return sum((seen - count) ** 2 / count for count, seen in cells.values() if count), len(cells) - 1


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Return the fewest likeliest tokens that together have probability ``top_p``, renormalised."""
    kept, total = torch.zeros_like(probabilities), 0.0
    for token in probabilities.argsort(descending=True).tolist():
        if total >= top_p:
            break
        kept[token] = probabilities[token]
        total += probabilities[token].item()
    return kept / kept.sum()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.9), (0.7, 0.5)])
def test_samples_follow_the_distribution(backbone: Backbone, temperature: float, top_p: float) -> None:
    (request,) = requests(backbone, 1, [0] * 2000)
    generator = LocalGenerator(backbone, 1, temperature=temperature, top_p=top_p)
    found = Counter(done.text for done in generator.generate([request]))
    probabilities = nucleus(first_token(backbone, request, temperature), top_p)
    statistic, freedom = chi_square(backbone, probabilities, found)
    # The statistic has mean f and variance 2 f; the seed is fixed, so this never fails by chance.
    assert freedom >= 5
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5
    # The test can tell: the same samples do not follow another temperature.
    other, freedom = chi_square(backbone, first_token(backbone, request, 1.6 * temperature), found)
    assert other > freedom + 8 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("kept", [1, 2, 12, 60])
def test_the_nucleus_ends_with_the_token_that_fills_it(backbone: Backbone, kept: int) -> None:
    (request,) = requests(backbone, 1, [0] * 2000)
    ordered = first_token(backbone, request, 1.0).sort(descending=True)
    top_p = (ordered.values[: kept - 1].sum() + ordered.values[kept - 1] / 2).item()
    generator = LocalGenerator(backbone, 1, top_p=top_p)
    drawn = Counter(done.text for done in generator.generate([request]))
    # 2,000 samples meet each of its tokens; ends have no text
    ends = {backbone.prompt_tokenizer.end, *backbone.network.generation_config.eos_token_id}
    assert set(drawn) == {
        "" if t in ends else backbone.prompt_tokenizer.decode([t]) for t in ordered.indices[:kept].tolist()
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
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
def test_impossible_numbers_are_refused(backbone: Backbone, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        LocalGenerator(backbone, **arguments)
