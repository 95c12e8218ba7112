"""Scores from a server that returns the log-probabilities of the prompt, and from servers that do not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guardreasoner.errors import InputError
from guardreasoner.generators import ScoreRequest, Scores
from guardreasoner.generators.server import ServerGenerator
from guardreasoner.model.backbone import Backbone
from tests.support.fake_server import QUICK_FAULTS, FakeServer, TokenLogps, random_faults
from tests.support.scoring import label_requests, naive_scores
from tests.support.tiny import load


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")


def generator(base_url: str, backbone: Backbone | None = None, **changes: Any) -> ServerGenerator:
    settings: dict[str, Any] = {"concurrency": 4, "timeout": 60.0, "pause": 0.01, "attempts": 12}
    return ServerGenerator(backbone, base_url=base_url, model="guard", **(settings | changes))


def serving(backbone: Backbone) -> TokenLogps:
    """Return what a server returns that runs a model: log-probabilities of all tokens and one that it generates."""

    def token_logps(prompt: str | list[int]) -> list[float | None]:
        tokenizer = backbone.prompt_tokenizer.tokenizer
        ids = tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
        with torch.inference_mode():
            logps = backbone.network(torch.tensor([ids])).logits[0].log_softmax(-1)
        scored = [float(row[token]) for row, token in zip(logps, ids[1:], strict=False)]
        return [None, *scored, float(logps[-1].max())]

    return token_logps


def numbers(tokens: int) -> TokenLogps:
    return lambda prompt: [None, *(-float(n) for n in range(1, tokens))]


REQUESTS = [
    ScoreRequest("a", (5, 6), ((7,), (7, 8), ())),
    ScoreRequest("b", (5, 6), ()),
    ScoreRequest("c", (5, 6, 7), ((8, 9),)),
    ScoreRequest("d", (5,), ((),)),
]


@pytest.mark.parametrize("settings", [{"chat": False}, {"chat": True}, {"send_ids": False}])
def test_scores_are_those_of_the_model_on_the_server(tiny_base: Path, settings: dict[str, Any]) -> None:
    backbone = load(tiny_base)
    requests = label_requests(backbone, 2)
    as_text = settings.get("send_ids") is False
    if as_text:  # the tokenizer begins no text with a special token
        requests = [replace(request, prompt=request.prompt[1:]) for request in requests]
    with FakeServer(token_logps=serving(backbone)) as server:
        found = list(generator(server.base_url, backbone, **settings).score(requests))
        bodies = server.seen.bodies
    assert [scores.record_id for scores in found] == [request.record_id for request in requests]
    for scores, request in zip(found, requests, strict=True):
        assert scores.logps == pytest.approx(naive_scores(backbone, request), abs=1e-4)
    assert all(isinstance(body["prompt"], str if as_text else list) for body in bodies)
    assert {(body["echo"], body["logprobs"], body["max_tokens"]) for body in bodies} == {(True, 1, 1)}


def test_only_tokens_of_the_continuation_are_summed() -> None:
    def token_logps(prompt: str | list[int]) -> list[float | None]:
        return [None, *(-float(token) for token in prompt[1:]), -99.0]  # type: ignore[arg-type]

    with FakeServer(token_logps=token_logps) as server:
        found = list(generator(server.base_url).score(iter(REQUESTS)))
    assert [(s.record_id, s.logps) for s in found] == [("a", (-7, -15, 0)), ("b", ()), ("c", (-17,)), ("d", (0,))]


def test_fields_of_the_config_do_not_change_what_is_asked() -> None:
    extra = {"top_k": 3, "max_tokens": 900, "max_completion_tokens": 900, "n": 4, "echo": False}
    with FakeServer(token_logps=numbers(3)) as server:
        list(generator(server.base_url, extra_body=extra, temperature=0.7).score([ScoreRequest("a", (5, 6), ((7,),))]))
    assert server.seen.bodies == [
        {"model": "guard", "prompt": [5, 6, 7], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0.0}
        | {"top_k": 3}
    ]


def test_under_faults_every_score_arrives_once_and_in_order() -> None:
    requests = [ScoreRequest(f"r{n}", (n, 6), ((7,), (8,))) for n in range(40)]
    faults = random_faults(0.3, tuple(fault for fault in QUICK_FAULTS if fault != "fewer"))
    with FakeServer(faults, fill=4, token_logps=numbers(3)) as server:
        found = list(generator(server.base_url, attempts=30).score(requests))
    assert [(s.record_id, s.logps) for s in found] == [(f"r{n}", (-2, -2)) for n in range(40)]
    assert server.seen.most == 4


def test_scores_end_before_the_first_request_that_fails() -> None:
    requests = [ScoreRequest(f"r{n}", (n, 2, 3, 4), ((5,),)) for n in range(20)]
    found: list[Scores] = []
    with FakeServer(lambda prompt, times: "400" if prompt[0] == "7" else None, token_logps=numbers(5)) as server:
        scores = generator(server.base_url).score(requests)
        with pytest.raises(InputError, match="record r7: a continuation was not scored: 400 scripted 400") as caught:
            found.extend(scores)
    assert [one.record_id for one in found] == [f"r{n}" for n in range(7)]
    assert "echo" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("token_logps", "message"),
    [
        (None, "returned no log-probabilities"),
        (lambda prompt: [-0.5], "returned no log-probabilities"),  # of the generated token alone
        (numbers(5), "of 5 tokens, but prompt and continuation have 3"),
        (numbers(2), "of 2 tokens, but prompt and continuation have 3"),
        (lambda prompt: [None, None, None, -0.5], "left out"),
        (lambda prompt: [None, -1.0, "None"], "left out"),
    ],
)
def test_a_server_without_usable_log_probabilities_ends_the_run(token_logps: TokenLogps | None, message: str) -> None:
    requests = [ScoreRequest("a", (5, 6), ((7,),))] * 50
    with FakeServer(token_logps=token_logps) as server:
        with pytest.raises(InputError, match=f"record a: .*{message}") as caught:
            list(generator(server.base_url).score(requests))
        assert sum(server.seen.asked.values()) < 50
    assert caught.value.hint


def test_a_token_across_the_boundary_is_refused(tiny_base: Path) -> None:
    backbone = Backbone(str(tiny_base))
    tokenizer = backbone.prompt_tokenizer.tokenizer
    word = max((token for token in tokenizer.get_vocab() if token.isascii() and token.isalpha()), key=len)
    prompt, answer = f"Answers:\n{word[:2]}", f"{word[2:]}: harmful"
    ids = tuple(backbone.prompt_tokenizer.completion(answer)[:-1])
    request = ScoreRequest("a", tuple(tokenizer(prompt)["input_ids"]), (ids,), prompt, (answer,))
    assert tuple(tokenizer(prompt + answer)["input_ids"]) != (*request.prompt, *ids)
    with FakeServer(token_logps=serving(backbone)) as server:
        scores = generator(server.base_url, backbone, send_ids=False).score([request])
        with pytest.raises(InputError, match="record a: the server would see other tokens") as caught:
            list(scores)
        assert "send_ids" in (caught.value.hint or "")
        assert not server.seen.asked


def test_texts_are_sent_with_a_tokenizer_alone(tiny_base: Path) -> None:
    request = ScoreRequest("a", (5, 6), ((7,),), "text", ("more",))
    with pytest.raises(InputError, match="need the backbone"):
        list(generator("http://127.0.0.1:9/v1", send_ids=False).score([request]))
    without_texts = ScoreRequest("a", (5, 6), ((7,),))
    with pytest.raises(InputError, match=r"record a: .* needs the texts"):
        list(generator("http://127.0.0.1:9/v1", Backbone(str(tiny_base)), send_ids=False).score([without_texts]))
