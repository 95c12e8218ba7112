"""Whatever a client sends, it gets an error of OpenAI's form with the right status, and the service lives on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from guardreasoner.guard.service.app import make_service_app
from guardreasoner.guard.service.judging import GuardService, ServiceLimits
from guardreasoner.tasks import POLICY_TASKS
from tests.support.services import echo_guard, echo_service

GUARD, CHAT, MODERATION = "/v1/guard", "/v1/chat/completions", "/v1/moderations"
LITELLM = "/beta/litellm_basic_guardrail_api"
USER = {"role": "user", "content": "hello"}
JSON = {"content-type": "application/json"}
MOST = 20_000
"""Most bytes of a body in these tests."""


@pytest.fixture(scope="module")
def client(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a service with a small queue and a small limit of bodies."""
    app = make_service_app(echo_service(tiny_base, tmp_path_factory.mktemp("echo") / "echo", queue=8, max_body=MOST))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def require_error(answer: Any, status: int, code: str, param: str | None = None) -> None:
    """Fail unless an answer is an error with a status, a code and, if given, the field."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"] == code
    assert param is None or error["param"] == param
    assert "flagged" not in answer.text


def require_alive(client: TestClient) -> None:
    """Fail unless the service still gives a verdict, and has no request left in its queue."""
    answer = client.post(GUARD, json={"prompt": "break it"})
    assert answer.json()["flagged"] is True
    assert "guard_queue_length 0.0" in client.get("/metrics").text


NOT_JSON = {
    "empty": (b"", "not_json"),
    "no JSON": (b"prompt=hello", "not_json"),
    "truncated": (b'{"prompt": "hel', "not_json"),
    "trailing text": (b'{"prompt": "a"} {}', "not_json"),
    "single quotes": (b"{'prompt': 'a'}", "not_json"),
    "comment": (b'{"prompt": "a"} // b', "not_json"),
    "duplicate key": (b'{"prompt": "a", "prompt": "b"}', "not_json"),
    "NaN": (b'{"prompt": NaN}', "not_json"),
    "control character": (b'{"prompt": "a\nb"}', "not_json"),
    "zero bytes": (b"\0\0\0\0", "not_json"),
    "a number with 9,000 digits": (b'{"prompt": ' + b"9" * 9000 + b"}", "not_json"),
    "nested lists": (b"[" * 9000 + b"]" * 9000, "not_json"),
    "nested objects": (b'{"a":' * 3000 + b"1" + b"}" * 3000, "not_json"),
    "bad UTF-8": (b'{"prompt": "\xff\xfe"}', "not_utf8"),
    "Latin-1": ('{"prompt": "é"}'.encode("latin-1"), "not_utf8"),
    "UTF-16": ('{"prompt": "a"}'.encode("utf-16"), "not_utf8"),
    "an encoded surrogate": (b'{"prompt": "\xed\xa0\x80"}', "not_utf8"),
    "overlong": (b'{"prompt": "\xc0\xaf"}', "not_utf8"),
    "a list": (b"[]", "invalid_type"),
    "a string": (b'"hello"', "invalid_type"),
    "null": (b"null", "invalid_type"),
    "a number": (b"7", "invalid_type"),
    "true": (b"true", "invalid_type"),
}


@pytest.mark.parametrize("route", [GUARD, MODERATION])
@pytest.mark.parametrize("name", NOT_JSON)
def test_a_body_that_is_no_json_object(client: TestClient, name: str, route: str) -> None:
    content, code = NOT_JSON[name]
    require_error(client.post(route, content=content, headers=JSON), 400, code)
    require_alive(client)


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


WRONG_FIELDS: dict[str, tuple[str, Any, str, str]] = {
    "nothing": (GUARD, {}, "prompt", "invalid_value"),
    "prompt is a number": (GUARD, {"prompt": 3}, "prompt", "invalid_type"),
    "prompt is infinite": (GUARD, {"prompt": 1e999}, "", "not_json"),
    "prompt is a list": (GUARD, {"prompt": ["a"]}, "prompt", "invalid_type"),
    "prompt is null": (GUARD, {"prompt": None}, "prompt", "invalid_value"),
    "prompt is empty": (GUARD, {"prompt": ""}, "prompt", "invalid_value"),
    "prompt is blank": (GUARD, {"prompt": " \n"}, "prompt", "invalid_value"),
    "prompt has a lone surrogate": (GUARD, {"prompt": "a\ud800"}, "prompt", "invalid_value"),
    "response alone": (GUARD, {"response": "a"}, "prompt", "invalid_value"),
    "response is true": (GUARD, {"prompt": "a", "response": True}, "response", "invalid_type"),
    "response has a lone surrogate": (GUARD, {"prompt": "a", "response": "\udfff"}, "response", "invalid_value"),
    "prompt and messages": (GUARD, {"prompt": "a", "messages": [USER]}, "prompt", "invalid_value"),
    "a misspelt field": (GUARD, {"prompt": "a", "polcy": "b"}, "polcy", "unknown_field"),
    "an odd field": (GUARD, {"prompt": "a", "\ud800" * 90: "b"}, "", "invalid_type"),
    "policy without policies": (GUARD, {"prompt": "a", "policy": "No birds."}, "policy", "invalid_value"),
    "policy is blank": (GUARD, {"prompt": "a", "policy": " "}, "policy", "invalid_value"),
    "policy is an object": (GUARD, {"prompt": "a", "policy": {}}, "policy", "invalid_type"),
    "unknown speed": (GUARD, {"prompt": "a", "speed": "warp"}, "speed", "invalid_type"),
    "stream is a word": (GUARD, {"prompt": "a", "stream": "yes"}, "stream", "invalid_type"),
    "stream of a bad prompt": (GUARD, {"prompt": "", "stream": True}, "prompt", "invalid_value"),
    "a prompt that is too long": (GUARD, {"prompt": "word " * 3000}, "", "invalid_value"),
    "messages is an object": (GUARD, {"messages": USER}, "messages", "invalid_type"),
    "messages are texts": (GUARD, {"messages": ["a"]}, "messages[0]", "invalid_type"),
    "no messages": (GUARD, {"messages": []}, "messages", "invalid_value"),
    "unknown role": (GUARD, {"messages": [{"role": "wizard", "content": "a"}]}, "messages", "invalid_value"),
    "role is a number": (GUARD, {"messages": [{"role": 1, "content": "a"}]}, "messages", "invalid_value"),
    "no role": (GUARD, {"messages": [{"content": "a"}]}, "messages", "invalid_value"),
    "no content": (GUARD, {"messages": [{"role": "user"}]}, "messages", "invalid_value"),
    "content is null": (GUARD, {"messages": [{"role": "user", "content": None}]}, "messages", "invalid_value"),
    "an image": (
        *(CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
        *("messages", "invalid_value"),
    ),
    "nested content": (
        CHAT,
        {"messages": [{"role": "user", "content": nested(90)}]},
        "messages",
        "invalid_value",
    ),
    "no message of the user": (CHAT, {"messages": [{"role": "system", "content": "a"}]}, "messages", "invalid_value"),
    "a result without a call": (
        *(CHAT, {"messages": [USER, {"role": "tool", "content": "a"}]}),
        *("messages", "invalid_value"),
    ),
    "a call without a name": (
        *(CHAT, {"messages": [USER, {"role": "assistant", "tool_calls": [{}]}]}),
        *("messages", "invalid_value"),
    ),
    "a surrogate in a message": (CHAT, {"messages": [{**USER, "content": "\udc00"}]}, "messages", "invalid_value"),
    "chat without messages": (CHAT, {"model": "echo"}, "messages", "missing_field"),
    "chat with a prompt": (CHAT, {"prompt": "a"}, "messages", "missing_field"),
    "several answers": (CHAT, {"messages": [USER], "n": 2}, "n", "invalid_value"),
    "log-probabilities": (CHAT, {"messages": [USER], "logprobs": True}, "logprobs", "invalid_value"),
    "model is a number": (CHAT, {"messages": [USER], "model": 4}, "model", "invalid_type"),
    "moderation of nothing": (MODERATION, {}, "input", "missing_field"),
    "input is null": (MODERATION, {"input": None}, "input", "invalid_type"),
    "input is a number": (MODERATION, {"input": 3}, "input", "invalid_type"),
    "input is an object": (MODERATION, {"input": {"text": "a"}}, "input", "invalid_type"),
    "input is empty": (MODERATION, {"input": ""}, "prompt", "invalid_value"),
    "input is an empty list": (MODERATION, {"input": []}, "input", "invalid_value"),
    "input has an empty text": (MODERATION, {"input": ["a", ""]}, "input[1]", "invalid_value"),
    "input has a surrogate": (MODERATION, {"input": ["a", "b", "\ud8ab"]}, "input[2]", "invalid_value"),
    "input has tokens": (MODERATION, {"input": [1, 2, 3]}, "input[0]", "invalid_type"),
    "input has lists": (MODERATION, {"input": [["a"]]}, "input[0]", "invalid_type"),
    "input has an image": (MODERATION, {"input": [{"type": "image_url", "image_url": {}}]}, "input", "invalid_value"),
    "input is mixed": (MODERATION, {"input": ["a", {"type": "text", "text": "b"}]}, "input", "invalid_value"),
    "a part without text": (MODERATION, {"input": [{"type": "text"}]}, "input", "invalid_value"),
    "a huge list": (MODERATION, {"input": ["a"] * 999}, "input", "too_many"),
    "no input type": (LITELLM, {"texts": ["a"]}, "input_type", "missing_field"),
    "unknown input type": (LITELLM, {"texts": ["a"], "input_type": "audio"}, "input_type", "invalid_type"),
    "no texts": (LITELLM, {"input_type": "request"}, "texts", "invalid_value"),
    "blank texts": (LITELLM, {"texts": [" "], "input_type": "request"}, "texts", "invalid_value"),
    "texts is a string": (LITELLM, {"texts": "a", "input_type": "request"}, "texts", "invalid_type"),
    "unknown speed of a proxy": (
        *(LITELLM, {"texts": ["a"], "input_type": "request", "additional_provider_specific_params": {"speed": "x"}}),
        *("additional_provider_specific_params.speed", "invalid_value"),
    ),
    "policy of a proxy is a list": (
        *(LITELLM, {"texts": ["a"], "input_type": "request", "additional_provider_specific_params": {"policy": []}}),
        *("additional_provider_specific_params.policy", "invalid_value"),
    ),
}


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_a_body_with_a_wrong_field(client: TestClient, name: str) -> None:
    route, body, param, code = WRONG_FIELDS[name]
    answer = client.post(route, content=json.dumps(body), headers=JSON)
    require_error(answer, 400, code, param or None)
    require_alive(client)


@pytest.mark.parametrize("route", [CHAT, MODERATION])
@pytest.mark.parametrize("model", ["gpt-9", "", "echo ", "../echo", "\ud800", "x" * 5000])
def test_an_unknown_model(client: TestClient, route: str, model: str) -> None:
    body = {"model": model, "messages": [USER], "input": "a"}
    require_error(client.post(route, content=json.dumps(body), headers=JSON), 404, "model_not_found", "model")


@pytest.mark.parametrize("route", [GUARD, CHAT, MODERATION, LITELLM])
@pytest.mark.parametrize("size", [MOST + 1, 10_000_000])
def test_a_body_that_is_too_large(client: TestClient, route: str, size: int) -> None:
    require_error(client.post(route, content=b"x" * size, headers=JSON), 413, "body_too_large")
    require_alive(client)


def test_a_large_body_without_a_length(client: TestClient) -> None:
    parts = (b" " * 1000 for _ in range(1000))
    require_error(client.post(GUARD, content=parts, headers=JSON), 413, "body_too_large")


def test_the_largest_body_is_read(client: TestClient) -> None:
    body = b'{"prompt": "break"}'
    assert client.post(GUARD, content=body + b" " * (MOST - len(body)), headers=JSON).json()["flagged"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/jsonp"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "\u00ff" * 9},
        {**JSON, "content-encoding": "gzip"},
    ],
    ids=str,
)
def test_another_content_type(client: TestClient, headers: dict[str, str]) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = client.post(GUARD, content=b'{"prompt": "a"}', headers=encoded)  # type: ignore[arg-type]
    assert answer.json()["error"]["code"] in ("not_json_type", "encoded_body")
    require_error(answer, 415, answer.json()["error"]["code"])


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", 'application/json;charset="UTF-8"']
)
def test_a_content_type_that_is_spelled_otherwise(client: TestClient, kind: str) -> None:
    answer = client.post(GUARD, content=b'{"prompt": "break"}', headers={"content-type": kind})
    assert answer.json()["flagged"] is True


@pytest.mark.parametrize(
    ("route", "method"),
    [
        *((GUARD, method) for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "BREW")),
        *((LITELLM, method) for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")),
    ],
)
def test_another_method(client: TestClient, route: str, method: str) -> None:
    answer = client.request(method, route)
    require_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/v1", "/v1/guard/", "/v1/embeddings", "/%2e%2e/etc/passwd", "/v1/guard%00", "/docs"])
def test_an_unknown_path(client: TestClient, path: str) -> None:
    answer = client.post(path, json={"prompt": "a"}, follow_redirects=False)
    require_error(answer, 404, "not_found")


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é", "a\tb", '"', "-", "../../x"])
def test_a_request_id_that_is_not_sane_is_replaced(client: TestClient, given: str) -> None:
    answer = client.get("/health", headers={"x-request-id": given.encode("latin-1")})  # type: ignore[dict-item]
    assert answer.status_code == 200
    assert len(answer.headers["x-request-id"]) == 32


def test_a_sane_request_id_is_kept(client: TestClient) -> None:
    answer = client.post(GUARD, json={"prompt": "a"}, headers={"x-request-id": "req-1.2_3"})
    assert answer.headers["x-request-id"] == answer.json()["id"] == "req-1.2_3"


@pytest.mark.parametrize("length", ["-1", "abc", "9" * 40, "1e3"])
def test_an_odd_length_is_not_believed(client: TestClient, length: str) -> None:
    answer = client.post(GUARD, content=b'{"prompt": "break"}', headers={**JSON, "content-length": length})
    assert answer.json()["flagged"] is True


def test_a_guard_with_policies_needs_one(tiny_base: Path, tmp_path: Path) -> None:
    guard = echo_guard(tiny_base, tmp_path / "policies", POLICY_TASKS)
    app = make_service_app(GuardService(guard, "by-policy", ServiceLimits()))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        require_error(client.post(GUARD, json={"prompt": "a"}), 400, "invalid_value", "policy")
        require_error(client.post(MODERATION, json={"input": ["a", "b"]}), 400, "invalid_value", "input[0]")
        # the engine of these tests gives no verdict on the policy
        answer = client.post(GUARD, json={"prompt": "a", "policy": "1. No birds."}).json()
        assert (answer["flagged"], answer["unparsed"]) == (True, True)
