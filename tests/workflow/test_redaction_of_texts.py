"""Texts that are shown or written hold no secret of this process, wherever it was given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.workflow.redaction import redacted, remember_secrets, without_keys

KEY = "k3y-0123/456+789abc"


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardreasoner.workflow.redaction._remembered", set())


@pytest.mark.parametrize(
    "config",
    [
        {"key_variable": "MY_SERVER"},
        {"generator": {"extra_body": {"api_key": KEY}}},
        {"headers": [{"Authorization": f"Bearer {KEY}"}]},
        {"base_url": f"https://me:{KEY.replace('/', '%2F')}@host/v1"},
        {"base_url": f"https://host/v1?model=x&api_key={KEY.replace('/', '%2F')}"},
    ],
)
def test_secrets_of_the_config_are_removed_by_value(monkeypatch: pytest.MonkeyPatch, config: dict[str, object]) -> None:
    monkeypatch.setenv("MY_SERVER", KEY)
    assert redacted(f"wrong key {KEY}") == f"wrong key {KEY}"
    remember_secrets(config)
    assert redacted(f"wrong key {KEY}, really") == "wrong key (not written), really"


def test_secrets_of_variables_are_removed_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    assert redacted("401 for hf_0123456789: no") == "401 for (not written): no"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pw@host/v1: refused", "http://…@host/v1: refused"),
        ("GET http://host/v1?api_key=abc&x=1 failed", "GET http://host/v1?api_key=(not written)&x=1 failed"),
        ("{'authorization': 'Bearer abcdefgh.ijk'}", "{'authorization': 'Bearer (not written)'}"),
        ("token: 5, key: Request, me@host, Basic idea", "token: 5, key: Request, me@host, Basic idea"),
    ],
)
def test_secrets_of_others_are_removed_by_their_place(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_answers_lose_keys_but_no_words() -> None:
    remember_secrets({"a": {"api_key": "anything"}, "b": {"api_key": KEY}})
    assert without_keys(f"I say anything, {KEY}, http://a:b@c") == "I say anything, (not written), http://a:b@c"


@given(st.text())
def test_other_texts_are_unchanged(text: str) -> None:
    if "://" not in text and "?" not in text and "&" not in text:
        assert without_keys(text) == text
