"""Configs and commands in manifests contain no keys and no passwords."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import Namespace

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
        ({"Authorization": ["Bearer abc"], "my_password": "abc", "passphrase": "abc"}, "(not written)"),
        ({"api_token": "abc", "github_token": "abc", "client-secret": "abc"}, "(not written)"),
        ({"secret_key": "abc", "private_key": "abc", "aws_secret_access_key": "abc"}, "(not written)"),
        ({"headers": {"Ocp-Apim-Subscription-Key": "abc"}}, "(not written)"),
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
        "max_new_tokens": "5",
        "token_weights": "own.weights",
        "tokenizer": "base",
        "pad_token": "<pad>",
        "characters_per_token": "4",
        "gold_key": "label",
        "key_variable": "OPENAI_API_KEY",
        "key": "Request",
        "flag": "false 1",
    }
    assert without_secrets(config) == config


def test_a_parsed_config_is_redacted_too() -> None:
    callback = Namespace(class_path="own.Slack", init_args=Namespace(token="abc", channel="a"))
    config = Namespace(trainer=Namespace(callbacks=[callback], by_name={"first": callback}), api_key="abc")
    written = without_secrets(config)
    kept = Namespace(class_path="own.Slack", init_args=Namespace(token="(not written)", channel="a"))
    assert written.trainer == Namespace(callbacks=[kept], by_name={"first": kept})
    assert written.api_key == "(not written)"
    assert callback.init_args.token == "abc"


def test_no_shipped_config_holds_what_counts_as_a_secret() -> None:
    for path in CONFIG.parent.rglob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        assert without_secrets(config) == config, path


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
        "{Ocp-Apim-Subscription-Key: abc, pad_token: b}",
    ]
    assert command_without_secrets(given) == [
        *("predict", "--a.api_key", "(not written)", "--b", "${oc.env:OPENAI_API_KEY}"),
        *("--c=x${oc.env:OPENAI_API_KEY}", "--password=(not written)", "--d", "{api_key: (not written), e: 1}"),
        "{Ocp-Apim-Subscription-Key: (not written), pad_token: b}",
    ]


@given(st.lists(st.text(alphabet="ab-=.: {}$#/", max_size=12), max_size=6))
def test_a_command_without_secrets_is_unchanged(words: list[str]) -> None:
    assert command_without_secrets(words) == words


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text("abc"), lambda inner: st.lists(inner)))
def test_a_config_without_secrets_is_unchanged(value: object) -> None:
    assert without_secrets(value) == value
