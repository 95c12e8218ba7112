"""Configs and commands in manifests contain no keys and no passwords."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.redaction import command_without_secrets, without_secrets

CONFIG = Path(__file__).parents[2] / "configs" / "synthesize.yaml"
KEY = "sk-0123456789abcdef"


def test_values_of_secret_variables_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://teacher.example/v1")
    flags = ["--model.generator.extra_body", "{user: '${oc.env:OPENAI_API_KEY}'}"]
    config = resolve(["predict", "--config", str(CONFIG), *flags]).config
    assert KEY in json.dumps(config)
    written = without_secrets(config)
    assert KEY not in json.dumps(written)
    generator = written["model"]["init_args"]["generator"]["init_args"]
    assert generator["extra_body"] == {"user": "${oc.env:OPENAI_API_KEY}"}
    assert generator["base_url"] == "http://teacher.example/v1"
    assert generator["max_tokens"] == 2048


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({"api_key": "abc", "x-api-key": "abc", "token": "abc", "hf_token": "abc"}, "(not written)"),
        ({"Authorization": ["Bearer abc"], "my_password": "abc"}, "(not written)"),
        ({"base_url": "https://me:abc@teacher.example/v1"}, "https://…@teacher.example/v1"),
    ],
)
def test_values_of_secret_keys_are_redacted(given: dict[str, str], written: str) -> None:
    assert "abc" not in json.dumps(without_secrets(given))
    assert written in json.dumps(without_secrets(given), ensure_ascii=False)


def test_harmless_names_are_not_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("PASS_NUMBER", "1")
    config = {
        "max_tokens": 5,
        "pad_token": "<pad>",
        "key_variable": "OPENAI_API_KEY",
        "key": "Request",
        "flag": "false 1",
    }
    assert without_secrets(config) == config


def test_secrets_in_a_command_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    given = [
        "predict",
        "--a.api_key",
        "abc",
        "--b",
        KEY,
        f"--c=x{KEY}",
        "--password=abc",
        "--d",
        "{api_key: 'abc', e: 1}",
    ]
    assert command_without_secrets(given) == [
        *("predict", "--a.api_key", "(not written)", "--b", "${oc.env:OPENAI_API_KEY}"),
        *("--c=x${oc.env:OPENAI_API_KEY}", "--password=(not written)", "--d", "{api_key: (not written), e: 1}"),
    ]


@given(st.lists(st.text(alphabet="ab-=.: {}$#/", max_size=12), max_size=6))
def test_a_command_without_secrets_is_unchanged(words: list[str]) -> None:
    assert command_without_secrets(words) == words


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text("abc"), lambda inner: st.lists(inner)))
def test_a_config_without_secrets_is_unchanged(value: object) -> None:
    assert without_secrets(value) == value
