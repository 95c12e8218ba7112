"""The interface that all engines share."""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.token_sampler import draws
from tests.support.tiny import command


class Echo(Generator):
    """Generates the prompt's text, a group per two requests."""

    temperature = 0.5  # a class attribute is not a setting

    def __init__(self) -> None:
        self.top_p = 0.9
        self.extra = {"not": "plain"}
        self._private = 1

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        pending = list(requests)
        for start in range(0, len(pending), 2):
            yield [
                Completion(request.record_id, index, request.text)
                for request in pending[start : start + 2]
                for index in range(len(request.seeds))
            ]


class OldEngine(Generator):
    """Implements the interface of earlier versions."""

    def __init__(self, backbone: object = None) -> None: ...

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:  # type: ignore[misc]
        yield from ()


def test_generate_flattens_the_groups_in_order() -> None:
    requests = [Request(f"r{n}", (), f"text {n}", (0, 1)) for n in range(3)]
    completions = list(Echo().generate(requests))
    assert [(c.record_id, c.index) for c in completions] == [(f"r{n}", index) for n in range(3) for index in (0, 1)]


def test_default_settings_are_the_plain_public_attributes() -> None:
    assert Echo().settings == {"top_p": 0.9}


def test_an_engine_that_overrides_generate_is_refused_with_the_method_to_implement() -> None:
    with pytest.raises(InputError, match=r"OldEngine overrides Generator\.generate") as caught:
        OldEngine()  # type: ignore[abstract]
    assert "implement generate_groups" in (caught.value.hint or "")


def test_the_command_line_reports_an_engine_that_overrides_generate(
    tiny_base: Path, workplace: Path, refused: Callable[..., str]
) -> None:
    message = refused(*command("mine", tiny_base, "--model.generator", f"{__name__}.OldEngine"))
    assert "OldEngine overrides Generator.generate" in message


def test_seeds_depend_on_seed_record_and_index() -> None:
    request = Request("a", (), "", (3, 3, 4))
    assert request.rng_key(1) == sha256(b"3\0a\x001").digest()
    seeds = {request.engine_seed(index) for index in range(3)} | {Request("b", (), "", (3,)).engine_seed(0)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_larger_count_does_not_change_earlier_random_numbers() -> None:
    request = Request("a", (1,), "", (3, 3, 4))
    assert draws(request, 1, 5).tolist() == draws(request, 1, 50)[:5].tolist()
    firsts = {draws(request, index, 1).item() for index in range(3)} | {draws(Request("b", (), "", (3,)), 0, 1).item()}
    assert len(firsts) == 4
