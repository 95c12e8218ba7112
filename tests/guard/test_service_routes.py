"""The routes of the service, asked by OpenAI's own client, as LiteLLM's proxy asks, and over plain HTTP."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from guardreasoner.guard import Guard
from guardreasoner.guard.service.app import make_service_app
from guardreasoner.guard.service.judging import GuardService, ServiceLimits
from guardreasoner.tasks import GUARD_TASKS
from tests.support.guards import Saying
from tests.support.services import KEY, echo_guard, echo_service

LITELLM = "/beta/litellm_basic_guardrail_api"
BREAKING_CALL = {
    "id": "call-1",
    "type": "function",
    "index": 0,
    "function": {"name": "shell", "arguments": '{"command": "break it"}'},
}


@pytest.fixture(scope="module")
def service(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> GuardService:
    return echo_service(tiny_base, tmp_path_factory.mktemp("echo") / "echo", queue=16)


@pytest.fixture(scope="module")
def client(service: GuardService) -> Iterator[TestClient]:
    with TestClient(make_service_app(service), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def openai_client(client: TestClient) -> openai.OpenAI:
    return openai.OpenAI(base_url="http://127.0.0.1/v1", api_key="unused", http_client=client, max_retries=0)


def events(text: str) -> list[tuple[str, Any]]:
    """Return names and contents of server-sent events."""
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_moderation_of_one_text(openai_client: openai.OpenAI) -> None:
    reply = openai_client.moderations.create(input="break a kettle")
    assert reply.model == "echo"
    (result,) = reply.results
    assert result.flagged is True
    assert result.categories.model_extra == {"request/harmful": True}
    assert result.category_scores.model_extra == {"request/harmful": 1.0}


def test_moderation_of_many_texts(openai_client: openai.OpenAI) -> None:
    texts = ["mend it", "break it", "mumble", "mend that"]
    reply = openai_client.moderations.create(
        input=texts, model="omni-moderation-latest", extra_body={"speed": "direct"}
    )
    assert [result.flagged for result in reply.results] == [False, True, True, False]
    extras = [result.model_extra or {} for result in reply.results]
    assert [extra["unparsed"] for extra in extras] == [False, False, True, False]
    assert {extra["speed"] for extra in extras} == {"direct"}


def test_moderation_of_content_parts(openai_client: openai.OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "first mend"}, {"type": "text", "text": "then break"}]
    assert [result.flagged for result in openai_client.moderations.create(input=parts).results] == [True]


def test_chat_gives_the_answer_in_the_model_s_own_format(openai_client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "break it"}, {"role": "assistant", "content": "so I break it"}]
    reply = openai_client.chat.completions.create(model="echo", messages=messages, temperature=0, max_tokens=9)
    content = reply.choices[0].message.content or ""
    assert content.startswith("break it")
    assert content.endswith("Answers:\nRequest: harmful\nCompletion: compliance\nResponse: harmful")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 7
    assert reply.usage.prompt_tokens > 20
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 7
    assert (reply.model_extra or {})["guard"]["flagged"] is True


def test_chat_streams(openai_client: openai.OpenAI) -> None:
    stream = openai_client.chat.completions.create(
        model="echo",
        messages=[{"role": "user", "content": "mend it"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.endswith("Response: unharmful")
    assert chunks[-1].usage is not None


@pytest.mark.parametrize("stream", [True, False])
def test_chat_gives_no_text_without_a_clear_verdict(openai_client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        openai_client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "mumble"}], stream=stream
        )
    assert refused.value.code == "unparsed"


def test_unknown_models_are_openai_s_error(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        openai_client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "a"}])
    assert refused.value.code == "model_not_found"
    assert [model.id for model in openai_client.models.list()] == ["echo"]


def test_guard_gives_the_full_result(client: TestClient, service: GuardService) -> None:
    body = {"prompt": "break it", "response": "no", "speed": "direct"}
    answer = client.post("/v1/guard", json=body).json()
    own = {"id": answer["id"], "model": "echo", "usage": answer["usage"]}
    assert answer == {**service.guard.check("break it", "no", speed="direct").as_json(), **own}
    assert answer["speed"] == "direct"


def test_guard_judges_messages(client: TestClient) -> None:
    messages = [
        {"role": "system", "content": "Help."},
        {"role": "user", "content": "mend it"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "mend", "arguments": "{}"}}]},
        {"role": "tool", "content": "mended"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "now break it"},
    ]
    assert client.post("/v1/guard", json={"messages": messages}).json()["flagged"] is True


def test_guard_streams_its_stages(client: TestClient) -> None:
    answer = client.post("/v1/guard", json={"prompt": "break it", "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    assert [name for name, _ in found] == ["accepted", "started", "reasoning", "result"]
    assert found[0][1]["id"] == answer.headers["x-request-id"]
    assert found[2][1]["text"].startswith("break it")
    assert found[3][1] == {**client.post("/v1/guard", json={"prompt": "break it"}).json(), "id": found[0][1]["id"]}


def test_the_guard_says_what_it_is(client: TestClient) -> None:
    about = client.get("/v1/guard").json()
    assert (about["model"], about["speeds"], about["speed"], about["policy"]) == (
        "echo",
        ["reasoned", "direct", "auto"],
        "reasoned",
        False,
    )
    assert [(task["name"], task["flags"], task["flagging"]) for task in about["tasks"]] == [
        ("request", True, ["harmful"]),
        ("completion", False, ["refusal"]),
        ("response", True, ["harmful"]),
    ]


def test_a_stream_that_fails_ends_with_an_error(client: TestClient) -> None:
    found = events(client.post("/v1/guard", json={"prompt": "explode", "stream": True}).text)
    assert [name for name, _ in found] == ["accepted", "started", "error"]
    assert found[2][1]["error"]["code"] == "engine_error"


@pytest.mark.parametrize(
    ("body", "blocked"),
    [
        ({"input_type": "request", "texts": ["mend it"]}, None),
        ({"input_type": "request", "texts": ["mend it", "break it"]}, "request: harmful"),
        ({"input_type": "request", "texts": ["mumble"]}, "no clear verdict"),
        ({"input_type": "request", "texts": ["mend it"], "tool_calls": [BREAKING_CALL]}, "request: harmful"),
        ({"input_type": "request", "texts": [], "tool_calls": [BREAKING_CALL]}, "response: harmful"),
        ({"input_type": "response", "texts": ["I mend it"]}, None),
        ({"input_type": "response", "texts": ["I break it"]}, "response: harmful"),
        ({"input_type": "response", "texts": ["I run it"], "tool_calls": [BREAKING_CALL]}, "response: harmful"),
        ({"input_type": "response", "texts": [], "tool_calls": [BREAKING_CALL]}, "response: harmful"),
        (
            {
                "input_type": "request",
                "texts": ["mend it"],
                "structured_messages": [
                    {"role": "user", "content": "break it"},
                    {"role": "assistant", "content": "no"},
                    {"role": "user", "content": "mend it"},
                ],
            },
            "request: harmful",
        ),
        (
            {
                "input_type": "response",
                "texts": ["fine"],
                "structured_messages": [{"role": "user", "content": "break it"}],
            },
            "request: harmful",
        ),
        ({"input_type": "request", "texts": ["mend it"], "images": ["aGk="]}, "images"),
        (
            {
                "input_type": "request",
                "texts": ["mend it"],
                "images": ["aGk="],
                "additional_provider_specific_params": {"ignore_images": True, "speed": "direct"},
            },
            None,
        ),
        (
            {
                "input_type": "request",
                "texts": ["mend it"],
                "images": ["aGk="],
                "structured_messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "mend it"},
                            {"type": "image_url", "image_url": {"url": "data:,"}},
                        ],
                    }
                ],
                "additional_provider_specific_params": {"ignore_images": True},
            },
            None,
        ),
    ],
)
def test_litellm_s_guardrail(client: TestClient, body: dict[str, Any], blocked: str | None) -> None:
    sent = {
        **{"request_data": {"user_api_key_hash": "x"}, "litellm_call_id": "c", "litellm_trace_id": None},
        **{"images": None, "tools": None, "structured_messages": None, "additional_provider_specific_params": {}},
        **body,
    }
    answer = client.post(LITELLM, json=sent).json()
    if blocked is None:
        assert answer == {"action": "NONE"}
    else:
        assert answer["action"] == "BLOCKED"
        assert blocked in answer["blocked_reason"]


def test_litellm_s_answers_to_an_image_are_judged(client: TestClient) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
    ignoring = {"input_type": "request", "additional_provider_specific_params": {"ignore_images": True}}
    for answer, action in (("I mend it", "NONE"), ("I break it", "BLOCKED")):
        messages = [image, {"role": "assistant", "content": answer}]
        body = {**ignoring, "structured_messages": messages}
        assert client.post(LITELLM, json=body).json()["action"] == action
    assert client.post(LITELLM, json={**ignoring, "structured_messages": [image]}).json() == {"action": "NONE"}


def test_a_text_before_an_ignored_image_stays_the_last_message(tiny_base: Path, tmp_path: Path) -> None:
    engine = Saying(lambda text: "who knows")
    guard = Guard(echo_guard(tiny_base, tmp_path / "asked").backbone, engine)
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
    body = {"input_type": "request", "structured_messages": [{"role": "user", "content": "mend it"}, image]}
    body |= {"additional_provider_specific_params": {"ignore_images": True}}
    app = make_service_app(GuardService(guard, "asked", ServiceLimits()))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.post(LITELLM, json=body)
    assert engine.calls[0][0].rstrip().endswith("Human user:\nmend it\n\nAI assistant:\nNone")


def test_litellm_s_response_needs_a_guard_that_judges_it(tiny_base: Path, tmp_path: Path) -> None:
    service = GuardService(echo_guard(tiny_base, tmp_path / "one-task", GUARD_TASKS[:1]), "echo", ServiceLimits())
    user = [{"role": "user", "content": "mend it"}]
    with TestClient(make_service_app(service), base_url="http://127.0.0.1") as client:
        assert client.post(LITELLM, json={"input_type": "request", "texts": ["mend it"]}).status_code == 200
        for messages in (user, None):
            body = {"input_type": "response", "texts": ["I break it"], "structured_messages": messages}
            refused = client.post(LITELLM, json=body)
            assert refused.status_code == 400
            assert "judges a message of the user alone" in refused.json()["error"]["message"]


def test_an_engine_that_fails_harms_no_other_request(client: TestClient) -> None:
    texts = ["mend it", "explode", "break it"]
    answer = client.post("/v1/moderations", json={"input": texts})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_error")
    assert "secret" not in answer.text
    assert client.post("/v1/guard", json={"prompt": "break it"}).json()["flagged"] is True


def test_the_log_has_no_texts(client: TestClient, service: GuardService, caplog: pytest.LogCaptureFixture) -> None:
    from guardreasoner.guard.service.request_log import JsonLines

    with caplog.at_level(logging.INFO, "guardreasoner.service"):
        client.post("/v1/guard", json={"prompt": "break the violin"}, headers={"authorization": "Bearer sesame"})
        client.post("/v1/guard", json={"prompt": "explode the violin"})
        client.get("/violin")
    lines = [JsonLines(texts=False).format(record) for record in caplog.records]
    assert not any(word in "".join(lines) for word in ("violin", "secret", "sesame"))
    done, failed, refused, unknown = map(json.loads, lines)
    assert (done["route"], done["status"], done["flagged"], done["conversations"]) == ("/v1/guard", 200, 1, 1)
    assert (failed["event"], failed["error"]) == ("engine failed", "RuntimeError")
    assert (refused["status"], refused["code"]) == (500, "engine_error")
    assert (unknown["route"], unknown["status"]) == ("unknown", 404)


def test_texts_are_logged_if_asked(service: GuardService, caplog: pytest.LogCaptureFixture) -> None:
    chatty = GuardService(service.guard, "echo", service.limits, log_texts=True)
    app = make_service_app(chatty)
    with TestClient(app, base_url="http://127.0.0.1") as client, caplog.at_level(logging.INFO, "guardreasoner.service"):
        client.post("/v1/guard", json={"prompt": "break the violin"})
    (line,) = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert line["asked"] == [["break the violin"]]
    assert "violin" in line["answered"][0]


def test_metrics_count(tiny_base: Path, tmp_path: Path) -> None:
    with TestClient(
        make_service_app(echo_service(tiny_base, tmp_path / "echo")), base_url="http://127.0.0.1"
    ) as client:
        client.post("/v1/moderations", json={"input": ["mend", "break", "mumble"]})
        client.post("/v1/guard", json={"prompt": ""})
        text = client.get("/metrics").text
    for line in (
        'guard_conversations_total{speed="reasoned"} 3.0',
        'guard_flagged_total{speed="reasoned"} 2.0',
        'guard_unparsed_total{speed="reasoned"} 1.0',
        'guard_generated_tokens_total{speed="reasoned"} 21.0',
        'guard_requests_total{route="/v1/moderations",status="200"} 1.0',
        'guard_requests_total{route="/v1/guard",status="400"} 1.0',
        'guard_rejected_total{code="invalid_value"} 1.0',
        'guard_batch_size_sum{speed="reasoned"} 3.0',
        'guard_request_seconds_count{route="/v1/moderations",speed="reasoned"} 1.0',
        "guard_queue_length 0.0",
    ):
        assert line in text.splitlines()


def test_openapi_describes_every_route(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.")
    posts = {path for path, methods in described["paths"].items() if "post" in methods}
    assert posts == {"/v1/moderations", "/v1/guard", "/v1/chat/completions", LITELLM}
    for path in posts:
        schema = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["properties"]


def test_a_key_is_required_everywhere_but_by_probes(service: GuardService) -> None:
    other = GuardService(service.guard, "echo", service.limits)
    with TestClient(make_service_app(other, KEY), base_url="http://guard.example") as client:
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        assert "Try the guard" in client.get("/").text
        assert client.get("/v1/guard").status_code == 401
        for headers in (
            {},
            {"authorization": KEY},
            {"authorization": f"Basic {KEY}"},
            {"authorization": f"Bearer {KEY[:-1]}"},
            {"authorization": f"Bearer {KEY}x"},
            {"authorization": "Bearer "},
            {"authorization": "Bearer é".encode("latin-1")},
            [("authorization", "Bearer wrong"), ("authorization", f"Bearer {KEY}")],
        ):
            for path in ("/v1/guard", "/metrics", "/openapi.json", "/nowhere"):
                answer = client.post(path, json={"prompt": "mend"}, headers=headers)  # type: ignore[arg-type]
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert KEY not in answer.text
        right = {"authorization": f"Bearer {KEY}"}
        assert client.post("/v1/guard", json={"prompt": "break"}, headers=right).json()["flagged"] is True


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "evil.example:8080", "[::2]"])
def test_without_a_key_the_host_must_be_this_machine(client: TestClient, host: str) -> None:
    answer = client.post("/v1/guard", json={"prompt": "mend"}, headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1:8080", "[::1]:8080"])
def test_names_of_this_machine(client: TestClient, host: str) -> None:
    assert client.get("/ready", headers={"host": host}).status_code == 200


def test_an_image_in_a_message_is_blocked(client: TestClient) -> None:
    content = [{"type": "text", "text": "mend it"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    body = {"input_type": "request", "structured_messages": [{"role": "user", "content": content}]}
    assert client.post(LITELLM, json=body).json()["action"] == "BLOCKED"
